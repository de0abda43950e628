"""Testing (paper, section 7): probabilities averaged over crops, then over networks; errors over a data set."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np

from data.base import Dataset
from data.crops import crops
from data.errors import DataError
from data.preprocess import Preprocessing
from googlenet.inference import Predictor, for_classes
from minigrad.errors import InputError

log = logging.getLogger(__name__)


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


def predictions(networks: Sequence[Predictor], dataset: Dataset, count: int, *, threads: int = 1, max_bad: int = 10,
                limit: int | None = None, bad: dict[str, str] | None = None) -> Iterator[Prediction]:
    """Classify the images of `dataset` (the first `limit`) by 1, 10 or 144 crops: the mean of the softmax over crops,
    then over networks (paper, section 7).

    Images are decoded ahead by `threads` threads. A damaged one is logged, left out and noted in `bad` (name ->
    reason). A network that has more classes than the data set is cut to those of the data set (`for_classes`). Raises
    InputError where one lacks a class, DataError for more than `max_bad` damaged images.
    """
    networks = [for_classes(network, dataset.classes, dataset.origin) for network in networks]
    bad = {} if bad is None else bad
    # Networks that see images alike share their crops.
    ways = list(dict.fromkeys(network.preprocessing for network in networks))

    def views(index: int) -> dict[Preprocessing, np.ndarray] | str:
        try:
            image = dataset.image(index)
            return {way: crops(image, count, way) for way in ways}
        except DataError as error:
            return str(error)

    together = max(1, max(network.batch for network in networks) // count)  # images whose crops share a batch
    for group in _groups(_ahead(views, range(len(dataset))[:limit], threads, 2 * together), together):
        good = [(index, each) for index, each in group if not isinstance(each, str)]
        for index, each in group:
            if isinstance(each, str):
                _note(dataset, dataset.names[index], each, bad, max_bad)
        if good:
            mean = np.mean([_by_image(network, [each[network.preprocessing] for _, each in good])
                            for network in networks], axis=0)
            for (index, _), probabilities in zip(good, mean, strict=True):
                yield Prediction(index, int(dataset.labels[index]), probabilities)


def score(networks: Sequence[Predictor], dataset: Dataset, count: int, *, threads: int = 1, max_bad: int = 10,
          bad: dict[str, str] | None = None) -> Score:
    """Count the errors of `predictions`, whose arguments and errors these are."""
    return tally(predictions(networks, dataset, count, threads=threads, max_bad=max_bad, bad=bad))


def tally(found: Iterable[Prediction]) -> Score:
    """Count the errors of predictions; ties are broken by the lower class number.

    Raises InputError where there are none."""
    judged = [(_rank(p), -np.log(max(p.probabilities[p.label], np.finfo(np.float64).tiny))) for p in found]
    if not judged:
        raise InputError("no image could be classified: check the data set")
    ranks, losses = np.array(judged).T
    return Score(len(judged), float(np.mean(ranks >= 1)), float(np.mean(ranks >= 5)), float(np.mean(losses)))


def top(probabilities: np.ndarray, count: int = 5) -> np.ndarray:
    """Return the numbers of the most probable classes, best first."""
    return np.argsort(-probabilities, kind="stable")[:count]


def _rank(found: Prediction) -> int:
    """Return how many classes stand before the label."""
    p = found.probabilities
    return int(np.sum(p > p[found.label]) + np.sum(p[:found.label] == p[found.label]))


def _note(dataset: Dataset, name: str, reason: str, bad: dict[str, str], max_bad: int) -> None:
    if name in bad:
        return
    bad[name] = reason
    log.warning("left out %s: %s", name, reason)
    if len(bad) > max_bad:
        raise DataError(f"{dataset.origin}: {len(bad)} images cannot be used, more than the {max_bad} allowed; "
                        f"the last is {name}: {reason}")


def _by_image(network: Predictor, views: list[np.ndarray]) -> np.ndarray:
    """Return the mean over each image's crops, (images, classes) in float64; crops of several images share batches."""
    every = network.probabilities(np.concatenate(views)).astype(np.float64)
    ends = np.cumsum([len(v) for v in views])[:-1]
    return np.stack([part.mean(axis=0) for part in np.split(every, ends)])


Item = TypeVar("Item")
Result = TypeVar("Result")


def _ahead(function: Callable[[Item], Result], items: Iterable[Item], threads: int,
           most: int) -> Iterator[tuple[Item, Result]]:
    """Yield (item, function(item)) in order; background threads compute `most` (or one for each thread) ahead."""
    waiting = iter(items)
    pending: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="decoder") as pool:
        try:
            for item in islice(waiting, max(most, threads)):
                pending.append((item, pool.submit(function, item)))
            while pending:
                item, future = pending.popleft()
                yield item, future.result()
                for following in islice(waiting, 1):
                    pending.append((following, pool.submit(function, following)))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _groups(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield the items in lists of `size`, the last one shorter."""
    waiting = iter(items)
    while group := list(islice(waiting, size)):
        yield group
