"""Images as NumPy arrays: train.npz and test.npz (or val.npz) in a folder, a pickle-free form of CIFAR-10 and others.

Each file holds `images`, uint8 (N, H, W, 3) RGB or (N, H, W) greyscale, and `labels`, integers (N,), and may hold
`classes`, the names as an array of strings. Object arrays, which NumPy stores as pickles, are refused.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.base import ArrayDataset, Dataset
from data.errors import DataError
from data.names import numbered

__all__ = ["open_split", "recognises"]

CANDIDATES = {"train": ("train.npz",), "test": ("test.npz", "val.npz"), "val": ("val.npz", "test.npz")}


def recognises(folder: Path) -> bool:
    """Return whether `folder` holds train.npz, val.npz or test.npz."""
    return any((folder / name).is_file() for name in ("train.npz", "val.npz", "test.npz"))


def open_split(folder: Path, split: str) -> Dataset:
    """Return the images of one split. Raises DataError for missing, damaged, pickled or misshapen arrays."""
    path = next((folder / name for name in CANDIDATES[split] if (folder / name).is_file()), None)
    if path is None:
        raise DataError(f"{folder}: no {split} split: expected {' or '.join(CANDIDATES[split])}")
    images, labels = _array(path, "images"), _array(path, "labels")
    if images is None or labels is None:
        raise DataError(f"{path}: has no array {'labels' if labels is None else 'images'}: expected images and labels")
    if images.dtype != np.uint8 or not (images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)):
        raise DataError(f"{path}: images is {images.dtype} {images.shape}: expected uint8 (N, H, W, 3) or (N, H, W)")
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise DataError(f"{path}: labels is {labels.dtype} {labels.shape}: expected integers ({len(images)},)")
    names = [f"{path.stem}-{i:05d}" for i in range(len(images))]
    return ArrayDataset(np.asarray(images, np.uint8), labels, names, _classes(folder, path), str(path))


def _array(path: Path, name: str) -> NDArray[np.generic] | None:
    try:
        with open(path, "rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if isinstance(arrays, np.ndarray):
                raise DataError(f"{path}: is a single array (.npy): expected images and labels in an .npz")
            return arrays[name] if name in arrays.files else None
    except DataError:
        raise
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: array {name} cannot be read ({error})") from error


def _classes(folder: Path, path: Path) -> tuple[str, ...]:
    """Return the names `path` gives; else numbers, as many as the labels of any split need."""
    names = _array(path, "classes")
    if names is not None:
        if names.dtype.kind != "U" or names.ndim != 1:
            raise DataError(f"{path}: classes is {names.dtype} {names.shape}: expected strings (K,)")
        return tuple(names.tolist())
    labels = [_array(file, "labels") for file in (folder / f"{split}.npz" for split in CANDIDATES) if file.is_file()]
    return numbered(max(int(some.max(initial=0)) for some in labels if some is not None), folder)
