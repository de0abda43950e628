"""python -m googlenet ablations as a user runs it: what it trains, tests and writes, and how it goes on."""

import csv
import itertools
import os
import random
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from data.datasets import open_dataset
from googlenet.ablations.results import Results
from googlenet.commands import training
from googlenet.inference import load
from googlenet.testing import score
from googlenet.training import Trainer
from googlenet.weights import load_model
from tests.runs import Killed, command, computing_alone, interrupt, kill, on_records, script, write_set

POSIX = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")

one_thread = pytest.fixture(computing_alone, scope="module", autouse=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """36 training pictures: 9 steps an epoch at batch 4; 12 test pictures."""
    return write_set(tmp_path_factory.mktemp("pictures"))


def flags(folder: Path, output: Path, *more: object) -> list[object]:
    """The flags of four runs of two epochs: the base and the paper's rate, from two seeds."""
    return ["ablations", "--data", folder, "--width", 0.05, "--image-size", 32, "--epochs", 2, "-b", 4, "--threads", 1,
            "--seeds", 2, "--only", "averaging", "--output", output, *more]


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory):
    """The folder of ablations that were never stopped, and what was told."""
    output = tmp_path_factory.mktemp("made") / "ablations"
    done = script("googlenet", *flags(folder, output))
    assert done.code == 0, done.err
    return output, done


def rows(output: Path) -> dict[str, dict[str, str]]:
    """The lines of results.csv by the names of the runs' folders, without the speed, which no two runs share."""
    with open(output / "results.csv", newline="") as file:
        found = {f"{row['run']}-seed-{row['seed']}": row for row in csv.DictReader(file)}
    assert all(float(row.pop("images_per_second")) > 0 for row in found.values())
    return found


def assert_same(one: Path, other: Path) -> None:
    """Same results, same weights."""
    assert rows(one) == rows(other)
    for name in rows(one):
        arrays, others = (load_model(output / name / "best.h5").model.state() for output in (one, other))
        for path in arrays:
            np.testing.assert_array_equal(arrays[path], others[path], err_msg=f"{name} {path}")


def stamps(output: Path) -> dict[str, int]:
    return {path.relative_to(output).as_posix(): path.stat().st_mtime_ns for path in output.glob("*/*")}


# What is made.

def test_each_run_is_made_once(made):
    names = [f"{run}-seed-{seed}" for seed in (0, 1) for run in ("base", "paper-rate")]
    assert list(rows(made[0])) == names
    assert sorted(path.name for path in made[0].iterdir()) == sorted([*names, "ablations.md", "ablations.png",
                                                                      "results.csv"])
    for name in names:
        assert sorted(path.name for path in (made[0] / name).iterdir()) == [".lock", "best.h5", "config.json",
                                                                            "curves.png", "log.csv"]


def test_errors_are_those_of_the_weights(folder, made):
    """Of the last step, and of their average: both are tested, and are not the same."""
    images = open_dataset(folder, "test")
    for name, row in rows(made[0]).items():
        best = made[0] / name / "best.h5"
        assert load_model(best).attributes["trained_images"] == 2 * 36, "of the last step"
        for prefix, raw in (("", True), ("averaged_", False)):
            found = score([load(best, raw=raw)], images, 1)
            assert float(row[f"{prefix}top1_error"]) == found.top1_error
            assert float(row[f"{prefix}nll"]) == found.loss
        assert row["nll"] != row["averaged_nll"]
        assert row["images"] == "12"


def test_the_table_shows_them(made):
    output, done = made
    document = (output / "ablations.md").read_text(encoding="utf-8")
    assert document in done.out
    found = rows(output)
    errors = [float(found[f"paper-rate-seed-{seed}"]["top1_error"]) for seed in (0, 1)]
    row = next(line for line in document.splitlines() if "last step, the paper's rate" in line)
    assert f"| {50 * sum(errors):.2f} (" in row
    assert f"| {int(found['paper-rate-seed-0']['parameters']):,} |" in row


def test_one_bar_and_a_line_for_each_run(made):
    out, err = made[1].out, made[1].err
    assert [line.split(":")[0] for line in out.splitlines() if ": top-1 error" in line] == [
        f"{number} of 4" for number in range(1, 5)]
    assert "epoch 1/2" not in out
    assert "paper-rate, seed 1, 4 of 4" in err
    assert "100%" in err


def test_runs_of_a_seed_begin_alike(folder, made):
    """With the same weights, and the same order of images."""
    logs = [(made[0] / f"{run}-seed-{seed}" / "log.csv").read_text().splitlines()[1].split(",")[:8]
            for run in ("base", "paper-rate") for seed in (0, 1)]
    assert logs[0] == logs[2]
    assert logs[1] == logs[3]
    assert logs[0] != logs[1]


# Going on.

def test_what_has_ended_is_not_trained_again(folder, made):
    output = made[0]
    before, document = stamps(output), (output / "ablations.md").read_text(encoding="utf-8")
    again = script("googlenet", *flags(folder, output, "--plot", output.parent / "drawn.png"))
    assert again.code == 0, again.err
    assert stamps(output) == before
    assert document in again.out
    assert (output.parent / "drawn.png").exists()


