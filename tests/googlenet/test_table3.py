"""Table 3: its rows, its differences against literal counts, and what an ensemble does beside its networks."""

import json

import numpy as np
import pytest

from data.crops import COUNTS
from googlenet import table3
from googlenet.intervals import of_bounded_mean, of_mean, of_paired_errors, wilson
from googlenet.ledger import Ledger, Trial
from googlenet.testing import Answer, Spent, judge, tally
from minigrad.errors import InputError

IMAGES, CLASSES = 60, 8
ALL = (0, 1, 2)


def answers() -> list[Answer]:
    """Three networks that are right ever more often, the second most of all, and with more crops."""
    made = []
    for image in range(IMAGES):
        rng = np.random.default_rng(image)
        label = int(rng.integers(CLASSES))
        drawn = {}
        for pool in ("mean", "max"):
            for count in COUNTS:
                logits = rng.normal(0, 1, (3, CLASSES))
                logits[:, label] += np.array([0.5, 2.0, 1.0]) + 0.1 * np.log(count)
                drawn[count, pool] = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        made.append(Answer(image, label, drawn))
    return made


def filled(networks: int, crops: int = 1, pool: str = "mean", table: bool = True) -> Ledger:
    names = [f"runs/{n}/best.h5" for n in range(networks)]
    ledger = Ledger(table3.trials(networks, crops, pool, table), names, CLASSES)
    for each in answers():
        ledger.add(each)
    return ledger


def spent(networks: int) -> Spent:
    """A crop takes 1, 2 and 3 ms; pictures are not square."""
    made = Spent(networks)
    made.crops, made.images = [1000] * networks, [10] * networks
    made.seconds = [1.0, 2.0, 3.0][:networks]
    made.distinct = {str(count): [10 * count] * networks for count in COUNTS}
    return made


def judged(trial: Trial) -> list:
    return [judge(trial.prediction(each)) for each in answers()]


# Which tests.

def test_trials_of_one_network_and_of_several():
    assert table3.trials(1, 10, "mean", False) == [Trial((0,), 10)]
    assert table3.trials(2, 10, "max", False) == [Trial(group, 10, "max") for group in ((0,), (1,), (0, 1))]
    assert table3.trials(1, 1, "mean", True) == [Trial((0,), count) for count in COUNTS]
    several = table3.trials(2, 144, "max", True)
    assert set(several) == {Trial(group, count, pool) for group in ((0,), (1,), (0, 1)) for count in COUNTS
                            for pool in ("mean", "max")}
    assert len(set(several)) == len(several)
    assert [len(trial.networks) for trial in several] == sorted(len(trial.networks) for trial in several)


# The table.

def test_rows_of_the_paper_then_each_network():
    rows = table3.table(filled(3), 3, spent(3))
    assert [(row["models"], row["crops"], row["cost"]) for row in rows[:6]] == [
        (1, 1, 1), (1, 10, 10), (1, 144, 144), (3, 1, 3), (3, 10, 30), (3, 144, 432)]
    assert {row["kind"] for row in rows[:6]} == {"paper"}
    assert {row["kind"] for row in rows[6:]} == {"member"}
    assert {tuple(row["networks"]) for row in rows[:3]} == {("runs/1/best.h5",)}, "the lowest top-1 error"
    assert [(row["networks"], row["crops"]) for row in rows[6:]] == [
        ([f"runs/{n}/best.h5"], count) for n in ALL for count in COUNTS]
    assert {row["pool"] for row in rows} == {"mean"}
    json.dumps(rows, allow_nan=False)


def test_rows_of_the_maximum_follow_those_of_the_mean():
    rows = table3.table(filled(3, 10, "max"), 3, spent(3))
    assert [(row["models"], row["crops"], row["pool"]) for row in rows if row["kind"] == "paper"] == [
        (models, count, pool) for models in (1, 3)
        for count, pool in ((1, "mean"), (10, "mean"), (144, "mean"), (10, "max"), (144, "max"))]
    assert {row["pool"] for row in rows if row["kind"] == "member"} == {"mean"}


def test_one_network_alone():
    rows = table3.table(filled(1), 1, spent(1))
    assert [(row["kind"], row["models"], row["crops"]) for row in rows] == [("paper", 1, count) for count in COUNTS]
    assert [[each["to"] for each in row["more_differences"]] for row in rows] == [[], [], ["10 crops"]]


def test_figures_are_those_of_each_trial():
    for row in table3.table(filled(3, 10, "max"), 3, spent(3)):
        networks = tuple(int(name.split("/")[1]) for name in row["networks"])
        own = judged(Trial(networks, row["crops"], row["pool"]))
        expected = tally(own)
        assert (row["images"], row["top1_error"], row["top5_error"]) == expected[:3]
        assert row["loss"] == pytest.approx(expected.loss)
        for name, most in (("top1_error", 1), ("top5_error", 5)):
            wrong = sum(each.rank >= most for each in own)
            assert row["intervals"][name] == pytest.approx(list(wilson(wrong, IMAGES)))
        assert row["intervals"]["loss"] == pytest.approx(list(of_mean([each.loss for each in own])))


