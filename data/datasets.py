"""Open every data set: `open_dataset(source, split)` finds the format from what the folder holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data import arrays, cifar, folders, idx
from data.base import Dataset, Subset
from data.errors import DataError

__all__ = ["EMBEDDED", "FORMATS", "SPLITS", "Dataset", "open_dataset", "split_validation"]

EMBEDDED = Path(__file__).resolve().parent / "embedded"
FORMATS = (idx, cifar, arrays, folders)
SPLITS = ("train", "test", "val")


def open_dataset(source: str | Path, split: str) -> Dataset:
    """Return the `split` ("train", "test" or "val") of `source`: a folder, or "embedded" for the included set.

    Where a set holds out only one split, "test" and "val" are two names for it. Raises DataError when there is no such
    folder, format or split, or when its files are damaged.
    """
    if split not in SPLITS:
        raise DataError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
    folder = EMBEDDED if source == "embedded" else Path(source)
    if not folder.exists():
        raise DataError(f"{folder}: no such folder; the word 'embedded' stands for the images that are included")
    if not folder.is_dir():
        raise DataError(f"{folder}: is a file: unpack it if it is an archive, and give the folder")
    try:
        for form in FORMATS:
            if form.recognises(folder):
                dataset: Dataset = form.open_split(folder, split)
                return dataset
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error})") from error
    raise DataError(
        f"{folder}: holds no data set: expected MNIST's idx files, CIFAR-10's data_batch_*.bin, train.npz and "
        f"test.npz, folders train/<class>/ and test/<class>/ of pictures, or a labels.csv"
    )


def split_validation(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Return (training, validation): `fraction` of each class held out, the same images for the same seed.

    A class keeps at least one image on either side; a class of a single image stays in training. Raises DataError when
    `fraction` is not between 0 and 1, or when no class has two images.
    """
    if not 0 < fraction < 1:
        raise DataError(f"validation fraction {fraction}: expected a number between 0 and 1")
    held_out = np.zeros(len(dataset), dtype=bool)
    rng = np.random.default_rng(seed)
    for label in range(len(dataset.classes)):
        members = rng.permutation(np.flatnonzero(dataset.labels == label))
        if len(members) > 1:
            count = min(max(round(fraction * len(members)), 1), len(members) - 1)
            held_out[members[:count]] = True
    if not held_out.any():
        raise DataError(f"{dataset.origin}: no class has two images, so none can be held out for validation")
    return Subset(dataset, np.flatnonzero(~held_out)), Subset(dataset, np.flatnonzero(held_out))
