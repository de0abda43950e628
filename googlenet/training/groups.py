"""Batches in groups: the gradients of a group are added up for one update."""
from __future__ import annotations

from collections.abc import Iterator

from data.loader import Batch


class Groups:
    """The batches of an epoch in groups of `size` by their numbers, of which the last may be smaller.

    A group is an iterator: it holds one batch at a time, and is to be read to its end before the next one. It ends with
    its last number, without a wait for what follows. Only where that batch is missing, as all its images are damaged,
    the first batch of the next group shows that it has ended."""

    def __init__(self, batches: Iterator[Batch], size: int, count: int):
        self.batches, self.size, self.count = batches, size, count
        self.ahead: Batch | None = None  # read, but of the next group

    def __iter__(self) -> Iterator[Iterator[Batch]]:
        while (first := self._next()) is not None:
            yield self._group(first)

    def _group(self, batch: Batch | None) -> Iterator[Batch]:
        assert batch is not None
        end = min((batch.number // self.size + 1) * self.size, self.count)
        while batch is not None and batch.number < end:
            yield batch
            if batch.number == end - 1:
                return
            batch = self._next()
        self.ahead = batch

    def _next(self) -> Batch | None:
        batch, self.ahead = self.ahead or next(self.batches, None), None
        return batch