def check_difference(found, ours, theirs):
    for name, most in (("top1_error", 1), ("top5_error", 5)):
        wrong = [[each.rank >= most for each in judged] for judged in (theirs, ours)]
        assert found[name] == pytest.approx((sum(wrong[1]) - sum(wrong[0])) / IMAGES)
        assert found["intervals"][name] == pytest.approx(list(of_paired_errors(*wrong)))
    losses = [one.loss - other.loss for one, other in zip(ours, theirs, strict=True)]
    assert found["loss"] == pytest.approx(sum(losses) / IMAGES)
    assert found["intervals"]["loss"] == pytest.approx(list(of_mean(losses)))


def test_differences_are_taken_image_by_image():
    rows = table3.table(filled(3), 3, spent(3))
    base = judged(Trial((1,), 1))
    assert rows[0]["difference"] is None
    for row in rows[1:]:
        networks = tuple(int(name.split("/")[1]) for name in row["networks"])
        if (networks, row["crops"]) == ((1,), 1):
            assert row["difference"] is None, "the base again, among the members"
        else:
            check_difference(row["difference"], judged(Trial(networks, row["crops"])), base)
    ten, = (each for each in rows[5]["more_differences"] if each["to"] == "10 crops")
    check_difference(ten, judged(Trial(ALL, 144)), judged(Trial(ALL, 10)))
    assert [[each["to"] for each in row["more_differences"]] for row in rows[:6]] == [
        [], [], ["10 crops"], ["its mean member"], ["its mean member"], ["10 crops", "its mean member"]]


def test_time_of_an_image():
    rows = table3.table(filled(3), 3, spent(3))
    assert [row["ms_per_image"] for row in rows[:6]] == pytest.approx([2, 20, 288, 6, 60, 864])


def test_crops_that_are_alike_are_told():
    time = spent(2)
    assert not table3.repeated(table3.table(filled(2), 2, time))
    time.distinct |= {"10": [20, 20], "144": [480, 480]}
    rows = table3.table(filled(2), 2, time)
    assert [row["distinct_crops"] for row in rows] == [1, 2, 48] * 4
    assert table3.repeated(rows).startswith("Distinct are of 10 crops 2, of 144 crops 48: ")


def test_of_equal_errors_the_lower_loss_is_chosen():
    ledger = Ledger(table3.trials(2, 1, "mean", False), ["a", "b"], 2)
    for image in range(4):
        ledger.add(Answer(image, 0, {(1, "mean"): np.array([[0.6, 0.4], [0.7, 0.3]])}))
    assert table3.best(ledger, 2) == 1


# An ensemble beside its networks.

def test_members_their_mean_and_the_difference():
    found = table3.members(filled(3, 10, table=False), Trial(ALL, 10))
    alone, together = [judged(Trial((n,), 10)) for n in ALL], judged(Trial(ALL, 10))
    for n, each in enumerate(found["each"]):
        assert each["network"] == f"runs/{n}/best.h5"
        assert each["top1_error"] == tally(alone[n]).top1_error
    for name, value in (("top1_error", lambda j: j.rank >= 1), ("top5_error", lambda j: j.rank >= 5),
                        ("loss", lambda j: j.loss)):
        mean = [sum(value(own[i]) for own in alone) / 3 for i in range(IMAGES)]
        more = [value(together[i]) - mean[i] for i in range(IMAGES)]
        assert found["mean"][name] == pytest.approx(sum(mean) / IMAGES)
        assert found["difference"][name] == pytest.approx(sum(more) / IMAGES)
        own, of = found["mean"]["intervals"][name], found["difference"]["intervals"][name]
        assert own == pytest.approx(list(of_mean(mean) if name == "loss" else of_bounded_mean(mean, 0, 1)))
        assert of == pytest.approx(list(of_mean(more) if name == "loss" else of_bounded_mean(more, -1, 1)))
    assert found["difference"]["loss"] < 0, "a mean of probabilities is at least as likely as the members' mean"


# Classes.

def test_each_class_by_its_name():
    names = [f"class {c}" for c in range(CLASSES)]
    found = table3.by_class(filled(1), Trial((0,), 1), names)
    for label, name in enumerate(names):
        own = [each for each in judged(Trial((0,), 1)) if each.label == label]
        assert (found[name]["images"], found[name]["top1_error"]) == tally(own)[:2]
    assert list(found) == names


def test_one_image_has_no_interval_of_its_loss():
    found = table3.measures(np.array([2]), np.array([0.5]))
    assert found["intervals"]["loss"] is None
    assert found["intervals"]["top1_error"] == pytest.approx(list(wilson(1, 1)))


def test_no_image_is_told():
    with pytest.raises(InputError, match="no image could be classified"):
        table3.measures(np.array([]), np.array([]))
