"""Testing (paper, section 7): probabilities pooled over crops, then averaged over networks; errors over a data set."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np

from data.ahead import ahead
from data.base import Dataset
from data.crops import SharedCrops, shared_crops
from data.damaged import Damaged
from data.errors import DataError
from data.preprocess import Preprocessing
from googlenet.inference import Predictor, for_classes
from minigrad.errors import InputError

POOLS = ("mean", "max")  # over the crops of an image; the paper tried both and found the maximum inferior


class Score(NamedTuple):
    """Errors are fractions of the images; `loss` is the mean of -log p[label]."""

    images: int
    top1_error: float
    top5_error: float
    loss: float


class Prediction(NamedTuple):
    """What networks say of one image of a data set: the probability of every class, (classes,)."""

    image: int
    label: int
    probabilities: np.ndarray


class Answer(NamedTuple):
    """What each network says of one image, in several tests: (crops, pool) -> (networks, classes)."""

    image: int
    label: int
    probabilities: dict[tuple[int, str], np.ndarray]


class Judged(NamedTuple):
    """What is kept of a prediction: enough for errors, tables and pages, in little memory however many the classes."""

    image: int  # its place in the data set
    label: int
    rank: int  # how many classes stand before the label: 0 is right by top-1, 0 to 4 by top-5
    loss: float  # -log p[label]
    classes: tuple[int, ...]  # the five most probable, best first; all of them where there are fewer
    probabilities: tuple[float, ...]  # theirs


class Spent:
    """The time of networks' forward passes and what it was spent on; decoding and cutting are not in it.

    A network's first pass, which loads or compiles kernels, does not count once there is a second."""

    def __init__(self, networks: int):
        self.seconds = [0.0] * networks
        self.crops, self.images, self.passes = ([0] * networks for _ in range(3))
        self.distinct: dict[str, list[int]] = {}  # count of crops -> how many of them were distinct, of all images

    def add(self, network: int, seconds: float, images: Sequence[SharedCrops]) -> None:
        """Note a network's forward pass."""
        self.passes[network] += 1
        if self.passes[network] == 2:
            self.seconds[network], self.crops[network] = 0.0, 0
        self.seconds[network] += seconds
        self.crops[network] += sum(len(each.views) for each in images)
        self.images[network] += len(images)
        for each in images:
            for count, places in each.places.items():
                so_far = self.distinct.setdefault(str(count), [0] * len(self.seconds))
                so_far[network] += len(np.unique(places))

    def distinct_crops(self, networks: Sequence[int], count: int) -> float:
        """Return how many of an image's `count` crops are distinct, in the mean over images and networks."""
        return sum(self.distinct[str(count)][n] / self.images[n] for n in networks) / len(networks)

    def an_image(self, networks: Sequence[int], count: int) -> float:
        """Return the seconds that a test of an image takes: of each network those of a crop, times distinct crops."""
        return sum(self.seconds[n] / self.crops[n] * self.distinct[str(count)][n] / self.images[n] for n in networks)


