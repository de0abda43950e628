"""Workers and shards as Ray actors, on one machine or many (`--cluster ADDRESS|auto`, extra `ray`).

    trainer ── worker actors ── shard actors

What they compute is what server.py and worker.py say; Ray starts them, places them over the nodes, and carries the
arrays. Every shard is an actor (ray_shards.py), so that the shards of a fetch may be of different versions, as in
DistBelief. A worker (ray_workers.py) sends each shard its slice of a gradient and gets back the shard's weights.

All of them are asked again and again whether they are alive. One that dies is started again: a worker by the trainer,
a shard by Ray, with nothing in it. The trainer has the shards' states of the last checkpoint, and gives it to a shard
that has lost its own: the pushes that this shard took since then are lost, and counted; it goes on as if the weights
had stood still in them. A worker that died, or met a dead shard, computes its step again; shards that had the push of
it already drop the second one.
"""
from __future__ import annotations

import logging
import math
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

from googlenet.config import TrainingConfig
from googlenet.distbelief.job import Job
from googlenet.distbelief.messages import Lost, Place, Update
from googlenet.distbelief.processes import FIRST, longest
from googlenet.distbelief.ray_shards import (
    EmptyShardError,
    LostShardError,
    ShardActor,
    ShardState,
    states_of,
    take_over,
)
from googlenet.distbelief.ray_workers import Report, Settings, WorkerActor
from minigrad.errors import InputError

BEAT = 1.0  # seconds between questions whether an actor is alive
STARTING = 300.0  # seconds that a shard may take to be started, wherever there is room
TRIES = 3  # to fetch the shards' state
SIGNS = "signs"  # of life: a group of calls that others don't hold up

log = logging.getLogger(__name__)


@dataclass
class Peer:
    """An actor as the trainer sees it."""

    actor: Any
    asked: Any = None  # whether it is alive
    asked_at: float = field(default_factory=time.monotonic)
    begun: bool = False  # it has answered once

    def ask(self) -> None:
        """Ask whether it is alive."""
        self.asked, self.asked_at = self.actor.alive.options(concurrency_group=SIGNS).remote(), time.monotonic()

    def heard(self) -> None:
        """Note that it is."""
        self.asked, self.asked_at, self.begun = None, time.monotonic(), True


@dataclass
class Hand(Peer):
    """A worker."""

    step: Any = None  # what is under way
    step_at: float = 0.0  # since when
    usual: float = 0.0  # seconds of its latest step; 0 before the first
    excused: bool = False  # it may yet meet the loss of a shard, which was told

    def begin(self, call: Any) -> None:
        """Let it do something, which is then under way."""
        self.step, self.step_at = call.remote(), time.monotonic()

    def hangs(self, patience: float) -> str:
        """Return how it hangs though it gives signs of life, nothing where it does not. It may be waiting for a shard
        that is started anew."""
        silent = time.monotonic() - self.step_at
        if self.step is None or silent < max(FIRST, longest(self.usual, patience)):
            return ""
        return f"has computed for {silent:.0f} s" + (f", where a step took {self.usual:.2g} s" if self.usual else "")


