"""Sums, products and shapes: what a loss is put together with.

    add       y = a + b       da = dy        db = dy
    multiply  y = a * b       da = dy * b    db = dy * a
    sum_all   y = sum of x    dx = dy everywhere
    reshape   y = x           dx = dy in the shape of x

Tensors of one shape, or a tensor and a number. With numbers, and for sums, NumPy computes: a network uses them for its
three losses only.
"""
import numpy as np

from minigrad.errors import InputError
from minigrad.kernels.elementwise import added
from minigrad.kernels.parallel import kernel
from minigrad.kernels.plan import empty
from minigrad.op import Op
from minigrad.tensor import Tensor


class Add(Op):
    def forward(self, a, b):
        return added(a, b)

    def backward(self, dy):
        return dy, dy


class Multiply(Op):
    def forward(self, a, b):
        self.a, self.b = a, b
        return product(a, b)

    def backward(self, dy):
        return product(dy, self.b), product(dy, self.a)


class Shift(Op):
    def __init__(self, number: float):
        self.number = number

    def forward(self, x):
        return x + x.dtype.type(self.number)

    def backward(self, dy):
        return (dy,)


class Scale(Op):
    def __init__(self, number: float):
        self.number = number

    def forward(self, x):
        return x * x.dtype.type(self.number)

    def backward(self, dy):
        return (dy * dy.dtype.type(self.number),)


class Reshape(Op):
    def __init__(self, shape: tuple[int, ...]):
        self.target = shape

    def forward(self, x):
        self.source = x.shape
        return x.reshape(self.target)

    def backward(self, dy):
        return (dy.reshape(self.source),)


class SumAll(Op):
    def forward(self, x):
        self.shape = x.shape
        return x.sum()

    def backward(self, dy):
        return (np.full(self.shape, dy),)


def add(a: "Tensor | float", b: "Tensor | float") -> Tensor:
    """Return a + b: tensors of one shape, or a tensor and a number. Raises InputError where shapes or dtypes differ."""
    return _binary(Add, Shift, a, b)


def multiply(a: "Tensor | float", b: "Tensor | float") -> Tensor:
    """Return a * b, elementwise: tensors of one shape, or a tensor and a number. Raises InputError as `add` does."""
    return _binary(Multiply, Scale, a, b)


def reshape(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return x with its values in reading order as another shape. Raises InputError where the sizes differ."""
    try:
        return Reshape(shape)(x)
    except ValueError as error:
        raise InputError(f"{x.shape} holds {x.data.size} values, which do not fit into the shape {shape}") from error


def sum_all(x: Tensor) -> Tensor:
    """Return the sum of all values, a scalar."""
    return SumAll()(x)


def _binary(op: type[Op], with_number: type, a: "Tensor | float", b: "Tensor | float") -> Tensor:
    if not isinstance(a, Tensor):
        a, b = b, a
    assert isinstance(a, Tensor)
    if not isinstance(b, Tensor):
        return with_number(float(b))(a)
    if a.shape != b.shape or a.dtype != b.dtype:
        raise InputError(f"expected two tensors of one shape and dtype, "
                         f"got {a.shape} {a.dtype} and {b.shape} {b.dtype}")
    return op()(a, b)


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a * b, elementwise, two arrays of one shape and dtype."""
    y = empty(a.shape, a.dtype)
    multiply_values(y.size, np.ascontiguousarray(a).reshape(-1), np.ascontiguousarray(b).reshape(-1), y.reshape(-1))
    return y


@kernel
def multiply_values(first, last, a, b, y):
    """y[i] = a[i] * b[i]"""
    a, b, y = a[first:last], b[first:last], y[first:last]
    for i in range(y.size):
        y[i] = a[i] * b[i]
