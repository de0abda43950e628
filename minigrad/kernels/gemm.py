"""The indirect matrix product: a convolution whose patches are only described, never copied.

    y[p, o] = start[o] + sum over taps t, channels c of  x[row(t, p) + c] * w[t, c, o]

A convolution is this product; so is its data gradient (tap rows of dy, kernel flipped), and a linear layer (one tap).
Weights are packed into blocks of as many channels as a tile is wide, the last block half as wide where that is enough.

A group of tiles goes through one block of weights before the next block: a block (KH KW C x 32 values) then comes from
L2 once for TILES tiles, and their inputs stay in L2 for all blocks. What limits it is the tile's own speed; between
tiles little is left to gain.
"""
import numpy as np

from minigrad.kernels.parallel import kernel, pieces_wanted
from minigrad.kernels.plan import constant, scratch
from minigrad.kernels.taps import Taps, find_rows
from minigrad.kernels.target import target
from minigrad.kernels.tile import forward_tile, half_tile
from minigrad.kernels.transpose import transpose_square

MR = target().pixels
TILES = 8  # tiles that share a block of weights before the next one is read


@kernel
def pack_weights(first, last, w, packed, NR):
    """packed[block o // NR, row, o % NR] = w[row, o], zero past the last channel; a row is (kh, kw, c)."""
    (depth, O), zero = w.shape, w.dtype.type(0)
    for row in range(first, last):
        for o in range(0, O, NR):
            n = min(NR, O - o)
            width = NR if n > NR // 2 else NR // 2
            line, channels = packed[o * depth + row * width:][:width], w[row, o:o + n]
            for j in range(n):
                line[j] = channels[j]
            for j in range(n, width):
                line[j] = zero


@kernel
def pack_flipped(first, last, w, KH, KW, C, O, packed, NR, lanes):
    """packed[block c // NR, (kh, kw, o), c % NR] = w[KH - 1 - kh, KW - 1 - kw, c, o], zero past the last c; flat w.

    An item is one block under one tap."""
    taps, zero = KH * KW, w.dtype.type(0)
    for item in range(first, last):
        block, tap = item // taps * NR, item % taps
        n = min(NR, C - block)
        width = NR if n > NR // 2 else NR // 2
        source, sink = ((taps - 1 - tap) * C + block) * O, block * taps * O + tap * O * width
        squares, whole = n // lanes * lanes, O // lanes * lanes
        for o in range(0, whole, lanes):
            for c in range(0, squares, lanes):
                transpose_square(w, source + c * O + o, O, packed, sink + o * width + c, width, lanes)
        for o in range(O):
            for c in range(squares if o < whole else 0, n):
                packed[sink + o * width + c] = w[source + c * O + o]
            for c in range(n, width):
                packed[sink + o * width + c] = zero


@kernel
def multiply_tiles(first, last, x, g, pixels, w, O, start, y, step, relu, tiles, splits, MR, NR):
    """y[p * step + o] = start[o] + sum over t, c of x[row(t, p) + c] * w[t, c, o], at least 0 if relu.

    An item is a group of `tiles` tiles of pixels and one of `splits` parts of the blocks of channels.
    """
    taps = g.KH * g.KW
    blocks = (O + NR - 1) // NR
    rows, corners = np.empty(tiles * taps * MR, np.int64), np.empty((3, MR), np.int64)
    zeros, edge = np.zeros(g.C, x.dtype), np.empty(MR * NR, x.dtype)
    for item in range(first, last):
        t0 = item // splits * tiles
        t1 = min(t0 + tiles, (pixels + MR - 1) // MR)
        for t in range(t0, t1):
            find_rows(g, t * MR, MR, pixels, rows, (t - t0) * taps * MR, corners)
        for b in range(item % splits * blocks // splits, (item % splits + 1) * blocks // splits):
            o, wo = b * NR, b * NR * taps * g.C
            width = min(NR, O - o)
            for t in range(t0, t1):
                at, yo, height = (t - t0) * taps * MR, t * MR * step + o, min(MR, pixels - t * MR)
                if height == MR and width == NR:
                    forward_tile(x, zeros, rows, at, taps, g.C, w, wo, start, o, y, yo, step, relu, MR, NR)
                elif height == MR and width == NR // 2:
                    half_tile(x, zeros, rows, at, taps, g.C, w, wo, start, o, y, yo, step, relu, MR, NR // 2)
                else:
                    if width > NR // 2:
                        forward_tile(x, zeros, rows, at, taps, g.C, w, wo, start, o, edge, 0, NR, relu, MR, NR)
                    else:
                        half_tile(x, zeros, rows, at, taps, g.C, w, wo, start, o, edge, 0, NR, relu, MR, NR // 2)
                    for i in range(height):
                        for j in range(width):
                            y[yo + i * step + j] = edge[i * NR + j]


def block_width(dtype: np.dtype) -> int:
    """Return how many output channels a block of packed weights has."""
    return target().vectors * target().lanes(dtype)


def splits(items: int, blocks: int) -> int:
    """Return into how many parts each item's `blocks` are cut, so that all threads find items to do."""
    return min(blocks, max(1, -(-pieces_wanted() // items)))


def packed_weights(w: np.ndarray, flip: bool = False) -> np.ndarray:
    """Return w (KH, KW, C, O) in blocks of output channels, flat; with `flip` turned around, and C for O."""
    KH, KW, C, O = w.shape
    NR = block_width(w.dtype)
    blocks = -(-(C if flip else O) // NR)

    def packed() -> np.ndarray:
        result = scratch(KH * KW * (O if flip else C) * blocks * NR, w.dtype)
        rows = np.ascontiguousarray(w).reshape(-1, O)
        if flip:
            lanes = target().lanes(w.dtype)
            pack_flipped(blocks * KH * KW, rows.reshape(-1), KH, KW, C, O, result, NR, lanes)
        else:
            pack_weights(KH * KW * C, rows, result, NR)
        return result

    return constant("flipped" if flip else "packed", w, packed)


def indirect_product(x: np.ndarray, taps: Taps, pixels: int, w: np.ndarray, start: np.ndarray | None, y: np.ndarray,
                     step: int, relu: bool = False, flip: bool = False) -> None:
    """Write y[p, o] for p < pixels and all O channels of w (KH, KW, C, O); x and y are flat, y's pixels `step` apart.

    The sums begin at `start` (O,), or at zero. With `flip` w is turned around and its channels change places, as a data
    gradient wants them."""
    O, NR = w.shape[2 if flip else 3], block_width(x.dtype)
    blocks = -(-O // NR)
    first = np.zeros(blocks * NR, x.dtype)
    if start is not None:
        first[:O] = start
    tiles = -(-pixels // MR)
    together = max(1, min(TILES, tiles // pieces_wanted()))
    groups = -(-tiles // together)
    parts = splits(groups, blocks)
    packed = packed_weights(w, flip)
    multiply_tiles(groups * parts, x, taps, pixels, packed, O, first, y, step, relu, together, parts, MR, NR)
