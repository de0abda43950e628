"""A kernel's body sees each index once, however the range is cut; calls from several Python threads take turns."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from minigrad import available_threads, get_threads, set_threads
from minigrad.kernels.parallel import kernel


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


def test_an_empty_range_is_nothing_to_do():
    seen = np.zeros(2, np.int64)
    count(0, seen)
    assert not seen.any()


def test_calls_from_several_threads():
    seen = np.zeros((8, 1000), np.int64)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda row: [count(1000, row) for _ in range(50)], seen))
    assert (seen == 50).all()
