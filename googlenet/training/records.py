"""What training tells of itself: a record of every step, every epoch, and every time it goes back."""
from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from googlenet.testing import Score
from minigrad.errors import InputError


class DivergedError(InputError):
    """The loss is no longer a finite number, or a classifier does not learn."""


class GivenUpError(InputError):
    """Workers were lost too often; the trainer's state is that of its last record."""


class Losses(NamedTuple):
    """Means over the images of a step or an epoch; those of the auxiliary heads are NaN where they aren't built."""

    total: float
    main: float
    aux1: float
    aux2: float


class Crew(NamedTuple):
    """How the workers of a run do, over its latest updates."""

    speeds: tuple[float, ...]  # images a second of each
    staleness: float  # mean, of a push at a shard
    most: int  # the largest
    restarts: int  # of workers, servers and shards, since the run was started or taken up
    server: float  # part of the time that the server works; NaN on a cluster, where it is not known


class Step(NamedTuple):
    """One update, of one batch or of several."""

    step: int
    epoch: int
    images: int  # seen since the beginning, over all epochs
    lr: float
    losses: Losses
    images_per_second: float
    gradient_norm: float = math.nan  # before it was clipped; NaN where nothing is
    crew: Crew | None = None  # where workers compute


class Epoch(NamedTuple):
    """One pass over the training images and the validation that follows, None where nothing is held out."""

    epoch: int
    step: int
    images: int  # seen since the beginning
    losses: Losses
    validation: Score | None
    best: bool  # the lowest top-1 error so far of the weights that are tested; of two the same, the lower loss
    warnings: tuple[str, ...]
    averaged: Score | None = None  # the validation of the averaged weights, where there are any


class Restart(NamedTuple):
    """Training went back to a state of before, and goes on from there, at half the rate where it had diverged."""

    reason: str
    from_step: int
    step: int  # that it is at now; those above are taken again
    epoch: int
    rate_factor: float  # on every rate from now on: 1, 1/2, 1/4, ...


class Fault(NamedTuple):
    """A process of the run was lost, and another one started in its place; training goes on."""

    reason: str
    restarts: int


def mean(losses: list[Losses]) -> Losses:
    """Return the mean of each loss, NaN where there is none."""
    with np.errstate(over="ignore"):  # of a run that diverges
        return Losses(*np.mean(losses, axis=0).tolist()) if losses else Losses(*[math.nan] * len(Losses._fields))


def weighted(losses: list[Losses], images: list[int]) -> Losses:
    """Return the mean of each loss over all images, given the means over batches of so many."""
    shares = [count / sum(images) for count in images]
    return Losses(*(sum(share * loss for share, loss in zip(shares, own, strict=True))
                    for own in zip(*losses, strict=True)))
