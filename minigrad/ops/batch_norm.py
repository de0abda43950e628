"""Batch normalisation (Ioffe and Szegedy 2015, arXiv 1502.03167: Algorithm 1, and the gradient of section 3).

With x (..., C), m values x[p, c] of each channel, and gamma and beta (C,):

    mean[c]     = 1/m sum over p of x[p, c]
    variance[c] = 1/m sum over p of (x[p, c] - mean[c])^2
    n[p, c]     = (x[p, c] - mean[c]) / sqrt(variance[c] + eps)
    y[p, c]     = gamma[c] * n[p, c] + beta[c]
    dbeta[c]    = sum over p of dy[p, c]
    dgamma[c]   = sum over p of dy[p, c] * n[p, c]
    dx[p, c]    = gamma[c] / sqrt(variance[c] + eps) * (dy[p, c] - (dbeta[c] + dgamma[c] * n[p, c]) / m)

Testing takes running statistics instead of the batch's, updated by each training step:

    running <- decay * running + (1 - decay) * batch

x then changes no statistic, and the term over m is gone from dx. The running variance takes the batch's sum of squares
over m - 1 instead of m, an estimate without bias, as in PyTorch and in TensorFlow's fused op; TensorFlow's other op and
Chainer's formula divide by m. What is normalised is divided by m everywhere.

`relu=True` applies max(., 0) as y is stored. The way back asks x instead of y where y was positive, by the same
arithmetic: x has to be read anyway.
"""
from typing import Any

import numpy as np

from minigrad.errors import InputError
from minigrad.kernels.elementwise import as_rows
from minigrad.kernels.parallel import kernel
from minigrad.kernels.plan import empty
from minigrad.op import Op
from minigrad.ops.relu import MOST_PARTS, PART
from minigrad.tensor import Tensor


class BatchNorm(Op):
    def __init__(self, mean: np.ndarray, variance: np.ndarray, eps: float, decay: float, training: bool, relu: bool,
                 out: np.ndarray | None):
        self.running = mean, variance
        self.eps, self.decay, self.training, self.out = eps, decay, training, out
        self.floor = mean.dtype.type(0 if relu else -np.inf)

    def forward(self, x, beta, gamma=None):
        self.shape = x.shape
        self.x, self.step = as_rows(x)
        self.pixels = x.size // x.shape[-1]
        mean, variance = self.batch_statistics() if self.training else self.running
        self.deviation = np.sqrt(variance.astype(np.float64) + self.eps)
        scale = 1 / self.deviation if gamma is None else gamma / self.deviation
        self.mean, self.scale, self.beta = mean.astype(x.dtype), scale.astype(x.dtype), beta.copy()
        y = empty(x.shape, x.dtype) if self.out is None else self.out
        rows, step = as_rows(y)
        normalise(self.pixels, self.x, self.step, self.mean, self.scale, self.beta, self.floor, rows, step)
        if not np.may_share_memory(rows, y):
            y[...] = rows.reshape(y.shape)
        return y

    def backward(self, dy):
        C = self.shape[-1]
        dy, step = as_rows(dy)
        normalised = self.x, self.step, self.mean, self.scale, self.beta, self.floor
        sums = np.zeros((parts_of(self.pixels), 2, C), dy.dtype)
        sum_gradients(len(sums), self.pixels, dy, step, *normalised, sums)
        dbeta, dscale = sums.sum(0, dtype=np.float64)
        dgamma = dscale / self.deviation
        dx = None
        if self.needs[0]:
            share = self.scale / self.pixels if self.training else np.zeros(C)
            shift, slope = (share * dbeta).astype(dy.dtype), (share * dgamma / self.deviation).astype(dy.dtype)
            dx = np.empty(self.shape, dy.dtype)
            data_gradient(self.pixels, dy, step, *normalised, shift, slope, dx.reshape(-1))
        return (dx, dbeta.astype(dy.dtype), dgamma.astype(dy.dtype))[:len(self.needs)]

    def batch_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the batch's mean and variance (C,) in float64; updates the running ones."""
        mean, squares = moments(self.x, self.step, self.pixels, self.shape[-1])
        for running, batch in zip(self.running, (mean, squares / (self.pixels - 1)), strict=True):
            running[...] = self.decay * running + (1 - self.decay) * batch
        return mean, squares / self.pixels


