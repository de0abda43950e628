"""train.py --ensemble as a user runs it: what members share, stopping and going on at any moment, adding to them."""

import itertools
import json
import os
import random
import re
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from googlenet import ensembles
from googlenet.commands import training
from googlenet.ensembles import Ensemble
from googlenet.series import Planned
from googlenet.training import Trainer
from googlenet.weights import load_model
from tests.runs import (
    TINY,
    Killed,
    assert_same_run,
    command,
    computing_alone,
    interrupt,
    kill,
    on_records,
    read_rows,
    run_folder,
    script,
    write_set,
    write_weights,
)

POSIX = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")

one_thread = pytest.fixture(computing_alone, scope="module", autouse=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """36 training pictures, four of them held out: 8 steps an epoch at batch 4; 12 test pictures."""
    return write_set(tmp_path_factory.mktemp("pictures"))


def single(folder: Path, output: Path, *more: object) -> list[object]:
    """The flags of a run of two epochs."""
    return [*TINY, "--data", folder, "--batch-size", 4, "--epochs", 2, "--lr", 0.002, "--init", "he", "--seed", 7,
            "--log-every", 1, "--output", output, *more]


def several(folder: Path, output: Path, *more: object) -> list[object]:
    """The flags of three such runs, the last one twice as wide."""
    return [*single(folder, output), "--ensemble", 3, "--wider", 2, *more]


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory):
    """An ensemble that was never stopped, and what was told."""
    output = tmp_path_factory.mktemp("made")
    done = script("train.py", *several(folder, output))
    assert done.code == 0, done.err
    return run_folder(output), done.out


@pytest.fixture
def during(monkeypatch):
    """during(number, action): call `action` when the `number`-th record is logged, from the first member's first on."""
    numbers = itertools.count(1)
    return on_records(monkeypatch, lambda record: next(numbers))


def assert_same_ensemble(one: Path, other: Path, count: int = 3) -> None:
    for number in range(1, count + 1):
        assert_same_run(one / f"model-{number}", other / f"model-{number}")
    tests = [[each["test"] for each in json.loads((folder / "ensemble.json").read_text())["members"]]
             for folder in (one, other)]
    assert tests[0][:count] == tests[1][:count]
    assert all(tests[0])


