"""What scripts share: exit codes and messages, the log of a run, its curves."""

import logging
import math
import sys

import pytest
from PIL import Image

from data.errors import DataError
from googlenet import report
from googlenet.inference import Score
from googlenet.training import DivergedError, Epoch, Losses, Step
from minigrad.errors import InputError

HEADER = ("step,epoch,images,lr,loss,loss_main,loss_aux1,loss_aux2,images_per_second,validation_loss,"
          "validation_top1_error,validation_top5_error,averaged_loss,averaged_top1_error,averaged_top5_error")


@pytest.fixture(autouse=True)
def unchanged_logging():
    yield
    logging.captureWarnings(False)


def exit_of(main, monkeypatch, *arguments):
    """What `run` ends a program with: its code, or the line that Python prints before it exits with 1."""
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    with pytest.raises(SystemExit) as end:
        report.run(main, "train.py")
    return end.value.code


def raising(error):
    def main(arguments):
        raise error
    return main


@pytest.mark.parametrize("code", [None, 0, 130])
def test_a_script_ends_with_what_main_returns(monkeypatch, code):
    given = []
    assert exit_of(lambda arguments: given.append(arguments) or code, monkeypatch, "--epochs", "3") == code
    assert given == [["--epochs", "3"]]


@pytest.mark.parametrize(("error", "told"), [
    (InputError("a.h5 is damaged: use a copy"), "a.h5 is damaged: use a copy"),
    (DataError("two\n  lines"), "two lines"),
    (DivergedError("the loss is nan"), "the loss is nan"),
    (OSError(28, "No space left on device", "runs/log.csv"),
     "runs/log.csv: No space left on device; check the path, the rights and the disk"),
])
def test_an_error_is_one_line(monkeypatch, error, told):
    assert exit_of(raising(error), monkeypatch) == f"train.py: error: {told}"


def test_an_error_without_a_file_says_what_it_is(monkeypatch):
    assert "No space left" in exit_of(raising(OSError(28, "No space left on device")), monkeypatch)
    assert "image cannot be written" in exit_of(raising(OSError("image cannot be written")), monkeypatch)


def test_out_of_memory_has_a_remedy(monkeypatch):
    told = exit_of(raising(MemoryError("Unable to allocate 36.4 TiB")), monkeypatch)
    assert told.startswith("train.py: error: out of memory")
    assert "use smaller images or batches" in told


def test_ctrl_c_is_130(monkeypatch, capsys):
    assert exit_of(raising(KeyboardInterrupt()), monkeypatch) == 130
    assert capsys.readouterr().err.strip() == "train.py: stopped"


@pytest.mark.parametrize("error", [InputError("x"), DataError("x"), OSError(2, "x", "y")])
def test_debug_shows_where_from(monkeypatch, error):
    monkeypatch.setattr(sys, "argv", ["train.py", "--debug"])
    with pytest.raises(type(error)):
        report.run(raising(error), "train.py")


