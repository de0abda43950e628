"""From a file's contents to our weights, and back: whose names they bear, and what stands where.

Nothing is guessed and nothing is dropped in silence: every array of the network must be in the file, in the shape that
the scheme says, and every array of the file must be one of the network's or is named in the notes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from googlenet.classes import BACKGROUND
from googlenet.config import ModelConfig, to_json
from googlenet.model import HEAD_CHANNELS, HEADS, GoogLeNet, scaled
from googlenet.weights.configuration import configuration
from googlenet.weights.contents import Contents, Place
from googlenet.weights.fitting import listed, require_same
from googlenet.weights.layouts import shape_there, to_ours, to_theirs
from googlenet.weights.preprocessing import preprocessing_for
from googlenet.weights.schemes import SCHEMES, Scheme
from googlenet.weights.weights import Source, Weights
from minigrad.errors import InputError

PUBLISHED_SLIM = 1001  # classes, the first of them the background
WRAPPED = "module."
CAFFE_VARIANTS = ("paper", "caffe", "onnx-inception-v1")  # the networks whose arrays are Caffe's

Shapes = dict[str, tuple[int, ...]]
Places = Mapping[str, Place]


def place(contents: Contents, file: str, sha256: str, *, image_size: int | None = None) -> Weights:
    """Return the weights that a file holds. `image_size` is for files that do not tell it; without it, it is 224.

    Raises InputError where names or shapes are missing, unknown or wrong, and lists both sides; and where the file
    tells another image size."""
    contents = _unwrapped(contents)
    graph, own = contents.graph, contents.metadata
    scheme = None if graph and graph.places else scheme_of(contents, file)
    config = configuration(contents, scheme, file, image_size)
    shapes = _shapes(config, file)
    places = graph.places if graph and graph.places else _places(scheme, config, shapes)  # type: ignore[arg-type]
    expected = {each.name: shape_there(shapes[path], each) for path, each in places.items() if path in shapes}
    left = _no_weights(contents, scheme, expected)
    found = {name: _as_shaped(array, expected.get(name)) for name, array in contents.arrays.items() if name not in left}
    require_same(expected, {name: array.shape for name, array in found.items()}, file,
                 f"Expected the arrays of the variant {config.variant}, by the names of "
                 f"{scheme.framework if scheme else 'the graph'}, for images of {config.image_size} pixels "
                 "(--image-size, which counts for heads)")
    _require_all(places, shapes, file)
    _require_numbers(found, file)
    arrays = {path: to_ours(found[places[path].name], places[path]) for path in shapes}
    preprocessing, taken = preprocessing_for(contents, config, scheme, file)
    source = Source(Path(file).name, contents.format, sha256,
                    {path: f"{places[path].name} {places[path].layout}" for path in shapes},
                    (*contents.notes, *taken, *_told(left)))
    return Weights(config, arrays, _classes(own, config, scheme, file), preprocessing, source)


def _unwrapped(contents: Contents) -> Contents:
    """Return the contents without the prefix that torch's DataParallel puts before every name."""
    if not contents.arrays or not all(name.startswith(WRAPPED) for name in contents.arrays):
        return contents
    return replace(contents, arrays={name.removeprefix(WRAPPED): array for name, array in contents.arrays.items()},
                   notes=(*contents.notes, f"every name begins with {WRAPPED!r}, which was left out"))


def scheme_of(contents: Contents, file: str) -> Scheme:
    """Return the scheme that most of the names follow. Raises InputError where none has half of its own."""
    arrays = contents.arrays
    keras = contents.format.startswith("Keras")
    fits = {key: len(scheme.known() & arrays.keys()) / len(scheme.known()) for key, scheme in SCHEMES.items()
            if key.startswith("keras") == keras}
    best = max(fits, key=lambda key: fits[key])
    if fits[best] < 0.5:
        shown = listed([f"{name} {array.shape}" for name, array in arrays.items()])
        frameworks = ", ".join(dict.fromkeys(scheme.framework.partition(",")[0] for scheme in SCHEMES.values()))
        raise InputError(f"{file} ({contents.format}) holds no GoogLeNet that is known by its names: "
                         f"{shown or 'no arrays'}. Known are the names of {frameworks}: give weights of one of "
                         "these, or let inspect show what this file holds")
    if keras:  # both have the same names; Theano's kernels begin with the output channels
        first = arrays.get("conv1/7x7_s2/weight")
        return SCHEMES["keras" if first is not None and first.shape[:2] == (7, 7) else "keras (Theano)"]
    return SCHEMES[best]


