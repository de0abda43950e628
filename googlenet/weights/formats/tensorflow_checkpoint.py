"""TensorFlow's checkpoints, V1 and V2, read without TensorFlow.

V1 is one sorted string table (see sstable.py): the key "" holds a list of all tensors, every other key a slice of one
with its values, as protocol buffers. V2 is such a table, PREFIX.index, of the tensors' types, shapes and places beside
PREFIX.data-00000-of-00001, their bare bytes. Every block of a table and every tensor of V2 has a CRC-32C, and all are
compared. The published TF-slim network is a V1 file in a .tar.gz, which is read as it is.

Sources: saved_tensor_slice.proto, tensor_bundle.proto and tensor_slice.proto of TensorFlow.
"""

from __future__ import annotations

import gzip
import io
import math
import re
import tarfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from googlenet.weights.contents import Contents
from googlenet.weights.files import read_whole
from googlenet.weights.formats import sstable
from googlenet.weights.formats.crc32c import masked
from googlenet.weights.formats.elements import BFLOAT16, told_widened
from googlenet.weights.formats.protobuf import Field, Schema, last, parse
from googlenet.weights.formats.tensorflow_tensor import DTYPES, SHAPE, STRING, TENSOR, Tensors
from googlenet.weights.formats.wording import DAMAGED, shown
from minigrad.errors import InputError

GZIP = b"\x1f\x8b"
UNPACKED = 2**28  # bytes of an archive: GoogLeNet with its heads and an optimiser's state is 160 MB
BLOCK, CHECKSUM = 512, slice(148, 156)  # of a tar archive: bytes of a header, and where its checksum stands
INDEX = ".index"
SHARD = re.compile(r"(.+)\.data-\d{5}-of-\d{5}", re.DOTALL)
BIG_ENDIAN = 1
SLICE_KEY, SLICE_NAME_END = b"\0", b"\0\1"  # V2: how the key of a tensor's slice begins, and what ends its name

EXTENT: Schema = {1: Field("start", "int"), 2: Field("length", "int")}  # without a length: the whole axis
SLICE: Schema = {1: Field("extent", "message", EXTENT)}
META: Schema = {1: Field("tensor", "message", {
    1: Field("name", "string"), 2: Field("shape", "message", SHAPE), 3: Field("type", "int"),
    4: Field("slice", "message", SLICE)})}
SAVED_SLICE: Schema = {1: Field("name", "string"), 2: Field("slice", "message", SLICE),
                       3: Field("data", "message", TENSOR)}
SAVED_SLICES: Schema = {1: Field("meta", "message", META), 2: Field("data", "message", SAVED_SLICE)}
HEADER: Schema = {1: Field("num_shards", "int"), 2: Field("endianness", "int")}
ENTRY: Schema = {
    1: Field("dtype", "int"), 2: Field("shape", "message", SHAPE), 3: Field("shard_id", "int"),
    4: Field("offset", "int"), 5: Field("size", "int"), 6: Field("crc32c", "fixed32"),
    7: Field("slices", "message", SLICE),
}

OpenShard = Callable[[str], memoryview]  # ".data-00000-of-00001" -> its bytes
Box = tuple[tuple[int, int], ...]  # where a slice starts and stops along each axis


def recognise(start: bytes, path: Path) -> bool:
    """Return whether `path` is a V1 file, V2's index, its prefix (no file itself), one of its shards, or an archive."""
    return _is_archive(start) or _index_of(path) is not None


def read(path: Path) -> Contents:
    """Return the arrays under the names in the file, with all that training left there.

    `path` is a V1 file, PREFIX.index, PREFIX or one of its shards, or a .tar.gz with one checkpoint inside. Raises
    InputError for a file that is missing or malformed, and for a checksum that is wrong."""
    table = _index_of(path)
    if table is not None:
        return _read_table(read_whole(table), str(table),
                           lambda suffix: read_whole(table.with_name(_stem(table.name) + suffix)))
    content = read_whole(path)
    if not _is_archive(bytes(content[:4096])):
        raise InputError(f"{path} is no checkpoint of TensorFlow: give a V1 file, or the .index of a V2 checkpoint")
    return _read_archive(content, str(path))


