"""A recorded plan: the kernel calls of one computation, run again on other numbers without Python in between.

A network's test pass calls the same kernels in the same order on arrays of the same shapes, whatever the images. `Plan`
runs such a function once and records the calls: the address of each kernel's code and its arguments. Afterwards one
compiled loop repeats them all.

While a function is recorded, `empty` gives out memory of the plan's own, and takes it back when the last array on it is
gone: a plan needs as much memory as is in use at the busiest moment. What is computed from parameters alone, such as
packed weights, goes through `constant` and is not repeated: a plan keeps the parameters of the moment it was recorded,
and plans of one network, for batches of several sizes, share them.

A plan repeats kernels only. NumPy code between them runs once, while recording, and its result would be out of date:
so the first answer is compared with what the function itself says.
"""
import logging
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from minigrad import runtime
from minigrad.kernels.compile import cached
from minigrad.kernels.team import run, team

log = logging.getLogger("minigrad")

LINE_BYTES = 64
WORDS = 256  # room for a kernel's address and arguments; `parallel.in_pieces` sees that they fit
_local = threading.local()


def recording() -> "Recording | None":
    """Return what this thread records, if it does."""
    return getattr(_local, "recording", None)


def constant(name: str, parameter: np.ndarray, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """Return compute(), which depends on one parameter alone and is called `name`; while recording, compute it once."""
    recorded = recording()
    if recorded is None:
        return compute()
    key = name, parameter.ctypes.data, parameter.shape, parameter.strides
    if key not in recorded.constants:
        _local.recording = None
        try:
            recorded.constants[key] = compute(), parameter  # which keeps its address its own
        finally:
            _local.recording = recorded
    return recorded.constants[key][0]


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an array for a kernel to fill: np.empty, or memory of the plan that is being recorded."""
    recorded = recording()
    return np.empty(shape, dtype) if recorded is None else recorded.memory.take(shape, np.dtype(dtype))


def scratch(size: int, dtype: Any) -> np.ndarray:
    """Return an array (size,) for a kernel to fill that begins at a line of the cache, as its vectors then do."""
    recorded = recording()
    if recorded is not None:
        return recorded.memory.take((size,), np.dtype(dtype))
    return aligned(size * np.dtype(dtype).itemsize).view(dtype)


def aligned(size: int) -> np.ndarray:
    """Return `size` bytes that begin at a line of the cache."""
    room = np.empty(size + LINE_BYTES, np.uint8)
    begin = -room.ctypes.data % LINE_BYTES
    return room[begin:begin + size]


class Memory:
    """Blocks that arrays are laid in, one after the other."""

    def __init__(self) -> None:
        self.blocks: list[np.ndarray] = []
        self.free: list[np.ndarray] = []

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Return an array on the smallest free block that holds it, or on a new one."""
        size = math.prod(shape) * dtype.itemsize
        fitting = [block for block in self.free if size <= block.size]
        if fitting:
            block = min(fitting, key=len)
            self.free = [other for other in self.free if other is not block]
        else:
            block = aligned(size)
            self.blocks.append(block)
        return np.asarray(Lease(self, block, shape, dtype))

    def owns(self, array: np.ndarray) -> bool:
        """Return whether an array lies in one of the blocks."""
        address = array.ctypes.data
        return any(block.ctypes.data <= address < block.ctypes.data + block.size for block in self.blocks)


class Lease:
    """What the arrays on one block refer to; when the last of them is gone, the block is free again."""

    def __init__(self, memory: Memory, block: np.ndarray, shape: tuple[int, ...], dtype: np.dtype):
        self.memory, self.block = memory, block
        self.__array_interface__ = {"shape": shape, "typestr": dtype.str, "version": 3,
                                    "data": (block.ctypes.data, False)}

    def __del__(self) -> None:
        self.memory.free.append(self.block)


Constants = dict[tuple, tuple[np.ndarray, np.ndarray]]  # what was computed, and from which parameter


class Recording:
    """The kernel calls of a function that runs, and what they refer to."""

    def __init__(self, constants: Constants) -> None:
        self.memory, self.constants = Memory(), constants
        self.calls: list[tuple[np.ndarray, int, int, int]] = []  # block, count, pieces, whether helpers pay
        self.kept: list[Any] = []  # arrays from elsewhere

    def add(self, block: np.ndarray, count: int, pieces: int, small: bool, arguments: tuple) -> None:
        """Note a call; `block` (WORDS,) has the address of its code and its arguments."""
        self.calls.append((block, count, pieces, not small))
        self.kept += [a for a in arguments if isinstance(a, np.ndarray) and not self.memory.owns(a)]


class Plan:
    """`function`, of one array of a given shape, repeated by its kernels; parameters are those of now.

    `agrees` says whether it answers for x as the function does. Plans that are given the same dictionary share what
    they computed from parameters."""

    def __init__(self, function: Callable[[np.ndarray], np.ndarray], x: np.ndarray, constants: Constants | None = None):
        recorded = Recording({} if constants is None else constants)
        _local.recording = recorded
        try:
            self.x = recorded.memory.take(x.shape, x.dtype)
            self.x[...] = 0
            self.y = function(self.x)
        finally:
            _local.recording = None
        self.memory, self.kept = recorded.memory, recorded.kept
        self.blocks = [block for block, *_ in recorded.calls]
        self.lock = threading.Lock()
        self.table = np.array([[block[0], block.ctypes.data + 8, count, pieces, helped]
                               for block, count, pieces, helped in recorded.calls], np.int64).reshape(-1, 5)
        expected = function(x)
        scale = float(np.max(np.abs(expected), initial=np.finfo(expected.dtype).tiny))
        self.agrees = bool(np.allclose(self(x), expected, rtol=0, atol=1e-5 * scale, equal_nan=True))
        if not self.agrees:
            log.warning("a recorded plan does not compute what its function does, which should serve instead: is there "
                        "NumPy code between its kernels, or were weights changed?")

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the function of x, an array of the recorded shape and dtype; the result is the caller's own."""
        with self.lock:  # its memory serves one caller at a time
            np.copyto(self.x, x)
            self.replay()
            return self.y.copy()

    def replay(self) -> None:
        """Repeat the kernels."""
        have_team = False
        try:
            have_team = runtime.get_threads() > 1 and team.taken.acquire(blocking=False)
            helpers = runtime.get_threads() - 1 if have_team else 0
            team.wake(helpers)
            repeat(self.table, helpers, team.shared, team.yielding)
        finally:
            if have_team:
                team.taken.release()
        failed = [block for block in self.blocks if block[1]]
        for block in failed:
            block[1] = 0  # the next call may find memory
        if failed:
            raise MemoryError("a kernel found no memory for its scratch arrays")


@njit(nogil=True)
def _repeat(table, helpers, shared, yielding):
    """Run the calls of a table, each (code, arguments, count, pieces, whether helpers pay)."""
    for i in range(len(table)):
        run(table[i, 0], table[i, 1], table[i, 2], table[i, 3], helpers * table[i, 4], shared, yielding)


repeat = cached(_repeat)
