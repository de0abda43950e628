import io
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data import packed
from data.base import Dataset
from data.datasets import open_dataset, split_validation
from data.errors import DataError
from data.loader import Loader
from data.packed import USER_BLOCK, WINDOW, PackedDataset, open_file
from data.packing import Settings, pack
from tests.data.files import pixels, truncate, write_class_folders, write_idx_set, write_picture

KEPT = Settings("train", shuffled=False, decode=True, keep_damaged=False, block=1000)


class Numbers(Dataset):
    """n PNGs of one pixel that says which it is."""

    def __init__(self, count):
        super().__init__(np.arange(count) % 3, [f"{i}.png" for i in range(count)], "abc", "numbers")

    def image(self, index):
        return np.full((1, 1, 3), (index // 256, index % 256, 7), np.uint8)


def packed_file(dataset, path, **changed):
    for _ in pack(dataset, path, Settings(**{**vars(KEPT), **changed})):
        pass
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of several sizes in folders, some of them with names that are hard to write down."""
    folder = tmp_path_factory.mktemp("folders")
    write_class_folders(folder, count=4)
    write_picture(folder / "train/cat/größer ☃.jpg", pixels(40, 30, 3))
    write_picture(folder / f"train/dog/{'n' * 246}.png", pixels(3, 50))
    return folder


@pytest.fixture(scope="module")
def file(folder, tmp_path_factory):
    return packed_file(open_dataset(folder, "train"), tmp_path_factory.mktemp("packed") / "train.h5")


def assert_same(one, other):
    assert list(one.names) == list(other.names)
    assert one.classes == other.classes
    np.testing.assert_array_equal(one.labels, other.labels)
    for i in range(len(one)):
        np.testing.assert_array_equal(one.image(i), other.image(i))


def test_packed_is_the_folder(folder, file):
    dataset = open_dataset(file, "train")
    assert isinstance(dataset, PackedDataset)
    assert_same(dataset, open_dataset(folder, "train"))
    assert dataset.sizes.tolist() == [list(dataset.image(i).shape[:2]) for i in range(len(dataset))]
    assert dataset.encoded(0) == (folder / "train" / dataset.names[0]).read_bytes()


def test_arrays_are_packed_as_png(tmp_path):
    write_idx_set(tmp_path)
    source = open_dataset(tmp_path, "train")
    dataset = open_dataset(packed_file(source, tmp_path / "a.h5"), "train")
    assert_same(dataset, source)
    assert Image.open(io.BytesIO(dataset.encoded(0))).mode == "L"


def test_any_hdf5_program_reads_it(file):
    dataset = open_dataset(file, "train")
    with h5py.File(file) as opened:
        offsets, content = opened["offsets"][()], opened["bytes"][()]
        assert opened["bytes"].chunks is None
        assert opened["labels"][()].tolist() == dataset.labels.tolist()
        assert opened["classes"][()].tobytes() == b"cat\0dog\0"
        for i in range(len(dataset)):
            assert content[offsets[i] : offsets[i + 1]].tobytes() == dataset.encoded(i)
        assert len(open_dataset(file, "train")) == len(dataset)  # while another reader has it open


def test_a_folder_of_packed_files_is_both_splits(folder, file, tmp_path):
    (tmp_path / "train.h5").write_bytes(file.read_bytes())
    with pytest.raises(DataError, match=r"no test split: expected test.h5 or val.h5; it has train.h5"):
        open_dataset(tmp_path, "test")
    packed_file(open_dataset(folder, "test"), tmp_path / "val.h5", split="test")
    assert_same(open_dataset(tmp_path, "test"), open_dataset(folder, "test"))
    assert_same(open_dataset(tmp_path, "val"), open_dataset(folder, "test"))
    assert_same(open_dataset(tmp_path, "train"), open_dataset(folder, "train"))
    with pytest.raises(DataError, match=r"holds the test split, and the train split is asked for"):
        open_dataset(tmp_path / "val.h5", "train")
    with pytest.raises(DataError, match=r"holds the train split, and the test split is asked for"):
        open_dataset(file, "test")
    (tmp_path / "val.h5").unlink()
    packed_file(Numbers(3), tmp_path / "val.h5", split="test")
    with pytest.raises(DataError, match=r"has 2 classes, .*val.h5 has 3; 'a' is in one only"):
        open_dataset(tmp_path, "train")


def test_other_hdf5_files_are_not_taken_for_packed_images(tmp_path):
    with h5py.File(tmp_path / "train.h5", "w") as file:
        file["weights"] = 1
    with pytest.raises(DataError, match=r"holds no data set: expected .* train.h5 and val.h5 of packed images"):
        open_dataset(tmp_path, "train")
    with pytest.raises(DataError, match="is a file: unpack it"):
        open_dataset(tmp_path / "train.h5", "train")
    with pytest.raises(DataError, match=r"does not begin as `python -m data.pack` lets a file begin"):
        open_file(tmp_path / "train.h5")


@pytest.mark.parametrize("whole", [False, True])
def test_an_unfinished_file_is_refused_with_the_remedy(tmp_path, whole):
    path = tmp_path / "train.h5"
    running = pack(Numbers(300), path, KEPT)
    next(running)
    if whole:
        next(running)
    running.close()
    for place in (path, tmp_path, packed.part_of(path)):
        with pytest.raises(DataError, match=r"train.h5.part: is not finished: .* again, with --resume"):
            open_dataset(place, "train")


def changed_images(file, expected):
    """Return the images that are told to have changed; all others must be what they were."""
    dataset = PackedDataset(file, open_file(file))
    told = []
    for index, content in enumerate(expected):
        try:
            read = dataset.encoded(index)
        except DataError:
            told.append(index)
        else:
            assert read == content
    return told


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A packed file and what its images were."""
    file = packed_file(Numbers(40), tmp_path_factory.mktemp("small") / "train.h5")
    dataset = open_dataset(file, "train")
    return file.read_bytes(), [dataset.encoded(i) for i in range(40)]


def test_each_changed_byte_is_an_error(small, tmp_path):
    """Bytes from everywhere: the user block, HDF5's structure, the index and the images."""
    content, expected = small
    path = tmp_path / "train.h5"
    path.write_bytes(content)
    with h5py.File(path) as file:
        begin, size = file["bytes"].id.get_offset(), file["bytes"].size
    refused, told = 0, set()
    for place in (*range(0, len(content), 197), *range(begin, begin + size, 11)):
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 << place % 8)]) + content[place + 1 :])
        try:
            changed = changed_images(path, expected)
        except DataError:
            refused += 1
        else:
            assert len(changed) == 1, place
            told.update(changed)
    assert refused > 300
    assert len(told) == 40


