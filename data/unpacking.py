"""Files taken out of a tar by their names. No path ever comes from the archive, so nothing of it can lead elsewhere."""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from data.errors import DataError

__all__ = ["AGAIN", "unpack", "write"]

AGAIN = "remove it and fetch it again"


def unpack(archive: Path, wanted: Mapping[str, Path], largest: int) -> None:
    """Write the files `wanted` (name in the tar -> path) of at most `largest` bytes each; folders are made.

    All else in the archive is passed over; a link is no file. Raises DataError for a damaged archive, and where a file
    is missing, larger, or can't be written."""
    missing = set(wanted)
    for name, content in _files(archive, wanted, largest):
        write(wanted[name], content)
        missing.discard(name)
    if missing:
        raise DataError(f"{archive}: lacks {min(missing)} ({len(missing)} such files): {AGAIN}")


def _files(archive: Path, wanted: Mapping[str, Path], largest: int) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = str(PurePosixPath(member.name))  # without a leading ./
                if name not in wanted or not member.isfile():
                    continue
                if member.size > largest:
                    raise DataError(f"{archive}: {name} has {member.size} bytes, more than {largest}: {AGAIN}")
                file = tar.extractfile(member)
                yield name, file.read() if file is not None else b""
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise DataError(f"{archive}: can't be unpacked ({error}): {AGAIN}") from error


def write(path: Path, content: bytes) -> None:
    """Write a file to the disk itself, so that a folder which is renamed afterwards is whole even after a crash.

    Raises DataError where it can't be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DataError(f"can't write {path}: {error.strerror or error}; free space or choose another folder; what was "
                        "downloaded is kept") from error
