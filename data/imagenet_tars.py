"""ImageNet's original files, read without unpacking them.

    ILSVRC2012_img_train.tar         a tar of one tar a class: n01440764.tar, ...
    ILSVRC2012_img_val.tar           50,000 pictures, whose labels data/imagenet_labels.py finds beside them

The folder that holds them is the data set, or either file is. A tar is a chain of headers of 512 bytes, each followed
by a file; the chain is walked once and the place of each picture kept in an index, beside the tar or, where that can't
be written, among the user's caches. Pictures are then read by their place, from any number of threads.

Images, names and classes are those of the unpacked folders: classes are WordNet ids in sorted order, names are
`n01440764/n01440764_10026.JPEG` in sorted order.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
import zipfile
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.base import Dataset
from data.caches import cache_folder
from data.decode import SUFFIXES, decode_image
from data.errors import DataError
from data.imagenet_labels import read_truth
from data.spans import Spans

__all__ = ["TRAIN", "VAL", "TarDataset", "TarMember", "open_split", "recognises", "walk"]

log = logging.getLogger(__name__)

TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
BLOCK = 512
LONGEST_NAME = 2**16  # bytes
AGAIN = "download it again, or compare its MD5"

# What a header's type says; the others are links, folders and devices.
FILES = b"0\0" + b"7"
LONG_NAME, ATTRIBUTES = b"L", b"x"


class TarMember(NamedTuple):
    """A file in a tar: its bytes are `size` from `offset` on."""

    name: str
    offset: int
    size: int


class Places(NamedTuple):
    """Where the pictures of a tar are, sorted by name; `groups` are the tars in it, sorted."""

    names: list[str]
    offsets: NDArray[np.int64]  # (n,)
    sizes: NDArray[np.int64]  # (n,)
    groups: list[str]


class TarDataset(Dataset):
    """Pictures inside a tar, decoded when asked for."""

    def __init__(self, path: Path, places: Places, labels: list[int], classes: tuple[str, ...]) -> None:
        super().__init__(labels, places.names, classes, str(path))
        self._offsets, self._sizes = places.offsets, places.sizes
        self._spans = Spans(path)

    def image(self, index: int) -> NDArray[np.uint8]:
        return decode_image(self.encoded(index), f"{self.origin}: {self.names[index]}")

    def encoded(self, index: int) -> bytes:
        """Return the bytes of the picture file that image `index` is."""
        return self._spans.read(int(self._offsets[index]), int(self._sizes[index]))


def recognises(path: Path) -> bool:
    """Return whether `path` is a tar, or a folder that holds one of ImageNet's."""
    if path.is_file():
        return _begins_as_tar(path)
    return any((path / name).is_file() for name in (TRAIN, VAL))


def open_split(path: Path, split: str) -> Dataset:
    """Return the pictures of one split. Raises DataError for a missing, damaged or foreign tar, or without labels."""
    folder = path.parent if path.is_file() else path
    train, val = folder / TRAIN, folder / VAL
    if path.is_file() and _holds_tars(path):
        train = path
    elif path.is_file():
        val = path
    wanted = train if split == "train" else val
    if not wanted.is_file():
        raise DataError(f"{folder}: no {split} split: {wanted.name} is missing")
    return _open_train(train) if split == "train" else _open_val(val, train)


def _open_train(path: Path) -> Dataset:
    places = _places(path)
    if not places.groups:
        raise DataError(f"{path}: holds no tar for each class, as {TRAIN} does: {AGAIN}")
    classes = tuple(places.groups)
    number = {name: label for label, name in enumerate(classes)}
    labels = [number[name.partition("/")[0]] for name in places.names]
    empty = np.flatnonzero(np.bincount(labels, minlength=len(classes)) == 0) if labels else [0]
    if len(empty):
        raise DataError(f"{path}: {classes[empty[0]]}.tar holds no pictures: {AGAIN}")
    return TarDataset(path, places, labels, classes)


