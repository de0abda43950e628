"""train.py as a user runs it: a run's folder, stopping and going on, crashes, and everything that goes wrong."""

import itertools
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

import train
from data.datasets import open_dataset, split_validation
from googlenet import runs
from googlenet.commands import training
from googlenet.testing import Score
from googlenet.training import Epoch, Trainer, configuration
from googlenet.weights import load_model
from minigrad.errors import InputError
from tests.runs import (
    CLASSES,
    TINY,
    Killed,
    assert_same_run,
    command,
    interrupt,
    kill,
    on_records,
    process,
    read_rows,
    run_folder,
    script,
    write_set,
    write_weights,
)

POSIX = pytest.mark.skipif(os.name != "posix", reason="POSIX signals and limits")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """36 training pictures, four of them held out: 8 steps an epoch at batch 4; 12 test pictures."""
    return write_set(tmp_path_factory.mktemp("pictures"))


def flags(folder: Path, output: Path, epochs: int = 2, **more: object) -> list[str]:
    """The flags of a small run; the loader's threads compete, the log has every step."""
    options = {"data": folder, "batch_size": 4, "epochs": epochs, "lr": 0.002, "init": "he", "schedule": "poly",
               "loader_threads": 3, "log_every": 1, "seed": 7, "output": output, **more}
    return [*TINY, *(f"--{name.replace('_', '-')}" + ("" if value is None else f"={value}")
                     for name, value in options.items())]


def run(folder: Path, output: Path, **more: object) -> Path:
    """Make a small run from beginning to end; returns its folder."""
    done = script("train.py", *flags(folder, output, **more))
    assert done.code == 0, done.err
    return run_folder(output)


