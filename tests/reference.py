"""Literal slow versions of every op: the definitions that the tests hold minigrad to.

Loops in index notation over NHWC arrays, sharing no code with minigrad. Every dtype goes through them, complex ones
too, so that a derivative can be taken by the complex step, Im f(x + ih) / h, which subtracts nothing and so has no step
to tune. Where an op asks for an order (relu, softmax's shift), the real part decides.

Letters: N H W C inputs, O output channels, KH KW kernel, SH SW stride; i j output pixel, p q kernel cell.
"""

import math
from itertools import product

import numpy as np


def pair(value):
    """A number for both axes, or one for each."""
    return tuple(value) if isinstance(value, tuple) else (value, value)


def margins(padding, size, kernel, stride):
    """((top, bottom), (left, right)) of a padding given as a number, (h, w), the four numbers themselves, or "same"."""
    if padding == "same":  # TensorFlow's: OH = ceil(H / SH); an odd row goes to the end
        totals = [max((-(-s // d) - 1) * d + k - s, 0) for s, k, d in zip(size, kernel, stride, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple(side if isinstance(side, tuple) else (side, side) for side in pair(padding))


def spans(size, kernel, stride, margin, ceil=False):
    """[start, stop) of each window along one axis of the padded image.

    Caffe's rounding up (`ceil`) adds a last window that sticks out, unless it would start in the end padding or past
    it; it is clipped to the padded image.
    """
    before, after = margin
    extent = before + size + after
    last = (extent - kernel) / stride
    count = (math.ceil(last) if ceil else math.floor(last)) + 1
    if ceil and (count - 1) * stride >= before + size:
        count -= 1
    return [(stride * i, min(stride * i + kernel, extent)) for i in range(count)]


def padded_windows(x, kernel, stride, padding, ceil=False, value=0.0):
    """x padded with `value`, and the rows' and the columns' spans of its windows."""
    kernel, stride = pair(kernel), pair(stride)
    sides = margins(padding, x.shape[1:3], kernel, stride)
    rows, columns = (spans(x.shape[1 + a], kernel[a], stride[a], sides[a], ceil) for a in (0, 1))
    return np.pad(x, ((0, 0), *sides, (0, 0)), constant_values=value), rows, columns


def conv2d(x, weight, bias=None, *, stride=1, padding=0):
    """y[n, i, j, o] = b[o] + sum over p, q, c of x[n, SH i + p - top, SW j + q - left, c] w[p, q, c, o]."""
    x, rows, columns = padded_windows(x, weight.shape[:2], stride, padding)
    y = np.zeros((len(x), len(rows), len(columns), weight.shape[3]), np.result_type(x, weight))
    for n, i, j, o in np.ndindex(y.shape):
        y[n, i, j, o] = (x[n, slice(*rows[i]), slice(*columns[j])] * weight[:, :, :, o]).sum()
    return y if bias is None else y + bias


def depthwise_conv2d(x, weight, *, stride=1, padding=0):
    """y[n, i, j, M c + m] = sum over p, q of x[n, SH i + p - top, SW j + q - left, c] w[p, q, c, m]."""
    C, M = weight.shape[2:]
    x, rows, columns = padded_windows(x, weight.shape[:2], stride, padding)
    y = np.zeros((len(x), len(rows), len(columns), C * M), np.result_type(x, weight))
    for n, i, j, c, m in product(*map(range, (*y.shape[:3], C, M))):
        y[n, i, j, M * c + m] = (x[n, slice(*rows[i]), slice(*columns[j]), c] * weight[:, :, c, m]).sum()
    return y


def max_pool2d(x, kernel, *, stride=None, padding=0, ceil=False):
    """y[n, i, j, c] = the largest x[n, p, q, c] in window (i, j); padding never wins."""
    x, rows, columns = padded_windows(x, kernel, stride or kernel, padding, ceil, value=-np.inf)
    y = np.zeros((len(x), len(rows), len(columns), x.shape[3]), x.dtype)
    for n, i, j, c in np.ndindex(y.shape):
        y[n, i, j, c] = x[n, slice(*rows[i]), slice(*columns[j]), c].max()
    return y


def avg_pool2d(x, kernel, *, stride=None, padding=0, ceil=False):
    """y[n, i, j, c] = the mean of x[n, p, q, c] over window (i, j) of the padded image, its zeros included (Caffe)."""
    x, rows, columns = padded_windows(x, kernel, stride or kernel, padding, ceil)
    y = np.zeros((len(x), len(rows), len(columns), x.shape[3]), x.dtype)
    for n, i, j, c in np.ndindex(y.shape):
        y[n, i, j, c] = x[n, slice(*rows[i]), slice(*columns[j]), c].mean()
    return y


def adaptive_avg_pool2d(x, size):
    """y[n, i, j, c] = the mean of x[n, p, q, c] with i H / size - 1 < p < (i + 1) H / size, and q alike (PyTorch)."""
    N, H, W, C = x.shape
    y = np.zeros((N, size, size, C), x.dtype)
    for n, i, j, c in np.ndindex(y.shape):
        rows = [p for p in range(H) if i * H - size < p * size < (i + 1) * H]
        columns = [q for q in range(W) if j * W - size < q * size < (j + 1) * W]
        y[n, i, j, c] = sum(x[n, p, q, c] for p in rows for q in columns) / (len(rows) * len(columns))
    return y


def batch_norm(x, gamma, beta, *, eps, mean=None, variance=None):
    """y[..., c] = gamma[c] (x[..., c] - mean[c]) / sqrt(variance[c] + eps) + beta[c], by x's statistics unless given.

    The variance is divided by the number of values.
    """
    y = np.zeros(x.shape, np.result_type(x, gamma, beta))
    for c in range(x.shape[-1]):
        values = x[..., c]
        centre = values.sum() / values.size if mean is None else mean[c]
        spread = ((values - centre) * (values - centre)).sum() / values.size if variance is None else variance[c]
        y[..., c] = gamma[c] * (values - centre) / (spread + eps) ** 0.5 + beta[c]
    return y


def lrn(x, *, size=5, alpha=1e-4, beta=0.75, k=1.0):
    """y[..., c] = x[..., c] (k + alpha / size sum of x[..., d]^2 over |d - c| <= size // 2)^-beta, as Caffe."""
    y = np.zeros_like(x)
    for c in range(x.shape[-1]):
        neighbours = x[..., max(c - size // 2, 0) : c + size // 2 + 1]
        y[..., c] = x[..., c] * (k + alpha / size * (neighbours * neighbours).sum(-1)) ** -beta
    return y


def relu(x):
    """y = x where x > 0, else 0."""
    return np.where(x.real > 0, x, 0)


def linear(x, weight, bias=None):
    """y[n, o] = b[o] + sum over c of x[n, c] w[c, o]."""
    y = np.zeros((len(x), weight.shape[1]), np.result_type(x, weight))
    for n, o in np.ndindex(y.shape):
        y[n, o] = (x[n] * weight[:, o]).sum()
    return y if bias is None else y + bias


def softmax(x):
    """y[n, c] = exp x[n, c] / sum over d of exp x[n, d]."""
    e = np.exp(x - x.real.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def log_softmax(x):
    """y[n, c] = x[n, c] - log sum over d of exp x[n, d]."""
    x = x - x.real.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def cross_entropy(logits, labels):
    """The mean over n of -log softmax(logits)[n, labels[n]]."""
    y = log_softmax(logits)
    return -sum(y[n, label] for n, label in enumerate(labels)) / len(labels)


def dropout(x, keep, rate):
    """y = x / (1 - rate) where the mask `keep` says so, else 0."""
    return np.where(keep, x / (1 - rate), 0)


def philox(counter, key):
    """Philox4x32-10 (Salmon et al. 2011, section 5.1 and figure 3): four random words of a counter and a key."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c0, 2**32)
        high1, low1 = divmod(0xCD9E8D57 * c2, 2**32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


def concat(arrays):
    """The arrays side by side along the last axis."""
    y = np.zeros((*arrays[0].shape[:-1], sum(a.shape[-1] for a in arrays)), np.result_type(*arrays))
    start = 0
    for a in arrays:
        y[..., start : start + a.shape[-1]] = a
        start += a.shape[-1]
    return y
