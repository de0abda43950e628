"""torch.save's files, `.pth` and `.pt`: a pickle that describes tensors, and the bytes of the storages they lie in.

The legacy format (to torch 1.5, among them torchvision's published file) is a row of pickles: a magic number, the
protocol's version, the machine's byte order, the object, the storages' keys; then each storage, its number of values as
int64 and the values. The zip format (since) has the object in `data.pkl`, each storage in `data/KEY`, and checksums.

In both the object names its storages by persistent ids, ("storage", type, key, device, number of values), and makes a
tensor by calling `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, ...)`. Here that call makes a
description; arrays are made afterwards, of what a state dict holds.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from googlenet.weights.contents import Contents
from googlenet.weights.files import read_whole
from googlenet.weights.formats import zipped
from googlenet.weights.formats.elements import BFLOAT16, LARGEST, Order, decode, item_size, shape_of, told_widened
from googlenet.weights.formats.unpickling import Global, load
from googlenet.weights.formats.wording import DAMAGED, shown
from minigrad.errors import InputError

BEYOND = 2**26  # bytes that an archive which was compressed afterwards may unpack to, beside its own
MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # how a pickle ends that holds 0x1950a86a20f9469cfc6c
PROTOCOL = 1001
ARCHIVE = "its zip archive"  # in messages
TAR_MEMBERS = (b"pickle", b"storages", b"tensors", b"sys_info")  # of torch's first format
NESTED = ("state_dict", "model", "model_state_dict")  # where checkpoints keep a state dict
MOST_COPIED = 2**28  # bytes of tensors that are not one run of their storage, such as transposed ones

STORAGES = {"DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
            "BFloat16Storage": BFLOAT16, "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16",
            "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool"}


@dataclass(frozen=True)
class Storage:
    """A row of values in the file."""

    key: str
    dtype: str
    count: int

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self.count * item_size(self.dtype)


@dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides count values."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def is_run(self) -> bool:
        """Whether its values lie one behind the other, in order."""
        expected = 1
        for n, stride in zip(self.shape[::-1], self.strides[::-1], strict=True):
            if n != 1 and stride != expected:
                return False
            expected *= n
        return True


def recognise(start: bytes, path: Path) -> bool:
    """Return whether a file is one of torch.save's: by its magic number, or as a zip archive with a data.pkl."""
    if MAGIC in start[:32] or _is_tar(start) or _is_pickle(zipped.first_name(start)):
        return True
    try:
        return start.startswith(zipped.MEMBER_MARK) and any(map(_is_pickle, _members(read_whole(path))))
    except InputError:
        return False


def read(path: Path) -> Contents:
    """Return the tensors of a state dict, or of a checkpoint that holds one.

    Raises InputError for a damaged file, and for one that holds anything that only running code could rebuild."""
    content = read_whole(path)
    try:
        if _is_tar(bytes(content[:512])):
            raise InputError("it is in torch's first format, a tar archive of 2016: load it with torch and save its "
                             "state_dict() again")
        is_zip = bytes(content[:4]) == zipped.MEMBER_MARK
        if not is_zip and MAGIC not in bytes(content[:32]):
            raise InputError("it is no file of torch.save's: it begins neither with the magic number nor as a zip")
        saved, storages, order = _read_zip(content) if is_zip else _read_legacy(content)
        tensors, notes = _state_dict(saved)
        notes += told_widened([name for name, tensor in tensors.items() if tensor.storage.dtype == BFLOAT16])
        arrays = dict(_arrays(tensors, storages, order))
        return Contents(f"torch pickle ({'zip' if is_zip else 'legacy'})", arrays, tuple(notes))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


Saved = tuple[object, Mapping[str, memoryview], Order]  # the object, the bytes of its storages by key