def _open_val(path: Path, train: Path) -> Dataset:
    truth, places = read_truth(path.parent), _places(path)
    labels = [truth.labels.get(PurePosixPath(name).stem, -1) for name in places.names]
    if -1 in labels:
        raise DataError(f"{path}: {places.names[labels.index(-1)]} has no label in {truth.origin}")
    if len(labels) != len(truth.labels):
        raise DataError(f"{path}: holds {len(labels)} pictures, {truth.origin} has {len(truth.labels)} labels: {AGAIN}")
    if train.is_file():
        theirs = _groups(train)
        if theirs != list(truth.classes):
            odd = sorted(set(theirs) ^ set(truth.classes))
            raise DataError(f"{train} has {len(theirs)} classes, {truth.origin} has {len(truth.classes)}; {odd[0]} is "
                            "in one only: both must have the same")
    return TarDataset(path, places, labels, truth.classes)


# Tars ---------------------------------------------------------------------------------------------------------------


def walk(spans: Spans, begin: int, end: int) -> Iterator[TarMember]:
    """Yield the files of the tar between two places of a file. Raises DataError where it is damaged or cut short.

    Names of any length are read, in the ways of ustar, GNU and POSIX.1-2001. Links, folders and devices are passed
    over.
    """
    place, long_name, size_told = begin, "", -1
    while place < end:
        header = spans.read(place, min(BLOCK, end - place))
        if not header.strip(b"\0"):
            return
        size = _size(header, place, spans.path)
        kind, data = header[156:157], place + BLOCK
        if kind in FILES and size_told >= 0:
            size = size_told
        if data + size > end:
            raise DataError(f"{spans.path}: is cut short: the file at byte {place} has {size} bytes, and {end - data} "
                            f"are left: {AGAIN}")
        if kind in (LONG_NAME, ATTRIBUTES):
            long_name, size_told = _extension(spans, kind, data, size, long_name, size_told)
        else:
            if kind in FILES:
                yield TarMember(long_name or _short_name(header), data, size)
            long_name, size_told = "", -1
        place = data + (size + BLOCK - 1) // BLOCK * BLOCK
    log.warning("%s: has no end mark: it may have been cut short", spans.path)


def _size(header: bytes, place: int, path: Path) -> int:
    """Return the size in a header whose checksum is right."""
    try:
        told, size = (int(field.strip(b" \0") or b"0", 8) if field[0] < 0x80
                      else int.from_bytes(field[1:], "big")  # beyond 8 GiB the first bit is set, and it is binary
                      for field in (header[148:156], header[124:136]))
    except (ValueError, IndexError):
        told = size = -1
    if len(header) < BLOCK or size < 0 or told != sum(header) - sum(header[148:156]) + 8 * ord(" "):
        raise DataError(f"{path}: no tar header at byte {place}, where one should be: {AGAIN}")
    return size


def _short_name(header: bytes) -> str:
    name, prefix = (field.partition(b"\0")[0] for field in (header[:100], header[345:500]))
    return _text(prefix + b"/" + name if prefix and header[257:262] == b"ustar" and header[262:263] == b"\0" else name)


def _extension(spans: Spans, kind: bytes, place: int, size: int, name: str, size_told: int) -> tuple[str, int]:
    """Return what a member that speaks of the next one says of its name and its size."""
    if size > LONGEST_NAME:
        raise DataError(f"{spans.path}: the name at byte {place} has {size} bytes: {AGAIN}")
    content = spans.read(place, size)
    if kind == LONG_NAME:
        return _text(content.rstrip(b"\0")), size_told
    while content:  # "length key=value\n", the length that of all of it
        length, _, rest = content.partition(b" ")
        if not length.isdigit() or not len(length) + 1 < int(length) <= len(content):
            raise DataError(f"{spans.path}: damaged attributes at byte {place}: {AGAIN}")
        key, _, value = rest[: int(length) - len(length) - 2].partition(b"=")
        if key == b"path":
            name = _text(value)
        elif key == b"size" and value.isdigit():
            size_told = int(value)
        content = content[int(length):]
    return name, size_told


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _begins_as_tar(path: Path) -> bool:
    with open(path, "rb") as file:
        header = file.read(BLOCK)
    try:
        return _size(header, 0, path) >= 0
    except DataError:
        return False


