"""The parameter server (Dean et al. 2012, "Large Scale Distributed Deep Networks", section 4.1: Downpour SGD).

Its weights are one vector, cut into shards: contiguous slices, each with all that its updates need, and independent of
the others. A worker fetches the weights, computes a gradient, and pushes it, a shard's slice to each shard:

    fetch     w, version <- shard                        version: the updates that made w
    push      staleness tau = shard's version - version  updates that came between
              g -> v <- mu v + lr (g + wd w),  w <- w - v,  version + 1

Momentum is on the server: one velocity for all. That is the usual reading (TensorFlow's parameter servers apply their
optimisers there); the other, a velocity in each worker, would push velocities in place of gradients. Adagrad, which
DistBelief used, needs nothing but its own sums, and stands in the same place (minigrad/optim.py).

The rate follows the schedule by the batches that all workers' pushes have covered, which every shard counts for itself:
so an epoch means the same for any number of workers. With `staleness_lr` the rate of a push is divided by its staleness
where that is above 1 (Zhang et al. 2015, "Staleness-aware Async-SGD").

Momentum carries the weights on while a gradient is under way: with mu = 0.9 the updates that come between are mostly
known at the fetch. With `look_ahead` a worker whose last push was stale by tau is given what momentum will make of the
weights in tau updates, and computes its gradient there:

    fetch     w - (mu + mu^2 + ... + mu^tau) v

That is the idea of Hakimi et al. 2019, "Taming Momentum in a Distributed Asynchronous Environment", whose workers have
a velocity each; here there is one.

A push is named by its worker and the worker's step. One that was seen before is dropped: whoever sends it can't know
whether it had arrived before the line broke.

`Round` is the other mode, for comparison: synchronous SGD with backup workers (Chen et al. 2016, "Revisiting
Distributed Synchronous SGD"). An update takes the mean of the first so many gradients of the current version; those
that come later are dropped.

All of it is plain: no process, no lock, no line. local.py and ray_cluster.py call it from where they put it.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from googlenet.config import TrainingConfig
from googlenet.training.rules import average_of, optimiser_of
from googlenet.training.schedule import learning_rate
from minigrad.averaging import Average, TailMean
from minigrad.flat import Places, Slice, Vector
from minigrad.optim import SGD, Optimiser

Watch = Callable[[np.ndarray, float, float], None]
Schedule = Callable[[int], float]  # the batches that pushes have covered, this one's included -> its rate


class Applied(NamedTuple):
    """What became of a push."""

    staleness: int  # updates between its fetch and it
    lr: float


class Push(NamedTuple):
    """A gradient that a round holds until it is complete."""

    worker: int
    gradient: np.ndarray
    scale: float
    batches: int
    before: int  # the worker's step that was seen before it


@dataclass
class Counts:
    """The numbers of a shard that a checkpoint holds beside its arrays."""

    version: int = 0  # updates
    batches: int = 0  # that the pushes covered
    seen: dict[int, int] = field(default_factory=dict)  # worker -> its latest step that has come


class Shard:
    """A slice of the weights, and what updates it."""

    def __init__(self, part: Slice, optimiser: Optimiser, average: Average | None, schedule: Schedule, *,
                 staleness_lr: bool = False, look_ahead: bool = False, factor: float = 1.0):
        self.part, self.optimiser, self.average, self.schedule = part, optimiser, average, schedule
        self.staleness_lr, self.factor = staleness_lr, factor  # the latter on every rate, after a way back
        self.look_ahead = look_ahead
        self.staleness: dict[int, int] = {}  # worker -> that of its latest push
        self.counts = Counts()
        self.watch: Watch = lambda gradient, scale, lr: None  # called before each update, with what it is by

    def fetch(self, out: np.ndarray, worker: int) -> int:
        """Write the weights (n,) into `out`, for a worker; return their version.

        With `look_ahead` they are those to expect when its next push comes."""
        if self.look_ahead and isinstance(self.optimiser, SGD):
            self.optimiser.look_ahead(self.staleness.get(worker, 0), out)
        else:
            out[:] = self.part.data
        return self.counts.version

    def push(self, gradient: np.ndarray, worker: int, step: int, *, version: int, batches: int,
             scale: float = 1.0) -> Applied | None:
        """Update the weights by `scale` times a gradient (n,), of weights of a version, over so many batches.

        Returns None, and changes nothing, where this step of this worker has been seen before."""
        if step <= self.counts.seen.get(worker, 0):
            return None
        self.counts.seen[worker] = step
        self.staleness[worker] = self.counts.version - version
        return self._update(gradient, scale, batches, self.staleness[worker])

    def _update(self, gradient: np.ndarray, scale: float, batches: int, staleness: int) -> Applied:
        self.counts.batches += batches
        lr = self.schedule(self.counts.batches) * self.factor
        if self.staleness_lr:
            lr /= max(1, staleness)
        self.watch(gradient, scale, lr)
        self.descend(gradient, lr, scale)
        return Applied(staleness, lr)

    def descend(self, gradient: np.ndarray, lr: float, scale: float) -> None:
        """Change the weights by `scale` times a gradient (n,), at a rate."""
        self.part.given = gradient
        self.optimiser.step(lr, scale)
        if self.average:
            self.average.update()
        self.counts.version += 1


class Round(Shard):
    """A shard that updates by the mean of the first `quorum` gradients of its version."""

    def __init__(self, part: Slice, optimiser: Optimiser, average: Average | None, schedule: Schedule, *, quorum: int,
                 factor: float = 1.0):
        super().__init__(part, optimiser, average, schedule, factor=factor)
        self.quorum = quorum
        self.waiting: dict[int, Push] = {}  # by worker
        self.late = 0  # gradients that came too late

    def push(self, gradient: np.ndarray, worker: int, step: int, *, version: int, batches: int,
             scale: float = 1.0) -> Applied | None:
        """Hold a gradient, which must stay as it is until the round is complete; with the last of them, update.

        Returns None unless the weights changed. The gradients are summed in the order of the workers, so that the sum
        does not depend on who was first."""
        before = self.counts.seen.get(worker, 0)
        if step <= before:
            return None
        self.counts.seen[worker] = step
        if version < self.counts.version:
            self.late += 1
            return None
        self.waiting[worker] = Push(worker, gradient, scale, batches, before)
        if len(self.waiting) < self.quorum:
            return None
        pushes = [self.waiting[worker] for worker in sorted(self.waiting)]
        self.waiting = {}
        covered = sum(push.batches for push in pushes)
        if len(pushes) == 1:
            return self._update(pushes[0].gradient, pushes[0].scale, covered, 0)
        total = np.zeros_like(gradient)
        for push in pushes:
            total += np.multiply(push.gradient, gradient.dtype.type(push.scale))
        return self._update(total, 1 / len(pushes), covered, 0)

    def leave(self, worker: int) -> None:
        """Forget the gradient of a worker that is gone, whose memory its successor writes into."""
        push = self.waiting.pop(worker, None)
        if push:
            self.counts.seen[worker] = push.before


class Weights(Vector):
    """A vector of weights without a network."""

    def __init__(self, data: np.ndarray, places: Places):
        self.data, self.places = data, places

    @property
    def gradient(self) -> np.ndarray:
        """None: each shard is given its own."""
        return np.empty(0, self.data.dtype)


class Server:
    """All shards, in the order of their slices."""

    def __init__(self, shards: Sequence[Shard]):
        self.shards = tuple(shards)
        self.slices = tuple(slice(shard.part.begin, shard.part.end) for shard in shards)

    def fetch(self, shard: int, out: np.ndarray, worker: int) -> int:
        """Write the weights of a shard into its slice of `out` (P,), for a worker; return their version."""
        return self.shards[shard].fetch(out[self.slices[shard]], worker)

    def push(self, shard: int, gradient: np.ndarray, worker: int, step: int, *, version: int, batches: int,
             scale: float = 1.0) -> Applied | None:
        """Update a shard by its slice of a gradient (P,): see `Shard.push` and `Round.push`."""
        return self.shards[shard].push(gradient[self.slices[shard]], worker, step, version=version, batches=batches,
                                       scale=scale)


def merged(statistics: np.ndarray, own: np.ndarray, before: np.ndarray, kept: float) -> np.ndarray:
    """Return running statistics of batch norms (B,), changed as a worker changed its own.

    Its k batches took `before` to `own` = d^k before + c; what others have made of it meanwhile they would have taken
    to d^k statistics + c. `kept` is d^k."""
    return own + own.dtype.type(kept) * (statistics - before)


class State(NamedTuple):
    """The arrays that a server changes, each (P,): the trainer's own, or those that it shares with the server."""

    weights: Vector
    memory: np.ndarray  # of the optimiser
    kept: np.ndarray | None = None  # of the average
    average: Mapping[str, int | float] = MappingProxyType({})  # its settings
    statistics: np.ndarray = np.empty(0)  # of batch norms: those of the last worker that pushed