def _read_zip(content: memoryview) -> Saved:
    members = _members(content)
    pickles = [name for name in members if _is_pickle(name)]
    if len(pickles) != 1:
        raise InputError(f"it is a zip archive with {len(pickles)} members named data.pkl, expected one as torch.save "
                         "writes it")
    folder = pickles[0].removesuffix("data.pkl")
    tensors = _Tensors()
    saved, _ = load(zipped.unpack(members[pickles[0]], ARCHIVE), 0, tensors.known, tensors.storage)
    order = b"little"  # of torch before 2.1, which doesn't say
    if f"{folder}byteorder" in members:
        order = bytes(zipped.unpack(members[f"{folder}byteorder"], ARCHIVE))
    if order not in (b"little", b"big"):
        raise InputError(f"its byte order is {shown(str(order))}, expected little or big: {DAMAGED}")
    found = {}
    for storage in tensors.storages.values():
        name = f"{folder}data/{storage.key}"
        if name not in members or members[name].size != storage.size:
            size = f"{members[name].size} bytes" if name in members else "not there"
            raise InputError(f"its member {shown(name)} is {size}, expected {storage.size} bytes: {DAMAGED}")
        found[storage.key] = zipped.unpack(members[name], ARCHIVE)
    return saved, found, "<" if order == b"little" else ">"


def _members(content: memoryview) -> dict[str, zipped.Member]:
    return {member.name: member for member in zipped.members(content, ARCHIVE, BEYOND)}


def _read_legacy(content: memoryview) -> Saved:
    """The values are little endian on every machine; the byte order that the file names is the machine's."""
    tensors = _Tensors()
    position, parts = 0, []
    for _ in range(5):
        part, position = load(content, position, tensors.known, tensors.storage)
        parts.append(part)
    _, protocol, _, saved, keys = parts
    if protocol != PROTOCOL:
        raise InputError(f"it is of a version of torch's format that isn't known, expected {PROTOCOL}: save it again")
    found: dict[str, memoryview] = {}
    for key in keys if isinstance(keys, list) else [keys]:
        if not isinstance(key, str) or key not in tensors.storages or key in found:
            raise InputError(f"its list of storages has {shown(key)} twice or without a tensor: {DAMAGED}")
        storage = tensors.storages[key]
        count = struct.unpack("<q", content[position:position + 8])[0] if position + 8 <= len(content) else -1
        begin, position = position + 8, position + 8 + storage.size
        if count != storage.count or position > len(content):
            raise InputError(f"its storage {shown(key)} has {count} values in {max(len(content) - begin, 0)} bytes, "
                             f"expected {storage.count} in {storage.size} bytes: {DAMAGED}")
        found[key] = content[begin:position]
    if position != len(content) or len(found) != len(tensors.storages):
        raise InputError(f"it has {len(content) - position} bytes more than its storages and "
                         f"{len(tensors.storages) - len(found)} storages without values, expected none: {DAMAGED}")
    return saved, found, "<"


