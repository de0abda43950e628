"""What is kept of an evaluation: judgements as of each trial alone, and a file that takes them up again."""

import contextlib
import json
import math

import h5py
import numpy as np
import pytest

from data.damaged import Damaged
from googlenet import ledger as ledger_module
from googlenet.ledger import Ledger, Progress, Trial
from googlenet.testing import Answer, Prediction, Spent, judge, tally
from minigrad import hdf5
from minigrad.errors import InputError

TRIALS = [Trial((0,), 1), Trial((1,), 1), Trial((0, 1), 1), Trial((0, 1), 10, "max")]
NAMES = ("a.h5", "b.h5")
SETTINGS = {"crops": 1, "weights": ["abc", "def"], "limit": None}


def answer(image: int, classes: int = 7) -> Answer:
    rng = np.random.default_rng(image)
    drawn = {(count, pool): rng.dirichlet(np.ones(classes), 2) for count in (1, 10) for pool in ("mean", "max")}
    return Answer(image, image % classes, drawn)


def filled(images=range(20), classes: int = 7, whole: Trial | None = None) -> Ledger:
    made = Ledger(TRIALS, NAMES, classes, whole)
    for image in images:
        made.add(answer(image, classes))
    return made


def progress(path, ledger: Ledger, **changed) -> Progress:
    return Progress(path, {**SETTINGS, **changed}, ledger, Damaged("photos", 3), Spent(2))


def test_a_trial_is_the_mean_of_its_networks():
    drawn = answer(3)
    for trial in TRIALS:
        own = [drawn.probabilities[trial.crops, trial.pool][n] for n in trial.networks]
        expected = Prediction(3, 3, sum(own) / len(own))
        np.testing.assert_allclose(trial.prediction(drawn).probabilities, expected.probabilities)
        assert trial.prediction(drawn)[:2] == (3, 3)
    assert [trial.cost for trial in TRIALS] == [1, 1, 2, 20]


@pytest.mark.parametrize("classes", [3, 7])
def test_judgements_are_those_of_each_trial(classes):
    made = filled(classes=classes)
    for trial in TRIALS:
        expected = [judge(trial.prediction(answer(image, classes))) for image in range(20)]
        judged = made.judged(trial)
        assert [each[:5] for each in judged] == [each[:5] for each in expected]
        np.testing.assert_allclose([each.probabilities for each in judged],
                                   [each.probabilities for each in expected], rtol=1e-7)
        assert made.column(trial, "rank").tolist() == [each.rank for each in expected]
        assert made.column(trial, "loss").tolist() == [each.loss for each in expected]
        assert made.top1_error(trial) == tally(expected).top1_error
    assert made.images().tolist() == list(range(20))
    assert made.labels().tolist() == [image % classes for image in range(20)]


def test_little_is_kept():
    """A thousand classes take no more room than six."""
    assert filled(classes=1000).arrays().keys() == filled(classes=6).arrays().keys()
    bytes_of = [sum(array.nbytes for array in filled(classes=n).arrays().values()) for n in (6, 1000)]
    assert bytes_of[0] == bytes_of[1] < 20 * (len(TRIALS) * 64 + 16)


def test_all_probabilities_where_they_are_wanted():
    found = filled(whole=TRIALS[2]).probabilities()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [TRIALS[2].prediction(answer(i)).probabilities for i in range(20)], rtol=1e-6)


def test_probabilities_that_are_no_numbers_name_their_network():
    drawn = answer(0)
    drawn.probabilities[1, "mean"][1] = math.nan
    with pytest.raises(InputError, match=r"^b\.h5: probabilities are not numbers"):
        Ledger(TRIALS, NAMES, 7).add(drawn)


# The file.

@pytest.mark.parametrize("whole", [None, TRIALS[2]])
def test_taken_up_it_is_what_it_was(tmp_path, whole):
    first = progress(tmp_path / "state.h5", filled((0, 1, 3), whole=whole))
    first.damaged.note("2.jpg", "cut off")
    first.spent.passes, first.spent.distinct = [3, 4], {"10": [7, 8]}
    first.seconds = 12.5
    first.save()
    ledger = Ledger(TRIALS, NAMES, 7, whole)
    second = progress(tmp_path / "state.h5", ledger)
    assert ledger.following == 4
    assert second.damaged.found == {"2.jpg": "cut off"}
    assert vars(second.spent) == vars(first.spent)
    assert second.seconds == first.seconds >= 12.5
    for image in (4, 5):
        ledger.add(answer(image))
    expected = filled((0, 1, 3, 4, 5), whole=whole)
    for trial in TRIALS:
        assert ledger.judged(trial) == expected.judged(trial)
        assert ledger.top1_error(trial) == expected.top1_error(trial)
    if whole:
        np.testing.assert_array_equal(ledger.probabilities(), expected.probabilities())


