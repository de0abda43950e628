import gc
import logging
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.base import Dataset, FileDataset
from data.errors import DataError
from data.loader import Loader
from tests.data.files import truncate, write_picture


class Numbers(Dataset):
    """n images of one pixel that says which it is; those in `bad` are damaged; each takes a while to read."""

    def __init__(self, count, bad=(), delay=lambda index: 0.0):
        super().__init__(np.arange(count) % 3, [f"{i}.png" for i in range(count)], "abc", "numbers")
        self.bad, self.delay, self.reads = set(bad), delay, []

    def image(self, index):
        self.reads.append(index)
        time.sleep(self.delay(index))
        if index in self.bad:
            raise DataError(f"{index}.png: cannot be decoded")
        return np.full((1, 1, 3), index, np.uint8)


def sample(image, rng):
    """The pixel, and a random number in each of the other channels."""
    return np.concatenate([image[..., :1], rng.random((1, 1, 2))], axis=2).astype(np.float32)


def loader(dataset, batch_size=4, **options):
    return Loader(dataset, sample, batch_size, **{"seed": 1, "shuffle": True, **options})


def content(batches):
    """All that is in some batches, as comparable values."""
    return [(b.number, b.images.tobytes(), b.labels.tolist(), b.indices.tolist()) for b in batches]


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


