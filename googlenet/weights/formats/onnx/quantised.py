"""Quantised graphs, said plainly: operators on 8-bit integers as the operators on numbers that they stand for.

A quantised value q means (q - zero_point) * scale. Two ways of writing it are known: QLinear operators, which take
integers and their scales (with com.microsoft's QLinearAdd and the like, as ONNX Runtime writes), and plain operators
between QuantizeLinear and DequantizeLinear (QDQ). Weights become numbers; the rounding of activations is left out.

Quantisers leave out a ReLU where rounding does its work: where the zero point is the type's least value, all below zero
becomes zero. "Saturate" stands for that rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from googlenet.weights.formats.onnx.messages import Node
from googlenet.weights.formats.wording import DAMAGED, quoted, shown
from minigrad.errors import InputError

SATURATE = "Saturate"


@dataclass(frozen=True)
class Constant:
    """An array of the graph under its own name; `half_step` is how far rounding may have put a value of it off."""

    name: str
    array: np.ndarray
    half_step: float = 0.0


Values = MutableMapping[str, Any]  # by name: a Constant, or what a node computes


def is_quantised(node: Node) -> bool:
    """Return whether a node computes with integers that stand for numbers."""
    return node.op in OPERATORS


def plain(node: Node, values: Values, spend: Callable[[Node, int], None]) -> Iterator[Node]:
    """Yield the nodes that say the same of numbers; constants that they need are added to `values`.

    `spend` is told of the bytes they take. Raises InputError for scales and zero points that are not constants or don't
    fit."""
    if node.op not in OPERATORS:
        yield node
        return
    if node.told("channels_last", 0):
        raise InputError(f"{node} has its channels last: export the model with channels first")
    try:
        yield from OPERATORS[node.op](_Operands(node, values, spend))
    except IndexError:
        raise InputError(f"{node} has {len(node.inputs)} inputs, fewer than it needs: export the model again") from None


class _Operands:
    """A node's inputs: names, and constants where they are needed."""

    def __init__(self, node: Node, values: Values, spend: Callable[[Node, int], None]):
        self.node, self.values, self.spend = node, values, spend

    def constant(self, place: int) -> Constant:
        found = self.values.get(self.node.inputs[place])
        if not isinstance(found, Constant):
            raise InputError(f"{self.node}: its input {quoted(self.node.inputs[place])} is not a constant: "
                             "export the model with static quantisation")
        return found

    def number(self, place: int) -> np.ndarray:
        return self.constant(place).array

    def scale(self, place: int) -> np.ndarray:
        """Return the one scale of a value that the images go into."""
        found = self.number(place)
        if found.size != 1:
            raise InputError(f"{self.node} has {found.size} scales of its input, expected one: export the model again")
        return found.astype(np.float64).reshape(())

    def optional(self, place: int) -> np.ndarray | None:
        return self.number(place) if len(self.node.inputs) > place and self.node.inputs[place] else None

    def operand(self, place: int, axis: int = 0) -> str:
        """Return the name of the value at `place`, whose scale and zero point follow: of numbers, if it's constant."""
        name = self.node.inputs[place]
        if not isinstance(self.values.get(name), Constant):
            return name
        self.spend(self.node, 4 * self.constant(place).array.size)
        return self.keep(place, dequantised(self.node, self.constant(place), self.number(place + 1),
                                            self.optional(place + 2), axis))

    def bias(self, place: int, scale: np.ndarray) -> str:
        """Return the name of a bias, whose scale is the product of the others."""
        if len(self.node.inputs) <= place or not self.node.inputs[place]:
            return ""
        self.spend(self.node, 4 * self.constant(place).array.size)
        return self.keep(place, dequantised(self.node, self.constant(place), scale, None, 0))

    def keep(self, place: int, constant: Constant) -> str:
        name = f"{self.node.outputs[0]}, input {place}"
        self.values[name] = constant
        return name

    def renamed(self, op: str, inputs: tuple[str, ...], dropped: tuple[str, ...] = ()) -> Node:
        attributes = {name: value for name, value in self.node.attributes.items() if name not in dropped}
        return replace(self.node, op=op, inputs=inputs, attributes=attributes)

    def saturated(self, zero_point: np.ndarray | None) -> Iterator[Node]:
        """Yield what follows where rounding to the output's type makes negative values zero."""
        if zero_point is None or (zero_point.dtype.kind in "iu" and
                                  (zero_point == np.iinfo(zero_point.dtype).min).all()):
            yield Node(SATURATE, self.node.outputs[:1], self.node.outputs[:1], name=self.node.name)


def _convolution(operands: _Operands) -> Iterator[Node]:
    scale = operands.scale(1) * operands.number(4)
    inputs = (operands.node.inputs[0], operands.operand(3), operands.bias(8, scale))
    yield operands.renamed("Conv", inputs)
    yield from operands.saturated(operands.number(7))


