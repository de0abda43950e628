"""The log of a run: its lines, and what a resumed run keeps of them."""

import math
import os

import pytest

from googlenet.reports.curves import curves
from googlenet.reports.log import Log, read_log
from googlenet.testing import Score
from googlenet.training import Epoch, Losses, Restart, Step
from googlenet.training.records import Crew
from minigrad.errors import InputError

HEADER = ("step,epoch,images,lr,loss,loss_main,loss_aux1,loss_aux2,images_per_second,validation_loss,"
          "validation_top1_error,validation_top5_error,averaged_loss,averaged_top1_error,averaged_top5_error,"
          "gradient_norm")


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
    log = Log(path, 3)
    for number in range(1, 8):
        log.step(step(number))
    log.epoch(epoch(0, 7))
    log.close()
    assert lines(path) == [
        HEADER,
        "3,0,24,0.01,1.5,2.0,3.0,4.0,12.35,,,,,,,",
        "6,0,48,0.01,1.5,2.0,3.0,4.0,12.35,,,,,,,",
        "7,0,56,,1.25,1.75,2.75,,,0.875,0.25,0.05,,,,",
    ]


def test_what_is_not_built_or_not_held_out_stays_blank(tmp_path):
    path = tmp_path / "log.csv"
    log = Log(path, 1)
    log.step(step(1, heads=False))
    log.epoch(epoch(0, 1, validation=False))
    log.close()
    assert lines(path)[1:] == ["1,0,8,0.01,1.5,2.0,,,12.35,,,,,,,", "1,0,8,,1.25,1.75,2.75,,,,,,,,,"]


def test_averaged_weights_have_columns_of_their_own(tmp_path):
    path = tmp_path / "log.csv"
    log = Log(path, 1)
    log.epoch(epoch(0, 1)._replace(averaged=Score(40, 0.2, 0.04, 0.75)))
    log.close()
    assert lines(path)[1].endswith(",0.875,0.25,0.05,0.75,0.2,0.04,")
    curves(read_log(path), tmp_path / "curves.png")


def test_a_clipped_gradient_has_its_norm(tmp_path):
    path = tmp_path / "log.csv"
    log = Log(path, 1)
    log.step(step(1)._replace(gradient_norm=2.5))
    log.close()
    assert read_log(path)[0]["gradient_norm"] == "2.5"


