"""Whole files in and out: what every format reads from and writes to."""

from __future__ import annotations

import hashlib
from os import PathLike
from pathlib import Path

from minigrad.errors import InputError
from minigrad.files import write_whole

__all__ = ["read_whole", "sha256", "write_whole"]


def read_whole(path: str | PathLike[str]) -> memoryview:
    """Return a file's bytes, read-only.

    Raises InputError for a file that is missing or can't be read, and for a folder."""
    try:
        return memoryview(Path(path).read_bytes())
    except OSError as error:  # Windows calls a folder "Permission denied"
        reason = "it is a folder" if Path(path).is_dir() else error.strerror
        raise InputError(f"{path} can't be read ({reason}): give the path of a weight file") from error


def file_of(path: str | PathLike[str]) -> Path:
    """Return the file that `path` names: itself, or the index of a TensorFlow checkpoint whose files' prefix it is."""
    index = Path(f"{path}.index")
    return index if index.is_file() and not Path(path).is_file() else Path(path)


def sha256(path: str | PathLike[str]) -> str:
    """Return the SHA-256 of the file that a path names, as in `file_of`."""
    with open(file_of(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
