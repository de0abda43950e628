"""Running a kernel on all threads.

A kernel is written as a serial body over a range and called with the length of that range:

    @kernel
    def relu_forward(first, last, x, y):
        for i in range(first, last):
            y[i] = max(x[i], 0)

    relu_forward(x.size, x, y)

(A loop over flat arrays slices them first, `x, y = x[first:last], y[first:last]`, and counts from 0: an index that
might be negative, and so count from the end, keeps the compiler from using vectors.)

The range is cut into pieces that a team of threads shares (kernels/team.py). What a piece computes must not depend on
how the range was cut: a body that sums over its range writes one partial sum for each index, and the caller chooses how
many there are.

One compiled function runs all kernels: it gets the address of a kernel's body. A parallel function of its own for each
would take four times as long to compile.
"""
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from minigrad import runtime
from minigrad.kernels.compile import cached
from minigrad.kernels.plan import WORDS, recording
from minigrad.kernels.team import INT64, PIECE, RUN_SIGNATURE, run, team

PIECES_A_THREAD = 4
PIECES_OF_MANY = 12  # a thread, of more than MANY: the last to finish is waited for a twelfth of the time at most
MANY = 4
FEW = 4  # items a piece
SMALL = 2**15  # values; below, calling helpers costs more than they bring


@intrinsic
def in_pieces(typing_context, body, count, pieces, helpers, shared, yielding, keep, arguments):
    """Call body(first, last, *arguments) over 0..count through `run`, by addresses; return 1 if a piece failed.

    Unless `keep` is 0, the addresses are kept there for a plan: the piece's, whether it failed, its arguments."""
    body_signature = typing_context.resolve_function_type(body, (types.intp, types.intp, *arguments.types), {})
    run_type = typing_context.resolve_value_type(run)
    run_signature = typing_context.resolve_function_type(run_type, RUN_SIGNATURE.args, {})

    def codegen(context, builder, signature, values):
        _, *how, keep, packed = values
        # What a piece needs: a place to say that it failed, and the arguments.
        needed = ir.LiteralStructType([INT64, packed.type])
        assert context.get_abi_sizeof(needed) <= 8 * (WORDS - 1)
        kept = cgutils.alloca_once(builder, needed)
        builder.store(packed, cgutils.gep_inbounds(builder, kept, 0, 1))
        failed = cgutils.gep_inbounds(builder, kept, 0, 0)
        builder.store(INT64(0), failed)
        name = context.mangler(f"piece.{body.dispatcher.py_func.__name__}", list(arguments.types))
        piece = ir.Function(builder.module, PIECE, name=name)
        piece.linkage = "internal"
        inside = ir.IRBuilder(piece.append_basic_block("entry"))
        address, first, last = piece.args
        given = inside.inttoptr(address, kept.type)
        loaded = inside.load(cgutils.gep_inbounds(inside, given, 0, 1))
        compiled = body.dispatcher.get_compile_result(body_signature)
        context.active_code_library.add_linking_library(compiled.library)
        status, _ = context.call_internal_no_propagate(inside, compiled.fndesc, body_signature,
                                                       [first, last, *cgutils.unpack_tuple(inside, loaded)])
        with inside.if_then(status.is_error):
            inside.store(INT64(1), cgutils.gep_inbounds(inside, given, 0, 0))
        inside.ret_void()
        with builder.if_then(cgutils.is_not_null(builder, keep)):
            words = builder.inttoptr(keep, INT64.as_pointer())
            builder.store(builder.ptrtoint(piece, INT64), words)
            lasting = builder.bitcast(builder.gep(words, [INT64(1)]), kept.type)
            builder.store(INT64(0), cgutils.gep_inbounds(builder, lasting, 0, 0))
            builder.store(_without_owners(context, builder, arguments, packed),
                          cgutils.gep_inbounds(builder, lasting, 0, 1))
        addresses = [builder.ptrtoint(pointer, INT64) for pointer in (piece, kept)]
        context.get_function(run_type, run_signature)(builder, [*addresses, *how])
        return builder.load(failed)

    return types.intp(body, *RUN_SIGNATURE.args[2:], types.uintp, arguments), codegen


def _without_owners(context, builder, arguments, packed):
    """Return the arguments with arrays that own nothing: what Numba counts references in lives for one call only."""
    values = []
    for kind, value in zip(arguments.types, cgutils.unpack_tuple(builder, packed), strict=True):
        if isinstance(kind, types.Array):
            array = context.make_array(kind)(context, builder, value)
            array.meminfo = cgutils.get_null_value(array.meminfo.type)
            array.parent = cgutils.get_null_value(array.parent.type)
            value = array._getvalue()
        values.append(value)
    return context.make_tuple(builder, arguments, values)


def _launch(count, pieces, helpers, shared, yielding, keep, *arguments):
    return in_pieces(body, count, pieces, helpers, shared, yielding, keep, arguments)  # noqa: F821  (see `_launcher_of`)


def _launcher_of(function: Callable) -> Callable:
    """Return `_launch` compiled for one body; it carries the body's name and file, by which Numba stores it."""
    code = _launch.__code__.replace(co_name=function.__name__, co_qualname=function.__qualname__,
                                    co_filename=function.__code__.co_filename,
                                    co_firstlineno=function.__code__.co_firstlineno)
    body = njit(nogil=True, error_model="numpy")(function)
    launch = FunctionType(code, {"in_pieces": in_pieces, "body": body, "__name__": function.__module__})
    launch.__qualname__ = function.__qualname__
    return cached(njit(nogil=True)(launch))


def pieces_wanted() -> int:
    """Return into how many pieces a range is cut if it is long enough, for all threads to have their share."""
    threads = runtime.get_threads()
    return threads * (PIECES_A_THREAD if threads <= MANY else PIECES_OF_MANY)


class Kernel:
    """A serial body over a range that runs on all threads; `py_func` is the plain Python function."""

    def __init__(self, function: Callable):
        self.py_func = function
        self.launch = None if runtime.jit_disabled() else _launcher_of(function)
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__

    def __call__(self, count: int, *arguments: Any) -> None:
        """Run the body over 0..count."""
        if self.launch is None:
            self.py_func(0, count, *arguments)
            return
        threads = min(runtime.get_threads(), count)
        small = sum(a.size for a in arguments if isinstance(a, np.ndarray)) < SMALL
        # Another Python thread's kernel has the team: this one runs on its own.
        have_team = False
        # A few items a piece would make pieces of very different lengths: then each item is one.
        pieces, recorded = pieces_wanted() if count >= FEW * pieces_wanted() else count, recording()
        block = np.zeros(0 if recorded is None else WORDS, np.int64)
        try:
            have_team = threads > 1 and not small and team.taken.acquire(blocking=False)
            helpers = threads - 1 if have_team else 0
            team.wake(helpers)
            failed = self.launch(count, pieces, helpers, team.shared, team.yielding,
                                 0 if recorded is None else block.ctypes.data, *arguments)
        finally:
            if have_team:
                team.taken.release()
        if recorded is not None:
            recorded.add(block, count, pieces, small, arguments)
        if failed:
            raise MemoryError(f"the kernel {self.__name__} found no memory for its scratch arrays")


def kernel(function: Callable) -> Kernel:
    """Make a kernel of a serial body `function(first, last, *arguments)`."""
    return Kernel(function)
