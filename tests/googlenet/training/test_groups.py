"""Batches in groups, whichever of them are missing."""

import numpy as np
import pytest

from data.loader import Batch
from googlenet.training.groups import Groups


def batches(numbers, taken=None):
    """Batches of these numbers, noted as they are taken."""
    for number in numbers:
        if taken is not None:
            taken.append(number)
        yield Batch(np.zeros((1, 1, 1, 3), np.float32), np.zeros(1, np.int64), np.zeros(1, np.int64), number)


@pytest.mark.parametrize(("numbers", "size", "expected"), [
    (range(5), 1, [[0], [1], [2], [3], [4]]),
    (range(5), 2, [[0, 1], [2, 3], [4]]),
    (range(5), 9, [[0, 1, 2, 3, 4]]),
    (range(2, 5), 2, [[2, 3], [4]]),  # resumed
    ([1, 2, 3, 4], 2, [[1], [2, 3], [4]]),  # the first of a group is missing,
    ([0, 2, 3, 4], 2, [[0], [2, 3], [4]]),  # the last one,
    ([0, 1, 4], 2, [[0, 1], [4]]),  # a whole group,
    ([0, 1, 2, 3], 2, [[0, 1], [2, 3]]),  # the last of all
    ([], 2, []),
], ids=str)
def test_groups_are_of_numbers(numbers, size, expected):
    groups = Groups(batches(numbers), size, 5)
    assert [[batch.number for batch in group] for group in groups] == expected


def test_a_group_ends_without_a_wait_for_the_next_batch():
    taken = []
    for group in Groups(batches(range(5), taken), 2, 5):
        for batch in group:
            assert taken[-1] == batch.number
        assert taken[-1] == batch.number
