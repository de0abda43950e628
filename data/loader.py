"""Batches, decoded ahead of the training step by background threads (data/ahead.py).

Each thread reads whole batches, and at most `threads + 1` batches are read ahead. What a batch holds depends only on
(seed, epoch, image): the order of an epoch is drawn from (seed, epoch) and each sample has a generator of its own, so
the number of threads changes nothing but the speed. A data set that has an `order` of its own is shuffled by it: a file
of a hundred gigabytes is read in pieces, not from end to end for each batch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from threading import Event
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from data.ahead import ahead
from data.base import Dataset
from data.damaged import Damaged
from data.errors import DataError
from data.sampling import sample_generator

__all__ = ["Batch", "Loader", "Ordered", "Sample"]

Sample = Callable[[NDArray[np.uint8], np.random.Generator], NDArray[np.float32]]


@runtime_checkable
class Ordered(Protocol):
    """A data set that knows in which order its images are read fast."""

    def order(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return every index once, in an order drawn from `rng`."""
        ...


class Batch(NamedTuple):
    """Some images of an epoch; fewer than `batch_size` at its end and where damaged ones were left out."""

    images: NDArray[np.float32]  # (N, S, S, 3)
    labels: NDArray[np.int64]  # (N,)
    indices: NDArray[np.int64]  # (N,): places in the data set
    number: int  # place in the part of the epoch; to go on after this batch, start at number + 1


class _Read(NamedTuple):
    images: list[NDArray[np.float32]]
    indices: list[int]
    bad: list[tuple[str, str]]  # (name, reason)


class Loader:
    """Batches of a data set, epoch by epoch: `loader.epoch(number)` is an iterator of one epoch's.

    `sample(image, rng)` makes the network's input of a uint8 (H, W, 3) image. A damaged image is logged by name, left
    out and counted in `bad` (name -> reason); more than `max_bad` of them raise DataError. The last, partial batch of
    an epoch is kept; `batches` is how many an epoch has. Of several loaders with one seed, part (k, n) has the batches
    k, k + n, k + 2n, ... of the order that they share, and counts its own from 0 on.
    """

    def __init__(
        self,
        dataset: Dataset,
        sample: Sample,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool,
        threads: int = 1,
        max_bad: int = 10,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        for name, value, least in (
            ("batch size", batch_size, 1),
            ("threads", threads, 1),
            ("seed", seed, 0),
            ("max_bad", max_bad, 0),
        ):
            if value < least:
                raise DataError(f"loader: {name} {value}: expected at least {least}")
        index, of = part
        if not 0 <= index < of:
            raise DataError(f"loader: part {index} of {of}: expected 0 to {of - 1}")
        self.part = part
        self.dataset = dataset
        self.sample = sample
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.threads = threads
        self.damaged = Damaged(dataset.origin, max_bad)

    @property
    def bad(self) -> dict[str, str]:
        """The damaged images so far, name -> reason."""
        return self.damaged.found

    @property
    def batches(self) -> int:
        """Batches in this part of an epoch; the epoch's last one is partial."""
        index, of = self.part
        return len(range(index, -(-len(self.dataset) // self.batch_size), of))

    def epoch(self, number: int, start_batch: int = 0) -> Generator[Batch]:
        """Return the batches of epoch `number` from `start_batch` on: the same ones as of the whole epoch.

        Closing or dropping the iterator stops its threads. A batch without a single good image is left out. Raises
        DataError, also while running, when more than `max_bad` images have been damaged.
        """
        if number < 0 or not 0 <= start_batch <= self.batches:
            raise DataError(f"epoch {number} from batch {start_batch}: expected batch 0 to {self.batches}")
        return self._run(number, start_batch)

    def _run(self, epoch: int, start_batch: int) -> Generator[Batch]:
        order = self._order(epoch)
        index, of = self.part
        stop = Event()

        def read(number: int) -> _Read:
            place = (index + number * of) * self.batch_size
            return self._read(order[place : place + self.batch_size], epoch, stop)

        reads = ahead(read, range(start_batch, self.batches), self.threads, self.threads + 1)
        try:
            for number, (images, found, bad) in reads:
                for name, reason in bad:
                    self.damaged.note(name, reason)
                if found:
                    indices = np.array(found, dtype=np.int64)
                    yield Batch(np.stack(images), self.dataset.labels[indices], indices, number)
        finally:
            stop.set()  # before the threads are waited for: a batch of large pictures takes seconds
            reads.close()

    def _order(self, epoch: int) -> NDArray[np.int64]:
        everything = np.arange(len(self.dataset))
        generator = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(epoch,)))
        if not self.shuffle:
            return everything
        return self.dataset.order(generator) if isinstance(self.dataset, Ordered) else generator.permutation(everything)

    def _read(self, indices: NDArray[np.int64], epoch: int, stop: Event) -> _Read:
        """Return the samples of one batch; runs in a background thread."""
        read = _Read([], [], [])
        for index in indices.tolist():
            if stop.is_set():
                break
            try:
                image = self.sample(self.dataset.image(index), sample_generator(self.seed, epoch, index))
            except DataError as error:
                read.bad.append((self.dataset.names[index], str(error)))
            else:
                read.images.append(image)
                read.indices.append(index)
        return read
