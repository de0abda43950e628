"""Caffe's models, read with layers of versions 1 and 2, written with those of version 2, and its mean images.

Both are protocol buffers: a `.caffemodel` is a NetParameter, a list of layers that have blobs; a mean image, often a
`.binaryproto`, is one BlobProto.

Old files state a blob's shape by four numbers, so that a fully connected layer's weight is (1, 1, O, I) and a bias
(1, 1, 1, O); the ones are dropped here where the layer's type says what the blob is. Where a blob has the four numbers
and a shape, the numbers count, and where it has values of both precisions, the doubles do, as in Caffe.

Arrays are named by layer: `conv1/7x7_s2/weight` and `conv1/7x7_s2/bias` for its first two blobs, `conv1/7x7_s2/2` for a
third.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from googlenet.weights.contents import Contents
from googlenet.weights.files import read_whole, write_whole
from googlenet.weights.formats import protobuf
from googlenet.weights.formats.elements import shape_of
from googlenet.weights.formats.message_kind import kind_of
from googlenet.weights.formats.protobuf import Field, last
from googlenet.weights.formats.wording import DAMAGED, shown, shown_shape
from minigrad.errors import InputError

SHAPE = {1: Field("dim", "ints")}
BLOB = {
    1: Field("num", "int"), 2: Field("channels", "int"), 3: Field("height", "int"), 4: Field("width", "int"),
    5: Field("data", "floats"), 7: Field("shape", "message", SHAPE), 8: Field("double_data", "doubles"),
}
LAYER = {1: Field("name", "string"), 2: Field("type", "string"), 7: Field("blobs", "message", BLOB)}
V1_LAYER = {1: Field("layer", "bytes"), 4: Field("name", "string"), 5: Field("type", "int"),
            6: Field("blobs", "message", BLOB)}
NET = {1: Field("name", "string"), 2: Field("layers", "message", V1_LAYER), 100: Field("layer", "message", LAYER)}

LEGACY = ("num", "channels", "height", "width")
BLOBS = ("weight", "bias")
TYPES = {4: "Convolution", 2: "InnerProduct"}  # by the axes of a weight
V1_TYPES = {4: "Convolution", 14: "InnerProduct"}  # by version 1's numbers
AXES = {("Convolution", 1): 1, ("InnerProduct", 0): 2, ("InnerProduct", 1): 1}  # of a type's blob; four where not here


def recognise(start: bytes, path: Path) -> bool:
    """Return whether a file is a Caffe network or mean image."""
    return kind_of(path) in ("caffe", "caffe mean")


def recognise_mean(start: bytes, path: Path) -> bool:
    """Return whether a file is a Caffe mean image."""
    return kind_of(path) == "caffe mean"


def read(path: str | PathLike[str]) -> Contents:
    """Return a network's arrays, which may be views of the file's bytes; of a mean image one, `mean` (C, H, W).

    Raises InputError for a file that can't be read or is damaged, for layers of version 0 or of two versions, and for
    blobs whose values are missing or don't fit their shape."""
    content = read_whole(path)
    if kind_of(content) == "caffe mean":
        return Contents("Caffe mean image", {"mean": _mean(content, str(path))})
    net = protobuf.parse(content, NET, str(path))
    version = _version(net, str(path))
    metadata = {"name": net["name"][-1]} if net["name"] else {}
    return Contents(f"Caffe model (V{version} layers)", _arrays(net["layer"] or net["layers"], str(path)),
                    metadata=metadata)


def read_mean(path: str | PathLike[str]) -> np.ndarray:
    """Return the mean of each channel of a mean image, in the file's order, which is Caffe's: blue, green, red."""
    mean = _mean(read_whole(path), str(path))
    if len(mean) != 3:
        raise InputError(f"{path}: the mean image has {len(mean)} channels: give one of 3")
    return mean.mean((1, 2), dtype=np.float64)


def write(path: str | PathLike[str], arrays: Mapping[str, np.ndarray], name: str = "GoogLeNet") -> None:
    """Write arrays named as `read` names them, as layers of version 2; reading gives back the same values.

    float16 becomes float32. Raises InputError for names that are no layer's blobs, for other types of numbers, for
    arrays without values, and where the file can't be written; an old file stays as it was."""
    layers = _layers(arrays)  # before the file is begun
    write_whole(path, _chunks(layers, name))