@given(st.integers(1, 40), st.integers(1, 12), st.booleans())
def test_an_epoch_is_every_image_once(count, batch_size, shuffle):
    source = loader(Numbers(count), batch_size, shuffle=shuffle)
    batches = list(source.epoch(0))
    assert len(batches) == source.batches == -(-count // batch_size)
    assert [len(b.images) for b in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert [b.number for b in batches] == list(range(len(batches)))
    indices = np.concatenate([b.indices for b in batches])
    assert sorted(indices) == list(range(count))
    assert shuffle or list(indices) == list(range(count))
    for batch in batches:
        assert batch.images.shape == (len(batch.indices), 1, 1, 3)
        assert batch.images.dtype == np.float32
        assert batch.images[:, 0, 0, 0].tolist() == batch.indices.tolist()
        assert batch.labels.tolist() == [i % 3 for i in batch.indices]
        assert batch.labels.dtype == np.int64


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_change_nothing(threads):
    dataset = Numbers(50, bad=(3, 17), delay=lambda index: 0.001 * (index % 3))
    one, many = loader(dataset, threads=1), loader(dataset, threads=threads)
    for epoch in (0, 1):
        assert content(one.epoch(epoch)) == content(many.epoch(epoch))
    assert one.bad == many.bad


def test_order_and_samples_differ_by_epoch_and_seed():
    dataset = Numbers(30)
    runs = [list(loader(dataset, 30, seed=seed).epoch(epoch)) for seed, epoch in ((1, 0), (1, 1), (2, 0))]
    orders = {tuple(run[0].indices.tolist()) for run in runs}
    assert len(orders) == 3
    noise = {run[0].images[run[0].indices == 7, 0, 0, 1].item() for run in runs}
    assert len(noise) == 3


def test_a_sample_depends_on_its_index_not_on_its_place():
    """The same image gets the same random numbers shuffled or not, and no two images share theirs."""
    dataset = Numbers(30)
    noise = []
    for shuffle in (False, True):
        batch = next(loader(dataset, 30, shuffle=shuffle).epoch(2))
        noise.append(dict(zip(batch.indices.tolist(), batch.images[:, 0, 0, 1].tolist(), strict=True)))
    assert noise[0] == noise[1]
    assert len(set(noise[0].values())) == 30


@pytest.mark.parametrize("start", [0, 1, 5, 7, 8])
def test_resuming_gives_the_tail_of_the_epoch(start):
    dataset = Numbers(30, bad=(4,))
    whole = content(loader(dataset, threads=2).epoch(3))
    assert content(loader(dataset, threads=2).epoch(3, start_batch=start)) == whole[start:]


@given(st.integers(6, 40), st.integers(1, 4), st.integers(1, 5), st.integers(0, 3))
def test_parts_of_an_epoch_are_disjoint_and_together_all_of_it(count, batch_size, parts, start):
    """Part k of n has every n-th batch of the whole, and goes on from any of them."""
    whole = content(loader(Numbers(count), batch_size).epoch(2))
    for k in range(parts):
        source = loader(Numbers(count), batch_size, part=(k, parts))
        own = content(source.epoch(2))
        assert [each[1:] for each in own] == [each[1:] for each in whole[k::parts]]
        assert [each[0] for each in own] == list(range(source.batches))
        place = min(start, source.batches)
        assert content(source.epoch(2, place)) == own[place:]


@pytest.mark.parametrize(("epoch", "start"), [(0, -1), (0, 9), (-1, 0)])
def test_a_place_outside_the_epoch_is_refused_at_once(epoch, start):
    with pytest.raises(DataError, match=f"epoch {epoch} from batch {start}: expected batch 0 to 8"):
        loader(Numbers(30)).epoch(epoch, start_batch=start)


def test_damaged_images_are_named_left_out_and_counted_once(caplog):
    source = loader(Numbers(10, bad=(2, 5)), shuffle=False)
    with caplog.at_level(logging.WARNING, "data"):
        for _ in range(2):
            batches = list(source.epoch(0))
            assert [b.indices.tolist() for b in batches] == [[0, 1, 3], [4, 6, 7], [8, 9]]
    assert source.bad == {"2.png": "2.png: cannot be decoded", "5.png": "5.png: cannot be decoded"}
    assert [record.getMessage() for record in caplog.records] == [
        "left out 2.png: 2.png: cannot be decoded",
        "left out 5.png: 5.png: cannot be decoded",
    ]


def test_the_others_do_not_change_when_one_is_damaged():
    good, bad = (np.concatenate([b.images for b in loader(Numbers(20, bad)).epoch(0)]) for bad in ((), (6,)))
    np.testing.assert_array_equal(bad, good[good[:, 0, 0, 0] != 6])


@pytest.mark.parametrize("threads", [1, 3])
def test_more_than_max_bad_ends_it(threads):
    source = loader(Numbers(20, bad=(1, 2, 9, 15)), shuffle=False, threads=threads, max_bad=2)
    batches = source.epoch(0)
    assert [next(batches).indices.tolist() for _ in range(2)] == [[0, 3], [4, 5, 6, 7]]
    with pytest.raises(
        DataError, match=r"numbers: 3 images cannot be used, more than the 2 allowed; the last is 9.png"
    ):
        next(batches)
    assert not loader_threads()


def test_max_bad_itself_is_allowed():
    assert sum(len(b.images) for b in loader(Numbers(20, bad=(1, 2)), max_bad=2).epoch(0)) == 18
    with pytest.raises(DataError, match="1 images cannot be used, more than the 0 allowed"):
        list(loader(Numbers(20, bad=(1,)), max_bad=0).epoch(0))


def test_a_batch_without_a_good_image_is_left_out_but_keeps_its_number():
    batches = list(loader(Numbers(12, bad=(4, 5, 6, 7)), shuffle=False).epoch(0))
    assert [b.number for b in batches] == [0, 2]


def test_what_a_sample_cannot_use_counts_as_damaged():
    def picky(image, rng):
        if image[0, 0, 0] == 3:
            raise DataError("too thin")
        return sample(image, rng)

    source = Loader(Numbers(6), picky, 6, seed=0, shuffle=False)
    assert next(source.epoch(0)).indices.tolist() == [0, 1, 2, 4, 5]
    assert source.bad == {"3.png": "too thin"}


def test_other_errors_are_not_hidden():
    def wrong(image, rng):
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        next(Loader(Numbers(6), wrong, 2, seed=0, shuffle=False).epoch(0))
    assert not loader_threads()


def test_a_truncated_file_is_named(tmp_path):
    for name in "abc":
        write_picture(tmp_path / f"{name}.jpg")
    truncate(tmp_path / "b.jpg")
    dataset = FileDataset(tmp_path, [0, 0, 0], ["a.jpg", "b.jpg", "c.jpg"], ["class"])
    source = Loader(dataset, lambda image, rng: image.astype(np.float32), 3, seed=0, shuffle=False)
    assert next(source.epoch(0)).indices.tolist() == [0, 2]
    assert list(source.bad) == ["b.jpg"]
    assert str(tmp_path / "b.jpg") in source.bad["b.jpg"]


def wait_until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("threads", [1, 3])
def test_reads_ahead_and_no_further(threads):
    """Before the second batch is asked for, threads + 1 batches more than the one handed out have been read."""
    dataset = Numbers(100)
    batches = loader(dataset, threads=threads).epoch(0)
    next(batches)
    ahead = 4 * (1 + threads + 1)
    wait_until(lambda: len(dataset.reads) == ahead)
    time.sleep(0.05)
    assert len(dataset.reads) == ahead
    batches.close()


@pytest.mark.parametrize("leave", ["close", "drop"])
def test_threads_stop_when_the_iterator_is_left(leave):
    """The second batch would take five seconds: it is not read to its end."""
    dataset = Numbers(200, delay=lambda index: 0.05 * (index >= 100))
    batches = loader(dataset, 100, shuffle=False, threads=3).epoch(0)
    next(batches)
    wait_until(lambda: 100 in dataset.reads)
    assert loader_threads()
    begin = time.monotonic()
    if leave == "close":
        batches.close()
    else:
        del batches
        gc.collect()
    assert time.monotonic() - begin < 1
    assert not loader_threads()


def test_an_epoch_can_be_left_and_begun_again():
    source = loader(Numbers(30), threads=2)
    first = source.epoch(0)
    beginning = content([next(first), next(first)])
    first.close()
    assert content(source.epoch(0))[:2] == beginning


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch size 0: expected at least 1"),
        ({"threads": 0}, "threads 0: expected at least 1"),
        ({"seed": -1}, "seed -1: expected at least 0"),
        ({"max_bad": -1}, "max_bad -1: expected at least 0"),
        ({"part": (2, 2)}, "part 2 of 2: expected 0 to 1"),
    ],
)
def test_out_of_range_options(options, message):
    with pytest.raises(DataError, match=message):
        loader(Numbers(3), **options)
