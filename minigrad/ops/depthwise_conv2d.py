"""Depthwise convolution: each channel of x by filters of its own (the separable stem, see googlenet/model.py).

With x (N, H, W, C) padded by zeros and w (KH, KW, C, M):

    y[n, i, j, c M + m] = sum over kh, kw of    x[n, i SH + kh, j SW + kw, c] * w[kh, kw, c, m]
    dx[n, h, w, c]      = sum over m, kh, kw of dy[n, i, j, c M + m] * w[kh, kw, c, m], i SH + kh = h, j SW + kw = w
    dw[kh, kw, c, m]    = sum over n, i, j of   x[n, i SH + kh, j SW + kw, c] * dy[n, i, j, c M + m]
"""
import numpy as np

from minigrad import runtime
from minigrad.errors import InputError
from minigrad.kernels.parallel import kernel
from minigrad.kernels.plan import empty
from minigrad.kernels.windows import Padding, Pair, Windows, windows
from minigrad.op import Op
from minigrad.tensor import Tensor


class DepthwiseConv2d(Op):
    def __init__(self, over: Windows):
        self.over = over

    def forward(self, x, w):
        self.x, self.w = np.ascontiguousarray(x), np.ascontiguousarray(w)
        over, (C, M) = self.over, w.shape[2:]
        y = empty((x.shape[0], over.OH, over.OW, C * M), x.dtype)
        depthwise_forward(y.size // (C * M), self.x, self.w, over, y)
        return y

    def backward(self, dy):
        dy = np.ascontiguousarray(dy)
        dx = dw = None
        if self.needs[0]:
            dx = np.zeros_like(self.x)
            depthwise_data_gradient(dx.shape[0] * dx.shape[1], dy, self.w, self.over, dx)
        if self.needs[1]:
            parts = np.zeros((min(runtime.get_threads(), len(dy)), *self.w.shape), dy.dtype)
            depthwise_weight_gradient(len(parts), self.x, dy, self.over, parts)
            dw = parts.sum(0)
        return dx, dw


def depthwise_conv2d(x: Tensor, weight: Tensor, *, stride: Pair = 1, padding: Padding = 0) -> Tensor:
    """Convolve each channel of x (N, H, W, C) with its M filters of weight (KH, KW, C, M): (N, OH, OW, C * M).

    Raises InputError where shapes or dtypes do not fit together.
    """
    if len(weight.shape) != 4 or len(x.shape) != 4 or weight.shape[2] != x.shape[3] or x.dtype != weight.dtype:
        raise InputError(f"expected x (N, H, W, C) and weight (KH, KW, C, M) with the same C and dtype, "
                         f"got {x.shape} {x.dtype} and {weight.shape} {weight.dtype}")
    return DepthwiseConv2d(windows(x.shape, weight.shape[:2], stride, padding))(x, weight)


@kernel
def depthwise_forward(first, last, x, w, g, y):
    """y[n, i, j, c M + m] = sum over kh, kw of x[n, i SH + kh - top, j SW + kw - left, c] * w[kh, kw, c, m]"""
    C, M = w.shape[2:]
    for p in range(first, last):
        n, i, j = p // (g.OH * g.OW), p // g.OW % g.OH, p % g.OW
        top, left = i * g.SH - g.top, j * g.SW - g.left
        y[n, i, j] = 0
        for h in range(max(top, 0), min(top + g.KH, g.H)):
            for v in range(max(left, 0), min(left + g.KW, g.W)):
                for c in range(C):
                    for m in range(M):
                        y[n, i, j, c * M + m] += x[n, h, v, c] * w[h - top, v - left, c, m]


@kernel
def depthwise_data_gradient(first, last, dy, w, g, dx):
    """dx[n, h, v, c] = sum over the windows above (h, v) and m of dy[n, i, j, c M + m] * w[kh, kw, c, m]

    An item is a row of an image."""
    C, M = w.shape[2:]
    for r in range(first, last):
        n, h = r // g.H, r % g.H + g.top
        for i in range(max((h - g.KH + g.SH) // g.SH, 0), min(h // g.SH + 1, g.OH)):
            for j in range(g.OW):
                left = j * g.SW - g.left
                for v in range(max(left, 0), min(left + g.KW, g.W)):
                    for c in range(C):
                        for m in range(M):
                            dx[n, h - g.top, v, c] += dy[n, i, j, c * M + m] * w[h - i * g.SH, v - left, c, m]


@kernel
def depthwise_weight_gradient(first, last, x, dy, g, dw):
    """dw[part, kh, kw, c, m] = sum over the part's images n and i, j of x[n, i SH + kh, ...] * dy[n, i, j, c M + m]"""
    parts, _, _, C, M = dw.shape
    N = len(x)
    for part in range(first, last):
        for n in range(part * N // parts, (part + 1) * N // parts):
            for i in range(g.OH):
                top = i * g.SH - g.top
                for j in range(g.OW):
                    left = j * g.SW - g.left
                    for h in range(max(top, 0), min(top + g.KH, g.H)):
                        for v in range(max(left, 0), min(left + g.KW, g.W)):
                            for c in range(C):
                                for m in range(M):
                                    dw[part, h - top, v - left, c, m] += x[n, h, v, c] * dy[n, i, j, c * M + m]
