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
from minigrad.op import Op
from minigrad.tensor import Tensor


class Lrn(Op):
    def __init__(self, size: int, alpha: float, beta: float, k: float):
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x):
        self.x = np.ascontiguousarray(x)
        C, real = x.shape[-1], x.dtype.type
        self.scale, y = np.empty_like(self.x), np.empty_like(self.x)
        lrn_forward(x.size // C, self.x.reshape(-1, C), self.size, real(self.alpha / self.size), real(self.beta),
                    real(self.k), self.scale.reshape(-1, C), y.reshape(-1, C))
        return y

    def backward(self, dy):
        C, real = dy.shape[-1], dy.dtype.type
        dx = np.empty_like(self.x)
        dy = np.ascontiguousarray(dy).reshape(-1, C)
        factor = real(2 * self.alpha * self.beta / self.size)
        lrn_backward(len(dy), dy, self.x.reshape(-1, C), self.scale.reshape(-1, C), self.size, factor, real(self.beta),
                     dx.reshape(-1, C))
        return (dx,)


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


@kernel
def lrn_forward(first, last, x, size, alpha, beta, k, scale, y):
    """y[p, c] = x[p, c] * scale[p, c]^-beta;  scale[p, c] = k + alpha * sum over the window of x[p, j]^2"""
    C = x.shape[1]
    square = np.zeros(C + size - 1, x.dtype)  # the window's zeros before and behind the channels
    for p in range(first, last):
        for c in range(C):
            square[size // 2 + c] = x[p, c] * x[p, c]
            scale[p, c] = k
        for j in range(size):
            for c in range(C):
                scale[p, c] += alpha * square[c + j]
        if beta == 0.75:
            for c in range(C):
                y[p, c] = x[p, c] * three_quarters(scale[p, c])
        else:
            for c in range(C):
                y[p, c] = x[p, c] * scale[p, c] ** -beta


@kernel
def lrn_backward(first, last, dy, x, scale, size, factor, beta, dx):
    """dx[p, c] = dy[p, c] * s^-beta - factor * x[p, c] * sum over the window of dy[p, j] x[p, j] s[p, j]^(-beta-1)"""
    C = x.shape[1]
    term = np.zeros(C + size - 1, x.dtype)
    power = np.empty(C, x.dtype)
    for p in range(first, last):
        if beta == 0.75:
            for c in range(C):
                power[c] = three_quarters(scale[p, c])
        else:
            for c in range(C):
                power[c] = scale[p, c] ** -beta
        for c in range(C):
            term[size // 2 + c] = dy[p, c] * x[p, c] * power[c] / scale[p, c]
            dx[p, c] = 0
        for j in range(size):
            for c in range(C):
                dx[p, c] += term[c + j]
        for c in range(C):
            dx[p, c] = dy[p, c] * power[c] - factor * x[p, c] * dx[p, c]
