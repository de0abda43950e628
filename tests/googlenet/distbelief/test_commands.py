"""The flags of workers, and the commands that look at their runs."""

import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from googlenet.commands.training import crew_of
from googlenet.config import TrainingConfig
from googlenet.reports.crew import CrewRun
from googlenet.training.memory import estimate
from tests.googlenet.distbelief.cases import config_of, trainer_of
from tests.runs import TINY, computing_alone, read_rows, run_folder, script, write_set

one_thread = pytest.fixture(computing_alone, scope="module", autouse=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("data"), train=9)


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """One run without workers, and one by two."""
    made = []
    for workers in (1, 2):
        output = tmp_path_factory.mktemp(f"by-{workers}")
        done = script("train.py", "--data", data, *TINY, "--batch-size", "4", "--validation-fraction", "0.25",
                      "--epochs", "2", "--log-every", "1", "--workers", workers, "--output", output)
        assert done.code == 0, done.err
        made.append(run_folder(output))
    return made


@pytest.mark.parametrize(("code", "flags", "told"), [
    (2, ("--shards", "2"), "--shards: it is of several workers: give --workers 2 or more"),
    (2, ("--hang-timeout", "3"), "--hang-timeout: it is of several workers"),
    (2, ("--workers", "0"), "--workers: 0: choose a whole number in [1, 1000]"),
    (1, ("--workers", "2", "--batch-size", "4", "--warm-start", "1000"), "the other workers would never begin"),
    (1, ("--workers", "2", "--sync", "--overlap"), "--overlap beside --sync, whose workers wait for each other"),
    (1, ("--workers", "2", "--sync", "--backup-workers", "2"), "--backup-workers 2 of 2 workers: give fewer"),
    (1, ("--workers", "4", "--backup-workers", "1"), "--backup-workers 1 of 4 workers: give fewer than there are"),
    (1, ("--workers", "2", "--cluster", "auto", "--sync"), "--sync beside --cluster: it is for workers of one"),
    (1, ("--workers", "2", "--cluster", "auto", "--push-log"), "--push-log beside --cluster: it is for workers"),
], ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_flags_that_make_no_sense_are_one_line(code, flags, told, data, tmp_path):
    done = script("train.py", "--data", data, *TINY, *flags, "--output", tmp_path)
    assert done.code == code
    assert told in done.err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_flags_of_workers_are_refused_on_resume_too(runs):
    done = script("train.py", "--resume", runs[0], "--epochs", "3", "--push-log")
    assert "--push-log: it is of several workers: give --workers 2 or more" in done.complaint


def test_a_cluster_without_ray_makes_no_folder(data, tmp_path, monkeypatch):
    monkeypatch.setattr("googlenet.distbelief.ray_cluster.find_spec", lambda name: None)
    done = script("train.py", "--data", data, *TINY, "--workers", "2", "--cluster", "auto", "--output", tmp_path)
    assert "--cluster needs Ray: pip install ray" in done.complaint
    assert not list(tmp_path.iterdir())


def test_more_workers_than_batches_make_no_folder(data, tmp_path):
    done = script("train.py", "--data", data, *TINY, "--workers", "3", "--output", tmp_path)
    assert done.code == 1
    assert "--workers 3: an epoch has batches of 32 images for 1 only" in done.complaint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("settings", "told"), [
    ({"workers": 4}, "; a gradient of theirs comes 3 updates late: --look-ahead and --warm-start make up for it"),
    ({"workers": 2, "warm_start": 9}, "; a gradient of theirs comes 1 update late: --look-ahead makes up for it"),
    ({"workers": 2, "look_ahead": True, "warm_start": 9}, ""), ({"workers": 4, "optimiser": "adagrad"}, ""),
    ({"workers": 4, "sync": True, "backup_workers": 1}, ", synchronous, 1 of them as backup")], ids=str)
def test_what_helps_many_workers_is_told(settings, told):
    config = TrainingConfig(threads=1, **settings)
    assert crew_of(config).removesuffix(" (googlenet/distbelief/README.md)") == (
        f"{config.workers} workers of 1 thread each{told}")


def test_runs_are_compared_by_their_workers(runs, tmp_path):
    plot = tmp_path / "crew.png"
    done = script("googlenet", "crew", *runs, "--plot", plot)
    assert done.code == 0, done.err
    head, first, one, second, two = done.out.splitlines()[:5]
    assert head.split()[:3] == ["run", "seed", "images"]
    assert (first, second) == ("1 worker:", "2 workers:")
    last = [row for row in read_rows(runs[1]) if row["validation_loss"]][-1]
    assert f"{float(last['validation_loss']):.4f}" in two
    assert one.split()[0] == runs[0].name
    assert 0.2 < float(two.split()[-2]) < 2
    with Image.open(plot) as picture:
        assert picture.width > 800