def test_a_fault_of_the_program_is_not_hidden(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(ZeroDivisionError):
        report.run(raising(ZeroDivisionError()), "train.py")


# The log.

def step(number, epoch=0, heads=True):
    aux = (3.0, 4.0) if heads else (math.nan, math.nan)
    return Step(number, epoch, number * 8, 0.01, Losses(1.5, 2.0, *aux), 12.3456)


def epoch(number, at, validation=True):
    scored = Score(40, 0.25, 0.05, 0.875) if validation else None
    return Epoch(number, at, at * 8, Losses(1.25, 1.75, 2.75, math.nan), scored, True, ())


def lines(path):
    return path.read_text(encoding="utf-8").splitlines()


def test_every_few_steps_and_each_epoch_has_a_line(tmp_path):
    path = tmp_path / "log.csv"
    log = report.Log(path, 3)
    for number in range(1, 8):
        log.step(step(number))
    log.epoch(epoch(0, 7))
    log.close()
    assert lines(path) == [
        HEADER,
        "3,0,24,0.01,1.5,2.0,3.0,4.0,12.35,,,,,,",
        "6,0,48,0.01,1.5,2.0,3.0,4.0,12.35,,,,,,",
        "7,0,56,,1.25,1.75,2.75,,,0.875,0.25,0.05,,,",
    ]


def test_what_is_not_built_or_not_held_out_stays_blank(tmp_path):
    path = tmp_path / "log.csv"
    log = report.Log(path, 1)
    log.step(step(1, heads=False))
    log.epoch(epoch(0, 1, validation=False))
    log.close()
    assert lines(path)[1:] == ["1,0,8,0.01,1.5,2.0,,,12.35,,,,,,", "1,0,8,,1.25,1.75,2.75,,,,,,,,"]


def test_averaged_weights_have_columns_of_their_own(tmp_path):
    path = tmp_path / "log.csv"
    log = report.Log(path, 1)
    log.epoch(epoch(0, 1)._replace(averaged=Score(40, 0.2, 0.04, 0.75)))
    log.close()
    assert lines(path)[1].endswith(",0.875,0.25,0.05,0.75,0.2,0.04")
    report.curves(report.read_log(path), tmp_path / "curves.png")


def test_an_epochs_line_is_on_the_disk_at_once(tmp_path):
    log = report.Log(tmp_path / "log.csv", 1)
    log.step(step(1))
    log.epoch(epoch(0, 1))
    assert len(lines(tmp_path / "log.csv")) == 3
    log.close()


def write_log(path, steps):
    log = report.Log(path, 1)
    for number in range(1, steps + 1):
        log.step(step(number))
    log.close()


def test_resumed_lines_beyond_the_checkpoint_are_dropped(tmp_path):
    """They are computed again; so is a line that a crash cut in two."""
    path = tmp_path / "log.csv"
    write_log(path, 6)
    path.write_bytes(path.read_bytes()[:-9])
    log = report.Log(path, 1, step=4)
    log.step(step(5))
    log.close()
    assert [line.split(",")[0] for line in lines(path)[1:]] == ["1", "2", "3", "4", "5"]
    assert lines(path)[0] == HEADER


@pytest.mark.parametrize(("at", "kept"), [((2, 0), ["1", "2"]), ((2, 1), ["1", "2", "2 end"]),
                                          ((3, 1), ["1", "2", "2 end", "3"]),
                                          ((4, 1), ["1", "2", "2 end", "3", "4"]),
                                          ((4, 2), ["1", "2", "2 end", "3", "4", "4 end"])])
def test_the_end_of_an_epoch_is_kept_where_it_was_passed(tmp_path, at, kept):
    """(step, epoch) of the checkpoint, two steps an epoch: the same step is before an end and behind it."""
    path = tmp_path / "log.csv"
    log = report.Log(path, 1)
    for number in range(1, 6):
        log.step(step(number, (number - 1) // 2))
        if number % 2 == 0:
            log.epoch(epoch(number // 2 - 1, number))
    log.close()
    report.Log(path, 1, *at).close()
    assert [row["step"] + " end" * (not row["lr"]) for row in report.read_log(path)] == kept


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"can't write .*log\.csv: Not a directory; free space or choose"):
        report.Log(tmp_path / "file" / "log.csv", 1)


def test_a_new_run_begins_a_new_log(tmp_path):
    path = tmp_path / "log.csv"
    write_log(path, 6)
    write_log(path, 1)
    assert [row["step"] for row in report.read_log(path)] == ["1"]
    assert [each.name for each in tmp_path.iterdir()] == ["log.csv"]


def test_resuming_without_a_log_begins_one(tmp_path):
    report.Log(tmp_path / "log.csv", 1, step=4).close()
    assert lines(tmp_path / "log.csv") == [HEADER]


@pytest.mark.parametrize("cut", range(1, 70, 7))
def test_a_log_cut_anywhere_is_read(tmp_path, cut):
    path = tmp_path / "log.csv"
    write_log(path, 3)
    last = lines(path)[-1]
    path.write_bytes(path.read_bytes()[:-cut])
    rows = report.read_log(path)
    whole = 3 if cut <= 2 else 2 if cut <= 2 + len(last) + 2 else 1  # a line's end does not count
    assert [row["step"] for row in rows] == ["1", "2", "3"][:whole]
    report.curves(rows, tmp_path / "curves.png")


def test_no_log_is_no_lines(tmp_path):
    assert report.read_log(tmp_path / "log.csv") == []


# Curves.

@pytest.mark.parametrize("kind", ["whole", "no heads", "no validation", "only ends", "nothing"])
def test_curves_of_any_log_are_a_picture(tmp_path, kind):
    log = report.Log(tmp_path / "log.csv", 100 if kind == "only ends" else 1)
    for number in range(1, 1 if kind == "nothing" else 9):
        log.step(step(number, heads=kind != "no heads"))
        if number % 4 == 0:
            log.epoch(epoch(number // 4, number, validation=kind != "no validation"))
    log.close()
    report.curves(report.read_log(tmp_path / "log.csv"), tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        image.load()
        assert image.size[0] >= 800
        assert len(image.convert("RGB").getcolors(1 << 24)) > 2


def test_a_loss_curve_is_of_steps_alone(tmp_path, monkeypatch):
    """An epoch's means, drawn among them, would count twice."""
    log, drawn = report.Log(tmp_path / "log.csv", 1), []
    for number in range(1, 5):
        log.step(step(number))
    log.epoch(epoch(0, 4))
    log.close()
    monkeypatch.setattr(report, "smoothed", lambda values: drawn.append(values) or values)
    report.curves(report.read_log(tmp_path / "log.csv"), tmp_path / "curves.png")
    assert drawn == [(3.0,) * 4, (4.0,) * 4, (2.0,) * 4]


def test_smoothed_is_the_mean_of_the_last_twenty():
    assert report.smoothed((1.0, 2.0, 6.0)) == [1.0, 1.5, 3.0]
    assert report.smoothed(tuple(map(float, range(40))))[-1] == 29.5
    assert report.smoothed((1.0, 3.0, 5.0, 7.0), span=2) == [1.0, 2.0, 4.0, 6.0]