def test_steps_that_are_taken_again_have_one_line(tmp_path):
    """Training went back in the second epoch to the second step of it, and later to the beginning."""
    path = tmp_path / "log.csv"
    log = Log(path, 1)
    for number in range(1, 7):
        log.step(step(number, (number - 1) // 3))
        if number == 3:
            log.epoch(epoch(0, 3))
    log.restart(Restart("the loss is nan", 6, 5, 1, 0.5))
    log.step(step(6, 1)._replace(lr=0.005))
    log.flush()
    assert [(row["step"], row["lr"]) for row in read_log(path)] == [
        ("1", "0.01"), ("2", "0.01"), ("3", "0.01"), ("3", ""), ("4", "0.01"), ("5", "0.01"), ("6", "0.005")]
    log.restart(Restart("the loss is nan", 6, 0, 0, 0.25))
    log.step(step(1)._replace(lr=0.0025))
    log.close()
    assert [(row["step"], row["lr"]) for row in read_log(path)] == [("1", "0.0025")]
    assert [each.name for each in tmp_path.iterdir()] == ["log.csv"]


def test_an_epochs_line_is_on_the_disk_at_once(tmp_path):
    log = Log(tmp_path / "log.csv", 1)
    log.step(step(1))
    log.epoch(epoch(0, 1))
    assert len(lines(tmp_path / "log.csv")) == 3
    log.close()


def write_log(path, steps):
    log = Log(path, 1)
    for number in range(1, steps + 1):
        log.step(step(number))
    log.close()


def test_resumed_lines_beyond_the_checkpoint_are_dropped(tmp_path):
    """They are computed again; so is a line that a crash cut in two."""
    path = tmp_path / "log.csv"
    write_log(path, 6)
    path.write_bytes(path.read_bytes()[:-9])
    log = Log(path, 1, step=4)
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
    log = Log(path, 1)
    for number in range(1, 6):
        log.step(step(number, (number - 1) // 2))
        if number % 2 == 0:
            log.epoch(epoch(number // 2 - 1, number))
    log.close()
    Log(path, 1, *at).close()
    assert [row["step"] + " end" * (not row["lr"]) for row in read_log(path)] == kept


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"can't write .*log\.csv: Not a directory; free space or choose"):
        Log(tmp_path / "file" / "log.csv", 1)


def test_a_new_run_begins_a_new_log(tmp_path):
    path = tmp_path / "log.csv"
    write_log(path, 6)
    write_log(path, 1)
    assert [row["step"] for row in read_log(path)] == ["1"]
    assert [each.name for each in tmp_path.iterdir()] == ["log.csv"]


def test_resuming_without_a_log_begins_one(tmp_path):
    Log(tmp_path / "log.csv", 1, step=4).close()
    assert lines(tmp_path / "log.csv") == [HEADER]


@pytest.mark.parametrize("cut", range(1, 70, 7))
def test_a_log_cut_anywhere_is_read(tmp_path, cut):
    path = tmp_path / "log.csv"
    write_log(path, 3)
    last = lines(path)[-1]
    path.write_bytes(path.read_bytes()[:-cut])
    rows = read_log(path)
    whole = 3 if cut <= 2 else 2 if cut <= 2 + len(last) + 2 else 1  # a line's end does not count
    assert [row["step"] for row in rows] == ["1", "2", "3"][:whole]
    curves(rows, tmp_path / "curves.png")


@pytest.mark.parametrize("content", [b"name,value\none,1\n", b"step,lr\n1,0.1\n", b"\xff\xfe", b'"' + b"x" * 200_000],
                         ids=["other columns", "some columns", "no text", "a long field"])
def test_a_file_of_another_program_is_named(tmp_path, content):
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"log\.csv (is no log of a run|can't be read .*): move it away"):
        Log(path, 1, step=4)
    assert path.read_bytes() == content


def test_a_log_is_on_the_disk_before_it_takes_the_old_ones_place(tmp_path, monkeypatch):
    path, order = tmp_path / "log.csv", []
    write_log(path, 6)
    for name in ("fsync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *arguments, name=name, original=original: (
            order.append(name), original(*arguments))[1])
    Log(path, 1, step=4).close()
    assert order[:2] == ["fsync", "replace"]


def test_no_log_is_no_lines(tmp_path):
    assert read_log(tmp_path / "log.csv") == []


def test_a_run_by_workers_has_columns_of_its_own(tmp_path):
    """They stay when the run is gone on with by one."""
    path = tmp_path / "log.csv"
    log = Log(path, 1, crew=True)
    log.step(step(1)._replace(crew=Crew((3.25, 4.0), 0.8567, 2, 1, 0.01234)))
    log.epoch(epoch(0, 1))
    log.close()
    assert lines(path) == [
        HEADER + ",staleness_mean,staleness_max,restarts,server_share,worker_images_per_second",
        "1,0,8,0.01,1.5,2.0,3.0,4.0,12.35,,,,,,,,0.857,2,1,0.0123,3.25 4.00",
        "1,0,8,,1.25,1.75,2.75,,,0.875,0.25,0.05,,,,,,,,,",
    ]
    log = Log(path, 1, step=1, epoch=1)
    log.step(step(2, 1))
    log.close()
    assert lines(path)[1].endswith(",0.857,2,1,0.0123,3.25 4.00")
    assert lines(path)[3] == "2,1,16,0.01,1.5,2.0,3.0,4.0,12.35,,,,,,,,,,,,"
    assert read_log(path)[2]["restarts"] == ""