def test_more_seeds_are_added(folder, made, tmp_path):
    assert script("googlenet", *flags(folder, tmp_path, "--seeds", 1)).code == 0
    before = stamps(tmp_path)
    assert set(rows(tmp_path)) == {"base-seed-0", "paper-rate-seed-0"}
    assert script("googlenet", *flags(folder, tmp_path)).code == 0
    assert stamps(tmp_path).items() > before.items()
    assert rows(tmp_path) == rows(made[0])


@pytest.fixture
def during(monkeypatch):
    """during(number, action): call `action` when the `number`-th record is logged, from the first run's first on."""
    numbers = itertools.count(1)
    return on_records(monkeypatch, lambda record: next(numbers))


@POSIX
@pytest.mark.parametrize("at", [20, 33], ids=lambda at: f"record {at}")
def test_stopped_and_resumed_is_as_never_stopped(folder, made, tmp_path, during, at):
    """A run has 20 records; with the last one it is done, and yet it stops."""
    during(at, interrupt)
    done = script("googlenet", *flags(folder, tmp_path))
    assert done.code == 130, done.err
    assert "go on with the same command" in done.out
    assert len(list(tmp_path.glob("*/config.json"))) == (at - 1) // 20 + 1, "the next one was begun"
    done = script("googlenet", *flags(folder, tmp_path))
    assert done.code == 0, done.err
    assert_same(tmp_path, made[0])
    assert not list(tmp_path.glob("*/last.h5"))


@pytest.mark.parametrize(("place", "name"), [(Trainer, "save"), (Results, "add")],
                         ids=lambda each: getattr(each, "__name__", each))
def test_killed_in_the_second_run(folder, made, tmp_path, monkeypatch, place, name):
    original = getattr(place, name)

    def die(*arguments):
        if (tmp_path / "results.csv").exists():
            raise Killed
        return original(*arguments)

    monkeypatch.setattr(place, name, die)
    with pytest.raises(Killed):
        script("googlenet", *flags(folder, tmp_path))
    monkeypatch.undo()
    done = script("googlenet", *flags(folder, tmp_path))
    assert done.code == 0, done.err
    assert_same(tmp_path, made[0])


def test_killed_before_its_files_are_closed_they_are_closed_after_all(folder, made, tmp_path, monkeypatch):
    monkeypatch.setattr(training.Records, "close", lambda records, status: kill())
    with pytest.raises(Killed):
        script("googlenet", *flags(folder, tmp_path))
    monkeypatch.undo()
    assert not (tmp_path / "base-seed-0" / "curves.png").exists()
    done = script("googlenet", *flags(folder, tmp_path))
    assert done.code == 0, done.err
    assert (tmp_path / "base-seed-0" / "curves.png").exists()
    assert_same(tmp_path, made[0])


@POSIX
def test_kill_9_at_random_moments(folder, made, tmp_path):
    rng = random.Random(0)
    for _ in range(3):
        running = subprocess.Popen(command("googlenet", *flags(folder, tmp_path)), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE)
        assert os.read(running.stderr.fileno(), 1), "it has begun"
        time.sleep(rng.uniform(0.2, 1.5))
        running.kill()
        running.communicate()
    done = script("googlenet", *flags(folder, tmp_path))
    assert done.code == 0, done.err
    assert_same(tmp_path, made[0])


# What can't be.

def test_other_settings_are_refused(folder, made):
    output = made[0]
    before = stamps(output)
    for flag, told in ((["--epochs", 3], "epochs 2, not 3"), (["--lr", 0.5], "lr 0.0025, not 0.5"),
                       (["--width", 0.1], "width 0.05, not 0.1")):
        done = script("googlenet", *flags(folder, output, *flag))
        assert done.code == 1
        assert told in done.complaint
        assert "results.csv" in done.complaint
    assert script("googlenet", *flags(folder, output, "--loader-threads", 2)).code == 0
    assert stamps(output) == before


def test_other_settings_are_refused_in_the_midst_of_a_run(folder, tmp_path, during):
    during(15, kill)
    with pytest.raises(Killed):
        script("googlenet", *flags(folder, tmp_path))
    before = stamps(tmp_path)
    assert "base-seed-0/last.h5" in before
    done = script("googlenet", *flags(folder, tmp_path, "-b", 6))
    assert done.code == 1
    assert f"{tmp_path / 'base-seed-0'} was trained with batch_size 4, not 6" in done.complaint
    assert stamps(tmp_path) == before


@pytest.mark.parametrize(("flag", "told"), [(["--seeds", 0], "--seeds 0"), (["--epochs", 0], "epochs=0"),
                                            (["--width", -1.0], "width=-1.0"), (["--data", "nowhere"], "nowhere"),
                                            (["--plot", "drawn.h5"], "drawn.h5"),
                                            (["--plot", "nowhere/drawn.png"], "no folder nowhere")],
                         ids=str)
def test_what_cannot_be_is_told_before_anything_is_written(folder, tmp_path, flag, told):
    done = script("googlenet", *flags(folder, tmp_path / "runs", *flag))
    assert done.code == 1
    assert told in done.complaint
    assert not (tmp_path / "runs").exists()


def test_a_question_that_is_none(folder, tmp_path):
    done = script("googlenet", *flags(folder, tmp_path, "--only", "colour"))
    assert done.code == 2
    assert "colour" in done.err


def test_a_rate_that_is_too_high_names_the_run(folder, tmp_path):
    done = script("googlenet", *flags(folder, tmp_path, "--lr", 1e30))
    assert done.code == 1
    assert "base-seed-0" in done.err
    assert "lower rate" in done.err
