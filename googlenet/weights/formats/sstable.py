"""Sorted string tables, LevelDB's files, in which TensorFlow keeps checkpoints: (key, value) pairs of bytes by key.

A table is a row of blocks, each followed by a byte that names its compression and by a checksum of both. The footer,
the last 48 bytes, says where the index is: a block whose values say where the other blocks are. In a block a key gives
the number of bytes that it shares with the one before it, and the rest.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NoReturn

from googlenet.weights.formats.crc32c import masked
from googlenet.weights.formats.protobuf import varint
from googlenet.weights.formats.wording import DAMAGED
from minigrad.errors import InputError

MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
FOOTER = 48  # bytes: two handles, zeros, the magic number
TRAILER = 5  # bytes behind a block: compression, checksum
COMPRESSIONS = {0: "none", 1: "Snappy"}
MOST_ENTRIES = 2**17  # a checkpoint has some hundreds
MOST_KEYS = 2**24  # bytes of all keys: they are stored by their differences, and a small file could fill the memory

Handle = tuple[int, int]  # where a block starts, and its size without the trailer


def is_table(end: memoryview | bytes) -> bool:
    """Return whether a file that ends so is a table; `end` are its last 48 bytes or more."""
    return len(end) >= FOOTER and bytes(end[-len(MAGIC):]) == MAGIC


def read(content: memoryview, where: str) -> dict[bytes, memoryview]:
    """Return the values of a whole file by their keys, in the file's order.

    Raises InputError, beginning with `where`, for a block whose checksum is wrong and for whatever is malformed."""
    return _Table(content, where).entries()


class _Table:
    def __init__(self, content: memoryview, where: str):
        self.content = content
        self.where = where

    def entries(self) -> dict[bytes, memoryview]:
        if not is_table(self.content):
            self.fail("it does not end as a table does")
        footer = self.content[-FOOTER:]
        at = self.handle(footer, 0)[1]  # behind the handle of a block of statistics, which is empty
        index, _at = self.handle(footer, at)
        found: dict[bytes, memoryview] = {}
        last, size, free = None, 0, 0
        for _key, value in self.block(index):
            handle, _at = self.handle(value, 0)
            if handle[0] < free:
                self.fail("its blocks overlap")
            free = sum(handle) + TRAILER
            for key, entry in self.block(handle):
                if last is not None and key <= last:
                    self.fail("its keys are out of order")
                last, size = key, size + len(key)
                if size > MOST_KEYS or len(found) == MOST_ENTRIES:
                    self.fail(f"it has more than {MOST_ENTRIES} entries, or more than {MOST_KEYS} bytes of keys")
                found[key] = entry
        return found

    def block(self, handle: Handle) -> Iterator[tuple[bytes, memoryview]]:
        """Yield a block's entries, once its checksum is found right."""
        start, size = handle
        if start + size + TRAILER > len(self.content):
            self.fail(f"a block of {size} bytes at {start} goes past its end")
        checked = self.content[start:start + size + 1]
        stored, = struct.unpack_from("<I", self.content, start + size + 1)
        if masked(checked) != stored:
            self.fail(f"the block at byte {start} does not have its checksum")
        if checked[size]:
            name = COMPRESSIONS.get(checked[size], f"number {checked[size]}")
            raise InputError(f"{self.where}: the block at byte {start} is compressed ({name}), which TensorFlow "
                             "does not do to checkpoints: save it again with tf.train.Saver")
        yield from self.pairs(checked[:size])

    def pairs(self, block: memoryview) -> Iterator[tuple[bytes, memoryview]]:
        restarts = struct.unpack_from("<I", block, len(block) - 4)[0] if len(block) >= 4 else 0
        end = len(block) - 4 - 4 * restarts  # behind the entries stands where keys are whole, for searches
        if not restarts or end < 0:
            self.fail("a block has no room for its restarts")
        at, key = 0, b""
        while at < end:
            (shared, rest, size), at = self.numbers(block[:end], at, 3)
            if shared > len(key) or rest + size > end - at:
                self.fail("an entry goes past its block's end")
            key = key[:shared] + bytes(block[at:at + rest])
            at += rest + size
            yield key, block[at - size:at]

    def handle(self, content: memoryview, at: int) -> tuple[Handle, int]:
        (start, size), at = self.numbers(content, at, 2)
        return (start, size), at

    def numbers(self, content: memoryview, at: int, count: int) -> tuple[list[int], int]:
        """Return as many varints, and where they stop."""
        numbers = []
        for _ in range(count):
            try:
                number, at = varint(content, at, len(content))
            except ValueError as error:
                self.fail(str(error))
            numbers.append(number)
        return numbers, at

    def fail(self, what: str) -> NoReturn:
        raise InputError(f"{self.where} is damaged: {what}; {DAMAGED}")
