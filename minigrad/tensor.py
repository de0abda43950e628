"""The engine: an array that remembers which op made it, and the walk back through those ops.

For y = f(x) and a scalar loss L, an op turns dy = dL/dy into dx = dL/dx. `Tensor.backward` visits the ops in reverse
topological order, so that a tensor's gradient is complete (summed over all its uses) before it is passed on.
The engine knows no op.
"""
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from minigrad.errors import InputError
from minigrad.kernels.elementwise import add_into, added
from minigrad.op import Op

_mode = threading.local()


def grad_enabled() -> bool:
    """Return whether calls are recorded in this thread."""
    return getattr(_mode, "enabled", True)


@contextmanager
def no_grad() -> Iterator[None]:
    """Record nothing inside: no graph, and ops keep nothing for a backward pass."""
    before = grad_enabled()
    _mode.enabled = False
    try:
        yield
    finally:
        _mode.enabled = before


class Tensor:
    """An array with a gradient: `data` (ndarray), `grad` (ndarray of the same shape, or None), `requires_grad`."""

    __array_priority__ = 1  # ndarray * Tensor asks the Tensor
    stale = False  # whether `grad` is left over from before, and the next gradient replaces it

    def __init__(self, data: "np.ndarray | float", requires_grad: bool = False, op: Op | None = None):
        self.data = np.asarray(data)
        self.requires_grad = requires_grad
        self.grad: np.ndarray | None = None
        self.op = op

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of `data`."""
        return self.data.shape

    @property
    def dtype(self) -> np.dtype:
        """The dtype of `data`."""
        return self.data.dtype

    def item(self) -> float:
        """Return the value of a tensor of one element."""
        return self.data.item()

    def __repr__(self) -> str:
        made = f", made by {type(self.op).__name__}" if self.op else ""
        return f"Tensor({self.shape}, {self.dtype}{made})"

    def __add__(self, other: "Tensor | float") -> "Tensor":
        from minigrad.ops.arithmetic import add

        return add(self, other)

    __radd__ = __add__

    def __mul__(self, other: "Tensor | float") -> "Tensor":
        from minigrad.ops.arithmetic import multiply

        return multiply(self, other)

    __rmul__ = __mul__

    def __neg__(self) -> "Tensor":
        return self * -1.0

    def __sub__(self, other: "Tensor | float") -> "Tensor":
        return self + -1.0 * other

    def __rsub__(self, other: float) -> "Tensor":
        return self * -1.0 + other

    def backward(self, dy: np.ndarray | None = None) -> None:
        """Add dL/dt to `grad` of every leaf t this tensor was computed from; `dy` is dL/dself (1 for a scalar).

        The graph is freed on the way. Raises InputError where `dy` is missing or has another shape, where nothing was
        recorded, or where the graph is gone already.
        """
        if not self.requires_grad:
            raise InputError("backward() of a tensor that was not recorded: it was computed under no_grad(), "
                             "or from tensors without requires_grad")
        if dy is None:
            if self.data.size != 1:
                raise InputError(f"backward() of a tensor of shape {self.shape} needs dy, an array of that shape")
            dy = np.ones_like(self.data)
        elif dy.shape != self.shape:
            raise InputError(f"dy has shape {dy.shape}, the tensor {self.shape}; they must be the same")
        gradients = {self: Sum(np.asarray(dy, self.dtype))}
        for tensor in reversed(topological_order(self)):
            gradient = gradients.pop(tensor).total
            op = tensor.op
            if op is None:
                tensor.receive(gradient)
                continue
            if op.inputs is None:
                raise InputError(f"the graph behind {type(op).__name__} is gone: backward() frees it as it passes; "
                                 "compute the forward pass again")
            for source, dx, wanted in zip(op.inputs, op.backward(gradient), op.needs, strict=True):
                if not wanted:
                    continue
                assert dx is not None
                if source in gradients:
                    gradients[source].add(dx)
                else:
                    gradients[source] = Sum(dx)
            op.release()

    def receive(self, gradient: np.ndarray) -> None:
        """Add a gradient to `grad` of this leaf, in place where there is one."""
        if self.grad is None:
            self.grad = gradient.copy()
        elif self.stale:
            np.copyto(self.grad, gradient)
        else:
            add_into(self.grad, gradient)
        self.stale = False


class Sum:
    """A gradient summed over the uses of a tensor; the first array may belong to another op and is not written to."""

    def __init__(self, first: np.ndarray):
        self.total = np.asarray(first)  # a sum of scalars is a NumPy scalar, which can't be added to in place
        self.own = False

    def add(self, other: np.ndarray) -> None:
        """Add the gradient of one more use."""
        self.total = add_into(self.total, other) if self.own else added(self.total, other)
        self.own = True


def topological_order(root: Tensor) -> list[Tensor]:
    """Return the tensors `root` was computed from that want a gradient, each after the ones it was made of."""
    order: list[Tensor] = []
    seen: set[Tensor] = set()
    stack = [(root, False)]
    while stack:
        tensor, done = stack.pop()
        if done:
            order.append(tensor)
        elif tensor not in seen:
            seen.add(tensor)
            stack.append((tensor, True))
            if tensor.op is not None and tensor.op.inputs is not None:
                stack.extend((t, False) for t, wanted in zip(tensor.op.inputs, tensor.op.needs, strict=True) if wanted)
    return order
