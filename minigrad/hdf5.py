"""Arrays and attributes in an HDF5 file that a crash can't spoil and that notices when it was changed.

The file begins with a user block of 512 bytes that names the SHA-256 of all bytes behind it; the digest is compared
before HDF5 sees the file. Arrays are chunked and carry fletcher32 checksums. A file is composed in memory, written
beside its target under a temporary name, flushed to the disk and renamed, so that the target is always a whole old file
or a whole new one. (HDF5 itself crashes when the disk is full; Python's write reports it.) Any HDF5 program reads the
file.
"""
import hashlib
import io
import os

import h5py
import numpy as np

from minigrad.errors import InputError
from minigrad.files import write_whole

USER_BLOCK = 512  # bytes; the smallest HDF5 allows
MAGIC = b"minigrad sha256 "
CHUNK = 2**18  # values of a chunk: 1 MiB of float32

Attribute = str | int | float | bool


def save(path: str | os.PathLike, arrays: dict[str, np.ndarray], attributes: dict[str, Attribute]) -> None:
    """Write {path in the file: array} and the file's attributes.

    Raises InputError where the file can't be written (a full disk, a missing folder); an old file stays as it was.
    """
    image = _image(arrays, attributes)
    head = MAGIC + hashlib.sha256(image).hexdigest().encode() + b"\n"
    write_whole(path, [head.ljust(USER_BLOCK, b"\0"), image])


def _image(arrays: dict[str, np.ndarray], attributes: dict[str, Attribute]) -> memoryview:
    """Return the bytes of an HDF5 file behind its user block."""
    memory = io.BytesIO()
    with h5py.File(memory, "w", libver="latest", userblock_size=USER_BLOCK) as file:
        file.attrs.update(attributes)
        for name, array in arrays.items():
            if array.ndim == 0 or array.size == 0:
                file.create_dataset(name, data=array)
            else:
                file.create_dataset(name, data=array, chunks=_chunks(array.shape), fletcher32=True)
    return memory.getbuffer()[USER_BLOCK:]


def _chunks(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Cut the first axes until a chunk holds at most CHUNK values."""
    chunks = list(shape)
    for axis in range(len(chunks)):
        rest = int(np.prod(chunks[axis + 1:]))
        chunks[axis] = max(1, min(chunks[axis], CHUNK // max(rest, 1)))
        if rest <= CHUNK:
            break
    return tuple(chunks)


def _digest(path: str | os.PathLike) -> bytes:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        file.seek(USER_BLOCK)
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest().encode()


def is_ours(path: str | os.PathLike) -> bool:
    """Return whether a file begins as `save` begins one; a file that is missing or can't be read does not."""
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def load(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Attribute]]:
    """Read back ({path in the file: array}, attributes).

    Raises InputError where the file is missing, is not one of ours, was cut or changed, or links to another file.
    """
    _verify(path)
    arrays: dict[str, np.ndarray] = {}
    try:
        with h5py.File(path, "r") as file:
            _read(file, arrays, path)
            return arrays, {name: _plain(value) for name, value in file.attrs.items()}
    except (OSError, RuntimeError, KeyError) as error:
        raise InputError(f"can't read {path}: {error}; use another copy of the file") from error


def _verify(path: str | os.PathLike) -> None:
    try:
        with open(path, "rb") as file:
            head = file.read(USER_BLOCK)
    except OSError as error:
        raise InputError(f"can't read {path}: {error.strerror}; check the path") from error
    if not head.startswith(MAGIC):
        raise InputError(f"{path} was not written by this program: it does not begin with its digest; "
                         "give a file such as best.h5 that train.py wrote")
    stored, found = head[len(MAGIC):len(MAGIC) + 64], _digest(path)
    if stored != found:
        raise InputError(f"{path} is damaged: its SHA-256 begins with {found[:12]!r}, it was written as "
                         f"{stored[:12]!r}; use another copy of the file")


def _read(group: h5py.Group, arrays: dict[str, np.ndarray], path: str | os.PathLike) -> None:
    for name in group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise InputError(f"{path}: {group.name.rstrip('/')}/{name} is a link to another place, "
                             "which is not followed; store the array itself")
        item = group[name]
        if isinstance(item, h5py.Group):
            _read(item, arrays, path)
        else:
            if item.external or item.is_virtual:
                raise InputError(f"{path}: {item.name} keeps its values in another file, which is not read; "
                                 "store them inside")
            arrays[item.name.lstrip("/")] = item[()]


def _plain(value: object) -> Attribute:
    return value.item() if isinstance(value, np.generic) else value  # type: ignore[return-value]
