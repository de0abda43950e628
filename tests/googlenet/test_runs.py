"""The folder of a run: earlier epochs' checkpoints are kept, and only so many."""

import os

import pytest

from googlenet.weights import load_model
from tests.runs import TINY, computing_alone, run_folder, script, write_set

one_thread = pytest.fixture(computing_alone, scope="module", autouse=True)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A run of four epochs that keeps two."""
    folder = tmp_path_factory.mktemp("kept")
    data = write_set(folder / "data", train=4, test=0)
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
    done = script("train.py", "--resume", earlier)
    assert done.code == 0, done.err
    assert (tmp_path / "last.h5").exists()
    first, second = (load_model(folder / "last.h5").model.state() for folder in (kept, tmp_path))
    assert all((first[path] == second[path]).all() for path in first)


def test_where_links_are_not_to_be_had_the_file_is_copied(kept, tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    done = script("train.py", "--resume", kept, "--epochs", "5", "--keep", "3")
    assert done.code == 0, done.err
    assert sorted(path.name for path in kept.glob("epoch-*")) == [f"epoch-000{number}.h5" for number in (3, 4, 5)]
    assert (kept / "epoch-0005.h5").read_bytes() == (kept / "last.h5").read_bytes()
