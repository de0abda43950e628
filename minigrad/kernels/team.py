"""The team of threads that kernels run on.

The caller cuts a range into pieces and takes one after another; helpers, if they come, take some too. Nobody waits for
a helper that did not come: when the last piece is taken, the caller waits only for pieces that a helper has begun. So a
core that is busy with something else costs its share of the speed, where a barrier (OpenMP's, Numba's own pools') would
wait for the thread that sits on it. A helper that loses its core amid a piece is waited for, too long; then the caller
works alone for a while, and the longer the more often that happens: two threads are hardly slower than one.

A helper looks for jobs for some milliseconds, in compiled code without Python's lock, before it goes to sleep: the next
kernel of a network finds it awake, and to wake a thread takes longer than most kernels. What they share is one small
array of integers:

    GENERATION  odd while a job is open; each job has a number of its own
    NEXT        the next piece to take
    ACTIVE      helpers between looking at a job and leaving it
    JOB...      what to run (see `run`), whether to stop, and what the caller knows of time (in nanoseconds)
"""
import atexit
import ctypes
import os
import sys
import threading
import time

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from minigrad.kernels.compile import cached

INT64 = ir.IntType(64)
PIECE = ir.FunctionType(ir.VoidType(), [INT64, INT64, INT64])  # (address of the arguments, first, last)
LINE = 8  # integers of a cache line: what threads write often does not share one
GENERATION, NEXT, ACTIVE, JOB = 0, LINE, 2 * LINE, 3 * LINE
PIECE_AT, ARGUMENTS, COUNT, PIECES, HELPERS, STOP = range(JOB, JOB + 6)
CLOCK, SECONDS, NANOSECONDS, UNTIL, PENALTY = range(JOB + LINE, JOB + LINE + 5)
MONOTONIC = getattr(time, "CLOCK_MONOTONIC", 0)
EAGER, PATIENT = 20_000, 40_000  # how often a helper looks for a job: at once, then letting others run (some 10 ms)
LATE = 200_000  # nanoseconds that a helper may take longer than two pieces last
ALONE, LONGEST = 10_000_000, 500_000_000  # nanoseconds without helpers after one was late, and when it happens again


@intrinsic
def atomic_load(typing_context, address):
    """Return the integer at `address` as other threads wrote it last."""
    def codegen(context, builder, signature, values):
        pointer = builder.inttoptr(values[0], INT64.as_pointer())
        return builder.load_atomic(pointer, "seq_cst", 8)

    return types.intp(types.uintp), codegen


@intrinsic
def atomic_add(typing_context, address, amount):
    """Add to the integer at `address`, and return what it was before."""
    def codegen(context, builder, signature, values):
        pointer = builder.inttoptr(values[0], INT64.as_pointer())
        return builder.atomic_rmw("add", pointer, values[1], "seq_cst")

    return types.intp(types.uintp, types.intp), codegen


@intrinsic
def run_piece(typing_context, piece, arguments, first, last):
    """Call the function at address `piece` on the range first..last."""
    def codegen(context, builder, signature, values):
        builder.call(builder.inttoptr(values[0], PIECE.as_pointer()), values[1:])
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp, types.intp, types.intp), codegen


@intrinsic
def let_others_run(typing_context, function):
    """Call the operating system's function, at this address, that gives the core away for a moment."""
    def codegen(context, builder, signature, values):
        builder.call(builder.inttoptr(values[0], ir.FunctionType(ir.IntType(32), []).as_pointer()), [])
        return context.get_dummy_value()

    return types.void(types.uintp), codegen


@intrinsic
def read_clock(typing_context, function, which, address):
    """Call the operating system's function, at this address, that writes seconds and nanoseconds to another address."""
    def codegen(context, builder, signature, values):
        INT32 = ir.IntType(32)
        pointer = builder.inttoptr(values[0], ir.FunctionType(INT32, [INT32, INT64]).as_pointer())
        builder.call(pointer, [builder.trunc(values[1], INT32), values[2]])
        return context.get_dummy_value()

    return types.void(types.uintp, types.intp, types.uintp), codegen


