"""Arrays out of bytes: types of values, byte orders and possible shapes, for every format that has them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from googlenet.weights.formats.wording import shown

MOST_AXES = 32  # NumPy's limit before 2.0
LARGEST = 2**40  # values of an array; NumPy can count the bytes of as many, whatever their type
BFLOAT16 = "bfloat16"  # a type that NumPy lacks: the upper half of a float32

Order = Literal["<", ">"]


def item_size(dtype: str) -> int:
    """Return the bytes of one value; `dtype` is NumPy's name of a type, or BFLOAT16."""
    return 2 if dtype == BFLOAT16 else np.dtype(dtype).itemsize


def decode(content: memoryview, dtype: str, order: Order = "<") -> np.ndarray:
    """Return the values in a run of bytes as a vector in native order, aligned: a view where it can be.

    bfloat16 becomes float32, which holds it exactly; any byte but zero is True. `order` is the file's, "<" or ">"."""
    if dtype == BFLOAT16:
        return widened(np.frombuffer(content, f"{order}u2"))
    if dtype == "bool":
        return np.frombuffer(content, np.uint8) != 0
    stored = np.frombuffer(content, np.dtype(dtype).newbyteorder(order))
    return np.require(stored, dtype, "A")


def widened(halves: np.ndarray) -> np.ndarray:
    """Return bfloat16's bits, (...) uint16, as the float32 of the same values."""
    upper = halves.astype(np.uint32)
    return np.left_shift(upper, 16, out=upper).view(np.float32)


def told_widened(names: Sequence[str]) -> tuple[str, ...]:
    """Return the note on arrays that were bfloat16 in the file, none where there is none."""
    return (f"bfloat16 arrays read as float32: {len(names)}, such as {shown(names[0])}",) if names else ()


def shape_of(value: object) -> tuple[int, ...] | None:
    """Return a shape out of a file, a tuple or a list, or None for one that no array has."""
    if not isinstance(value, tuple | list) or len(value) > MOST_AXES:
        return None
    if not all(type(n) is int and n >= 0 for n in value):
        return None
    # NumPy multiplies the axes of an empty array too, leaving out those of length 0.
    return tuple(value) if math.prod(n for n in value if n) <= LARGEST else None
