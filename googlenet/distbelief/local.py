"""Workers and their server as processes of one machine (`--workers N`).

    train.py ── server ── worker 1, worker 2, ...

Processes are started anew (`spawn`), each by the one above it, and end when that one does. They share memory that has
no name (shared.py) and talk through pipes:

    state    weights, optimiser's memory, average: only the server writes them, and the trainer while there is no server
    slots    of each worker two buffers for weights, which the server fills, and two for gradients, which the worker
             fills: while one is read, the other is written

Nobody holds a lock: a worker that dies in the midst of anything leaves a pipe that has ended, and a slot that nobody
reads. What it had pushed is applied; its successor is told by the server where to begin, and computes the rest again.

The server applies one push at a time, each after the trainer has taken in the one before: between two records the state
stands still, and is what a checkpoint holds.
"""
from __future__ import annotations

import time
from contextlib import suppress
from multiprocessing.util import Finalize

from googlenet.distbelief.job import Job
from googlenet.distbelief.messages import Failed, Lost, Next, Update
from googlenet.distbelief.processes import BEAT, Pulse, how_ended, undisturbed
from googlenet.distbelief.serving import serve
from googlenet.distbelief.shared import context
from googlenet.training.records import DivergedError, GivenUpError
from minigrad.errors import InputError

ERRORS = {"diverged": DivergedError, "lost": GivenUpError}


class ServerLostError(Exception):
    """The server's process has ended without a word; `torn` says whether it was changing the weights."""

    def __init__(self, reason: str, torn: bool):
        super().__init__(reason)
        self.torn = torn


class Fleet:
    """The trainer's end: the server's process, and through it the workers'."""

    def __init__(self, job: Job):
        self.job = job
        self.line, theirs = context.Pipe()
        job.begun.array[0] = 0
        self.updates = 0
        self.asked = False
        self.pulse = Pulse(job.life.array)
        with undisturbed():
            self.process = context.Process(target=serve, args=(job, theirs), name="server")
            self.process.start()
        theirs.close()
        # A program that ends while this is open waits for the process, which waits for the line to end.
        self.at_exit = Finalize(self, self.line.close, exitpriority=1)

    def next(self) -> Update | Lost:
        """Let the next push be applied, and return what it was, or which worker was lost before.

        Raises InputError or DivergedError where a worker can't go on for that reason, GivenUpError where workers were
        lost too often, and ServerLostError where the server is gone."""
        if not self.asked:
            with suppress(OSError):  # what the server said before it went is still to be heard
                self.line.send(Next())
            self.asked = True
        told = self._hear()
        if isinstance(told, Failed):
            self.close()
            raise ERRORS.get(told.kind, InputError)(told.reason)
        if isinstance(told, Update):
            self.updates += 1
            self.asked = False
        assert isinstance(told, Update | Lost)
        return told

    def _hear(self) -> object:
        patience, reason, looked_at = self.job.config.hang_timeout, "", time.monotonic()
        try:
            while not self.line.poll(BEAT):
                if time.monotonic() - looked_at > 10 * BEAT:  # this process was stopped, and the server perhaps too
                    self.pulse.forgive()
                looked_at = time.monotonic()
                if self.pulse.silence() > patience and not reason:
                    reason = f"gave no sign of life for {patience:g} s"
                    self.process.kill()
            return self.line.recv()
        except (EOFError, OSError):
            self.close()
            raise ServerLostError(f"the server's process {reason or how_ended(self.process.exitcode)}",
                                  torn=int(self.job.begun.array[0]) > self.updates) from None

    def pids(self) -> set[int]:
        """Return the ids of all processes."""
        workers = (int(self.job.slots.life(worker)[1]) for worker in range(self.job.config.workers))
        return {int(self.process.pid or 0), *workers} - {0}

    def settle(self) -> list[Update | Lost]:
        """Nothing is under way that has changed anything: the server waits between two calls of `next`."""
        return []

    def close(self) -> None:
        """End all processes. They hold nothing that would have to be saved."""
        self.at_exit()
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