class RayFleet:
    """The trainer's end: it asks the workers for steps, and keeps the shards' states of the last checkpoint.

    Raises InputError where there is no cluster, or one that lacks the room, the program or the images."""

    def __init__(self, job: Job, step: int, batches: int, images: str):
        config = replace(job.config, data=path_for_all(job.config.data))
        self.ray, self.begun = connected(config.cluster)
        self.job, self.version, self.batches = job, step, batches
        self.patience = config.hang_timeout
        self.places, self.restarts = dict(job.places), job.restarts
        self.ready: deque[Update | Lost] = deque()
        self.still = True  # nothing was begun since the last state was taken over
        self.hands: dict[int, Hand] = {}
        self.shards: list[Peer] = []
        self.cared_at = time.monotonic()
        try:
            threads = threads_of(self.ray.nodes(), config)
            plan = replace(job.plan(), config=config)
            self.settings = Settings(plan, threads, images)
            actor = self._maker(ShardActor, num_cpus=0, max_restarts=-1)
            self.shards = [Peer(actor(plan)) for _ in range(config.shards)]
            self.make_worker = self._maker(WorkerActor, num_cpus=threads)
            self.states = states_of(job)
            self._begin()
        except BaseException:
            self.close()
            raise

    def _maker(self, kind: type, **options: Any) -> Any:
        """Return what makes actors of a class, spread over the nodes."""
        return self.ray.remote(concurrency_groups={SIGNS: 1}, scheduling_strategy="SPREAD", **options)(kind).remote

    def _begin(self) -> None:
        """Let the shards be what the trainer has."""
        taken = [shard.actor.load.remote(state) for shard, state in zip(self.shards, self.states, strict=True)]
        try:
            self.ray.get(taken, timeout=STARTING)
        except self.ray.exceptions.RayError as error:
            require_program(error)
            raise InputError(f"the cluster could not start the shards ({told(error)}): look at it with: ray status"
                             ) from error
        for shard in self.shards:
            shard.heard()

    def next(self) -> Update | Lost:
        """Return the next update, or which worker or shard was lost.

        Raises InputError or DivergedError where a worker can't go on for that reason."""
        while not self.ready:
            self._start()
            self._hear()
        return self.ready.popleft()

    def _start(self) -> None:
        """Let every worker compute that does not; before the warm start has ended, only the first one."""
        self.still = False
        alone = self.version < self.job.config.warm_start
        for worker in range(self.job.config.workers):
            if worker not in self.hands:
                place = self.places.get(worker, Place())
                actors = [shard.actor for shard in self.shards]
                self.hands[worker] = Hand(self.make_worker(self.settings, worker, place, actors, answers))
                self.hands[worker].ask()
            hand = self.hands[worker]
            if hand.begun and hand.step is None and not (alone and worker):
                hand.begin(hand.actor.step)

    def _hear(self) -> None:
        """Wait until something is done, or for a moment; take it in, and see to those who are silent."""
        steps = {hand.step: worker for worker, hand in self.hands.items() if hand.step is not None}
        beginning = [hand.asked for hand in self.hands.values() if not hand.begun]
        done, _ = self.ray.wait([*steps, *beginning], num_returns=1, timeout=BEAT)
        for each in done:
            if each in steps:
                self._finish(steps[each])
        self._care()

    def _finish(self, worker: int) -> None:
        """Take in what a worker has done."""
        errors, hand = self.ray.exceptions, self.hands[worker]
        try:
            reports = self.ray.get(hand.step)
        except errors.RayTaskError as error:  # before the others: Ray makes it one of its cause's kind too
            self._failed(worker, error.cause)
        except errors.RayError as error:
            self._replace(worker, f"was lost ({told(error)})")
        else:
            hand.step = None
            for report in reports:
                hand.usual = report[0].seconds
                self._take(report)

    def _failed(self, worker: int, cause: Exception) -> None:
        """Replace a worker that raised an error.

        Raises it where another one would raise it too: InputError, of which DivergedError is one."""
        if isinstance(cause, InputError):
            raise cause from None
        if isinstance(cause, LostShardError):
            self._revive()
            if self.hands[worker].excused:
                self._end(worker)
            else:
                self._replace(worker, f"could not reach a shard ({told(cause)})")
        else:
            self._replace(worker, f"failed: {type(cause).__name__}: {cause}")

    def _take(self, report: Report) -> None:
        """Count a push in. Each is reported once: its worker, and whoever replaces it, goes on from there."""
        push, applied = report
        self.places[push.worker] = push.place
        self.version += 1
        self.batches += push.batches
        self.ready.append(Update((push,), tuple(each.staleness for each in applied), applied[0].lr, self.version,
                                 self.batches, {}, math.nan))

    def _replace(self, worker: int, reason: str) -> None:
        """End a worker that was lost, and tell of it."""
        self._end(worker)
        self._count(f"worker {worker + 1} {reason}")
        self.ready.append(Lost(worker, reason, self.restarts))

    def _end(self, worker: int) -> None:
        """End a worker, in whose place the next `_start` puts another one."""
        self.ray.kill(self.hands.pop(worker).actor)

    def _count(self, reason: str) -> None:
        self.restarts += 1
        if self.restarts > self.job.config.max_restarts:
            raise InputError(f"{reason}, after {self.job.config.max_restarts} restarts: look for the cause, such as "
                             "too little memory, or allow more with --max-restarts")

    def _care(self) -> None:
        """Ask all actors whether they are alive; replace those that are not, or have not answered for too long."""
        now = time.monotonic()
        if now - self.cared_at > 10 * BEAT:  # this process was stopped, or has validated: they had no chance to answer
            for peer in [*self.hands.values(), *self.shards]:
                peer.asked_at = now
        self.cared_at = now
        asked = [peer.asked for peer in [*self.hands.values(), *self.shards] if peer.asked is not None]
        answered = set(self.ray.wait(asked, num_returns=len(asked), timeout=0)[0]) if asked else set()
        for worker, hand in list(self.hands.items()):
            reason = self._silence(hand, answered) or hand.hangs(self.patience)
            if reason:
                self._replace(worker, reason)
        lost = [shard for shard in self.shards if self._silence(shard, answered)]
        if lost:
            self._revive()

    def _silence(self, peer: Peer, answered: set[Any]) -> str:
        """Return why an actor can't be counted on, nothing where it can; ask it anew where it is time to."""
        passed = time.monotonic() - peer.asked_at
        if peer.asked in answered:
            return self._answer(peer)
        if peer.asked is None:
            if passed > BEAT:
                peer.ask()
        elif passed > self.patience:
            if peer.begun:
                self.ray.kill(peer.actor, no_restart=isinstance(peer, Hand))
                return f"gave no sign of life for {self.patience:g} s"
            log.warning("the cluster has not started a worker for %g s: it may lack the room; look at it with: ray "
                        "status", self.patience)
            peer.asked_at = time.monotonic()
        return ""

    def _answer(self, peer: Peer) -> str:
        """Return why an actor could not answer, nothing where it did."""
        try:
            alive = self.ray.get(peer.asked)
        except self.ray.exceptions.RayError as error:
            require_program(error)
            peer.asked = None
            return f"was lost ({told(error)})"
        peer.heard()
        return "" if alive else "was lost"

    def _revive(self) -> None:
        """Give the shards that are lost their state of the last checkpoint; that counts as one restart."""
        lost = {number: self._revived(number) for number in range(len(self.shards)) if not self._lives(number)}
        found = [f"shard {number + 1} was lost and is that of the last checkpoint: {pushes} pushes to it are lost"
                 for number, pushes in lost.items() if pushes is not None]
        if not found:
            return
        for hand in self.hands.values():
            hand.excused = True
        self._count("; ".join(found))
        self.ready.append(Lost(-1, "; ".join(found), self.restarts))

    def _lives(self, number: int) -> bool:
        """Return whether a shard has its weights; one that gives no answer is ended, and started again by Ray."""
        shard, errors = self.shards[number], self.ray.exceptions
        shard.ask()
        try:
            alive: bool = self.ray.get(shard.asked, timeout=self.patience)
        except errors.GetTimeoutError:
            self.ray.kill(shard.actor, no_restart=False)
            return False
        except errors.RayError:
            return False
        shard.heard()
        return alive

    def _revived(self, number: int) -> int | None:
        """Let a shard go on from its state of the last checkpoint; return how many pushes it has lost.

        Returns None where it has its weights after all. Raises InputError where it can't be started any more."""
        shard, kept = self.shards[number], self.states[number]
        given_up = time.monotonic() + STARTING
        while True:
            try:
                taken = self.ray.get(shard.actor.load.remote(kept), timeout=STARTING)
                if taken:
                    self.states[number] = self.ray.get(shard.actor.look.remote(self.version, self.batches),
                                                       timeout=STARTING)
                shard.heard()
                return self.version - kept.counts.version if taken else None
            except self.ray.exceptions.RayError as error:  # not started again yet
                if time.monotonic() > given_up:
                    raise InputError(f"shard {number + 1} was lost, and no node took it over in {STARTING:g} s "
                                     f"({told(error)}): look at the cluster (ray status), then go on with --resume"
                                     ) from None
                time.sleep(0.2)

    def settle(self) -> list[Update | Lost]:
        """Wait for all that is under way, take over the shards' state, and return what was not told yet.

        Raises what `next` raises."""
        if not self.still:
            self._end_steps()
            for hand in self.hands.values():
                if hand.begun:
                    hand.begin(hand.actor.settle)
            self._end_steps()
            for state in self._states():
                take_over(self.job, state)
            self.states = states_of(self.job)
            self.still = True
        ready = list(self.ready)
        self.ready.clear()
        return ready

    def _end_steps(self) -> None:
        """Wait until no worker computes. Those that the cluster has not started yet have nothing to do."""
        while any(hand.step is not None for hand in self.hands.values()):
            self._hear()

    def _states(self) -> list[ShardState]:
        """Return the states of all shards."""
        for _ in range(TRIES):
            asked = [shard.actor.look.remote(self.version, self.batches) for shard in self.shards]
            while self.ray.wait(asked, num_returns=len(asked), timeout=BEAT)[1]:
                self._care()
            try:
                found: list[ShardState] = self.ray.get(asked)
                return found
            except self.ray.exceptions.RayError as error:
                reason = told(error)
                self._revive()
        raise InputError(f"the shards' weights can't be fetched ({reason}): look at the cluster (ray status), and at "
                         "the size of its object stores; then go on with --resume")

    def close(self) -> None:
        """End all actors, and the cluster where it was begun for them."""
        with suppress(self.ray.exceptions.RayError):
            for peer in [*self.hands.values(), *self.shards]:
                self.ray.kill(peer.actor)
        self.hands, self.shards, self.states = {}, [], []
        if self.begun:
            self.ray.shutdown()
            self.begun = False


