import numpy as np
import pytest

from data.datasets import open_dataset
from data.errors import DataError
from tests.data.files import flip_member, pixels, truncate
from tests.data.test_cifar import Trap


def test_colour_arrays(tmp_path):
    images, labels = pixels(5, 32, 32, 3), np.array([0, 1, 2, 1, 0])
    np.savez(tmp_path / "train.npz", images=images, labels=labels, classes=np.array(["apple", "pear", "plum"]))
    dataset = open_dataset(tmp_path, "train")
    np.testing.assert_array_equal([dataset.image(i) for i in range(5)], images)
    assert dataset.labels.tolist() == labels.tolist()
    assert dataset.classes == ("apple", "pear", "plum")


def test_grey_arrays_and_numbered_classes_of_both_splits(tmp_path):
    images = pixels(2, 7, 6)
    np.savez_compressed(tmp_path / "train.npz", images=pixels(3, 7, 6), labels=np.array([0, 1, 3]))
    np.savez_compressed(tmp_path / "val.npz", images=images, labels=np.array([1, 0], np.uint8))
    dataset = open_dataset(tmp_path, "test")
    np.testing.assert_array_equal(dataset.image(1), np.stack([images[1]] * 3, axis=2))
    assert dataset.classes == ("0", "1", "2", "3")


def test_two_classes_of_one_name(tmp_path):
    """They would be told as one."""
    np.savez(tmp_path / "test.npz", images=pixels(3, 7, 6), labels=[0, 1, 2], classes=["crane", "maillot", "crane"])
    with pytest.raises(DataError, match=r"test\.npz: two classes are called 'crane'"):
        open_dataset(tmp_path, "test")


def test_missing_split(tmp_path):
    np.savez(tmp_path / "train.npz", images=pixels(3, 7, 6), labels=np.array([0, 1, 3]))
    with pytest.raises(DataError, match=r"no test split: expected test.npz or val.npz"):
        open_dataset(tmp_path, "test")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": np.zeros(2, int)}, "has no array images"),
        ({"images": pixels(2, 3, 3)}, "has no array labels"),
        ({"images": np.zeros((2, 3, 3)), "labels": np.zeros(2, int)}, "images is float64 .*expected uint8"),
        ({"images": pixels(2, 3, 4, 4), "labels": np.zeros(2, int)}, r"images is uint8 \(2, 3, 4, 4\): expected uint8"),
        ({"images": pixels(2, 3, 3), "labels": np.zeros(3, int)}, r"labels is int64 \(3,\): expected integers \(2,\)"),
        ({"images": pixels(2, 3, 3), "labels": np.zeros(2)}, "labels is float64"),
        ({"images": pixels(2, 3, 3), "labels": np.array([0, -1])}, "train-00001 has label -1"),
        ({"images": pixels(2, 3, 3), "labels": np.array([0, 10**6])}, "label 1000000: more than 100000 classes"),
        ({"images": pixels(2, 3, 3), "labels": np.array([0, 1]), "classes": np.array([3, 4])}, "classes is int64"),
        ({"images": pixels(2, 3, 3), "labels": np.array([0, 1]), "classes": np.array(["a"])}, "has label 1, but the 1"),
    ],
)
def test_wrong_arrays_are_named(tmp_path, arrays, message):
    np.savez(tmp_path / "train.npz", **arrays)
    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path, "train")


def test_an_npy_is_no_npz(tmp_path):
    with open(tmp_path / "train.npz", "wb") as file:
        np.save(file, pixels(2, 3, 3))
    with pytest.raises(DataError, match=r"train.npz: is a single array"):
        open_dataset(tmp_path, "train")


def test_pickled_arrays_are_refused_unread(tmp_path):
    sprung = tmp_path / "sprung"
    np.savez(tmp_path / "train.npz", images=np.array([Trap(sprung)], dtype=object), labels=np.array([0]))
    with pytest.raises(DataError, match=r"array images cannot be read .*allow_pickle"):
        open_dataset(tmp_path, "train")
    assert not sprung.exists()


@pytest.mark.parametrize("damage", [truncate, lambda path: flip_member(path, "images.npy")])
def test_damaged_files_are_named(tmp_path, damage):
    np.savez(tmp_path / "train.npz", images=pixels(20, 7, 6), labels=np.zeros(20, int))
    damage(tmp_path / "train.npz")
    with pytest.raises(DataError, match=r"train.npz: array images cannot be read"):
        open_dataset(tmp_path, "train")
