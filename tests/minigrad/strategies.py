"""What Hypothesis draws: shapes, kernels, strides, paddings and the seed that the values come from."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.reference import margins, pair

dtypes = st.sampled_from([np.float32, np.float64])
seeds = st.integers(0, 2**32 - 1)

# One, few, and on either side of the widths of a register tile (16, 32 float32 lanes; 8, 16 of float64).
channels = st.sampled_from([1, 2, 3, 5, 8, 15, 16, 17, 24, 32, 33, 40])

strides = st.one_of(st.integers(1, 3), st.tuples(st.integers(1, 3), st.integers(1, 3)))


def normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
    return rng.standard_normal(shape).astype(dtype)


@st.composite
def upstream(draw: st.DrawFn, shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
    """A gradient to send back: dense, a single entry, or one row repeated without memory of its own (stride 0)."""
    rng = np.random.default_rng(draw(seeds))
    kind = draw(st.sampled_from(["dense", "dense", "single", "repeated"]))
    if kind == "repeated":
        return np.broadcast_to(normal(rng, shape[-1:], dtype), shape)
    dy = normal(rng, shape, dtype)
    if kind == "single":
        dy.flat[np.arange(dy.size) != rng.integers(dy.size)] = 0
    return dy


@dataclass(frozen=True)
class Window:
    """A window sliding over an image: the part of a convolution or of a pooling that Hypothesis draws."""

    N: int
    H: int
    W: int
    C: int
    kernel: Any
    stride: Any
    padding: Any
    seed: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (self.N, self.H, self.W, self.C)

    @property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    @property
    def options(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding}


@st.composite
def windows(draw: st.DrawFn, largest_kernel: int = 5, pooling: bool = False) -> Window:
    """Square and rectangular kernels and strides, paddings of every form, and an image of at least one window.

    A pool's padding is less than its kernel, so that each window sees some of the image.
    """
    side = st.integers(1, largest_kernel)
    kernel = draw(st.one_of(side, st.tuples(side, side)))
    stride = draw(strides)
    rows, columns = (st.integers(0, min(2, k - 1) if pooling else 2) for k in pair(kernel))
    both = st.integers(0, min(2, *(k - 1 for k in pair(kernel))) if pooling else 2)
    four = st.tuples(st.tuples(rows, rows), st.tuples(columns, columns))
    padding = draw(st.one_of(st.just("same"), both, st.tuples(rows, columns), four))
    sides = ((0, 0), (0, 0)) if padding == "same" else margins(padding, (0, 0), pair(kernel), pair(stride))
    smallest = [1 if padding == "same" else max(k - sum(s), 1) for k, s in zip(pair(kernel), sides, strict=True)]
    H, W = (draw(st.integers(m, m + 6)) for m in smallest)
    return Window(draw(st.integers(1, 3)), H, W, draw(channels), kernel, stride, padding, draw(seeds))
