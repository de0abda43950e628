"""Spans of one large file, read from many threads at once: no thread moves the place another one reads at."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from data.errors import DataError

__all__ = ["Spans"]


class Spans:
    """The bytes of a file by place and length. The file is opened at the first read, in each process by itself.

    Reading raises DataError where the file is missing, can't be read or ends before the span does.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Spans], tuple[Path]]:
        return Spans, (self.path,)

    def __del__(self) -> None:
        if self._handle is not None:
            os.close(self._handle)

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset` on."""
        try:
            content = self._read(offset, size)
            while len(content) < size and (more := self._read(offset + len(content), size - len(content))):
                content += more
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror or error}): check the disk") from error
        if len(content) < size:
            raise DataError(f"{self.path}: ends at byte {offset + len(content)}, before {offset + size}: it was cut "
                            "short, so copy or download it again")
        return content

    def expect(self, offset: int, size: int) -> None:
        """Tell the system that a span will be read soon, so that it is fetched as a whole."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._open(), offset, size, os.POSIX_FADV_WILLNEED)

    def _open(self) -> int:
        with self._lock:
            if self._handle is None:
                self._handle = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            return self._handle

    def _read(self, offset: int, size: int) -> bytes:
        handle: Any = self._open()
        if hasattr(os, "pread"):
            return os.pread(handle, size, offset)
        with self._lock:  # Windows has one place a file
            os.lseek(handle, offset, os.SEEK_SET)
            return os.read(handle, size)
