"""Process-wide settings: keep freed memory, and one number of threads for kernels and BLAS."""
import ctypes
import sys

from numba import config
from threadpoolctl import threadpool_limits

from minigrad.errors import InputError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
KEEP_BELOW = 2**30  # bytes; a C int bounds it to 2 GiB


def keep_freed_memory() -> None:
    """Tell glibc to reuse large freed blocks: fresh pages cost a fault each and double the time of a training step."""
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl has no mallopt
        return
    # Before version 2.35 glibc refuses more than 32 MiB; a trim threshold without the other would make things worse.
    if any(mallopt(ctypes.c_int(M_MMAP_THRESHOLD), ctypes.c_int(size)) for size in (KEEP_BELOW, 2**25)):
        mallopt(ctypes.c_int(M_TRIM_THRESHOLD), ctypes.c_int(KEEP_BELOW))


_threads = 0


def get_threads() -> int:
    """Return how many threads the kernels use."""
    return _threads or available_threads()


def available_threads() -> int:
    """Return how many cores this process may use, or what NUMBA_NUM_THREADS says instead."""
    return config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # Numba sets its options at run time


CONVOLUTIONS = ("auto", "im2col", "direct", "winograd")
_convolution = "auto"


def set_convolution(method: str) -> None:
    """Choose how convolutions are computed where a call does not say: auto, im2col, direct or winograd (ops/conv2d.py).

    winograd stands for itself where a kernel allows it, else for direct. Raises InputError for another word.
    """
    global _convolution
    if method not in CONVOLUTIONS:
        raise InputError(f'the way to compute convolutions is "{method}"; choose {", ".join(CONVOLUTIONS)}')
    _convolution = method


def get_convolution() -> str:
    """Return how convolutions are computed where a call does not say."""
    return _convolution


def jit_disabled() -> bool:
    """Return whether NUMBA_DISABLE_JIT is set: kernels then run as the plain Python they are written in."""
    return bool(config.DISABLE_JIT)  # type: ignore[attr-defined]


def set_threads(count: int) -> None:
    """Let kernels and BLAS (the matrix product of `im2col`) use `count` threads.

    Raises InputError unless 1 <= count <= `available_threads()`.
    """
    global _threads
    most = available_threads()
    if not 1 <= count <= most:
        raise InputError(f"threads is {count}, but this process may use 1 to {most}; choose a number in that range, "
                         "or set NUMBA_NUM_THREADS before the start to widen it")
    _threads = count
    threadpool_limits(count, user_api="blas")
