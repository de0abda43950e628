"""Rectified linear unit (paper, section 5: after every convolution, reductions and projections too).

    y  = max(x, 0)
    dx = dy where y > 0, else 0

A convolution applies it as it stores its sums (`conv2d(..., relu=True)`) and calls `masked_gradient` on the way back,
which also sums the bias gradient, so that dy is read once.
"""
import numpy as np

from minigrad.kernels.elementwise import as_rows
from minigrad.kernels.parallel import kernel
from minigrad.kernels.plan import empty
from minigrad.op import Op
from minigrad.tensor import Tensor

PART, MOST_PARTS = 256, 64  # pixels of one partial sum of db: many short sums round less than a few long ones


class Relu(Op):
    def forward(self, x):
        x = np.ascontiguousarray(x)
        self.y = empty(x.shape, x.dtype)
        relu_forward(x.size, x.reshape(-1), self.y.reshape(-1))
        return self.y

    def backward(self, dy):
        dx = np.empty_like(self.y)
        relu_backward(dx.size, np.ascontiguousarray(dy).reshape(-1), self.y.reshape(-1), dx.reshape(-1))
        return (dx,)


def relu(x: Tensor) -> Tensor:
    """Return max(x, 0), of any shape."""
    return Relu()(x)


def masked_gradient(dy: np.ndarray, y: np.ndarray | None,
                    out: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return (dz, db) for y = max(z + b, 0), or y = z + b where `y` is None; dy is (..., O), db is (O,).

    dz is written to `out` if given, a slice of a buffer."""
    O = dy.shape[-1]
    pixels = dy.size // O
    parts = min(MOST_PARTS, -(-pixels // PART))
    sums = np.zeros((parts, O), dy.dtype)
    dy_rows, dy_step = as_rows(dy)
    if y is None:
        sum_rows(parts, pixels, dy_rows, dy_step, sums)
        if out is None:
            return dy, sums.sum(0)
        out[...] = dy
        return out, sums.sum(0)
    dz = np.empty(dy.shape, dy.dtype) if out is None else out
    mask_rows(parts, pixels, dy_rows, dy_step, *as_rows(y), *as_rows(dz), sums)
    return dz, sums.sum(0)


@kernel
def relu_forward(first, last, x, y):
    """y[i] = max(x[i], 0)"""
    zero = x.dtype.type(0)  # a literal 0 would make the arithmetic float64
    x, y = x[first:last], y[first:last]
    for i in range(y.size):
        y[i] = zero if x[i] < zero else x[i]


@kernel
def relu_backward(first, last, dy, y, dx):
    """dx[i] = dy[i] if y[i] > 0"""
    zero = y.dtype.type(0)
    dy, y, dx = dy[first:last], y[first:last], dx[first:last]
    for i in range(dx.size):
        dx[i] = dy[i] if y[i] > zero else zero


@kernel
def mask_rows(first, last, pixels, dy, dy_step, y, y_step, dz, dz_step, sums):
    """dz[p, o] = dy[p, o] if y[p, o] > 0;  sums[part, o] = sum over the part's pixels p of dz[p, o]"""
    parts, O = sums.shape
    zero = y.dtype.type(0)
    for part in range(first, last):
        total = sums[part]
        for p in range(part * pixels // parts, (part + 1) * pixels // parts):
            above, own, masked = dy[p * dy_step:][:O], y[p * y_step:][:O], dz[p * dz_step:][:O]
            for o in range(O):
                masked[o] = above[o] if own[o] > zero else zero
            for o in range(O):
                total[o] += masked[o]


@kernel
def sum_rows(first, last, pixels, dy, dy_step, sums):
    """sums[part, o] = sum over the part's pixels p of dy[p, o]"""
    parts, O = sums.shape
    for part in range(first, last):
        total = sums[part]
        for p in range(part * pixels // parts, (part + 1) * pixels // parts):
            row = dy[p * dy_step:p * dy_step + O]
            for o in range(O):
                total[o] += row[o]