def answers(asked: Sequence[Any]) -> list[Any]:
    """Return what shards answer a worker. Raises LostShardError where one is lost."""
    import ray

    try:
        found: list[Any] = ray.get(asked)
        return found
    except ray.exceptions.RayTaskError as error:
        if not isinstance(error.cause, EmptyShardError):
            raise
        raise LostShardError(str(error.cause)) from None
    except ray.exceptions.RayError as error:
        raise LostShardError(told(error)) from None


def require_ray() -> None:
    """Raise InputError where Ray is not installed."""
    if find_spec("ray") is None:
        raise InputError("--cluster needs Ray: pip install ray")


def connected(address: str) -> tuple[Any, bool]:
    """Return the module ray, connected to a cluster, or where "auto" finds none, to one of this machine's own; and
    whether it was connected for this.

    Raises InputError where Ray is not installed or there is no cluster."""
    require_ray()
    import ray

    if ray.is_initialized():
        found = ray.get_runtime_context().gcs_address
        if address not in ("auto", found):
            raise InputError(f"--cluster {address}: this process uses the cluster at {found} already: give that one, "
                             "or call ray.shutdown() first")
        return ray, False
    try:
        require_listener(address)
        with termination_kept():
            ray.init(address=None if address == "auto" else address, log_to_driver=False, include_dashboard=False,
                     logging_level=logging.ERROR, configure_logging=False)
    except ray.exceptions.AuthenticationError as error:
        raise InputError(f"--cluster {address}: the cluster wants a token that this machine does not have "
                         f"({told(error)}): copy ~/.ray/auth_token from its head") from error
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise InputError(f"--cluster {address}: there is no cluster ({told(error)}): start one with ray start "
                         "--head, or let auto start one here") from error
    return ray, True


