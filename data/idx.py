"""MNIST's idx files, gzipped or not: MNIST, Fashion-MNIST and the embedded subset.

A file is two zero bytes, a type byte (8: uint8), the number of dimensions, each dimension as a big-endian uint32, and
the values (http://yann.lecun.com/exdb/mnist/). A set is four files: images and labels of `train` and of `t10k`.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.base import ArrayDataset, Dataset
from data.errors import DataError
from data.names import numbered, read_names

__all__ = ["FASHION", "open_split", "read_idx", "recognises", "write_idx"]

PREFIXES = {"train": "train", "test": "t10k", "val": "t10k"}
UINT8 = 8

DIGITS = tuple("0123456789")
FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

# MNIST and Fashion-MNIST bear the same file names; the first labels of a file tell them apart.
KNOWN_BEGINNINGS = {
    (5, 0, 4, 1, 9, 2, 1, 3): DIGITS,
    (7, 2, 1, 0, 4, 1, 4, 9): DIGITS,
    (9, 0, 0, 3, 0, 2, 7, 2): FASHION,
    (9, 2, 1, 1, 6, 1, 4, 6): FASHION,
}


def recognises(folder: Path) -> bool:
    """Return whether `folder` holds idx images."""
    return any(_find(folder, prefix, "images", 3) for prefix in PREFIXES.values())


def open_split(folder: Path, split: str) -> Dataset:
    """Return the images and labels of one split. Raises DataError for missing, damaged or disagreeing files."""
    prefix = PREFIXES[split]
    files = [_find(folder, prefix, kind, dimensions) for kind, dimensions in (("images", 3), ("labels", 1))]
    if files[0] is None or files[1] is None:
        kind, dimensions = ("labels", 1) if files[0] else ("images", 3)
        raise DataError(f"{folder}: no {split} split: expected a file {prefix}-{kind}-idx{dimensions}-ubyte[.gz]")
    images, labels = read_idx(files[0], dimensions=3), read_idx(files[1], dimensions=1)
    if len(images) != len(labels):
        raise DataError(f"{files[0]} holds {len(images)} images but {files[1].name} holds {len(labels)} labels")
    names = [f"{prefix}-{i:05d}" for i in range(len(images))]
    return ArrayDataset(images, labels, names, _classes(folder, labels), str(folder))


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return the uint8 array of an idx file, checked to the byte. Raises DataError."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}): fetch it again") from error
    if content[:4] != bytes((0, 0, UINT8, dimensions)) or len(content) < 4 + 4 * dimensions:
        raise DataError(f"{path}: is not an idx file of uint8 in {dimensions} dimensions: fetch it again")
    start = 4 + 4 * dimensions
    shape = tuple(int(n) for n in np.frombuffer(content[4:start], ">u4"))
    if len(content) - start != math.prod(shape):
        raise DataError(f"{path}: holds {len(content) - start} values, its header says {shape}: fetch it again")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def write_idx(path: Path, values: NDArray[np.uint8]) -> None:
    """Write a gzipped idx file; the same values give the same bytes, for no name and no time is put in."""
    header = bytes((0, 0, UINT8, values.ndim)) + np.array(values.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + values.tobytes(), compresslevel=9, mtime=0))


def _find(folder: Path, prefix: str, kind: str, dimensions: int) -> Path | None:
    names = [f"{prefix}-{kind}{mark}idx{dimensions}-ubyte{end}" for mark in "-." for end in ("", ".gz")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _classes(folder: Path, labels: NDArray[np.uint8]) -> tuple[str, ...]:
    """Return the names in classes.txt; else those of a known set; else numbers, as many as any split's labels need."""
    known = read_names(folder) or KNOWN_BEGINNINGS.get(tuple(labels[:8].tolist()))
    if known:
        return known
    files = [_find(folder, prefix, "labels", 1) for prefix in ("train", "t10k")]
    largest = max(int(read_idx(file, dimensions=1).max(initial=0)) for file in files if file)
    return numbered(largest, folder)
