"""The engine: an array that remembers which op made it, and the walk back through those ops.

For y = f(x) and a scalar loss L, an op turns dy = dL/dy into dx = dL/dx. `Tensor.backward` visits the ops in reverse
topological order, so that an output's gradient is complete (summed over all its uses) before it is passed on.
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

    def __init__(self, data: "np.ndarray | float", requires_grad: bool = False, op: Op | None = None, output: int = 0):
        self.data = np.asarray(data)
        self.requires_grad = requires_grad
        self.grad: np.ndarray | None = None
        self.op, self.output = op, output  # what made it, and which of its outputs it is

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
        dy = np.asarray(dy, self.dtype)
        if self.op is None:
            self.receive(dy)
            return
        gradients = {(self.op, self.output): Sum(dy)}  # of outputs of ops
        for op in reversed(topological_order(self.op)):
            if op.inputs is None:
                raise InputError(f"the graph behind {type(op).__name__} is gone: backward() frees it as it passes; "
                                 "compute the forward pass again")
            sums = [gradients.pop((op, number), None) for number in range(op.outputs)]
            dxs = op.backward(*(each and each.total for each in sums))
            for source, dx, wanted in zip(op.inputs, dxs, op.needs, strict=True):
                if not wanted:
                    continue
                assert dx is not None
                if source.op is None:
                    source.receive(dx)
                elif (source.op, source.output) in gradients:
                    gradients[source.op, source.output].add(dx)
                else:
                    gradients[source.op, source.output] = Sum(dx)
            op.release()

    def receive(self, gradient: np.ndarray) -> None:
        """Add a gradient to `grad` of this leaf, in place where there is one."""
        if self.grad is None:
            self.grad = np.array(gradient)
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


def topological_order(last: Op) -> list[Op]:
    """Return the ops that want a gradient and `last` was computed by, each after the ones that made its inputs."""
    order: list[Op] = []
    seen: set[Op] = set()
    stack = [(last, False)]
    while stack:
        op, done = stack.pop()
        if done:
            order.append(op)
        elif op not in seen:
            seen.add(op)
            stack.append((op, True))
            stack.extend((t.op, False) for t, wanted in zip(op.inputs or (), op.needs, strict=False)
                         if wanted and t.op is not None)
    return order
