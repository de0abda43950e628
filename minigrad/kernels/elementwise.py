"""Sums and masks over whole arrays, and the view of an NHWC array as rows of channels."""
import numpy as np

from minigrad.kernels.parallel import kernel

SMALL = 2**14  # values below which NumPy on one thread is as fast


@kernel
def add_values(first, last, a, b, y):
    """y[i] = a[i] + b[i]"""
    a, b, y = a[first:last], b[first:last], y[first:last]
    for i in range(y.size):
        y[i] = a[i] + b[i]


@kernel
def copy_rows(first, last, x, x_step, C, y, y_step):
    """y[r, c] = x[r, c] for rows r of C channels"""
    for r in range(first, last):
        own, other = y[r * y_step:][:C], x[r * x_step:][:C]
        for c in range(C):
            own[c] = other[c]


def add_into(total: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Add `other` to `total` in place, and return it."""
    if total.size < SMALL or not (total.flags.c_contiguous and other.flags.c_contiguous and total.dtype == other.dtype):
        return np.add(total, other, out=total)
    flat = total.reshape(-1)
    add_values(flat.size, flat, other.reshape(-1), flat)
    return total


def added(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a + b, two arrays of one shape and dtype."""
    if a.size < SMALL:
        return np.asarray(a + b)
    y = np.empty(a.shape, a.dtype)
    add_values(y.size, np.ascontiguousarray(a).reshape(-1), np.ascontiguousarray(b).reshape(-1), y.reshape(-1))
    return y


def as_rows(x: np.ndarray) -> tuple[np.ndarray, int]:
    """View (..., C) as (flat, step): row r, channel c is flat[r * step + c]; copies if the rows are not evenly spaced.

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
