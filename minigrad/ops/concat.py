"""Concatenation along the channels (paper, Figure 2: the end of an Inception module).

    y[..., :C1] = x1,  y[..., C1:C1+C2] = x2, ...;  each gradient is the slice of dy that its input filled.

Where the inputs already lie side by side in one buffer, because convolutions wrote into slices of it, nothing is
copied.
"""
import numpy as np

from minigrad.errors import InputError
from minigrad.kernels.elementwise import as_rows, copy_rows
from minigrad.kernels.plan import empty
from minigrad.op import Op
from minigrad.tensor import Tensor


class Concat(Op):
    def forward(self, *xs):
        self.ends = np.cumsum([x.shape[-1] for x in xs])[:-1]
        buffer = shared_buffer(xs)
        if buffer is not None:
            return buffer
        y = empty((*xs[0].shape[:-1], sum(x.shape[-1] for x in xs)), xs[0].dtype)
        for x, part in zip(xs, np.split(y, self.ends, axis=-1), strict=True):
            copy_rows(x.size // x.shape[-1], *as_rows(x), x.shape[-1], *as_rows(part))
        return y

    def backward(self, dy):
        return tuple(np.split(dy, self.ends, axis=-1))


def concat(tensors: "list[Tensor] | tuple[Tensor, ...]") -> Tensor:
    """Join tensors (..., C1), (..., C2), ... to (..., C1 + C2 + ...).

    Raises InputError unless all but the last axis agree.
    """
    if not tensors or any(t.shape[:-1] != tensors[0].shape[:-1] or t.dtype != tensors[0].dtype for t in tensors):
        raise InputError("expected tensors of one dtype that differ in the last axis only, got "
                         + ", ".join(f"{t.shape} {t.dtype}" for t in tensors))
    return Concat()(*tensors)


def shared_buffer(xs: tuple[np.ndarray, ...]) -> np.ndarray | None:
    """Return the array that xs are all the channel slices of, in order, or None."""
    buffer = xs[0].base
    if not isinstance(buffer, np.ndarray) or buffer.shape != (*xs[0].shape[:-1], sum(x.shape[-1] for x in xs)):
        return None
    address = buffer.ctypes.data
    for x in xs:
        if x.base is not buffer or x.ctypes.data != address or x.strides != buffer.strides:
            return None
        address += x.shape[-1] * x.itemsize
    return buffer
