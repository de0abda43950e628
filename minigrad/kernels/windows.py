"""Windows of convolutions and pools: how far they reach, how many there are.

A window axis of length H, padded by `before` and `after`, holds (H + before + after - K) / S + 1 windows of K cells at
steps of S, rounded down, or up as Caffe's pools do, whose last window must still begin inside the image or the padding
before it.
"""
from typing import NamedTuple

from minigrad.errors import InputError

Pair = int | tuple[int, int]
Padding = int | str | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]]


class Windows(NamedTuple):
    """The windows over one (N, H, W, C) array: input, output, kernel, stride, padding before each axis."""

    H: int
    W: int
    OH: int
    OW: int
    KH: int
    KW: int
    SH: int
    SW: int
    top: int
    bottom: int
    left: int
    right: int


def pair(value: Pair, name: str) -> tuple[int, int]:
    """Return (height, width) of an int or a pair; raise InputError unless both are at least 1."""
    h, w = (value, value) if isinstance(value, int) else value
    if h < 1 or w < 1:
        raise InputError(f"{name} is {value}; it must be at least 1 in each direction")
    return h, w


def windows(shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Padding, ceil: bool = False) -> Windows:
    """Lay windows over an array of `shape` (N, H, W, C).

    `padding` is a number, (rows, columns), ((top, bottom), (left, right)), or "same": TensorFlow's SAME, which makes
    ceil(H / S) windows and puts the odd cell at the end. `ceil` rounds the number of windows up. Raises InputError
    where no window fits.
    """
    if len(shape) != 4:
        raise InputError(f"expected an array (N, H, W, C), got shape {shape}")
    H, W = shape[1:3]
    if min(shape) < 1:
        raise InputError(f"expected (N, H, W, C) all at least 1, got {shape}: an empty batch has no result")
    (KH, KW), (SH, SW) = pair(kernel, "kernel"), pair(stride, "stride")
    (top, bottom), (left, right) = _sides(padding, (H, W), (KH, KW), (SH, SW))
    OH, OW = _count(H, KH, SH, top, bottom, ceil), _count(W, KW, SW, left, right, ceil)
    if OH < 1 or OW < 1:
        raise InputError(f"a {KH}x{KW} window does not fit into {H}x{W} padded by {(top, bottom), (left, right)}: "
                         "use a smaller kernel, a larger image or more padding")
    return Windows(H, W, OH, OW, KH, KW, SH, SW, top, bottom, left, right)


def _sides(padding: Padding, size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int]):
    if padding == "same":
        total = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(size, kernel, stride, strict=True)]
        return [(t // 2, t - t // 2) for t in total]
    if isinstance(padding, str):
        raise InputError(f'padding is "{padding}"; the only word it may be is "same"')
    if isinstance(padding, int):
        padding = (padding, padding)
    sides = [(p, p) if isinstance(p, int) else tuple(p) for p in padding]
    if any(p < 0 for side in sides for p in side):
        raise InputError(f"padding is {padding}; it can't be negative")
    return sides


def _count(size: int, kernel: int, stride: int, before: int, after: int, ceil: bool) -> int:
    room = size + before + after - kernel
    if not ceil:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= size + before else count
