"""Winograd's minimal filtering: 3x3 convolutions of stride 1 with a quarter of the products (Lavin and Gray 2016).

A tile of 4x4 outputs sees 6x6 inputs. With six points at which polynomials are multiplied, three small linear maps
turn its 144 products a channel into 36:

    y  = A^T [ (G w G^T) * (B^T x B) ] A          * position by position, summed over the input channels
    dw = G^T [ (B^T x B) * (A dy A^T) ] G         summed over the tiles

and dx is y of dy with the kernel flipped. For each of the 36 positions the sum is a matrix product, tiles x channels,
and goes through the register tile; the maps run along the channels. The maps are written below for one line of numbers;
both axes of a tile, on numbers or on LLVM vectors, are these functions.

The points are 0, infinity, and plus and minus sqrt(2) and sqrt(1/2). Lavin and Gray's 1 and 2 round four times worse: A
has the points' third powers, 8 there and 2.8 here.

Some tiles are transformed, multiplied and transformed back at a time, so that their positions stay in L3. What limits
it: the maps move 2.25 times the input and output through the caches, which costs about as much as a third of the
products; and where a grid is no multiple of 4 the last tiles compute what nobody reads (14: a quarter of it).
"""
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from minigrad import runtime
from minigrad.kernels.elementwise import as_rows
from minigrad.kernels.gemm import MR, block_width, packed_weights, splits
from minigrad.kernels.parallel import kernel
from minigrad.kernels.plan import constant, scratch
from minigrad.kernels.target import target
from minigrad.kernels.tile import INT64, Emitter, array_data, forward_tile, gradient_tile, half_tile, scalar_of
from minigrad.kernels.weight_gradient import tile_height

OUT, IN, POSITIONS = 4, 6, 36
ROOT, HALF_ROOT = math.sqrt(2), math.sqrt(2) / 2
CACHE = 5 * 2**19  # bytes of L3 that what is between the steps may take, for each thread
PAD = 80  # values; see `apart`


def input_line(x0, x1, x2, x3, x4, x5):
    """B^T x"""
    even1, odd1 = x4 - 2 * x2, HALF_ROOT * x3 - ROOT * x1
    even2, odd2 = x4 - 0.5 * x2, ROOT * x3 - HALF_ROOT * x1
    return x0 - 2.5 * x2 + x4, even1 + odd1, even1 - odd1, even2 + odd2, even2 - odd2, x1 - 2.5 * x3 + x5


def output_line(m0, m1, m2, m3, m4, m5):
    """A^T m"""
    sum1, difference1 = m1 + m2, m1 - m2
    sum2, difference2 = m3 + m4, m3 - m4
    return (m0 + sum1 + sum2, HALF_ROOT * difference1 + ROOT * difference2, 0.5 * sum1 + 2 * sum2,
            (0.5 * HALF_ROOT) * difference1 + (2 * ROOT) * difference2 + m5)


def weight_line(w0, w1, w2):
    """G w"""
    even1, even2 = w0 * (-2 / 3) - w2 * (1 / 3), w0 * (1 / 6) + w2 * (1 / 3)
    odd1, odd2 = w1 * (-ROOT / 3), w1 * (ROOT / 6)
    return w0, even1 + odd1, even1 - odd1, even2 + odd2, even2 - odd2, w2


def gradient_line(y0, y1, y2, y3):
    """A dy"""
    even1, odd1 = y0 + 0.5 * y2, HALF_ROOT * y1 + (0.5 * HALF_ROOT) * y3
    even2, odd2 = y0 + 2 * y2, ROOT * y1 + (2 * ROOT) * y3
    return y0, even1 + odd1, even1 - odd1, even2 + odd2, even2 - odd2, y3


def weight_gradient_line(u0, u1, u2, u3, u4, u5):
    """G^T u"""
    sum1, difference1 = u1 + u2, u1 - u2
    sum2, difference2 = u3 + u4, u3 - u4
    return (u0 - sum1 * (2 / 3) + sum2 * (1 / 6), difference2 * (ROOT / 6) - difference1 * (ROOT / 3),
            (sum2 - sum1) * (1 / 3) + u5)


