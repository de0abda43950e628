"""Processes that end when the one that started them does, and that say how they ended."""
from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import current_process, parent_process, resource_tracker

import numpy as np

BEAT = 0.5  # seconds between signs of life
SLOW = 20  # times as long as its steps usually take: then a worker that says nothing hangs
FIRST = 1800.0  # seconds until its first step has ended, for which it may compile, and list a million pictures
PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15  # linux/prctl.h


def give_signs_of_life(life: np.ndarray) -> None:
    """Write this process's id into `life` (2,), and count there from now on for as long as it runs."""
    life[1] = os.getpid()

    def beat() -> None:
        while True:
            life[0] += 1
            time.sleep(BEAT)

    threading.Thread(target=beat, daemon=True).start()


class Pulse:
    """Whether the process behind some signs of life still gives any; one that has not begun to is not missed."""

    def __init__(self, life: np.ndarray):
        self.life, self.count = life, int(life[0])
        self.begun, self.at = False, time.monotonic()

    def silence(self) -> float:
        """Return the seconds since the last new sign of life, 0 before the first."""
        now = time.monotonic()
        if int(self.life[0]) != self.count:
            self.count, self.begun, self.at = int(self.life[0]), True, now
        return now - self.at if self.begun else 0.0

    def forgive(self) -> None:
        """Count from now on: the one who watches was stopped too."""
        self.at = time.monotonic()


def longest(usual: float, patience: float) -> float:
    """Return how many seconds a worker's step may take where its latest took `usual`, 0 before the first."""
    return max(patience, SLOW * usual if usual else FIRST)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Start processes that Ctrl-C and a termination leave alone, which are for the one that started them all."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which unblocks these signals when it is started
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """End this process when the one that started it ends, whatever it does then; leave signals to that one.

    On Linux it is also called by its name, which `top` and `ps -o pid,comm` show: server, worker 1, ..."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            system = ctypes.CDLL(None)
            system.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # even one that is stopped
            system.prctl(PR_SET_NAME, current_process().name.encode())
    above = parent_process()
    assert above is not None

    def watch() -> None:
        above.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def allow_many_files() -> None:
    """Let this process have as many files and lines open as the system allows it."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def how_ended(code: int | None) -> str:
    """Return how a process ended, in words."""
    if code is not None and code < 0:
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"
    return f"ended with code {code}"
