"""Local response normalisation over channels (Krizhevsky et al. 2012, section 3.3; in this paper only in Figure 3).

With s the scale and W(c) the `size` channels centred at c, cut at the ends:

    s[c]  = k + alpha/size * sum over j in W(c) of x[j]^2
    y[c]  = x[c] * s[c]^-beta
    dx[c] = dy[c] * s[c]^-beta - 2 alpha beta/size * x[c] * sum over j in W(c) of dy[j] x[j] s[j]^(-beta-1)

Systems disagree on the constants. Here alpha is divided by the size of the window, as in Caffe, ONNX and PyTorch;
TensorFlow, Chainer and the formula of Krizhevsky et al. do not divide. Caffe's GoogLeNet has size 5, alpha 1e-4,
beta 0.75, k 1, made for inputs on the scale 0..255.
"""
import numpy as np
from numba import njit

from minigrad.errors import InputError
from minigrad.kernels.parallel import kernel
from minigrad.kernels.plan import empty
from minigrad.op import Op
from minigrad.tensor import Tensor

BLOCK = 1024  # values: what a kernel keeps of them stays in L1


class Lrn(Op):
    def __init__(self, size: int, alpha: float, beta: float, k: float):
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x):
        self.x = np.ascontiguousarray(x)
        y = empty(x.shape, x.dtype)
        lrn_forward(x.size // x.shape[-1], self.rows(self.x), *self.constants(), self.rows(y))
        return y

    def backward(self, dy):
        dx = np.empty_like(self.x)
        factor = dy.dtype.type(2 * self.alpha * self.beta / self.size)
        dy = np.ascontiguousarray(dy)
        lrn_backward(dy.size // dy.shape[-1], self.rows(dy), self.rows(self.x), *self.constants(), factor,
                     self.rows(dx))
        return (dx,)

    def constants(self) -> tuple:
        """Return size, alpha / size, beta and k, in x's precision."""
        real = self.x.dtype.type
        return self.size, real(self.alpha / self.size), real(self.beta), real(self.k)

    @staticmethod
    def rows(x: np.ndarray) -> np.ndarray:
        return x.reshape(-1, x.shape[-1])


def lrn(x: Tensor, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """Normalise each value of x (..., C) by its `size` neighbours along the channels; same shape.

    Raises InputError unless size is odd and at least 1.
    """
    if size < 1 or size % 2 == 0:
        raise InputError(f"the window of LRN is {size} channels; it must be an odd number, to have a centre")
    return Lrn(size, alpha, beta, k)(x)


@njit(nogil=True)
def three_quarters(s):
    """s^-0.75 by two square roots, which the CPU has as vectors."""
    r = np.sqrt(s) / s  # s^-1/2, without a literal, which would make it float64
    return r * np.sqrt(r)


@njit(nogil=True)
def window_sums(values, size, sums):
    """sums[i] = sum over j < size of values[i + j]"""
    if size == 5:  # Caffe's: in one pass
        for i in range(len(sums)):
            sums[i] = values[i] + values[i + 1] + values[i + 2] + values[i + 3] + values[i + 4]
        return
    for i in range(len(sums)):
        sums[i] = values[i]
    for j in range(1, size):
        for i in range(len(sums)):
            sums[i] += values[i + j]


@njit(nogil=True)
def normalise(x, p, n, size, alpha, beta, k, square, scale, power):
    """For pixels p..p + n: scale = k + alpha * sum over the window of x[j]^2;  power = scale^-beta

    `alpha` is divided by the size already. In the three buffers a pixel takes C + size - 1 values: those of `square`
    begin and end with the window's zeros, those of `scale` and `power` end with values that nobody reads."""
    C = x.shape[1]
    for i in range(n):
        row, own = x[p + i], square[i * (C + size - 1) + size // 2:]
        for c in range(C):
            own[c] = row[c] * row[c]
    window_sums(square, size, scale)
    for i in range(len(scale)):
        scale[i] = k + alpha * scale[i]
    if beta == 0.75:
        for i in range(len(scale)):
            power[i] = three_quarters(scale[i])
    else:
        for i in range(len(scale)):
            power[i] = scale[i] ** -beta


@kernel
def lrn_forward(first, last, x, size, alpha, beta, k, y):
    """y[p, c] = x[p, c] * scale[c]^-beta; BLOCK values at a time, so that most loops are long ones."""
    C = x.shape[1]
    pitch = C + size - 1
    block = BLOCK // pitch + 1
    square, scale, power = (np.zeros(block * pitch + size, x.dtype), np.empty(block * pitch, x.dtype),
                            np.empty(block * pitch, x.dtype))
    for p in range(first, last, block):
        n = min(block, last - p)
        normalise(x, p, n, size, alpha, beta, k, square, scale, power)
        for i in range(n):
            row, own, factor = x[p + i], y[p + i], power[i * pitch:]
            for c in range(C):
                own[c] = row[c] * factor[c]


@kernel
def lrn_backward(first, last, dy, x, size, alpha, beta, k, factor, dx):
    """dx[p, c] = dy[p, c] * s^-beta - factor * x[p, c] * sum over the window of dy[p, j] x[p, j] s[j]^(-beta-1)

    The scale s is computed again: that is cheaper than to write and read it."""
    C = x.shape[1]
    pitch = C + size - 1
    block = BLOCK // pitch + 1
    square, term = np.zeros(block * pitch + size, x.dtype), np.zeros(block * pitch + size, x.dtype)
    scale, power, total = (np.empty(block * pitch, x.dtype), np.empty(block * pitch, x.dtype),
                           np.empty(block * pitch, x.dtype))
    for p in range(first, last, block):
        n = min(block, last - p)
        normalise(x, p, n, size, alpha, beta, k, square, scale, power)
        for i in range(len(scale)):
            scale[i] = power[i] / scale[i]  # s^(-beta-1)
        for i in range(n):
            row, above, power_down, own = x[p + i], dy[p + i], scale[i * pitch:], term[i * pitch + size // 2:]
            for c in range(C):
                own[c] = above[c] * row[c] * power_down[c]
        window_sums(term, size, total)
        for i in range(n):
            row, above, result, own, sums = x[p + i], dy[p + i], dx[p + i], power[i * pitch:], total[i * pitch:]
            for c in range(C):
                result[c] = above[c] * own[c] - factor * row[c] * sums[c]
