import pickle

import numpy as np
import pytest

from data.cifar import CLASSES
from data.datasets import open_dataset
from data.errors import DataError
from tests.data.files import truncate, write_cifar


def test_training_set_is_the_five_batches_in_order(tmp_path):
    made = write_cifar(tmp_path)
    dataset = open_dataset(tmp_path, "train")
    images = np.concatenate([made[f"data_batch_{i}.bin"][0] for i in range(1, 6)])
    labels = np.concatenate([made[f"data_batch_{i}.bin"][1] for i in range(1, 6)])
    assert dataset.labels.tolist() == labels.tolist()
    np.testing.assert_array_equal([dataset.image(i) for i in range(len(dataset))], images)
    assert dataset.classes == CLASSES
    assert len(CLASSES) == 10


@pytest.mark.parametrize("split", ["test", "val"])
def test_test_set(tmp_path, split):
    images, labels = write_cifar(tmp_path)["test_batch.bin"]
    dataset = open_dataset(tmp_path, split)
    assert dataset.labels.tolist() == labels.tolist()
    np.testing.assert_array_equal([dataset.image(i) for i in range(len(dataset))], images)


def test_a_cut_batch_is_named(tmp_path):
    write_cifar(tmp_path)
    truncate(tmp_path / "data_batch_3.bin", 0.9)
    with pytest.raises(DataError, match=r"data_batch_3.bin: has 11062 bytes, not a multiple of a record's 3073"):
        open_dataset(tmp_path, "train")
    assert len(open_dataset(tmp_path, "test")) == 4


def test_a_missing_batch_is_named(tmp_path):
    write_cifar(tmp_path)
    (tmp_path / "data_batch_4.bin").unlink()
    with pytest.raises(DataError, match=r"no complete train split: data_batch_4.bin is missing"):
        open_dataset(tmp_path, "train")


def test_a_label_out_of_range_is_named(tmp_path):
    write_cifar(tmp_path)
    content = bytearray((tmp_path / "test_batch.bin").read_bytes())
    content[3073] = 10
    (tmp_path / "test_batch.bin").write_bytes(content)
    with pytest.raises(DataError, match="test-00001 has label 10, but the 10 classes are numbered 0 to 9"):
        open_dataset(tmp_path, "test")


class Trap:
    """A pickle that runs a program: it makes a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_the_pickled_version_is_refused_unread(tmp_path):
    sprung = tmp_path / "sprung"
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap(sprung)))
    for split in ("train", "test"):
        with pytest.raises(DataError, match=r"Python version.*pickles can run any program.*binary version"):
            open_dataset(tmp_path, split)
    assert not sprung.exists()
