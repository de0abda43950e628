"""Writes the files that data/packed.py reads. A crash costs at most the block at hand, and spoils nothing.

HDF5 is no journal: a program that is killed while it appends can leave a file that nothing opens. So HDF5 comes last.

    OUT.h5.part            a plain file: zeros up to where HDF5 will place `bytes`, then block after block of images,
                           each flushed to the disk
    OUT.h5.part.journal    one line a block, written once the block is on the disk: its images, their lengths and
                           checksums; before the lines the settings; each line behind a checksum of its own

To resume is to take the journal's whole lines, to write on behind the last byte they speak of. When all images are
in, h5py writes the structure around them, in the same file: `bytes` is contiguous and its values are the ones that are
there, so nothing is copied and the disk needs no second place. All of the structure follows from the journal; a crash
amid it costs a few seconds. At last the user block is sealed with a digest of the structure, and the file renamed.
The same images and settings give the same file, byte for byte, however often the packing was killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol, runtime_checkable

import h5py
import numpy as np
from PIL import Image

from data.ahead import ahead
from data.base import Dataset, FileDataset
from data.decode import decode_image, measure_image, read_encoded
from data.errors import DataError
from data.packed import UNFINISHED, USER_BLOCK, Extent, join, part_of, seal

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["Packed", "Settings", "encoded", "pack"]

ORDER_SEED = 14094842  # the paper, arXiv 1409.4842
MOST_IMAGES = 10_000  # of a block, however small they are


@dataclass(frozen=True)
class Settings:
    """What decides over the content of a packed file; to resume takes the same."""

    split: str  # train, test or val
    shuffled: bool  # in an order drawn once, rather than the data set's own
    decode: bool  # each image decoded to see whether it can be; otherwise its header is looked at
    keep_damaged: bool  # rather than left out
    block: int = 2**24  # bytes; a block ends with the image that reaches them


class Packed(NamedTuple):
    """How far the packing is."""

    done: int  # images looked at
    total: int
    size: int  # bytes of images written
    damaged: list[tuple[str, str]]  # (name, reason) of those found since the last report


class _Entry(NamedTuple):
    """An image ready to be written; `reason` says why it is damaged, if it is."""

    place: int  # in the data set
    content: bytes
    size: tuple[int, int]
    reason: str


class _Header(NamedTuple):
    settings: dict[str, Any]
    begin: int  # where in the file the images begin
    source: str  # digest of names, labels and classes


class _Block(NamedTuple):
    """A line of the journal."""

    indices: list[int]
    lengths: list[int]
    checksums: list[int]
    sizes: list[list[int]]
    damaged: list[list[str]]  # [name, reason]
    done: int  # images looked at by the end of this block


@runtime_checkable
class Encoded(Protocol):
    """A data set that gives the bytes of its picture files."""

    def encoded(self, index: int) -> bytes:
        """Return the bytes of the picture file that image `index` is."""
        ...


def pack(
    dataset: Dataset, target: Path, settings: Settings, *, resume: bool = False, threads: int = 1, max_bad: int = 100
) -> Iterator[Packed]:
    """Write the images of `dataset` to `target`, yielding how far it is. An iterator that is left can be resumed.

    Raises DataError where the target exists, where a packing is to be begun that was begun already or resumed of other
    images or with other settings, when more than `max_bad` images are damaged, or when the disk is full.
    """
    if target.exists():
        raise DataError(f"{target}: exists already: remove it, or choose another name")
    part = part_of(target)
    journal = part.with_name(f"{part.name}.journal")
    if part.exists() and not resume:
        raise DataError(f"{part}: a packing was begun here: go on with --resume, or remove this file to begin again")
    header = _Header(asdict(settings), _begin_of_images(), _digest(dataset))
    with _writing(target), _alone(part), open(part, "r+b") as images, open(journal, "a+b") as lines:
        blocks = _begun(lines, header, journal)
        if not blocks:
            _begin(images, lines, header)
        yield from _write_blocks(dataset, settings, header.begin, blocks, images, lines, threads, max_bad)
        extent = _write_structure(images, dataset, settings, header.begin, blocks)
        sealed = seal(images, extent)
        images.seek(0)
        images.write(sealed)
        _sync(images)
    with _writing(target):
        os.replace(part, target)
        _sync_folder(target.parent)
        journal.unlink()


def encoded(dataset: Dataset, index: int) -> bytes:
    """Return the bytes of a picture: its file's if there is one, else a PNG. Raises DataError for a damaged one."""
    if isinstance(dataset, Encoded):
        return dataset.encoded(index)
    if isinstance(dataset, FileDataset):
        return read_encoded(Path(dataset.origin) / dataset.names[index])
    pixels, file = dataset.image(index), io.BytesIO()
    grey = bool((pixels == pixels[:, :, :1]).all())
    Image.fromarray(pixels[:, :, 0] if grey else pixels).save(file, "PNG")
    return file.getvalue()


