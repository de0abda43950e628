"""Max pooling (paper, Table 1: 3x3 windows at steps of 2 between stages, of 1 inside a module).

    y[n, i, j, c]  = max over kh, kw of x[n, i SH + kh - top, j SW + kw - left, c], over the cells inside the image
    dx[n, h, w, c] = sum of dy[n, i, j, c] over the windows (i, j) whose maximum lies at (h, w)

Of equal values the first in reading order is the maximum, as in Caffe; a NaN beats every number, so that it shows. The
gradient is gathered: each input pixel asks the windows over it, so that threads never write to the same place.
"""
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from minigrad.errors import InputError
from minigrad.kernels.parallel import kernel
from minigrad.kernels.plan import empty
from minigrad.kernels.tile import INT64, Emitter, array_data, scalar_of
from minigrad.kernels.windows import Padding, Pair, Windows, windows
from minigrad.op import Op
from minigrad.tensor import Tensor


class MaxPool2d(Op):
    def __init__(self, over: Windows):
        self.over = over

    def forward(self, x):
        over = self.over
        N, _, _, C = self.shape = x.shape
        y = empty((N, over.OH, over.OW, C), x.dtype)
        cells = np.uint8 if over.KH * over.KW <= 256 else np.int32
        self.winner = empty((y.size,), cells)  # which kernel cell each maximum came from
        max_pool_forward(N * over.OH, np.ascontiguousarray(x).reshape(-1), C, over, y.reshape(-1), self.winner)
        return y

    def backward(self, dy):
        C = dy.shape[-1]
        dx = np.empty(self.shape, dy.dtype)
        dy = np.ascontiguousarray(dy).reshape(-1)
        max_pool_backward(dx.shape[0] * dx.shape[1], dy, self.winner, C, self.over, dx.reshape(-1))
        return (dx,)


def max_pool2d(x: Tensor, kernel: Pair, *, stride: Pair | None = None, padding: Padding = 0,
               ceil: bool = False) -> Tensor:
    """Return the maximum of each window of x (N, H, W, C): (N, OH, OW, C); `stride` is the kernel's size unless given.

    `padding` and `ceil` are as in `kernels.windows.windows`. Raises InputError where no window fits or the padding is
    as wide as the kernel.
    """
    over = windows(x.shape, kernel, kernel if stride is None else stride, padding, ceil)
    if max(over.top, over.bottom) >= over.KH or max(over.left, over.right) >= over.KW:
        raise InputError(f"padding {padding} is as wide as the {over.KH}x{over.KW} kernel: "
                         "a window would lie outside the image; use less")
    return MaxPool2d(over)(x)


@kernel
def max_pool_forward(first, last, x, C, g, y, winner):
    """y[n, oh, ow, c] = max over the window; winner[n, oh, ow, c] = which kernel cell it was; a row is (n, oh)."""
    places, cells = np.empty(g.KH * g.KW, np.int64), np.empty(g.KH * g.KW, np.int32)
    for row in range(first, last):
        n, top = row // g.OH, row % g.OH * g.SH - g.top
        for ow in range(g.OW):
            left = ow * g.SW - g.left
            count = 0
            for h in range(max(top, 0), min(top + g.KH, g.H)):
                for w in range(max(left, 0), min(left + g.KW, g.W)):
                    places[count], cells[count] = ((n * g.H + h) * g.W + w) * C, (h - top) * g.KW + w - left
                    count += 1
            window_max(x, places, cells, count, C, y, winner, (row * g.OW + ow) * C)


