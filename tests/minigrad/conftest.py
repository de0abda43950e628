"""What all tests of the engine share."""

import pytest

from minigrad import get_threads, set_threads


@pytest.fixture(autouse=True)
def _restore_threads():
    before = get_threads()
    yield
    set_threads(before)