def require_listener(address: str) -> None:
    """Raise OSError where nothing listens at HOST:PORT, which ray.init would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "://" not in address:
        socket.create_connection((host, int(port)), timeout=10).close()


@contextmanager
def termination_kept() -> Iterator[None]:
    """Keep what this process does when it is told to end, which ray.init would change."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def threads_of(nodes: Sequence[Any], config: TrainingConfig) -> int:
    """Return how many threads each worker computes with, and books as CPUs: as many as leave room for all workers.

    Raises InputError where the nodes do not have the room."""
    cpus = [int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]]

    def room(threads: int) -> int:
        return sum(count // threads for count in cpus)

    fitting = (threads for threads in range(max(cpus, default=1), 0, -1) if room(threads) >= config.workers)
    threads = config.threads or next(fitting, 1)
    if room(threads) < config.workers:
        raise InputError(f"--workers {config.workers} of {threads} thread{'s' * (threads > 1)} each: the cluster's "
                         f"{sum(cpus)} CPUs have room for {room(threads)}: give fewer --workers or --threads, or add "
                         "nodes (ray start --address)")
    return threads


def path_for_all(data: str) -> str:
    """Return a data set as any node finds it: a path of this folder is made a whole one."""
    return os.path.abspath(data) if data != "embedded" and os.path.exists(data) else data


def require_program(error: Exception) -> None:
    """Raise InputError where an actor died of it since its node lacks this program."""
    if "failed to import" in str(error) or "ModuleNotFoundError" in str(error):
        reason = next((line for line in reversed(str(error).splitlines()) if "Error" in line), told(error))
        raise InputError(f"a node of the cluster can't run this program ({reason.strip()}): install the same version "
                         "of it on all of them")


def told(error: Exception) -> str:
    """Return the first line of what an error says."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
