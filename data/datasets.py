"""Open every data set: `open_dataset(source, split)` finds the format from what the folder or the file holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data import arrays, cifar, folders, idx, imagenet_tars, packed
from data.base import Dataset, Subset
from data.caches import cache_folder
from data.errors import DataError
from data.packed import PackedDataset

__all__ = ["EMBEDDED", "FORMATS", "NAMED", "SPLITS", "Dataset", "open_dataset", "split_validation"]

EMBEDDED = Path(__file__).resolve().parent / "embedded"
FORMATS = (idx, cifar, arrays, packed, folders, imagenet_tars)
SPLITS = ("train", "test", "val")
NAMED = ("fashion-mnist", "cifar10", "flowers17")  # sets that `python -m data.fetch` fetches (data/published.py)


def open_dataset(source: str | Path, split: str) -> Dataset:
    """Return the `split` ("train", "test" or "val") of `source`: a folder, a file, "embedded" for the included set, or
    one of NAMED for a fetched one, unless something in the working folder bears that name.

    Where a set holds out only one split, "test" and "val" are two names for it. Raises DataError when there is no such
    folder, format or split, or when its files are damaged.
    """
    if split not in SPLITS:
        raise DataError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
    place = Path(source)
    try:
        place = _place(source)
        for form in FORMATS:
            if form.recognises(place):
                dataset: Dataset = form.open_split(place, split)
                return dataset
        found = "folder" if place.is_dir() else "file" if place.exists() else ""
    except OSError as error:
        raise DataError(f"{place}: cannot be read ({error})") from error
    if not found:
        raise DataError(f"{place}: no such folder; the word 'embedded' stands for the images that are included, "
                        f"{', '.join(NAMED)} for sets that python -m data.fetch fetches")
    if found == "file":
        raise DataError(f"{place}: is a file: unpack it if it is an archive, and give the folder; only packed images "
                        "and ImageNet's tars are files")
    raise DataError(
        f"{place}: holds no data set: expected MNIST's idx files, CIFAR-10's data_batch_*.bin, train.npz and test.npz, "
        f"train.h5 and val.h5 of packed images, folders train/<class>/ and test/<class>/ of pictures, a labels.csv, or "
        f"{imagenet_tars.TRAIN} and {imagenet_tars.VAL}"
    )


def _place(source: str | Path) -> Path:
    if source == "embedded":
        return EMBEDDED
    place = Path(source)
    if str(source) not in NAMED or place.exists():
        return place
    fetched = cache_folder() / place
    if not fetched.is_dir():
        raise DataError(f"{source}: is not here yet: fetch it with: python -m data.fetch {source}")
    return fetched


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
    return _part(dataset, np.flatnonzero(~held_out)), _part(dataset, np.flatnonzero(held_out))


def _part(dataset: Dataset, indices: NDArray[np.int64]) -> Dataset:
    """Return some images; those of a packed file keep the order in which they are read fast."""
    return dataset.subset(indices) if isinstance(dataset, PackedDataset) else Subset(dataset, indices)
