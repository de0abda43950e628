"""A folder of fifty odd or hostile files beside plain pictures: runs complete, and tell what they left out."""

import json
import os
import re

import pytest

from tests import runs
from tests.data.odd import odd_pictures, write_odd_folder

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="names and links that only POSIX has"),
    pytest.mark.filterwarnings("ignore"),  # Pillow's, of what is damaged
]
GOOD, BAD = ([f"odd/{name}" for name in names] for names in odd_pictures())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A class of the fifty files and four of plain pictures, in both splits."""
    made = runs.write_set(tmp_path_factory.mktemp("odd") / "set", train=4, test=2)
    for split in ("train", "test"):
        write_odd_folder(made / split / "odd")
    return made


def left_out(told, home):
    """The pictures below `home` that are said to be left out, in the order of the lines."""
    return re.findall(rf"left out (.*?): {re.escape(str(home))}/", told.replace("\r", "\n"))


def test_training_completes_and_tells(folder, tmp_path):
    done = runs.script("train.py", "--data", folder, "--epochs", 2, "--batch-size", 8, "--max-bad", 20,
                       "--output", tmp_path, *runs.TINY)  # fmt: skip
    assert done.code == 0, done.err
    counts = re.search(r"^left out as damaged: (\d+) training, (\d+) validation images$", done.out, re.MULTILINE)
    assert sum(map(int, counts.groups())) == len(BAD) == 15
    assert sorted(left_out(done.err, folder / "train")) == sorted(BAD), "each is named once, in two epochs"
    assert sorted(left_out(done.err, folder / "test")) == sorted(BAD)
    for split in ("train", "test"):
        for name in ("folder.jpg", "loop.jpg"):
            assert f"left out {folder / split / 'odd' / name}: " in done.err
    assert f"({len(GOOD) + 8} images, centre crop)" in done.out
    assert (runs.run_folder(tmp_path) / "best.h5").exists()


def test_training_ends_where_there_are_more_than_allowed(folder, tmp_path):
    done = runs.script("train.py", "--data", folder, "--epochs", 1, "--max-bad", 14, "--validation-fraction", 0,
                       "--output", tmp_path, *runs.TINY)  # fmt: skip
    assert done.code == 1
    assert re.search(r"train: 15 images cannot be used, more than the 14 allowed; the last is odd/", done.err)


def test_evaluating_completes_and_tells(folder, tmp_path):
    weights = runs.write_weights(tmp_path / "w.h5", classes=(*runs.CLASSES, "odd"))
    done = runs.script("evaluate.py", "--weights", weights, "--data", folder, "--max-bad", 20, "--threads", 1,
                       "--crops", 10, "--json", tmp_path / "result.json")  # fmt: skip
    assert done.code == 0, done.err
    assert left_out(done.err, folder / "test") == sorted(BAD), "in the order of the pictures"
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["left_out"] == sorted(BAD)
    assert result["images"] == len(GOOD) + 8
    assert result["classes"]["odd"]["images"] == len(GOOD) == 33
