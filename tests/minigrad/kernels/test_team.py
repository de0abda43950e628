"""The team of threads: what fails in a piece is told, a forked child works, an interpreter ends without fuss."""

import os

import numpy as np
import pytest

from minigrad import available_threads, get_threads, set_threads
from minigrad.kernels import parallel
from minigrad.kernels.parallel import kernel
from minigrad.kernels.team import ALONE, GENERATION, PENALTY, UNTIL, team
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


@kernel
def uneven(first, last, work, x):
    """x[i] = 1, after work[i] turns of a loop that can't be left out"""
    for i in range(first, last):
        total = 0.0
        for k in range(work[i]):
            total += np.sin(total + k)
        x[i] = 1 if total > -np.inf else 0


needs_two_cores = pytest.mark.skipif(available_threads() < 2, reason="needs two cores")


@pytest.fixture
def two_threads(monkeypatch):
    """Helpers for the smallest of kernels, and a team that remembers nothing."""
    monkeypatch.setattr(parallel, "SMALL", 0)
    before = get_threads()
    set_threads(2)
    yield
    set_threads(before)
    team.shared[[UNTIL, PENALTY]] = 0


@needs_two_cores
def test_works_alone_for_a_while_and_then_together(two_threads):
    work, x = np.zeros(64, np.int64), np.zeros(64)
    team.shared[UNTIL] = 2**62
    before = team.shared[GENERATION]
    uneven(64, work, x)
    assert x.all()
    assert team.shared[GENERATION] == before  # no job was opened
    team.shared[UNTIL] = 0
    uneven(64, work, x)
    assert team.shared[GENERATION] == before + 2


@needs_two_cores
@pytest.mark.skipif(os.name == "nt", reason="there is no clock to call")
def test_notices_a_helper_that_is_late(two_threads):
    """One piece takes much longer than the others, as if its thread had lost its core; in some runs a helper has it."""
    work, x = np.full(64, 2000), np.zeros(64)
    work[-1] = 3_000_000
    for _ in range(200):
        team.shared[[UNTIL, PENALTY]] = 0
        uneven(64, work, x)
        if team.shared[PENALTY]:
            break
    assert team.shared[PENALTY] >= ALONE
    assert team.shared[UNTIL] > 0
    assert x.all()
