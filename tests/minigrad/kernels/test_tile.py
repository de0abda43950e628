"""Compiled kernels, the tile's vectors above all, compute what their plain loops say, on every kind of CPU."""

import platform
from functools import partial

import numpy as np
import pytest

from minigrad import ops
from tests.minigrad.checks import assert_close, gradients, run_python
from tests.minigrad.network import step
from tests.minigrad.strategies import normal

SAVE_STEP = """
import sys
import numpy as np
from tests.minigrad.network import step
np.savez(sys.argv[1], **step(np.float64, "im2col"))
"""
SAVE_CONVOLUTIONS = """
import sys
import numpy as np
from tests.minigrad.kernels.test_tile import convolutions
np.savez(sys.argv[1], **convolutions())
"""


def convolutions() -> dict[str, np.ndarray]:
    """Direct convolutions through each tile: whole and half width, edges, each height of rows of weights; both dtypes.
    And Winograd's maps."""
    results = {}
    for dtype in (np.float32, np.float64):
        for C, O in ((29, 40), (3, 5)):
            rng = np.random.default_rng(C)
            arrays = [normal(rng, s, dtype) for s in ((1, 5, 4, C), (3, 2, C, O), (O,), (1, 3, 4, O))]

            def op(*tensors):
                return ops.conv2d(*tensors, stride=(2, 1), padding=((1, 1), (0, 1)), relu=True, method="direct")

            names = (f"{n} {C} {O} {np.dtype(dtype)}" for n in ("dx", "dw", "db"))
            results |= dict(zip(names, gradients(op, arrays[:3], arrays[3]), strict=True))

            arrays = [normal(rng, s, dtype) for s in ((1, 5, 6, C), (3, 3, C, O), (O,), (1, 5, 6, O))]
            names = (f"winograd {n} {C} {O} {np.dtype(dtype)}" for n in ("dx", "dw", "db"))
            winograd = partial(ops.conv2d, padding=1, relu=True, method="winograd")
            results |= dict(zip(names, gradients(winograd, arrays[:3], arrays[3]), strict=True))
    return results


def run_and_load(code: str, path, **environment: str) -> dict[str, np.ndarray]:
    run_python(code, str(path), **environment)
    with np.load(path) as saved:
        return dict(saved)


def assert_same(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert got.keys() == expected.keys()
    for name in expected:
        assert_close(got[name], expected[name], what=name)


def test_plain_python_computes_the_same_convolutions(tmp_path):
    """The loops that a reader reads run under NUMBA_DISABLE_JIT=1: they define what the vectors compute."""
    assert_same(convolutions(), run_and_load(SAVE_CONVOLUTIONS, tmp_path / "plain.npz", NUMBA_DISABLE_JIT="1"))


def test_plain_python_computes_the_same_network(tmp_path):
    """The other ops' kernels; the convolutions are above."""
    assert_same(step(np.float64, "direct"), run_and_load(SAVE_STEP, tmp_path / "plain.npz", NUMBA_DISABLE_JIT="1"))


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="targets of another processor family")
@pytest.mark.parametrize(
    ("name", "features"),
    [("haswell", "+sse2,+sse4.2,+avx,+avx2,+fma"), ("x86-64", "+sse2")],
    ids=["AVX2", "SSE without fused multiply-add"],
)
def test_smaller_vectors_compute_the_same(tmp_path, name, features):
    flags = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
    assert_same(run_and_load(SAVE_CONVOLUTIONS, tmp_path / "other.npz", **flags), convolutions())
