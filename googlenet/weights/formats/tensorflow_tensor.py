"""TensorFlow's data types, shapes and TensorProto, which checkpoints and graphs share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from googlenet.weights.formats.protobuf import Field, Schema
from minigrad.errors import InputError

BFLOAT16, STRING = 14, 7
DTYPES: dict[int, np.dtype] = {number: np.dtype(code) for number, code in {
    1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", 10: "?", BFLOAT16: "<u2", 17: "<u2", 19: "<f2",
    22: "<u4", 23: "<u8",
}.items()}
WIDENED = "float32 from bfloat16: the same values"
MOST_AXES = 8
FILLED = 2**27  # bytes that a file's values may be repeated to: a few bytes can stand for any number of them

SHAPE: Schema = {2: Field("dim", "message", {1: Field("size", "int")}), 3: Field("unknown_rank", "int")}
TENSOR: Schema = {
    1: Field("dtype", "int"), 2: Field("shape", "message", SHAPE), 4: Field("content", "bytes"),
    5: Field("floats", "floats"), 6: Field("doubles", "doubles"), 7: Field("ints", "ints"), 10: Field("longs", "ints"),
    11: Field("bools", "ints"), 13: Field("halves", "ints"), 16: Field("unsigned", "ints"),
    17: Field("unsigned_longs", "ints"),
}
# Which field holds the values of a type; small integers stand among the ints, 16-bit floats as their bits.
VALUES = {1: "floats", 2: "doubles", 3: "ints", 4: "ints", 5: "ints", 6: "ints", 9: "longs", 10: "bools",
          BFLOAT16: "halves", 17: "ints", 19: "halves", 22: "unsigned", 23: "unsigned_longs"}


class Tensors:
    """Decodes the tensors of one file; `where` begins every message."""

    def __init__(self, where: str):
        self.where = where
        self.filled = 0

    def type_of(self, number: int, name: str) -> np.dtype:
        """Return a type as its bytes are in a file, bfloat16 as uint16; InputError for one that no array has."""
        if number not in DTYPES:
            self.fail(name, f"has TensorFlow's data type {number}", "expected floats, integers or truth values")
        return DTYPES[number]

    def shape_of(self, messages: Sequence[dict[str, Any]], name: str) -> tuple[int, ...]:
        """Return the shape of a field's messages, of which the last counts; none stands for a scalar."""
        message = messages[-1] if messages else {"dim": [], "unknown_rank": []}
        shape = tuple((dim["size"] or [0])[-1] for dim in message["dim"])
        if any(message["unknown_rank"]) or any(size < 0 for size in shape) or len(shape) > MOST_AXES:
            self.fail(name, f"has the shape {shape}", f"expected at most {MOST_AXES} known sizes")
        return shape

    def from_bytes(self, content: memoryview, number: int, shape: tuple[int, ...], name: str,
                   big_endian: bool = False) -> np.ndarray:
        """Return the values that bytes hold, in the machine's byte order, bfloat16 as float32."""
        dtype = self.type_of(number, name)
        count = self.count(shape, name)
        if len(content) != count * dtype.itemsize:
            self.fail(name, f"has the shape {shape} of {dtype.itemsize}-byte values and {len(content)} bytes",
                      "use another copy of the file")
        values = np.frombuffer(content, dtype.newbyteorder(">") if big_endian else dtype)
        return _native(values, number).reshape(shape)

    def from_proto(self, tensor: dict[str, Any], number: int, shape: tuple[int, ...], name: str) -> np.ndarray:
        """Return a TensorProto's values; where there are fewer than the shape has, the last stands for all others."""
        if tensor["content"] and len(tensor["content"][-1]):
            return self.from_bytes(tensor["content"][-1], number, shape, name)
        dtype = self.type_of(number, name)
        values = _cast(tensor[VALUES[number]], dtype)
        count = self.count(shape, name)
        if len(values) > count:
            self.fail(name, f"has {len(values)} values for the shape {shape}", "use another copy of the file")
        if len(values) < count:
            self.filled += count * dtype.itemsize
            if self.filled > FILLED:
                self.fail(name, f"has the shape {shape} and {len(values)} values, and with what is repeated before it "
                          f"more than {FILLED >> 20} MiB", "use another copy of the file")
            repeated = np.full(count, values[-1] if len(values) else 0, dtype)  # 0: TensorFlow's rule
            repeated[:len(values)] = values
            values = repeated
        return _native(values, number).reshape(shape)

    def count(self, shape: tuple[int, ...], name: str) -> int:
        """Return how many values a shape has, unless NumPy could not count them."""
        if math.prod(max(size, 1) for size in shape) > 2**48:
            self.fail(name, f"has the shape {shape}", "use another copy of the file")
        return math.prod(shape)

    def fail(self, name: str, found: str, remedy: str) -> NoReturn:
        raise InputError(f"{self.where}: {name} {found}: {remedy}")


def _cast(values: Sequence[int] | np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return a field's values as a type; integers that are wider than it are cut, as TensorFlow does."""
    if isinstance(values, np.ndarray):
        return values
    kind = np.dtype(f"u{dtype.itemsize}")
    cut = np.array(values, np.int64).astype(kind)
    return cut.astype(bool) if dtype.kind == "b" else cut.view(dtype)


def _native(values: np.ndarray, number: int) -> np.ndarray:
    if number == BFLOAT16:  # the upper half of a float32
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(values.dtype.newbyteorder("="), copy=False)