def crew_run(folder: Path, seed: int, loss: float, **settings) -> CrewRun:
    row = {"images": "80", "validation_loss": str(loss), "validation_top1_error": "0.25", "averaged_loss": "9",
           "averaged_top1_error": "0.5", "images_per_second": ""}
    chosen = {"workers": 2, "averaging": "none", "tested": "averaged", "look_ahead": False, "warm_start": 0, **settings}
    return CrewRun(folder, seed, chosen, Counter(), [row])


def test_runs_that_differ_in_seeds_alone_have_a_mean(tmp_path, monkeypatch):
    of = {"a": crew_run(tmp_path / "a", 0, 1.0), "b": crew_run(tmp_path / "b", 1, 2.0),
          "c": crew_run(tmp_path / "c", 0, 4.0, look_ahead=True, warm_start=5)}
    for name in of:
        (tmp_path / name).mkdir()
        (tmp_path / name / "last.h5").touch()
    monkeypatch.setattr("googlenet.commands.crew.read_run", lambda folder: of[folder.name])
    done = script("googlenet", "crew", *(tmp_path / name for name in "cab"))
    assert [line.split("  ")[0] for line in done.out.splitlines()] == [
        "run", "2 workers --warm-start 0:", "a", "b", "mean", "2 workers --look-ahead --warm-start 5:", "c"]
    assert done.out.splitlines()[4].split() == ["mean", "1.5000", "25.00%"]


def test_of_a_run_with_an_average_it_is_compared(tmp_path):
    assert crew_run(tmp_path, 0, 1.0, averaging="ema").validation == (9.0, 0.5)
    assert crew_run(tmp_path, 0, 1.0, averaging="ema", tested="raw").validation == (1.0, 0.25)


def test_pictures_of_other_kinds_are_refused_before_anything_is_read(runs, tmp_path):
    done = script("googlenet", "crew", runs[0], "--plot", tmp_path / "crew.txt")
    assert "the picture's name must end in .png, .svg, .pdf" in done.complaint
    assert not done.out


def test_what_is_no_run_is_refused(tmp_path):
    for command in ("crew", "replay"):
        assert f"{tmp_path}: there is no run's folder" in script("googlenet", command, tmp_path).complaint


def test_a_run_by_workers_is_what_a_run_is(runs):
    """Its settings, its checkpoint and its test are where those of other runs are."""
    assert json.loads((runs[1] / "config.json").read_text())["training"]["workers"] == 2
    assert {path.name for path in runs[1].iterdir()} == {path.name for path in runs[0].iterdir()}
    done = script("train.py", "--resume", runs[1], "--epochs", "3", "--workers", "3")
    assert done.code == 0, done.err
    assert "3 workers of 1 thread each" in done.out
    done = script("train.py", "--resume", runs[1], "--epochs", "4", "--workers", "1")
    assert done.code == 0, done.err


def test_saturation_is_told():
    done = script("googlenet", "simulate", "--workers", "1", "100", "--shards", "1", "8")
    assert done.code == 0, done.err
    rows = [line.split() for line in done.out.splitlines()[1:]]
    assert [row[:2] for row in rows] == [["1", "1"], ["1", "100"], ["8", "1"], ["8", "100"]]
    assert ["saturated" in row for row in rows] == [False, True, False, False]
    for flag, value in (("--step", "0.0"), ("--shards", "0"), ("--workers", "-3"), ("--seed", "-1"),
                        ("--spread", "nan")):
        assert f"{flag} {value}: give" in script("googlenet", "simulate", flag, value).complaint


def test_memory_grows_with_the_workers(data):
    """Each has a program, activations and batches of its own; the weights are there once, and in its slot."""
    one, four = (estimate(trainer_of(config_of(data, workers=workers, batch_size=2))) for workers in (1, 4))
    assert four.activations == 4 * one.activations
    assert four.batches == 4 * one.batches
    assert four.program > 5 * 100 * 2**20
    assert four.weights > one.weights


def test_workers_of_other_machines_take_no_memory_of_this_one(data):
    few, many = (estimate(trainer_of(config_of(data, workers=workers, cluster="auto", batch_size=2)))
                 for workers in (2, 3))
    assert many == few
    assert many.total < estimate(trainer_of(config_of(data, workers=2, batch_size=2))).total
