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


def sha256(path: str | PathLike[str]) -> str:
    """Return the SHA-256 of a file; of TensorFlow's checkpoints in several files, their index's."""
    with open(path if Path(path).is_file() else f"{path}.index", "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
