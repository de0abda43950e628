"""Memory that processes share, and that nobody has to clean up.

It has no name: a process has it by inheritance, and the system frees it when the last one of them ends, however it
ends. On Linux it is a memory file, so that a container's small /dev/shm does not matter; elsewhere what
`multiprocessing` takes for its arrays.
"""
from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from multiprocessing import get_context, reduction
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

context = get_context("spawn")


class SharedArray:
    """A vector of zeros, `array` (n,), that processes which are given it see as the same memory.

    It can be given to a process only when that is started."""

    def __init__(self, size: int, dtype: DTypeLike):
        self.dtype, self.size = np.dtype(dtype), size
        length = max(1, size * self.dtype.itemsize)
        if hasattr(os, "memfd_create"):
            file = os.memfd_create("googlenet")
            try:
                os.ftruncate(file, length)
                self._open(file, length)
            finally:
                os.close(file)
        else:
            self.memory: Any = context.RawArray("b", length)
        self._look()

    def _open(self, file: int, length: int) -> None:
        self.memory = mmap.mmap(file, length)
        self.file = os.dup(file)

    def _look(self) -> None:
        self.array = np.frombuffer(self.memory, self.dtype, self.size)

    def __reduce__(self) -> tuple[Callable, tuple]:
        if hasattr(self, "file"):
            return _reopened, (reduction.DupFd(self.file), self.size, self.dtype.str)
        return _again, (self.memory, self.size, self.dtype.str)

    def __del__(self) -> None:
        if hasattr(self, "file"):
            os.close(self.file)


def _reopened(file: Any, size: int, dtype: str) -> SharedArray:
    made = _empty(size, dtype)
    given = file.detach()
    try:
        made._open(given, max(1, size * made.dtype.itemsize))
    finally:
        os.close(given)
    made._look()
    return made


def _again(memory: Any, size: int, dtype: str) -> SharedArray:
    made = _empty(size, dtype)
    made.memory = memory
    made._look()
    return made


def _empty(size: int, dtype: str) -> SharedArray:
    made = SharedArray.__new__(SharedArray)
    made.size, made.dtype = size, np.dtype(dtype)
    return made
