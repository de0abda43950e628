"""Two networks, or a network and what another framework recorded: array by array, and stage by stage on images.

Each array's differences are told in parts of its largest value on either side, so that one tolerance fits all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.crops import crops
from googlenet.classes import columns, same
from googlenet.model import GoogLeNet, has_batch_norm
from googlenet.weights import placing, read
from googlenet.weights.files import sha256
from googlenet.weights.recording import CLASSIFIER, INPUT, PROBABILITIES, Recording, recording, without_grid_of_one
from googlenet.weights.weights import Weights
from minigrad import Tensor, hdf5, no_grad, ops
from minigrad.errors import InputError

TOLERANCE = 1e-5  # of an array's largest value
TOGETHER = 4  # images
CHUNK = 2**15  # values whose float64 stays in cache
IDLE = ("dropout",)  # stages that do nothing in testing

Side = Weights | Recording
Stages = dict[str, np.ndarray]


class Difference(NamedTuple):
    """How far two arrays of one name are apart: None all over where their shapes differ.

    `largest` and `mean` are of |a - b|, `relative` is `largest` over the largest finite value of either side, and
    `correlation` None where a side is constant. Values that are not finite on one side only count as infinitely far."""

    name: str
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    largest: float | None = None
    relative: float | None = None
    mean: float | None = None
    correlation: float | None = None

    def within(self, tolerance: float) -> bool:
        """Return whether the arrays agree."""
        return self.relative is not None and self.relative <= tolerance


@dataclass(frozen=True)
class ArrayComparison:
    """Arrays that both have, by canonical name, and the names that one alone has; `notes` say what was done first."""

    both: list[Difference]
    only_a: list[str]
    only_b: list[str]
    notes: tuple[str, ...] = ()

    def agree(self, tolerance: float) -> bool:
        """Return whether both have the same arrays, within the tolerance."""
        return not self.only_a and not self.only_b and all(each.within(tolerance) for each in self.both)


@dataclass(frozen=True)
class StageComparison:
    """Outputs of stages that both have, in the network's order, from the input to the probabilities.

    `top1` is the part of the images whose most probable class is the same, `top5` the mean part of the five most
    probable classes that both name; None where the probabilities can't be compared."""

    images: int
    both: list[Difference]
    only_a: list[str]
    only_b: list[str]
    top1: float | None = None
    top5: float | None = None
    notes: tuple[str, ...] = ()

    def parted(self, tolerance: float) -> str | None:
        """Return the first stage at which the two part, None where they agree to the end."""
        return next((each.name for each in self.both if not each.within(tolerance)), None)

    def agree(self, tolerance: float) -> bool:
        """Return whether no stage parts; stages that one side alone has are not counted."""
        return self.parted(tolerance) is None


def open_side(path: str | PathLike[str], *, raw: bool = False, image_size: int | None = None) -> Side:
    """Return the weights of a file of any format (the averaged ones, where it has them and not `raw`), or what it
    recorded; `image_size` as in `googlenet.weights.read`.

    Raises InputError for a file that is neither."""
    if hdf5.is_ours(path):
        return read(path, image_size=image_size).tested(raw)
    from googlenet.weights import formats  # here, as our own files need none of its readers

    contents = formats.read(Path(path))
    return recording(contents, Path(path).name) or placing.place(contents, str(path), sha256(path),
                                                                 image_size=image_size)


# Arrays.

def compare_arrays(a: Weights, b: Weights) -> ArrayComparison:
    """Compare the arrays of two networks; batch norms are folded first where the two do not have the same."""
    notes: tuple[str, ...] = ()
    if a.arrays.keys() != b.arrays.keys() and (has_batch_norm(a.config) or has_batch_norm(b.config)):
        sides = " and ".join(name for name, side in (("A", a), ("B", b)) if has_batch_norm(side.config))
        a, b = a.folded(), b.folded()
        notes = (f"the batch norm of {sides} was folded into the convolutions, which then have biases",)
    both = []
    for name in a.arrays:
        if name in b.arrays:
            tally = Tally(name)
            tally.add(a.arrays[name], b.arrays[name])
            both.append(tally.difference())
    return ArrayComparison(both, [name for name in a.arrays if name not in b.arrays],
                           [name for name in b.arrays if name not in a.arrays], notes)


def differing_settings(a: Weights, b: Weights) -> dict[str, tuple[str, str]]:
    """Return what else differs between two networks, by name: of the configuration, the preprocessing, the classes."""
    pairs = {item.name: (getattr(a.config, item.name), getattr(b.config, item.name)) for item in fields(a.config)}
    pairs["preprocessing"] = (a.preprocessing, b.preprocessing)
    told = {name: (str(one), str(other)) for name, (one, other) in pairs.items() if one != other}
    if len(a.classes) == len(b.classes):  # otherwise the configurations differ
        number = next((i for i, pair in enumerate(zip(a.classes, b.classes, strict=True)) if not same(*pair)), None)
        if number is not None:
            told[f"name of class {number}"] = (a.classes[number], b.classes[number])
    return told


