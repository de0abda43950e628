"""The vectors of the CPU that Numba compiles for.

Numba may be told to compile for another CPU than the one it runs on (NUMBA_CPU_NAME, NUMBA_CPU_FEATURES), and names of
CPUs say little. So the compiler itself is asked: a multiply-add of 64 bytes is compiled, and the registers it takes are
read off.
"""
import functools
import re
from typing import NamedTuple

import llvmlite.binding as llvm
import numpy as np
from numba.core.registry import cpu_target

MULTIPLY_ADD = """
declare <16 x float> @llvm.fmuladd.v16f32(<16 x float>, <16 x float>, <16 x float>)
define <16 x float> @f(<16 x float> %x) {
  %y = call <16 x float> @llvm.fmuladd.v16f32(<16 x float> %x, <16 x float> %x, <16 x float> %x)
  ret <16 x float> %y
}
"""


class Target(NamedTuple):
    """Bytes of a vector register, and the tiles of sums that fit into the registers.

    A forward tile has pixels x vectors sums; a tile of the weight gradient heights x vectors, the tallest and those for
    what is left over."""

    vector_bytes: int
    pixels: int
    vectors: int
    heights: tuple[int, int, int, int]

    def lanes(self, dtype: np.dtype) -> int:
        """Return how many values of `dtype` a vector register holds."""
        return self.vector_bytes // np.dtype(dtype).itemsize


@functools.cache
def target() -> Target:
    """Return the vectors of the CPU that Numba compiles for.

    With 32 registers 12 x 2 of them hold sums, with 16 registers 6 x 2; the rest hold weights and the broadcast input.
    More sums would fit, but 14 pixels need more addresses than an x86 CPU has general registers (5 % slower).
    """
    assembly = _assembly()
    if "zmm" in assembly:  # AVX-512
        return Target(64, 12, 2, (12, 8, 4, 1))
    if "ymm" in assembly:  # AVX2
        return Target(32, 6, 2, (6, 4, 2, 1))
    if re.search(r"\bv\d+\.4s", assembly):  # NEON
        return Target(16, 12, 2, (12, 8, 4, 1))
    return Target(16, 6, 2, (6, 4, 2, 1))  # SSE, and whatever else: LLVM splits or joins vectors of 16 bytes


def _assembly() -> str:
    module = llvm.parse_assembly(MULTIPLY_ADD)
    machine = cpu_target.target_context.codegen()._tm
    module.triple = machine.triple
    return machine.emit_assembly(module)