def _digest(dataset: Dataset) -> str:
    digest = hashlib.sha256(dataset.labels.tobytes())
    digest.update(join(dataset.names).tobytes())
    digest.update(join(dataset.classes).tobytes())
    return digest.hexdigest()


# Blocks -------------------------------------------------------------------------------------------------------------


def _write_blocks(
    dataset: Dataset, settings: Settings, begin: int, blocks: list[_Block], images: BinaryIO, lines: BinaryIO,
    threads: int, max_bad: int,
) -> Iterator[Packed]:  # fmt: skip
    """Append what is missing to the images, to the journal and to `blocks`."""
    total, bad = len(dataset), sum(len(block.damaged) for block in blocks)
    order = np.random.default_rng(ORDER_SEED).permutation(total) if settings.shuffled else np.arange(total)
    done, size = blocks[-1].done if blocks else 0, sum(sum(block.lengths) for block in blocks)
    if images.seek(0, os.SEEK_END) < begin + size:
        raise DataError(f"{images.name}: is shorter than its journal says: remove both and begin again")
    images.seek(0)
    images.write(UNFINISHED.ljust(USER_BLOCK, b"\0"))  # it may have been sealed and not renamed
    images.seek(begin + size)
    yield Packed(done, total, size, [(name, reason) for block in blocks for name, reason in block.damaged])
    with closing(ahead(partial(_prepare, dataset, settings), order[done:].tolist(), threads, 4 * threads)) as prepared:
        entries = (entry for _, entry in prepared)
        while block := _next_block(entries, dataset, settings, images, done):
            bad += len(block.damaged)
            if bad > max_bad:
                name, reason = block.damaged[-1]
                raise DataError(f"{dataset.origin}: {bad} images are damaged, more than the {max_bad} allowed; the "
                                f"last is {name}: {reason}; go on with --resume and a larger --max-bad")
            _sync(images)
            _append(lines, block)
            blocks.append(block)
            done, size = block.done, size + sum(block.lengths)
            yield Packed(done, total, size, [(name, reason) for name, reason in block.damaged])
    if not size:
        raise DataError(f"{dataset.origin}: holds no image that can be used: there is nothing to pack")


def _next_block(
    entries: Iterator[_Entry], dataset: Dataset, settings: Settings, images: BinaryIO, done: int
) -> _Block | None:
    """Write the images of one block and return its line, None where there are no more."""
    indices, lengths, checksums, sizes, damaged = [], [], [], [], []
    for entry in entries:
        done += 1
        if entry.reason:
            damaged.append([dataset.names[entry.place], entry.reason])
        if not entry.reason or settings.keep_damaged:
            images.write(entry.content)
            indices.append(entry.place)
            lengths.append(len(entry.content))
            checksums.append(zlib.crc32(entry.content))
            sizes.append(list(entry.size))
        if sum(lengths) >= settings.block or len(indices) + len(damaged) >= MOST_IMAGES:
            break
    return _Block(indices, lengths, checksums, sizes, damaged, done) if indices or damaged else None


def _prepare(dataset: Dataset, settings: Settings, index: int) -> _Entry:
    """Read an image and look whether it can be used; runs in a background thread."""
    content = b""
    try:
        content = encoded(dataset, index)
        name = dataset.names[index]
        size = decode_image(content, name).shape[:2] if settings.decode else measure_image(content, name)
    except DataError as error:
        return _Entry(index, content, (0, 0), str(error))
    return _Entry(index, content, size, "")


# The journal --------------------------------------------------------------------------------------------------------


def _begun(lines: BinaryIO, header: _Header, journal: Path) -> list[_Block]:
    """Return the blocks of the journal, and cut off a line that was not finished."""
    lines.seek(0)
    found: list[Any] = []
    whole = 0
    for line in lines:
        text = line[9:]
        if line[:9] != _checksum(text) or not line.endswith(b"\n"):
            break
        found.append(json.loads(text))
        whole += len(line)
    lines.truncate(whole)
    if found and _Header(*found[0]) != header:
        old = _Header(*found[0])
        odd = [f"{name} {old.settings.get(name)}, now {value}" for name, value in header.settings.items()
               if value != old.settings.get(name)]
        what = "; ".join(odd) or ("other images" if old.source != header.source else "another version of h5py")
        raise DataError(f"{journal}: the packing was begun with {what}: resume it with the same, or remove it "
                        "and the .part beside it")
    return [_Block(*fields) for fields in found[1:]]


def _begin(images: BinaryIO, lines: BinaryIO, header: _Header) -> None:
    images.truncate(0)
    images.truncate(header.begin)
    _sync(images)
    lines.truncate(0)
    _append(lines, header)