def server_of(state: State, config: TrainingConfig, epoch_batches: int, counts: Sequence[Counts], *,
              own_rates: Mapping[str, float] = MappingProxyType({}), factor: float = 1.0) -> Server:
    """Return a server over `state`, with as many shards as there are `counts`."""
    P, S = state.weights.data.size, len(counts)
    borders = [P * shard // S for shard in range(S + 1)]
    return Server([_shard(state, config, epoch_batches, slice(*border), count, own_rates, factor)
                   for border, count in zip(pairwise(borders), counts, strict=True)])


def _shard(state: State, config: TrainingConfig, epoch_batches: int, place: slice, counts: Counts,
           own_rates: Mapping[str, float], factor: float) -> Shard:
    part = Slice(state.weights, place.start, place.stop)
    optimiser = optimiser_of(part, config)
    optimiser.own_rates = dict(own_rates)
    optimiser.memory = state.memory[place]
    average = average_of(part, config, epoch_updates(config, epoch_batches))
    if average and state.kept is not None:
        average.kept, average.steps = state.kept[place], counts.version
        if isinstance(average, TailMean):  # which begins where it began, though the run be made longer
            average.start = int(state.average.get("start", average.start))

    def schedule(batches: int) -> float:
        return learning_rate(config, passed(config, epoch_batches, batches))

    if config.sync:
        shard: Shard = Round(part, optimiser, average, schedule, factor=factor,
                             quorum=config.workers - config.backup_workers)
    else:
        shard = Shard(part, optimiser, average, schedule, factor=factor, staleness_lr=config.staleness_lr,
                      look_ahead=config.look_ahead)
    shard.counts = counts
    return shard


def passed(config: TrainingConfig, epoch_batches: int, batches: int) -> float:
    """Return the passes over the images before the update that brings them to so many batches, as serial training
    counts them."""
    epoch, more = divmod(batches - 1, epoch_batches)
    return epoch + more // config.accumulate / -(-epoch_batches // config.accumulate)


def epoch_updates(config: TrainingConfig, epoch_batches: int) -> int:
    """Return about how many updates an epoch has."""
    gradients = config.workers - config.backup_workers if config.sync else 1
    return -(-epoch_batches // (config.accumulate * config.push_every * gradients))
