"""Packed images: one HDF5 file a split, as `python -m data.pack` writes it, in place of a million small files.

    TRAIN.h5                          the file itself, which is one split
    FOLDER/train.h5  FOLDER/val.h5    or test.h5: both splits by one name

The file holds the pictures' own bytes, one behind the other, and an index:

    bytes      uint8 (N,)        contiguous, so that its place in the file is known and never moves
    offsets    int64 (n + 1,)    image i is bytes[offsets[i]:offsets[i + 1]]
    labels     int64 (n,)        sizes  int32 (n, 2)  height and width; 0, 0 for a damaged one
    checksums  uint32 (n,)       CRC-32 of each image's bytes
    blocks     int64 (B + 1,)    block b is the images blocks[b] to blocks[b + 1]: some megabytes, read in one go
    names, classes, left_out     UTF-8, a zero byte after each; left_out has name, reason, name, reason ...

HDF5 reads the index once. Images are then read by their place with `pread`: that needs no lock, which HDF5 would, so
all threads read at once. What is checked: the index by a SHA-256 that stands in the file's user block, before HDF5 sees
the file; each image by its own checksum whenever it is read. So a changed byte is an error and never another picture.

A training epoch visits the blocks in random order and mixes the images of WINDOW blocks: the disk reads megabytes in
one go, and the images of a batch come from some thousand. The file's own order should be random as well, for which the
packing cares: folders and ImageNet's tars have a class's images side by side.
"""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from data.base import Dataset
from data.decode import decode_image
from data.errors import DataError
from data.spans import Spans

__all__ = [
    "MAGIC", "UNFINISHED", "USER_BLOCK", "WINDOW", "Extent", "PackedDataset", "join", "open_file", "open_split",
    "part_of", "recognises", "seal", "structure_digest",
]  # fmt: skip

USER_BLOCK = 4096  # bytes
MAGIC = b"packed images 1 "
UNFINISHED = MAGIC + b"unfinished\n"
SEAL = re.compile(MAGIC + rb"sha256 ([0-9a-f]{64}) bytes ([0-9]{1,18}) to ([0-9]{1,18}) of ([0-9]{1,18})\n\0*")
WINDOW = 8  # blocks whose images are mixed

CANDIDATES = {"train": ("train.h5",), "test": ("test.h5", "val.h5"), "val": ("val.h5", "test.h5")}
COPY = "copy it again or pack it again"
RESUME = "is not finished: run the `python -m data.pack` that began it again, with --resume"


class Extent(NamedTuple):
    """Where in the file the images begin and end, and where the file does."""

    begin: int
    end: int
    size: int


class Index(NamedTuple):
    """What the file says of its images."""

    split: str
    offsets: NDArray[np.int64]  # (n + 1,), places in the file
    labels: NDArray[np.int64]  # (n,)
    sizes: NDArray[np.int32]  # (n, 2)
    checksums: NDArray[np.uint32]  # (n,)
    blocks: NDArray[np.int64]  # (n,): the block of each image
    names: list[str]
    classes: tuple[str, ...]
    left_out: list[tuple[str, str]]


