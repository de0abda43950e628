import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.base import ArrayDataset
from data.datasets import NAMED, open_dataset, split_validation
from data.errors import DataError
from tests.data.files import pixels, write_cifar, write_class_folders, write_idx_set


def labelled(labels, classes=None):
    labels = np.array(labels)
    images = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1)  # each image's value is its index
    names = [f"image {i}" for i in range(len(labels))]
    return ArrayDataset(images, labels, names, "abcdefgh"[: classes or labels.max() + 1], "set")


def values(dataset):
    return [int(dataset.image(i)[0, 0, 0]) for i in range(len(dataset))]


@pytest.mark.parametrize(
    ("write", "classes"),
    [(write_idx_set, 3), (write_cifar, 10), (write_class_folders, 2)],
    ids=["idx", "cifar", "folders"],
)
def test_the_format_is_found_from_the_content(tmp_path, write, classes):
    write(tmp_path)
    assert len(open_dataset(str(tmp_path), "train").classes) == classes


def test_what_is_no_data_set(tmp_path):
    with pytest.raises(DataError, match="holds no data set: expected MNIST's idx files, CIFAR-10's"):
        open_dataset(tmp_path, "train")
    (tmp_path / "a.tar.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"a.tar.gz: is a file: unpack it"):
        open_dataset(tmp_path / "a.tar.gz", "train")
    with pytest.raises(DataError, match="nowhere: no such folder; the word 'embedded'"):
        open_dataset(tmp_path / "nowhere", "train")
    with pytest.raises(DataError, match="split 'valid': expected one of train, test, val"):
        open_dataset(tmp_path, "valid")


def test_a_folder_called_embedded_is_reached_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "embedded").mkdir()
    write_idx_set(tmp_path / "embedded")
    assert len(open_dataset("./embedded", "train")) == 12
    assert len(open_dataset("embedded", "train")) == 10_000


@pytest.mark.parametrize("name", NAMED)
def test_a_name_stands_for_the_fetched_set(tmp_path, monkeypatch, name):
    monkeypatch.setenv("GOOGLENET_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    with pytest.raises(DataError, match=f"^{name}: is not here yet: fetch it with: python -m data.fetch {name}$"):
        open_dataset(name, "train")
    write_class_folders(tmp_path / "cache" / name, count=4)
    assert len(open_dataset(name, "train")) == 8
    write_class_folders(tmp_path / "work" / name, count=1)
    assert len(open_dataset(name, "train")) == 2, "what lies in the working folder comes first"


def test_the_cache_folder_is_asked_for_by_those_names_only(tmp_path, monkeypatch):
    monkeypatch.setenv("GOOGLENET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_class_folders(tmp_path / "cache" / "own")
    with pytest.raises(DataError, match=r"own: no such folder; .*fashion-mnist, cifar10, flowers17 for sets that"):
        open_dataset("own", "train")
    with pytest.raises(DataError, match=r"elsewhere.cifar10: no such folder"):
        open_dataset("elsewhere/cifar10", "train")


def test_images_in_memory_are_not_changed_by_their_readers():
    dataset = ArrayDataset(pixels(1, 2, 2, 3), [0], ["a"], ["c"], "set")
    with pytest.raises(ValueError, match="read-only"):
        dataset.image(0)[:] = 0


@given(st.lists(st.integers(0, 7), min_size=2, max_size=80), st.floats(0.01, 0.99), st.integers(0, 99))
def test_validation_is_a_fraction_of_each_class(labels, fraction, seed):
    dataset = labelled(labels, 8)
    if max(labels.count(label) for label in labels) < 2:
        with pytest.raises(DataError, match="no class has two images"):
            split_validation(dataset, fraction, seed)
        return
    training, validation = split_validation(dataset, fraction, seed)
    assert sorted(values(training) + values(validation)) == list(range(len(labels)))
    for part in (training, validation):
        assert part.classes == dataset.classes
        assert part.labels.tolist() == [labels[i] for i in values(part)]
        assert list(part.names) == [f"image {i}" for i in values(part)]
    for label in set(labels):
        count, held_out = labels.count(label), int((validation.labels == label).sum())
        if count == 1:
            assert held_out == 0
        else:
            assert 1 <= held_out < count
            assert abs(held_out - fraction * count) <= 0.5 or held_out in (1, count - 1)


def test_validation_depends_on_the_seed_alone():
    dataset = labelled(list(range(4)) * 20)
    first, again, other = (values(split_validation(dataset, 0.25, seed)[1]) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert len(first) == 20


def test_a_subset_of_a_subset_keeps_its_images():
    training, _ = split_validation(labelled([0, 1] * 20), 0.5, 0)
    smaller, _ = split_validation(training, 0.5, 0)
    assert set(values(smaller)) < set(values(training))
    assert smaller.labels.tolist() == [i % 2 for i in values(smaller)]


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_a_fraction_lies_between_none_and_all(fraction):
    with pytest.raises(DataError, match=r"validation fraction .*: expected a number between 0 and 1"):
        split_validation(labelled([0, 0]), fraction, 0)
