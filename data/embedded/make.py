"""Makes the embedded data set: a class-balanced part of Fashion-MNIST, small enough to live in the repository.

    python -m data.embedded.make FOLDER

FOLDER holds Fashion-MNIST's four idx files, as Debian's package `dataset-fashion-mnist` installs them in
/usr/share/datasets/fashion-mnist (or `dpkg-deb -x` unpacks them). The images are drawn with a fixed seed and keep their
original order and their split: training images from the training set, test images from the test set.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.datasets import EMBEDDED
from data.errors import DataError
from data.idx import FASHION, read_idx, write_idx

SEED = 14094842  # the paper, arXiv 1409.4842
PER_CLASS = {"train": 1000, "t10k": 200}


def make(source: Path, target: Path, per_class: dict[str, int]) -> None:
    """Write `target`'s four idx files and classes.txt. Raises DataError where `source` lacks a file or images."""
    for prefix, count in per_class.items():
        images = read_idx(_original(source, f"{prefix}-images-idx3-ubyte"), dimensions=3)
        labels = read_idx(_original(source, f"{prefix}-labels-idx1-ubyte"), dimensions=1)
        available = np.bincount(labels, minlength=len(FASHION))
        if min(available) < count:
            raise DataError(f"{source}: has {available.tolist()} {prefix} images a class: expected at least {count}")
        chosen = balanced(labels, count)
        write_idx(target / f"{prefix}-images-idx3-ubyte.gz", images[chosen])
        write_idx(target / f"{prefix}-labels-idx1-ubyte.gz", labels[chosen])
    (target / "classes.txt").write_text("\n".join(FASHION) + "\n", encoding="utf-8", newline="\n")


def balanced(labels: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    """Return the places of `count` labels of each class, drawn at random with a fixed seed, in ascending order."""
    rng = np.random.default_rng(SEED)
    members = [np.flatnonzero(labels == label) for label in range(len(FASHION))]
    return np.sort(np.concatenate([rng.choice(some, count, replace=False) for some in members]))


def _original(folder: Path, name: str) -> Path:
    gzipped = folder / f"{name}.gz"
    return gzipped if gzipped.is_file() else folder / name


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the embedded part of Fashion-MNIST again.")
    parser.add_argument("folder", type=Path, help="where Fashion-MNIST's four idx files are")
    parser.add_argument("--output", type=Path, default=EMBEDDED, help="where to write (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        make(arguments.folder, arguments.output, PER_CLASS)
    except (DataError, OSError) as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