class Lanes:
    """A vector register in the code that is emitted, with the arithmetic of a number."""

    def __init__(self, builder, value):
        self.builder, self.value = builder, value

    def __add__(self, other: "Lanes") -> "Lanes":
        return Lanes(self.builder, self.builder.fadd(self.value, other.value, flags=("contract",)))

    def __sub__(self, other: "Lanes") -> "Lanes":
        return Lanes(self.builder, self.builder.fsub(self.value, other.value, flags=("contract",)))

    def __mul__(self, number: float) -> "Lanes":
        vector = self.value.type
        constant = vector([float(number)] * vector.count)
        return Lanes(self.builder, self.builder.fmul(self.value, constant, flags=("contract",)))

    __rmul__ = __mul__


def on_grid(line: Callable, cells: list) -> list:
    """Return `line` of the columns of cells[i][j], and then of the rows of what that gives."""
    columns = [line(*column) for column in zip(*cells, strict=True)]
    return [line(*row) for row in zip(*columns, strict=True)]


def _vector_map(line: Callable, size: int, cut: str, biased: bool):
    """The map of `on_both_axes` for one register of channels, as an intrinsic."""
    @intrinsic
    def vectors(typing_context, x, base, row, column, y, at, y_row, y_column, channel, inside, spare, start, floor):
        scalar, lanes = scalar_of(x)
        n = types.intp
        signature = types.void(x, n, n, n, y, n, n, n, n, inside, spare, start, x.dtype)

        def codegen(context, builder, signature, values):
            x_, base, row, column, y_, at, y_row, y_column, channel, inside_, spare_, start_, floor = values
            emit = Emitter(builder, scalar, lanes)
            source, sink, other, bias = (array_data(context, builder, t, v)
                                         for t, v in ((x, x_), (y, y_), (spare, spare_), (start, start_)))
            other = emit.pointer(other, channel)
            top, bottom, left, right = cgutils.unpack_tuple(builder, inside_)

            def within(low, high, number):
                return builder.and_(builder.icmp_signed("<=", low, INT64(number)),
                                    builder.icmp_signed(">", high, INT64(number)))

            def places(array, begin, row, column, count, cut):
                begin = builder.add(begin, channel)
                columns = [within(left, right, j) if cut else None for j in range(count)]
                for i in range(count):
                    beside = within(top, bottom, i) if cut else None
                    for j in range(count):
                        offset = builder.add(builder.mul(row, INT64(i)), builder.mul(column, INT64(j)))
                        place = emit.pointer(array, builder.add(begin, offset))
                        yield builder.select(builder.and_(beside, columns[j]), place, other) if cut else place

            loaded = [Lanes(builder, emit.load(place))
                      for place in places(source, base, row, column, size, cut == "x")]
            made = on_grid(line, [loaded[i * size:(i + 1) * size] for i in range(size)])
            least, added = emit.broadcast(floor), Lanes(builder, emit.load(emit.pointer(bias, channel)))
            sinks = places(sink, at, y_row, y_column, len(made), cut == "y")
            for lane, place in zip(itertools.chain(*made), sinks, strict=True):
                emit.store(emit.at_least((lane + added).value, least) if biased else lane.value, place)
            return context.get_dummy_value()

        return signature, codegen

    return vectors


def on_both_axes(line: Callable, size: int, *, cut: str = "", biased: bool = False) -> Callable:
    """Return the map of size x size numbers, for each of many channels: `line` along the columns, then along the rows.

    map(x, base, row, column, y, at, y_row, y_column, channels, inside, spare, start, floor): cell (i, j) of channel c
    lies at x[base + i * row + j * column + c], and likewise in y; `channels` is a multiple of the vector's length. A
    map with cut="x" reads the cells that are not `inside` (top, bottom, left, right) from `spare`, which holds zeros;
    with cut="y" it writes them there. With `biased` start[c] is added to what comes out, then at least `floor`.
    """
    def plain(x, base, row, column, y, at, y_row, y_column, channels, inside, spare, start, floor):
        top, bottom, left, right = inside
        for c in range(channels):
            def is_cut(i, j):
                return not (top <= i < bottom and left <= j < right)

            cells = [[spare[c] if cut == "x" and is_cut(i, j) else x[base + i * row + j * column + c]
                      for j in range(size)] for i in range(size)]
            for i, values in enumerate(on_grid(line, cells)):
                for j, value in enumerate(values):
                    if biased:
                        value += start[c]
                        value = floor if value < floor else value
                    if cut == "y" and is_cut(i, j):
                        spare[c] = value
                    else:
                        y[at + i * y_row + j * y_column + c] = value

    vectors = _vector_map(line, size, cut, biased)

    @overload(plain, inline="never")
    def compiled(x, base, row, column, y, at, y_row, y_column, channels, inside, spare, start, floor):
        lanes = target().lanes(np.dtype(str(x.dtype)))

        def loop(x, base, row, column, y, at, y_row, y_column, channels, inside, spare, start, floor):
            for c in range(0, channels, lanes):
                vectors(x, base, row, column, y, at, y_row, y_column, c, inside, spare, start, floor)

        # Numba names machine code by function, types and a number that each process counts for itself: the loops of two
        # maps, compiled in two processes and loaded by a third, would be taken for one.
        loop.__qualname__ = f"map_by_{line.__name__}"
        return loop

    return plain


