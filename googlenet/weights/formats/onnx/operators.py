"""The operators that shape arrays and calculate with numbers, run on NumPy: for a graph's constants, and for the
arithmetic that a graph does on its input before the first layer.

They come from a file, so what they may allocate is limited, and whatever NumPy objects to is the file's fault.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from googlenet.weights.formats.elements import BFLOAT16
from googlenet.weights.formats.onnx.messages import DTYPES, Node
from googlenet.weights.formats.wording import shown
from minigrad.errors import InputError

MOST_BYTES = 2**28  # that all operators of a graph may allocate; GoogLeNet's weights with both heads are 54 MB
MOST_VALUES = 2**25  # of an array that is one value repeated, and so takes no memory here

Arrays = Sequence[Any]  # NumPy arrays, None for an input that is left out


class Interpreter:
    """Runs nodes by themselves; it knows the operators' version, and counts what they allocate."""

    def __init__(self, opset: int):
        self.opset = opset
        self.bytes = 0

    def run(self, node: Node, inputs: Arrays) -> list[np.ndarray]:
        """Return a node's outputs. Raises InputError where it can't be run or takes too much."""
        self.spend(node, _size(node, inputs))
        try:
            with np.errstate(all="ignore"):
                found = OPERATORS[node.op](node, inputs, self.opset)
        except (ValueError, IndexError, TypeError, KeyError, OverflowError, ZeroDivisionError, MemoryError,
                AttributeError) as error:
            raise InputError(f"{node} can't be computed ({shown(str(error))}): export the model again") from error
        return found if isinstance(found, list) else [found]

    def spend(self, node: Node, size: int) -> None:
        """Count bytes that are to be allocated; raises InputError where they become too many."""
        self.bytes += size
        if self.bytes > MOST_BYTES:
            raise InputError(f"{node}: the graph computes more than {MOST_BYTES} bytes of constants: "
                             "export it with its constants folded")


def _size(node: Node, inputs: Arrays) -> int:
    """Return how many bytes the outputs may take, before anything is made."""
    given = [x for x in inputs if x is not None]
    if node.op in VIEWS:
        return 0
    if node.op == "Gather" and len(given) == 2:
        axis = node.attributes.get("axis", 0)
        taken = given[0].shape[axis] if isinstance(axis, int) and -given[0].ndim <= axis < given[0].ndim else 1
        return given[0].nbytes // max(taken, 1) * given[1].size
    if node.op in ARITHMETIC:
        try:
            return 8 * math.prod(np.broadcast_shapes(*(x.shape for x in given)))
        except ValueError:
            return 0  # the operator will say so
    return sum(8 * x.size if node.op == "Cast" else x.nbytes for x in given)


def _cast(node: Node, inputs: Arrays, opset: int) -> np.ndarray:
    dtype = DTYPES[node.attributes["to"]]
    if dtype == BFLOAT16:
        raise ValueError("NumPy has no bfloat16")
    return inputs[0].astype(dtype)


def _reshape(node: Node, inputs: Arrays, opset: int) -> np.ndarray:
    target = node.attributes["shape"] if "shape" in node.attributes else inputs[1].tolist()
    if not node.attributes.get("allowzero"):
        target = [n or inputs[0].shape[axis] for axis, n in enumerate(target)]
    return inputs[0].reshape(target)


def _flatten(node: Node, inputs: Arrays, opset: int) -> np.ndarray:
    axis = node.attributes.get("axis", 1)
    return inputs[0].reshape(math.prod(inputs[0].shape[:axis]), -1)


def _transpose(node: Node, inputs: Arrays, opset: int) -> np.ndarray:
    return inputs[0].transpose(node.attributes.get("perm"))


def _squeeze(node: Node, inputs: Arrays, opset: int) -> np.ndarray:
    axes = _list(node, inputs, "axes", 1)
    return np.squeeze(inputs[0], None if axes is None else tuple(axes))


def _unsqueeze(node: Node, inputs: Arrays, opset: int) -> np.ndarray:
    return np.expand_dims(inputs[0], tuple(_list(node, inputs, "axes", 1) or ()))


def _gather(node: Node, inputs: Arrays, opset: int) -> np.ndarray:
    return np.take(inputs[0], inputs[1], axis=node.attributes.get("axis", 0))


def _slice(node: Node, inputs: Arrays, opset: int) -> np.ndarray:
    starts, ends = _list(node, inputs, "starts", 1) or [], _list(node, inputs, "ends", 2) or []
    axes = _list(node, inputs, "axes", 3) or range(len(starts))
    steps = _list(node, inputs, "steps", 4) or [1] * len(starts)
    cut = [slice(None)] * inputs[0].ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        cut[axis] = slice(start, end, step)
    return inputs[0][tuple(cut)]


def _split(node: Node, inputs: Arrays, opset: int) -> list[np.ndarray]:
    axis, sizes = node.attributes.get("axis", 0), _list(node, inputs, "split", 1)
    if sizes is None:
        sizes = [-(-inputs[0].shape[axis] // len(node.outputs))] * len(node.outputs)
    return np.split(inputs[0], np.cumsum(sizes)[:-1], axis)


def _concat(node: Node, inputs: Arrays, opset: int) -> np.ndarray:
    return np.concatenate(inputs, node.attributes.get("axis", 1))


def _shape(node: Node, inputs: Arrays, opset: int) -> np.ndarray:
    return np.array(inputs[0].shape[node.attributes.get("start", 0):node.attributes.get("end")], np.int64)


def _constant_of_shape(node: Node, inputs: Arrays, opset: int) -> np.ndarray:
    shape, value = inputs[0].tolist(), node.attributes.get("value", np.zeros(1, np.float32))
    if math.prod(shape) > MOST_VALUES:
        raise ValueError(f"shape {shape}")
    return np.broadcast_to(value.reshape(()), shape)


def _arithmetic(operator: Callable[[Any, Any], np.ndarray]) -> Callable[[Node, Arrays, int], np.ndarray]:
    def run(node: Node, inputs: Arrays, opset: int) -> np.ndarray:
        a, b = inputs
        if opset < 7 and "axis" in node.attributes:  # b's axes begin there
            b = b.reshape(b.shape + (1,) * (a.ndim - b.ndim - node.attributes["axis"]))
        return operator(a, b)
    return run


def _divided(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind == "f":
        return a / b
    quotient = a // b
    return quotient + ((quotient < 0) & (quotient * b != a))  # ONNX rounds integers towards zero, NumPy down


ARITHMETIC: dict[str, Callable[[Any, Any], np.ndarray]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": _divided}
SHAPING = {"Reshape": _reshape, "Flatten": _flatten, "Transpose": _transpose, "Squeeze": _squeeze,
           "Unsqueeze": _unsqueeze}  # values stay as they are
OPERATORS: dict[str, Callable[[Node, Arrays, int], Any]] = {
    **SHAPING, **{op: _arithmetic(operator) for op, operator in ARITHMETIC.items()},
    "Identity": lambda node, inputs, opset: inputs[0], "Cast": _cast, "Gather": _gather, "Slice": _slice,
    "Split": _split, "Concat": _concat, "Shape": _shape, "ConstantOfShape": _constant_of_shape,
}
VIEWS = {"Identity", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "Shape", "ConstantOfShape"}


def _list(node: Node, inputs: Arrays, name: str, place: int) -> list[int] | None:
    """Return whole numbers that are an attribute in old versions of an operator and an input in new ones."""
    if name in node.attributes:
        return node.attributes[name]
    return inputs[place].ravel().tolist() if len(inputs) > place and inputs[place] is not None else None
