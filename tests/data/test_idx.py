import gzip
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from data.datasets import open_dataset
from data.errors import DataError
from data.idx import FASHION, read_idx, write_idx
from tests.data.files import flip_byte, truncate, write_idx_set


@pytest.mark.parametrize(("split", "prefix"), [("train", "train"), ("test", "t10k"), ("val", "t10k")])
def test_images_and_labels_are_those_written(tmp_path, split, prefix):
    images, labels = write_idx_set(tmp_path)[prefix]
    dataset = open_dataset(tmp_path, split)
    assert len(dataset) == len(images)
    assert dataset.labels.tolist() == labels.tolist()
    assert dataset.labels.dtype == np.int64
    for i, image in enumerate(images):
        assert dataset.image(i).shape == (5, 4, 3)
        for channel in range(3):
            np.testing.assert_array_equal(dataset.image(i)[:, :, channel], image)
    assert len(set(dataset.names)) == len(dataset)


def test_reads_bytes_laid_out_by_hand(tmp_path):
    """The format from its description, independent of write_idx; big-endian sizes, no .gz, the dotted name."""
    (tmp_path / "train-images.idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, 2, 1, 3) + bytes([1, 2, 3, 4, 5, 6]))
    (tmp_path / "train-labels.idx1-ubyte").write_bytes(struct.pack(">II", 0x801, 2) + bytes([1, 0]))
    dataset = open_dataset(tmp_path, "train")
    assert dataset.image(1)[:, :, 0].tolist() == [[4, 5, 6]]
    assert dataset.labels.tolist() == [1, 0]


@given(arrays(np.uint8, array_shapes(min_dims=1, max_dims=3, max_side=6), elements=st.integers(0, 255)))
def test_written_is_read(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("idx") / "values.gz"
    write_idx(path, values)
    np.testing.assert_array_equal(read_idx(path, values.ndim), values)


def test_no_time_and_no_name_are_written(tmp_path):
    """RFC 1952: byte 3 says which fields follow, bytes 4 to 7 are the time."""
    write_idx(tmp_path / "values.gz", np.zeros(3, np.uint8))
    assert (tmp_path / "values.gz").read_bytes()[:8] == b"\x1f\x8b\x08\0\0\0\0\0"


@pytest.mark.parametrize(
    ("beginning", "classes"),
    [
        ((5, 0, 4, 1, 9, 2, 1, 3), tuple("0123456789")),
        ((9, 0, 0, 3, 0, 2, 7, 2), FASHION),
        ((9, 2, 1, 1, 6, 1, 4, 6), FASHION),
        ((1, 0, 2, 1, 1, 1, 1, 12), tuple(str(i) for i in range(13))),
    ],
)
def test_first_labels_tell_mnist_from_fashion(tmp_path, beginning, classes):
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", np.zeros((8, 2, 2), np.uint8))
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.array(beginning, np.uint8))
    assert open_dataset(tmp_path, "train").classes == classes


def test_numbered_classes_are_the_same_for_both_splits(tmp_path):
    write_idx_set(tmp_path, classes=4)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.zeros(6, np.uint8))
    assert open_dataset(tmp_path, "test").classes == open_dataset(tmp_path, "train").classes == ("0", "1", "2", "3")


def test_classes_txt_names_the_classes_and_bounds_the_labels(tmp_path):
    write_idx_set(tmp_path, classes=3)
    (tmp_path / "classes.txt").write_text("apple\npear\nplum\n")
    assert open_dataset(tmp_path, "test").classes == ("apple", "pear", "plum")
    (tmp_path / "classes.txt").write_text("apple\npear\n")
    with pytest.raises(DataError, match="train-00002 has label 2, but the 2 classes are numbered 0 to 1"):
        open_dataset(tmp_path, "train")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: truncate(path), "train-images-idx3-ubyte.gz: cannot be read"),
        (lambda path: flip_byte(path, 0.9), "train-images-idx3-ubyte.gz: cannot be read"),
        (lambda path: path.write_bytes(gzip.compress(b"")[:10] + b"\xff" * 20), "cannot be read .*invalid block type"),
        (lambda path: path.write_bytes(b""), "not an idx file of uint8 in 3 dimensions"),
        (lambda path: path.write_bytes(b"\x89PNG"), "cannot be read"),
        (lambda path: path.write_bytes(gzip.compress(bytes(16))), "not an idx file of uint8 in 3 dimensions"),
        (
            lambda path: path.write_bytes(gzip.compress(struct.pack(">IIII", 0x803, 2, 2, 2) + bytes(7))),
            r"holds 7 values, its header says \(2, 2, 2\)",
        ),
        (
            lambda path: path.write_bytes(gzip.compress(struct.pack(">IIII", 0x803, 2**32 - 1, 2**32 - 1, 2) + b"x")),
            "holds 1 values, its header says",
        ),
        (lambda path: write_idx(path, np.zeros((11, 5, 4), np.uint8)), "holds 11 images but .* holds 12 labels"),
        (lambda path: path.unlink(), r"no train split: expected a file train-images-idx3-ubyte\[.gz\]"),
    ],
)
def test_damage_is_named(tmp_path, damage, message):
    write_idx_set(tmp_path)
    damage(tmp_path / "train-images-idx3-ubyte.gz")
    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path, "train")


def test_missing_labels_are_named(tmp_path):
    write_idx_set(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="no test split: expected a file t10k-labels-idx1-ubyte"):
        open_dataset(tmp_path, "test")


def test_an_empty_set_is_refused(tmp_path):
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", np.zeros((0, 2, 2), np.uint8))
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.zeros(0, np.uint8))
    with pytest.raises(DataError, match="holds no images"):
        open_dataset(tmp_path, "train")
