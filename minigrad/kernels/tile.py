"""The register tile: a block of pixels x output channels whose sums stay in vector registers.

Both tiles are written twice. The plain loops are the definition: what a reader reads and what runs under
NUMBA_DISABLE_JIT=1. Compiled code gets the same sums as LLVM vectors, attached below by `overload`: every sum
has a register of its own, one input value at a time is broadcast and multiplied with a vector of weights.

An input is described by `rows`: for each kernel tap and pixel, where the C values under that tap begin in the flat
array `x`, or -1 outside the image, where `zeros` is read. That is im2col's matrix without its copies.
"""
import itertools

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from minigrad.kernels.target import target

INT32, INT64 = ir.IntType(32), ir.IntType(64)
AHEAD = 8192  # bytes: weights are asked for before they are needed, as they come from L3 or further when images are few
HEIGHTS = target().heights  # rows of weights that one call of `gradient_tile` sums


def forward_tile(x, zeros, rows, at, taps, C, w, wo, start, so, y, yo, step, relu, MR, NR):
    """y[i, j] = start[j] + sum over t, c of x[rows[t, i] + c] * w[t, c, j], at least 0 if relu.

    The tile has MR pixels i and NR channels j. `at`, `wo`, `so`, `yo` are where it begins in the flat `rows`, `w`,
    `start`, `y`; `step` lies between y's pixels.
    """
    for i in range(MR):
        for j in range(NR):
            s = start[so + j]
            for t in range(taps):
                row = rows[at + t * MR + i]
                for c in range(C):
                    s += (x[row + c] if row >= 0 else zeros[c]) * w[wo + (t * C + c) * NR + j]
            y[yo + i * step + j] = max(s, 0) if relu else s


def half_tile(x, zeros, rows, at, taps, C, w, wo, start, so, y, yo, step, relu, MR, NR):
    """`forward_tile` for NR of half the width, for the channels that are left over."""
    forward_tile(x, zeros, rows, at, taps, C, w, wo, start, so, y, yo, step, relu, MR, NR)


def gradient_tile(x, zeros, rows, at, pixels, c, dy, do, dw, wo, step, add, MC, NR):
    """dw[i, j] = sum over pixels p of x[rows[p] + c + i] * dy[p, j], or += if add; MC input x NR output channels.

    `dy` is packed (pixels, NR); `at`, `do` and `wo` are where the tile begins in the flat `rows`, `dy` and `dw`.
    """
    for i in range(MC):
        for j in range(NR):
            s = zeros[0]
            for p in range(pixels):
                row = rows[at + p]
                s += (x[row + c + i] if row >= 0 else zeros[c + i]) * dy[do + p * NR + j]
            dw[wo + i * step + j] = dw[wo + i * step + j] + s if add else s


