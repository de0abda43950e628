"""Average pooling to a given size, whatever the image's (torchvision's auxiliary heads pool to 4x4).

With windows of rows R(i) = floor(i H / S) .. ceil((i + 1) H / S) - 1, columns V(j) alike, and A(i, j) pixels in both:

    y[n, i, j, c]  = 1/A(i, j) sum over h in R(i), w in V(j) of x[n, h, w, c]
    dx[n, h, w, c] = sum over the windows (i, j) that hold (h, w) of dy[n, i, j, c] / A(i, j)

As in PyTorch's AdaptiveAvgPool2d: windows overlap where H is no multiple of S. Row h lies in the windows
floor(h S / H) .. ceil((h + 1) S / H) - 1: the same rule with H and S exchanged.
"""
import numpy as np
from numba import njit

from minigrad.errors import InputError
from minigrad.kernels.parallel import kernel
from minigrad.kernels.plan import empty
from minigrad.op import Op
from minigrad.tensor import Tensor


class AdaptiveAvgPool2d(Op):
    def __init__(self, size: int):
        self.size = size

    def forward(self, x):
        N, _, _, C = self.shape = x.shape
        y = empty((N, self.size, self.size, C), x.dtype)
        adaptive_avg_pool_forward(N * self.size**2, np.ascontiguousarray(x), y)
        return y

    def backward(self, dy):
        N, H, W, _ = self.shape
        dx = np.empty(self.shape, dy.dtype)
        adaptive_avg_pool_backward(N * H * W, np.ascontiguousarray(dy), dx)
        return (dx,)


def adaptive_avg_pool2d(x: Tensor, size: int) -> Tensor:
    """Return the means of size x size windows that cover x (N, H, W, C): (N, size, size, C).

    Raises InputError unless x has four axes and size is at least 1.
    """
    if len(x.shape) != 4 or size < 1:
        raise InputError(f"expected x (N, H, W, C) and a size of at least 1, got {x.shape} and {size}")
    return AdaptiveAvgPool2d(size)(x)


@njit(nogil=True)
def window(i, length, size):
    """[begin, end) of window i of `size` that cover `length` cells."""
    return i * length // size, ((i + 1) * length + size - 1) // size


@kernel
def adaptive_avg_pool_forward(first, last, x, y):
    """y[n, i, j, c] = mean of x[n, h, w, c] over rows h of window i and columns w of window j"""
    (_, H, W, C), S = x.shape, y.shape[1]
    for p in range(first, last):
        n, i, j = p // (S * S), p // S % S, p % S
        (top, bottom), (left, right) = window(i, H, S), window(j, W, S)
        own = y[n, i, j]
        share = x.dtype.type(1 / ((bottom - top) * (right - left)))
        for c in range(C):
            own[c] = 0
        for h in range(top, bottom):
            for w in range(left, right):
                row = x[n, h, w]
                for c in range(C):
                    own[c] += row[c]
        for c in range(C):
            own[c] *= share


@kernel
def adaptive_avg_pool_backward(first, last, dy, dx):
    """dx[n, h, w, c] = sum over the windows (i, j) that hold (h, w) of dy[n, i, j, c] / A(i, j)"""
    (_, H, W, C), S = dx.shape, dy.shape[1]
    for p in range(first, last):
        n, h, w = p // (H * W), p // W % H, p % W
        (above, below), (before, after) = window(h, S, H), window(w, S, W)
        own = dx[n, h, w]
        for c in range(C):
            own[c] = 0
        for i in range(above, below):
            for j in range(before, after):
                (top, bottom), (left, right) = window(i, H, S), window(j, W, S)
                share = dy.dtype.type(1 / ((bottom - top) * (right - left)))
                row = dy[n, i, j]
                for c in range(C):
                    own[c] += row[c] * share