@njit(nogil=True)
def take_pieces(shared):
    """Run pieces of the open job until none is left; returns how many it ran."""
    count, pieces, mine = shared[COUNT], shared[PIECES], 0
    n = atomic_add(shared.ctypes.data + 8 * NEXT, 1)
    while n < pieces:
        run_piece(shared[PIECE_AT], shared[ARGUMENTS], n * count // pieces, (n + 1) * count // pieces)
        mine += 1
        n = atomic_add(shared.ctypes.data + 8 * NEXT, 1)
    return mine


@njit(nogil=True)
def now(shared):
    """The time in nanoseconds; 0 where the system's clock can't be called (Windows)."""
    if shared[CLOCK] == 0:
        return 0
    read_clock(shared[CLOCK], MONOTONIC, shared.ctypes.data + 8 * SECONDS)
    return shared[SECONDS] * 1_000_000_000 + shared[NANOSECONDS]


def _run(piece, arguments, count, pieces, helpers, shared, yielding):
    """Run the function at address `piece` over 0..count, cut into `pieces`, with the first `helpers` helpers."""
    began = now(shared) if helpers > 0 else 0
    if helpers == 0 or began < shared[UNTIL]:
        run_piece(piece, arguments, 0, count)
        return
    base = shared.ctypes.data
    shared[PIECE_AT], shared[ARGUMENTS], shared[COUNT], shared[PIECES] = piece, arguments, count, pieces
    shared[HELPERS], shared[NEXT] = helpers, 0
    atomic_add(base + 8 * GENERATION, 1)  # open
    mine = take_pieces(shared)
    atomic_add(base + 8 * GENERATION, 1)  # closed: who looks now finds no job
    done = now(shared)
    while atomic_load(base + 8 * ACTIVE) > 0:  # the arguments must live until the pieces that were begun are done
        let_others_run(yielding)
    end = now(shared)
    if end - done > LATE + 2 * (done - began) // max(mine, 1):  # a helper had lost its core
        shared[PENALTY] = min(2 * shared[PENALTY] + ALONE, LONGEST)
        shared[UNTIL] = end + shared[PENALTY]
    else:
        shared[PENALTY] -= shared[PENALTY] // 64


def _help(shared, number, yielding):
    """Take part in jobs, as helper `number`, until none was seen for a moment."""
    base = shared.ctypes.data
    looks, last = 0, 0
    while looks < PATIENT and atomic_load(base + 8 * STOP) == 0:
        looks += 1
        if looks > EAGER:
            let_others_run(yielding)
        generation = atomic_load(base + 8 * GENERATION)
        if generation % 2 == 1 and generation != last:
            atomic_add(base + 8 * ACTIVE, 1)
            # Once it is counted as active, a job that is still open stays until it leaves.
            if atomic_load(base + 8 * GENERATION) == generation:
                if number < shared[HELPERS]:
                    take_pieces(shared)
                    looks = 0
                last = generation
            atomic_add(base + 8 * ACTIVE, -1)


RUN_SIGNATURE = types.void(types.uintp, types.uintp, types.intp, types.intp, types.intp,
                           types.Array(types.int64, 1, "C"), types.uintp)
run = cached(njit(nogil=True)(_run))
help_along = cached(njit(nogil=True)(_help))


class Helper:
    """One thread: helps, and sleeps when nothing has come for a moment."""

    def __init__(self, shared: np.ndarray, number: int, yielding: int):
        self.shared, self.number, self.yielding = shared, number, yielding
        self.asleep = False
        self.bell = threading.Lock()  # held, until somebody rings
        self.bell.acquire()
        self.thread = threading.Thread(target=self.work, name=f"minigrad helper {number}", daemon=True)
        self.thread.start()

    def work(self) -> None:
        """Help and sleep in turns, until the team stops; runs in the helper's thread."""
        while not self.shared[STOP]:
            help_along(self.shared, self.number, self.yielding)
            self.asleep = True
            if not self.shared[STOP]:
                self.bell.acquire()

    def wake(self) -> None:
        """Ring, if the helper sleeps."""
        if self.asleep:
            self.asleep = False
            self.bell.release()


class Team:
    """The calling thread and its helpers, which are started when they are first wanted."""

    def __init__(self) -> None:
        self.yielding = _address_of_yield()
        self.begin()

    def begin(self) -> None:
        """Start without helpers; so does the child of a fork, which has none of its parent's threads."""
        self.shared = np.zeros(JOB + 2 * LINE, np.int64)
        self.shared[CLOCK] = _address_of_clock()
        self.helpers: list[Helper] = []
        self.taken = threading.Lock()  # by the Python thread whose kernel runs

    def wake(self, count: int) -> None:
        """See that the first `count` helpers are looking for a job."""
        while len(self.helpers) < count:
            self.helpers.append(Helper(self.shared, len(self.helpers), self.yielding))
        for helper in self.helpers[:count]:
            helper.wake()

    def stop(self) -> None:
        """Send the helpers home, before the interpreter that they run in goes."""
        self.shared[STOP] = 1
        for helper in self.helpers:
            helper.wake()
            helper.thread.join(timeout=1)


def _address_of_yield() -> int:
    """Return the address of the system's "let others run": sched_yield, on Windows SwitchToThread."""
    if sys.platform == "win32":
        function = ctypes.windll.kernel32.SwitchToThread
    else:
        function = ctypes.CDLL(None).sched_yield
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _address_of_clock() -> int:
    """Return the address of clock_gettime, which Windows does not have: 0."""
    if sys.platform == "win32":
        return 0
    return ctypes.cast(ctypes.CDLL(None).clock_gettime, ctypes.c_void_p).value or 0


team = Team()
atexit.register(team.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=team.begin)
