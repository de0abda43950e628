"""Workers and shards in one process, in time that is only counted: what many of them would do, without having them.

A worker computes for a while, sends each shard its slice, and goes on when it has fetched from all of them; a shard
serves one request after the other. Everything is in order of the counted time, and of the workers' numbers where that
is equal, so that a simulation is the same every time (Odena 2016 simulates staleness in this way).

`Simulation` calls a real server (server.py), so that it learns as the workers would. On a quadratic the answer is
known: N workers of equal speed make updates of staleness tau = N - 1, and with loss (a/2) w^2, rate lr and momentum mu

    w[t+1] = w[t] + mu (w[t] - w[t-1]) - lr a w[t-tau]

whose solutions are sums of powers z^t of the roots of z^(tau+2) - (1 + mu) z^(tau+1) + mu z^tau + lr a z = 0. Without
momentum they all vanish while lr a < 2 sin(pi / (4 tau + 2)): about the N-th part of what one worker stands.

`project` leaves the learning out and counts images a second and staleness for hundreds of workers, from times that were
measured on one machine.
"""
from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from itertools import count
from typing import NamedTuple

import numpy as np

from googlenet.distbelief.server import Applied, Server
from minigrad.errors import InputError

Compute = Callable[[int, int], float]  # (worker, its step from 1 on) -> seconds


class Served(NamedTuple):
    """A shard has applied a worker's push, and sent it the weights."""

    time: float  # seconds since the beginning
    worker: int
    step: int
    shard: int
    staleness: int


class Timing:
    """The clock: who is served when. `pushed` and `fetched` may do what is to be done at that moment."""

    def __init__(self, workers: int, shards: int, compute: Compute, *, service: float = 0.0, latency: float = 0.0):
        if workers < 1 or shards < 1:
            raise InputError(f"{workers} workers and {shards} shards: give at least 1 of each")
        self.workers, self.shards, self.compute = workers, shards, compute
        self.service, self.latency = service, latency  # seconds of a shard for a push and a fetch; of a message
        self.versions = [0] * shards
        self.busy = [0.0] * shards  # seconds that a shard has served

    def computed(self, worker: int, step: int) -> None:
        """Worker has a gradient."""

    def served(self, worker: int, step: int, shard: int, version: int) -> None:
        """A shard applies a push of weights of `version`, and sends its own."""

    def run(self) -> Iterator[Served]:
        """Yield what happens, without an end."""
        order = count()
        queue: list[tuple[float, int, int, int, str, int]] = []  # (time, worker, ..., what, shard)
        steps, left = [0] * self.workers, [0] * self.workers
        has = [[0] * self.shards for _ in range(self.workers)]  # versions
        free = [0.0] * self.shards

        def later(time: float, worker: int, what: str, shard: int = 0) -> None:
            heapq.heappush(queue, (time, worker, next(order), steps[worker], what, shard))

        def begin(time: float, worker: int) -> None:
            steps[worker] += 1
            later(time + self.compute(worker, steps[worker]), worker, "computed")

        for worker in range(self.workers):
            begin(0.0, worker)
        while True:
            time, worker, _, step, what, shard = heapq.heappop(queue)
            if what == "computed":
                self.computed(worker, step)
                left[worker] = self.shards
                for each in range(self.shards):
                    later(time + self.latency, worker, "arrived", each)
            elif what == "arrived":
                free[shard] = max(time, free[shard]) + self.service
                later(free[shard], worker, "served", shard)
            else:
                staleness = self.versions[shard] - has[worker][shard]
                self.served(worker, step, shard, has[worker][shard])
                self.versions[shard] += 1
                has[worker][shard] = self.versions[shard]
                self.busy[shard] += self.service
                yield Served(time, worker, step, shard, staleness)
                left[worker] -= 1
                if not left[worker]:
                    begin(time + self.latency, worker)


class Simulation(Timing):
    """N workers that learn by a server of this process; `gradient(weights, worker, step)` returns (P,) of (P,)."""

    def __init__(self, server: Server, gradient: Callable[[np.ndarray, int, int], np.ndarray], workers: int,
                 compute: Compute, *, service: float = 0.0, latency: float = 0.0):
        super().__init__(workers, len(server.shards), compute, service=service, latency=latency)
        self.server, self.gradient = server, gradient
        P = server.slices[-1].stop
        self.own = [np.empty(P, server.shards[0].part.data.dtype) for _ in range(workers)]
        self.found = list(self.own)
        for worker, weights in enumerate(self.own):
            for shard in range(self.shards):
                server.fetch(shard, weights, worker)

    def computed(self, worker: int, step: int) -> None:
        """Compute a gradient of the weights that the worker has."""
        self.found[worker] = self.gradient(self.own[worker], worker, step)

    def served(self, worker: int, step: int, shard: int, version: int) -> None:
        """Push a slice of it, and fetch."""
        applied = self.server.push(shard, self.found[worker], worker, step, version=version, batches=1)
        assert isinstance(applied, Applied)
        self.server.fetch(shard, self.own[worker], worker)


class Measured(NamedTuple):
    """What a projection begins from."""

    step: float  # seconds of a worker's step
    spread: float  # relative deviation of these
    update: float  # seconds of an update of all weights, by one core
    size: int  # bytes of the weights
    line: float  # bytes a second of a shard's line, each way
    latency: float  # seconds of a message
    images: int  # of a step


class Projected(NamedTuple):
    """What many workers would do."""

    workers: int
    shards: int
    images_per_second: float
    staleness: float  # mean
    most: int
    busy: float  # part of the time that a shard serves
    alone: float  # images a second of one worker


def project(measured: Measured, workers: int, shards: int, *, rounds: int = 30, seed: int = 0) -> Projected:
    """Return what so many workers and shards would do, each shard on a machine of its own.

    A shard receives its slice of a gradient, applies it and sends its slice of the weights, on a line that carries both
    ways at once while requests wait. The first third of `rounds` steps a worker is not counted."""
    rng = np.random.default_rng(seed)
    sigma = np.sqrt(np.log1p(measured.spread**2))  # of the logarithm
    spread = np.exp(sigma * rng.standard_normal((workers, rounds + 2)) - sigma**2 / 2)
    service = measured.size / shards / measured.line + measured.update / shards

    def compute(worker: int, step: int) -> float:
        return float(measured.step * spread[worker, step % spread.shape[1]])

    timing = Timing(workers, shards, compute, service=service, latency=measured.latency)
    total = workers * shards * rounds
    counted, first, staleness = 0, 0.0, []
    for number, served in enumerate(timing.run(), 1):
        if number == total // 3:
            first = served.time
        elif number > total // 3:
            counted += 1
            staleness.append(served.staleness)
        if number == total:
            break
    seconds = served.time - first
    alone = measured.images / (measured.step + service + 2 * measured.latency)
    return Projected(workers, shards, measured.images * counted / shards / seconds, float(np.mean(staleness)),
                     max(staleness), sum(timing.busy) / shards / served.time, alone)
