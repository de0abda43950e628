"""Rectified linear unit (paper, section 5: after every convolution, reductions and projections too).

    y  = max(x, 0)
    dx = dy where y > 0, else 0

A convolution applies it as it stores its sums (`conv2d(..., relu=True)`) and calls `masked_gradient` on the way back,
which also sums the bias gradient, so that dy is read once.
"""
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from minigrad.kernels.elementwise import as_rows
from minigrad.kernels.parallel import kernel
from minigrad.kernels.plan import empty
from minigrad.kernels.tile import INT64, Emitter, array_data, scalar_of
from minigrad.op import Op
from minigrad.tensor import Tensor

PART, MOST_PARTS = 64, 1024  # pixels of one partial sum of db: many short sums round less than a few long ones


class Relu(Op):
    def forward(self, x):
        x = np.ascontiguousarray(x)
        self.y = empty(x.shape, x.dtype)
        relu_forward(x.size, x.reshape(-1), self.y.reshape(-1))
        return self.y

    def backward(self, dy):
        dx = np.empty_like(self.y)
        relu_backward(dx.size, np.ascontiguousarray(dy).reshape(-1), self.y.reshape(-1), dx.reshape(-1))
        return (dx,)


def relu(x: Tensor) -> Tensor:
    """Return max(x, 0), of any shape."""
    return Relu()(x)


