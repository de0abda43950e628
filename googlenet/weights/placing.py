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
from googlenet.config import ModelConfig, from_json, to_json
from googlenet.model import HEAD_CHANNELS, HEADS, VARIANTS, GoogLeNet, lrn_of, scaled
from googlenet.weights.contents import Contents, Graph, Place
from googlenet.weights.fitting import listed, require_same
from googlenet.weights.layouts import shape_there, to_ours, to_theirs
from googlenet.weights.preprocessing import preprocessing_for
from googlenet.weights.schemes import BRANCHES, SCHEMES, Scheme
from googlenet.weights.weights import Source, Weights
from minigrad.errors import InputError

FEATURES = 1024  # of the classifier's input, at full width
MOST_DIGITS = 6  # of a width behind the point
PUBLISHED_SLIM = 1001  # classes, the first of them the background
USUAL_SIZE = 224  # pixels, of the input
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
    if "config" in own:
        config = _told_config(own["config"], graph, file)
    else:
        config = _config(contents, scheme, file, image_size or USUAL_SIZE)
    require_size(config, image_size, file)
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


def require_size(config: ModelConfig, image_size: int | None, file: str) -> None:
    """Raise InputError where a size is asked for, and the file tells another one."""
    if image_size and image_size != config.image_size:
        raise InputError(f"{file} is of a network for images of {config.image_size} pixels, not {image_size}: "
                         "leave out --image-size")


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


def _config(contents: Contents, scheme: Scheme | None, file: str, image_size: int) -> ModelConfig:
    """Return what the file says of the network: variant, classes, heads, width and batch norm."""
    graph, arrays = contents.graph, contents.arrays
    variant = graph.variant if graph else scheme.variant if scheme else "caffe"

    def there(path: str, shape: tuple[int, ...]) -> Place | None:
        found = graph.places.get(path) if graph and graph.places else scheme and scheme.place(path, shape)
        return found if found and found.name in arrays else None

    bias, weight = there("classifier/bias", (0,)), there("classifier/weight", (0, 0))
    if not bias or not weight or not arrays[bias.name].size or arrays[weight.name].ndim < 2:
        raise InputError(f"{file} has no classifier, so that neither classes nor width are known: give the whole "
                         f"network's weights; it holds {listed([f'{n} {a.shape}' for n, a in arrays.items()])}")
    heads = [head for head in HEADS.values() if there(f"{head}/conv/weight", (0,) * 4)]
    folded = not there("conv1/batch_norm/mean", (0,)) if VARIANTS[variant].batch_norm else False
    classes = arrays[bias.name].size
    features = arrays[weight.name].shape[-1 if weight.layout == "OI" else -2]
    convolutions = {layer: there(f"{layer}/weight", (0,) * 4) for layer in _full_channels(variant)}
    outputs = {layer: arrays[each.name].shape[each.layout.index("O")] for layer, each in convolutions.items()
               if each and arrays[each.name].ndim == 4}
    if graph and graph.image_size:
        image_size = graph.image_size
    return ModelConfig(variant=variant, classes=classes, image_size=image_size,
                       heads="both" if len(heads) == len(HEADS) else "".join(heads) or "none",
                       width=_width(max(features, 1) / FEATURES, outputs, variant), lrn=graph.lrn if graph else "",
                       batch_norm="folded" if folded else "learned", dropout=VARIANTS[variant].dropout)


def _full_channels(variant: str) -> dict[str, int]:
    """Return the output channels of convolutions at full width."""
    channels = {}
    for row in VARIANTS[variant].table:
        if row.type == "convolution":
            channels[row.name] = row.output
        elif row.type == "inception":
            channels |= {f"{row.name}/{branch}": count for branch, count in zip(BRANCHES, row[5:], strict=True)}
    return channels


def _width(usual: float, outputs: Mapping[str, int], variant: str) -> float:
    """Return the width at which the convolutions have these outputs: `usual`, or the number of fewest digits.

    Channels are multiples of 4, so that a range of widths gives the same. Where none does it is `usual`, and placing
    tells what differs."""
    full = _full_channels(variant)
    low = max(((found - 2) / full[layer] for layer, found in outputs.items() if found > 4), default=0.0)
    high = min(((found + 2) / full[layer] for layer, found in outputs.items()), default=0.0)
    shortest = (round((low + high) / 2, digits) for digits in range(1, MOST_DIGITS + 1))
    return next((width for width in (usual, *shortest)
                 if width > 0 and all(scaled(full[layer], width) == found for layer, found in outputs.items())), usual)


def _told_config(text: str, graph: Graph | None, file: str) -> ModelConfig:
    """Return the configuration that a file carries as a text.

    Raises InputError where it is none, or the file's graph computes another."""
    try:
        told = from_json(ModelConfig, text)
        lrn = lrn_of(told)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    if graph:
        found = replace(told, variant=graph.variant, lrn=graph.lrn)
        if (told.variant, lrn) != (found.variant, lrn_of(found)):
            raise InputError(f"{file} says that it is {told.variant} with {lrn}, but its graph computes "
                             f"{found.variant} with {lrn_of(found)}: it was edited; take out its text 'config'")
    return told


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
        raise InputError(f"{file} does not fit the network: nothing in it is {listed(absent) or 'absent'}; the network "
                         f"has no {listed(unknown) or 'other'}. Give a file of the whole network")


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
