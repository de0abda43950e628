"""What a weight file holds: every array in the file's own names, in numbers, and which network they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from googlenet.model import HEADS
from googlenet.weights import placing, store
from googlenet.weights.contents import Contents
from googlenet.weights.files import sha256
from googlenet.weights.layouts import LAYOUTS
from googlenet.weights.recording import recording
from googlenet.weights.weights import Weights
from minigrad import hdf5
from minigrad.errors import InputError

OURS = "HDF5 of this program"
DEAD = 1e-6  # of the largest |weight| of the layer


class Statistics(NamedTuple):
    """An array's values in numbers: `least` to `deviation` are those of its finite values, None where it has none.

    `dead` counts the filters that compute nothing, None where the array is no weight of a known layout: see
    `dead_filters`."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    least: float | None
    most: float | None
    mean: float | None
    deviation: float | None
    not_finite: int
    zeros: int
    dead: int | None


@dataclass(frozen=True)
class Inspection:
    """What is in a file; `weights` is None where it is no network that can be placed, and `reason` says why."""

    file: str
    format: str
    sha256: str
    metadata: dict[str, str]
    notes: tuple[str, ...]
    arrays: list[Statistics]
    weights: Weights | None
    reason: str = ""


def inspect(path: str | PathLike[str], *, image_size: int | None = None) -> Inspection:
    """Return what a file of any format holds; `image_size` as in `googlenet.weights.read`.

    Raises InputError for a file that is missing, damaged or of no known format."""
    return _inspect_ours(path) if hdf5.is_ours(path) else _inspect_foreign(Path(path), image_size)


def _inspect_ours(path: str | PathLike[str]) -> Inspection:
    arrays, attributes = hdf5.load(path)
    weights: Weights | None = None
    reason, dead = "", {}
    metadata = {name: str(value) for name, value in attributes.items()}
    notes: tuple[str, ...] = ()
    try:
        stored = store.read(path)
        dead = {store.GROUP + name: count for name, count in dead_filters(stored.weights).items()}
        if stored.averaged:
            averaged = dead_filters(replace(stored.weights, arrays=stored.averaged))
            dead |= {store.AVERAGED + name: count for name, count in averaged.items()}
        metadata = {name: str(value) for name, value in stored.attributes.items()}  # the rest is told of the network
        weights = stored.weights
        notes = _origin(weights)
    except InputError as error:
        reason = str(error)
    return Inspection(Path(path).name, OURS, sha256(path), metadata, notes, _all(arrays, dead), weights, reason)


def _origin(weights: Weights) -> tuple[str, ...]:
    """Return where converted weights came from, and what was done on the way."""
    source = weights.source
    if source is None:
        return ()
    return (f"converted from {source.file}, {source.format}, SHA-256 {source.sha256}", *source.notes)


def _inspect_foreign(path: Path, image_size: int | None) -> Inspection:
    from googlenet.weights import formats  # here, as our own files need none of its readers

    contents, digest = formats.read(path), sha256(path)
    weights, reason, dead, notes = None, "", {}, contents.notes
    try:
        reason = _something_else(contents, path.name)
        if not reason:
            weights = placing.place(contents, path.name, digest, image_size=image_size)
            dead = {origin(name, weights)[0]: count for name, count in dead_filters(weights).items()}
            notes = weights.source.notes if weights.source else notes
    except InputError as error:
        reason = str(error)
    return Inspection(path.name, contents.format, digest, dict(contents.metadata), notes,
                      _all(contents.arrays, dead), weights, reason)


def _something_else(contents: Contents, file: str) -> str:
    """Return what a file holds that is known and no weights, "" for all others."""
    if contents.arrays.keys() == {"mean"}:
        colour = ", ".join(f"{value:.3f}" for value in contents.arrays["mean"].mean(axis=(1, 2), dtype=np.float64))
        return f"a mean image; the mean of each channel is ({colour}), in Caffe's order blue, green, red"
    recorded = recording(contents, file)
    return "" if recorded is None else f"activations that were recorded: {recorded}"


def _all(arrays: Mapping[str, np.ndarray], dead: Mapping[str, int]) -> list[Statistics]:
    return [statistics(name, array, dead.get(name)) for name, array in arrays.items()]


def statistics(name: str, array: np.ndarray, dead: int | None = None) -> Statistics:
    """Return an array's statistics, computed in float64."""
    values = array.astype(np.float64, copy=False).ravel()
    finite = values[np.isfinite(values)]
    counts = values.size - finite.size, int(np.count_nonzero(values == 0)), dead
    if not finite.size:
        return Statistics(name, array.shape, str(array.dtype), None, None, None, None, *counts)
    return Statistics(name, array.shape, str(array.dtype), float(finite.min()), float(finite.max()),
                      float(finite.mean()), float(finite.std()), *counts)


def dead_filters(weights: Weights) -> dict[str, int]:
    """Return how many filters of each layer compute nothing, by the canonical name of the layer's weight.

    A filter is what one output channel sums by. It is dead where its largest |weight|, with batch norm folded in, is at
    most DEAD of the layer's largest. (Whether ReLU shuts one for all images can't be seen in weights.)"""
    return {path: _dead(array) for path, array in weights.folded().arrays.items() if path.endswith("/weight")}


def _dead(weight: np.ndarray) -> int:
    peaks = np.abs(weight).reshape(-1, weight.shape[-1]).max(axis=0)
    return int(np.count_nonzero(peaks <= DEAD * peaks.max()))


class Parameters(NamedTuple):
    """Numbers that training learns: running statistics are none."""

    trunk: int
    with_heads: int


def parameters(weights: Weights) -> Parameters:
    """Count what is learned, without and with the auxiliary heads."""
    sizes = {path: array.size for path, array in weights.arrays.items()
             if not path.endswith(("/batch_norm/mean", "/batch_norm/variance"))}
    heads = sum(size for path, size in sizes.items() if path.split("/")[0] in HEADS.values())
    return Parameters(sum(sizes.values()) - heads, sum(sizes.values()))


def origin(path: str, weights: Weights) -> tuple[str, str]:
    """Return an array's name and layout in the file that the weights came from; our name where there is none."""
    told = weights.source.arrays.get(path, "") if weights.source else ""
    layout = next((layout for layout in LAYOUTS if told.endswith(f" {layout}")), "")
    return (told.removesuffix(f" {layout}"), layout) if layout else (path, "")
