"""Average pooling (paper, section 5: 7x7 before the classifier, 5x5 at steps of 3 in the auxiliary heads).

    y[n, i, j, c]  = 1/A(i, j) sum over kh, kw of x[n, i SH + kh - top, j SW + kw - left, c]
    dx[n, h, w, c] = sum over the windows (i, j) above (h, w) of dy[n, i, j, c] / A(i, j)

A(i, j) is the size of the window cut to the padded image: zeros of the padding count, as in Caffe; what rounding up
adds beyond it does not.
"""
import numpy as np
from numba import njit

from minigrad.kernels.parallel import kernel
from minigrad.kernels.plan import empty
from minigrad.kernels.windows import Padding, Pair, Windows, windows
from minigrad.op import Op
from minigrad.tensor import Tensor


class AvgPool2d(Op):
    def __init__(self, over: Windows):
        self.over = over

    def forward(self, x):
        over = self.over
        N, _, _, C = self.shape = x.shape
        y = empty((N * over.OH * over.OW, C), x.dtype)
        avg_pool_forward(len(y), np.ascontiguousarray(x).reshape(-1, C), over, y)
        return y.reshape(N, over.OH, over.OW, C)

    def backward(self, dy):
        C = dy.shape[-1]
        dx = np.empty(self.shape, dy.dtype)
        avg_pool_backward(dx.size // C, np.ascontiguousarray(dy).reshape(-1, C), self.over, dx.reshape(-1, C))
        return (dx,)


def avg_pool2d(x: Tensor, kernel: Pair, *, stride: Pair | None = None, padding: Padding = 0,
               ceil: bool = False) -> Tensor:
    """Return the mean of each window of x (N, H, W, C): (N, OH, OW, C); `stride` is the kernel's size unless given.

    `padding` and `ceil` are as in `kernels.windows.windows`. Raises InputError where no window fits.
    """
    return AvgPool2d(windows(x.shape, kernel, kernel if stride is None else stride, padding, ceil))(x)


@njit(nogil=True)
def area(g, oh, ow):
    """A(oh, ow): cells of the window inside the padded image."""
    top, left = oh * g.SH - g.top, ow * g.SW - g.left
    return (min(top + g.KH, g.H + g.bottom) - top) * (min(left + g.KW, g.W + g.right) - left)


@kernel
def avg_pool_forward(first, last, x, g, y):
    """y[p, c] = mean over the window of output pixel p"""
    C = x.shape[1]
    for p in range(first, last):
        n, oh, ow = p // (g.OH * g.OW), p // g.OW % g.OH, p % g.OW
        top, left = oh * g.SH - g.top, ow * g.SW - g.left
        share = x.dtype.type(1 / area(g, oh, ow))
        for c in range(C):
            y[p, c] = 0
        for h in range(max(top, 0), min(top + g.KH, g.H)):
            for w in range(max(left, 0), min(left + g.KW, g.W)):
                q = (n * g.H + h) * g.W + w
                for c in range(C):
                    y[p, c] += x[q, c]
        for c in range(C):
            y[p, c] *= share


@kernel
def avg_pool_backward(first, last, dy, g, dx):
    """dx[p, c] = sum over the windows q above input pixel p of dy[q, c] / A(q)"""
    C = dy.shape[1]
    for p in range(first, last):
        n, h, w = p // (g.H * g.W), p // g.W % g.H + g.top, p % g.W + g.left
        for c in range(C):
            dx[p, c] = 0
        for oh in range(max((h - g.KH + g.SH) // g.SH, 0), min(h // g.SH + 1, g.OH)):
            for ow in range(max((w - g.KW + g.SW) // g.SW, 0), min(w // g.SW + 1, g.OW)):
                share, q = dy.dtype.type(1 / area(g, oh, ow)), (n * g.OH + oh) * g.OW + ow
                for c in range(C):
                    dx[p, c] += dy[q, c] * share