def foreign(weights: Weights, key: str) -> dict[str, np.ndarray]:
    """Return the arrays in another framework's names and layouts, `key` one of SCHEMES.

    Raises InputError for a network that the framework's names can't hold."""
    scheme, config = SCHEMES[key], weights.config
    if scheme.variant == "caffe" and config.variant not in CAFFE_VARIANTS:
        raise InputError(f"the names of {scheme.framework} are for its own network, not for the variant "
                         f"{config.variant}: export to .safetensors or .onnx")
    places = _places(scheme, config, {path: array.shape for path, array in weights.arrays.items()})
    absent = [path for path in weights.arrays if path not in places]
    if absent:
        raise InputError(f"{scheme.framework} has no name for {listed(absent)}: export to .onnx")
    return {places[path].name: to_theirs(array, places[path]) for path, array in weights.arrays.items()}


def texts(weights: Weights) -> dict[str, str]:
    """Return what travels with the weights as texts, for formats that carry such; `place` reads them back."""
    return {"config": to_json(weights.config), "classes": "\n".join(weights.classes),
            "preprocessing": weights.preprocessing.to_json()}


def _shapes(config: ModelConfig, file: str) -> Shapes:
    """Return the shapes of the network's arrays. Raises InputError for a network that no memory can hold."""
    try:
        return {path: array.shape for path, array in GoogLeNet(config).state().items()}
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    except (MemoryError, OverflowError, ValueError) as error:
        raise InputError(f"{file} describes a network of width {config.width:g} for images of {config.image_size} "
                         f"pixels, which can't be built ({error}): use another copy of it") from error


def _places(scheme: Scheme, config: ModelConfig, shapes: Shapes) -> dict[str, Place]:
    channels = {f"{head}/fc/weight": scaled(HEAD_CHANNELS, config.width) for head in HEADS.values()}
    found = {path: scheme.place(path, shape, channels.get(path, 0)) for path, shape in shapes.items()}
    return {path: each for path, each in found.items() if each}


def _no_weights(contents: Contents, scheme: Scheme | None, expected: Shapes) -> list[str]:
    """Return the names that hold no weights: by the scheme, or because the graph's weights were found elsewhere."""
    rest = [name for name in contents.arrays if name not in expected]
    return rest if scheme is None else [name for name in rest if re.fullmatch(scheme.none, name)]


def _told(left: list[str]) -> tuple[str, ...]:
    return (f"left out, as they are no weights: {listed(left)}",) if left else ()


def _as_shaped(array: np.ndarray, shape: tuple[int, ...] | None) -> np.ndarray:
    """Return the array without axes of one that it has too many: old Caffe's have four axes, MATLAB's at least two."""
    if shape is None or array.ndim <= len(shape):
        return array
    same = [size for size in array.shape if size != 1] == [size for size in shape if size != 1]
    return array.reshape(shape) if same else array


def _require_all(places: Places, shapes: Shapes, file: str) -> None:
    absent = [path for path in shapes if path not in places]
    unknown = [path for path in places if path not in shapes]
    if absent or unknown:
        told = {"nothing in it is": absent, "the network has no": unknown}
        raise InputError(f"{file} does not fit the network: "
                         + "; ".join(f"{what} {listed(paths)}" for what, paths in told.items() if paths)
                         + ". Give a file of the whole network")


def _require_numbers(found: Mapping[str, np.ndarray], file: str) -> None:
    whole = [f"{name} ({array.dtype})" for name, array in found.items() if array.dtype.kind != "f"]
    if whole:
        raise InputError(f"{file}: {listed(whole)}: expected floating-point numbers, as weights are; where these are "
                         "quantised, multiply them by their scales")


def _classes(own: Mapping[str, str], config: ModelConfig, scheme: Scheme | None, file: str) -> tuple[str, ...]:
    """Return the classes' names; digits stand for names nobody gave.

    Raises InputError where the file names another number of them than the network has."""
    if "classes" in own:
        names = tuple(own["classes"].split("\n"))  # not splitlines, which takes other characters for ends as well
        if len(names) != config.classes:
            raise InputError(f"{file} names {len(names)} classes for a network of {config.classes}: name them all, or "
                             "take out its text 'classes'")
        return names
    if scheme is SCHEMES["slim"] and config.classes == PUBLISHED_SLIM:
        return (BACKGROUND, *map(str, range(config.classes - 1)))
    return tuple(map(str, range(config.classes)))