@kernel
def max_pool_backward(first, last, dy, winner, C, g, dx):
    """dx[n, h, w, c] = sum of dy[n, i, j, c] over the windows (i, j) that (h, w) won; a row is (n, h)."""
    places, cells = np.empty(g.KH * g.KW, np.int64), np.empty(g.KH * g.KW, np.int32)
    for row in range(first, last):
        n, h = row // g.H, row % g.H + g.top
        i0, i1 = max((h - g.KH + g.SH) // g.SH, 0), min(h // g.SH + 1, g.OH)
        j0, j1 = 0, 0  # the windows over pixel w
        for w in range(g.W):
            while j0 * g.SW + g.KW <= w + g.left:
                j0 += 1
            while j1 < g.OW and j1 * g.SW <= w + g.left:
                j1 += 1
            count = 0
            for i in range(i0, i1):
                for j in range(j0, j1):
                    places[count] = ((n * g.OH + i) * g.OW + j) * C
                    cells[count] = (h - i * g.SH) * g.KW + w + g.left - j * g.SW
                    count += 1
            won_sum(dy, winner, places, cells, count, C, dx, (row * g.W + w) * C)


# What a pixel needs is kept in registers over all cells of a window: so these two are written as loops, which define
# them, and again as LLVM vectors (as in kernels/tile.py).

def window_max(x, places, cells, count, C, y, winner, at):
    """y[at + c] = the largest of x[places[k] + c] over k < count, winner[at + c] = the first such k's cells[k]."""
    for c in range(C):
        y[at + c], winner[at + c] = x[places[0] + c], cells[0]
        for k in range(1, count):
            value = x[places[k] + c]
            if value > y[at + c] or value != value:
                y[at + c], winner[at + c] = value, cells[k]


def won_sum(dy, winner, places, cells, count, C, dx, at):
    """dx[at + c] = sum of dy[places[k] + c] over the k < count with winner[places[k] + c] = cells[k]."""
    for c in range(C):
        dx[at + c] = 0
        for k in range(count):
            if winner[places[k] + c] == cells[k]:
                dx[at + c] += dy[places[k] + c]


def _vector_max(vectors: int):
    """`window_max` of `vectors` registers of channels, as an intrinsic."""
    @intrinsic
    def window(typing_context, x, places, cells, count, c, y, winner, at):
        scalar, lanes = scalar_of(x)
        n = types.intp
        signature = types.void(x, places, cells, n, n, y, winner, n)

        def codegen(context, builder, signature, values):
            x_, places_, cells_, count, c, y_, winner_, at = values
            arrays = zip((x, places, cells, y, winner), (x_, places_, cells_, y_, winner_), strict=True)
            px, pplaces, pcells, py, pwinner = (array_data(context, builder, t, v) for t, v in arrays)
            emit, numbers = Emitter(builder, scalar, lanes), Emitter(builder, ir.IntType(32), lanes)
            best, won = emit.sums(1, vectors)[0], numbers.sums(1, vectors)[0]

            def cell(k):
                place = builder.add(builder.load(builder.gep(pplaces, [k])), c)
                number = numbers.broadcast(builder.load(builder.gep(pcells, [k])))
                pointers = [emit.pointer(px, builder.add(place, INT64(v * lanes))) for v in range(vectors)]
                for pointer in pointers:
                    emit.prefetch(pointer, AHEAD)
                return [emit.load(pointer) for pointer in pointers], number

            loaded, number = cell(INT64(0))
            for v in range(vectors):
                builder.store(loaded[v], best[v])
                builder.store(number, won[v])
            with cgutils.for_range_slice(builder, INT64(1), count, INT64(1)) as (k, _):
                loaded, number = cell(k)
                for v in range(vectors):
                    before = builder.load(best[v])
                    larger = builder.fcmp_ordered(">", loaded[v], before)
                    take = builder.or_(larger, builder.fcmp_unordered("uno", loaded[v], loaded[v]))
                    builder.store(builder.select(take, loaded[v], before), best[v])
                    builder.store(builder.select(take, number, builder.load(won[v])), won[v])
            for v in range(vectors):
                place = builder.add(builder.add(at, c), INT64(v * lanes))
                emit.store(builder.load(best[v]), emit.pointer(py, place))
                numbers.store_as(context.get_value_type(winner.dtype), builder.load(won[v]),
                                 emit.pointer(pwinner, place))
            return context.get_dummy_value()

        return signature, codegen

    return window


def _vector_sum(vectors: int):
    """`won_sum` of `vectors` registers of channels, as an intrinsic."""
    @intrinsic
    def windows(typing_context, dy, winner, places, cells, count, c, dx, at):
        scalar, lanes = scalar_of(dy)
        n = types.intp
        signature = types.void(dy, winner, places, cells, n, n, dx, n)

        def codegen(context, builder, signature, values):
            dy_, winner_, places_, cells_, count, c, dx_, at = values
            arrays = zip((dy, winner, places, cells, dx), (dy_, winner_, places_, cells_, dx_), strict=True)
            pdy, pwinner, pplaces, pcells, pdx = (array_data(context, builder, t, v) for t, v in arrays)
            number = context.get_value_type(winner.dtype)
            emit, numbers = Emitter(builder, scalar, lanes), Emitter(builder, number, lanes)
            sums, zero = emit.sums(1, vectors)[0], ir.Constant(emit.vector, [0.0] * lanes)
            sinks = [emit.pointer(pdx, builder.add(builder.add(at, c), INT64(v * lanes))) for v in range(vectors)]
            for register, sink in zip(sums, sinks, strict=True):
                emit.prefetch(sink, AHEAD, write=True)
                builder.store(zero, register)
            with cgutils.for_range(builder, count) as loop:
                begin = builder.add(builder.load(builder.gep(pplaces, [loop.index])), c)
                cell = builder.load(builder.gep(pcells, [loop.index]))
                wanted = numbers.broadcast(cell if number.width == 32 else builder.trunc(cell, number))
                for v, register in enumerate(sums):
                    place = builder.add(begin, INT64(v * lanes))
                    won = builder.icmp_unsigned("==", numbers.load(numbers.pointer(pwinner, place)), wanted)
                    share = builder.select(won, emit.load(emit.pointer(pdy, place)), zero)
                    builder.store(builder.fadd(builder.load(register), share), register)
            for register, sink in zip(sums, sinks, strict=True):
                emit.store(builder.load(register), sink)
            return context.get_dummy_value()

        return signature, codegen

    return windows


AHEAD = 4096
TOGETHER = 4  # registers of channels
max_of_four, max_of_one = _vector_max(TOGETHER), _vector_max(1)
sum_of_four, sum_of_one = _vector_sum(TOGETHER), _vector_sum(1)


@overload(window_max, inline="never")
def _window_max(x, places, cells, count, C, y, winner, at):
    lanes = scalar_of(x)[1]

    def compiled(x, places, cells, count, C, y, winner, at):
        c = 0
        while c + TOGETHER * lanes <= C:
            max_of_four(x, places, cells, count, c, y, winner, at)
            c += TOGETHER * lanes
        while c + lanes <= C:
            max_of_one(x, places, cells, count, c, y, winner, at)
            c += lanes
        for last in range(c, C):
            best, cell = x[places[0] + last], cells[0]
            for k in range(1, count):
                value = x[places[k] + last]
                if value > best or value != value:
                    best, cell = value, cells[k]
            y[at + last], winner[at + last] = best, cell

    return compiled


@overload(won_sum, inline="never")
def _won_sum(dy, winner, places, cells, count, C, dx, at):
    lanes = scalar_of(dy)[1]

    def compiled(dy, winner, places, cells, count, C, dx, at):
        c = 0
        while c + TOGETHER * lanes <= C:
            sum_of_four(dy, winner, places, cells, count, c, dx, at)
            c += TOGETHER * lanes
        while c + lanes <= C:
            sum_of_one(dy, winner, places, cells, count, c, dx, at)
            c += lanes
        for last in range(c, C):
            total = dy.dtype.type(0)
            for k in range(count):
                if winner[places[k] + last] == cells[k]:
                    total += dy[places[k] + last]
            dx[at + last] = total

    return compiled
