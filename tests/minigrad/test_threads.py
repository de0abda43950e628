"""Threads: how many there are does not change a result, and each pool that Numba may be built on is safe."""

import sys

import numpy as np
import pytest
import threadpoolctl

from minigrad import InputError, Tensor, available_threads, get_threads, ops, set_threads
from tests.minigrad.checks import assert_close, run_python
from tests.minigrad.network import step

several = pytest.mark.skipif(available_threads() < 2, reason="one core: nothing to compare")


@several
@pytest.mark.parametrize("method", ["im2col", "direct"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_agree_to_rounding_for_any_number_of_threads(dtype, method):
    results = []
    for threads in range(1, min(available_threads(), 4) + 1):
        set_threads(threads)
        results.append(step(dtype, method))
    for other in results[1:]:
        for name, expected in results[0].items():
            assert_close(other[name], expected, 1e-5 if dtype == np.float32 else 1e-13, what=name)


@pytest.mark.parametrize("threads", range(1, min(available_threads(), 4) + 1))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_are_bit_identical_from_run_to_run(dtype, threads):
    set_threads(threads)
    first = step(dtype)
    for _ in range(5):
        for name, again in step(dtype).items():
            np.testing.assert_array_equal(again, first[name], err_msg=name)


@several
def test_dropout_masks_are_the_same_for_any_number_of_threads():
    x, masks = Tensor(np.ones((3, 100_003), np.float32)), []
    for threads in range(1, available_threads() + 1):
        set_threads(threads)
        masks.append(ops.dropout(x, 0.4, seed=5, step=6, stream=7).data)
    for mask in masks[1:]:
        np.testing.assert_array_equal(mask, masks[0])


@pytest.mark.parametrize("count", [0, -1, available_threads() + 1])
def test_a_number_of_threads_out_of_range_is_refused(count):
    with pytest.raises(InputError, match=f"{count}.*1 to {available_threads()}"):
        set_threads(count)


def test_blas_uses_as_many_threads_as_the_kernels():
    """The matrix products of im2col must not keep a pool of their own beside the kernels'."""
    for count in (1, available_threads()):
        set_threads(count)
        pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
        assert {pool["num_threads"] for pool in pools} <= {count}
        assert get_threads() == count


TOGETHER = """
import threading
import numba
import numpy as np
from tests.minigrad.network import step

@numba.njit(parallel=True)
def total(x):
    s = 0.0
    for i in numba.prange(x.size):
        s += x[i]
    return s

first = step()
results = []
def repeat():
    for _ in range(3):
        results.append(step())
threads = [threading.Thread(target=repeat) for _ in range(3)]
for thread in threads: thread.start()
while any(thread.is_alive() for thread in threads):
    assert total(np.ones(10000)) == 10000
for thread in threads: thread.join()
assert len(results) == 9, "a thread died"
for again in results:
    for name in first:
        np.testing.assert_array_equal(again[name], first[name], err_msg=name)
print(numba.threading_layer())
"""


@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_several_python_threads_beside_a_pool_of_numbas(layer):
    """Kernels never enter Numba's own pools, of which `workqueue` aborts the process when two threads enter it."""
    if layer == "omp" and sys.platform == "darwin":
        pytest.skip("Numba's wheels for macOS need OpenMP from elsewhere")
    assert run_python(TOGETHER, NUMBA_THREADING_LAYER=layer).strip() == layer