def masked_gradient(dy: np.ndarray, y: np.ndarray | None,
                    out: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return (dz, db) for y = max(z + b, 0), or y = z + b where `y` is None; dy is (..., O), db is (O,).

    dz is written to `out` if given, a slice of a buffer."""
    O = dy.shape[-1]
    pixels = dy.size // O
    parts = min(MOST_PARTS, -(-pixels // PART))
    sums = np.zeros((parts, O), dy.dtype)
    dy_rows, dy_step = as_rows(dy)
    if y is None:
        sum_rows(parts, pixels, dy_rows, dy_step, sums)
        if out is None:
            return dy, sums.sum(0)
        out[...] = dy
        return out, sums.sum(0)
    dz = np.empty(dy.shape, dy.dtype) if out is None else out
    mask_rows(parts, pixels, dy_rows, dy_step, *as_rows(y), *as_rows(dz), sums)
    return dz, sums.sum(0)


@kernel
def relu_forward(first, last, x, y):
    """y[i] = max(x[i], 0)"""
    zero = x.dtype.type(0)  # a literal 0 would make the arithmetic float64
    x, y = x[first:last], y[first:last]
    for i in range(y.size):
        y[i] = zero if x[i] < zero else x[i]


@kernel
def relu_backward(first, last, dy, y, dx):
    """dx[i] = dy[i] if y[i] > 0"""
    zero = y.dtype.type(0)
    dy, y, dx = dy[first:last], y[first:last], dx[first:last]
    for i in range(dx.size):
        dx[i] = dy[i] if y[i] > zero else zero


@kernel
def mask_rows(first, last, pixels, dy, dy_step, y, y_step, dz, dz_step, sums):
    """dz[p, o] = dy[p, o] if y[p, o] > 0;  sums[part, o] = sum over the part's pixels p of dz[p, o]"""
    parts, O = sums.shape
    for part in range(first, last):
        p, end = part * pixels // parts, (part + 1) * pixels // parts
        mask_pixels(dy, p * dy_step, dy_step, y, p * y_step, y_step, dz, p * dz_step, dz_step, end - p, O, sums[part])


@kernel
def sum_rows(first, last, pixels, dy, dy_step, sums):
    """sums[part, o] = sum over the part's pixels p of dy[p, o]"""
    parts, O = sums.shape
    for part in range(first, last):
        total = sums[part]
        for p in range(part * pixels // parts, (part + 1) * pixels // parts):
            row = dy[p * dy_step:p * dy_step + O]
            for o in range(O):
                total[o] += row[o]


def mask_pixels(dy, dy_at, dy_step, y, y_at, y_step, dz, dz_at, dz_step, pixels, O, sums):
    """dz[p, o] = dy[p, o] if y[p, o] > 0, sums[o] += dz[p, o]; pixels `step` apart, the first where `at` says.

    These loops are the definition; below are the same as LLVM vectors (see kernels/tile.py), which keep the sums in
    registers over all pixels.
    """
    for p in range(pixels):
        for o in range(O):
            positive = y[y_at + p * y_step + o] > 0
            dz[dz_at + p * dz_step + o] = dy[dy_at + p * dy_step + o] if positive else 0
            sums[o] += dz[dz_at + p * dz_step + o]


def _vector_mask(vectors: int):
    """`mask_pixels` of `vectors` registers of channels from o on, as an intrinsic."""
    @intrinsic
    def mask(typing_context, dy, dy_at, dy_step, y, y_at, y_step, dz, dz_at, dz_step, pixels, o, sums):
        scalar, lanes = scalar_of(dy)
        n = types.intp
        signature = types.void(dy, n, n, y, n, n, dz, n, n, n, n, sums)

        def codegen(context, builder, signature, values):
            dy_, dy_at, dy_step, y_, y_at, y_step, dz_, dz_at, dz_step, pixels, o, sums_ = values
            emit = Emitter(builder, scalar, lanes)
            pdy, py, pdz, psums = (array_data(context, builder, t, v)
                                   for t, v in ((dy, dy_), (y, y_), (dz, dz_), (sums, sums_)))
            totals = emit.sums(1, vectors)[0]
            places = [emit.pointer(psums, builder.add(o, INT64(v * lanes))) for v in range(vectors)]
            for total, place in zip(totals, places, strict=True):
                builder.store(emit.load(place), total)
            zero = ir.Constant(emit.vector, [0.0] * lanes)
            with cgutils.for_range(builder, pixels) as loop:
                def line(array, at, step, v, ahead=0):
                    pixel = builder.mul(builder.add(loop.index, INT64(ahead)), step)
                    return emit.pointer(array, builder.add(builder.add(at, pixel), builder.add(o, INT64(v * lanes))))

                for v, total in enumerate(totals):
                    for array, at, step in ((pdy, dy_at, dy_step), (py, y_at, y_step)):
                        emit.prefetch(line(array, at, step, v, PIXELS_AHEAD), 0)
                    positive = builder.fcmp_ordered(">", emit.load(line(py, y_at, y_step, v)), zero)
                    value = builder.select(positive, emit.load(line(pdy, dy_at, dy_step, v)), zero)
                    emit.store(value, line(pdz, dz_at, dz_step, v))
                    builder.store(builder.fadd(builder.load(total), value), total)
            for total, place in zip(totals, places, strict=True):
                emit.store(builder.load(total), place)
            return context.get_dummy_value()

        return signature, codegen

    return mask


PIXELS_AHEAD = 8  # asked for before they are needed: the CPU does not foresee rows that lie apart
TOGETHER = 4  # registers of channels
mask_four, mask_one = _vector_mask(TOGETHER), _vector_mask(1)


@overload(mask_pixels, inline="never")
def _mask_pixels(dy, dy_at, dy_step, y, y_at, y_step, dz, dz_at, dz_step, pixels, O, sums):
    lanes = scalar_of(dy)[1]

    def compiled(dy, dy_at, dy_step, y, y_at, y_step, dz, dz_at, dz_step, pixels, O, sums):
        o, zero = 0, dy.dtype.type(0)
        while o + TOGETHER * lanes <= O:
            mask_four(dy, dy_at, dy_step, y, y_at, y_step, dz, dz_at, dz_step, pixels, o, sums)
            o += TOGETHER * lanes
        while o + lanes <= O:
            mask_one(dy, dy_at, dy_step, y, y_at, y_step, dz, dz_at, dz_step, pixels, o, sums)
            o += lanes
        for last in range(o, O):
            for p in range(pixels):
                positive = y[y_at + p * y_step + last] > zero
                dz[dz_at + p * dz_step + last] = dy[dy_at + p * dy_step + last] if positive else zero
                sums[last] += dz[dz_at + p * dz_step + last]

    return compiled
