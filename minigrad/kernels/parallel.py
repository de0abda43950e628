"""Running a kernel on all threads.

A kernel is written as a serial body over a range and called with the length of that range:

    @kernel
    def relu_forward(first, last, x, y):
        for i in range(first, last):
            y[i] = max(x[i], 0)

    relu_forward(x.size, x, y)

The range is cut into pieces; each thread takes the next piece until none is left, so that a thread whose core
is busy with something else takes fewer. What a piece computes must not depend on how the range was cut: a body
that sums over its range writes one partial sum for each index, and the caller chooses how many there are.

One parallel function serves all kernels: it gets the address of a kernel's body. A parallel function of its own
for each would take four times as long to compile. Calls are made one at a time: Numba's `workqueue` threads abort
when two Python threads enter them.
"""
import threading
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, prange, set_num_threads, types
from numba.core import cgutils
from numba.extending import intrinsic

from minigrad import runtime
from minigrad.kernels.compile import cached

INT64 = ir.IntType(64)
PIECE = ir.FunctionType(ir.VoidType(), [INT64, INT64, INT64])  # (address of the arguments, first, last)
PIECES_A_THREAD = 4
_one_at_a_time = threading.Lock()


@intrinsic
def run_piece(typing_context, piece, arguments, first, last):
    """Call the function at address `piece` on the range first..last."""
    def codegen(context, builder, signature, values):
        builder.call(builder.inttoptr(values[0], PIECE.as_pointer()), values[1:])
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp, types.intp, types.intp), codegen


@intrinsic
def take_next(typing_context, counter):
    """Return the integer at address `counter` and add one to it, atomically."""
    def codegen(context, builder, signature, values):
        return builder.atomic_rmw("add", builder.inttoptr(values[0], INT64.as_pointer()), INT64(1), "monotonic")

    return types.intp(types.uintp), codegen


def _run(piece, arguments, count, pieces, threads):
    """Run `piece` over the range 0..count, cut into `pieces`, on `threads` threads."""
    if threads == 1:
        run_piece(piece, arguments, 0, count)
    else:
        taken = np.zeros(1, np.int64)
        for _ in prange(threads):
            n = take_next(taken.ctypes.data)
            while n < pieces:
                run_piece(piece, arguments, n * count // pieces, (n + 1) * count // pieces)
                n = take_next(taken.ctypes.data)


RUN_SIGNATURE = types.void(types.uintp, types.uintp, types.intp, types.intp, types.intp)
run = cached(njit(parallel=True, nogil=True)(_run))


@intrinsic
def in_pieces(typing_context, body, count, pieces, threads, arguments):
    """Call body(first, last, *arguments) over 0..count through `run`: its address and that of the arguments go in."""
    body_signature = typing_context.resolve_function_type(body, (types.intp, types.intp, *arguments.types), {})
    run_type = typing_context.resolve_value_type(run)
    run_signature = typing_context.resolve_function_type(run_type, RUN_SIGNATURE.args, {})

    def codegen(context, builder, signature, values):
        _, count, pieces, threads, packed = values
        kept = cgutils.alloca_once_value(builder, packed)
        name = context.mangler(f"piece.{body.dispatcher.py_func.__name__}", list(arguments.types))
        piece = ir.Function(builder.module, PIECE, name=name)
        piece.linkage = "internal"
        inside = ir.IRBuilder(piece.append_basic_block("entry"))
        address, first, last = piece.args
        loaded = inside.load(inside.inttoptr(address, kept.type))
        compiled = body.dispatcher.get_compile_result(body_signature)
        context.active_code_library.add_linking_library(compiled.library)
        context.call_internal_no_propagate(inside, compiled.fndesc, body_signature,
                                           [first, last, *cgutils.unpack_tuple(inside, loaded)])
        inside.ret_void()
        addresses = [builder.ptrtoint(pointer, INT64) for pointer in (piece, kept)]
        context.get_function(run_type, run_signature)(builder, [*addresses, count, pieces, threads])
        return context.get_dummy_value()

    return types.void(body, types.intp, types.intp, types.intp, arguments), codegen


def _launch(count, pieces, threads, *arguments):
    in_pieces(body, count, pieces, threads, arguments)  # noqa: F821  (`body` is bound in `_launcher_of`)


def _launcher_of(function: Callable) -> Callable:
    """Return `_launch` compiled for one body; it carries the body's name and file, by which Numba stores it."""
    code = _launch.__code__.replace(co_name=function.__name__, co_qualname=function.__qualname__,
                                    co_filename=function.__code__.co_filename,
                                    co_firstlineno=function.__code__.co_firstlineno)
    body = njit(nogil=True, error_model="numpy")(function)
    launch = FunctionType(code, {"in_pieces": in_pieces, "body": body, "__name__": function.__module__})
    launch.__qualname__ = function.__qualname__
    return cached(njit(nogil=True)(launch))


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
        with _one_at_a_time:
            set_num_threads(runtime.get_threads())  # Numba keeps this number for each Python thread
            self.launch(count, min(count, PIECES_A_THREAD * threads), threads, *arguments)


def kernel(function: Callable) -> Kernel:
    """Make a kernel of a serial body `function(first, last, *arguments)`."""
    return Kernel(function)
