"""Foreign HDF5 files, read in a child process: a damaged one can crash the HDF5 library, or keep it busy for ever.

The child (`hdf5_child.py`) gets the file's bytes and sends its arrays back. It is killed when it is not done in time,
and what it sends is checked as if it were the file. Our own files need none of this: their digest is compared first.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from googlenet.weights.files import read_whole
from googlenet.weights.formats.hdf5_child import HEAD, LENGTH, TYPES
from googlenet.weights.formats.wording import DAMAGED
from minigrad.errors import InputError

BEYOND = 128 * 2**20  # bytes that the arrays may have more than the file; compressed weights have a tenth more
PATIENCE, SPEED = 1.2, 8e6  # seconds that any file may take, and bytes in each further one; sound ones take a fiftieth
START = 20.0  # seconds that the child may take to start, on a busy machine or a slow disk
LONGEST_HEADER = 2**27
MISBEHAVED = (EOFError, OSError, KeyError, TypeError, ValueError, AttributeError)  # of answers that break off

_kept: Child | None = None  # what kept_child keeps


@dataclass
class Tree:
    """What an HDF5 file holds, by path: arrays of numbers, arrays of references, the texts among attributes."""

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    references: dict[str, list[str]] = field(default_factory=dict)  # paths
    attributes: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    error: str = ""  # why it could not be read


def read_tree(path: Path) -> Tree:
    """Read an HDF5 file. Raises InputError where it is damaged, or crashes HDF5, or asks for too much."""
    content = read_whole(path)
    with contextlib.ExitStack() as stack:
        return (_kept or stack.enter_context(Child())).read(content, str(path))


@contextlib.contextmanager
def kept_child() -> Iterator[None]:
    """Within this context one child serves every file, and is replaced when it dies: for reading very many."""
    global _kept
    with Child() as child:
        _kept = child
        try:
            yield
        finally:
            _kept = None


class Child:
    """A child process that is started when it is needed, and stopped at the end of the context."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def read(self, content: memoryview, where: str) -> Tree:
        """Send a file's bytes, collect its arrays; the child lives on where it kept to the protocol."""
        most = len(content) + BEYOND
        sound = False
        try:
            process = self._started(where)
            assert process.stdin
            assert process.stdout
            with _Deadline(process, PATIENCE + len(content) / SPEED) as deadline:
                try:
                    process.stdin.write(HEAD.pack(len(content), most))
                    process.stdin.write(content)
                    process.stdin.flush()
                    tree = _collect(process.stdout, most)
                except MISBEHAVED as error:
                    process.wait()
                    raise InputError(f"{where} can't be read: HDF5 {_end(process, deadline.passed)} it is damaged; "
                                     f"{DAMAGED}") from error
            sound = True
            if tree.error:
                raise InputError(f"{where} can't be read: {tree.error}; {DAMAGED}")
        finally:
            if not sound:  # whatever went wrong, the user's interrupt too, the rest of the answer would be in the way
                self.stop()
        return tree

    def stop(self) -> None:
        """Kill the child and wait for its end."""
        process, self.process = self.process, None
        if process:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    with contextlib.suppress(OSError):  # what it did not take any more
                        pipe.close()

    def _started(self, where: str) -> subprocess.Popen[bytes]:
        if self.process and self.process.poll() is None:
            return self.process
        self.stop()
        script = Path(__file__).with_name("hdf5_child.py")
        quiet = {"OPENBLAS_NUM_THREADS": "1", "HDF5_PLUGIN_PRELOAD": "::"}  # the last: no filters from shared libraries
        self.process = subprocess.Popen([sys.executable, "-P", str(script)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, **quiet})
        assert self.process.stdout
        with _Deadline(self.process, START):
            if self.process.stdout.read(LENGTH.size) != LENGTH.pack(0):
                raise InputError(f"{where} can't be read: the process that reads HDF5 did not start; try "
                                 f"`{sys.executable} -c 'import h5py'`")
        return self.process


class _Deadline:
    """Kills a process that is not done in time, which ends every wait for its pipes; `passed` says that it did."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float):
        self.process, self.passed = process, False
        self.timer = threading.Timer(seconds, self._pass)
        self.timer.daemon = True

    def __enter__(self) -> _Deadline:
        self.timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.timer.cancel()

    def _pass(self) -> None:
        self.passed = True
        self.process.kill()


def _collect(answers: IO[bytes], most: int) -> Tree:
    """Return what the child sends of a file; raises one of MISBEHAVED where that is not to the protocol."""
    tree = Tree()
    while True:
        header = _header(answers)
        if "end" in header or "error" in header:
            tree.error = _line(header.get("error", ""))
            return tree
        if "array" in header:
            name, array = str(header["array"]), _array(answers, header, most)
            most -= array.nbytes
            tree.arrays[name] = array
        elif "references" in header:
            tree.references[str(header["references"])] = list(map(str, header["to"]))
        elif "attributes" in header:
            tree.attributes[str(header["attributes"])] = {
                str(name): list(map(str, texts)) for name, texts in header["texts"].items()}
        else:
            tree.notes.append(_line(header["note"]))


def _header(answers: IO[bytes]) -> dict[str, Any]:
    length, = LENGTH.unpack(_exactly(answers, LENGTH.size))
    return json.loads(_exactly(answers, min(length, LONGEST_HEADER)))


def _array(answers: IO[bytes], header: dict[str, Any], most: int) -> np.ndarray:
    kind, shape = str(header["type"]), tuple(map(int, header["shape"]))
    if kind[1:] not in TYPES or any(axis < 0 for axis in shape):
        raise EOFError
    size = np.dtype(kind).itemsize * math.prod(shape)
    if size > most:
        raise EOFError
    array = np.empty(shape, kind)
    if size and answers.readinto(array.reshape(-1).view(np.uint8).data) != size:  # type: ignore[attr-defined]
        raise EOFError
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _exactly(answers: IO[bytes], size: int) -> bytes:
    content = answers.read(size)
    if len(content) != size:
        raise EOFError
    return content


def _end(process: subprocess.Popen[bytes], late: bool) -> str:
    """Return how HDF5 ended, in words."""
    if late:
        return "did not come to an end on it:"
    code = process.returncode
    if code < 0:
        return f"crashed on it ({signal.Signals(-code).name}):"
    return f"crashed on it (exit {code}):"


def _line(text: object) -> str:
    """Return what the child says, in which names out of the file may stand, as one printable line."""
    line = " ".join(str(text).split())
    return line if line.isprintable() else ascii(line)[1:-1]
