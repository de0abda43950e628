"""The labels of ImageNet's validation pictures, which bear numbers only.

They are looked for beside the pictures, in this order:
    ILSVRC2012_devkit_t12.tar.gz, or its folder       ImageNet's own: ids of its own order, and which WordNet id each is
    LOC_val_solution.csv                              Kaggle's: the WordNet id of each picture
    imagenet_2012_validation_synset_labels.txt        TensorFlow's: a WordNet id a line
    val.txt, with synset_words.txt or LOC_synset_mapping.txt    Caffe's: the place of the WordNet id in sorted order

A class's number here is the place of its WordNet id in sorted order, as folders have it. ImageNet's ids 1 to 1000 have
another order: who takes them for class numbers scores as by chance.
"""

from __future__ import annotations

import csv
import io
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from data.errors import DataError
from data.names import read_names

__all__ = ["Truth", "read_truth"]

DEVKIT = "ILSVRC2012_devkit_t12"
META, TRUTH = "meta.mat", "ILSVRC2012_validation_ground_truth.txt"
KAGGLE = "LOC_val_solution.csv"
TENSORFLOW = "imagenet_2012_validation_synset_labels.txt"
CAFFE = "val.txt"
LARGEST = 2**26  # bytes of a file in the devkit; the real ones have some 300,000
WORDNET = re.compile(r"n[0-9]{8}")


class Truth(NamedTuple):
    """The label of each picture, by its name without the suffix."""

    labels: dict[str, int]
    classes: tuple[str, ...]  # WordNet ids, sorted
    origin: str


def read_truth(folder: Path) -> Truth:
    """Return the labels that lie in `folder`. Raises DataError where none do, or where they are damaged."""
    sources = {
        f"{DEVKIT}.tar.gz": _of_devkit, DEVKIT: _of_devkit, KAGGLE: _of_kaggle, TENSORFLOW: _of_tensorflow,
        CAFFE: _of_caffe,
    }  # fmt: skip
    for name, read in sources.items():
        path = folder / name
        if path.exists():
            try:
                return read(path)
            except (OSError, EOFError, UnicodeDecodeError, csv.Error, tarfile.TarError) as error:
                raise DataError(f"{path}: cannot be read ({error}): download it again") from error
    raise DataError(f"{folder}: has no labels of the validation pictures: put {DEVKIT}.tar.gz there, ImageNet's "
                    f"development kit, or {KAGGLE} of Kaggle's")


def _by_id(names: Sequence[str], ids: Sequence[str], classes: Sequence[str], origin: Path) -> Truth:
    """Return the labels of pictures by the WordNet id of each."""
    number = {name: label for label, name in enumerate(sorted(set(classes)))}
    odd = next((name for name in (*ids, *number) if not WORDNET.fullmatch(name) or name not in number), None)
    if odd is not None:
        raise DataError(f"{origin}: {odd[:80]!r} is no WordNet id of a class, such as n01440764: download it again")
    return Truth(dict(zip(names, (number[each] for each in ids), strict=True)), tuple(number), str(origin))


def _numbered(count: int) -> list[str]:
    return [f"ILSVRC2012_val_{i:08d}" for i in range(1, count + 1)]


def _of_devkit(path: Path) -> Truth:
    wordnet = _synsets(_member(path, META), path)
    lines = _member(path, TRUTH).split()
    try:
        ids = [wordnet[int(line)] for line in lines]
    except (KeyError, ValueError) as error:
        raise DataError(f"{path}: {TRUTH} holds {error}, and ids are 1 to {len(wordnet)}: download it again") from error
    return _by_id(_numbered(len(ids)), ids, list(wordnet.values()), path)


def _member(path: Path, name: str) -> bytes:
    """Return a file of the devkit, which is a folder or a tar."""
    if path.is_dir():
        return (path / "data" / name).read_bytes()
    with tarfile.open(path, "r:gz") as tar:
        for member in tar:
            if member.isfile() and PurePosixPath(member.name).parts[-2:] == ("data", name) and member.size <= LARGEST:
                file = tar.extractfile(member)
                return file.read() if file is not None else b""
    raise DataError(f"{path}: holds no data/{name}: download it again")


def _synsets(content: bytes, path: Path) -> dict[int, str]:
    """Return {ImageNet's id: WordNet id} of the classes, which are the synsets without children."""
    import scipy.io  # some hundred milliseconds, needed here only

    try:
        variables = scipy.io.loadmat(io.BytesIO(content), squeeze_me=True, variable_names=["synsets"])
        synsets = np.ravel(variables["synsets"])
        leaves = synsets[synsets["num_children"].astype(int) == 0]
        found = {int(number): str(name) for number, name in zip(leaves["ILSVRC2012_ID"], leaves["WNID"], strict=True)}
    # scipy fails in many ways of a damaged file
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{path}: {META} cannot be read ({reason}): download it again") from error
    if sorted(found) != list(range(1, len(leaves) + 1)) or len(set(found.values())) < len(found):
        raise DataError(f"{path}: {META} does not number its {len(leaves)} classes from 1 on: download it again")
    return found


def _of_kaggle(path: Path) -> Truth:
    with open(path, newline="", encoding="utf-8") as file:
        rows = [(row.get("ImageId") or "", (row.get("PredictionString") or "").partition(" ")[0])
                for row in csv.DictReader(file)]
    ids = [wordnet for _, wordnet in rows]
    return _by_id([name for name, _ in rows], ids, ids, path)


def _of_tensorflow(path: Path) -> Truth:
    ids = path.read_text(encoding="utf-8").split()
    return _by_id(_numbered(len(ids)), ids, ids, path)


def _of_caffe(path: Path) -> Truth:
    classes = [name.partition(" ")[0] for name in read_names(path.parent) or ()]
    if not classes or classes != sorted(classes):
        raise DataError(f"{path}: needs synset_words.txt beside it, a WordNet id and its words a line, sorted")
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    odd = next((row for row in rows if len(row) != 2 or not row[1].isdigit() or int(row[1]) >= len(classes)), None)
    if odd is not None:
        told = " ".join(odd)[:80]
        raise DataError(f"{path}: expected a picture and a class below {len(classes)} a line, got {told!r}")
    return _by_id([PurePosixPath(row[0]).stem for row in rows], [classes[int(row[1])] for row in rows], classes, path)
