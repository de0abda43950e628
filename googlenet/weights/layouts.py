"""How other frameworks lay out the arrays that are ours as (KH, KW, C, O), (C, O) and (O,).

A layout's name spells its axes: I and O are a layer's input and output channels, H W its kernel. Where a fully
connected layer follows a grid, its inputs are the grid flattened, in parentheses; ours are (H W C).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from googlenet.weights.contents import Place


class Layout(NamedTuple):
    """Both directions; the second argument is Place.channels."""

    to_ours: Callable[[np.ndarray, int], np.ndarray]
    to_theirs: Callable[[np.ndarray, int], np.ndarray]


def _permuted(to_ours: tuple[int, ...]) -> Layout:
    back = tuple(np.argsort(to_ours))
    return Layout(lambda array, _: array.transpose(to_ours), lambda array, _: array.transpose(back))


def _rows(array: np.ndarray, channels: int) -> np.ndarray:
    """(H W C, O) -> (H, W, C, O)"""
    side = math.isqrt(array.shape[0] // channels)
    return array.reshape(side, side, channels, array.shape[1])


def _from_chw(array: np.ndarray, channels: int) -> np.ndarray:
    """(C H W, O) -> (H W C, O)"""
    side = math.isqrt(array.shape[0] // channels)
    return array.reshape(channels, side, side, -1).transpose(1, 2, 0, 3).reshape(array.shape)


def _to_chw(array: np.ndarray, channels: int) -> np.ndarray:
    """(H W C, O) -> (C H W, O)"""
    return _rows(array, channels).transpose(2, 0, 1, 3).reshape(array.shape)


_AS_IT_IS = Layout(lambda array, _: array, lambda array, _: array)
_TORCH = _permuted((2, 3, 1, 0))

LAYOUTS = {
    "O": _AS_IT_IS,
    "IO": _AS_IT_IS,
    "HWIO": _AS_IT_IS,
    "OI": _permuted((1, 0)),
    "OIHW": _TORCH,
    # Theano's convolution turns its kernels by 180 degrees before it correlates.
    "OIHW turned": Layout(lambda array, _: array.transpose(2, 3, 1, 0)[::-1, ::-1],
                          lambda array, _: array[::-1, ::-1].transpose(3, 2, 0, 1)),
    "11IO": Layout(lambda array, _: array[0, 0], lambda array, _: array[None, None]),
    "O(CHW)": Layout(lambda array, channels: _from_chw(array.T, channels),
                     lambda array, channels: _to_chw(array, channels).T),
    "(CHW)O": Layout(_from_chw, _to_chw),
    "(HW)CO": Layout(lambda array, _: array.reshape(-1, array.shape[3]), _rows),  # a convolution as large as the grid
}


def to_ours(array: np.ndarray, place: Place) -> np.ndarray:
    """Return a file's array in our layout; its shape must be `shape_there` of ours."""
    return np.ascontiguousarray(LAYOUTS[place.layout].to_ours(array, place.channels))


def to_theirs(array: np.ndarray, place: Place) -> np.ndarray:
    """Return our array in the layout of its place in a file."""
    return np.ascontiguousarray(LAYOUTS[place.layout].to_theirs(array, place.channels))


def shape_there(shape: tuple[int, ...], place: Place) -> tuple[int, ...]:
    """Return the shape that an array of ours has in a file."""
    return LAYOUTS[place.layout].to_theirs(np.empty(shape, np.int8), place.channels).shape
