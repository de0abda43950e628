"""Matrix products of rows of channels: what a linear layer and a 1x1 convolution are made of.

float32 and float64 go through the register tile, as a convolution of one tap (kernels/gemm.py); where nothing is
compiled, and for other dtypes, NumPy's product serves.
"""
import numpy as np

from minigrad.kernels.elementwise import as_rows
from minigrad.kernels.gemm import indirect_product
from minigrad.kernels.plan import empty
from minigrad.kernels.taps import Taps
from minigrad.kernels.weight_gradient import weight_gradient
from minigrad.runtime import get_convolution, jit_disabled


def has_kernels(dtype: np.dtype) -> bool:
    """Return whether the register tile computes this dtype."""
    return dtype in (np.float32, np.float64)


def by_tile(dtype: np.dtype) -> bool:
    """Return whether a product goes through the register tile: not where convolutions are matrix products, too."""
    return has_kernels(dtype) and not jit_disabled() and get_convolution() != "im2col"


def matmul(x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None, *, relu: bool = False,
           out: np.ndarray | None = None) -> np.ndarray:
    """Return x (..., C) @ w (C, O) + b, at least 0 if relu; written to `out` (..., O) if given, a slice of a buffer."""
    y = empty((*x.shape[:-1], w.shape[1]), x.dtype) if out is None else out
    y_rows, y_step = as_rows(y)
    if not by_tile(x.dtype) or not np.may_share_memory(y_rows, y):
        np.matmul(x, w, out=y)
        if b is not None:
            y += b
        return np.maximum(y, 0, out=y) if relu else y
    rows, step = as_rows(x)
    C = x.shape[-1]
    indirect_product(rows, one_tap(x.size // C, C, step), x.size // C, w[None, None], b, y_rows, y_step, relu)
    return y


def matmul_by_transposed(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return x (..., O) @ w^T for w (C, O): (..., C)."""
    C, O = w.shape
    if not by_tile(x.dtype):
        return x @ w.T
    y = empty((*x.shape[:-1], C), x.dtype)
    rows, step = as_rows(x)
    indirect_product(rows, one_tap(x.size // O, O, step), x.size // O, w[None, None], None, y.reshape(-1), C, flip=True)
    return y


def matmul_transposed(x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Return x^T dy (C, O) for x (..., C) and dy (..., O), summed over all other axes."""
    C, O = x.shape[-1], dy.shape[-1]
    if not by_tile(x.dtype):
        return x.reshape(-1, C).T @ dy.reshape(-1, O)
    rows, step = as_rows(x)
    return weight_gradient(rows, one_tap(x.size // C, C, step), x.size // C, *as_rows(dy), O)


def one_tap(rows: int, C: int, step: int) -> Taps:
    """The taps of a matrix product: `rows` pixels in one column, one tap over each."""
    return Taps(rows, 1, rows, 1, 1, 1, 1, 1, 0, 0, 1, 1, C, step)
