"""Locks on files, which end with the process that holds them, however it ends."""

from __future__ import annotations

import errno
import sys
from contextlib import suppress

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["locked", "unlock"]


def locked(handle: int) -> bool:
    """Take the lock of an open file, unless another process has it; return whether it is taken.

    Some network file systems have no locks; there it is always taken."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
    return True


def unlock(handle: int) -> None:
    """Give the lock of an open file back."""
    with suppress(OSError):
        if sys.platform == "win32":
            msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_UN)