def _append(lines: BinaryIO, fields: _Header | _Block) -> None:
    text = json.dumps(fields, separators=(",", ":")).encode() + b"\n"
    lines.write(_checksum(text) + text)
    _sync(lines)


def _checksum(text: bytes) -> bytes:
    return b"%08x " % zlib.crc32(text)


# The structure ------------------------------------------------------------------------------------------------------


class _Around(io.RawIOBase):
    """The file as h5py may see it when it writes the structure: empty at first; the images in it are out of reach."""

    def __init__(self, file: Any, begin: int, end: int) -> None:
        self._file, self._begin, self._end_of_images, self._end = file, begin, end, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset if whence == 0 else self._end + offset))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        return int(self._file.readinto(buffer))

    def write(self, content: Any) -> int:
        place = self.tell()
        if place < self._end_of_images and place + len(content) > self._begin:
            raise OSError(f"HDF5 writes {len(content)} bytes at {place}, into the images")
        self._end = max(self._end, place + len(content))
        return int(self._file.write(content))

    def truncate(self, size: int | None = None) -> int:
        self._end = self.tell() if size is None else size
        return self._end


def _write_structure(
    images: BinaryIO, dataset: Dataset, settings: Settings, begin: int, blocks: list[_Block]
) -> Extent:
    """Write HDF5's structure and the index around the images and return where everything is."""
    end = begin + sum(sum(block.lengths) for block in blocks)
    images.seek(USER_BLOCK)
    images.write(bytes(begin - USER_BLOCK))
    images.truncate(end)
    around = _Around(images, begin, end)
    _structure(around, begin, end, _index(dataset, blocks), settings.split)
    size = max(end, around.seek(0, os.SEEK_END))
    images.truncate(size)
    _sync(images)
    return Extent(begin, end, size)


def _index(dataset: Dataset, blocks: list[_Block]) -> dict[str, np.ndarray]:
    indices = [index for block in blocks for index in block.indices]
    lengths = [length for block in blocks for length in block.lengths]
    counts = [len(block.indices) for block in blocks if block.indices]
    return {
        "offsets": np.cumsum([0, *lengths], dtype=np.int64),
        "labels": dataset.labels[indices],
        "sizes": np.array([size for block in blocks for size in block.sizes], np.int32).reshape(-1, 2),
        "checksums": np.array([checksum for block in blocks for checksum in block.checksums], np.uint32),
        "blocks": np.cumsum([0, *counts], dtype=np.int64),
        "names": join([dataset.names[index] for index in indices]),
        "classes": join(dataset.classes),
        "left_out": join([text for block in blocks for pair in block.damaged for text in pair]),
    }


def _structure(file: Any, begin: int, end: int, index: dict[str, np.ndarray], split: str) -> None:
    with _new_hdf5(file) as hdf5:
        if _bytes(hdf5, end - begin) != begin:
            raise DataError(f"h5py {h5py.__version__} does not place the images at byte {begin}, where they are: "
                            "resume with the version that the packing was begun with")
        hdf5.attrs["split"] = split
        for name, values in index.items():
            hdf5.create_dataset(name, data=values, track_times=False)


def _new_hdf5(file: Any) -> h5py.File:
    """Return an empty HDF5 file behind a user block; all in it begins at multiples of that.

    In the oldest form, which notes no times: the same content gives the same bytes. (HDF5's own checksums are not
    missed: the digest covers all of the structure and is compared first.)
    """
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_EARLIEST, h5py.h5f.LIBVER_LATEST)
    access.set_alignment(1, USER_BLOCK)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, file)
    how = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    how.set_userblock(USER_BLOCK)
    return h5py.File(h5py.h5f.create(b"packed", h5py.h5f.ACC_TRUNC, how, access))


def _bytes(hdf5: h5py.File, size: int) -> int:
    """Make the data set of the images without writing its values, and return its place in the file."""
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    how.set_layout(h5py.h5d.CONTIGUOUS)
    how.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    how.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    how.set_obj_track_times(False)
    shape = h5py.h5s.create_simple((size,))
    return int(h5py.h5d.create(hdf5.id, b"bytes", h5py.h5t.STD_U8LE, shape, how).get_offset())


def _begin_of_images() -> int:
    """Return where h5py places `bytes`, which does not depend on what follows."""
    with _new_hdf5(io.BytesIO()) as hdf5:
        return _bytes(hdf5, 1)


# Files --------------------------------------------------------------------------------------------------------------


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror or error}): free space, or check the folder; "
                        "then go on with --resume") from error


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Make the file where it isn't there yet, and keep other processes away from it."""
    with open(part, "ab") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DataError(f"{part}: another process is packing it: wait for its end, or stop it") from error
        yield


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # Windows has no handle of a folder to sync
        return
    with contextlib.suppress(OSError):  # some network file systems refuse; the file itself is on the disk
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
