"""Arrays out of bytes: what torch's and safetensors' files share."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

MOST_AXES = 32  # NumPy's limit before 2.0
LARGEST = 2**48  # values of an array, well within NumPy's 63 bits of bytes
BFLOAT16 = "bfloat16"


def item_size(dtype: str) -> int:
    """Return the bytes of one value; `dtype` is NumPy's name of a type, or BFLOAT16."""
    return 2 if dtype == BFLOAT16 else np.dtype(dtype).itemsize


def decode(content: memoryview, dtype: str, order: Literal["<", ">"] = "<") -> np.ndarray:
    """Return the values in a run of bytes as a vector in native order, aligned: a view where it can be.

    bfloat16 becomes float32, which holds it exactly; any byte but zero is True. `order` is the file's, "<" or ">"."""
    if dtype == BFLOAT16:
        upper = np.frombuffer(content, f"{order}u2").astype(np.uint32)
        return np.left_shift(upper, 16, out=upper).view(np.float32)
    if dtype == "bool":
        return np.frombuffer(content, np.uint8) != 0
    stored = np.frombuffer(content, np.dtype(dtype).newbyteorder(order))
    return np.require(stored, dtype, "A")


def shape_of(value: object) -> tuple[int, ...] | None:
    """Return a shape out of a file, a tuple or a list, or None for one that NumPy can't have."""
    if not isinstance(value, tuple | list) or len(value) > MOST_AXES:
        return None
    if not all(type(n) is int and n >= 0 for n in value):
        return None
    # NumPy multiplies the axes of an empty array too, leaving out those of length 0.
    return tuple(value) if math.prod(n for n in value if n) < LARGEST else None