map_inputs = on_both_axes(input_line, IN, cut="x")
map_outputs = on_both_axes(output_line, IN, cut="y", biased=True)
map_weights = on_both_axes(weight_line, 3)
map_gradients = on_both_axes(gradient_line, OUT, cut="x")
map_weight_gradients = on_both_axes(weight_gradient_line, IN)


class Tiles(NamedTuple):
    """The tiles of an output (N, OH, OW): TH x TW an image, over an input (N, H, W) padded by `top` and `left`."""

    N: int
    H: int
    W: int
    OH: int
    OW: int
    TH: int
    TW: int
    top: int
    left: int


def tiles_of(x: np.ndarray, y: np.ndarray, top: int, left: int) -> Tiles:
    """Lay tiles over an output y of an input x."""
    (N, H, W), (OH, OW) = x.shape[:3], y.shape[1:3]
    return Tiles(N, H, W, OH, OW, -(-OH // OUT), -(-OW // OUT), top, left)


@njit(nogil=True)
def reach(begin, size, limit):
    """Which of `size` cells from `begin` on lie inside 0..limit: from, to."""
    return max(0, -begin), min(size, limit - begin)


@kernel
def transform_inputs(first, last, x, step, g, begin, wide, V, plane):
    """V[position, t, c] = B^T x B of tile begin + t, position by position."""
    zeros, none = np.zeros(wide, x.dtype), x.dtype.type(0)
    for t in range(first, last):
        image, tile = (begin + t) // (g.TH * g.TW), (begin + t) % (g.TH * g.TW)
        h, w = tile // g.TW * OUT - g.top, tile % g.TW * OUT - g.left
        inside = reach(h, IN, g.H) + reach(w, IN, g.W)
        map_inputs(x, ((image * g.H + h) * g.W + w) * step, g.W * step, step, V, t * wide, IN * plane, plane, wide,
                   inside, zeros, zeros, none)


@kernel
def transform_outputs(first, last, M, plane, wide, g, begin, channels, start, floor, y, step):
    """y = A^T M A + start of tile begin + t, at least `floor`; what lies outside the output is left out."""
    waste = np.empty(wide, y.dtype)
    for t in range(first, last):
        image, tile = (begin + t) // (g.TH * g.TW), (begin + t) % (g.TH * g.TW)
        h, w = tile // g.TW * OUT, tile % g.TW * OUT
        inside = reach(h, OUT, g.OH) + reach(w, OUT, g.OW)
        map_outputs(M, t * wide, IN * plane, plane, y, ((image * g.OH + h) * g.OW + w) * step, g.OW * step, step,
                    channels, inside, waste, start, floor)


@kernel
def transform_weights(first, last, packed, C, wide, U, NR):
    """U[position, block, c, o] = G w G^T; `packed` and each position of U are blocks of NR output channels."""
    zero = packed.dtype.type(0)
    for c in range(first, last):
        for o in range(0, wide, NR):
            width = min(NR, wide - o)
            map_weights(packed, o * 9 * C + c * width, 3 * C * width, C * width, U, o * C + c * width,
                        IN * C * wide, C * wide, width, (0, 3, 0, 3), packed, packed, zero)


@kernel
def multiply_positions(first, last, V, plane_in, wide_in, C, U, wide, M, plane, room, parts, runs, MR, NR):
    """M[position, t, o] = sum over c of V[position, t, c] * U[position, c, o].

    An item is one of `parts` parts of the blocks of one position, for one of `runs` runs of its tiles."""
    rows, zeros = np.empty(room, np.int64), np.zeros(max(C, NR), V.dtype)
    blocks = (wide + NR - 1) // NR
    for item in range(first, last):
        position, part, run = item // (parts * runs), item // runs % parts, item % runs
        begin, end = run * (room // MR) // runs * MR, (run + 1) * (room // MR) // runs * MR
        for t in range(begin, end):
            rows[t] = position * plane_in + t * wide_in
        for b in range(part * blocks // parts, (part + 1) * blocks // parts):
            o = b * NR
            for t in range(begin, end, MR):
                wo, mo = (position * wide + o) * C, position * plane + t * wide + o
                if wide - o >= NR:
                    forward_tile(V, zeros, rows, t, 1, C, U, wo, zeros, 0, M, mo, wide, False, MR, NR)
                else:
                    half_tile(V, zeros, rows, t, 1, C, U, wo, zeros, 0, M, mo, wide, False, MR, NR // 2)


@kernel
def transform_gradients(first, last, dy, step, g, begin, channels, D, plane, room, NR):
    """D[position, block, t, o] = A dy A^T of tile begin + t."""
    zeros, none = np.zeros(NR, dy.dtype), dy.dtype.type(0)
    for t in range(first, last):
        image, tile = (begin + t) // (g.TH * g.TW), (begin + t) % (g.TH * g.TW)
        h, w = tile // g.TW * OUT, tile % g.TW * OUT
        inside = reach(h, OUT, g.OH) + reach(w, OUT, g.OW)
        for o in range(0, channels, NR):
            map_gradients(dy, ((image * g.OH + h) * g.OW + w) * step + o, g.OW * step, step, D, o * room + t * NR,
                          IN * plane, plane, min(NR, channels - o), inside, zeros, zeros, none)


@kernel
def sum_positions(first, last, V, plane_in, wide_in, n, C, D, plane, blocks, room, dU, add, shares, parts, NR):
    """dU[position, c, o] = sum over tiles t < n of V[position, t, c] * D[position, t, o], or += if add.

    An item is one of `shares` ranges of the channels c and one of `parts` parts of the blocks of one position."""
    rows, zeros = np.empty(room, np.int64), np.zeros(C, V.dtype)
    for item in range(first, last):
        position, share, part = item // (shares * parts), item // parts % shares, item % parts
        for t in range(n):
            rows[t] = position * plane_in + t * wide_in
        c, end = share * C // shares, (share + 1) * C // shares
        while c < end:
            height = tile_height(end - c)
            for b in range(part * blocks // parts, (part + 1) * blocks // parts):
                gradient_tile(V, zeros, rows, 0, n, c, D, position * plane + b * room * NR,
                              dU, ((position * C + c) * blocks + b) * NR, blocks * NR, add, height, NR)
            c += height


@kernel
def transform_weight_gradients(first, last, dU, C, wide, O, dw):
    """dw[kh, kw, c, o] = G^T dU G"""
    zero = dU.dtype.type(0)
    patch = np.empty(9 * wide, dU.dtype)
    for c in range(first, last):
        map_weight_gradients(dU, c * wide, IN * C * wide, C * wide, patch, 0, 3 * wide, wide, wide,
                             (0, IN, 0, IN), patch, patch, zero)
        for tap in range(9):
            for o in range(O):
                dw[tap * C + c, o] = patch[tap * wide + o]


def apart(size: int) -> int:
    """Return a distance between planes of `size` values that does not put all of them into the same lines of L1."""
    return -(-size // 1024) * 1024 + PAD


def with_lanes(x: np.ndarray) -> np.ndarray:
    """Return x (N, H, W, C) with C filled up by zeros to whole vectors, x itself where nothing is missing."""
    missing = -x.shape[3] % target().lanes(x.dtype)
    return np.pad(x, ((0, 0), (0, 0), (0, 0), (0, missing))) if missing else x


def tiles_at_once(count: int, channels: int, itemsize: int) -> int:
    """Return how many of `count` tiles go through the three steps together: what is between them should stay in L3."""
    return min(count, max(24, CACHE * runtime.get_threads() // (POSITIONS * channels * itemsize)))


def mapped_weights(w: np.ndarray, flip: bool, C: int, wide: int) -> np.ndarray:
    """Return G w G^T, (POSITIONS, blocks of `wide` output channels, C), flat."""
    def mapped() -> np.ndarray:
        U = scratch(POSITIONS * C * wide, w.dtype)
        transform_weights(C, packed_weights(w, flip), C, wide, U, block_width(w.dtype))
        return U

    return constant("winograd, flipped" if flip else "winograd", w, mapped)


def winograd_product(x: np.ndarray, w: np.ndarray, start: np.ndarray | None, y: np.ndarray, top: int, left: int,
                     relu: bool = False, flip: bool = False) -> None:
    """Write y (N, OH, OW, O), x (N, H, W, C) padded by `top` and `left` and convolved with w (3, 3, C, O).

    The sums begin at `start` (O,), or at zero. With `flip`, w is (3, 3, O, C) and is turned around."""
    C, O = x.shape[3], y.shape[3]
    real, lanes, NR = x.dtype.type, target().lanes(x.dtype), block_width(x.dtype)
    if O % lanes:  # whole vectors are stored
        whole = np.empty((*y.shape[:3], O + -O % lanes), y.dtype)
        channels = ((0, -O % lanes), (0, 0)) if flip else ((0, 0), (0, -O % lanes))
        winograd_product(x, np.pad(w, ((0, 0), (0, 0), *channels)),
                         None if start is None else np.pad(start, (0, -O % lanes)), whole, top, left, relu, flip)
        y[...] = whole[..., :O]
        return
    x = with_lanes(x)
    g, (rows, step), (y_rows, y_step) = tiles_of(x, y, top, left), as_rows(x), as_rows(y)
    wide_in, wide = x.shape[3], -(-O // (NR // 2)) * (NR // 2)
    U = mapped_weights(w, flip, C, wide)
    bias = np.zeros(wide, x.dtype) if start is None else start
    tiles = g.N * g.TH * g.TW
    room = -(-tiles_at_once(tiles, wide_in + wide, x.itemsize) // MR) * MR
    plane_in, plane = apart(room * wide_in), apart(room * wide)
    V, M = scratch(POSITIONS * plane_in, x.dtype), scratch(POSITIONS * plane, x.dtype)
    parts = splits(POSITIONS, -(-wide // NR))
    runs = splits(POSITIONS * parts, room // MR)
    floor = real(0) if relu else real(-np.inf)
    for begin in range(0, tiles, room):
        n = min(room, tiles - begin)
        transform_inputs(n, rows, step, g, begin, wide_in, V, plane_in)
        multiply_positions(POSITIONS * parts * runs, V, plane_in, wide_in, C, U, wide, M, plane, room, parts,
                           runs, MR, NR)
        transform_outputs(n, M, plane, wide, g, begin, O, bias, floor, y_rows, y_step)


def winograd_weight_gradient(x: np.ndarray, dy: np.ndarray, top: int, left: int) -> np.ndarray:
    """Return dw (3, 3, C, O) for x (N, H, W, C) padded by `top` and `left`, and dy (N, OH, OW, O)."""
    C, O, NR = x.shape[3], dy.shape[3], block_width(x.dtype)
    x, dy = with_lanes(x), with_lanes(dy)
    g, (rows, step), (dy_rows, dy_step) = tiles_of(x, dy, top, left), as_rows(x), as_rows(dy)
    wide_in, blocks = x.shape[3], -(-O // NR)
    tiles = g.N * g.TH * g.TW
    room = tiles_at_once(tiles, wide_in + blocks * NR, x.itemsize)
    plane_in, plane = apart(room * wide_in), apart(blocks * room * NR)
    V, D = scratch(POSITIONS * plane_in, x.dtype), scratch(POSITIONS * plane, x.dtype)
    dU = scratch(POSITIONS * C * blocks * NR, x.dtype)
    shares = splits(POSITIONS, max(1, C // 24))
    parts = splits(POSITIONS * shares, blocks)
    for begin in range(0, tiles, room):
        n = min(room, tiles - begin)
        transform_inputs(n, rows, step, g, begin, wide_in, V, plane_in)
        transform_gradients(n, dy_rows, dy_step, g, begin, dy.shape[3], D, plane, room, NR)
        sum_positions(POSITIONS * shares * parts, V, plane_in, wide_in, n, C, D, plane, blocks, room, dU, begin > 0,
                      shares, parts, NR)
    dw = np.empty((9 * C, O), x.dtype)
    transform_weight_gradients(C, dU, C, blocks * NR, O, dw)
    return dw.reshape(3, 3, C, O)