def answers(networks: Sequence[Predictor], dataset: Dataset, counts: Sequence[int], pools: Sequence[str] = ("mean",), *,
            threads: int = 1, damaged: Damaged | None = None, start: int = 0, limit: int | None = None,
            spent: Spent | None = None) -> Generator[Answer]:
    """Classify the images of `dataset` from `start` on (of the first `limit`) by tests of `counts` crops, pooled in
    each of the ways `pools`. A crop that several tests share is computed once.

    Images are decoded ahead by `threads` threads. A damaged one is noted in `damaged` and left out. A network that has
    more classes than the data set is cut to those of the data set (`for_classes`). Raises InputError where one lacks a
    class, DataError for more damaged images than `damaged` allows.
    """
    networks = [for_classes(network, dataset.classes, dataset.origin) for network in networks]
    damaged = damaged or Damaged(dataset.origin, most=10)
    spent = spent or Spent(len(networks))
    # Networks that see images alike share their crops.
    ways = list(dict.fromkeys(network.preprocessing for network in networks))

    def views(index: int) -> dict[Preprocessing, SharedCrops] | str:
        try:
            image = dataset.image(index)
            return {way: shared_crops(image, counts, way) for way in ways}
        except DataError as error:
            return str(error)

    together = max(1, max(network.batch for network in networks) // max(counts))  # images whose crops share a batch
    indices = range(len(dataset))[:limit][start:]
    with closing(ahead(views, indices, threads, 2 * together)) as read:
        for group in _groups(read, together):
            good = []
            for index, each in group:
                if isinstance(each, str):
                    damaged.note(dataset.names[index], each)
                else:
                    good.append((index, each))
            if not good:
                continue
            found = [_by_image(network, [each[network.preprocessing] for _, each in good], pools, number, spent)
                     for number, network in enumerate(networks)]
            for (index, _), own in zip(good, zip(*found, strict=True), strict=True):
                by_network = {test: np.stack([each[test] for each in own]) for test in own[0]}
                yield Answer(index, int(dataset.labels[index]), by_network)


def predictions(networks: Sequence[Predictor], dataset: Dataset, count: int, *, pool: str = "mean", threads: int = 1,
                max_bad: int = 10, limit: int | None = None, bad: dict[str, str] | None = None) -> Iterator[Prediction]:
    """Classify the images of `dataset` (the first `limit`) by 1, 10 or 144 crops: the softmax, pooled over crops
    (`pool`), then averaged over networks (paper, section 7).

    A damaged image is logged, left out and noted in `bad` (name -> reason). Otherwise as `answers`, with `max_bad`
    damaged images allowed.
    """
    damaged = Damaged(dataset.origin, max_bad)
    damaged.found = damaged.found if bad is None else bad
    for each in answers(networks, dataset, (count,), (pool,), threads=threads, damaged=damaged, limit=limit):
        yield Prediction(each.image, each.label, each.probabilities[count, pool].mean(axis=0))


def score(networks: Sequence[Predictor], dataset: Dataset, count: int, *, threads: int = 1, max_bad: int = 10,
          bad: dict[str, str] | None = None) -> Score:
    """Count the errors of `predictions`, whose arguments and errors these are."""
    return tally(map(judge, predictions(networks, dataset, count, threads=threads, max_bad=max_bad, bad=bad)))


def judge(found: Prediction) -> Judged:
    """Hold a prediction to its label; ties are broken by the lower class number."""
    p = found.probabilities
    best = top(p)
    rank = int(np.sum(p > p[found.label]) + np.sum(p[:found.label] == p[found.label]))
    loss = -np.log(max(p[found.label], np.finfo(np.float64).tiny))
    return Judged(found.image, found.label, rank, float(loss), tuple(best.tolist()), tuple(p[best].tolist()))


def tally(judged: Iterable[Judged]) -> Score:
    """Count the errors. Raises InputError where there is nothing to count."""
    pairs = [(each.rank, each.loss) for each in judged]
    if not pairs:
        raise InputError("no image could be classified: check the data set")
    ranks, losses = np.array(pairs).T
    return Score(len(pairs), float(np.mean(ranks >= 1)), float(np.mean(ranks >= 5)), float(np.mean(losses)))


def top(probabilities: np.ndarray, count: int = 5) -> np.ndarray:
    """Return the numbers of the most probable classes, best first."""
    return np.argsort(-probabilities, kind="stable")[:count]


def pooled(probabilities: np.ndarray, pool: str) -> np.ndarray:
    """Return what an image's crops say together, (crops, classes) -> (classes,): their mean, or of each class the
    maximum.

    Maxima add up to more than 1. They are divided by their sum, so that a likelihood stays one and no network of an
    ensemble counts for more than another; a network's order of classes stays."""
    if pool == "mean":
        return probabilities.mean(axis=0)
    most = probabilities.max(axis=0)
    return most / most.sum()


def _by_image(network: Predictor, images: list[SharedCrops], pools: Sequence[str], number: int,
              spent: Spent) -> list[dict[tuple[int, str], np.ndarray]]:
    """Return each image's probabilities by (crops, pool), (classes,) in float64; crops of several images share batches.
    """
    views = np.concatenate([image.views for image in images])
    began = time.perf_counter()
    every = network.probabilities(views)
    spent.add(number, time.perf_counter() - began, images)
    ends = np.cumsum([len(image.views) for image in images])[:-1]
    return [{(count, pool): pooled(part[places], pool) for count, places in image.places.items() for pool in pools}
            for image, part in zip(images, np.split(every, ends), strict=True)]


Item = TypeVar("Item")


def _groups(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield the items in lists of `size`, the last one shorter."""
    waiting = iter(items)
    while group := list(islice(waiting, size)):
        yield group
