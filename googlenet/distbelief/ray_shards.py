"""A shard of the server as an actor of its own, and what it takes over when another one has died.

ray_cluster.py makes actors of these classes; nothing here knows Ray.
"""
from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import minigrad
from googlenet.distbelief.job import Job, Plan
from googlenet.distbelief.server import Applied, Counts, Server, State, Weights, server_of
from minigrad.averaging import Average, TailMean


class EmptyShardError(Exception):
    """A shard's actor was started again, and has no weights yet."""


class LostShardError(Exception):
    """A shard has not answered a worker."""


class ShardState(NamedTuple):
    """What a shard is, to be given to an actor: its number, its slices of all arrays, its counts."""

    number: int
    weights: np.ndarray
    memory: np.ndarray
    kept: np.ndarray | None
    statistics: np.ndarray  # of batch norms, as they came last; the first shard has those of all
    counts: Counts


class Fetched(NamedTuple):
    """The weights of a shard."""

    version: int
    weights: np.ndarray
    rate: float  # of a push that would come now
    statistics: np.ndarray  # as in ShardState


def cut(size: int, shards: int) -> list[slice]:
    """Return the slices of a vector."""
    return [slice(size * shard // shards, size * (shard + 1) // shards) for shard in range(shards)]


def states_of(job: Job) -> list[ShardState]:
    """Return the shards of the trainer's arrays, as they are: nothing is copied."""
    P, vector = job.parameters, job.weights.array
    return [ShardState(number, vector[part], job.memory.array[part], None if job.kept is None else job.kept.array[part],
                       vector[P:] if number == 0 else vector[:0], counts)
            for number, (part, counts) in enumerate(zip(cut(P, job.config.shards), job.counts, strict=True))]


def take_over(job: Job, state: ShardState) -> None:
    """Copy a shard's state into the trainer's arrays."""
    own = states_of(job)[state.number]
    own.weights[:], own.memory[:], own.statistics[:] = state.weights, state.memory, state.statistics
    if own.kept is not None:
        own.kept[:] = state.kept
    job.counts[state.number] = state.counts


class ShardActor:
    """An actor with one shard of the server. It begins without any, and so it is when it was started again."""

    def __init__(self, plan: Plan):
        minigrad.set_threads(1)
        self.plan = plan
        self.server: Server | None = None

    @property
    def shard(self) -> Any:
        """The shard. Raises EmptyShardError before `load`."""
        if self.server is None:
            raise EmptyShardError("the shard has no weights")
        return self.server.shards[self.number]

    def alive(self) -> bool:
        """Give a sign of life: whether there are weights."""
        return self.server is not None

    def load(self, state: ShardState) -> bool:
        """Take over a state, unless there is one; return whether it was taken."""
        if self.server is not None:
            return False
        plan, S = self.plan, self.plan.config.shards
        P = max(place.stop for place, _ in plan.places_of.values())
        part = cut(P, S)[state.number]
        self.number, self.statistics = state.number, state.statistics
        weights, memory = _whole(state.weights, part, P), _whole(state.memory, part, P)
        kept = None if state.kept is None else _whole(state.kept, part, P)
        counts = [Counts() for _ in range(S)]
        counts[state.number] = state.counts
        self.server = server_of(State(Weights(weights, plan.places_of), memory, kept, plan.average), plan.config,
                                plan.epoch_batches, counts, own_rates=plan.own_rates, factor=plan.factor)
        return True

    def fetch(self, worker: int) -> Fetched:
        """Return the weights (n,) for a worker."""
        shard = self.shard
        weights = np.empty_like(shard.part.data)
        version = shard.fetch(weights, worker)
        return Fetched(version, weights,
                       shard.schedule(shard.counts.batches + 1) * shard.factor, self.statistics)

    def push(self, gradient: np.ndarray, worker: int, step: int, version: int, batches: int, scale: float,
             statistics: np.ndarray) -> tuple[Applied, Fetched]:
        """Update by a gradient (n,); return what became of it, and what `fetch` does after it.

        One that was seen before has had its effect, of which the worker that sent it could not tell."""
        shard = self.shard
        version = min(version, shard.counts.version)  # it may be that of a shard which died since
        applied = shard.push(gradient, worker, step, version=version, batches=batches, scale=scale)
        if applied:
            self.statistics = statistics
        fetched = self.fetch(worker)
        return applied or Applied(0, fetched.rate), fetched

    def look(self, version: int, batches: int) -> ShardState:
        """Return the state as that of so many updates, over so many batches, which are what the trainer has counted.

        Those that this shard lacks, since it is not the one that they were pushed to, are taken as if the weights had
        stood still."""
        shard = self.shard
        if shard.average:
            stand_still(shard.average, version)
        shard.counts.version, shard.counts.batches = version, batches
        kept = shard.average.kept if shard.average else None
        return ShardState(self.number, shard.part.data, shard.optimiser.memory, kept, self.statistics, shard.counts)


def stand_still(average: Average, steps: int) -> None:
    """Make of an average that of so many steps: in those it lacks, or has too many, the weights stood still."""
    if average.steps == steps:
        return
    if isinstance(average, TailMean):
        more = max(steps, average.start) - max(average.steps, average.start)
        average.kept += more * average.parameters.data.astype(np.float64)
    else:
        for _ in range(steps - average.steps):
            average.update()
    average.steps = steps


def _whole(part: np.ndarray, place: slice, size: int) -> np.ndarray:
    """Return a vector (P,) of which only one slice is ever written: the rest takes no memory."""
    made = np.zeros(size, part.dtype)
    made[place] = part
    return made
