"""What the scripts share: how they end and what they say when they fail. What writes their files imports this too."""
from __future__ import annotations

import argparse
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PureWindowsPath
from shlex import quote

import minigrad
from data.errors import DataError
from minigrad.errors import InputError


def run(main: Callable[[list[str]], int | None], program: str) -> None:
    """Run a script's `main` and exit: 0, 1 with one line for an error, 130 after Ctrl-C; --debug shows where from.

    Where nobody reads on (`... | head`), it ends as programs do whom the system ends for that: in silence, with 141."""
    arguments = sys.argv[1:]
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    logging.captureWarnings(True)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a class name may not exist in the console's encoding
    try:
        code = main(arguments)
        sys.stdout.flush()
        sys.exit(code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what is flushed at the end
        sys.exit(141)
    except (InputError, DataError, OSError) as error:
        if "--debug" in arguments:
            raise
        told = str(error)
        if isinstance(error, OSError):
            told = f"{error.filename or 'a file'}: {error.strerror or error}; check the path, the rights and the disk"
        sys.exit(f"{program}: error: {' '.join(told.split())}")
    except MemoryError as error:
        sys.exit(f"{program}: error: out of memory ({error}); use smaller images or batches")
    except KeyboardInterrupt:
        sys.stderr.write(f"\n{program}: stopped\n")
        sys.exit(130)


def check_threads(parser: argparse.ArgumentParser, threads: int) -> None:
    """End with a usage error where --threads asks for more than the machine has."""
    most = minigrad.available_threads()
    if threads > most:
        parser.error(f"argument --threads: {threads}: this process may use 1 to {most}; 0 means all of them")


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Say which file it was, and what helps, when the disk is full or the folder missing."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"can't write {path}: {reason}; free space or choose another folder") from error


def shown_path(path: str | os.PathLike[str]) -> str:
    """Return a path as it is typed on a command line."""
    if os.name != "nt":
        return quote(os.fspath(path))
    shown = PureWindowsPath(path).as_posix()
    return f'"{shown}"' if re.search(r"[^\w./:~-]", shown) else shown  # no shell there knows single quotes


def duration(seconds: float) -> str:
    """Return a time in words of two units: 3 d 4 h, 2 h 5 min, 3 min 20 s, 40 s."""
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    whole = round(seconds)
    first = next((i for i, (_, length) in enumerate(units) if whole >= length), len(units) - 1)
    parts = []
    for name, length in units[first:first + 2]:
        count, whole = divmod(whole, length)
        parts.append(f"{count} {name}")
    return " ".join(part for part in parts if not part.startswith("0 ")) or "0 s"
