"""The weight gradient of the indirect matrix product (kernels/gemm.py): dw = X^T dy, X described by its rows.

    dw[t, c, o] = sum over pixels p of x[row(t, p) + c] * dy[p, o]

The sum runs over PIXELS pixels at a time. Their part of dy is packed into panels as wide as a tile, once for all taps;
then each tile of channels goes through all panels, so that its rows of x stay in L1 while the panels stream from L2.
Threads share the rows (t, c) of dw; where those are few and pixels many, they share the pixels too, and their sums are
added at the end.
"""
import math

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from minigrad.kernels.gemm import block_width
from minigrad.kernels.parallel import kernel, pieces_wanted
from minigrad.kernels.plan import scratch
from minigrad.kernels.taps import Taps, find_rows
from minigrad.kernels.target import target
from minigrad.kernels.tile import HEIGHTS, INT64, Emitter, array_data, gradient_tile, scalar_of

PIXELS = 192  # summed before dw is touched: a panel of dy takes half of L1
LEAST_ROWS = 24  # rows (t, c) of dw for which packing dy once more pays
PIXELS_AHEAD = 8  # asked for before they are needed: rows that lie apart are not foreseen by the CPU
TALL = HEIGHTS[0]
MIDDLE, LOW = HEIGHTS[1:3]


@njit(nogil=True)
def pack_panels(dy, step, pixel, n, O, NR, panels):
    """panels[block o // NR, p, o % NR] = dy[(pixel + p) * step + o] for p < n, zero past the last channel."""
    zero = dy.dtype.type(0)
    for o in range(0, O // NR * NR, NR):
        copy_panel(dy, pixel * step + o, step, n, panels, o * PIXELS, NR)
    o, width = O // NR * NR, O % NR
    if width > 0:
        for p in range(n):
            row, channels = panels[o * PIXELS + p * NR:][:NR], dy[(pixel + p) * step + o:][:width]
            for j in range(width):
                row[j] = channels[j]
            for j in range(width, NR):
                row[j] = zero


def copy_panel(x, at, step, n, panel, to, NR):
    """panel[to + p * NR + j] = x[at + p * step + j] for p < n, j < NR; below once more as vectors, one row of which is
    a tile's width."""
    for p in range(n):
        for j in range(NR):
            panel[to + p * NR + j] = x[at + p * step + j]


@intrinsic
def copy_vectors(typing_context, x, at, step, n, panel, to):
    """`copy_panel` in registers."""
    scalar, lanes = scalar_of(x)
    intp, vectors = types.intp, target().vectors
    signature = types.void(x, intp, intp, intp, panel, intp)

    def codegen(context, builder, signature, values):
        x_, at, step, n, panel_, to = values
        emit = Emitter(builder, scalar, lanes)
        source, sink = array_data(context, builder, x, x_), array_data(context, builder, panel, panel_)
        with cgutils.for_range(builder, n) as loop:
            row = builder.add(at, builder.mul(loop.index, step))
            line = builder.add(to, builder.mul(loop.index, INT64(vectors * lanes)))
            for v in range(vectors):
                place = emit.pointer(source, builder.add(row, INT64(v * lanes)))
                emit.prefetch(emit.pointer(place, builder.mul(step, INT64(PIXELS_AHEAD))), 0)
                emit.store(emit.load(place), emit.pointer(sink, builder.add(line, INT64(v * lanes))))
        return context.get_dummy_value()

    return signature, codegen


@overload(copy_panel, inline="never")
def _copy_panel(x, at, step, n, panel, to, NR):
    def compiled(x, at, step, n, panel, to, NR):
        copy_vectors(x, at, step, n, panel, to)

    return compiled


@njit(nogil=True)
def tile_height(rows):
    """Return how many of the `rows` that are left the next tile sums: the rest should not be a low tile."""
    if rows >= TALL and rows != 2 * MIDDLE:
        return TALL
    return MIDDLE if rows >= MIDDLE else LOW if rows >= LOW else 1


@kernel
def sum_products(first, last, x, g, pixels, dy, step, O, dw, parts, shares, NR):
    """dw[part, (t, c), o] = sum over the part's pixels p of x[row(t, p) + c] * dy[p * step + o].

    An item is one of `parts` runs of pixels and one of `shares` ranges of rows (t, c).
    """
    depth, blocks = g.KH * g.KW * g.C, (O + NR - 1) // NR
    chunks = (pixels + PIXELS - 1) // PIXELS
    rows, corners = np.empty(g.KH * g.KW * PIXELS, np.int64), np.empty((3, PIXELS), np.int64)
    zeros, panels = np.zeros(g.C, x.dtype), np.empty(blocks * NR * PIXELS, x.dtype)
    for item in range(first, last):
        part, share = item // shares, item % shares
        begin = part * chunks // parts
        for chunk in range(begin, (part + 1) * chunks // parts):
            pixel = chunk * PIXELS
            n = min(PIXELS, pixels - pixel)
            find_rows(g, pixel, n, pixels, rows, 0, corners)
            pack_panels(dy, step, pixel, n, O, NR, panels)
            row, end = share * depth // shares, (share + 1) * depth // shares
            while row < end:
                t, c = row // g.C, row % g.C
                height = tile_height(min(end - row, g.C - c))
                for b in range(blocks):
                    wo = ((part * depth + row) * blocks + b) * NR
                    gradient_tile(x, zeros, rows, t * n, n, c, panels, b * NR * PIXELS, dw, wo, blocks * NR,
                                  chunk > begin, height, NR)
                row += height


@kernel
def sum_parts(first, last, parts, dw):
    """dw[r, o] = sum over parts k of parts[k, r, o]"""
    for r in range(first, last):
        for o in range(dw.shape[1]):
            dw[r, o] = parts[0, r, o]
        for k in range(1, parts.shape[0]):
            for o in range(dw.shape[1]):
                dw[r, o] += parts[k, r, o]


def weight_gradient(x: np.ndarray, taps: Taps, pixels: int, dy: np.ndarray, step: int, O: int) -> np.ndarray:
    """Return dw (KH * KW * C, O) for flat x and dy, dy's pixels `step` apart."""
    NR = block_width(x.dtype)
    depth, blocks, pieces = taps.KH * taps.KW * taps.C, -(-O // NR), pieces_wanted()
    # `shares` ranges of rows read dy `shares` times; `parts` runs of pixels write, read and add dw `parts` times. The
    # least of shares * pixels + 3 * parts * depth for a given number of pieces:
    parts = min(pieces, max(1, round(math.sqrt(pieces * pixels / (3 * depth)))), -(-pixels // PIXELS))
    shares = min(-(-pieces // parts), max(1, depth // LEAST_ROWS))
    sums = scratch(parts * depth * blocks * NR, x.dtype).reshape(parts, depth, blocks * NR)
    sum_products(parts * shares, x, taps, pixels, dy, step, O, sums.reshape(-1), parts, shares, NR)
    dw = np.empty((depth, O), x.dtype)
    sum_parts(depth, sums, dw)
    return dw