def stamps(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*.h5")}


# What members are.

def test_members_share_all_but_sampling(made):
    ensemble = ensembles.read(made[0] / "ensemble.json")
    trainers = [replace(each, folder=made[0] / "elsewhere").begun().trainer for each in ensemble.members]
    shutil.rmtree(made[0] / "elsewhere")
    first, second, third = trainers
    for path, array in first.model.state().items():
        np.testing.assert_array_equal(array, second.model.state()[path])
    assert list(first.validation.names) == list(second.validation.names) == list(third.validation.names)
    orders = [next(trainer.loader.epoch(0)).indices.tolist() for trainer in trainers]
    assert orders[0] != orders[1] != orders[2] != orders[0]


@pytest.mark.parametrize(("member", "flags"), [(1, []), (2, ["--sampling-seed", 8]),
                                               (3, ["--sampling-seed", 9, "--width", 0.1])], ids=str)
def test_each_member_is_as_a_run_of_its_own(folder, made, tmp_path, member, flags):
    assert script("train.py", *single(folder, tmp_path, *flags)).code == 0
    assert_same_run(made[0] / f"model-{member}", run_folder(tmp_path))


def test_the_last_one_is_wider(made):
    widths = [load_model(made[0] / f"model-{number}" / "best.h5").model.config.width for number in (1, 2, 3)]
    assert widths == [0.05, 0.05, 0.1]
    assert "model-3, 3 of 3: sampling seed 9, width 0.1 instead of 0.05 (ours: the paper's is not told)" in made[1]


def test_without_wider_all_have_one_width(folder, tmp_path, monkeypatch):
    planned = []
    monkeypatch.setattr("googlenet.commands.members.carry_out", lambda ensemble: planned.append(ensemble) or 0)
    for wider, last in ((["--wider", 1], 0.05), ([], 0.05 * 1.25)):
        assert script("train.py", *single(folder, tmp_path, "--ensemble", 7, *wider)).code == 0
        assert [each.network.width for each in planned.pop().members] == [*[0.05] * 6, last]


def test_seeds_of_sampling_count_on_from_the_one_that_is_given(folder, tmp_path, monkeypatch):
    planned = []
    monkeypatch.setattr("googlenet.commands.members.carry_out", lambda ensemble: planned.append(ensemble) or 0)
    flags = ["--ensemble", 3, "--sampling-seed", 2**32 - 2]
    assert script("train.py", *single(folder, tmp_path, *flags)).code == 0
    assert [each.training.sampling_seed for each in planned[0].members] == [2**32 - 2, 2**32 - 1, 0]


def test_what_is_told_at_the_end(folder, made):
    where, out = made
    table = {row.split()[0]: row.split() for row in out.splitlines() if row.startswith(("model-", "mean"))}
    scores = [each["test"] for each in json.loads((where / "ensemble.json").read_text())["members"]]
    for number, score in enumerate(scores, 1):
        assert f"{score['top1_error']:.2%}" in table[f"model-{number}"]
        assert score["images"] == 12
    assert table["mean"][1] == f"{sum(score['top1_error'] for score in scores) / 3:.2%}"
    assert out.count("test: top-1 error") == 3
    assert out.splitlines()[-1] == (f"evaluate with: python evaluate.py --weights {where} "
                                    f"--data {folder} --table")


def test_without_test_images(folder, tmp_path):
    shutil.copytree(folder / "train", tmp_path / "photos" / "train")
    done = script("train.py", *several(tmp_path / "photos", tmp_path / "runs", "--epochs", 1))
    assert done.code == 0, done.err
    assert done.out.count("no test images") == 1
    assert "mean" not in done.out
    again = script("train.py", "--resume", run_folder(tmp_path / "runs"))
    assert (again.code, again.out.count("epoch ")) == (0, 0)


# Stopping and going on.

@POSIX
@pytest.mark.parametrize("at", [1, 18, 19, 54], ids=lambda at: f"record {at}")
def test_stopped_and_resumed_is_as_never_stopped(folder, made, tmp_path, during, at):
    """A member has 18 records: 8 steps and an end for each epoch. With the last one it is done, and yet it stops."""
    assert len(read_rows(made[0] / "model-1")) == 18
    during(at, interrupt)
    done = script("train.py", *several(folder, tmp_path))
    where = run_folder(tmp_path)
    assert done.code == 130, done.err
    assert f"go on with: python train.py --resume {where}\n" in done.out
    begun = (at - 1) // 18 + 1
    assert not (where / f"model-{begun + 1}").exists(), "the next one was begun"
    done = script("train.py", "--resume", where)
    assert done.code == 0, done.err
    assert [int(number) for number in re.findall(r"^model-(\d), ", done.out, re.MULTILINE)] == [*range(begun, 4)]
    assert_same_ensemble(where, made[0])


@POSIX
def test_a_second_ctrl_c_says_how_to_go_on_too(folder, tmp_path, during):
    def twice():
        interrupt()
        interrupt()

    during(3, twice)
    done = script("train.py", *several(folder, tmp_path))
    assert done.code == 130
    assert f"go on with: python train.py --resume {run_folder(tmp_path)}\n" in done.out


@pytest.mark.parametrize(("place", "name"), [(Trainer, "save"), (Ensemble, "end"), (training, "test"),
                                             (Planned, "begun")],
                         ids=lambda each: getattr(each, "__name__", each))
def test_killed_in_the_second_member(folder, made, tmp_path, monkeypatch, place, name):
    """Before its first checkpoint, after its last, before that it has ended is noted, ..."""
    original, calls = getattr(place, name), []

    def die(*arguments):
        calls.append(arguments)
        if (tmp_path / "runs").exists() and any(
                each["ended"] for path in (tmp_path / "runs").glob("*/ensemble.json")
                for each in json.loads(path.read_text())["members"]):
            raise Killed
        return original(*arguments)

    monkeypatch.setattr(place, name, die)
    with pytest.raises(Killed):
        script("train.py", *several(folder, tmp_path / "runs"))
    monkeypatch.undo()
    where = run_folder(tmp_path / "runs")
    done = script("train.py", "--resume", where)
    assert done.code == 0, done.err
    assert_same_ensemble(where, made[0])
    assert all((where / f"model-{number}" / "curves.png").exists() for number in (1, 2, 3))


@POSIX
def test_kill_9_at_random_moments(folder, made, tmp_path):
    """A checkpoint each step; kills fall into members and between them."""
    rng, arguments, before = random.Random(0), several(folder, tmp_path, "--save-every", 1e-9), -1
    for _ in range(4):
        running = subprocess.Popen(command("train.py", *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert os.read(running.stderr.fileno(), 1), "it has begun"
        time.sleep(rng.uniform(0, 0.7))
        running.kill()
        running.communicate()
        where = run_folder(tmp_path)
        ensemble = ensembles.read(where / "ensemble.json")
        steps = sum(load_model(path).attributes["step"] for path in where.glob("*/last.h5"))
        assert steps >= before
        if len(ensemble.ended) == 3:
            break
        arguments, before = ["--resume", where], steps
    assert script("train.py", "--resume", where).code == 0
    assert_same_ensemble(where, made[0])


def test_one_that_has_ended_is_not_trained_again(made):
    before = stamps(made[0])
    for name in (made[0], made[0] / "ensemble.json"):
        done = script("train.py", "--resume", name)
        assert done.code == 0, done.err
        assert done.out.splitlines()[-5:] == made[1].splitlines()[-5:], "the table"
        assert "test: " not in done.out
    assert stamps(made[0]) == before


def test_files_alone_do_not_make_a_member_ended(folder, made, tmp_path):
    """What counts is ensemble.json: a checkpoint of all epochs is tested, and noted."""
    where = shutil.copytree(made[0], tmp_path / "run")
    content = json.loads((where / "ensemble.json").read_text())
    content["members"][1] |= {"ended": False, "test": None}
    (where / "ensemble.json").write_text(json.dumps(content))
    before = stamps(where)
    done = script("train.py", "--resume", where)
    assert done.code == 0, done.err
    assert done.out.count("test: ") == 1
    assert stamps(where) == before
    assert_same_ensemble(where, made[0])


def test_a_member_can_be_gone_on_with_by_itself(folder, made, tmp_path, during):
    during(25, kill)
    with pytest.raises(Killed):
        script("train.py", *several(folder, tmp_path, "--save-every", 1e-9))
    where = run_folder(tmp_path)
    assert script("train.py", "--resume", where / "model-2").code == 0
    assert script("train.py", "--resume", where).code == 0
    assert_same_ensemble(where, made[0])


@pytest.mark.parametrize(("flag", "told"), [(["--epochs", 3, "--lr", 0.001], "epochs 3, the others with 2"),
                                            (["--conv", "im2col"], "conv im2col, the others with auto")], ids=str)
def test_a_member_that_was_trained_otherwise_is_none(folder, tmp_path, during, flag, told):
    during(20, kill)
    with pytest.raises(Killed):
        script("train.py", *several(folder, tmp_path, "--save-every", 1e-9))
    where = run_folder(tmp_path)
    assert script("train.py", "--resume", where / "model-2", *flag).code == 0
    before = stamps(where)
    done = script("train.py", "--resume", where)
    assert done.code == 1
    assert f"{where / 'model-2'} was trained by itself with {told}: move it out" in done.err
    assert stamps(where) == before


# Changing it.

def test_members_are_added(folder, made, tmp_path):
    where = shutil.copytree(made[0], tmp_path / "run")
    before = stamps(where)
    done = script("train.py", "--resume", where, "--ensemble", 4)
    assert done.code == 0, done.err
    assert "model-4, 4 of 4: sampling seed 10\n" in done.out
    assert stamps(where).items() > before.items()
    assert load_model(where / "model-4" / "best.h5").model.config.width == 0.05
    assert script("train.py", *single(folder, tmp_path / "single", "--sampling-seed", 10)).code == 0
    assert_same_run(where / "model-4", run_folder(tmp_path / "single"))


def test_members_are_added_where_data_has_moved(folder, made, tmp_path):
    where, moved = shutil.copytree(made[0], tmp_path / "run"), tmp_path / "moved"
    content = (where / "ensemble.json").read_text()
    (where / "ensemble.json").write_text(content.replace(str(folder), str(tmp_path / "gone")))
    shutil.copytree(folder, moved)
    done = script("train.py", "--resume", where, "--ensemble", 4, "--data", moved, "--report")
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1].endswith(f"--data {moved} --table")
    assert (where / "model-4" / "report.html").exists()
    done = script("train.py", "--resume", where, "--ensemble", 5)
    assert done.code == 0, "it is remembered"


@pytest.mark.parametrize("count", [2, 3])
def test_no_members_are_taken_away(made, count):
    done = script("train.py", "--resume", made[0], "--ensemble", count)
    assert done.code == 1
    assert "has 3 members" in done.complaint


@pytest.mark.parametrize("flag", [["--epochs", 3], ["--lr", 0.1], ["--seed", 8], ["--conv", "im2col"],
                                  ["--wider", 2, "--ensemble", 4]], ids=str)
def test_settings_that_results_depend_on_stay(made, flag):
    before = (made[0] / "ensemble.json").read_bytes()
    done = script("train.py", "--resume", made[0], *flag)
    assert done.code == 1
    assert f"{flag[0]} can't change when an ensemble is resumed" in done.complaint
    assert (made[0] / "ensemble.json").read_bytes() == before


@POSIX
def test_data_may_move(folder, made, tmp_path, during):
    moved = shutil.copytree(folder, tmp_path / "before")
    during(20, interrupt)
    assert script("train.py", *several(moved, tmp_path / "runs")).code == 130
    moved.rename(tmp_path / "after")
    where = run_folder(tmp_path / "runs")
    done = script("train.py", "--resume", where)
    assert done.code == 1
    assert "before" in done.err
    during(39, interrupt)
    assert script("train.py", "--resume", where, "--data", tmp_path / "after").code == 130
    assert script("train.py", "--resume", where).code == 0, "it is remembered"
    assert [read_rows(where / f"model-{number}") for number in (1, 2, 3)] == [
        read_rows(made[0] / f"model-{number}") for number in (1, 2, 3)]


# Trained weights to begin with.

def test_from_trained_weights_no_network_is_wider(folder, tmp_path):
    weights = write_weights(tmp_path / "weights.h5")
    flags = [*TINY[4:], "--data", folder, "--epochs", 1, "--init", weights, "--output", tmp_path / "runs"]
    done = script("train.py", *flags, "--ensemble", 2)
    assert done.code == 0, done.err
    assert f"no wider network: all have the width of {weights}" in done.out
    where = run_folder(tmp_path / "runs")
    assert [load_model(where / f"model-{number}" / "best.h5").model.config.width for number in (1, 2)] == [0.05, 0.05]
    done = script("train.py", *flags, "--ensemble", 2, "--wider", 1.5)
    assert done.code == 1
    assert "--wider 1.5" in done.complaint
    assert len(list((tmp_path / "runs").iterdir())) == 1


# What can't be.

@pytest.mark.parametrize("flags", [["--ensemble", 1], ["--ensemble", 2, "--wider", 0.5], ["--wider", 2],
                                   ["--ensemble", 2, "--wider", "nan"], ["--ensemble", 2, "--wider", "inf"]], ids=str)
def test_usage_errors(folder, tmp_path, flags):
    done = script("train.py", *single(folder, tmp_path / "runs", *flags))
    assert done.code == 2
    assert flags[-2] in done.err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


def test_a_single_run_does_not_become_an_ensemble(made):
    done = script("train.py", "--resume", made[0] / "model-1", "--ensemble", 3)
    assert done.code == 1
    assert "--ensemble can't change" in done.complaint


def test_nothing_is_written_for_data_that_cannot_be_used(tmp_path):
    done = script("train.py", *several(tmp_path / "nowhere", tmp_path / "runs"))
    assert done.code == 1
    assert "nowhere" in done.complaint
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("spoil", [lambda text: text[:100], lambda text: text.replace("sampling_seed", "seeds"),
                                   lambda text: "[]", lambda text: text.replace('"epochs": 2', '"epochs": 0')])
def test_a_damaged_file_is_named(made, tmp_path, spoil):
    where = shutil.copytree(made[0], tmp_path / "run")
    path = where / "ensemble.json"
    path.write_text(spoil(path.read_text()))
    done = script("train.py", "--resume", where)
    assert done.code == 1
    assert f"{path} can't be read" in done.complaint