def _index_of(path: Path) -> Path | None:
    """Return the table that a path stands for: a V1 file, or V2's index."""
    shard = SHARD.fullmatch(path.name)
    beside = path.with_name((shard[1] if shard else path.name) + INDEX) if path.name else path
    return next((candidate for candidate in (path, beside) if _ends_as_table(candidate)), None)


def _ends_as_table(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            file.seek(-sstable.FOOTER, io.SEEK_END)
            return sstable.is_table(file.read())
    except (OSError, ValueError):  # missing, a folder, too short; ValueError: no path at all
        return False


def _stem(name: str) -> str:
    if not name.endswith(INDEX):
        raise InputError(f"{shown(name)} is the index of a V2 checkpoint: give it its name back, PREFIX{INDEX}, "
                         "beside PREFIX.data-00000-of-00001")
    return name.removesuffix(INDEX)


# Archives.

def _is_archive(start: bytes) -> bool:
    """Return whether a file begins as a .tar.gz: a tar archive's first block says how many files it is made of."""
    if not start.startswith(GZIP):
        return False
    try:
        header = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(start, BLOCK)
        stored = int(header[CHECKSUM].strip(b" \0"), 8)
    except (zlib.error, ValueError):
        return False
    return len(header) == BLOCK and stored == sum(header) - sum(header[CHECKSUM]) + 8 * ord(" ")


def _read_archive(content: memoryview, where: str) -> Contents:
    files = _unpacked(content, where)
    tables = [name for name, file in files.items() if sstable.is_table(file)]
    if len(tables) != 1:
        found = ", ".join(map(shown, sorted(tables or files)[:8])) or "no file"
        raise InputError(f"{where} has {len(tables)} checkpoints of TensorFlow inside, expected one (it has {found}): "
                         "unpack it and give the file itself")

    def shard(suffix: str) -> memoryview:
        name = _stem(tables[0]) + suffix
        if name not in files:
            raise InputError(f"{where} has no {shown(name)}, where the values are: {DAMAGED}")
        return files[name]

    return _read_table(files[tables[0]], f"{where}: {shown(tables[0])}", shard)


def _unpacked(content: memoryview, where: str) -> dict[str, memoryview]:
    """Return the regular files of a .tar.gz, in memory."""
    try:
        with gzip.open(io.BytesIO(content)) as file:
            unpacked = file.read(UNPACKED + 1)
        if len(unpacked) > UNPACKED:
            raise InputError(f"{where} unpacks to more than {UNPACKED >> 20} MiB: "
                             "unpack it and give the checkpoint itself")
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:", errors="replace") as archive:
            spans = {member.name: (member.offset_data, member.size) for member in archive.getmembers()
                     if member.isreg() and not member.issparse()}
    except (OSError, EOFError, zlib.error, tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where} is a damaged archive ({shown(str(error))}): {DAMAGED}") from error
    view = memoryview(unpacked)
    return {name: view[start:start + size] for name, (start, size) in spans.items()}


# Both versions.

def _read_table(content: memoryview, where: str, open_shard: OpenShard) -> Contents:
    table = sstable.read(content, where)
    if b"" not in table:
        raise InputError(f"{where} is a table without a header, so no checkpoint of TensorFlow: "
                         "give a .ckpt or .index file")
    # What the first field of either header is: of V1 a message, of V2 a number.
    version, read = ("V1", _read_v1) if bytes(table[b""][:1]) == b"\x0a" else ("V2", _read_v2)
    reader = _Reader(where)
    arrays = read(reader, table, open_shard)
    return Contents(f"TensorFlow checkpoint ({version})", arrays, (*reader.notes, *told_widened(reader.widened)))


class _Reader:
    """What both versions share: notes, slices of tensors, errors that begin with `where`."""

    def __init__(self, where: str):
        self.where = where
        self.tensors = Tensors(where)
        self.notes: list[str] = []
        self.widened: list[str] = []

    def wanted(self, number: int, name: str) -> bool:
        """Return whether a type can be an array, and note what can't, and what is widened."""
        if number == STRING:
            self.notes.append(f"{shown(name)} is text, which no weight is: left out")
        if DTYPES.get(number) == BFLOAT16:
            self.widened.append(name)
        return number != STRING

    def box(self, message: dict[str, Any], shape: tuple[int, ...], name: str) -> Box:
        """Return where a slice lies in a tensor."""
        extents = message["extent"]
        if len(extents) != len(shape):
            self.fail(f"{shown(name)} of shape {shape} has a slice of {len(extents)} axes")
        box = []
        for extent, size in zip(extents, shape, strict=True):
            start, stop = 0, size
            if extent["length"]:
                start = last(extent["start"], 0)
                stop = start + extent["length"][-1]
            if not 0 <= start <= stop <= size:
                self.fail(f"{shown(name)} of shape {shape} has a slice from {start} to {stop}")
            box.append((start, stop))
        return tuple(box)

    def assembled(self, name: str, shape: tuple[int, ...], slices: Mapping[Box, np.ndarray]) -> np.ndarray:
        """Return a tensor of its slices, which must cover it, each value once."""
        whole = tuple((0, size) for size in shape)
        if list(slices) == [whole]:
            return slices[whole]
        size = sum(part.size for part in slices.values())
        if not slices or size != math.prod(shape):
            self.fail(f"{shown(name)} of shape {shape} has {size} values in {len(slices)} slices")
        array = np.empty(shape, next(iter(slices.values())).dtype)
        covered = np.zeros(shape, bool)
        for box, part in slices.items():
            place = tuple(slice(*bounds) for bounds in box)
            array[place] = part
            covered[place] = True
        if not covered.all():
            self.fail(f"{shown(name)} of shape {shape} has slices that overlap")
        return array

    def name(self, key: bytes) -> str:
        """Return the tensor's name in a key of V2: the key itself, or the part of it for a slice."""
        if key.startswith(SLICE_KEY):
            key = key[len(SLICE_KEY):].partition(SLICE_NAME_END)[0]
        try:
            return key.decode()
        except UnicodeDecodeError:
            self.fail(f"the name {shown(repr(key))} is no text")

    def fail(self, what: str) -> NoReturn:
        raise InputError(f"{self.where} is damaged: {what}; {DAMAGED}")


def _sizes(box: Box) -> tuple[int, ...]:
    return tuple(stop - start for start, stop in box)


# V1.

def _read_v1(reader: _Reader, table: Mapping[bytes, memoryview], _open_shard: OpenShard) -> dict[str, np.ndarray]:
    meta = parse(table[b""], SAVED_SLICES, reader.where)["meta"][-1]
    tensors: dict[str, tuple[int, tuple[int, ...]]] = {}
    for tensor in meta["tensor"]:
        name = last(tensor["name"], "")
        if name in tensors:
            reader.fail(f"it lists {shown(name)} twice")
        number = last(tensor["type"], 0)
        if reader.wanted(number, name):
            tensors[name] = number, reader.tensors.shape_of(tensor["shape"], name)
    found: dict[str, dict[Box, np.ndarray]] = {name: {} for name in tensors}
    listed = {last(tensor["name"], "") for tensor in meta["tensor"]}
    for key, value in table.items():
        for saved in parse(value, SAVED_SLICES, reader.where)["data"] if key else ():
            name = last(saved["name"], "")
            if name in tensors:
                _add_slice(reader, found[name], saved, name, *tensors[name])
            elif name not in listed:
                reader.fail(f"it does not list {shown(name)}, of which it has a slice")
    return {name: reader.assembled(name, shape, found[name]) for name, (_number, shape) in tensors.items()}


def _add_slice(reader: _Reader, slices: dict[Box, np.ndarray], saved: dict[str, Any], name: str, number: int,
               shape: tuple[int, ...]) -> None:
    box = reader.box(last(saved["slice"], {"extent": []}), shape, name)
    if box in slices or not saved["data"]:
        reader.fail(f"{shown(name)} has a slice twice, or one without values")
    slices[box] = reader.tensors.from_proto(saved["data"][-1], number, _sizes(box), name)


# V2.

def _read_v2(reader: _Reader, table: Mapping[bytes, memoryview], open_shard: OpenShard) -> dict[str, np.ndarray]:
    header = parse(table[b""], HEADER, reader.where)
    entries = {key: parse(value, ENTRY, reader.where) for key, value in table.items() if key}
    wanted = {key: entry for key, entry in entries.items() if reader.wanted(last(entry["dtype"], 0), reader.name(key))}
    bundle = _Bundle(reader, header, open_shard)
    bundle.require_apart([entry for entry in wanted.values() if not entry["slices"]])
    slices: dict[str, list[dict[str, Any]]] = {}
    for key, entry in wanted.items():
        if key.startswith(SLICE_KEY):
            slices.setdefault(reader.name(key), []).append(entry)
    arrays = {}
    for key, entry in wanted.items():
        name = reader.name(key)
        if key.startswith(SLICE_KEY):
            continue
        arrays[name] = (bundle.sliced(name, entry, slices.pop(name, [])) if entry["slices"]
                        else bundle.array(name, entry))
    if slices:
        reader.fail(f"it does not list {shown(next(iter(slices)))}, of which it has a slice")
    return arrays


class _Bundle:
    """The shards of a V2 checkpoint, each read once it is needed."""

    def __init__(self, reader: _Reader, header: dict[str, Any], open_shard: OpenShard):
        self.reader = reader
        self.count = last(header["num_shards"], 0)
        self.big_endian = last(header["endianness"], 0) == BIG_ENDIAN
        self.open_shard = open_shard
        self.shards: dict[int, memoryview] = {}

    def require_apart(self, entries: list[dict[str, Any]]) -> None:
        """Raise InputError where tensors share bytes: a small file could fill the memory, and each is checked."""
        ends: dict[int, int] = {}
        for shard, start, size in sorted(map(self.span, entries)):
            if start < ends.get(shard, 0):
                self.reader.fail(f"two tensors have the bytes at {start} of shard {shard}")
            ends[shard] = start + size

    def span(self, entry: dict[str, Any]) -> tuple[int, int, int]:
        """Return the shard, the first byte and the number of bytes of a tensor."""
        shard, start, size = (last(entry[field], 0) for field in ("shard_id", "offset", "size"))
        if not 0 <= shard < self.count or start < 0 or size < 0:
            self.reader.fail(f"a tensor has {size} bytes at {start} of shard {shard} of {self.count}")
        return shard, start, size

    def array(self, name: str, entry: dict[str, Any], shape: tuple[int, ...] | None = None) -> np.ndarray:
        """Return a tensor, once its checksum is found right."""
        tensors = self.reader.tensors
        shape = tensors.shape_of(entry["shape"], name) if shape is None else shape
        shard, start, size = self.span(entry)
        if shard not in self.shards:
            self.shards[shard] = self.open_shard(f".data-{shard:05d}-of-{self.count:05d}")
        content = self.shards[shard][start:start + size]
        if len(content) < size:
            self.reader.fail(f"{shown(name)} has {size} bytes at {start} of shard {shard}, "
                             f"which has {len(self.shards[shard])}")
        if masked(content) != last(entry["crc32c"], 0):
            self.reader.fail(f"{shown(name)} does not have its checksum")
        return tensors.from_bytes(content, last(entry["dtype"], 0), shape, name, self.big_endian)

    def sliced(self, name: str, entry: dict[str, Any], parts: list[dict[str, Any]]) -> np.ndarray:
        """Return a tensor that is stored in slices; `parts` are their entries in the order of their keys.

        Keys sort as the slices' starts and lengths do, -1 for a whole axis, so none of these codes need be read."""
        reader = self.reader
        shape = reader.tensors.shape_of(entry["shape"], name)
        listed = sorted(entry["slices"], key=_starts_and_lengths)
        if len(listed) != len(parts):
            reader.fail(f"{shown(name)} is said to be in {len(listed)} slices and has {len(parts)}")
        found = {}
        for message, part in zip(listed, parts, strict=True):
            box = reader.box(message, shape, name)
            if last(part["dtype"], 0) != last(entry["dtype"], 0) or \
                    reader.tensors.shape_of(part["shape"], name) != _sizes(box):
                reader.fail(f"{shown(name)} has a slice of another shape or type than it lists")
            found[box] = self.array(name, part)
        return reader.assembled(name, shape, found)


def _starts_and_lengths(message: dict[str, Any]) -> list[tuple[int, int]]:
    return [(last(extent["start"], 0), last(extent["length"], -1)) for extent in message["extent"]]
