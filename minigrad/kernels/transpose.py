"""A square of numbers transposed, as wide as a vector register: what packs weights for the data gradient.

As in kernels/tile.py, written as loops, which define it, and again as LLVM vectors: log2(lanes) rounds, each of which
swaps two blocks of every square twice as large.
"""
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from minigrad.kernels.tile import INT32, INT64, Emitter, array_data, scalar_of


def transpose_square(x, at, step, y, to, y_step, lanes):
    """y[to + j * y_step + i] = x[at + i * step + j] for i, j < lanes, the number of values in a register."""
    for i in range(lanes):
        for j in range(lanes):
            y[to + j * y_step + i] = x[at + i * step + j]


@intrinsic
def transpose_vectors(typing_context, x, at, step, y, to, y_step):
    """`transpose_square` in registers."""
    scalar, lanes = scalar_of(x)
    n = types.intp
    signature = types.void(x, n, n, y, n, n)

    def codegen(context, builder, signature, values):
        x_, at, step, y_, to, y_step = values
        emit = Emitter(builder, scalar, lanes)
        source, sink = array_data(context, builder, x, x_), array_data(context, builder, y, y_)

        def line(array, begin, step, i):
            return emit.pointer(array, builder.add(begin, builder.mul(step, INT64(i))))

        rows = [emit.load(line(source, at, step, i)) for i in range(lanes)]
        size = lanes // 2  # of the blocks that change places
        while size:
            upper = [p if not p & size else lanes + p - size for p in range(lanes)]
            lower = [p + size if not p & size else lanes + p for p in range(lanes)]
            for i in range(lanes):
                if not i & size:
                    pair = rows[i], rows[i + size]
                    for place, choice in ((i, upper), (i + size, lower)):
                        mask = ir.Constant(ir.VectorType(INT32, lanes), choice)
                        rows[place] = builder.shuffle_vector(*pair, mask)
            size //= 2
        for i, row in enumerate(rows):
            emit.store(row, line(sink, to, y_step, i))
        return context.get_dummy_value()

    return signature, codegen


@overload(transpose_square, inline="never")
def _transpose_square(x, at, step, y, to, y_step, lanes):
    def compiled(x, at, step, y, to, y_step, lanes):
        transpose_vectors(x, at, step, y, to, y_step)

    return compiled
