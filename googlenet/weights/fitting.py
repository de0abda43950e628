"""Whether arrays fit a network: every name and shape of both sides, before anything is written."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import groupby

import numpy as np

from googlenet.model import HEADS, GoogLeNet
from minigrad.errors import InputError

Shapes = Mapping[str, tuple[int, ...]]
SHOWN = 8  # names in a message; the rest is counted


def require_same(expected: Shapes, found: Shapes, source: str, remedy: str) -> None:
    """Raise one InputError that names what is missing, what is unknown, and which shapes differ."""
    missing = [f"{name} {shape}" for name, shape in expected.items() if name not in found]
    unknown = [f"{name} {shape}" for name, shape in found.items() if name not in expected]
    differing = [f"{name} {found[name]} where the network has {shape}"
                 for name, shape in expected.items() if name in found and found[name] != shape]
    parts = {"it lacks": missing, "the network lacks": unknown, "shapes differ:": differing}
    told = [f"{what} {listed(names)}" for what, names in parts.items() if names]
    if told:
        raise InputError(f"{source} does not fit the network: {'; '.join(told)}. {remedy}")


def apply(model: GoogLeNet, arrays: Mapping[str, np.ndarray], source: str = "the file") -> None:
    """Copy arrays, by canonical name, into the network's parameters and running statistics.

    Raises InputError, and changes nothing, where names, shapes or the number of classes differ, or where values are not
    finite numbers."""
    own = model.state()
    classes = arrays["classifier/bias"].size if "classifier/bias" in arrays else model.config.classes
    if classes != model.config.classes:
        raise InputError(f"{source} has {classes} classes, the network {model.config.classes}: "
                         f"build the network with classes={classes}, or train a file for {model.config.classes}")
    require_same({path: array.shape for path, array in own.items()},
                 {path: array.shape for path, array in arrays.items()}, source,
                 "Build the network with the configuration that the file was written with.")
    cast = _finite(arrays, model.config.dtype, source)
    for path, array in own.items():
        array[...] = cast[path]


def transfer(model: GoogLeNet, arrays: Mapping[str, np.ndarray], source: str) -> list[str]:
    """Copy trained arrays into a network for another task; return its layers that keep what they have.

    These are classifiers of other classes, and heads that the arrays lack or whose grid is another one. Raises
    InputError, and changes nothing, where any other array differs."""
    own = model.state()
    fresh = [path for path in own if _may_differ(path) and arrays.get(path, np.empty(0)).shape != own[path].shape]
    layers = {path.rpartition("/")[0] for path in fresh}
    wanted = {path: array for path, array in own.items() if path.rpartition("/")[0] not in layers}
    taken = {path: array for path, array in arrays.items() if path in wanted or not _may_differ(path)}
    require_same({path: array.shape for path, array in wanted.items()},
                 {path: array.shape for path, array in taken.items()}, source,
                 "Weights of another variant, width or module can't begin this network.")
    cast = _finite({path: taken[path] for path in wanted}, model.config.dtype, source)
    for path, array in cast.items():
        own[path][...] = array
    return sorted(layers)


def spans(some: Collection[str], paths: Iterable[str]) -> str:
    """Return some of a network's paths in few words: `conv1..inception_5b, aux1/conv, aux1/fc`.

    Parts that follow each other whole, in the order of `paths`, are named by the first and the last of them."""
    parts: dict[str, list[str]] = {}
    for path in paths:
        parts.setdefault(path.partition("/")[0], []).append(path)
    named: list[str] = []
    for whole, group in groupby(parts, key=lambda part: all(path in some for path in parts[part])):
        run = list(group)
        if whole:
            named.append(run[0] if len(run) == 1 else f"{run[0]}..{run[-1]}")
        else:
            named += dict.fromkeys(path.rpartition("/")[0] for part in run for path in parts[part] if path in some)
    return ", ".join(named)


def _may_differ(path: str) -> bool:
    return path.startswith(("classifier/", *(f"{head}/" for head in HEADS.values())))


def _finite(arrays: Mapping[str, np.ndarray], dtype: str, source: str) -> dict[str, np.ndarray]:
    """Return the arrays in this precision. Raises InputError where one is not of finite numbers in it."""
    cast = {}
    for path, array in arrays.items():
        if array.dtype.kind != "f":
            raise InputError(f"{source}: {path} is of {array.dtype}: expected floating-point numbers, as weights are")
        with np.errstate(over="ignore"):
            cast[path] = array.astype(dtype, copy=False)
        if not np.isfinite(cast[path]).all():
            raise InputError(f"{source}: {path} ({array.dtype}) holds values that are not finite numbers in {dtype}: "
                             "take another copy, or an earlier checkpoint")
    return cast


def listed(names: list[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
