"""Activations that another framework recorded: an archive of stages' outputs, by whichever of the known names.

    ours           Caffe's blobs          torchvision's modules   TF-slim's end points
    input          data, input            input                   input
    conv1          conv1/7x7_s2           conv1                   Conv2d_1a_7x7
    norm1          pool1/norm1            -                       -
    conv2_reduce   conv2/3x3_reduce       conv2                   Conv2d_2b_1x1
    inception_3a   inception_3a/output    inception3a             Mixed_3b
    pool5          pool5/7x7_s1           avgpool                 AvgPool_0a_7x7
    classifier     loss3/classifier       fc                      Logits
    probabilities  prob                   probabilities           Predictions

A name's slashes may be underscores. Arrays are (N, C, H, W) or (N, H, W, C); grids are square, which tells them apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from googlenet.weights import placing
from googlenet.weights.contents import Contents
from googlenet.weights.schemes import MODULES, SLIM, STEM, TORCHVISION
from minigrad.errors import InputError

INPUT, CLASSIFIER, PROBABILITIES = "input", "classifier", "probabilities"


class Recording(NamedTuple):
    """Stages' outputs by our names, (N, H, W, C) or (N, C), the input and the probabilities among them.

    `files` are the images that were recorded, where the archive names them; `unknown` its arrays that are no stage."""

    file: str
    framework: str
    channels: str  # "first" or "last" in the file
    stages: dict[str, np.ndarray]
    files: tuple[str, ...]
    unknown: tuple[str, ...]

    def __str__(self) -> str:
        unknown = f"; no stages: {', '.join(self.unknown)}" if self.unknown else ""
        return (f"{self.images} image{'s' * (self.images > 1)}, {len(self.stages)} arrays by {self.framework}'s names, "
                f"channels {self.channels}{unknown}")

    @property
    def images(self) -> int:
        """How many images were recorded."""
        return len(next(iter(self.stages.values())))

    def first(self, count: int | None) -> Recording:
        """Return what was recorded of the first images, all for None."""
        return self._replace(stages={name: array[:count] for name, array in self.stages.items()},
                             files=self.files[:count])


def _caffe() -> dict[str, str]:
    pools = {f"pool{number}/3x3_s2": f"pool{number}" for number in (1, 2, 3, 4)}
    modules = {f"{module}/output": module for module in MODULES}
    return {"data": INPUT, "conv1/7x7_s2": "conv1", "pool1/norm1": "norm1", "conv2/3x3_reduce": "conv2_reduce",
            "conv2/3x3": "conv2", "conv2/norm2": "norm2", **pools, **modules, "pool5/7x7_s1": "pool5",
            "loss3/classifier": "classifier", "prob": PROBABILITIES}


def _torchvision() -> dict[str, str]:
    stem = {TORCHVISION[layer]: layer for layer in STEM}
    modules = {module.replace("inception_", "inception"): module for module in MODULES}
    return {**stem, **{f"maxpool{number}": f"pool{number}" for number in (1, 2, 3, 4)}, **modules, "avgpool": "pool5",
            "fc": "classifier"}


def _slim() -> dict[str, str]:
    stem = {SLIM[layer]: layer for layer in STEM}
    modules = {SLIM[f"{module}/conv_1x1"].partition("/")[0]: module for module in MODULES}
    pools = {f"MaxPool_{number + 1}a_{kernel}": f"pool{number}"
             for number, kernel in enumerate(("3x3", "3x3", "3x3", "2x2"), 1)}
    return {**stem, **modules, **pools, "AvgPool_0a_7x7": "pool5", "Logits": "classifier", "Predictions": PROBABILITIES}


def _ours() -> dict[str, str]:
    stages = ("conv1", "pool1", "norm1", "conv2_reduce", "conv2", "norm2", "pool2", "pool3", "pool4", "pool5",
              "classifier", *MODULES)
    return {stage: stage for stage in stages}


ALWAYS = {INPUT: INPUT, PROBABILITIES: PROBABILITIES}
# Where two fit as well as each other, the first one counts.
NAMES = {"this program": _ours(), "Caffe": _caffe(), "torchvision": _torchvision(), "TF-slim": _slim()}


def recording(contents: Contents, file: str) -> Recording | None:
    """Return the activations that a file holds, None where its arrays are weights, or no stages by any known name.

    Raises InputError where the layout can't be told, or arrays are of different numbers of images."""
    if contents.graph is not None or _is_network(contents, file):
        return None
    rules = {framework: _spelt(names) for framework, names in NAMES.items()}
    known = {framework: [name for name in contents.arrays if _plain(name) in names]
             for framework, names in rules.items()}
    framework = max(known, key=lambda each: len(known[each]))
    found = {rules[framework][_plain(name)]: contents.arrays[name] for name in known[framework]}
    if not found:
        return None
    counts = {array.shape[:1] for array in found.values()}
    if len(counts) > 1 or counts & {(), (0,)}:
        raise InputError(f"{file}: its activations are of {_list_shapes(found)}: store all stages of the same images, "
                         "the images first")
    channels = _channels(found, file)
    stages = {stage: _as_ours(array, channels) for stage, array in found.items()}
    unknown = tuple(name for name in contents.arrays if name not in known[framework])
    return Recording(file, framework, channels, stages, tuple(contents.metadata.get("files", "").splitlines()), unknown)


def _is_network(contents: Contents, file: str) -> bool:
    try:
        placing.scheme_of(contents, file)
    except InputError:
        return False
    return True


def _plain(name: str) -> str:
    return name.replace("/", "_")


def _spelt(names: Mapping[str, str]) -> dict[str, str]:
    return {_plain(name): stage for name, stage in {**ALWAYS, **names}.items()}


def _channels(arrays: Mapping[str, np.ndarray], file: str) -> str:
    """Return whether channels are "first" or "last", by the arrays whose square grid tells it."""
    told = set()
    for array in arrays.values():
        if array.ndim == 4:
            _, first, middle, last = array.shape
            if first != middle or middle != last:
                told |= {"first"} if middle == last else {"last"} if first == middle else {"neither"}
    if "neither" in told or len(told) > 1:
        raise InputError(f"{file}: its activations are {_list_shapes(arrays)}: expected square grids, (N, C, H, W) all "
                         "or (N, H, W, C) all")
    return told.pop() if told else "last"


def _as_ours(array: np.ndarray, channels: str) -> np.ndarray:
    """Return (N, H, W, C), or (N, C) of a grid of one, in float32 at least."""
    array = array.astype(np.result_type(array.dtype, np.float32), copy=False)
    if array.ndim == 4 and channels == "first":
        array = array.transpose(0, 2, 3, 1)
    return without_grid_of_one(array)


def without_grid_of_one(array: np.ndarray) -> np.ndarray:
    """(N, 1, 1, C) -> (N, C); others stay."""
    return array.reshape(len(array), -1) if array.ndim == 4 and array.shape[1:3] == (1, 1) else array


def _list_shapes(arrays: Mapping[str, np.ndarray]) -> str:
    return ", ".join(dict.fromkeys(str(array.shape) for array in arrays.values()))
