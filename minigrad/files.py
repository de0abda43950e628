"""Files that a crash can't spoil: the target is always a whole old file or a whole new one.

A file is written beside its target under a temporary name, flushed to the disk and renamed.
"""
import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from minigrad.errors import InputError

Chunk = bytes | bytearray | memoryview


def write_whole(path: str | os.PathLike, chunks: Iterable[Chunk]) -> None:
    """Write the chunks one behind the other.

    Raises InputError where the file can't be written (a full disk, a missing folder); an old file stays as it was.
    """
    target = Path(path)
    temporary = target.parent / f".{target.name}.part"  # the next write takes over what a killed one left
    try:
        with open(temporary, "wb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise InputError(f"can't write {target}: {error.strerror}; free space or choose another folder; "
                         "what was there before is unchanged") from error
    finally:
        with contextlib.suppress(OSError):
            os.remove(temporary)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # Windows has no handle of a folder to sync
        return
    with contextlib.suppress(OSError):  # some network file systems refuse; the file itself is on the disk
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
