"""What is told of a run while it trains: the time that is left."""

from types import SimpleNamespace
from unittest import mock

import pytest

from googlenet.commands import training
from googlenet.commands.training import Clock
from googlenet.config import TrainingConfig
from googlenet.training import Epoch, Losses, Restart, Step


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
    assert clock.left(5, 32, 8) == 5 * 20
    assert clock.left(0, 32, 8) == 0


def test_in_the_first_epoch_its_steps_tell(time):
    """Half an epoch of 100 steps in 30 seconds: two and a half are left."""
    clock = Clock(time[0], first=10)
    time[0] += 1
    assert clock.left(2.9, 15, 100) is None, "too few"
    time[0] += 29
    assert clock.left(2.5, 60, 100) == 2.5 * 60


def test_an_epoch_resumed_in_its_midst_counts_as_a_whole(time):
    clock = Clock(time[0], first=6)
    time[0] += 10
    clock.epoch_ends(8, 8)
    assert clock.left(1, 8, 8) == 40


def test_what_was_spent_before_training_went_back_does_not_count(time):
    clock = Clock(time[0], first=6)
    time[0] += 1000
    clock.begin(0)
    time[0] += 10
    clock.epoch_ends(8, 8)
    assert clock.left(1, 8, 8) == 10


def test_the_time_left_is_of_epochs_after_training_went_back(time, monkeypatch):
    """It goes back in the second epoch of two steps, 500 seconds after a first one of 4."""
    losses = Losses(1.0, 1.0, 1.0, 1.0)

    def records():
        for seconds, record in ((2, "step 1"), (2, "step 2"), (0, "end"), (500, "back"), (3, "step 3"), (3, "step 4"),
                                (0, "end")):
            time[0] += seconds
            kind, _, number = record.partition(" ")
            if kind == "step":
                yield Step(int(number), 0, 8, 0.1, losses, 1.0)
            elif kind == "end":
                trainer.epoch += 1
                yield Epoch(trainer.epoch - 1, 2 * trainer.epoch, 8, losses, None, False, ())
            else:
                yield Restart("the loss is nan", 3, 2, 1, 0.5)

    trainer = SimpleNamespace(step=0, epoch=0, batch=0, epoch_steps=2, loader=SimpleNamespace(batches=2),
                              config=TrainingConfig(epochs=3, save_every=1e9), records=records, save=lambda path: False)
    run = SimpleNamespace(trainer=trainer, last=None, ended=False)
    told = []
    training.train(run, mock.Mock(), lambda record, left: told.append(left), [])
    assert told[-1] == (4 + 6) / 2
