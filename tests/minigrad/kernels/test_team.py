"""The team of threads: what fails in a piece is told, a forked child works, an interpreter ends without fuss."""

import os

import numpy as np
import pytest

from minigrad.kernels import parallel
from minigrad.kernels.parallel import kernel
from tests.minigrad.checks import run_python

FORK = """
import os, signal
import numpy as np
from minigrad import Tensor, ops, set_threads, available_threads
from minigrad.kernels.team import team

x = Tensor(np.random.default_rng(0).random((8, 28, 28, 16), np.float32))
before = ops.max_pool2d(x, 3).data
team.taken.acquire()  # as if another thread's kernel were running
team.shared[2 * 8] = 1  # as if a helper were in it
child = os.fork()
if child == 0:
    signal.alarm(60)
    same = np.array_equal(ops.max_pool2d(x, 3).data, before)
    os._exit(0 if same and len(team.helpers) == available_threads() - 1 else 1)
print(os.waitpid(child, 0)[1])
"""

SHORT = """
import numpy as np
from minigrad import Tensor, ops
ops.relu(Tensor(np.ones(10**6, np.float32)))
"""


@kernel
def greedy(first, last, x, sizes):
    """x[i] = a value from a scratch array of sizes[i] values"""
    for i in range(first, last):
        scratch = np.zeros(sizes[i], x.dtype)
        x[i] = scratch[0]


@pytest.mark.parametrize("small", [0, 2**15])
def test_a_kernel_without_memory_is_an_error(monkeypatch, small):
    monkeypatch.setattr(parallel, "SMALL", small)
    x, sizes = np.ones(8, np.float32), np.array([1, 1, 1, 2**60, 1, 1, 1, 1])
    with pytest.raises(MemoryError, match="greedy"):
        greedy(8, x, sizes)
    greedy(8, x, np.ones(8, np.int64))
    assert not x.any()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_a_team_of_its_own():
    assert run_python(FORK).strip() == "0"


def test_processes_that_end_right_after_a_kernel():
    for _ in range(5):
        assert run_python(SHORT) == ""
