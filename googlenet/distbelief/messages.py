"""What the processes of a run say to each other. Weights and gradients are not said: they stand in shared memory."""
from __future__ import annotations

from typing import NamedTuple

from googlenet.training.records import Losses


class Place(NamedTuple):
    """Where a worker is: its steps so far, and the batch of its part of an epoch that is its next."""

    step: int = 0
    epoch: int = 0
    batch: int = 0


# From a worker to the server.

class Join(NamedTuple):
    """It has begun, and asks for its place and the weights."""


class Pushed(NamedTuple):
    """A gradient stands in one of its buffers."""

    worker: int
    buffer: int
    place: Place  # after it
    versions: tuple[int, ...]  # of the shards' weights that it is of, the first of a sum
    batches: int  # that it covers
    images: int
    scale: float
    losses: Losses
    norm: float
    seconds: float  # that it took to compute
    bad: dict[str, str]  # damaged images, found since the one before: name -> reason
    fetched: int = 0  # the buffer of the weights that it is of


class Fetch(NamedTuple):
    """It wants the weights in one of its buffers, after what it has pushed."""

    buffer: int


class Failed(NamedTuple):
    """It can't go on: `kind` is input (what the user can mend), diverged, or error. The server says it too: of a worker
    that was lost too often as lost."""

    kind: str
    reason: str


# From the server to a worker.

class Joined(NamedTuple):
    """Where it begins; the weights follow as Fetched."""

    place: Place


class Fetched(NamedTuple):
    """The weights stand in the buffer that was asked for."""

    buffer: int
    versions: tuple[int, ...]
    lr: float


class Free(NamedTuple):
    """A gradient has been read: its buffer may be written again."""

    buffer: int


# Between the server and the trainer.

class Next(NamedTuple):
    """The trainer has taken in the last update: the next push may be applied."""


class Update(NamedTuple):
    """The weights have changed, by the gradients of one worker, or of several in synchronous training."""

    pushes: tuple[Pushed, ...]
    staleness: tuple[int, ...]  # by shard
    lr: float
    version: int
    batches: int  # covered by all updates
    seen: dict[int, int]
    busy: float  # seconds that the server worked since the last update; NaN where that is not known
    late: tuple[Pushed, ...] = ()  # what changed nothing: seen before, or too late for its round


class Lost(NamedTuple):
    """A worker, or as number -1 a shard, is gone, and another one started in its place."""

    worker: int
    reason: str
    restarts: int
