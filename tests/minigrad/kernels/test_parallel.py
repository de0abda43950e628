"""A kernel's body sees each index once, however the range is cut; calls from several Python threads take turns."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from minigrad import available_threads, get_threads, set_threads
from minigrad.kernels import parallel
from minigrad.kernels.parallel import kernel
from minigrad.kernels.team import team


@pytest.fixture(autouse=True)
def _nothing_is_small(monkeypatch):
    monkeypatch.setattr(parallel, "SMALL", 0)


@kernel
def count(first, last, seen):
    """seen[i] += 1"""
    for i in range(first, last):
        seen[i] += 1


@pytest.mark.parametrize("threads", range(1, available_threads() + 1))
@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9, 1000])
def test_every_index_once(n, threads):
    before = get_threads()
    set_threads(threads)
    try:
        seen = np.zeros(n + 2, np.int64)
        count(n, seen)
    finally:
        set_threads(before)
    np.testing.assert_array_equal(seen, [1] * n + [0, 0])
    assert len(team.helpers) >= min(threads, n) - 1


@kernel
def burn(first, last, rounds, sums):
    """sums[i] = a sum that takes a while"""
    for i in range(first, last):
        total = 0.0
        for k in range(rounds):
            total += 1.0 / (1 + (i + k) % 7)
        sums[i] = total


def test_a_helper_that_never_comes_is_not_waited_for(monkeypatch):
    """The caller takes every piece: with helpers that are not woken it ends, with the same result."""
    alone, sums = np.zeros(64), np.zeros(64)
    burn(64, 1000, alone)
    monkeypatch.setattr(team, "wake", lambda count: None)
    for _ in range(200):
        sums[:] = 0
        burn(64, 1000, sums)
        np.testing.assert_array_equal(sums, alone)


def test_jobs_one_after_another_do_not_mix():
    """Helpers that come late to one job find the next one, or none: every index is computed once, in its own job."""
    seen = np.zeros((500, 100), np.int64)
    for row in seen:
        count(100, row)
    assert (seen == 1).all()


def test_an_empty_range_is_nothing_to_do():
    seen = np.zeros(2, np.int64)
    count(0, seen)
    assert not seen.any()


def test_calls_from_several_threads():
    seen = np.zeros((8, 1000), np.int64)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda row: [count(1000, row) for _ in range(50)], seen))
    assert (seen == 50).all()
