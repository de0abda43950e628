import os
import shutil

import numpy as np
import pytest
from PIL import Image

from data.datasets import open_dataset
from data.errors import DataError
from tests.data.files import pixels, write_class_folders, write_picture


def test_classes_are_the_sorted_folders(tmp_path):
    write_class_folders(tmp_path, classes=("zebra", "Ant", "bee"), count=2)
    array = pixels(6, 8, 3)
    write_picture(tmp_path / "train/bee/0.png", array)
    dataset = open_dataset(tmp_path, "train")
    assert dataset.classes == ("Ant", "bee", "zebra")
    assert dataset.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert list(dataset.names) == ["Ant/0.png", "Ant/1.png", "bee/0.png", "bee/1.png", "zebra/0.png", "zebra/1.png"]
    np.testing.assert_array_equal(dataset.image(2), array)


def test_pictures_are_in_order_of_their_names_whatever_the_disk_says(tmp_path, monkeypatch):
    write_class_folders(tmp_path)
    listing = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: sorted(listing(path), key=lambda entry: entry.name, reverse=True))
    dataset = open_dataset(tmp_path, "train")
    assert list(dataset.names) == [f"{name}/{i}.png" for name in ("cat", "dog") for i in range(3)]


def test_only_pictures_are_read(tmp_path):
    write_class_folders(tmp_path, count=1)
    for name in ("notes.txt", "Thumbs.db", ".hidden.png", "._0.png"):
        (tmp_path / "train/cat" / name).write_text("no picture")
    (tmp_path / "train/cat/folder.png").mkdir()
    (tmp_path / "train/.cache").mkdir()
    write_picture(tmp_path / "train/cat/LOUD.JPEG")
    assert list(open_dataset(tmp_path, "train").names) == ["cat/0.png", "cat/LOUD.JPEG", "dog/0.png"]


@pytest.mark.parametrize(
    ("folders", "split", "read"),
    [
        (("train", "test"), "test", "test"),
        (("train", "val"), "test", "val"),
        (("train", "test"), "val", "test"),
        (("train", "val", "test"), "val", "val"),
        (("train", "val", "test"), "test", "test"),
    ],
)
def test_val_and_test_stand_in_for_each_other(tmp_path, folders, split, read):
    write_class_folders(tmp_path, splits=folders)
    write_picture(tmp_path / read / "cat/witness.png")
    assert "cat/witness.png" in open_dataset(tmp_path, split).names


@pytest.mark.parametrize(
    ("folders", "split", "expected"), [(("train",), "test", "test/ or val/"), (("val",), "train", "train/")]
)
def test_missing_split(tmp_path, folders, split, expected):
    write_class_folders(tmp_path, splits=folders)
    with pytest.raises(DataError, match=f"no {split} split: expected a folder {expected}"):
        open_dataset(tmp_path, split)


def test_an_empty_class_is_named(tmp_path):
    write_class_folders(tmp_path)
    for file in (tmp_path / "test/dog").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"dog: holds no pictures"):
        open_dataset(tmp_path, "test")


def test_an_empty_split_is_named(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match=r"train: holds neither a folder for each class nor a labels.csv"):
        open_dataset(tmp_path, "train")


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("lacking", ["train", "test"])
def test_classes_of_the_splits_must_agree(tmp_path, split, lacking):
    write_class_folders(tmp_path)
    shutil.rmtree(tmp_path / lacking / "dog")
    has = {"train": "test", "test": "train"}[lacking]
    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path, split)
    assert f"{tmp_path / has / 'dog'} is a class that {tmp_path / lacking} lacks" in str(caught.value)


@pytest.fixture
def listed(tmp_path):
    """A flat folder of three pictures with a list, and the class names in the folder above."""
    folder = tmp_path / "photos"
    for name in "abc":
        write_picture(folder / f"{name}.jpg")
    (folder / "labels.csv").write_text("file,class_index\nb.jpg,2\na.jpg,0\nc.jpg,2\n")
    (tmp_path / "synset_words.txt").write_text("n01 tench, Tinca tinca\nn02 crane\nn03 crane\n")
    return folder


def test_a_list_gives_order_labels_and_names(listed):
    dataset = open_dataset(listed, "test")
    assert list(dataset.names) == ["b.jpg", "a.jpg", "c.jpg"]
    assert dataset.labels.tolist() == [2, 0, 2]
    assert dataset.classes == ("n01 tench, Tinca tinca", "n02 crane", "n03 crane")
    np.testing.assert_array_equal(dataset.image(1), np.asarray(Image.open(listed / "a.jpg")))


def test_classes_beside_the_list_come_first(listed):
    (listed / "classes.txt").write_text("\ufeffapple\npear\n\nplum\n", encoding="utf-8")
    assert open_dataset(listed, "test").classes == ("apple", "pear", "plum")


def test_without_names_classes_are_numbered(listed):
    (listed.parent / "synset_words.txt").unlink()
    assert open_dataset(listed, "test").classes == ("0", "1", "2")


def test_a_flat_list_is_no_training_set(listed):
    with pytest.raises(DataError, match="lists test pictures only: to train, put lists in train/ and test/"):
        open_dataset(listed, "train")


def test_lists_in_train_and_test(tmp_path):
    for split, label in (("train", 1), ("test", 0)):
        write_picture(tmp_path / split / "a.png")
        (tmp_path / split / "labels.csv").write_text(f"file,class_index\na.png,{label}\n")
    with pytest.raises(DataError, match=r"train has 2 classes, .*test has 1: name them all in .*classes.txt"):
        open_dataset(tmp_path, "train")
    (tmp_path / "classes.txt").write_text("apple\npear\n")
    assert open_dataset(tmp_path, "train").labels.tolist() == [1]
    assert open_dataset(tmp_path, "test").classes == ("apple", "pear")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with None: expected the header file,class_index"),
        (b"a.jpg,0\n", r"begins with \['a.jpg', '0'\]: expected the header"),
        (b"file,class_index\na.jpg,0\nb.jpg,cat\n", "line 3: expected a file and a class number, got .*cat"),
        (b"file,class_index\na.jpg,-1\n", "line 2: expected a file and a class number"),
        (b"file,class_index\na.jpg\n", "line 2: expected a file and a class number"),
        (b"file,class_index\na.jpg,99999999999999999999\n", "line 2: expected a file and a class number"),
        (b"file,class_index\n,0\n", "line 2: expected a file and a class number"),
        (b"file,class_index\n", "holds no images"),
        (b"file,class_index\na.jpg,3\n", r"a.jpg has label 3, but the 3 classes are numbered 0 to 2"),
        (b"file,class_index\n\xff\xfe,0\n", r"labels.csv: cannot be read"),
    ],
)
def test_a_wrong_list_is_named(listed, content, message):
    (listed / "labels.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_dataset(listed, "test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no class names"),
        (b"crane\nowl\ncrane\n", "names 'crane' 2 times"),
        (b"\xff", "cannot be read as UTF-8"),
    ],
)
def test_a_wrong_list_of_classes_is_named(listed, content, message):
    (listed / "classes.txt").write_bytes(content)
    with pytest.raises(DataError, match=rf"classes.txt: {message}"):
        open_dataset(listed, "test")


def test_a_listed_picture_that_is_missing_is_named(listed):
    (listed / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"a.jpg: no such file"):
        open_dataset(listed, "test").image(1)
