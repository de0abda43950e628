"""A worker (DistBelief, section 4.1 and appendix): a replica that fetches weights, computes gradients and pushes them.

    every step     g <- gradient of a batch;  accrued <- accrued + g
    every n_push   push accrued, and begin a new sum
    every n_fetch  fetch the weights;  in other steps  w <- w - lr g, on its own copy

What it talks through is a `Link`: lines and shared memory on one machine (local.py), actors on many (ray_cluster.py).
Where it begins is for the server to say, so that a worker that died can be replaced by one that knows nothing.
"""
from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from itertools import islice
from typing import NoReturn, Protocol

import numpy as np

from googlenet.config import TrainingConfig
from googlenet.distbelief.messages import Place
from googlenet.training.records import DivergedError, Losses, weighted
from googlenet.training.replica import Gradient, Replica
from minigrad.errors import InputError
from minigrad.optim import SGD


class Link(Protocol):
    """How a worker reaches the server. Its gradients are written to where `gradient` says."""

    @property
    def versions(self) -> Sequence[int]:
        """Those of the shards' weights that it has."""

    @property
    def gradient(self) -> np.ndarray:
        """Where the next gradient (P,) is to stand: nobody reads it until it is pushed."""

    def join(self) -> tuple[Place, float]:
        """Fetch the first weights; return where to begin, and the rate."""

    def push(self, found: Found) -> None:
        """Push what stands in `gradient`, which is other memory after it."""

    def fetch(self) -> float:
        """Fetch the weights, after the pushes of before; return the rate."""


class Found:
    """What is known of the gradients since the last push."""

    def __init__(self, before: int, versions: Sequence[int]):
        self.before = before  # batches of the replica's part until then
        self.versions = tuple(versions)  # of the weights that the first of them is of
        self.began = time.perf_counter()
        self.losses: list[Losses] = []
        self.images: list[int] = []
        self.scale, self.norm = 1.0, float("nan")
        self.place = Place()
        self.batches = 0

    def add(self, gradient: Gradient, place: Place, batches: int) -> None:
        """Take in a step's; `batches` of its part are behind the replica now."""
        self.losses.append(gradient.losses)
        self.images.append(gradient.images)
        self.scale, self.norm, self.place = gradient.scale, gradient.norm, place
        self.batches = batches - self.before

    @property
    def loss(self) -> Losses:
        """The mean over all images."""
        return weighted(self.losses, self.images) if len(self.losses) > 1 else self.losses[0]

    @property
    def seconds(self) -> float:
        """The time since they were begun, with the weights at hand."""
        return time.perf_counter() - self.began


class Worker:
    """A replica at work."""

    def __init__(self, replica: Replica, link: Link, own_rates: Mapping[str, float]):
        self.replica, self.link = replica, link
        self.config = replica.config
        self.accrues = self.config.push_every > 1
        self.descent = _descent(replica, own_rates) if self.config.fetch_every > 1 else None
        if not replica.loader.batches:
            raise InputError(f"{self.config.workers} workers for fewer batches: give fewer --workers, or a smaller "
                             "--batch-size")

    def run(self) -> NoReturn:
        """Work until the link ends."""
        for _ in self.steps():
            pass
        raise AssertionError("its work has no end")

    def steps(self) -> Iterator[Found]:
        """Work without an end; yield what was pushed, after every push and the fetch that follows it."""
        self.replica.to_training()
        self._warm_up()
        self.place, self.rate = self.link.join()
        self.found = Found(self._behind, self.link.versions)
        while True:
            before = self.place.step
            with closing(self.replica.groups(self.place.epoch, self.place.batch)) as groups:
                for group in groups:
                    if not self.accrues:
                        self.replica.flat.use(gradient=self.link.gradient)
                    pushed = self._take(self.replica.gradient(group, self.place.step))
                    if pushed:
                        yield pushed
                        self.found.began = time.perf_counter()  # it may not have been asked for more at once
            if self.place.step == before and not self.place.batch:
                raise InputError(f"none of the images of worker {self.replica.part.number + 1} can be used")
            self.place = Place(self.place.step, self.place.epoch + 1, 0)

    def _warm_up(self) -> None:
        """Compute a gradient for nobody: what loads kernels, or compiles them, would make a first push very stale."""
        with closing(self.replica.groups(0, 0)) as groups, suppress(DivergedError):  # of weights that mean nothing
            for group in islice(groups, 1):
                self.replica.gradient(group, 0)

    @property
    def _behind(self) -> int:
        return self.place.epoch * self.replica.loader.batches + self.place.batch

    def _take(self, gradient: Gradient) -> Found | None:
        """Do what follows a gradient; return what was pushed."""
        pushed = None
        step = self.place.step + 1
        self.place = Place(step, self.place.epoch, gradient.batch + 1)
        self.found.add(gradient, self.place, self._behind)
        own = self.replica.flat.gradient
        if self.accrues:
            accrued = self.link.gradient
            if len(self.found.images) == 1:
                accrued[:] = 0
            accrued += own.dtype.type(gradient.scale) * own
            self.found.scale = 1.0
        if step % self.config.push_every == 0:
            pushed = self.found
            self.link.push(pushed)
        if step % self.config.fetch_every == 0:
            self.rate = self.link.fetch()
        elif self.descent:
            self.descent.step(self.rate, gradient.scale)
        if pushed:
            self.found = Found(self._behind, self.link.versions)
        return pushed


def _descent(replica: Replica, own_rates: Mapping[str, float]) -> SGD:
    """Return plain gradient descent on a worker's own weights."""
    config: TrainingConfig = replica.config
    made = SGD(replica.flat, momentum=0.0, weight_decay=config.weight_decay, bias_rate=config.bias_rate,
               bias_decay=config.bias_decay)
    made.own_rates = dict(own_rates)
    return made