@given(st.data())
def test_damage_is_never_another_picture(small, tmp_path_factory, data):
    content, expected = bytearray(small[0]), small[1]
    path = tmp_path_factory.mktemp("damage") / "train.h5"
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, len(content)))
        end = begin + data.draw(st.integers(0, 600))
        content[begin:end] = data.draw(st.binary(max_size=600))
    path.write_bytes(content)
    with suppress(DataError):
        assert changed_images(path, expected) or bytes(content) == small[0]


@pytest.mark.parametrize("keep", [0, 10, 4000, 4096, 9000, 20000, -4000, -1])
def test_a_file_cut_short_is_refused(small, tmp_path, keep):
    path = tmp_path / "train.h5"
    path.write_bytes(small[0][:keep])
    with pytest.raises(DataError, match=r"copy it again or pack it again|is a file"):
        open_dataset(path, "train")
    path.write_bytes(small[0] + b"\0")
    with pytest.raises(DataError, match=f"has {len(small[0]) + 1} bytes, and {len(small[0])} were packed"):
        open_dataset(path, "train")


def test_a_file_cut_short_while_it_is_read(small, tmp_path):
    path = tmp_path / "train.h5"
    path.write_bytes(small[0])
    dataset = open_dataset(path, "train")
    truncate(path, 0.1)
    with pytest.raises(DataError, match=r"train.h5: ends at byte .* before"):
        dataset.encoded(0)


def test_a_hostile_index_with_a_true_digest(tmp_path, monkeypatch):
    """Whoever makes the digest himself still gets no image from outside the images."""
    true = packed._read_index

    def forged(opened, extent):
        with h5py.File(io.BytesIO(), "w") as file:
            for name in opened:
                if name != "bytes":
                    file[name] = opened[name][()]
            file["bytes"] = np.zeros(3, np.uint8)
            return true(file, extent)

    path = packed_file(Numbers(4), tmp_path / "train.h5")
    monkeypatch.setattr(packed, "_read_index", forged)
    with pytest.raises(DataError, match="its index does not agree with itself"):
        open_dataset(path, "train")


