"""The machine's limit: how many multiply-adds a second its cores do when nothing has to be fetched.

Chains of fused multiply-adds, each on a vector register of its own, one chain after the other so that none waits for
its last result. No convolution that computes its sum as it is written can be faster; Winograd's can, since it
multiplies less often.
"""
from __future__ import annotations

import functools
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from minigrad.kernels.target import target

CHAINS = 12  # a multiply-add takes 4 cycles and two begin in each: 8 would do, and 12 fit into any CPU's registers
UNROLLED = 4  # so that counting costs nothing
SECONDS = 0.05  # of one measurement


def chains(count, sums, factor):
    """sums[l] = the sum over the chains c of s[c, l], after s = s * factor + factor has been done `count` times."""
    for lane in range(len(sums)):
        total = sums[lane]
        for chain in range(CHAINS):
            s = sums[lane] + chain
            for _ in range(count * UNROLLED):
                s = s * factor + factor
            total += s
        sums[lane] = total


@intrinsic
def vector_chains(typing_context, count, sums, factor):
    """`chains` with a register for each of them; `sums` holds as many values as one register."""
    lanes = target().lanes(np.dtype(str(sums.dtype)))

    def codegen(context, builder, signature, values):
        count, sums_, factor = values
        scalar, size = context.get_data_type(sums.dtype), sums.dtype.bitwidth
        vector = ir.VectorType(scalar, lanes)
        # fmuladd, not fma: on a CPU without fused multiply-add the latter is a library call.
        multiply_add = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fmuladd.v{lanes}f{size}")

        def filled(value):
            single = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
            return builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), zeros)

        place = builder.bitcast(context.make_array(sums)(context, builder, sums_).data, vector.as_pointer())
        total, factors = builder.load(place, align=size // 8), filled(factor)
        registers = [cgutils.alloca_once(builder, vector) for _ in range(CHAINS)]  # LLVM makes registers of these
        for chain, register in enumerate(registers):
            builder.store(builder.fadd(total, filled(scalar(float(chain)))), register)
        with cgutils.for_range(builder, count):
            for register in registers * UNROLLED:
                builder.store(builder.call(multiply_add, [builder.load(register), factors, factors]), register)
        for register in registers:
            total = builder.fadd(total, builder.load(register))
        builder.store(total, place, align=size // 8)
        return context.get_dummy_value()

    return types.void(types.intp, sums, sums.dtype), codegen


@overload(chains, inline="never")
def _chains(count, sums, factor):
    return lambda count, sums, factor: vector_chains(count, sums, factor)


@njit(nogil=True, cache=True)
def run(count, sums, factor):
    """Run `chains`, without Python's lock."""
    chains(count, sums, factor)


def gflops(threads: int, dtype: str = "float32") -> float:
    """Return how many 10^9 floating-point operations a second `threads` threads do; a multiply-add is two.

    Like the kernels, they use the vectors of the CPU that Numba compiles for."""
    count = _count_of(SECONDS, dtype)
    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        list(pool.map(_seconds, [count] * threads, [dtype] * threads))
        return threads * count * _operations(dtype) / (time.perf_counter() - began) / 1e9


@functools.cache
def _count_of(seconds: float, dtype: str) -> int:
    """Return the count that takes one thread about so long."""
    count = 1
    _seconds(count, dtype)  # compiles
    while (taken := _seconds(count, dtype)) < seconds / 10:
        count *= 2
    return max(1, int(count * seconds / taken))


def _seconds(count: int, dtype: str) -> float:
    sums, factor = np.ones(target().lanes(np.dtype(dtype)), dtype), np.dtype(dtype).type(0.5)
    began = time.perf_counter()
    run(count, sums, factor)  # tends to 1: neither overflows nor underflows
    return time.perf_counter() - began


def _operations(dtype: str) -> int:
    return 2 * UNROLLED * CHAINS * target().lanes(np.dtype(dtype))