class _Tensors:
    """What a pickle of torch's may name and call, and the storages that it did name."""

    def __init__(self) -> None:
        self.storages: dict[str, Storage] = {}
        self.known: dict[str, object] = {
            **{f"torch.{name}": dtype for name, dtype in STORAGES.items()},
            "torch._utils._rebuild_tensor": self.tensor,  # of torch before 0.4
            "torch._utils._rebuild_tensor_v2": self.tensor,
            "torch._utils._rebuild_parameter": self.parameter,
        }

    def storage(self, id_: object) -> Storage:
        """("storage", type, key, device, number of values), in the legacy format with what it is a view of."""
        fields = id_ if isinstance(id_, tuple) else ()
        if len(fields) not in (5, 6) or fields[0] != "storage" or not isinstance(fields[1], Global):
            raise InputError(f"its pickle refers to something else than a storage: {DAMAGED}")
        type_, key, count = fields[1], fields[2], fields[4]
        if fields[5:] not in ((), (None,)):
            raise InputError("it has storages that are views of others, as torch 0.1 wrote: load it with torch and "
                             "save its state_dict() again")
        if not isinstance(type_.value, str) or not isinstance(key, str) or not _is_count(count):
            raise InputError(f"its pickle refers to a storage {shown(key)} of {shown(type_.name)} whose size is no "
                             f"number of values: {DAMAGED}")
        storage = Storage(key, type_.value, count)
        if self.storages.setdefault(key, storage) != storage:
            raise InputError(f"its storage {shown(key)} is told to be {count} values of {storage.dtype} and something "
                             f"else: {DAMAGED}")
        return storage

    def tensor(self, arguments: tuple) -> Tensor:
        """(storage, offset, size, stride, and in later versions what only training needs)"""
        storage, offset, size, strides = arguments[:4] if len(arguments) >= 4 else (None,) * 4
        shape = shape_of(size)
        if (not isinstance(storage, Storage) or not _is_count(offset) or shape is None or not isinstance(strides, tuple)
                or len(shape) != len(strides) or not all(map(_is_count, strides))):
            raise InputError("its pickle makes a tensor of something else than a storage, an offset, a size and as "
                             f"many strides: {DAMAGED}")
        last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        if last >= storage.count and 0 not in shape:
            raise InputError(f"its pickle makes a tensor {shape} up to value {last} of a storage of {storage.count}: "
                             f"{DAMAGED}")
        return Tensor(storage, offset, shape, strides)

    def parameter(self, arguments: tuple) -> Tensor:
        """(tensor, whether it is trained, hooks)"""
        if not arguments or not isinstance(arguments[0], Tensor):
            raise InputError(f"its pickle makes a parameter of something else than a tensor: {DAMAGED}")
        return arguments[0]


def _state_dict(saved: object) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors by name, and what was left: a state dict is the object itself, or nested in a checkpoint."""
    if not isinstance(saved, dict):
        raise InputError(f"it holds {type(saved).__name__.lower()}, expected a dict of tensors: save the network's "
                         "state_dict()")
    nested = next((name for name in NESTED if _tensors(saved.get(name))), None)
    notes = []
    held: dict[object, object] = saved
    if nested is not None:
        rest = [name for name in saved if name != nested]
        notes.append(f"the state dict is its {nested}" + (f"; besides it holds {_listed(rest)}" if rest else ""))
        held = saved[nested]
    tensors = _tensors(held)
    if not tensors:
        raise InputError(f"it holds no tensors by name, only {_listed(list(held)) or 'an empty dict'}: save the "
                         "network's state_dict()")
    others = [name for name in held if name not in tensors]
    if others:
        notes.append(f"not tensors, and left out: {_listed(others)}")
    return tensors, notes


def _tensors(value: object) -> dict[str, Tensor]:
    items = value.items() if isinstance(value, dict) else ()
    return {name: tensor for name, tensor in items if isinstance(name, str) and isinstance(tensor, Tensor)}


def _listed(names: list[object]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(shown(str(name)) for name in names[:8]) + more


def _arrays(tensors: Mapping[str, Tensor], storages: Mapping[str, memoryview],
            order: Order) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays: views of their storage where they are a run of it, else copies, which are counted."""
    decoded: dict[str, np.ndarray] = {}
    copied = 0
    for name, tensor in tensors.items():
        key = tensor.storage.key
        if key not in decoded:
            decoded[key] = decode(storages[key], tensor.storage.dtype, order)
        values = decoded[key][tensor.offset:]
        if tensor.is_run or 0 in tensor.shape:
            yield name, values[:math.prod(tensor.shape)].reshape(tensor.shape)
            continue
        copied += math.prod(tensor.shape) * values.itemsize
        if copied > MOST_COPIED:
            raise InputError(f"its tensors up to {shown(name)} {tensor.shape} repeat or reorder more than "
                             f"{MOST_COPIED} bytes of their storages: save them after .contiguous()")
        strides = [stride * values.itemsize for stride in tensor.strides]
        yield name, np.lib.stride_tricks.as_strided(values, tensor.shape, strides, writeable=False).copy()


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= LARGEST


def _is_pickle(member: str) -> bool:
    return member.count("/") == 1 and member.endswith("/data.pkl")


def _is_tar(start: bytes) -> bool:
    return start[257:262] == b"ustar" and start[:100].rstrip(b"\0") in TAR_MEMBERS