class PackedDataset(Dataset):
    """The images of a packed file, or some of them: those of `rows`."""

    def __init__(self, path: Path, index: Index, rows: NDArray[np.int64] | None = None) -> None:
        rows = np.arange(len(index.labels)) if rows is None else rows
        super().__init__(index.labels[rows], [index.names[i] for i in rows.tolist()], index.classes, str(path))
        self.sizes: NDArray[np.int32] = index.sizes[rows]  # (n, 2): height and width
        self._rows = rows
        self._index = index
        self._spans = Spans(path)
        self._expected = [-1] * 4 * WINDOW  # blocks, each where its number leads: threads can't disturb that

    def image(self, index: int) -> NDArray[np.uint8]:
        return decode_image(self.encoded(index), f"{self.origin}: {self.names[index]}")

    def encoded(self, index: int) -> bytes:
        """Return the bytes of the picture file that image `index` was. Raises DataError where they have changed."""
        row = int(self._rows[index])
        self._expect(int(self._index.blocks[row]))
        begin, end = self._index.offsets[row : row + 2].tolist()
        content = self._spans.read(begin, end - begin)
        if zlib.crc32(content) != self._index.checksums[row]:
            raise DataError(f"{self.origin}: {self.names[index]}: its bytes have changed since it was packed: {COPY}")
        return content

    def subset(self, indices: NDArray[np.int64]) -> PackedDataset:
        """Return the images at `indices`, in that order; they keep their blocks."""
        return PackedDataset(self._spans.path, self._index, self._rows[indices])

    def order(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return every index once: blocks in random order, and images in random order within WINDOW blocks."""
        numbers, block = np.unique(self._index.blocks[self._rows], return_inverse=True)
        window = rng.permutation(len(numbers))[block] // WINDOW
        return np.lexsort((rng.random(len(window)), window))

    def _expect(self, block: int) -> None:
        """Have the system fetch a whole block when the first of its images is asked for."""
        slot = block % len(self._expected)
        if self._expected[slot] != block:
            self._expected[slot] = block
            first, last = np.searchsorted(self._index.blocks, (block, block + 1)).tolist()
            begin, end = self._index.offsets[[first, last]].tolist()
            self._spans.expect(begin, end - begin)


def recognises(path: Path) -> bool:
    """Return whether `path` is a packed file, finished or not, or a folder of such."""
    names = ("train.h5", "val.h5", "test.h5")
    return _is_packed(path) or any(_is_packed(path / name) for name in names)


def open_split(path: Path, split: str) -> Dataset:
    """Return the images of one split. Raises DataError for another split, an unfinished, damaged or foreign file."""
    if path.is_dir():
        found = {name: path / name for name in ("train.h5", "val.h5", "test.h5") if _is_packed(path / name)}
        name = next((name for name in CANDIDATES[split] if name in found), None)
        if name is None:
            raise DataError(f"{path}: no {split} split: expected {' or '.join(CANDIDATES[split])}; it has "
                            f"{', '.join(found)}")
        dataset = _open(found.pop(name), split)
        for other in found.values():
            _same_classes(dataset, other)
        return dataset
    return _open(path, split)


def _open(path: Path, split: str) -> PackedDataset:
    index = open_file(path)
    if split != index.split and "train" in (split, index.split):
        raise DataError(f"{path}: holds the {index.split} split, and the {split} split is asked for: put train.h5 and "
                        "val.h5 into one folder and give that")
    return PackedDataset(path, index)


def _same_classes(dataset: Dataset, other: Path) -> None:
    theirs = open_file(other).classes
    if dataset.classes != theirs:
        odd = sorted(set(dataset.classes) ^ set(theirs))
        raise DataError(f"{dataset.origin} has {len(dataset.classes)} classes, {other} has {len(theirs)}; "
                        + (f"{odd[0]!r} is in one only" if odd else "their order differs")
                        + ": pack both from one data set")


def part_of(path: Path) -> Path:
    """Return where a file lies while it is being packed."""
    return path.parent / f"{path.name}.part"  # of "." too, which has no name


def _is_packed(path: Path) -> bool:
    if part_of(path).is_file() and not path.exists():
        return True
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def open_file(path: Path) -> Index:
    """Return the index of a packed file. Raises DataError for one that is unfinished, damaged or something else."""
    if not path.exists():
        if not part_of(path).is_file():
            raise DataError(f"{path}: no such file")
        raise DataError(f"{part_of(path)}: {RESUME}")
    try:
        # Through Python's file there are no locks, which some network file systems lack.
        with open(path, "rb") as opened:
            extent = _verify(opened)
            with h5py.File(opened, "r") as file:
                return _read_index(file, extent)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path}: cannot be read as packed images ({error}): {COPY}") from error


def _verify(file: BinaryIO) -> Extent:
    """Return what the user block says of a file, once it has been found to be true."""
    head = file.read(USER_BLOCK)
    if head.startswith(UNFINISHED):
        raise DataError(RESUME)
    found = SEAL.fullmatch(head)
    if found is None or len(head) != USER_BLOCK:
        raise DataError(f"does not begin as `python -m data.pack` lets a file begin: {COPY}")
    extent = Extent(*(int(number) for number in found.groups()[1:]))
    size = os.fstat(file.fileno()).st_size
    if size != extent.size:
        raise DataError(f"has {size} bytes, and {extent.size} were packed: {COPY}")
    if structure_digest(file, extent) != found[1].decode():
        raise DataError(f"its index has changed since it was packed: {COPY}")
    return extent


def seal(file: BinaryIO, extent: Extent) -> bytes:
    """Return the user block of a file whose index is complete."""
    text = f"sha256 {structure_digest(file, extent)} bytes {extent.begin} to {extent.end} of {extent.size}\n"
    return (MAGIC + text.encode()).ljust(USER_BLOCK, b"\0")


def structure_digest(file: BinaryIO, extent: Extent) -> str:
    """Return the SHA-256 of all that is neither the user block nor an image."""
    digest = hashlib.sha256(repr(tuple(extent)).encode())
    for begin, end in ((USER_BLOCK, extent.begin), (extent.end, extent.size)):
        file.seek(begin)
        while begin < end and (piece := file.read(min(2**20, end - begin))):
            digest.update(piece)
            begin += len(piece)
    return digest.hexdigest()


def join(texts: Sequence[str]) -> NDArray[np.uint8]:
    """Return texts as the file holds them; names of files need not be UTF-8."""
    return np.frombuffer(b"".join(text.encode("utf-8", "surrogateescape") + b"\0" for text in texts), np.uint8)


def _split(values: NDArray[np.uint8]) -> list[str]:
    return values.tobytes().decode("utf-8", "surrogateescape").split("\0")[:-1]


def _read_index(file: h5py.File, extent: Extent) -> Index:
    arrays = {name: file[name][()] for name in ("offsets", "labels", "sizes", "checksums", "blocks")}
    names, classes, left_out = (_split(file[name][()]) for name in ("names", "classes", "left_out"))
    content, count = file["bytes"], len(arrays["labels"])
    if (
        content.id.get_offset() != extent.begin
        or content.shape != (extent.end - extent.begin,)
        or arrays["blocks"][[0, -1]].tolist() != [0, count]
        or {len(arrays["offsets"]) - 1, len(arrays["sizes"]), len(arrays["checksums"]), len(names)} != {count}
    ):
        raise DataError(f"its index does not agree with itself: {COPY}")
    blocks = np.repeat(np.arange(len(arrays["blocks"]) - 1), np.diff(arrays["blocks"]))
    return Index(
        str(file.attrs["split"]), arrays["offsets"] + extent.begin, arrays["labels"], arrays["sizes"],
        arrays["checksums"], blocks, names, tuple(classes), list(zip(left_out[::2], left_out[1::2], strict=True)),
    )  # fmt: skip