def _version(net: dict[str, Any], where: str) -> int:
    """Return which of the two lists of layers a network has."""
    if any(layer["layer"] for layer in net["layers"]):
        raise InputError(f"{where} has layers of Caffe's version 0, of 2013, which are not read: "
                         "convert it by Caffe's upgrade_net_proto_binary")
    if net["layer"] and net["layers"]:
        raise InputError(f"{where} has layers of two versions, which Caffe refuses too: keep one of the lists")
    return 2 if net["layer"] else 1


def _arrays(layers: list[dict[str, Any]], where: str) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for layer in layers:
        layer_name = last(layer["name"], "")
        for index, blob in enumerate(layer["blobs"]):
            name = f"{layer_name}/{BLOBS[index] if index < len(BLOBS) else index}"
            if not layer_name or name in arrays:
                raise InputError(f"{where} has {'two layers' if layer_name else 'a layer'} with weights "
                                 f"named {layer_name!r}: give each its own name")
            arrays[name] = _array(blob, AXES.get((_type(layer), index), 4), f"{where}: {shown(name)}")
    if not arrays:
        raise InputError(f"{where} has {len(layers)} layers and no weights: it describes a network; "
                         "give the file that training wrote")
    return arrays


def _type(layer: dict[str, Any]) -> str:
    written = last(layer["type"], "")
    return written if isinstance(written, str) else V1_TYPES.get(written, "")


def _array(blob: dict[str, Any], axes: int, where: str) -> np.ndarray:
    """Return a blob's values in its shape; one of four numbers keeps only its last `axes`, where those before are 1."""
    values = blob["double_data"] if blob["double_data"].size else blob["data"]
    if any(blob[number] for number in LEGACY):
        sizes = [last(blob[number], 0) for number in LEGACY]
        sizes = sizes[-axes:] if set(sizes[:-axes]) <= {1} else sizes
    else:
        sizes = last(blob["shape"], {"dim": []})["dim"]
    shape = shape_of(sizes)
    if shape is None or not values.size or math.prod(shape) != values.size:
        raise InputError(f"{where} has {values.size} values for the shape {shown_shape(sizes)}: {DAMAGED}")
    return values.reshape(shape)


def _mean(content: memoryview, where: str) -> np.ndarray:
    blob = protobuf.parse(content, BLOB, where)
    mean = _array(blob, 3, f"{where}: the mean image")
    if mean.ndim == 4 and len(mean) == 1:
        mean = mean[0]
    if mean.ndim != 3:
        raise InputError(f"{where}: the mean image is {mean.shape}, expected (1, C, H, W): give one that Caffe's "
                         "compute_image_mean wrote")
    return mean


def _layers(arrays: Mapping[str, np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Return each layer's blobs in their order."""
    layers: dict[str, dict[int, np.ndarray]] = {}
    for name, array in arrays.items():
        layer, _, blob = name.rpartition("/")
        if not layer or (blob not in BLOBS and not re.fullmatch("[2-9]|[1-9][0-9]+", blob)):
            raise InputError(f"{name} is no name of a Caffe blob: give layer/weight, layer/bias, layer/2 and so on")
        if array.dtype.type not in (np.float16, np.float32, np.float64) or not array.size:
            raise InputError(f"{name} ({array.dtype}, {array.shape}) can't be stored in a Caffe model: "
                             "give at least one value, of float16, float32 or float64")
        layers.setdefault(layer, {})[BLOBS.index(blob) if blob in BLOBS else int(blob)] = array
    for layer, blobs in layers.items():
        if sorted(blobs) != list(range(len(blobs))):
            raise InputError(f"{layer} has the blobs {sorted(blobs)}: a Caffe layer has them from 0 (weight) and "
                             "1 (bias) on, with none left out")
    return {layer: [blobs[index] for index in range(len(blobs))] for layer, blobs in layers.items()}


def _chunks(layers: Mapping[str, list[np.ndarray]], name: str) -> Iterator[bytes]:
    """Yield a network's fields one by one, so that memory holds one layer more, not all."""
    yield protobuf.encode(NET, {"name": name})
    for layer, blobs in layers.items():
        kind = TYPES.get(blobs[0].ndim)
        yield protobuf.encode(NET, {"layer": {"name": layer, **({"type": kind} if kind else {}),
                                              "blobs": [_blob(array) for array in blobs]}})


def _blob(array: np.ndarray) -> dict[str, Any]:
    data = "double_data" if array.dtype == np.float64 else "data"
    return {data: array, "shape": {"dim": array.shape}}
