"""What is told of a run while it trains: the time that is left."""

import pytest

from googlenet.commands import training
from googlenet.commands.training import Clock


@pytest.fixture
def time(monkeypatch):
    """A clock that is set by hand."""
    now = [100.0]
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])
    return now


def test_what_is_left_is_told_by_the_last_epochs(time):
    clock = Clock(time[0])
    for number, seconds in enumerate((90, 10, 20, 30), 1):
        time[0] += seconds
        clock.epoch_ends(8 * number, 8)
    assert clock.left(5) == 5 * 20
    assert clock.left(0) == 0


def test_an_epoch_resumed_in_its_midst_counts_as_a_whole(time):
    clock = Clock(time[0], first=6)
    time[0] += 10
    clock.epoch_ends(8, 8)
    assert clock.left(1) == 40
