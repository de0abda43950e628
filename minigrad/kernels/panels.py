"""The loops around the register tile: a matrix product whose left matrix is only described, and its weight gradient.

    y[p, o]     = start[o] + sum over taps t, channels c of  x[row(t, p) + c] * w[t, c, o]
    dw[t, c, o] =            sum over pixels p of            x[row(t, p) + c] * dy[p, o]

`row(t, p)` is where the values under tap t of output pixel p begin in the flat array x; outside the image they are
zeros. A convolution is this product; so is its data gradient (tap rows of dy, kernel flipped), and a linear layer (one
tap). Weights are packed into blocks of as many channels as a tile is wide, the last block half as wide where that is
enough.
"""
from typing import NamedTuple

import numpy as np
from numba import njit

from minigrad import runtime
from minigrad.kernels.parallel import PIECES_A_THREAD, kernel
from minigrad.kernels.target import target
from minigrad.kernels.tile import MIDDLE, forward_tile, gradient_tile, half_tile

MR = target().pixels
TILES = 8  # tiles that share a block of weights before the next one is read: their inputs and weights stay in L2
PIXELS = 192  # pixels summed before dw is touched: their panel of dy stays in L1
FAR = 2**40  # a row so far above the image that no tap reaches it


class Taps(NamedTuple):
    """Where taps find their inputs: C values at each tap, `step` values from pixel to pixel of the input.

    Tap (kh, kw) of output pixel (oh, ow) lies over (oh * SH + kh - top, ow * SW + kw - left) of the input spread out by
    (spread_h, spread_w): between its pixels lie spread - 1 rows or columns of zeros, as the data gradient of a strided
    convolution needs it.
    """

    H: int
    W: int
    OH: int
    OW: int
    KH: int
    KW: int
    SH: int
    SW: int
    top: int
    left: int
    spread_h: int
    spread_w: int
    C: int
    step: int


@njit(nogil=True)
def find_rows(g, pixel, n, pixels, rows, at, corners):
    """rows[at + t * n + i] = row(t, pixel + i), or -1 outside the image or past the last pixel; for i < n."""
    for i in range(n):
        p = pixel + i
        corners[0, i] = p % (g.OH * g.OW) // g.OW * g.SH - g.top if p < pixels else -FAR
        corners[1, i] = p % g.OW * g.SW - g.left
        corners[2, i] = p // (g.OH * g.OW) * g.H * g.W
    dense = g.spread_h == 1 and g.spread_w == 1
    for kh in range(g.KH):
        for kw in range(g.KW):
            begin = at + (kh * g.KW + kw) * n
            if dense:
                for i in range(n):
                    h, w = corners[0, i] + kh, corners[1, i] + kw
                    inside = (h >= 0) & (h < g.H) & (w >= 0) & (w < g.W)
                    rows[begin + i] = (corners[2, i] + h * g.W + w) * g.step if inside else -1
            else:
                for i in range(n):
                    h, w = corners[0, i] + kh, corners[1, i] + kw
                    met = h >= 0 and w >= 0 and h % g.spread_h == 0 and w % g.spread_w == 0
                    h, w = h // g.spread_h, w // g.spread_w
                    rows[begin + i] = (corners[2, i] + h * g.W + w) * g.step if met and h < g.H and w < g.W else -1


@kernel
def pack_weights(first, last, w, packed, NR):
    """packed[block o // NR, row, o % NR] = w[kh, kw, c, o], zero past the last channel; row counts (kh, kw, c)."""
    KH, KW, C, O = w.shape
    depth, zero = KH * KW * C, w.dtype.type(0)
    for row in range(first, last):
        kh, kw, c = row // (KW * C), row // C % KW, row % C
        for o in range(0, O, NR):
            width = NR if O - o > NR // 2 else NR // 2
            block = packed[o * depth + row * width:o * depth + (row + 1) * width]
            channels = w[kh, kw, c, o:o + width]
            for j in range(len(channels)):
                block[j] = channels[j]
            for j in range(len(channels), width):
                block[j] = zero


@kernel
def multiply(first, last, x, g, pixels, w, O, start, y, step, relu, tiles, splits, MR, NR):
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


