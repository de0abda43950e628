"""Learning curves of pages: from records as from the log that they left."""

import math

import pytest

from googlenet.reports.learning import ROWS, Learning, learning_of
from googlenet.reports.log import Log
from googlenet.testing import Score
from googlenet.training import Epoch, Losses, Step


def step(number, heads=True):
    aux = (2.0 + 1 / number, 3.0) if heads else (math.nan, math.nan)
    return Step(number, (number - 1) // 4, number * 8, 0.01, Losses(1.5, 1 / number, *aux), 12.5)


def epoch(number, averaged=True, validation=True):
    scored = Score(40, 0.25 / (number + 1), 0.05, 0.875)
    return Epoch(number, number * 4 + 4, number * 32 + 32, Losses(1.25, 1.75, 2.75, math.nan),
                 scored if validation else None, True, (), scored._replace(top1_error=0.1) if averaged else None)


def records(**kind):
    for number in range(1, 13):
        yield step(number)
        if number % 4 == 0:
            yield epoch(number // 4 - 1, **kind)


@pytest.mark.parametrize("kind", [{}, {"averaged": False}, {"averaged": False, "validation": False}])
def test_the_log_tells_what_the_records_told(tmp_path, kind):
    log, told = Log(tmp_path / "log.csv", 1), Learning()
    for record in records(**kind):
        is_step = isinstance(record, Step)
        (log.step if is_step else log.epoch)(record)
        (told.step if is_step else told.epoch)(record)
    log.close()
    read = learning_of(tmp_path / "log.csv")
    assert read.losses["aux1"].points == told.losses["aux1"].points
    assert read.html() == told.html()
    html = told.html()
    assert html.count("<figure") == (2 if kind.get("validation", True) else 1)
    assert ("averaged" in html) == kind.get("averaged", True)
    assert "<th>3</th>" in html.replace(' scope="row"', "").replace(' class="number"', "")


@pytest.mark.parametrize("content", [
    None, b"", b"what,is,this\n1,2,3\n", b"step,lr,images\n1,0.1,many\n", b"\xff\xfe\0"])
def test_no_log_of_ours_is_no_curves(tmp_path, content):
    if content is not None:
        (tmp_path / "log.csv").write_bytes(content)
    assert learning_of(tmp_path / "log.csv").html() == ""


def test_heads_that_are_not_built_have_no_line():
    told = Learning()
    told.step(step(1, heads=False))
    assert "classifier" in told.html()
    assert "auxiliary" not in told.html()


def test_a_long_run_stays_small():
    told = Learning()
    for number in range(1, 30001):
        told.step(step(number))
    assert len(told.html()) < 150_000


@pytest.mark.parametrize(("epochs", "caption"), [
    (ROWS, "Losses and validation of each epoch<"), (ROWS + 50, f"of each epoch; the latest {ROWS} of {ROWS + 50}<")])
def test_epochs_that_are_left_out_are_told_of(epochs, caption):
    told = Learning()
    told.step(step(1))
    for number in range(epochs):
        told.epoch(epoch(number))
    assert caption in told.html()
    assert told.html().count("<tr>") == ROWS + 1