@pytest.fixture(scope="module")
def short(folder, tmp_path_factory) -> Path:
    """The folder of an uninterrupted run of two epochs."""
    return run(folder, tmp_path_factory.mktemp("short"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# A run.

def test_a_runs_folder(folder, short):
    assert sorted(path.name for path in short.iterdir()) == [
        ".lock", "best.h5", "config.json", "curves.png", "last.h5", "log.csv", "test.json"]
    settings = json.loads((short / "config.json").read_text(encoding="utf-8"))
    assert settings["model"]["classes"] == 4
    assert settings["model"]["image_size"] == settings["preprocessing"]["size"] == 32
    assert settings["training"]["data"] == str(folder)
    assert settings["training"]["seed"] == 7
    with Image.open(short / "curves.png") as image:
        image.load()
    rows = read_rows(short)
    assert [int(row["step"]) for row in rows] == [*range(1, 9), 8, *range(9, 17), 16]
    assert all(float(row[name]) > 0 for row in rows for name in ("loss", "loss_main", "loss_aux1", "loss_aux2"))
    assert [bool(row["validation_loss"]) for row in rows] == [*[False] * 8, True, *[False] * 8, True]
    last = load_model(short / "last.h5")
    assert last.classes == CLASSES
    assert last.attributes["epoch"] == 2
    assert "training" not in load_model(short / "best.h5").attributes


def test_what_a_run_tells(folder, tmp_path):
    done = script("train.py", *flags(folder, tmp_path))
    assert done.code == 0
    made = run_folder(tmp_path)
    for told in (f"{folder}: 32 training images, 4 for validation, 4 classes", f"run folder: {made}", "epoch 1/2",
                 "epoch 2/2", "(12 images, centre crop)", f"--weights {made / 'best.h5'} --data {folder}"):
        assert told in done.out
    match = re.search(r"test: top-1 error ([\d.]+)%, top-5 error ([\d.]+)%", done.out)
    assert float(match[1]) * 12 / 100 == pytest.approx(round(float(match[1]) * 12 / 100), abs=0.01)
    assert float(match[2]) == 0
    assert "images/s" in done.err, "the bar"
    assert all(each in done.err for each in ("main ", "aux1 ", "aux2 ", "lr "))


def test_the_mean_is_that_of_the_training_images(folder, short):
    preprocessing = load_model(short / "last.h5").preprocessing
    training, _ = split_validation(open_dataset(folder, "train"), 0.1, 7)
    mean = np.mean([training.image(i).mean() for i in range(len(training))])
    np.testing.assert_allclose(preprocessing.mean, [mean] * 3)  # the pictures are grey


@pytest.mark.parametrize("variant", ["paper", "caffe"])
def test_standardised_images_are_divided_by_the_deviation(tmp_path, variant):
    """Two red and two blue pictures: channels that vary, each by as much, and one that hardly does."""
    for name, colour in (("red", (250, 10, 0)), ("blue", (50, 10, 90))):
        for i, green in enumerate((10, 14)):
            path = tmp_path / "photos" / "train" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (colour[0], green, colour[2])).save(path)
    made = run(tmp_path / "photos", tmp_path / "runs", epochs=1, variant=variant, validation_fraction=0,
               standardise=None)
    found = load_model(made / "best.h5").preprocessing
    step = 1 if variant == "paper" else -1
    np.testing.assert_allclose(found.mean, (150, 12, 45)[::step])
    np.testing.assert_allclose(found.std, (100, 2, 45)[::step])


@pytest.mark.parametrize(("given", "rate"), [({}, 0.2), ({"dropout": 0.3}, 0.3)])
def test_dropout_is_the_variants_unless_it_is_given(folder, tmp_path, given, rate):
    made = run(folder, tmp_path, epochs=1, variant="torchvision", validation_fraction=0, **given)
    assert load_model(made / "best.h5").model.config.dropout == rate


def test_same_seed_same_run(folder, short, tmp_path):
    """In a process of its own, too."""
    done = process("train.py", *flags(folder, tmp_path), cwd=tmp_path.parent)
    assert done.code == 0, done.err
    assert_same_run(run_folder(tmp_path), short)


def test_other_seed_other_run(folder, short, tmp_path):
    assert read_rows(run(folder, tmp_path, seed=8))[0]["loss"] != read_rows(short)[0]["loss"]


@pytest.mark.parametrize("more", [{"dtype": "float64"}, {"variant": "caffe"}, {"heads": "none"}, {"heads": "aux1"},
                                  {"stem": "separable", "classifier": "fully_connected"}, {"augment": "none"}], ids=str)
def test_other_networks_train(folder, tmp_path, more):
    made = run(folder, tmp_path, epochs=1, batch_size=16, **more)
    loaded = load_model(made / "best.h5")
    for name, value in more.items():
        assert getattr(loaded.model.config, name, value) == value
    assert {array.dtype for array in loaded.model.parameters().values()} == {np.dtype(more.get("dtype", "float32"))}
    assert loaded.preprocessing.order == ("BGR" if "variant" in more else "RGB")
    built = {"none": (False, False), "aux1": (True, False)}.get(more.get("heads"), (True, True))
    assert {(bool(row["loss_aux1"]), bool(row["loss_aux2"])) for row in read_rows(made)} == {built}


def test_without_data_the_defaults_are_those_of_the_embedded_images():
    assert vars(train.read_flags([])[0]).items() >= {"image_size": 64, "data": "embedded", "width": 1.0}.items()
    assert train.read_flags(["--image-size", "96"])[0].image_size == 96
    own, given = train.read_flags(["--data", "photos", "--epochs", "9"])
    assert (own.image_size, own.epochs) == (224, 9)
    assert given == {"data": "photos", "epochs": 9}


def test_with_trained_weights_what_the_file_decides_is_not_told_as_a_setting(folder, tmp_path):
    """The recipe's `resize` and `standardise` are of images for weights that are drawn."""
    weights = write_weights(tmp_path / "weights.h5")
    preset = ["--preset", "cifar10", "--init", weights, "--data", folder, "--image-size", 32, "--epochs", 1]
    done = script("train.py", *preset, "--output", tmp_path / "runs", "--threads", 1)
    assert done.code == 0, done.err
    settings = json.loads((run_folder(tmp_path / "runs") / "config.json").read_text(encoding="utf-8"))
    assert (settings["training"]["resize"], settings["training"]["standardise"]) == (0, False)
    assert settings["preprocessing"]["resize"] == 37
    assert settings["training"]["lr"] == 0.005


@pytest.mark.parametrize("more", [[], ["--ensemble", 2]], ids=["a run", "an ensemble"])
def test_without_tensorboards_library_no_folder_is_left_behind(folder, tmp_path, monkeypatch, more):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    done = script("train.py", *flags(folder, tmp_path / "runs", tensorboard=None), *more)
    assert done.code == 1
    assert "--tensorboard needs tensorboardX" in done.complaint
    assert not (tmp_path / "runs").exists()


def test_a_single_image_that_a_batch_norm_cannot_take_is_told_before_it_begins(folder, tmp_path):
    done = script("train.py", *flags(folder, tmp_path / "runs", variant="torchvision", batch_size=31))
    assert done.code == 1
    assert "batch-size 31: of 32 images" in done.complaint
    assert not (tmp_path / "runs").exists()


def test_two_runs_of_a_second_have_folders_of_their_own(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(runs.time, "strftime", lambda form: "20140917-120000")
    first = run(folder, tmp_path, epochs=1, heads="none")
    before = contents(first)
    assert script("train.py", *flags(folder, tmp_path, epochs=1, heads="none")).code == 0
    assert len(list(tmp_path.iterdir())) == 2
    assert contents(first) == before


def test_without_test_images_it_says_so(folder, tmp_path):
    shutil.copytree(folder / "train", tmp_path / "photos" / "train")
    done = script("train.py", *flags(tmp_path / "photos", tmp_path / "runs", epochs=1))
    assert done.code == 0
    assert "no test images" in done.out
    assert "Traceback" not in done.err


def test_without_validation_the_last_weights_are_the_best(folder, tmp_path):
    made = run(folder, tmp_path, epochs=2, validation_fraction=0)
    best, last = (load_model(made / name).model.parameters() for name in ("best.h5", "last.h5"))
    for path in best:
        np.testing.assert_array_equal(best[path], last[path])


def test_the_best_weights_are_those_of_the_lowest_error(folder, tmp_path, monkeypatch):
    errors = iter([0.5, 0.25, 0.75, 0.25])
    monkeypatch.setattr(Trainer, "validate", lambda trainer: Score(4, next(errors), 0.0, 1.0))
    made = run(folder, tmp_path, epochs=4)
    assert load_model(made / "best.h5").attributes["trained_images"] == 64
    assert load_model(made / "last.h5").attributes["best_error"] == 0.25


# Stopping and going on.

@pytest.fixture
def during(monkeypatch):
    """during(number, action): call `action` when step `number` is logged; -1, -2, ...: when that epoch's end is."""
    return on_records(monkeypatch, lambda record: -record.epoch - 1 if isinstance(record, Epoch) else record.step)


@POSIX
@pytest.mark.parametrize("at", [1, 7, 8, -1, 9, 16], ids=lambda at: f"step {at}" if at > 0 else "epoch's end")
def test_stopped_and_resumed_is_as_never_stopped(folder, short, tmp_path, during, at):
    during(at, interrupt)
    done = script("train.py", *flags(folder, tmp_path))
    made = run_folder(tmp_path)
    assert done.code == 130, done.err
    assert f"go on with: python train.py --resume {made}" in done.out
    assert load_model(made / "last.h5").attributes["step"] == (at if at > 0 else 8)
    done = script("train.py", "--resume", made)
    assert done.code == 0, done.err
    assert_same_run(made, short)


@POSIX
def test_stopped_at_every_turn_and_by_terminate(folder, short, tmp_path, during):
    during(2, lambda: interrupt(signal.SIGTERM))
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # in case train.py has no handler
    done = script("train.py", *flags(folder, tmp_path))
    signal.signal(signal.SIGTERM, before)
    assert done.code == 130
    made = run_folder(tmp_path)
    for at in (3, 8, 11):
        during(at, interrupt)
        assert script("train.py", "--resume", made / "last.h5").code == 130
    assert script("train.py", "--resume", made).code == 0
    assert_same_run(made, short)


@POSIX
def test_stopped_in_the_last_validation_is_finished(folder, short, tmp_path, during):
    during(-2, interrupt)
    assert script("train.py", *flags(folder, tmp_path)).code == 0
    assert_same_run(run_folder(tmp_path), short)


@POSIX
def test_a_second_ctrl_c_stops_at_once(folder, tmp_path, during):
    def twice():
        interrupt()
        interrupt()

    during(3, twice)
    before = signal.getsignal(signal.SIGINT)
    done = script("train.py", *flags(folder, tmp_path))
    assert done.code == 130
    assert not (run_folder(tmp_path) / "last.h5").exists()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_finished_run_goes_on_for_more_epochs(folder, short, tmp_path):
    made = shutil.copytree(short, tmp_path / "run")
    done = script("train.py", "--resume", made)
    assert done.code == 0, done.err
    assert "all 2 epochs are behind it: its weights are tested; to train it for longer give more --epochs\n" in done.out
    assert_same_run(made, short)
    assert script("train.py", "--resume", made, "--epochs", "3", "--lr", "0.001").code == 0
    rows = read_rows(made)
    assert [int(row["step"]) for row in rows] == [*range(1, 9), 8, *range(9, 17), 16, *range(17, 25), 24]
    assert float(rows[18]["lr"]) == pytest.approx(0.001 * math.sqrt(1 / 3))
    assert configuration(load_model(made / "last.h5"), made).epochs == 3


def test_killed_after_its_last_checkpoint_a_run_is_finished(folder, short, tmp_path, monkeypatch):
    monkeypatch.setattr(training.Records, "close", lambda records, status: kill())
    with pytest.raises(Killed):
        script("train.py", *flags(folder, tmp_path, report=None))
    monkeypatch.undo()
    made = run_folder(tmp_path)
    assert not (made / "curves.png").exists()
    assert "<strong>training</strong>" in (made / "report.html").read_text(encoding="utf-8")
    done = script("train.py", "--resume", made)
    assert done.code == 0, done.err
    assert "test: top-1 error" in done.out
    assert f"evaluate with: python evaluate.py --weights {made / 'best.h5'} --data {folder} --crops 144" in done.out
    assert (made / "curves.png").exists()
    assert "<strong>finished</strong>" in (made / "report.html").read_text(encoding="utf-8")
    assert read_rows(made) == read_rows(short)


@pytest.mark.parametrize("flag", [
    ["--seed", "8"], ["--batch-size", "4"], ["--image-size", "64"], ["--dtype", "float64"],
    ["--bias-rate", "1"]], ids=" ".join)
def test_a_resumed_run_keeps_its_settings(short, tmp_path, flag):
    before = contents(short)
    done = script("train.py", "--resume", short, "--epochs", "3", *flag)
    assert done.code == 1
    assert flag[0].replace("--no-", "--") in done.complaint
    assert contents(short) == before


def test_a_resumed_run_finds_data_that_has_moved(folder, short, tmp_path):
    made = shutil.copytree(short, tmp_path / "run")
    moved = shutil.copytree(folder, tmp_path / "moved")
    done = script("train.py", "--resume", made, "--epochs", "3", "--data", moved)
    assert done.code == 0, done.err
    assert configuration(load_model(made / "last.h5"), made).data == str(moved)
    done = script("train.py", "--resume", made, "--epochs", "4", "--data", tmp_path / "nowhere")
    assert done.code == 1
    assert "nowhere" in done.complaint


def started(*arguments: object) -> subprocess.Popen:
    return subprocess.Popen(command("train.py", *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def read_until(process: subprocess.Popen, pattern: str) -> str:
    """Read a process's bar until the pattern appears."""
    told = ""
    while not re.search(pattern, told):
        more = os.read(process.stderr.fileno(), 4096).decode(errors="replace")
        assert more, f"ended before {pattern} appeared: {told}"
        told += more
    return told


LONG = {"epochs": 20}


@pytest.fixture(scope="module")
def long(folder, tmp_path_factory) -> Path:
    """The folder of an uninterrupted run of 160 steps: long enough to be hit from outside."""
    return run(folder, tmp_path_factory.mktemp("long"), **LONG)


@POSIX
def test_ctrl_c_from_outside(folder, long, tmp_path):
    running = started(*flags(folder, tmp_path, **LONG))
    read_until(running, r" ([1-9]\d?)/160")
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=120)
    assert running.returncode == 130
    assert b"stopping after this step; once more stops at once" in err
    made = run_folder(tmp_path)
    assert f"go on with: python train.py --resume {made}" in out.decode()
    step = load_model(made / "last.h5").attributes["step"]
    assert 0 < step < 160
    assert int(read_rows(made)[-1]["step"]) == step
    done = script("train.py", "--resume", made)
    assert done.code == 0, done.err
    assert_same_run(made, long)


@POSIX
def test_killed_while_it_saves_and_resumed(folder, long, tmp_path):
    """A checkpoint each step: wherever the kill falls, last.h5 is whole, and in the end nothing shows of it."""
    rng = random.Random(0)
    arguments, steps = flags(folder, tmp_path, save_every=1e-9, **LONG), []
    for _ in range(3):
        before = [path.stat().st_mtime_ns for path in tmp_path.glob("*/last.h5")]
        running = started(*arguments)
        while [path.stat().st_mtime_ns for path in tmp_path.glob("*/last.h5")] == before:
            assert running.poll() is None, "ended before it had saved"
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.1))
        running.kill()
        running.communicate()
        made = run_folder(tmp_path)
        steps.append(load_model(made / "last.h5").attributes["step"])
        arguments = ["--resume", made]
    assert 0 < steps[0] < steps[1] < steps[2] < 160, "the kills fell outside of training"
    assert script("train.py", "--resume", made, "--save-every", "10").code == 0
    assert_same_run(made, long)
    assert not list(made.glob(".*.part")), "a killed save left its file"


def test_killed_between_the_log_and_the_checkpoint(folder, short, tmp_path, monkeypatch):
    """The epoch's line is on the disk, its checkpoint isn't: on resuming the line is not written twice."""
    save = Trainer.save

    def save_or_die(trainer, path):
        if trainer.epoch == 1:
            raise Killed
        save(trainer, path)

    monkeypatch.setattr(Trainer, "save", save_or_die)
    with pytest.raises(Killed):
        script("train.py", *flags(folder, tmp_path, save_every=1e-9))
    monkeypatch.undo()
    made = run_folder(tmp_path)
    assert load_model(made / "last.h5").attributes["step"] == 8
    assert script("train.py", "--resume", made, "--save-every", "10").code == 0
    assert_same_run(made, short)


# Losses that go wrong.

def test_a_loss_that_is_not_finite_before_any_checkpoint(folder, tmp_path):
    done = script("train.py", *flags(folder, tmp_path, lr=1e30))
    assert done.code == 1
    assert "loss is nan" in done.complaint or "loss is inf" in done.complaint
    assert "--lr 5e+29" in done.complaint
    assert "--resume" not in done.complaint, "there is nothing to resume from"
    assert not list(run_folder(tmp_path).glob("*.h5"))


@pytest.mark.parametrize("more", [{"batch_size": 4}, {"batch_size": 64}, {"save_every": 1e-9},
                                  {"batch_size": 64, "validation_fraction": 0}], ids=str)
def test_the_last_good_checkpoint_is_kept(folder, tmp_path, more):
    """Resumed at a ruinous rate, the loss of whose first step is still finite: both files stay as they were."""
    made = run(folder, tmp_path, **{"epochs": 1, **more})
    before = {name: (made / name).read_bytes() for name in ("last.h5", "best.h5")}
    saving = ["--save-every", more["save_every"]] if "save_every" in more else []
    done = script("train.py", "--resume", made, "--epochs", "3", "--lr", "1e30", *saving)
    assert done.code == 1
    assert "--lr 5e+29" in done.complaint
    assert str(made) in done.complaint
    assert {name: (made / name).read_bytes() for name in before} == before
    assert script("train.py", "--resume", made, "--epochs", "2", "--lr", "0.001").code == 0


def test_what_stopped_the_run_is_told_not_what_failed_after_it(folder, tmp_path, monkeypatch):
    def failing(message):
        def fail(*_):
            raise InputError(message)
        return fail

    monkeypatch.setattr(training, "train", failing("can't write last.h5"))
    monkeypatch.setattr(training, "curves", failing("can't write curves.png"))
    assert script("train.py", *flags(folder, tmp_path)).complaint == "train.py: error: can't write last.h5"


def test_heads_that_learn_nothing_are_warned_of(folder, tmp_path):
    done = script("train.py", *flags(folder, tmp_path, lr=1e-9, init="truncated_normal", bias_init=0))
    assert done.code == 0
    warnings = [line for line in done.out.splitlines() if line.startswith("warning: ")]
    assert [line.split()[1] for line in warnings] == ["main", "aux1", "aux2"], "once, after the first epoch"
    assert all("ln(4) = 1.386" in line and "--lr 5e-10" in line for line in warnings)


# What can't be.

@pytest.mark.parametrize(("flags", "told"), [
    (["--power", "2"], "--power: it does nothing with --schedule step; leave it out, or give --schedule poly"),
    (["--tested", "raw"], "--tested: it does nothing with --averaging none; leave it out"),
    (["--lighting", "0"], "--lighting: it does nothing with --augment crop"),
    (["--heads", "none", "--aux-weight", "1"], "--aux-weight: it does nothing with --heads none"),
    (["--fresh-rate", "10"], "--fresh-rate: it is of layers that trained weights leave to chance: give --init FILE")])
def test_a_flag_that_would_do_nothing_is_a_usage_error(flags, told, tmp_path):
    done = script("train.py", "--data", tmp_path, *flags)
    assert done.code == 2
    assert told in " ".join(done.err.split())


@pytest.mark.parametrize("arguments", [
    ["--workers", "0"], ["--epochs", "0"], ["--lr", "-1"], ["--lr", "nan"], ["--batch-size", "0"],
    ["--batch-size", "1.5"], ["--image-size", "31"], ["--width", "0"], ["--momentum", "1"], ["--weight-decay", "-1"],
    ["--dropout", "1"], ["--seed", "-1"], ["--schedule", "cosine"], ["--variant", "torch"], ["--dtype", "float16"],
    ["--save-every", "0"], ["--log-every", "0"], ["--loader-threads", "0"], ["--threads", "-1"], ["--max-bad", "-1"],
    ["--validation-fraction", "1"], ["--colour", "red"]], ids=" ".join)
def test_flags_out_of_range_are_usage_errors(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = script("train.py", *arguments)
    assert done.code == 2
    last = done.err.splitlines()[-1]
    assert last.startswith("train.py: error: ")
    assert all(word in last for word in arguments)
    assert not list(tmp_path.iterdir())


def test_the_help_says_what_workers_are():
    text = " ".join(train.make_parser().format_help().split())
    assert re.search(r"--workers \w+ model replicas, as in the paper.{0,80}not loader processes", text)


def damaged(short: Path, tmp_path: Path, how: str) -> Path:
    """A run of which last.h5 is not as train.py wrote it."""
    made = shutil.copytree(short, tmp_path / "run")
    last = made / "last.h5"
    content = last.read_bytes()
    if how == "truncated":
        last.write_bytes(content[:len(content) // 2])
    elif how == "changed":
        middle = len(content) // 2
        last.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1:])
    elif how == "empty":
        last.write_bytes(b"")
    elif how == "foreign":
        with h5py.File(last, "w") as file:
            file["layer/kernel"] = np.zeros((3, 3))
    elif how == "missing":
        last.unlink()
    elif how == "weights alone":
        shutil.copy(made / "best.h5", last)
    return made


@pytest.mark.parametrize("how", ["truncated", "changed", "empty", "foreign", "missing", "weights alone"])
def test_a_checkpoint_that_is_none(short, tmp_path, how):
    made = damaged(short, tmp_path, how)
    before = contents(made)
    done = script("train.py", "--resume", made, "--epochs", "3")
    assert done.code == 1
    assert done.complaint.startswith("train.py: error: ")
    assert str(made / "last.h5") in done.complaint
    assert contents(made) == before


def test_a_checkpoint_of_other_pictures(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "photos")
    made = run(tmp_path / "photos", tmp_path / "runs", epochs=1)
    for path in (tmp_path / "photos" / "train").glob("*/008.png"):
        path.unlink()
    before = contents(made)
    done = script("train.py", "--resume", made, "--epochs", "2")
    assert done.code == 1
    assert "trained on 32 images" in done.complaint
    assert str(tmp_path / "photos") in done.complaint
    assert contents(made) == before


def unusable(kind: str, tmp_path: Path, folder: Path) -> Path:
    """A place that holds no training pictures."""
    place = tmp_path / "photos"
    if kind == "a file":
        place.write_text("pictures")
    elif kind == "test pictures only":
        shutil.copytree(folder / "test", place / "test")
    elif kind == "an empty class":
        shutil.copytree(folder, place)
        (place / "train" / "zebra").mkdir()
        (place / "test" / "zebra").mkdir()
    elif kind == "an empty folder":
        place.mkdir()
    elif kind == "an empty train folder":
        (place / "train").mkdir(parents=True)
    elif kind == "other classes in testing":
        shutil.copytree(folder, place)
        (place / "test" / "bag").rename(place / "test" / "zebra")
    elif kind == "one picture a class":
        write_set(place, train=1, test=1)
    return place


@pytest.mark.parametrize("kind", ["nothing", "a file", "an empty folder", "an empty train folder", "an empty class",
                                  "test pictures only", "other classes in testing", "one picture a class"])
def test_data_that_cannot_be_used(folder, tmp_path, kind):
    place = unusable(kind, tmp_path, folder)
    done = script("train.py", *flags(place, tmp_path / "runs"))
    assert done.code == 1
    assert str(place) in done.complaint
    assert not (tmp_path / "runs").exists(), "a run folder for nothing"


@pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="permissions do not stop root")
def test_a_folder_that_may_not_be_read(folder, tmp_path):
    place = shutil.copytree(folder, tmp_path / "photos")
    (place / "train").chmod(0)
    try:
        done = script("train.py", *flags(place, tmp_path / "runs"))
    finally:
        (place / "train").chmod(0o755)
    assert done.code == 1
    assert str(place) in done.complaint


def test_an_output_that_is_a_file(folder, tmp_path):
    (tmp_path / "runs").write_text("mine")
    done = script("train.py", *flags(folder, tmp_path / "runs"))
    assert done.code == 1
    assert str(tmp_path / "runs") in done.complaint
    assert (tmp_path / "runs").read_text() == "mine"


def test_more_threads_than_cores(folder, tmp_path):
    done = script("train.py", *flags(folder, tmp_path / "runs"), "--threads", "9999")
    assert done.code in (1, 2)
    assert "9999" in done.err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


def test_debug_shows_where_an_error_comes_from(tmp_path):
    with pytest.raises(ValueError, match="nowhere") as error:
        script("train.py", "--data", tmp_path / "nowhere", "--debug")
    assert error.traceback[-1].name == "open_dataset"


def test_errors_of_a_process(tmp_path):
    """As above, but in a process of its own, whose stderr nobody filters."""
    done = process("train.py", "--data", tmp_path / "nowhere")
    assert done.code == 1
    assert done.out == ""
    assert re.fullmatch(r"train\.py: error: .*nowhere: no such folder.*\n", done.err)
    done = process("train.py", "--data", tmp_path / "nowhere", "--debug")
    assert done.code == 1
    assert done.err.startswith("Traceback")


def full_disk(limit: int):
    """For a process about to start: no file can grow beyond `limit` bytes. (Python ignores SIGXFSZ.)"""
    import resource

    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


@POSIX
def test_a_full_disk_while_saving(short, tmp_path):
    """A limit on the size of files stands in for it; the checkpoint of before is kept."""
    made = shutil.copytree(short, tmp_path / "run")
    before = (made / "last.h5").read_bytes()
    limit = (made / "best.h5").stat().st_size + len(before) >> 1
    done = process("train.py", "--resume", made, "--epochs", "3", preexec_fn=full_disk(limit))
    assert done.code == 1, done.err
    assert f"can't write {made / 'last.h5'}" in done.complaint
    assert "free space" in done.complaint
    assert (made / "last.h5").read_bytes() == before
    assert not list(made.glob(".*.part"))


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 500 KiB, where this process may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    if sys.platform != "linux" or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("can't mount a small file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("free", [0, 4, 100, 200], ids=lambda free: f"{free} KiB free")
def test_a_small_disk_that_fills_up(folder, small_disk, free):
    """Whatever is the first that can't be written: one line, and no file cut short in its place."""
    (small_disk / "filling").write_bytes(bytes((500 - free) * 1024 - 8192))
    done = script("train.py", *flags(folder, small_disk / "runs"))
    assert done.code == 1
    assert str(small_disk) in done.complaint, "the file is named"
    assert "No space left" in done.complaint
    for path in (small_disk / "runs").glob("*/*.h5"):
        load_model(path)


def spoil(path: Path) -> None:
    """Cut a picture short."""
    path.write_bytes(path.read_bytes()[:60])


def test_damaged_pictures_are_named_and_left_out(folder, tmp_path):
    """In training, in validation and in testing."""
    place = shutil.copytree(folder, tmp_path / "photos")
    training, validation = split_validation(open_dataset(place, "train"), 0.1, 7)
    names = {"training": training.names[0], "again": training.names[20], "validation": validation.names[1]}
    for name in names.values():
        spoil(place / "train" / name)
    spoil(place / "test" / "coat" / "001.jpg")
    done = script("train.py", *flags(place, tmp_path / "runs"))
    assert done.code == 0, done.err
    for name in (names["training"], names["again"]):
        assert done.err.count(f"left out {name}") == 1, "named once, not once an epoch"
    assert read_rows(run_folder(tmp_path / "runs"))[-1]["images"] == "60"
    assert "(11 images, centre crop)" in done.out
    assert done.err.count(f"left out {names['validation']}") == 1
    assert "left out coat/001.jpg" in done.err
    assert "2 training, 1 validation" in done.out


def test_too_many_damaged_pictures_end_it(folder, tmp_path):
    place = shutil.copytree(folder, tmp_path / "photos")
    training, _ = split_validation(open_dataset(place, "train"), 0.1, 7)
    for name in itertools.islice(training.names, 3):
        spoil(place / "train" / name)
    assert script("train.py", *flags(place, tmp_path / "good", epochs=1, max_bad=3)).code == 0
    done = script("train.py", *flags(place, tmp_path / "runs", max_bad=2))
    assert done.code == 1
    assert "Traceback" not in done.err
    last = done.err.splitlines()[-1]
    assert str(place) in last
    assert "more than the 2 allowed" in last


def test_weights_of_another_program_are_not_resumed(tmp_path):
    path = write_weights(tmp_path / "weights.h5")
    done = script("train.py", "--resume", path)
    assert done.code == 1
    assert "weights.h5" in done.complaint