def _gemm(operands: _Operands) -> Iterator[Node]:
    transposed = operands.node.told("transB", 0)
    scale = operands.scale(1) * operands.number(4) * operands.node.told("alpha", 1.0)
    weight = operands.operand(3, axis=0 if transposed else 1)
    yield operands.renamed("Gemm", (operands.node.inputs[0], weight, operands.bias(6, scale)))


def _matmul(operands: _Operands) -> Iterator[Node]:
    yield operands.renamed("MatMul", (operands.node.inputs[0], operands.operand(3, axis=1)))


def _binary(op: str) -> Callable[[_Operands], Iterator[Node]]:
    def said(operands: _Operands) -> Iterator[Node]:
        yield operands.renamed(op, (operands.operand(0), operands.operand(3)))
    return said


def _concat(operands: _Operands) -> Iterator[Node]:
    yield operands.renamed("Concat", operands.node.inputs[2::3])


def _unary(op: str) -> Callable[[_Operands], Iterator[Node]]:
    def said(operands: _Operands) -> Iterator[Node]:
        yield operands.renamed(op, operands.node.inputs[:1])
    return said


def _quantise(operands: _Operands) -> Iterator[Node]:
    zero_point = operands.optional(2)
    if isinstance(operands.values.get(operands.node.inputs[0]), Constant):
        given = operands.constant(0)
        operands.spend(operands.node, given.array.size)
        integers = quantised(operands.node, given, operands.number(1), zero_point,
                             operands.node.told("axis", 1))
        yield operands.renamed("Identity", (operands.keep(0, replace(given, array=integers)),))
        return
    yield operands.renamed("Identity", operands.node.inputs[:1])
    yield from operands.saturated(zero_point)


def _dequantise(operands: _Operands) -> Iterator[Node]:
    if operands.node.told("block_size", 0):
        raise InputError(f"{operands.node} quantises in blocks: export the model with a scale a tensor or a channel")
    yield operands.renamed("Identity", (operands.operand(0, axis=operands.node.told("axis", 1)),))


OPERATORS: Mapping[str, Callable[[_Operands], Iterator[Node]]] = {
    "QuantizeLinear": _quantise, "DequantizeLinear": _dequantise, "QLinearConv": _convolution, "QGemm": _gemm,
    "QLinearMatMul": _matmul, "QLinearAdd": _binary("Add"), "QLinearMul": _binary("Mul"), "QLinearConcat": _concat,
    "QLinearAveragePool": _unary("AveragePool"), "QLinearGlobalAveragePool": _unary("GlobalAveragePool"),
    "QLinearSoftmax": _unary("Softmax"),
}


def dequantised(node: Node, constant: Constant, scale: np.ndarray, zero_point: np.ndarray | None,
                axis: int) -> Constant:
    """Return float32 numbers for integers, whose scale is one number or one a channel along `axis`."""
    q = constant.array
    types = [q.dtype] if zero_point is None else [q.dtype, zero_point.dtype]
    if any(each.kind not in "iu" or each.itemsize > 4 for each in types):
        raise InputError(f"{node}: {shown(constant.name)} and its zero point are {' and '.join(map(str, types))}, "
                         "expected quantised integers: export the model again")
    scale = _along(node, constant, scale, axis).astype(np.float64)
    zero = 0 if zero_point is None else _along(node, constant, zero_point, axis).astype(np.int64)
    if not (np.isfinite(scale).all() and (scale >= 0).all()):
        raise InputError(f"{node}: {shown(constant.name)} has a scale that is no positive number: {DAMAGED}")
    numbers = np.subtract(q, zero, dtype=np.int64) * scale
    return Constant(constant.name, numbers.astype(np.float32), float(scale.max(initial=0.0)) / 2)


def quantised(node: Node, constant: Constant, scale: np.ndarray, zero_point: np.ndarray | None,
              axis: int) -> np.ndarray:
    """Return integers for numbers, rounded to the nearest and kept within the zero point's type, uint8 by default."""
    dtype = np.dtype(np.uint8) if zero_point is None else zero_point.dtype
    if dtype.kind not in "iu" or constant.array.dtype.kind != "f":
        raise InputError(f"{node} makes {dtype} of {constant.array.dtype}, expected integers of floats: export again")
    zero = 0 if zero_point is None else _along(node, constant, zero_point, axis).astype(np.int64)
    limits = np.iinfo(dtype)
    with np.errstate(all="ignore"):
        rounded = np.rint(constant.array / _along(node, constant, scale, axis)) + zero
        return np.clip(rounded, limits.min, limits.max).astype(dtype)


def _along(node: Node, constant: Constant, factor: np.ndarray, axis: int) -> np.ndarray:
    """Return a factor, one or one a channel, in a shape that meets the array."""
    if factor.size == 1:
        return factor.reshape(())
    rank = constant.array.ndim
    if not -rank <= axis < rank or factor.shape != (constant.array.shape[axis],):
        raise InputError(f"{node}: {shown(constant.name)} {constant.array.shape} has {factor.size} scales or "
                         f"zero points along axis {axis}: {DAMAGED}")
    return factor.reshape([-1 if each == axis % rank else 1 for each in range(rank)])