@kernel
def sum_products(first, last, x, g, pixels, dy, step, O, dw, parts, splits, MC, NR):
    """dw[part, (t, c), o] += sum over the part's pixels p of x[row(t, p) + c] * dy[p * step + o].

    An item is one of `parts` runs of pixels and one of `splits` parts of the blocks of output channels.
    """
    taps = g.KH * g.KW
    blocks = (O + NR - 1) // NR
    chunks = (pixels + PIXELS - 1) // PIXELS
    rows, corners = np.empty(taps * PIXELS, np.int64), np.empty((3, PIXELS), np.int64)
    zeros, panel = np.zeros(g.C, x.dtype), np.empty(PIXELS * NR, x.dtype)
    for item in range(first, last):
        part, split = item // splits, item % splits
        for chunk in range(part * chunks // parts, (part + 1) * chunks // parts):
            pixel = chunk * PIXELS
            n = min(PIXELS, pixels - pixel)
            find_rows(g, pixel, n, pixels, rows, 0, corners)
            for b in range(split * blocks // splits, (split + 1) * blocks // splits):
                width = min(NR, O - b * NR)
                for p in range(n):
                    for j in range(NR):
                        panel[p * NR + j] = dy[(pixel + p) * step + b * NR + j] if j < width else zeros[0]
                for t in range(taps):
                    c = 0
                    while c < g.C:
                        high = MC if g.C - c >= MC else (MIDDLE if g.C - c >= MIDDLE else 1)
                        wo = (part * taps * g.C + t * g.C + c) * blocks * NR + b * NR
                        gradient_tile(x, zeros, rows, t * n, n, c, panel, dw, wo, blocks * NR, high, NR)
                        c += high


@kernel
def sum_parts(first, last, parts, dw):
    """dw[r, o] = sum over parts k of parts[k, r, o]"""
    for r in range(first, last):
        for o in range(dw.shape[1]):
            dw[r, o] = parts[0, r, o]
        for k in range(1, parts.shape[0]):
            for o in range(dw.shape[1]):
                dw[r, o] += parts[k, r, o]


def _width(dtype: np.dtype) -> int:
    return target().vectors * target().lanes(dtype)


def _splits(items: int, blocks: int) -> int:
    """Return into how many parts the blocks are cut, so that all threads find items to do."""
    return min(blocks, max(1, -(-PIECES_A_THREAD * runtime.get_threads() // items)))


def product(x: np.ndarray, taps: Taps, pixels: int, w: np.ndarray, start: np.ndarray | None, y: np.ndarray,
            step: int, relu: bool = False) -> None:
    """Write y[p, o] for p < pixels and all O channels of w (KH, KW, C, O); x and y are flat, y's pixels `step` apart.

    The sums begin at `start` (O,), or at zero."""
    KH, KW, C, O = w.shape
    NR = _width(x.dtype)
    blocks = -(-O // NR)
    packed = np.empty(KH * KW * C * blocks * NR, x.dtype)
    pack_weights(KH * KW * C, w, packed, NR)
    first = np.zeros(blocks * NR, x.dtype)
    if start is not None:
        first[:O] = start
    tiles = -(-pixels // MR)
    together = max(1, min(TILES, tiles // (PIECES_A_THREAD * runtime.get_threads())))
    groups = -(-tiles // together)
    splits = _splits(groups, blocks)
    multiply(groups * splits, x, taps, pixels, packed, O, first, y, step, relu, together, splits, MR, NR)


def weight_gradient(x: np.ndarray, taps: Taps, pixels: int, dy: np.ndarray, step: int, O: int) -> np.ndarray:
    """Return dw (KH * KW * C, O) for flat x and dy, dy's pixels `step` apart."""
    NR = _width(x.dtype)
    depth, blocks = taps.KH * taps.KW * taps.C, -(-O // NR)
    parts = min(runtime.get_threads(), -(-pixels // PIXELS))
    splits = _splits(parts, blocks)
    sums = np.zeros((parts, depth, blocks * NR), x.dtype)
    sum_products(parts * splits, x, taps, pixels, dy, step, O, sums.reshape(-1), parts, splits, MR, NR)
    dw = np.empty((depth, O), x.dtype)
    sum_parts(depth, sums, dw)
    return dw
