"""Softmax cross-entropy: the loss of all three classifiers (paper, section 5).

With p = softmax(x) and t[n] the label of example n:

    L        = -1/N sum over n of log p[n, t[n]]
    dx[n, c] = dL/N * (p[n, c] - [c = t[n]])
"""
import numpy as np

from minigrad.errors import InputError
from minigrad.kernels.parallel import kernel
from minigrad.op import Op
from minigrad.ops.softmax import log_softmax_forward
from minigrad.tensor import Tensor


class CrossEntropy(Op):
    def __init__(self, labels: np.ndarray):
        self.labels = labels

    def forward(self, x):
        x = np.ascontiguousarray(x)
        self.l = np.empty_like(x)  # log p
        log_softmax_forward(len(x), x, self.l)
        return -self.l[np.arange(len(x)), self.labels].mean(dtype=x.dtype)

    def backward(self, dL):
        dx = np.empty_like(self.l)
        cross_entropy_backward(len(dx), self.l, self.labels, dx.dtype.type(dL / len(dx)), dx)
        return (dx,)


def cross_entropy(logits: Tensor, labels: np.ndarray) -> Tensor:
    """Return the mean over the batch of -log softmax(logits)[label]; logits (N, C), labels (N,) integers; a scalar.

    Raises InputError where the shapes differ or a label lies outside 0..C-1.
    """
    labels = np.asarray(labels)
    fits = len(logits.shape) == 2 and labels.shape == logits.shape[:1] and logits.shape[0] > 0
    if not fits or labels.dtype.kind not in "iu":
        raise InputError(f"expected logits (N, C) and integer labels (N,), N at least 1, "
                         f"got {logits.shape} and {labels.shape} of {labels.dtype}")
    low, high, C = labels.min(), labels.max(), logits.shape[1]
    if low < 0 or high >= C:
        raise InputError(f"labels run from {low} to {high}, but the {C} classes are 0 to {C - 1}; "
                         "check the data set against the network's number of classes")
    return CrossEntropy(labels.astype(np.int64))(logits)


@kernel
def cross_entropy_backward(first, last, l, labels, share, dx):
    """dx[n, c] = share * (exp(l[n, c]) - [c = labels[n]])"""
    for n in range(first, last):
        for c in range(l.shape[1]):
            dx[n, c] = share * np.exp(l[n, c])
        dx[n, labels[n]] -= share