def batch_norm(x: Tensor, gamma: Tensor | None, beta: Tensor, *, mean: np.ndarray, variance: np.ndarray, eps: float,
               decay: float, training: bool, relu: bool = False, out: np.ndarray | None = None) -> Tensor:
    """Normalise each channel of x (..., C) to mean beta and deviation gamma (C,), or 1 where gamma is None; same shape.

    `mean` and `variance` (C,) are the running statistics: training writes them, testing reads them. `out`, an array of
    x's shape such as a channel slice of a wider buffer, receives the result. Raises InputError where shapes or dtypes
    do not fit together, and in training for a single value a channel.
    """
    per_channel: dict[str, Any] = {"gamma": beta if gamma is None else gamma, "beta": beta, "mean": mean,
                                   "variance": variance}
    for name, each in per_channel.items():
        if each.shape != x.shape[-1:] or each.dtype != x.dtype:
            raise InputError(f"expected {name} {x.shape[-1:]} of {x.dtype} for x {x.shape}, "
                             f"got {each.shape} of {each.dtype}")
    if out is not None and (out.shape != x.shape or out.dtype != x.dtype):
        raise InputError(f"expected out {x.shape} of {x.dtype}, got {out.shape} of {out.dtype}")
    if eps < 0 or not 0 <= decay <= 1:
        raise InputError(f"eps is {eps} and decay {decay}; eps must be at least 0, decay between 0 and 1")
    if training and x.data.size == x.shape[-1]:
        raise InputError(f"batch norm in training got x {x.shape}, one value a channel, which has no variance: "
                         "use a larger batch, or model.eval() to test")
    inputs = (x, beta) if gamma is None else (x, beta, gamma)
    return BatchNorm(mean, variance, eps, decay, training, relu, out)(*inputs)


def parts_of(pixels: int) -> int:
    """Return how many partial sums a sum over pixels has, whatever the number of threads."""
    return min(MOST_PARTS, -(-pixels // PART))


def moments(x: np.ndarray, step: int, pixels: int, C: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of rows of C channels, and the sum of the squared differences from it, in float64.

    Those of the parts are joined as by Chan, Golub and LeVeque 1979: no large sums of squares are subtracted."""
    parts = np.zeros((parts_of(pixels), 2, C), x.dtype)
    part_moments(len(parts), pixels, x, step, parts)
    means, squares = parts[:, 0].astype(np.float64), parts[:, 1]
    lengths = np.diff(np.arange(len(parts) + 1) * pixels // len(parts))[:, None]
    mean = (lengths * means).sum(0) / pixels
    return mean, squares.sum(0, dtype=np.float64) + (lengths * (means - mean) ** 2).sum(0)


@kernel
def part_moments(first, last, pixels, x, step, moments):
    """moments[part, 0, c] = mean over the part's pixels p of x[p, c];  [part, 1, c] = sum of (x[p, c] - mean)^2

    Differences from the part's first pixel are summed: the sum of their squares is at most the number of pixels times
    the result, so that subtracting from it loses little, however far the mean is from zero."""
    parts, _, C = moments.shape
    for part in range(first, last):
        p, end = part * pixels // parts, (part + 1) * pixels // parts
        start, count = x[p * step:][:C], x.dtype.type(end - p)
        total, square = moments[part, 0], moments[part, 1]
        for q in range(p + 1, end):
            row = x[q * step:][:C]
            for c in range(C):
                difference = row[c] - start[c]
                total[c] += difference
                square[c] += difference * difference
        for c in range(C):
            square[c] -= total[c] * total[c] / count
            total[c] = start[c] + total[c] / count


@kernel
def normalise(first, last, x, x_step, mean, scale, beta, floor, y, y_step):
    """y[p, c] = max((x[p, c] - mean[c]) * scale[c] + beta[c], floor)"""
    C = len(mean)
    for p in range(first, last):
        row, own = x[p * x_step:][:C], y[p * y_step:][:C]
        for c in range(C):
            value = (row[c] - mean[c]) * scale[c] + beta[c]
            own[c] = floor if value < floor else value


@kernel
def sum_gradients(first, last, pixels, dy, dy_step, x, x_step, mean, scale, beta, floor, sums):
    """sums[part, 0, c] = sum over the part's pixels p of dz[p, c];  [part, 1, c] = sum of dz[p, c] * (x[p, c] - mean)

    with dz[p, c] = dy[p, c] where `normalise` found a value above the floor, else 0."""
    parts, _, C = sums.shape
    zero = x.dtype.type(0)
    for part in range(first, last):
        dbeta, dscale = sums[part, 0], sums[part, 1]
        for p in range(part * pixels // parts, (part + 1) * pixels // parts):
            row, above = x[p * x_step:][:C], dy[p * dy_step:][:C]
            for c in range(C):
                difference, value = row[c] - mean[c], above[c]  # read whether needed or not: so the loop has vectors
                dz = value if difference * scale[c] + beta[c] > floor else zero
                dbeta[c] += dz
                dscale[c] += dz * difference


@kernel
def data_gradient(first, last, dy, dy_step, x, x_step, mean, scale, beta, floor, shift, slope, dx):
    """dx[p, c] = scale[c] * dz[p, c] - shift[c] - slope[c] * (x[p, c] - mean[c]), dz as in `sum_gradients`"""
    C = len(mean)
    zero = x.dtype.type(0)
    for p in range(first, last):
        row, above, own = x[p * x_step:][:C], dy[p * dy_step:][:C], dx[p * C:][:C]
        for c in range(C):
            difference, value = row[c] - mean[c], above[c]
            dz = value if difference * scale[c] + beta[c] > floor else zero
            own[c] = scale[c] * dz - shift[c] - slope[c] * difference
