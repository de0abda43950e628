"""Max pooling (paper, Table 1: 3x3 windows at steps of 2 between stages, of 1 inside a module).

    y[n, i, j, c]  = max over kh, kw of x[n, i SH + kh - top, j SW + kw - left, c], over the cells inside the image
    dx[n, h, w, c] = sum of dy[n, i, j, c] over the windows (i, j) whose maximum lies at (h, w)

Of equal values the first in reading order is the maximum, as in Caffe; a NaN beats every number, so that it shows. The
gradient is gathered: each input pixel asks the windows over it, so that threads never write to the same place.
"""
import numpy as np

from minigrad.errors import InputError
from minigrad.kernels.parallel import kernel
from minigrad.kernels.windows import Padding, Pair, Windows, windows
from minigrad.op import Op
from minigrad.tensor import Tensor


class MaxPool2d(Op):
    def __init__(self, over: Windows):
        self.over = over

    def forward(self, x):
        over = self.over
        N, _, _, C = self.shape = x.shape
        y = np.empty((N * over.OH * over.OW, C), x.dtype)
        cells = np.uint8 if over.KH * over.KW <= 256 else np.int32
        self.winner = np.empty(y.shape, cells)  # which kernel cell each maximum came from
        max_pool_forward(len(y), np.ascontiguousarray(x).reshape(-1, C), over, y, self.winner)
        return y.reshape(N, over.OH, over.OW, C)

    def backward(self, dy):
        C = dy.shape[-1]
        dx = np.empty(self.shape, dy.dtype)
        dy = np.ascontiguousarray(dy).reshape(-1, C)
        max_pool_backward(dx.size // C, dy, self.winner, self.over, dx.reshape(-1, C))
        return (dx,)


def max_pool2d(x: Tensor, kernel: Pair, *, stride: Pair | None = None, padding: Padding = 0,
               ceil: bool = False) -> Tensor:
    """Return the maximum of each window of x (N, H, W, C): (N, OH, OW, C); `stride` is the kernel's size unless given.

    `padding` and `ceil` are as in `kernels.windows.windows`. Raises InputError where no window fits or the padding is
    as wide as the kernel.
    """
    over = windows(x.shape, kernel, kernel if stride is None else stride, padding, ceil)
    if max(over.top, over.bottom) >= over.KH or max(over.left, over.right) >= over.KW:
        raise InputError(f"padding {padding} is as wide as the {over.KH}x{over.KW} kernel: "
                         "a window would lie outside the image; use less")
    return MaxPool2d(over)(x)


@kernel
def max_pool_forward(first, last, x, g, y, winner):
    """y[p, c] = max over the window of output pixel p; winner[p, c] = which kernel cell it was"""
    C = x.shape[1]
    for p in range(first, last):
        n, top, left = p // (g.OH * g.OW), p // g.OW % g.OH * g.SH - g.top, p % g.OW * g.SW - g.left
        h0, w0 = max(top, 0), max(left, 0)
        cell, q = winner.dtype.type((h0 - top) * g.KW + w0 - left), (n * g.H + h0) * g.W + w0
        for c in range(C):
            y[p, c] = x[q, c]
            winner[p, c] = cell
        for h in range(h0, min(top + g.KH, g.H)):
            for w in range(w0, min(left + g.KW, g.W)):
                cell, q = winner.dtype.type((h - top) * g.KW + w - left), (n * g.H + h) * g.W + w
                for c in range(C):
                    larger = (x[q, c] > y[p, c]) | (x[q, c] != x[q, c])
                    y[p, c] = x[q, c] if larger else y[p, c]
                    winner[p, c] = cell if larger else winner[p, c]


@kernel
def max_pool_backward(first, last, dy, winner, g, dx):
    """dx[p, c] = sum of dy[q, c] over the windows q above input pixel p that p won"""
    C, zero = dy.shape[1], dy.dtype.type(0)
    for p in range(first, last):
        n, h, w = p // (g.H * g.W), p // g.W % g.H + g.top, p % g.W + g.left
        for c in range(C):
            dx[p, c] = zero
        for oh in range(max((h - g.KH + g.SH) // g.SH, 0), min(h // g.SH + 1, g.OH)):
            for ow in range(max((w - g.KW + g.SW) // g.SW, 0), min(w // g.SW + 1, g.OW)):
                cell = winner.dtype.type((h - oh * g.SH) * g.KW + w - ow * g.SW)
                q = (n * g.OH + oh) * g.OW + ow
                for c in range(C):
                    dx[p, c] += dy[q, c] if winner[q, c] == cell else zero