@pytest.mark.parametrize(("changed", "told"), [
    ({"crops": 10}, "with --crops 1, now it is with --crops 10"),
    ({"limit": 5}, "without --limit, now it is with --limit 5"), ({"weights": ["abc"]}, "with other weights"),
    ({"new": True}, "without --new, now it is with --new")])
def test_other_settings_are_not_mixed_in(tmp_path, changed, told):
    progress(tmp_path / "state.h5", filled()).save()
    with pytest.raises(InputError, match=rf"state\.h5 was begun {told}: give"):
        progress(tmp_path / "state.h5", Ledger(TRIALS, NAMES, 7), **changed)


def test_a_file_of_something_else_is_left_alone(tmp_path):
    path = tmp_path / "best.h5"
    hdf5.save(path, {"weight": np.zeros(3)}, {"kind": "weights"})
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"best\.h5 holds no evaluation"):
        progress(path, Ledger(TRIALS, NAMES, 7))
    assert path.read_bytes() == before


def test_a_damaged_file_is_told(tmp_path):
    progress(tmp_path / "state.h5", filled()).save()
    content = bytearray((tmp_path / "state.h5").read_bytes())
    content[-100] ^= 1
    (tmp_path / "state.h5").write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        progress(tmp_path / "state.h5", Ledger(TRIALS, NAMES, 7))


def test_it_is_saved_every_minute_and_at_the_end(tmp_path, monkeypatch):
    path, now = tmp_path / "state.h5", [0.0]
    monkeypatch.setattr(ledger_module.time, "monotonic", lambda: now[0])
    with progress(path, Ledger(TRIALS, NAMES, 7)) as running:
        for image, seconds in enumerate((0, 59, 1, 59, 0)):
            now[0] += seconds
            running.add(answer(image))
            assert path.exists() == (image >= 2)
        with h5py.File(path) as file:
            assert file["image"][:].tolist() == [0, 1, 2]
    with h5py.File(path) as file:
        assert file["image"][:].tolist() == [0, 1, 2, 3, 4]
        assert json.loads(file.attrs["seconds"]) == 119


def test_it_is_saved_when_something_goes_wrong(tmp_path):
    with contextlib.suppress(KeyboardInterrupt), progress(tmp_path / "state.h5", Ledger(TRIALS, NAMES, 7)) as running:
        running.add(answer(0))
        raise KeyboardInterrupt
    assert hdf5.load(tmp_path / "state.h5")[0]["image"].tolist() == [0]


def test_slow_saving_is_done_less_often(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(ledger_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(ledger_module.hdf5, "save", lambda *_: now.__setitem__(0, now[0] + 10))
    running, saved = progress(tmp_path / "state.h5", filled()), []
    for image in range(100):
        now[0] += 60
        before = now[0]
        running.add(answer(image))
        saved.append(now[0] > before)
    assert 5 < sum(saved) < 0.03 * now[0] / 10


def test_a_save_that_fails_is_told_once_and_tried_again(tmp_path, monkeypatch, caplog):
    """A full disk does not end an evaluation of days before its end."""
    path, now, whole = tmp_path / "state.h5", [0.0], hdf5.save
    tried = []

    def full(*_):
        tried.append(now[0])
        raise InputError("can't write state.h5: No space left")

    monkeypatch.setattr(ledger_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(ledger_module.hdf5, "save", full)
    running = progress(path, Ledger(TRIALS, NAMES, 7))
    for image in range(10):
        now[0] += 30
        running.add(answer(image))
    assert tried == [60, 120, 180, 240, 300]
    assert [(each.levelname, each.getMessage().split(";")[0]) for each in caplog.records] == [
        ("WARNING", "can't write state.h5: No space left")]
    with pytest.raises(InputError, match="No space left"), running:
        pass
    monkeypatch.setattr(ledger_module.hdf5, "save", whole)
    now[0] += 60
    running.add(answer(10))
    assert hdf5.load(path)[0]["image"].tolist() == list(range(11))


def test_without_a_file_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    now = [0.0]
    monkeypatch.setattr(ledger_module.time, "monotonic", lambda: now[0])
    with progress(None, Ledger(TRIALS, NAMES, 7)) as running:
        running.add(answer(0))
        now[0] += 3
    assert not list(tmp_path.iterdir())
    assert running.seconds == 3
