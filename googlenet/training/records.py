"""What training tells of itself: a record of every step and every epoch."""
from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from googlenet.testing import Score
from minigrad.errors import InputError


class DivergedError(InputError):
    """The loss is no longer a finite number."""


class Losses(NamedTuple):
    """Means over the images of a step or an epoch; those of the auxiliary heads are NaN where they aren't built."""

    total: float
    main: float
    aux1: float
    aux2: float


class Step(NamedTuple):
    """One update."""

    step: int
    epoch: int
    images: int  # seen since the beginning, over all epochs
    lr: float
    losses: Losses
    images_per_second: float


class Epoch(NamedTuple):
    """One pass over the training images and the validation that follows, None where nothing is held out."""

    epoch: int
    step: int
    images: int  # seen since the beginning
    losses: Losses
    validation: Score | None
    best: bool  # the lowest validation loss so far of the weights that are tested: it wavers less than the error
    warnings: tuple[str, ...]
    averaged: Score | None = None  # the validation of the averaged weights, which are then the ones that are tested


def mean(losses: list[Losses]) -> Losses:
    """Return the mean of each loss, NaN where there is none."""
    return Losses(*np.mean(losses, axis=0).tolist()) if losses else Losses(*[math.nan] * len(Losses._fields))