class Tally:
    """Sums over the values of two arrays, batch by batch."""

    def __init__(self, name: str):
        self.name = name
        self.shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        self.largest = self.scale = self.total = 0.0
        self.moments = np.zeros(6)  # count, and sums of a, b, a^2, b^2, ab

    def add(self, a: np.ndarray, b: np.ndarray) -> None:
        """Count two arrays in; all of a name have the same shapes, but for their first axis."""
        self.shapes = a.shape, b.shape
        if a.shape != b.shape:
            return
        a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
        for start in range(0, a.size, CHUNK):
            self._add(*(each.reshape(-1)[start:start + CHUNK].astype(np.float64) for each in (a, b)))

    def _add(self, x: np.ndarray, y: np.ndarray) -> None:
        with np.errstate(invalid="ignore"):
            apart = np.abs(x - y)
        if not np.isfinite(apart.max()):
            finite = np.isfinite(x) & np.isfinite(y)
            apart[~finite] = np.inf
            apart[(x == y) | (np.isnan(x) & np.isnan(y))] = 0
            x, y = x[finite], y[finite]
        self.largest = max(self.largest, float(apart.max()))
        self.total += float(apart.sum())
        self.scale = max(self.scale, float(np.abs(x).max(initial=0)), float(np.abs(y).max(initial=0)))
        # einsum, as the threads that BLAS would call in for x @ y cost more than sums this short.
        squares = (np.einsum("i,i->", one, other) for one, other in ((x, x), (y, y), (x, y)))
        self.moments += [x.size, x.sum(), y.sum(), *squares]

    def difference(self, images: int | None = None) -> Difference:
        """Return what was counted; `images` replaces the first axis of the shapes."""
        assert self.shapes is not None
        a, b = self.shapes if images is None else ((images, *self.shapes[0][1:]), (images, *self.shapes[1][1:]))
        if a != b:
            return Difference(self.name, (a, b))
        relative = self.largest / self.scale if self.scale else self.largest and math.inf
        mean = self.total / max(math.prod(a), 1)
        return Difference(self.name, (a, b), self.largest, relative, mean, self._correlation())

    def _correlation(self) -> float | None:
        count, a, b, aa, bb, ab = self.moments.tolist()
        one, other = count * aa - a * a, count * bb - b * b
        # Below this a variance is what float64 leaves of the subtraction. (It is no number where squares overflow.)
        if not (one > 1e-12 * count * aa and other > 1e-12 * count * bb):
            return None
        return min(max((count * ab - a * b) / (math.sqrt(one) * math.sqrt(other)), -1.0), 1.0)


# Stages.

def compare_stages(a: Side, b: Side, images: Iterable[np.ndarray] = ()) -> StageComparison:
    """Compare the outputs of all stages on the same images (uint8 RGB), each network with its own preprocessing.

    A recording is compared on its own input where it has one; otherwise `images` must be those that were recorded, in
    order. Raises InputError where there is nothing to run on, or the numbers of images differ."""
    tallies: dict[str, Tally] = {}
    names: tuple[dict[str, None], dict[str, None]] = ({}, {})
    count, agreeing, shared = 0, np.zeros(2), _SharedClasses(a, b)
    for one, other in _pairs(a, b, images):
        for own, found in zip(names, (one, other), strict=True):
            own.update(dict.fromkeys(found))
        count += len(next(iter(one.values())))
        if PROBABILITIES in one and PROBABILITIES in other:
            one, other = shared(one, other)
            agreeing += _agreement(one[PROBABILITIES], other[PROBABILITIES])
        for name in one:
            if name in other:
                tallies.setdefault(name, Tally(name)).add(one[name], other[name])
    if not count:
        raise InputError("no images to compare on: give at least one")
    both = [tallies[name].difference(count) for name in names[0] if name in tallies]
    judged = any(each.name == PROBABILITIES and each.relative is not None for each in both)
    top1, top5 = (float(each) for each in agreeing / count) if judged else (None, None)
    return StageComparison(count, both,
                           [name for name in names[0] if name not in names[1]],
                           [name for name in names[1] if name not in names[0]], top1, top5, shared.notes)


def _pairs(a: Side, b: Side, images: Iterable[np.ndarray]) -> Iterator[tuple[Stages, Stages]]:
    """Yield the stages of both sides by name, for a few images at a time."""
    one, other = _runner(a), _runner(b)
    for batch in _batches([side for side in (a, b) if isinstance(side, Recording)], images):
        yield one(batch), other(batch)


