"""Whether arrays fit a network: every name and shape of both sides, before anything is written."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from googlenet.config import ModelConfig
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
    told = [f"{what} {_listed(names)}" for what, names in parts.items() if names]
    if told:
        raise InputError(f"{source} does not fit the network: {'; '.join(told)}. {remedy}")


def config_of(variant: str, arrays: Mapping[str, np.ndarray]) -> ModelConfig:
    """Return what another framework's arrays, by canonical name, say of the network: classes and heads."""
    bias = arrays.get("classifier/bias")
    heads = [head for head in HEADS.values() if any(name.startswith(f"{head}/") for name in arrays)]
    return ModelConfig(variant=variant, classes=1000 if bias is None or not bias.size else bias.size,
                       heads="both" if len(heads) == len(HEADS) else "".join(heads) or "none")


def apply(model: GoogLeNet, arrays: Mapping[str, np.ndarray], source: str = "the file") -> None:
    """Copy arrays, by canonical name, into the network's parameters.

    Raises InputError, and changes nothing, where names, shapes or the number of classes differ, or where values are not
    finite numbers."""
    parameters = dict(model.named_parameters())
    classes = arrays["classifier/bias"].size if "classifier/bias" in arrays else model.config.classes
    if classes != model.config.classes:
        raise InputError(f"{source} has {classes} classes, the network {model.config.classes}: "
                         f"build the network with classes={classes}, or train a file for {model.config.classes}")
    require_same({path: parameter.shape for path, parameter in parameters.items()},
                 {path: array.shape for path, array in arrays.items()}, source,
                 "Build the network with the configuration that the file was written with.")
    for path, array in arrays.items():
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise InputError(f"{source}: {path} ({array.dtype}) holds values that are not finite numbers: "
                             "take an earlier checkpoint")
    for path, parameter in parameters.items():
        parameter.data[...] = arrays[path]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