@given(st.integers(1, 400), st.integers(0, 9))
def test_an_order_is_every_index_once_window_by_window(count, seed):
    blocks = np.sort(np.random.default_rng(seed).integers(0, 30, count))
    index = packed.Index(
        "train", np.arange(count + 1), np.zeros(count, np.int64), np.ones((count, 2), np.int32),
        np.zeros(count, np.uint32), blocks, [str(i) for i in range(count)], ("a",), [],
    )  # fmt: skip
    dataset = PackedDataset(Path("nowhere"), index)
    order = dataset.order(np.random.default_rng(seed))
    assert sorted(order) == list(range(count))
    np.testing.assert_array_equal(order, dataset.order(np.random.default_rng(seed)))
    # Walking along the order, blocks come in sets of WINDOW, and none comes back once its set is through.
    sets, seen = [], set()
    for block in blocks[order].tolist():
        if block not in seen:
            if len(seen) % WINDOW == 0:
                sets.append(set())
            seen.add(block)
            sets[-1].add(block)
        assert block in sets[-1]
    assert len(sets) == -(-len(set(blocks.tolist())) // WINDOW)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return open_dataset(packed_file(Numbers(2000), tmp_path_factory.mktemp("many") / "train.h5"), "train")


def sample(image, rng):
    return image.astype(np.float32)


def numbers(batches):
    return np.concatenate([batch.images[:, 0, 0, 0] * 256 + batch.images[:, 0, 0, 1] for batch in batches]).tolist()


def test_a_loader_reads_a_few_blocks_at_a_time(many):
    blocks = many._index.blocks
    assert blocks[-1] > 10 * WINDOW
    loader = Loader(many, sample, 50, seed=3, shuffle=True, threads=3)
    epochs = [list(loader.epoch(number)) for number in (0, 1, 0)]
    orders = [numbers(epoch) for epoch in epochs]
    assert sorted(orders[0]) == list(range(2000))
    assert orders[0] == orders[2] != orders[1]
    for batch in epochs[0]:
        assert len(set(blocks[batch.indices])) <= 3 * WINDOW
    assert numbers(loader.epoch(0, start_batch=7)) == orders[0][350:]
    unshuffled = Loader(many, sample, 50, seed=3, shuffle=False)
    assert numbers(unshuffled.epoch(0)) == list(range(2000))


def test_parts_of_packed_images_are_read_by_blocks_too(many):
    training, validation = split_validation(many, 0.2, 1)
    assert isinstance(training, PackedDataset)
    held_out = {validation.names[i] for i in range(len(validation))}
    assert held_out | set(training.names) == set(many.names)
    assert not held_out & set(training.names)
    smaller, _ = split_validation(training, 0.5, 0)
    for i in range(0, len(smaller), 50):
        number = int(smaller.names[i].removesuffix(".png"))
        assert smaller.image(i)[0, 0].tolist() == [number // 256, number % 256, 7]
        assert smaller.labels[i] == number % 3
    order = training.order(np.random.default_rng(0))
    assert sorted(order) == list(range(len(training)))
    windows = many._index.blocks[training._rows[order]]
    assert len(set(windows[:100].tolist())) <= 2 * WINDOW


def test_threads_read_at_once(many):
    barrier = threading.Barrier(8)

    def read(start):
        barrier.wait()
        return [many.image(i)[0, 0].tolist() == [i // 256, i % 256, 7] for i in range(start, 2000, 8)]

    with ThreadPoolExecutor(8) as pool:
        assert all(all(each) for each in pool.map(read, range(8)))


def test_it_can_be_sent_to_another_process(many):
    other = pickle.loads(pickle.dumps(many))
    np.testing.assert_array_equal(other.image(700), many.image(700))


def test_damaged_images_left_out_are_told_by_the_file(tmp_path):
    write_class_folders(tmp_path)
    (tmp_path / "train/dog/1.png").write_bytes(b"")
    index = open_file(packed_file(open_dataset(tmp_path, "train"), tmp_path / "train.h5"))
    assert [name for name, _ in index.left_out] == ["dog/1.png"]
    assert "cannot be decoded" in index.left_out[0][1]
    assert "dog/1.png" not in index.names


def test_the_user_block_tells_where_the_images_are(file):
    head = file.read_bytes()[:USER_BLOCK].decode().rstrip("\0").split()
    begin, end, size = int(head[-5]), int(head[-3]), int(head[-1])
    assert size == file.stat().st_size
    with h5py.File(file) as opened:
        assert opened["bytes"].id.get_offset() == begin
        assert opened["bytes"].shape == (end - begin,)
    assert head[:3] == ["packed", "images", "1"]