class _Batch(NamedTuple):
    """Some of the images: which of those recorded, the recorded input, and the images where there is none."""

    part: slice
    x: np.ndarray | None
    images: list[np.ndarray]


def _batches(recorded: list[Recording], images: Iterable[np.ndarray]) -> Iterator[_Batch]:
    counts = {side.images for side in recorded}
    if len(counts) > 1:
        told = " and ".join(f"{side.images} of {side.file}" for side in recorded)
        raise InputError(f"the recordings are of {told}: give some of the same images")
    fed = next((side.stages[INPUT] for side in recorded if INPUT in side.stages), None)
    if fed is not None or len(recorded) == 2:
        for start in range(0, counts.pop(), TOGETHER):
            part = slice(start, start + TOGETHER)
            yield _Batch(part, None if fed is None else fed[part], [])
        return
    start, waiting = 0, iter(images)
    while group := list(islice(waiting, TOGETHER)):
        yield _Batch(slice(start, start + len(group)), None, group)
        start += len(group)
    if counts and counts != {start}:
        raise InputError(f"{recorded[0].file} holds {counts.pop()} images, {start} are given: "
                         "give those that were recorded")


def _runner(side: Side) -> Callable[[_Batch], Stages]:
    """Return what gives a side's stages for a batch."""
    if isinstance(side, Recording):
        return lambda batch: _with_probabilities({name: array[batch.part] for name, array in side.stages.items()})
    model, way = side.model(), side.preprocessing

    def run(batch: _Batch) -> Stages:
        if batch.x is not None:
            return _outputs(model, batch.x)
        return _outputs(model, way.normalise(np.concatenate([crops(image, 1, way) for image in batch.images])))

    return run


def _outputs(model: GoogLeNet, x: np.ndarray) -> Stages:
    """Return the outputs of a network's stages, the input before them and the probabilities behind: x (N, S, S, 3)."""
    x = np.ascontiguousarray(x, model.config.dtype)
    with no_grad():
        found = {name: without_grid_of_one(y.data) for name, y in model.stages(Tensor(x)) if name not in IDLE}
    return _with_probabilities({INPUT: x, **found})


def _with_probabilities(stages: Stages) -> Stages:
    """Return the stages and, where they are not there, the probabilities that follow from the logits."""
    if PROBABILITIES in stages or CLASSIFIER not in stages:
        return stages
    return {**stages, PROBABILITIES: ops.softmax(Tensor(stages[CLASSIFIER])).data}


class _SharedClasses:
    """Cuts the probabilities of two sides to the classes that both have."""

    def __init__(self, a: Side, b: Side):
        own, other = _classes(a), _classes(b)
        self.a, self.b = columns(own, other), columns(other, own)
        self.notes: tuple[str, ...] = ()
        if len(own) != len(other) and (self.a or self.b):
            self.notes = (f"probabilities are compared on the {min(len(own), len(other))} classes that both have, on "
                          "which they add up to 1",)
        elif self.a and self.a != sorted(self.a):
            self.notes = ("their classes are in another order, and probabilities are compared class by class",)

    def __call__(self, one: Stages, other: Stages) -> tuple[Stages, Stages]:
        return (_chosen(one, self.a), other) if self.a else (one, _chosen(other, self.b))


def _classes(side: Side) -> tuple[str, ...]:
    """Return the names of a side's classes: digits for a recording, whose classes nobody named."""
    if isinstance(side, Weights):
        return side.classes
    last = side.stages.get(PROBABILITIES, side.stages.get(CLASSIFIER, np.empty((0, 0))))
    return tuple(str(number) for number in range(last.shape[-1]))


def _chosen(stages: Stages, chosen: list[int] | None) -> Stages:
    """Return the stages with the probabilities of some classes, which add up to 1; as they are for all and for None."""
    if chosen is None or chosen == list(range(stages[PROBABILITIES].shape[-1])):
        return stages
    if CLASSIFIER in stages:  # of a class that takes all, probabilities leave nothing to share out, logits do
        part = ops.softmax(Tensor(np.ascontiguousarray(stages[CLASSIFIER][:, chosen]))).data
    else:
        part = stages[PROBABILITIES][:, chosen]
        part = part / np.maximum(part.sum(axis=1, keepdims=True), np.finfo(part.dtype).tiny)
    return {**stages, PROBABILITIES: part}


def _agreement(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return for how many images the best class is the same, and the part of the five best in common, summed."""
    if one.shape != other.shape:
        return np.zeros(2)
    five = min(5, one.shape[1])
    best = [np.argsort(-each, axis=1, kind="stable")[:, :five] for each in (one, other)]
    common = [len(set(x) & set(y)) / five for x, y in zip(*(each.tolist() for each in best), strict=True)]
    return np.array([np.count_nonzero(best[0][:, 0] == best[1][:, 0]), sum(common)])
