"""What runs in the child process of `isolated`: reads one HDF5 file after the other, each an image on stdin.

Run as a script, with nothing imported but h5py and NumPy: it starts in a fifth of a second, and a damaged file that
crashes the HDF5 library, keeps it busy for ever or takes all memory does so here and not in its reader's process.

Out: an empty record once it has started.
In:  the image's length, the bytes that its arrays may have, and the image.
Out: records, each the length of a JSON header, the header and, for an array, its values:
     {"array": path, "type": "<f4", "shape": [...]}    an array of numbers, little-endian
     {"references": path, "to": [paths]}              an array of references to other objects
     {"attributes": path, "texts": {name: [texts]}}    the texts among an object's attributes
     {"note": text}  {"error": text}  {"end": true}     the last two end a file's records
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import struct
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import h5py
import numpy as np

HEAD = struct.Struct("<QQ")
LENGTH = struct.Struct("<I")
OBJECTS, DEPTH, ATTRIBUTES = 20_000, 32, 200  # at most, in a file, below each other, of an object
LONGEST_TEXT = 2**24  # bytes of an attribute; a network's description in JSON is some 100 kB
TYPES = tuple(f"{kind}{size}" for kind, sizes in (("f", (2, 4, 8)), ("i", (1, 2, 4, 8)), ("u", (1, 2, 4, 8)))
              for size in sizes)

Record = tuple[dict[str, Any], np.ndarray | None]


class RefusedError(Exception):
    """The file is whole, but asks for what is not done."""


def main() -> None:
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    answers.write(LENGTH.pack(0))  # it has started
    answers.flush()
    while len(head := requests.read(HEAD.size)) == HEAD.size:
        size, most = HEAD.unpack(head)
        image = requests.read(size)
        with _limited(2 * size + most + 2**26, 10 + size // 2**21):
            for header, values in _answer(image, most):
                send(answers, header, values)
        answers.flush()


def send(answers: BinaryIO, header: dict[str, Any], values: np.ndarray | None = None) -> None:
    text = json.dumps(header).encode()
    answers.write(LENGTH.pack(len(text)) + text)
    if values is not None:
        answers.write(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)


def _answer(image: bytes, most: int) -> Iterator[Record]:
    """Yield the records of a file."""
    try:
        with h5py.File(h5py.h5f.open_file_image(image)) as file:
            yield from _Walk(most).group(file, "", 0)
        yield {"end": True}, None
    except RefusedError as error:
        yield {"error": f"refused: {error}"}, None
    except Exception as error:  # whatever h5py raises for a damaged file: RuntimeError, KeyError, MemoryError and more
        yield {"error": f"{type(error).__name__}: {error}"[:500]}, None


class _Walk:
    """One pass over a file's objects; `most` are the bytes that all arrays may have together."""

    def __init__(self, most: int):
        self.left, self.objects = most, 0
        self.groups: set[int] = set()  # addresses, since a group may be linked below itself

    def group(self, group: h5py.Group, path: str, depth: int) -> Iterator[Record]:
        address = h5py.h5o.get_info(group.id).addr
        if address in self.groups:
            raise RefusedError(f"{path} is a group that was there before; store it once")
        if depth > DEPTH:
            raise RefusedError(f"{path} is more than {DEPTH} groups deep")
        self.groups.add(address)
        self._count(group.id.get_num_objs(), path)
        yield from self._attributes(group, path)
        for name in group:
            below = f"{path}/{name}" if path else name
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise RefusedError(f"{below} is a link to another place, which is not followed; store the array itself")
            item = group[name]
            if isinstance(item, h5py.Group):
                yield from self.group(item, below, depth + 1)
            elif isinstance(item, h5py.Dataset):
                yield from self._attributes(item, below)
                yield from self._dataset(item, below)

    def _count(self, objects: int, path: str) -> None:
        self.objects += objects
        if self.objects > OBJECTS:
            raise RefusedError(f"it holds more than {OBJECTS:,} groups and arrays, at {path or '/'}")

    def _dataset(self, dataset: h5py.Dataset, path: str) -> Iterator[Record]:
        if dataset.is_virtual or dataset.external:
            raise RefusedError(f"{path} keeps its values in another file, which is not read; store them inside")
        shape = dataset.shape
        if shape is None:  # HDF5's null dataspace
            return
        if h5py.check_ref_dtype(dataset.dtype) is h5py.Reference:
            self._count(dataset.size, path)
            names = [h5py.h5r.get_name(reference, dataset.file.id) if reference else b""
                     for reference in np.asarray(dataset[()], object).reshape(-1)]
            yield {"references": path, "to": [(name or b"").decode() for name in names]}, None
            return
        kind = dataset.dtype.str[1:]
        if kind not in TYPES:
            yield {"note": f"{path} ({dataset.dtype}) is no array of numbers and was left out"}, None
            return
        self.left -= dataset.dtype.itemsize * int(np.prod(shape, dtype=object))
        if self.left < 0:
            raise RefusedError(f"{path} {shape} is larger than the file could hold")
        values = np.asarray(dataset[()]).astype(f"<{kind}", copy=False)
        yield {"array": path, "type": f"<{kind}", "shape": list(shape)}, values

    def _attributes(self, item: h5py.Group | h5py.Dataset, path: str) -> Iterator[Record]:
        texts = {}
        if h5py.h5a.get_num_attrs(item.id) > ATTRIBUTES:
            raise RefusedError(f"{path or '/'} has more than {ATTRIBUTES} attributes")
        for name in item.attrs:
            attribute = item.attrs.get_id(name)
            kind = attribute.get_type()
            if kind.get_size() * int(np.prod(attribute.shape or (), dtype=object)) > LONGEST_TEXT:
                raise RefusedError(f"{path or '/'} has an attribute {name} of more than {LONGEST_TEXT:,} bytes")
            if isinstance(kind, h5py.h5t.TypeStringID) and attribute.shape is not None:
                texts[name] = [_text(value) for value in np.asarray(item.attrs[name], object).reshape(-1).tolist()]
        if texts:
            yield {"attributes": path, "texts": texts}, None


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


@contextlib.contextmanager
def _limited(more: int, seconds: int) -> Iterator[None]:
    """Let the process have so many bytes and so much of the processor more than now, where the system can limit them.

    The parent ends the child long before; the limit of time is for a child whose parent was killed."""
    try:
        import resource
    except ImportError:  # Windows; the arrays' sizes are checked everywhere
        yield
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = resource.getrusage(resource.RUSAGE_SELF)
    wanted = {resource.RLIMIT_CPU: math.ceil(used.ru_utime + used.ru_stime) + seconds}
    with contextlib.suppress(OSError), open("/proc/self/statm", encoding="ascii") as file:  # Linux, which keeps to it
        wanted[resource.RLIMIT_AS] = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE") + more
    before = {kind: resource.getrlimit(kind) for kind in wanted}
    for kind, limit in wanted.items():
        with contextlib.suppress(ValueError):  # a lower limit was there already
            resource.setrlimit(kind, (limit, before[kind][1]))
    try:
        yield
    finally:
        for kind, limits in before.items():
            resource.setrlimit(kind, limits)


if __name__ == "__main__":
    main()