class Emitter:
    """Emits vector code for one tile: `lanes` values of `scalar` a register."""

    def __init__(self, builder, scalar: ir.Type, lanes: int):
        self.builder, self.scalar, self.lanes = builder, scalar, lanes
        self.bytes = {ir.FloatType(): 4, ir.DoubleType(): 8}.get(scalar) or scalar.width // 8
        self.vector = ir.VectorType(scalar, lanes)

    def pointer(self, base, offset):
        """The address of value `offset` of the flat array at `base`."""
        return self.builder.gep(base, [offset])

    def load(self, pointer):
        return self.builder.load(self.builder.bitcast(pointer, self.vector.as_pointer()), align=self.bytes)

    def store(self, value, pointer):
        self.builder.store(value, self.builder.bitcast(pointer, self.vector.as_pointer()), align=self.bytes)

    def prefetch(self, pointer, ahead: int, write: bool = False):
        """Ask for the line that lies `ahead` bytes behind the pointer, to be read or written soon."""
        i8 = ir.IntType(8)
        signature = ir.FunctionType(ir.VoidType(), [i8.as_pointer(), INT32, INT32, INT32])
        function = cgutils.get_or_insert_function(self.builder.module, signature, "llvm.prefetch.p0")
        place = self.builder.gep(self.builder.bitcast(pointer, i8.as_pointer()), [INT64(ahead)])
        self.builder.call(function, [place, INT32(int(write)), INT32(3), INT32(1)])

    def store_as(self, scalar: ir.IntType, value, pointer):
        """Store integers as narrower ones."""
        vector = ir.VectorType(scalar, self.lanes)
        if scalar != self.scalar:
            value = self.builder.trunc(value, vector)
        self.builder.store(value, self.builder.bitcast(pointer, vector.as_pointer()), align=scalar.width // 8)

    def broadcast(self, value):
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, value, INT32(0))
        zeros = ir.Constant(ir.VectorType(INT32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, undefined, zeros)

    def sums(self, height: int, width: int):
        """Registers for height x width vectors (LLVM turns these stack slots into registers)."""
        return [[cgutils.alloca_once(self.builder, self.vector) for _ in range(width)] for _ in range(height)]

    def add_products(self, sums, inputs, weights):
        """sums[i][j] += inputs[i] * weights[j], inputs being addresses of single values."""
        # fmuladd, not fma: on a CPU without fused multiply-add the latter is a library call.
        multiply_add = cgutils.get_or_insert_function(
            self.builder.module, ir.FunctionType(self.vector, [self.vector] * 3),
            f"llvm.fmuladd.v{self.lanes}f{8 * self.bytes}")
        for row, pointer in zip(sums, inputs, strict=True):
            value = self.broadcast(self.builder.load(pointer))
            for register, weight in zip(row, weights, strict=True):
                total = self.builder.call(multiply_add, [value, weight, self.builder.load(register)])
                self.builder.store(total, register)

    def row(self, x, zeros, rows, index):
        """The address of the input row that rows[index] tells, or of the zeros."""
        offset = self.builder.load(self.builder.gep(rows, [index]))
        outside = self.builder.icmp_signed("<", offset, INT64(0))
        return self.builder.select(outside, zeros, self.pointer(x, offset))

    def floor(self, relu):
        """A vector of 0 if relu, else of minus infinity."""
        wanted = cgutils.is_not_null(self.builder, relu)
        return self.broadcast(self.builder.select(wanted, self.scalar(0.0), self.scalar(float("-inf"))))

    def at_least(self, value, floor):
        """`floor` where the value is less, so that a NaN stays one."""
        return self.builder.select(self.builder.fcmp_ordered("<", value, floor), floor, value)


def scalar_of(array: types.Array) -> tuple[ir.Type, int]:
    """Return the LLVM type of an array's values, and how many a register holds."""
    scalar = ir.FloatType() if array.dtype == types.float32 else ir.DoubleType()
    return scalar, target().vector_bytes // (4 if array.dtype == types.float32 else 8)


def array_data(context, builder, array: types.Array, value):
    """Return the address of an array's values."""
    return context.make_array(array)(context, builder, value).data


def _vector_forward(height: int, width: int):
    """The tile of `height` pixels x `width` vectors of channels, as an intrinsic."""
    @intrinsic
    def tile(typing_context, x, zeros, rows, at, taps, C, w, wo, start, so, y, yo, step, relu):
        scalar, lanes = scalar_of(x)
        n = types.intp
        signature = types.void(x, zeros, rows, n, n, n, w, n, start, n, y, n, n, n)

        def codegen(context, builder, signature, values):
            x_, zeros_, rows_, at, taps, C, w_, wo, start_, so, y_, yo, step, relu = values
            emit = Emitter(builder, scalar, lanes)
            arrays = zip((x, zeros, rows, w, start, y), (x_, zeros_, rows_, w_, start_, y_), strict=True)
            px, pzeros, prows, pw, pstart, py = (array_data(context, builder, t, v) for t, v in arrays)
            sums = emit.sums(height, width)
            for j in range(width):
                first = emit.load(emit.pointer(pstart, builder.add(so, INT64(j * lanes))))
                for i in range(height):
                    builder.store(first, sums[i][j])
            with cgutils.for_range(builder, taps) as tap:
                begin = builder.add(at, builder.mul(tap.index, INT64(height)))
                inputs = [emit.row(px, pzeros, prows, builder.add(begin, INT64(i))) for i in range(height)]
                depth = builder.mul(tap.index, C)
                panel = emit.pointer(pw, builder.add(wo, builder.mul(depth, INT64(width * lanes))))
                with cgutils.for_range(builder, C) as c:
                    line = builder.mul(c.index, INT64(width * lanes))
                    places = [emit.pointer(panel, builder.add(line, INT64(j * lanes))) for j in range(width)]
                    for place in places:
                        emit.prefetch(place, AHEAD)
                    weights = [emit.load(place) for place in places]
                    emit.add_products(sums, [emit.pointer(p, c.index) for p in inputs], weights)
            floor = emit.floor(relu)
            for i in range(height):
                line = builder.add(yo, builder.mul(step, INT64(i)))
                for j in range(width):
                    value = emit.at_least(builder.load(sums[i][j]), floor)
                    emit.store(value, emit.pointer(py, builder.add(line, INT64(j * lanes))))
            return context.get_dummy_value()

        return signature, codegen

    return tile


def _vector_gradient(height: int, width: int):
    """The tile of `height` input channels x `width` vectors of output channels, as an intrinsic."""
    @intrinsic
    def tile(typing_context, x, zeros, rows, at, pixels, c, dy, do, dw, wo, step, add):
        scalar, lanes = scalar_of(x)
        n = types.intp
        signature = types.void(x, zeros, rows, n, n, n, dy, n, dw, n, n, types.boolean)

        def codegen(context, builder, signature, values):
            x_, zeros_, rows_, at, pixels, c, dy_, do, dw_, wo, step, add = values
            emit = Emitter(builder, scalar, lanes)
            arrays = zip((x, zeros, rows, dy, dw), (x_, zeros_, rows_, dy_, dw_), strict=True)
            px, pzeros, prows, pdy, pdw = (array_data(context, builder, t, v) for t, v in arrays)
            places = [[emit.pointer(pdw, builder.add(builder.add(wo, builder.mul(step, INT64(i))), INT64(j * lanes)))
                       for j in range(width)] for i in range(height)]
            sums = emit.sums(height, width)
            for register in itertools.chain(*sums):
                builder.store(ir.Constant(emit.vector, [0.0] * lanes), register)
            with cgutils.for_range(builder, pixels) as p:
                row = emit.pointer(emit.row(px, pzeros, prows, builder.add(at, p.index)), c)
                line = builder.add(do, builder.mul(p.index, INT64(width * lanes)))
                upstream = [emit.load(emit.pointer(pdy, builder.add(line, INT64(j * lanes)))) for j in range(width)]
                emit.add_products(sums, [emit.pointer(row, INT64(i)) for i in range(height)], upstream)
            with builder.if_then(add):
                for place, register in zip(itertools.chain(*places), itertools.chain(*sums), strict=True):
                    builder.store(builder.fadd(emit.load(place), builder.load(register)), register)
            for place, register in zip(itertools.chain(*places), itertools.chain(*sums), strict=True):
                emit.store(builder.load(register), place)
            return context.get_dummy_value()

        return signature, codegen

    return tile


vector_forward = _vector_forward(target().pixels, target().vectors)
vector_half = _vector_forward(target().pixels, target().vectors // 2)
vector_gradient_tall, vector_gradient_middle, vector_gradient_low, vector_gradient_single = (
    _vector_gradient(height, target().vectors) for height in HEIGHTS)
TALL, MIDDLE, LOW, _ = HEIGHTS


@overload(forward_tile, inline="never")
def _forward_tile(x, zeros, rows, at, taps, C, w, wo, start, so, y, yo, step, relu, MR, NR):
    def compiled(x, zeros, rows, at, taps, C, w, wo, start, so, y, yo, step, relu, MR, NR):
        vector_forward(x, zeros, rows, at, taps, C, w, wo, start, so, y, yo, step, relu)

    return compiled


@overload(half_tile, inline="never")
def _half_tile(x, zeros, rows, at, taps, C, w, wo, start, so, y, yo, step, relu, MR, NR):
    def compiled(x, zeros, rows, at, taps, C, w, wo, start, so, y, yo, step, relu, MR, NR):
        vector_half(x, zeros, rows, at, taps, C, w, wo, start, so, y, yo, step, relu)

    return compiled


@overload(gradient_tile, inline="never")
def _gradient_tile(x, zeros, rows, at, pixels, c, dy, do, dw, wo, step, add, MC, NR):
    def compiled(x, zeros, rows, at, pixels, c, dy, do, dw, wo, step, add, MC, NR):
        if MC == TALL:
            vector_gradient_tall(x, zeros, rows, at, pixels, c, dy, do, dw, wo, step, add)
        elif MC == MIDDLE:
            vector_gradient_middle(x, zeros, rows, at, pixels, c, dy, do, dw, wo, step, add)
        elif MC == LOW:
            vector_gradient_low(x, zeros, rows, at, pixels, c, dy, do, dw, wo, step, add)
        else:
            vector_gradient_single(x, zeros, rows, at, pixels, c, dy, do, dw, wo, step, add)

    return compiled
