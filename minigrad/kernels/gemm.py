"""The indirect matrix product: a convolution whose patches are only described, never copied.

    y[p, o] = start[o] + sum over taps t, channels c of  x[row(t, p) + c] * w[t, c, o]

A convolution is this product; so is its data gradient (tap rows of dy, kernel flipped), and a linear layer (one tap).
Weights are packed into blocks of as many channels as a tile is wide, the last block half as wide where that is enough.

A group of tiles goes through one block of weights before the next block: a block (KH KW C x 32 values) then comes from
L2 once for TILES tiles, and their inputs stay in L2 for all blocks. What limits it is the tile's own speed; between
tiles little is left to gain.
"""
import numpy as np

from minigrad import runtime
from minigrad.kernels.parallel import PIECES_A_THREAD, kernel
from minigrad.kernels.plan import constants
from minigrad.kernels.taps import Taps, find_rows
from minigrad.kernels.target import target
from minigrad.kernels.tile import forward_tile, half_tile

MR = target().pixels
TILES = 8  # tiles that share a block of weights before the next one is read


@kernel
def pack_weights(first, last, w, packed, NR):
    """packed[block o // NR, (kh, kw, c), o % NR] = w[kh, kw, c, o], zero past the last channel.

    An item is one block under one tap.
    """
    KH, KW, C, O = w.shape
    depth, zero = KH * KW * C, w.dtype.type(0)
    for item in range(first, last):
        o, tap = item // (KH * KW) * NR, item % (KH * KW)
        n = min(NR, O - o)
        width = NR if n > NR // 2 else NR // 2
        for c in range(C):
            row = packed[o * depth + (tap * C + c) * width:][:width]
            channels = w[tap // KW, tap % KW, c, o:o + n]
            for j in range(n):
                row[j] = channels[j]
            for j in range(n, width):
                row[j] = zero


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
    """Return into how many parts the blocks are cut, so that all threads find items to do."""
    return min(blocks, max(1, -(-PIECES_A_THREAD * runtime.get_threads() // items)))


def packed_weights(w: np.ndarray) -> np.ndarray:
    """Return w (KH, KW, C, O) in blocks of output channels, flat."""
    KH, KW, C, O = w.shape
    NR = block_width(w.dtype)
    blocks = -(-O // NR)
    with constants():
        packed = np.empty(KH * KW * C * blocks * NR, w.dtype)
        pack_weights(blocks * KH * KW, w, packed, NR)
    return packed


def indirect_product(x: np.ndarray, taps: Taps, pixels: int, w: np.ndarray, start: np.ndarray | None, y: np.ndarray,
                     step: int, relu: bool = False) -> None:
    """Write y[p, o] for p < pixels and all O channels of w (KH, KW, C, O); x and y are flat, y's pixels `step` apart.

    The sums begin at `start` (O,), or at zero."""
    O, NR = w.shape[3], block_width(x.dtype)
    blocks = -(-O // NR)
    first = np.zeros(blocks * NR, x.dtype)
    if start is not None:
        first[:O] = start
    tiles = -(-pixels // MR)
    together = max(1, min(TILES, tiles // (PIECES_A_THREAD * runtime.get_threads())))
    groups = -(-tiles // together)
    parts = splits(groups, blocks)
    multiply_tiles(groups * parts, x, taps, pixels, packed_weights(w), O, first, y, step, relu, together, parts, MR, NR)
