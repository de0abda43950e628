"""CIFAR-10's binary version: a folder of data_batch_1.bin ... data_batch_5.bin and test_batch.bin.

A record is one label byte and 3072 pixel bytes, the 32 x 32 red values row by row, then green, then blue
(https://www.cs.toronto.edu/~kriz/cifar.html). The Python version of the same set is refused: its files are pickles,
and to unpickle a file is to run whatever program it holds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.base import ArrayDataset, Dataset
from data.errors import DataError

__all__ = ["CLASSES", "open_split", "recognises"]

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECORD = 1 + 3 * 32 * 32

STEMS = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"], "val": ["test_batch"]}


def recognises(folder: Path) -> bool:
    """Return whether `folder` holds CIFAR-10's batches, in the binary version or in the Python version."""
    stems = [*STEMS["train"], *STEMS["test"]]
    return any((folder / f"{stem}{end}").is_file() for stem in stems for end in (".bin", ""))


def open_split(folder: Path, split: str) -> Dataset:
    """Return the images of one split. Raises DataError for missing or damaged files, and for the pickled version."""
    files = [folder / f"{stem}.bin" for stem in STEMS[split]]
    missing = [file for file in files if not file.is_file()]
    if missing and missing[0].with_suffix("").is_file():
        raise DataError(
            f"{missing[0].with_suffix('')}: is CIFAR-10's Python version, whose pickles can run any program when read: "
            f"give the folder of the binary version (cifar-10-binary.tar.gz), or train.npz and test.npz with arrays "
            f"images (N, 32, 32, 3) and labels (N,)"
        )
    if missing:
        raise DataError(f"{folder}: no complete {split} split: {missing[0].name} is missing")
    records = np.concatenate([_records(file) for file in files])
    labels, pixels = records[:, 0], records[:, 1:]
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # (N, 3, 32, 32) -> (N, 32, 32, 3)
    names = [f"{split}-{i:05d}" for i in range(len(images))]
    return ArrayDataset(images, labels, names, CLASSES, str(folder))


def _records(path: Path) -> NDArray[np.uint8]:
    """Return the records of one file, (n, 3073)."""
    try:
        values = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if len(values) % RECORD:
        raise DataError(f"{path}: has {len(values)} bytes, not a multiple of a record's {RECORD}: fetch it again")
    return values.reshape(-1, RECORD)
