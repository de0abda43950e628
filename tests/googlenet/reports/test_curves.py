"""The curves of a run."""

import pytest
from PIL import Image

from googlenet.reports import curves
from googlenet.reports.log import Log, read_log
from tests.googlenet.reports.test_log import epoch, step


@pytest.mark.parametrize("kind", ["whole", "no heads", "no validation", "only ends", "nothing"])
def test_curves_of_any_log_are_a_picture(tmp_path, kind):
    log = Log(tmp_path / "log.csv", 100 if kind == "only ends" else 1)
    for number in range(1, 1 if kind == "nothing" else 9):
        log.step(step(number, heads=kind != "no heads"))
        if number % 4 == 0:
            log.epoch(epoch(number // 4, number, validation=kind != "no validation"))
    log.close()
    curves.curves(read_log(tmp_path / "log.csv"), tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        image.load()
        assert image.size[0] >= 800
        assert len(image.convert("RGB").getcolors(1 << 24)) > 2


def test_a_loss_curve_is_of_steps_alone(tmp_path, monkeypatch):
    """An epoch's means, drawn among them, would count twice."""
    log, drawn = Log(tmp_path / "log.csv", 1), []
    for number in range(1, 5):
        log.step(step(number))
    log.epoch(epoch(0, 4))
    log.close()
    monkeypatch.setattr(curves, "smoothed", lambda values: drawn.append(values) or values)
    curves.curves(read_log(tmp_path / "log.csv"), tmp_path / "curves.png")
    assert drawn == [(3.0,) * 4, (4.0,) * 4, (2.0,) * 4]


def test_smoothed_is_the_mean_of_the_last_twenty():
    assert curves.smoothed((1.0, 2.0, 6.0)) == [1.0, 1.5, 3.0]
    assert curves.smoothed(tuple(map(float, range(40))))[-1] == 29.5
    assert curves.smoothed((1.0, 3.0, 5.0, 7.0), span=2) == [1.0, 2.0, 4.0, 6.0]
