"""Sums and masks over whole arrays, and the view of an NHWC array as rows of channels."""
import numpy as np

from minigrad.kernels.parallel import kernel

SMALL = 2**14  # values below which NumPy on one thread is as fast


@kernel
def _add(first, last, x, y, out):
    """out[i] = x[i] + y[i]"""
    for i in range(first, last):
        out[i] = x[i] + y[i]


def add_into(total: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Add `other` to `total` in place, and return it."""
    if total.size < SMALL or not (total.flags.c_contiguous and other.flags.c_contiguous and total.dtype == other.dtype):
        return np.add(total, other, out=total)
    flat = total.reshape(-1)
    _add(flat.size, flat, other.reshape(-1), flat)
    return total


def as_rows(x: np.ndarray) -> tuple[np.ndarray, int]:
    """View (..., C) as (flat, step): row r, channel c is flat[r * step + c]; copies where the rows have no one step.

    A channel slice of a wider buffer is viewed without a copy.
    """
    channels = x.shape[-1]
    outer = [(n, stride) for n, stride in zip(x.shape[-2::-1], x.strides[-2::-1], strict=True) if n > 1]
    pitch = outer[0][1] if outer else channels * x.itemsize
    regular = x.strides[-1] == x.itemsize or channels == 1
    regular = regular and pitch >= channels * x.itemsize and pitch % x.itemsize == 0
    expected = pitch
    for n, stride in outer:
        regular = regular and stride == expected
        expected *= n
    if not regular:
        return np.ascontiguousarray(x).reshape(-1), channels
    step, rows = pitch // x.itemsize, x.size // channels
    return np.lib.stride_tricks.as_strided(x, ((rows - 1) * step + channels,), (x.itemsize,)), step
