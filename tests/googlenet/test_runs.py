"""The folder of a run: earlier epochs' checkpoints are kept, and only so many."""

import math
import os
import shutil
import subprocess
import sys

import pytest

from googlenet import runs
from googlenet.commands import training
from googlenet.weights import load_model
from minigrad.errors import InputError
from tests.runs import ROOT, TINY, Killed, computing_alone, kill, run_folder, script, write_set

one_thread = pytest.fixture(computing_alone, scope="module", autouse=True)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A run of four epochs that keeps two."""
    folder = tmp_path_factory.mktemp("kept")
    data = write_set(folder / "data", train=4, test=1)
    done = script("train.py", "--data", data, *TINY, "--epochs", "4", "--batch-size", "4", "--lr", "0.001",
                  "--validation-fraction", "0.25", "--keep", "2", "--output", folder / "runs")
    assert done.code == 0, done.err
    return run_folder(folder / "runs")


def test_the_latest_epochs_are_kept(kept):
    assert sorted(path.name for path in kept.glob("epoch-*")) == ["epoch-0003.h5", "epoch-0004.h5"]
    assert [load_model(kept / f"epoch-000{number}.h5").attributes["epoch"] for number in (3, 4)] == [3, 4]
    assert (kept / "epoch-0004.h5").read_bytes() == (kept / "last.h5").read_bytes()


def test_a_kept_epoch_can_be_gone_on_from(kept, tmp_path):
    earlier = tmp_path / "epoch-0003.h5"
    earlier.write_bytes((kept / "epoch-0003.h5").read_bytes())
    assert runs.resumed(str(kept / "epoch-0003.h5"), {}).trainer.best[0] < 1
    assert runs.resumed(str(earlier), {}).trainer.best == (math.inf, math.inf), "which nothing here is the best of"
    done = script("train.py", "--resume", earlier)
    assert done.code == 0, done.err
    assert "test: top-1 error" in done.out
    assert load_model(tmp_path / "best.h5").attributes["trained_images"] == 4 * 12, "of the one epoch of this folder"
    first, second = (load_model(folder / "last.h5").model.state() for folder in (kept, tmp_path))
    assert all((first[path] == second[path]).all() for path in first)


def test_a_last_epoch_can_be_tested_in_another_folder(kept, tmp_path):
    """Where there is nothing left to train, its weights are the best."""
    shutil.copy(kept / "last.h5", tmp_path / "copied.h5")
    done = script("train.py", "--resume", tmp_path / "copied.h5")
    assert done.code == 0, done.err
    assert "test: top-1 error" in done.out
    best, last = (load_model(path).model.state() for path in (tmp_path / "best.h5", kept / "last.h5"))
    assert all((best[path] == last[path]).all() for path in last)


def test_files_of_other_names_are_left_alone(kept, tmp_path):
    folder = shutil.copytree(kept, tmp_path / "run")
    others = {folder / name for name in ("epoch-0001-good.h5", "epoch-mine.h5", "epoch-0001.h5.part")}
    for path in others:
        path.touch()
    done = script("train.py", "--resume", folder, "--epochs", "5")
    assert done.code == 0, done.err
    assert {path.name for path in folder.glob("epoch-*")} == {
        "epoch-0004.h5", "epoch-0005.h5", *(path.name for path in others)}


def test_killed_before_an_epoch_is_kept_it_is_kept_after_all(kept, tmp_path, monkeypatch):
    folder = shutil.copytree(kept, tmp_path / "run")
    monkeypatch.setattr(training, "keep_epoch", lambda run: kill())
    with pytest.raises(Killed):
        script("train.py", "--resume", folder, "--epochs", "6")
    monkeypatch.undo()
    assert not (folder / "epoch-0005.h5").exists()
    done = script("train.py", "--resume", folder)
    assert done.code == 0, done.err
    assert sorted(path.name for path in folder.glob("epoch-*")) == ["epoch-0005.h5", "epoch-0006.h5"]
    assert load_model(folder / "epoch-0005.h5").attributes["epoch"] == 5


def test_where_links_are_not_to_be_had_the_file_is_copied(kept, tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    done = script("train.py", "--resume", kept, "--epochs", "5", "--keep", "3")
    assert done.code == 0, done.err
    assert sorted(path.name for path in kept.glob("epoch-*")) == [f"epoch-000{number}.h5" for number in (3, 4, 5)]
    assert (kept / "epoch-0005.h5").read_bytes() == (kept / "last.h5").read_bytes()


def test_a_folder_is_trained_into_by_one_process(tmp_path):
    hold = """
import sys, pathlib
from googlenet.runs import alone
with alone(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", hold, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          cwd=ROOT) as other:
        assert other.stdout.readline().strip() == b"held"
        with pytest.raises(InputError, match="another process trains this run"), runs.alone(tmp_path):
            pass
        other.kill()
    with runs.alone(tmp_path):  # the lock has ended with its process
        pass
