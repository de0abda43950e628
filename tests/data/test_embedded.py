import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data.datasets import EMBEDDED, open_dataset
from data.embedded.make import make
from data.errors import DataError
from data.idx import FASHION, read_idx
from tests.data.files import write_idx_set

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("split", "per_class"), [("train", 1000), ("test", 200)])
def test_balanced(split, per_class):
    dataset = open_dataset("embedded", split)
    assert dataset.classes == FASHION
    assert np.bincount(dataset.labels).tolist() == [per_class] * 10
    assert dataset.image(0).shape == (28, 28, 3)


def test_no_image_twice_and_none_in_both_splits():
    prints = {
        split: [hashlib.sha256(dataset.image(i).tobytes()).digest() for i in range(len(dataset))]
        for split, dataset in ((split, open_dataset("embedded", split)) for split in ("train", "test"))
    }
    assert len(set(prints["train"])) == 10_000
    assert len(set(prints["test"])) == 2000
    assert not set(prints["train"]) & set(prints["test"])


def test_pictures_are_clothes():
    """Labels sit on their images: trousers are tall, sneakers are wide, and blank ones there are none."""
    dataset = open_dataset("embedded", "test")
    ink = np.stack([dataset.image(i)[:, :, 0] > 40 for i in range(len(dataset))])
    assert ink.any(axis=(1, 2)).all()
    height, width = ink.any(axis=2).sum(axis=1), ink.any(axis=1).sum(axis=1)
    for name, tall in (("Trouser", True), ("Sneaker", False)):
        chosen = dataset.labels == FASHION.index(name)
        assert ((height > 1.3 * width) if tall else (width > 1.3 * height))[chosen].mean() > 0.95


def test_at_most_6_mb_with_its_licence_and_its_origin():
    assert sum(file.stat().st_size for file in EMBEDDED.iterdir() if file.is_file()) < 6e6
    licence = " ".join((EMBEDDED / "LICENSE").read_text().split())
    assert "2017 Zalando SE" in licence
    assert "Permission is hereby granted, free of charge" in licence
    assert "above copyright notice and this permission notice shall be included in all copies" in licence
    assert "dataset-fashion-mnist" in (EMBEDDED / "README.md").read_text()


@pytest.fixture
def originals(tmp_path):
    folder = tmp_path / "originals"
    folder.mkdir()
    return folder, write_idx_set(folder, train=400, test=200, classes=10)


def test_the_script_draws_evenly_from_each_split(tmp_path, originals):
    folder, written = originals
    make(folder, tmp_path, {"train": 5, "t10k": 3})
    for prefix, split, count in (("train", "train", 5), ("t10k", "test", 3)):
        images, labels = written[prefix]
        dataset = open_dataset(tmp_path, split)
        assert np.bincount(dataset.labels).tolist() == [count] * 10
        found = [
            images.tobytes().find(dataset.image(i)[:, :, 0].tobytes()) // images[0].size for i in range(count * 10)
        ]
        assert found == sorted(set(found)), "each image once, in the original's order"
        assert labels[found].tolist() == dataset.labels.tolist()


def test_the_script_writes_the_same_bytes_again(tmp_path, originals):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        make(originals[0], tmp_path / name, {"train": 5, "t10k": 3})
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert len(files) == 5
    for file in files:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_the_script_says_what_it_lacks(tmp_path, originals):
    with pytest.raises(DataError, match=r"originals: has \[41, .*39\] train images a class: expected at least 41"):
        make(originals[0], tmp_path, {"train": 41})
    command = [sys.executable, "-m", "data.embedded.make", str(tmp_path), "--output", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: ")
    assert "train-images-idx3-ubyte: cannot be read" in ended.stderr
    assert ended.stderr.count("\n") == 1


DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_the_embedded_set_is_what_the_script_makes(tmp_path):
    make(DEBIAN, tmp_path, {"train": 1000, "t10k": 200})
    for path in EMBEDDED.glob("*.gz"):
        dimensions = 3 if "images" in path.name else 1
        np.testing.assert_array_equal(read_idx(tmp_path / path.name, dimensions), read_idx(path, dimensions))
