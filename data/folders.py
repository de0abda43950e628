"""Pictures in folders.

    FOLDER/train/<class>/*     FOLDER/test/<class>/*  or  FOLDER/val/<class>/*     a class is a folder, in sorted order
    FOLDER/train/labels.csv    FOLDER/test/labels.csv                              a list, paths beside it
    FOLDER/labels.csv                                                              a list of test pictures only

A labels.csv has the header `file,class_index`. Its class names are in a classes.txt or synset_words.txt beside it or in
the folder above; without one they are numbers. What bears a picture's name and is no file, such as a folder, a pipe or
a link that leads nowhere, is named in the log and left out.
"""

from __future__ import annotations

import csv
import logging
import os
import re
from pathlib import Path

from data.base import Dataset, FileDataset
from data.decode import SUFFIXES
from data.errors import DataError
from data.names import LISTS, numbered, read_names

__all__ = ["open_split", "recognises"]

log = logging.getLogger(__name__)

CANDIDATES = {"train": ("train",), "test": ("test", "val"), "val": ("val", "test")}
LIST = "labels.csv"
HEADER = ("file", "class_index")
INDEX = re.compile(r"\s*[0-9]{1,9}\s*")


def recognises(folder: Path) -> bool:
    """Return whether `folder` holds a train, val or test folder, or a labels.csv."""
    return (folder / LIST).is_file() or any((folder / name).is_dir() for name in ("train", "val", "test"))


def open_split(folder: Path, split: str) -> Dataset:
    """Return the pictures of one split.

    Raises DataError for a missing split, an empty or foreign class, a damaged list.
    """
    home = _home(folder, split)
    classes = _classes(home)
    for other in ("train", "test", "val"):
        if home != folder and (folder / other).is_dir() and folder / other != home:
            _same_classes(home, classes, folder / other)
    return _listed(home, classes) if (home / LIST).is_file() else _class_folders(home, classes)


def _home(folder: Path, split: str) -> Path:
    """Return the folder of a split: a flat folder with a list is its own test split."""
    if (folder / LIST).is_file():
        if split != "train":
            return folder
        raise DataError(f"{folder}: {LIST} here lists test pictures only: to train, put lists in train/ and test/")
    names = CANDIDATES[split]
    home = next((folder / name for name in names if (folder / name).is_dir()), None)
    if home is None:
        raise DataError(f"{folder}: no {split} split: expected a folder {' or '.join(f'{name}/' for name in names)}")
    return home


def _classes(home: Path) -> tuple[str, ...]:
    if (home / LIST).is_file():
        largest = max((label for _, label in _rows(home / LIST)), default=0)
        return read_names(home, home.parent) or numbered(largest, home / LIST)
    classes = tuple(sorted(entry.name for entry in os.scandir(home) if _is_class(entry)))
    if not classes:
        raise DataError(f"{home}: holds neither a folder for each class nor a {LIST}")
    return classes


def _same_classes(home: Path, classes: tuple[str, ...], other: Path) -> None:
    theirs = _classes(other)
    if classes == theirs:
        return
    if (home / LIST).is_file() or (other / LIST).is_file():
        raise DataError(
            f"{home} has {len(classes)} classes, {other} has {len(theirs)}: name them all in {home.parent / LISTS[0]}"
        )
    odd = sorted(set(classes) ^ set(theirs))
    has, lacks = (home, other) if odd[0] in classes else (other, home)
    raise DataError(
        f"{has / odd[0]} is a class that {lacks} lacks ({len(odd)} such): each split must have a folder for each class"
    )


def _class_folders(home: Path, classes: tuple[str, ...]) -> Dataset:
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        pictures = sorted(entry.name for entry in os.scandir(home / name) if _is_picture(entry))
        if not pictures:
            raise DataError(f"{home / name}: holds no pictures: add some ({', '.join(sorted(SUFFIXES))}) or remove it")
        names += [f"{name}/{picture}" for picture in pictures]
        labels += [label] * len(pictures)
    return FileDataset(home, labels, names, classes)


def _listed(home: Path, classes: tuple[str, ...]) -> Dataset:
    rows = _rows(home / LIST)
    return FileDataset(home, [label for _, label in rows], [file for file, _ in rows], classes)


def _rows(path: Path) -> list[tuple[str, int]]:
    """Return (file, class index) of each line of a list. Raises DataError, naming the line."""
    rows: list[tuple[str, int]] = []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if not set(HEADER) <= set(reader.fieldnames or ()):
                raise DataError(f"{path}: begins with {reader.fieldnames}: expected the header {','.join(HEADER)}")
            for row in reader:
                name, index = row["file"], row["class_index"]
                if not name or not index or not INDEX.fullmatch(index):
                    raise DataError(f"{path}: line {reader.line_num}: expected a file and a class number, got {row}")
                rows.append((name, int(index)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    return rows


def _is_class(entry: os.DirEntry[str]) -> bool:
    try:
        return not _hidden(entry.name) and entry.is_dir()
    except OSError as error:  # a link to itself
        log.warning("left out %s: %s", entry.path, error.strerror)
        return False


def _is_picture(entry: os.DirEntry[str]) -> bool:
    if _hidden(entry.name) or os.path.splitext(entry.name)[1].lower() not in SUFFIXES:
        return False
    try:
        usable, reason = entry.is_file(), "no file, but a folder, a pipe or a link that leads nowhere"
    except OSError as error:  # a link to itself
        usable, reason = False, error.strerror or str(error)
    if not usable:
        log.warning("left out %s: %s", entry.path, reason)
    return usable


def _hidden(name: str) -> bool:
    return name.startswith(".")
