"""Several 1x1 convolutions of one input, each with bias and ReLU (paper, Figure 2b: the 1x1, and the two reductions).

With x (N, H, W, C), and weights w_k (1, 1, C, O_k) and biases b_k (O_k,) for k = 1, 2, ...:

    y_k[p, o]  = max(0, b_k[o] + sum over c of x[p, c] * w_k[c, o])      p: a pixel (n, h, w)
    dz_k[p, o] = dy_k[p, o] where y_k[p, o] > 0, else 0
    dx[p, c]   = sum over k and o of dz_k[p, o] * w_k[c, o]
    dw_k[c, o] = sum over p of x[p, c] * dz_k[p, o]

On the way back they are one wide convolution: the dz_k lie side by side in one array, so that dx is one product instead
of a sum of several, and x is read once for all dw_k. That is why these convolutions share an op.
"""
import numpy as np

from minigrad.errors import InputError
from minigrad.kernels.matmul import matmul, matmul_by_transposed, matmul_transposed
from minigrad.op import Op
from minigrad.ops.relu import masked_gradient
from minigrad.tensor import Tensor


class Pointwise(Op):
    def __init__(self, outs: "tuple[np.ndarray | None, ...]"):
        self.outs = outs

    def forward(self, x, *weights_and_biases):
        self.x = x
        self.ws = [w[0, 0] for w in weights_and_biases[::2]]  # (C, O_k)
        self.ys = [matmul(x, w, b, relu=True, out=out)
                   for w, b, out in zip(self.ws, weights_and_biases[1::2], self.outs, strict=True)]
        return tuple(self.ys)

    def backward(self, *dys):
        ends = np.cumsum([w.shape[1] for w in self.ws])
        dz = np.empty((*self.x.shape[:-1], ends[-1]), self.x.dtype)  # (N, H, W, O_1 + O_2 + ...)
        dbs = [self.masked(dy, y, part) for dy, y, part in zip(dys, self.ys, split(dz, ends), strict=True)]
        dx = matmul_by_transposed(dz, np.concatenate(self.ws, axis=1)) if self.needs[0] else None
        dw = matmul_transposed(self.x, dz)  # (C, O_1 + O_2 + ...)
        return dx, *(each for w, db in zip(split(dw, ends), dbs, strict=True) for each in (w[None, None], db))

    @staticmethod
    def masked(dy: np.ndarray | None, y: np.ndarray, dz: np.ndarray) -> np.ndarray:
        """Write dz; returns db. An output that nothing was computed from has no dy."""
        if dy is None:
            dz[...] = 0
            return np.zeros(dz.shape[-1], dz.dtype)
        return masked_gradient(dy, y, out=dz)[1]


def split(array: np.ndarray, ends: np.ndarray) -> list[np.ndarray]:
    """Return the slices of the last axis that end at `ends`."""
    return np.split(array, ends[:-1], axis=-1)


def pointwise(x: Tensor, branches: "list[tuple[Tensor, Tensor]]",
              outs: "list[np.ndarray | None] | None" = None) -> tuple[Tensor, ...]:
    """Return max(0, x convolved with each weight (1, 1, C, O_k) + bias (O_k,)): (N, H, W, O_k) for each branch k.

    `outs` may hold an array (N, H, W, O_k) for a branch, such as a channel slice of a wider buffer, which receives its
    result. Raises InputError where shapes or dtypes do not fit together.
    """
    outs = [None] * len(branches) if outs is None else outs
    for (weight, bias), out in zip(branches, outs, strict=True):
        if len(x.shape) != 4 or weight.shape[:3] != (1, 1, x.shape[3]) or bias.shape != weight.shape[3:]:
            raise InputError(f"expected x (N, H, W, C), weight (1, 1, C, O) and bias (O,), "
                             f"got {x.shape}, {weight.shape} and {bias.shape}")
        if not x.dtype == weight.dtype == bias.dtype:
            raise InputError(f"expected one dtype, got x {x.dtype}, weight {weight.dtype}, bias {bias.dtype}")
        shape = (*x.shape[:3], *bias.shape)
        if out is not None and (out.shape != shape or out.dtype != x.dtype):
            raise InputError(f"expected out {shape} of {x.dtype}, got {out.shape} of {out.dtype}")
    return Pointwise(tuple(outs))(x, *(tensor for branch in branches for tensor in branch))
