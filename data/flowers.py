"""Oxford's 17 flowers as their authors publish them: 17flowers.tgz and datasplits.mat.

The tar holds jpg/image_0001.jpg to jpg/image_1360.jpg, 80 pictures of a class after another; datasplits.mat holds three
splits of their numbers, each as trn, val and tst (https://www.robots.ox.ac.uk/~vgg/data/flowers/17/). The first one is
taken: trn1 and val1 to train, tst1 to test.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.errors import DataError
from data.unpacking import AGAIN, unpack

__all__ = ["CLASSES", "PICTURES", "SPLITS", "lay_out"]

PICTURES, SPLITS = "17flowers.tgz", "datasplits.mat"
CLASSES = (
    "Daffodil", "Snowdrop", "Lily of the valley", "Bluebell", "Crocus", "Iris", "Tigerlily", "Tulip", "Fritillary",
    "Sunflower", "Daisy", "Colts' foot", "Dandelion", "Cowslip", "Buttercup", "Windflower", "Pansy",
)  # fmt: skip
OF_A_CLASS = 80
LARGEST = 2**24  # bytes of a picture; the real ones have some 50,000


def lay_out(downloads: Path, home: Path) -> None:
    """Unpack the pictures as home/train/<class>/ and home/test/<class>/. Raises DataError for damaged files."""
    parts = read_split(downloads / SPLITS)
    wanted = {}
    for split, numbers in parts.items():
        for number in numbers.tolist():
            name = f"image_{number:04d}.jpg"
            wanted[f"jpg/{name}"] = home / split / CLASSES[(number - 1) // OF_A_CLASS] / name
    unpack(downloads / PICTURES, wanted, LARGEST)


def read_split(path: Path) -> dict[str, NDArray[np.int64]]:
    """Return the numbers of the pictures of "train" and "test". Raises DataError for a damaged file."""
    import scipy.io  # some hundred milliseconds, needed here only

    try:
        found = scipy.io.loadmat(io.BytesIO(path.read_bytes()), variable_names=["trn1", "val1", "tst1"])
        training, held_out, test = (np.ravel(found[name]).astype(np.int64) for name in ("trn1", "val1", "tst1"))
    # scipy fails in many ways of a damaged file
    except Exception as error:
        raise DataError(f"{path}: cannot be read ({type(error).__name__}: {error}): {AGAIN}") from error
    parts = {"train": np.concatenate([training, held_out]), "test": test}
    every = np.concatenate([*parts.values()])
    if every.min(initial=1) < 1 or every.max(initial=1) > OF_A_CLASS * len(CLASSES) or len(set(every)) < len(every):
        raise DataError(f"{path}: expected each picture, 1 to {OF_A_CLASS * len(CLASSES)}, once at most: {AGAIN}")
    for split, numbers in parts.items():
        empty = set(range(len(CLASSES))) - set(((numbers - 1) // OF_A_CLASS).tolist())
        if empty:
            raise DataError(f"{path}: has no {split} picture of {CLASSES[min(empty)]}: {AGAIN}")
    return parts
