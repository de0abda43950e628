"""TensorFlow's data types, shapes and TensorProto, which checkpoints and graphs share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from googlenet.weights.formats.elements import BFLOAT16, MOST_AXES, decode, item_size, shape_of, widened
from googlenet.weights.formats.protobuf import Field, Schema, last
from googlenet.weights.formats.wording import DAMAGED, shown, shown_shape
from minigrad.errors import InputError

STRING = 7
DTYPES = {1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 9: "int64", 10: "bool",
          14: BFLOAT16, 17: "uint16", 19: "float16", 22: "uint32", 23: "uint64"}
FILLED = 2**27  # bytes that a file's values may be repeated to: a few bytes can stand for any number of them

SHAPE: Schema = {2: Field("dim", "message", {1: Field("size", "int")}), 3: Field("unknown_rank", "int")}
TENSOR: Schema = {
    1: Field("dtype", "int"), 2: Field("shape", "message", SHAPE), 4: Field("content", "bytes"),
    5: Field("floats", "floats"), 6: Field("doubles", "doubles"), 7: Field("ints", "ints"), 10: Field("longs", "ints"),
    11: Field("bools", "ints"), 13: Field("halves", "ints"), 16: Field("unsigned", "ints"),
    17: Field("unsigned_longs", "ints"),
}
# Which field holds the values of a type; small integers stand among the ints, 16-bit floats as their bits.
VALUES = {"float32": "floats", "float64": "doubles", "int64": "longs", "bool": "bools", BFLOAT16: "halves",
          "float16": "halves", "uint32": "unsigned", "uint64": "unsigned_longs"}  # all others: ints


class Tensors:
    """Decodes the tensors of one file; `where` begins every message."""

    def __init__(self, where: str):
        self.where = where
        self.filled = 0

    def type_of(self, number: int, name: str) -> str:
        """Return a type, one of DTYPES' values. Raises InputError for one that no array has."""
        if number not in DTYPES:
            self.fail(name, f"has TensorFlow's data type {number}", "expected floats, integers or truth values")
        return DTYPES[number]

    def shape_of(self, messages: Sequence[dict[str, Any]], name: str) -> tuple[int, ...]:
        """Return the shape of a field's messages, of which the last counts; none stands for a scalar.

        Raises InputError for a shape that no array has."""
        message = last(messages, {"dim": [], "unknown_rank": []})
        sizes = [last(dim["size"], 0) for dim in message["dim"]]
        shape = shape_of(sizes)
        if shape is None or any(message["unknown_rank"]):
            self.fail(name, f"has the shape {shown_shape(sizes)}", f"expected at most {MOST_AXES} known sizes")
        return shape

    def from_bytes(self, content: memoryview, number: int, shape: tuple[int, ...], name: str,
                   big_endian: bool = False) -> np.ndarray:
        """Return the values that bytes hold, in the machine's byte order, bfloat16 as float32.

        Raises InputError where there are not as many bytes as the shape wants."""
        dtype = self.type_of(number, name)
        if len(content) != math.prod(shape) * item_size(dtype):
            self.fail(name, f"has the shape {shape} of {item_size(dtype)}-byte values and {len(content)} bytes",
                      DAMAGED)
        return decode(content, dtype, ">" if big_endian else "<").reshape(shape)

    def from_proto(self, tensor: dict[str, Any], number: int, shape: tuple[int, ...], name: str) -> np.ndarray:
        """Return a TensorProto's values; where there are fewer than the shape has, the last stands for all others.

        Raises InputError where there are more, and where all that is repeated in the file would be too much."""
        if tensor["content"] and len(tensor["content"][-1]):
            return self.from_bytes(tensor["content"][-1], number, shape, name)
        dtype = self.type_of(number, name)
        values = _typed(tensor[VALUES.get(dtype, "ints")], dtype)
        count = math.prod(shape)
        if len(values) > count:
            self.fail(name, f"has {len(values)} values for the shape {shape}", DAMAGED)
        if len(values) < count:
            self.filled += count * values.itemsize
            if self.filled > FILLED:
                self.fail(name, f"has the shape {shape} and {len(values)} values, and with what is repeated before it "
                          f"more than {FILLED >> 20} MiB", DAMAGED)
            repeated = np.full(count, values[-1] if len(values) else 0, values.dtype)  # 0: TensorFlow's rule
            repeated[:len(values)] = values
            values = repeated
        return values.reshape(shape)

    def fail(self, name: str, found: str, remedy: str) -> NoReturn:
        """Raise the InputError of one tensor."""
        raise InputError(f"{self.where}: {shown(name)} {found}: {remedy}")


def _typed(values: Sequence[int] | np.ndarray, dtype: str) -> np.ndarray:
    """Return a field's values as a type; integers that are wider than it are cut, as TensorFlow does."""
    if isinstance(values, np.ndarray):
        return values
    cut = np.array(values, np.int64).astype(f"u{item_size(dtype)}")
    if dtype == BFLOAT16:
        return widened(cut)
    return cut.astype(bool) if dtype == "bool" else cut.view(dtype)
