"""The server's process on one machine: the server, and the care of its workers."""
from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn

import numpy as np

import minigrad
from data.errors import DataError
from googlenet.distbelief.job import Job
from googlenet.distbelief.link import labour
from googlenet.distbelief.messages import Failed, Fetch, Fetched, Free, Join, Joined, Lost, Place, Pushed, Update
from googlenet.distbelief.processes import (
    BEAT,
    Pulse,
    allow_many_files,
    end_with_parent,
    give_signs_of_life,
    how_ended,
    longest,
    undisturbed,
)
from googlenet.distbelief.push_log import PushLog
from googlenet.distbelief.server import Applied, Round, Server, State, Weights, merged, server_of
from googlenet.distbelief.shared import context
from googlenet.model import batch_norm_of
from minigrad.errors import InputError


@dataclass
class Hand:
    """A worker as the server sees it."""

    process: Any
    line: Connection
    pulse: Pulse
    inbox: deque = field(default_factory=deque)  # what it has said, and has no answer yet
    held: bool = False  # its push waits to be applied, or for its round
    ended: bool = False  # its line has
    reason: str = ""  # why it was ended
    said_at: float = field(default_factory=time.monotonic)
    usual: float = 0.0  # seconds of its latest step; 0 before the first

    def read(self) -> None:
        """Take in all that it has said."""
        try:
            while self.line.poll():
                self.inbox.append(self.line.recv())
                if isinstance(self.inbox[-1], Pushed):
                    self.usual = self.inbox[-1].seconds
        except (EOFError, OSError):
            self.ended = True
        self.said_at = time.monotonic()

    def send(self, message: object) -> None:
        """Tell it something, if it lives; whether it does is seen elsewhere."""
        with suppress(OSError):
            self.line.send(message)
        self.said_at = time.monotonic()

    def hangs(self, patience: float) -> str:
        """Return how it hangs, nothing where it does not."""
        if self.pulse.silence() > patience:
            return f"gave no sign of life for {patience:g} s"
        silent = time.monotonic() - self.said_at
        if self.held or self.inbox or silent < longest(self.usual, patience):
            return ""
        usual = f", where a step took {self.usual:.2g} s" if self.usual else ""
        return f"pushed nothing for {silent:.0f} s{usual}"

    def forgive(self) -> None:
        """Count the time from now on."""
        self.pulse.forgive()
        self.said_at = time.monotonic()


