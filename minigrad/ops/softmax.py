"""Softmax and its logarithm over the last axis.

    p[n, c]  = exp(x[n, c]) / sum over j of exp(x[n, j])
    dx[n, c] = p[n, c] * (dp[n, c] - sum over j of dp[n, j] p[n, j])

    l[n, c]  = x[n, c] - log(sum over j of exp(x[n, j]))
    dx[n, c] = dl[n, c] - exp(l[n, c]) * sum over j of dl[n, j]

The largest x of a row is subtracted first, so that exp can't overflow.
"""
import numpy as np

from minigrad.kernels.parallel import kernel
from minigrad.kernels.plan import empty
from minigrad.op import Op
from minigrad.tensor import Tensor


class Softmax(Op):
    def forward(self, x):
        x = np.ascontiguousarray(x)
        self.p = empty(x.shape, x.dtype)
        C = x.shape[-1]
        softmax_forward(x.size // C, x.reshape(-1, C), self.p.reshape(-1, C))
        return self.p

    def backward(self, dp):
        C = dp.shape[-1]
        dx = np.empty_like(self.p)
        dp = np.ascontiguousarray(dp).reshape(-1, C)
        softmax_backward(len(dp), dp, self.p.reshape(-1, C), dx.reshape(-1, C))
        return (dx,)


class LogSoftmax(Op):
    def forward(self, x):
        x = np.ascontiguousarray(x)
        self.l = empty(x.shape, x.dtype)
        C = x.shape[-1]
        log_softmax_forward(x.size // C, x.reshape(-1, C), self.l.reshape(-1, C))
        return self.l

    def backward(self, dl):
        C = dl.shape[-1]
        dx = np.empty_like(self.l)
        dl = np.ascontiguousarray(dl).reshape(-1, C)
        log_softmax_backward(len(dl), dl, self.l.reshape(-1, C), dx.reshape(-1, C))
        return (dx,)


def softmax(x: Tensor) -> Tensor:
    """Return the softmax of x (..., C) over its last axis; same shape."""
    return Softmax()(x)


def log_softmax(x: Tensor) -> Tensor:
    """Return the logarithm of the softmax of x (..., C) over its last axis; same shape."""
    return LogSoftmax()(x)


@kernel
def softmax_forward(first, last, x, p):
    """p[n, c] = exp(x[n, c] - m) / sum over j of exp(x[n, j] - m), m the row's largest"""
    for n in range(first, last):
        largest, total = x[n].max(), x.dtype.type(0)
        for c in range(x.shape[1]):
            p[n, c] = np.exp(x[n, c] - largest)
            total += p[n, c]
        for c in range(x.shape[1]):
            p[n, c] /= total


@kernel
def softmax_backward(first, last, dp, p, dx):
    """dx[n, c] = p[n, c] * (dp[n, c] - sum over j of dp[n, j] p[n, j])"""
    for n in range(first, last):
        total = p.dtype.type(0)
        for c in range(p.shape[1]):
            total += dp[n, c] * p[n, c]
        for c in range(p.shape[1]):
            dx[n, c] = p[n, c] * (dp[n, c] - total)


@kernel
def log_softmax_forward(first, last, x, l):
    """l[n, c] = x[n, c] - m - log(sum over j of exp(x[n, j] - m)), m the row's largest"""
    for n in range(first, last):
        largest, total = x[n].max(), x.dtype.type(0)
        for c in range(x.shape[1]):
            total += np.exp(x[n, c] - largest)
        shift = largest + np.log(total)
        for c in range(x.shape[1]):
            l[n, c] = x[n, c] - shift


@kernel
def log_softmax_backward(first, last, dl, l, dx):
    """dx[n, c] = dl[n, c] - exp(l[n, c]) * sum over j of dl[n, j]"""
    for n in range(first, last):
        total = l.dtype.type(0)
        for c in range(l.shape[1]):
            total += dl[n, c]
        for c in range(l.shape[1]):
            dx[n, c] = dl[n, c] - np.exp(l[n, c]) * total