def _holds_tars(path: Path) -> bool:
    first = next(walk(Spans(path), 0, path.stat().st_size), None)
    return first is not None and first.name.endswith(".tar")


def _groups(path: Path) -> list[str]:
    members = walk(Spans(path), 0, path.stat().st_size)
    return sorted(PurePosixPath(member.name).stem for member in members if member.name.endswith(".tar"))


# The index ----------------------------------------------------------------------------------------------------------


def _places(path: Path) -> Places:
    """Return where the pictures are, from the index of this very file; where there is none, walk the tar, keep one."""
    found = path.stat()
    key = np.array([1, found.st_size, found.st_mtime_ns], np.int64)  # 1: the index's own form
    files = _index_files(path)
    for file in files:
        places = _load(file, key)
        if places is not None:
            return places
    places = _scan(path, found.st_size)
    if not any(_save(file, key, places) for file in files):
        log.warning("%s: its index can't be kept in %s: it is made again each time", path,
                    " or ".join(str(file.parent) for file in files))
    return places


def _scan(path: Path, end: int) -> Places:
    log.info("indexing %s, once", path)
    spans, told = Spans(path), time.monotonic()
    found: list[TarMember] = []
    groups: list[str] = []
    for member in walk(spans, 0, end):
        if member.name.endswith(".tar"):
            group = PurePosixPath(member.name).stem
            groups.append(group)
            pictures = walk(spans, member.offset, member.offset + member.size)
            found += [each._replace(name=f"{group}/{PurePosixPath(each.name).name}") for each in pictures
                      if _is_picture(each.name)]
        elif _is_picture(member.name):
            found.append(member._replace(name=PurePosixPath(member.name).name))
        if time.monotonic() - told > 10:
            told = time.monotonic()
            log.info("indexing %s: %.0f %%, %d pictures", path, 100 * member.offset / end, len(found))
    found.sort()
    names = [member.name for member in found]
    twice = next((name for name, following in pairwise(names) if name == following), None)
    if twice is not None or len(set(groups)) < len(groups):
        raise DataError(f"{path}: holds {twice or 'a class'} twice: {AGAIN}")
    offsets, sizes = (np.array([member[i] for member in found], np.int64) for i in (1, 2))
    return Places(names, offsets, sizes, sorted(groups))


def _is_picture(name: str) -> bool:
    last = PurePosixPath(name).name
    return not last.startswith(".") and os.path.splitext(last)[1].lower() in SUFFIXES


def _index_files(path: Path) -> list[Path]:
    """Return where an index may be kept, the better place first; a user without a home has no other place."""
    places = [path.with_name(f"{path.name}.index.npz")]
    with contextlib.suppress(DataError):
        own = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:12]
        places.append(cache_folder() / f"{path.name}.{own}.npz")
    return places


def _load(file: Path, key: NDArray[np.int64]) -> Places | None:
    """Return what an index says, None where there is none of this tar or it is damaged."""
    try:
        with open(file, "rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            if not np.array_equal(arrays["key"], key):
                return None
            names, groups = (_text(arrays[name].tobytes()).split("\0")[:-1] for name in ("names", "groups"))
            places = Places(names, arrays["offsets"], arrays["sizes"], groups)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error):
        return None
    whole = len(names) == len(places.offsets) == len(places.sizes)
    return places if whole else None


def _save(file: Path, key: NDArray[np.int64], places: Places) -> bool:
    """Write an index beside its place and rename it, so that another process finds a whole one or none."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as opened:
            np.savez(opened, key=key, names=_joined(places.names), offsets=places.offsets, sizes=places.sizes,
                     groups=_joined(places.groups))
        os.replace(temporary, file)
    except OSError:
        return False
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return True


def _joined(texts: list[str]) -> NDArray[np.uint8]:
    content = b"".join(text.encode("utf-8", "surrogateescape") + b"\0" for text in texts)
    return np.frombuffer(content, np.uint8)
