"""A worker as an actor, and its way to the shards' actors.

ray_cluster.py makes actors of this class; nothing here knows Ray.
"""
from __future__ import annotations

import logging
import platform
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

import minigrad
from data.errors import DataError
from googlenet.distbelief.job import Plan
from googlenet.distbelief.messages import Place, Pushed
from googlenet.distbelief.ray_shards import Fetched, cut
from googlenet.distbelief.server import Applied
from googlenet.distbelief.worker import Found, Worker
from googlenet.model import GoogLeNet
from googlenet.training.checkpoints import fingerprint
from googlenet.training.images import open_data
from googlenet.training.records import DivergedError
from googlenet.training.replica import Part, Replica
from minigrad.errors import InputError

Report = tuple[Pushed, tuple[Applied, ...]]  # a push, and what became of it at each shard
Answers = Callable[[Sequence[Any]], list[Any]]  # waits for what actors answer; raises LostShardError


class Settings(NamedTuple):
    """What all workers are made with."""

    plan: Plan
    threads: int
    fingerprint: str  # of the images that the trainer has


class RayLink:
    """A worker's way to the shards."""

    def __init__(self, replica: Replica, worker: int, place: Place, shards: Sequence[Any], answers: Answers):
        self.replica, self.worker, self.place, self.shards, self.answers = replica, worker, place, shards, answers
        self.slices = cut(replica.flat.data.size, len(shards))
        self.own = np.empty_like(replica.flat.data)
        self.sum = np.empty_like(replica.flat.data)
        self.statistics = [buffer for _, buffer in replica.model.named_buffers()]
        self.versions: list[int] = [0] * len(shards)
        self.rate = 0.0
        self.under_way: deque[tuple[Pushed, list[Any]]] = deque()
        self.reports: list[Report] = []
        self.told: set[str] = set()  # damaged images
        replica.flat.use(data=self.own)

    @property
    def gradient(self) -> np.ndarray:
        """Where the next gradient (P,) is to stand."""
        return self.sum

    def join(self) -> tuple[Place, float]:
        """Fetch the first weights; return where to begin, and the rate."""
        self._take(self.answers([shard.fetch.remote(self.worker) for shard in self.shards]))
        return self.place, self.rate

    def push(self, found: Found) -> None:
        """Push what stands in `gradient`, which is copied."""
        bad = {name: reason for name, reason in self.replica.loader.bad.items() if name not in self.told}
        self.told.update(bad)
        told = Pushed(self.worker, 0, found.place, found.versions, found.batches, sum(found.images), found.scale,
                      found.loss, found.norm, found.seconds, bad)
        empty = np.empty(0, self.own.dtype)
        statistics = np.concatenate([empty, *(buffer.data.reshape(-1) for buffer in self.statistics)])
        self.under_way.append((told, [
            shard.push.remote(self.sum[place], self.worker, found.place.step, version, found.batches, found.scale,
                              empty if number else statistics)
            for number, (shard, place, version) in enumerate(zip(self.shards, self.slices, found.versions,
                                                                 strict=True))]))

    def fetch(self) -> float:
        """Take the weights that came back from the last push, or where transfer overlaps, from the one before; in a
        step without a push, ask for them."""
        if not self.under_way and not self.replica.config.overlap:
            self._take(self.answers([shard.fetch.remote(self.worker) for shard in self.shards]))
        while len(self.under_way) > self.replica.config.overlap:
            self._arrive()
        return self.rate

    def settle(self) -> None:
        """Wait for all that was pushed."""
        while self.under_way:
            self._arrive()

    def reported(self) -> list[Report]:
        """Return what was applied since the last call."""
        found, self.reports = self.reports, []
        return found

    def _arrive(self) -> None:
        told, answers = self.under_way.popleft()
        applied, fetched = zip(*self.answers(answers), strict=True)
        self.reports.append((told, applied))
        self._take(fetched)

    def _take(self, fetched: Sequence[Fetched]) -> None:
        for number, (version, weights, rate, _) in enumerate(fetched):
            self.versions[number], self.rate = version, rate
            self.own[self.slices[number]] = weights
        statistics, at = fetched[0].statistics, 0
        for buffer in self.statistics:
            buffer.data[...] = statistics[at:at + buffer.data.size].reshape(buffer.shape)
            at += buffer.data.size


class WorkerActor:
    """An actor that computes a step when it is asked to."""

    def __init__(self, settings: Settings, worker: int, place: Place, shards: Sequence[Any], answers: Answers):
        self.settings, self.worker, self.place, self.shards, self.answers = settings, worker, place, shards, answers
        self.link: RayLink | None = None
        self.steps: Iterator[Found] = iter(())

    def step(self) -> list[Report]:
        """Work up to the next push, and return those that were applied.

        Raises InputError, which names the node, for what the user can mend, and DivergedError."""
        try:
            self.link = self.link or self._begun()
            next(self.steps)
        except DivergedError:
            raise
        except (InputError, DataError) as error:
            raise InputError(f"on the node {platform.node()}: {error}") from None
        return self.link.reported()

    def settle(self) -> list[Report]:
        """Wait for what was pushed; return what was applied."""
        if self.link is None:
            return []
        self.link.settle()
        return self.link.reported()

    def alive(self) -> bool:
        """Give a sign of life, while a step is computed too."""
        return True

    def _begun(self) -> RayLink:
        """Open the data, and make the network."""
        plan, threads, expected = self.settings
        config = plan.config
        logging.disable()  # of damaged images the trainer tells
        minigrad.set_threads(min(threads, minigrad.available_threads()))
        minigrad.set_convolution(config.conv)
        training, _ = open_data(config)
        if fingerprint(training) != expected:
            raise InputError(f"--data {config.data} holds {fingerprint(training)}, where train.py was started "
                             f"{expected}: let it be the same images on all nodes")
        part = Part(self.worker, config.workers)
        replica = Replica(GoogLeNet(plan.model), config, training, plan.preprocessing, part)
        link = RayLink(replica, self.worker, self.place, self.shards, self.answers)
        self.steps = Worker(replica, link, plan.own_rates).steps()
        return link