class Serving:
    """The server's process: the server itself, and the care of its workers."""

    def __init__(self, job: Job, line: Connection):
        self.job, self.line = job, line
        self.log: PushLog | None = None
        self.server, self.statistics = self._server()
        self.places = dict(job.places)
        self.hands: dict[int, Hand] = {}
        self.pushed: deque[int] = deque()  # workers whose push waits
        self.applying: Pushed | None = None
        self.round: list[Pushed] = []
        self.late: list[Pushed] = []  # what changed nothing, and is to be told
        self.lost: deque[Lost] = deque()  # the same
        self.asked = False
        self.restarts = job.restarts
        self.busy = 0.0
        self.cared_at = time.monotonic()

    def _server(self) -> tuple[Server, np.ndarray]:
        """Return the server over the shared arrays, and the statistics beside it."""
        job, P = self.job, self.job.parameters
        kept = None if job.kept is None else job.kept.array
        vector = job.weights.array
        state = State(Weights(vector[:P], job.places_of), job.memory.array, kept, job.average, vector[P:])
        made = server_of(state, job.config, job.epoch_batches, job.counts, own_rates=job.own_rates, factor=job.factor)
        if job.push_log:
            self.log = PushLog(job.push_log)
            self.log.state(made, job.config, job.epoch_batches, state, job.factor)
            for number, shard in enumerate(made.shards):
                shard.watch = partial(self._note, number)
        return made, state.statistics

    def _note(self, shard: int, gradient: np.ndarray, scale: float, lr: float) -> None:
        """Write down what a shard is about to be updated by."""
        assert self.log
        assert self.applying
        self.log.push(shard, self.applying.worker, self.applying.place.step, gradient, scale, lr)

    def run(self) -> None:
        """Serve until the trainer has gone."""
        try:
            for worker in range(self.job.config.workers):
                self._start(worker)
            while True:
                self._listen()
                while self.asked and self.lost:
                    self.line.send(self.lost.popleft())
                while self.asked and self.pushed:
                    self._apply(self.pushed.popleft())
                self._care()
        finally:
            for hand in self.hands.values():
                hand.process.kill()
            for hand in self.hands.values():
                hand.process.join()

    def _start(self, worker: int) -> None:
        ours, theirs = context.Pipe()
        pulse = Pulse(self.job.slots.life(worker))
        with undisturbed():
            process = context.Process(target=labour, args=(self.job, worker, theirs), name=f"worker {worker + 1}")
            process.start()
        theirs.close()
        self.hands[worker] = Hand(process, ours, pulse)

    def _listen(self) -> None:
        """Wait until somebody says something or has ended, and read all that was said."""
        lines: dict[Any, int] = {hand.line: worker for worker, hand in self.hands.items() if not hand.ended}
        for ready in wait([self.line, *lines], timeout=BEAT):
            if ready is self.line:
                self.line.recv()  # Next; EOFError where the trainer has gone
                self.asked = True
            else:
                self.hands[lines[ready]].read()
                self._answer(lines[ready])

    def _answer(self, worker: int) -> None:
        """Answer what a worker has said, up to a push that waits."""
        hand = self.hands[worker]
        while hand.inbox and not hand.held:
            said = hand.inbox[0]
            if isinstance(said, Pushed):
                hand.held = True
                self.pushed.append(worker)
                return
            if isinstance(said, Join) and worker and self._version < self.job.config.warm_start:
                return
            hand.inbox.popleft()
            if isinstance(said, Failed):
                self._failed(worker, said)
                return
            if isinstance(said, Join):
                hand.send(Joined(self.places.get(worker, Place())))
                self._fetch(worker, 0)
            elif isinstance(said, Fetch):
                self._fetch(worker, said.buffer)

    @property
    def _version(self) -> int:
        return self.server.shards[0].counts.version

    def _fetch(self, worker: int, buffer: int) -> None:
        began = time.perf_counter()
        out = self.job.slots.weights(worker, buffer)
        P = self.job.parameters
        versions = tuple(self.server.fetch(shard, out[:P], worker) for shard in range(len(self.server.shards)))
        out[P:] = self.statistics
        shard = self.server.shards[0]
        self.busy += time.perf_counter() - began
        self.hands[worker].send(Fetched(buffer, versions, shard.schedule(shard.counts.batches + 1) * shard.factor))

    def _apply(self, worker: int) -> None:
        """Apply a push; answer it unless its round goes on."""
        began = time.perf_counter()
        said: Pushed = self.hands[worker].inbox[0]
        self.applying = said
        gradient = self.job.slots.gradient(worker, said.buffer)[:self.job.parameters]
        self.job.begun.array[0] += 1
        found = [self.server.push(shard, gradient, worker, said.place.step, version=version, batches=said.batches,
                                  scale=said.scale) for shard, version in enumerate(said.versions)]
        applied = [each for each in found if each]
        first = self.server.shards[0]
        if isinstance(first, Round) and (applied or worker in first.waiting):
            self.round.append(said)
        if applied:
            pushes = sorted(self.round) or [said]
            self._assign(pushes, applied[0].staleness)
            self.busy += time.perf_counter() - began
            self._tell(tuple(pushes), applied)
        else:
            self.job.begun.array[0] -= 1
            self.busy += time.perf_counter() - began
            if self.round and self.round[-1] is said:
                return
            pushes = [said]
            self.late.append(said)
        self.round = self.round if not applied else []
        for push in pushes:
            self._free(push)

    def _assign(self, pushes: list[Pushed], staleness: int) -> None:
        """Let the statistics of batch norms be those of a worker; where others pushed in between, change them as it
        did. Those of a round are their mean."""
        P, slots = self.job.parameters, self.job.slots
        own = [slots.gradient(push.worker, push.buffer)[P:] for push in pushes]
        before = [slots.weights(push.worker, push.fetched)[P:] for push in pushes]
        if len(own) > 1:
            self.statistics[:] = np.mean(own, axis=0)
        elif staleness:
            kept = batch_norm_of(self.job.model).decay ** pushes[0].batches
            self.statistics[:] = merged(self.statistics, own[0], before[0], kept)
        else:
            self.statistics[:] = own[0]
        for each, other in zip(own, before, strict=True):
            other[:] = each  # from which it goes on until its next fetch
        if self.log:
            self.log.assign(self.statistics)

    def _tell(self, pushes: tuple[Pushed, ...], applied: list[Applied]) -> None:
        counts = self.server.shards[0].counts
        self.line.send(Update(pushes, tuple(each.staleness for each in applied), applied[0].lr, counts.version,
                              counts.batches, dict(counts.seen), self.busy, tuple(self.late)))
        self.asked, self.busy, self.late = False, 0.0, []

    def _free(self, push: Pushed) -> None:
        """Give a worker its buffer back, and go on with what it says."""
        hand = self.hands[push.worker]
        hand.inbox.popleft()
        hand.held = False
        self.places[push.worker] = push.place
        hand.send(Free(push.buffer))
        self._answer(push.worker)
        if self._version == self.job.config.warm_start:
            for worker in self.hands:
                self._answer(worker)

    def _care(self) -> None:
        """Replace workers that are dead or hang."""
        now, patience = time.monotonic(), self.job.config.hang_timeout
        for worker, hand in list(self.hands.items()):
            if now - self.cared_at > 10 * BEAT:  # this process was stopped, and they may have been too
                hand.forgive()
            hand.reason = hand.reason or hand.hangs(patience)
            if hand.reason:
                hand.process.kill()  # its line then ends
            if hand.ended and worker not in self.pushed:  # what it has pushed is applied first
                self._replace(worker, hand.reason)
        self.cared_at = now

    def _replace(self, worker: int, reason: str) -> None:
        """Start another worker in the place of one that has ended, or is about to."""
        process = self.hands[worker].process
        process.join(BEAT)
        process.kill()
        process.join()
        reason = reason or how_ended(process.exitcode)
        for shard in self.server.shards:
            if isinstance(shard, Round):
                shard.leave(worker)
        self.round = [push for push in self.round if push.worker != worker]
        self.restarts += 1
        most = self.job.config.max_restarts
        if self.restarts > most:
            self._fail("lost", f"worker {worker + 1} {reason}, after {most} restarts: look for the cause, such as too "
                                "little memory, or allow more with --max-restarts")
        self._start(worker)
        self.lost.append(Lost(worker, reason, self.restarts))

    def _failed(self, worker: int, said: Failed) -> None:
        """Take in why a worker can't go on: it is replaced, unless another one would meet the same."""
        if said.kind != "error":
            self._fail(said.kind, said.reason)
        self._replace(worker, f"failed: {said.reason}")

    def _fail(self, kind: str, reason: str) -> NoReturn:
        self.line.send(Failed(kind, reason))
        raise SystemExit


def serve(job: Job, line: Connection) -> None:
    """Be the server's process."""
    end_with_parent()
    give_signs_of_life(job.life.array)
    allow_many_files()
    minigrad.set_threads(1)
    try:
        Serving(job, line).run()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the trainer has gone
    except (InputError, DataError, OSError) as error:
        with suppress(OSError):
            line.send(Failed("input", str(error)))
