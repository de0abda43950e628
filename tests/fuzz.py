"""Damages the fixtures of every weight format in thousands of ways, and sees that each reader takes it well.

    python -m tests.fuzz all --mutations 2000
    python -m tests.fuzz npz --seed 7 --only 1234

A reader must raise InputError, or return arrays: the same as the whole file's where the format carries checksums, and
in any case as many bytes as their shapes say. It has 2 seconds of wall time and 500 MB beyond the file's size. Each
mutation is made of the seed, the format and its number alone, so that `--only` repeats one. Readers run in a worker
process, whose crash or hang is a finding like any other.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from googlenet.weights import formats
from googlenet.weights.contents import Contents
from googlenet.weights.formats import isolated
from minigrad import hdf5
from minigrad.errors import InputError

FIXTURES = Path(__file__).parent / "fixtures" / "weights"
SECONDS, BYTES = 2.0, 500e6  # what a reader may take, the bytes beyond the file's size
START = 60.0  # seconds that a worker may take to start
TRIES = 3  # of what was too slow, since the machine may have been busy
PATIENCE = 4 * TRIES  # seconds after which a worker without an answer is killed
CHECKED = {"tensorflow_checkpoint", "ours"}  # formats with a checksum for all; archives have it in any format
ARCHIVES = (b"PK", b"\x1f\x8b")
EDGE = 1024  # bytes at a file's beginning and end, where most of its structure is

READERS = {**{module.__name__.rpartition(".")[2]: module.__name__ for module in formats.FORMATS}, "ours": "tests.fuzz"}


class Case(NamedTuple):
    """A file to damage, the file to read (of several that belong together), and the others."""

    damaged: Path
    read: Path
    others: tuple[Path, ...]

    @property
    def files(self) -> set[Path]:
        return {self.damaged, self.read, *self.others}


@dataclass
class Result:
    """What one mutation led to: outcome is error, equal, different, or one of the failures."""

    number: int
    outcome: str
    told: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0


GOOD = ("error", "equal", "different")


@dataclass
class Summary:
    """What all mutations of a format led to."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Result] = field(default_factory=list)
    seconds: float = 0.0
    megabytes: float = 0.0

    def add(self, result: Result) -> None:
        self.counts[result.outcome] += 1
        self.seconds, self.megabytes = max(self.seconds, result.seconds), max(self.megabytes, result.megabytes)
        if result.outcome not in GOOD:
            self.failures.append(result)

    def __str__(self) -> str:
        counted = " ".join(f"{self.counts[outcome]:6d} {outcome}" for outcome in GOOD)
        return (f"{self.name:22} {counted} {len(self.failures):6d} failed   "
                f"worst {self.seconds:5.2f} s {self.megabytes:6.0f} MB")


# Mutations: bytes -> bytes, each drawn from a generator of its own.

def mutate(content: bytes, number: int, rng: np.random.Generator, foreign: Sequence[bytes]) -> bytes:
    """Return the content damaged: the first numbers are set pieces, every further one is drawn."""
    if number < len(SET_PIECES):
        return SET_PIECES[number](content, foreign)
    kinds = list(DRAWN)
    for _ in range(1 + int(rng.integers(8) == 0)):  # now and then two at once
        content = DRAWN[kinds[int(rng.integers(len(kinds)))]](content, rng, foreign)
    return content


SET_PIECES: list[Callable[[bytes, Sequence[bytes]], bytes]] = [
    lambda content, foreign: b"",
    lambda content, foreign: content[:1],
    lambda content, foreign: content[:len(content) // 2],
    lambda content, foreign: content[:-1],
    lambda content, foreign: b"\0" * len(content),
    lambda content, foreign: b"\xff" * len(content),
    lambda content, foreign: content * 2,
    lambda content, foreign: content[::-1],
    lambda content, foreign: foreign[0] if foreign else b"",
    lambda content, foreign: content[:64] + (foreign[-1] if foreign else b""),
]
Drawn = Callable[[bytes, np.random.Generator, Sequence[bytes]], bytes]


def _place(content: bytes, rng: np.random.Generator) -> int:
    """A position, in three cases of four near the beginning or the end."""
    size = max(len(content), 1)
    near = int(rng.integers(min(EDGE, size)))
    return (near, size - 1 - near, int(rng.integers(size)), near)[int(rng.integers(4))]


def _replaced(content: bytes, place: int, piece: bytes) -> bytes:
    return content[:place] + piece + content[place + len(piece):]


def _bits(content: bytes, rng: np.random.Generator, foreign: Sequence[bytes]) -> bytes:
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 5)) if content else 0):
        changed[_place(content, rng)] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _bytes(content: bytes, rng: np.random.Generator, foreign: Sequence[bytes]) -> bytes:
    return _replaced(content, _place(content, rng), rng.bytes(int(rng.integers(1, 9))))


def _cut(content: bytes, rng: np.random.Generator, foreign: Sequence[bytes]) -> bytes:
    return content[:_place(content, rng)]


def _insert(content: bytes, rng: np.random.Generator, foreign: Sequence[bytes]) -> bytes:
    place = _place(content, rng)
    return content[:place] + rng.bytes(int(rng.integers(1, 65))) + content[place:]


def _remove(content: bytes, rng: np.random.Generator, foreign: Sequence[bytes]) -> bytes:
    place = _place(content, rng)
    return content[:place] + content[place + int(rng.integers(1, 65)):]


def _fill(content: bytes, rng: np.random.Generator, foreign: Sequence[bytes]) -> bytes:
    piece = (b"\0", b"\xff")[int(rng.integers(2))] * int(rng.integers(1, 257))
    return _replaced(content, _place(content, rng), piece)[:len(content)]


def _length(content: bytes, rng: np.random.Generator, foreign: Sequence[bytes]) -> bytes:
    """Write a number that no length should be, as 4 or 8 bytes of either order or as protobuf's varint."""
    number = (2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1, 0)[int(rng.integers(7))]
    way = int(rng.integers(5))
    if way == 4:
        groups = [number >> shift & 0x7F for shift in range(0, max(number.bit_length(), 1), 7)]
        piece = bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])
    else:
        size, order = (4, 8)[way % 2], ("little", "big")[way // 2]
        piece = (number % 2**(8 * size)).to_bytes(size, order)  # type: ignore[arg-type]
    return _replaced(content, _place(content, rng), piece)


def _splice(content: bytes, rng: np.random.Generator, foreign: Sequence[bytes]) -> bytes:
    """Overwrite a piece by one of another file, or of this one from elsewhere."""
    source = foreign[int(rng.integers(len(foreign)))] if foreign and rng.integers(2) else content
    begin = _place(source, rng)
    return _replaced(content, _place(content, rng), source[begin:begin + int(rng.integers(1, 513))])


def _swap(content: bytes, rng: np.random.Generator, foreign: Sequence[bytes]) -> bytes:
    """Turn the byte order of some neighbouring fields around."""
    size, place = (2, 4, 8)[int(rng.integers(3))], _place(content, rng) // 4 * 4
    piece = content[place:place + size * int(rng.integers(1, 17))]
    return _replaced(content, place, b"".join(piece[i:i + size][::-1] for i in range(0, len(piece), size)))


DRAWN: dict[str, Drawn] = {"bits": _bits, "bytes": _bytes, "cut": _cut, "insert": _insert, "remove": _remove,
                           "fill": _fill, "length": _length, "splice": _splice, "swap": _swap}


# Our own files, which are written here: they are made of nothing that changes.

def recognise(start: bytes, path: Path) -> bool:
    return start.startswith(b"minigrad sha256 ")


def read(path: Path) -> Contents:
    return Contents("ours", hdf5.load(path)[0])


def _write_ours(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    arrays = {f"weights/inception_{i}/conv_{j}/weight": rng.normal(size=(3, 3, 8, 8)).astype(np.float32)
              for i in range(3) for j in range(4)}
    hdf5.save(folder / "ours.h5", arrays, {"variant": "paper", "step": 7})
    return folder / "ours.h5"


# The worker: reads mutations' numbers from stdin and writes results to stdout, a line of JSON each.

class Format:
    """A format's reader and its cases."""

    def __init__(self, name: str, module: str, folder: Path, fixtures: Path):
        self.name = name
        reader = importlib.import_module(module)
        self.read, self.recognise = reader.read, reader.recognise
        self.cases = [_write_ours(folder)] if name == "ours" else []
        self.cases = list(_cases(self.recognise, [*self.cases, *sorted(fixtures.iterdir())]))
        self.foreign = [content for path in foreign_files()
                        if not self.recognise((content := path.read_bytes())[:formats.START], path)]
        self.whole: dict[Path, dict[str, np.ndarray]] = {}

    def expected(self, case: Case) -> dict[str, np.ndarray]:
        """The whole file's arrays, read once."""
        if case.read not in self.whole:
            self.whole[case.read] = {name: array.copy() for name, array in self.read(case.read).arrays.items()}
        return self.whole[case.read]

    def damaged(self, number: int, seed: int, folder: Path) -> tuple[Case, Path]:
        """Write the files of a case with one of them damaged; return the case and the file to read."""
        case = self.cases[number % len(self.cases)]
        rng = np.random.default_rng([seed, number, zlib.crc32(self.name.encode())])
        for path in case.files:
            content = path.read_bytes()
            if path == case.damaged:
                content = mutate(content, number // len(self.cases), rng, self.foreign)
            (folder / path.name).write_bytes(content)
        return case, folder / case.read.name


def foreign_files() -> list[Path]:
    """Files of several formats, to splice with."""
    return [path for path in sorted(FIXTURES.glob("*")) if path.suffix in (".npz", ".caffemodel", ".h5", ".mat")
            and "expected" not in path.name]


def _cases(recognise: Callable[[bytes, Path], bool], paths: Sequence[Path]) -> Iterator[Case]:
    """Files that belong together are a TensorFlow checkpoint's: PREFIX.index and PREFIX.data-00000-of-00001."""
    for path in paths:
        if not path.is_file() or "_expected" in path.name or ".data-" in path.name:
            continue
        with open(path, "rb") as file:
            start = file.read(formats.START)
        if not recognise(start, path):
            continue
        shards = tuple(path.parent.glob(f"{path.stem}.data-*")) if path.suffix == ".index" else ()
        for damaged in (path, *shards):
            yield Case(damaged, path, shards)


def judge(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], checked: bool) -> tuple[str, str]:
    """Return the outcome and what is to say of it."""
    for name, array in found.items():
        if not isinstance(array, np.ndarray) or not array.dtype.isnative or array.dtype.kind not in "fiub":
            return "malformed", f"{name!r} is {type(array).__name__} {getattr(array, 'dtype', '')}"
        if len(array.tobytes()) != math.prod(array.shape) * array.dtype.itemsize:  # reads every byte
            return "malformed", f"{name!r} has not the bytes of its shape {array.shape}"
    if set(found) == set(expected) and all(_same(found[name], array) for name, array in expected.items()):
        return "equal", ""
    if checked:
        differing = sorted(set(found) ^ set(expected)) or [
            name for name, array in expected.items() if not _same(found[name], array)]
        return "wrong", f"other arrays than the whole file's in spite of checksums: {', '.join(differing)[:200]}"
    return "different", ""


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


class _Peak:
    """The resident memory that a piece of work takes beyond what was there, at its worst; 0 where it can't be told.

    Where the system does not forget an earlier peak, a lower one is not seen; that one was within the limits, or the
    worker would have been replaced."""

    def __init__(self) -> None:
        with contextlib.suppress(OSError, AttributeError, TypeError):  # no glibc
            ctypes.CDLL(None).malloc_trim(0)  # minigrad has the allocator keep what was freed, to be taken again
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")  # forget the peak
        self.before, self.peak = _memory("VmRSS"), _memory("VmHWM")

    def megabytes(self) -> float:
        peak = _memory("VmHWM")
        return peak - self.before if peak > self.peak else 0.0


def _memory(kind: str) -> float:
    """Megabytes of this process."""
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as file:
        return next((float(line.split()[1]) / 1e3 for line in file if line.startswith(kind)), 0.0)
    return 0.0


def _limit_memory() -> None:
    """Keep a reader that eats memory from taking the machine with it."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            now = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (now + 2**31, resource.getrlimit(resource.RLIMIT_AS)[1]))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _attempt(form: Format, number: int, seed: int, folder: Path, limit: float) -> Result:
    """Read one mutation and judge what comes of it."""
    case, path = form.damaged(number, seed, folder)
    try:
        expected = form.expected(case)
    except InputError as error:
        return Result(number, "refused", f"the whole file: {error}")
    content = case.damaged.read_bytes()
    checked = form.name in CHECKED or content.startswith(ARCHIVES)
    size = sum((folder / file.name).stat().st_size for file in case.files)
    peak, start = _Peak(), time.perf_counter()
    found, told = None, ""
    try:
        with open(path, "rb") as file:
            form.recognise(file.read(formats.START), path)
        found = form.read(path).arrays
    except InputError as error:
        outcome, told = "error", str(error)
    except Exception as error:  # anything else is the finding
        outcome, told = "raised", f"{type(error).__name__}: {error}"
    seconds, megabytes = time.perf_counter() - start, peak.megabytes()
    if found is not None:
        outcome, told = judge(found, expected, checked)
    if outcome == "error" and path.name not in told and case.damaged.name not in told:
        outcome, told = "unclear", f"the message does not name the file: {told}"
    if "\n" in told and outcome == "error":
        outcome, told = "unclear", f"the message has several lines: {told}"
    if megabytes > (BYTES + size) / 1e6:
        outcome, told = "memory", f"{megabytes:.0f} MB for a file of {size / 1e6:.1f} MB ({outcome}: {told[:100]})"
    if seconds > limit:
        outcome, told = "slow", f"{seconds:.1f} s ({outcome}: {told[:100]})"
    told = told[:300] if outcome in GOOD else f"{case.damaged.name}: {told}"
    return Result(number, outcome, told, seconds, megabytes)


def work(fixtures: Path) -> None:
    """Answer requests, {"name", "module", "number", "seed", "seconds"}, until stdin ends."""
    started: dict[str, Format] = {}
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    with tempfile.TemporaryDirectory() as name, isolated.kept_child():
        folder = Path(name)
        print("{}", file=answers, flush=True)
        for line in sys.stdin:
            ask = json.loads(line)
            form = started.get(ask["name"])
            if form is None:
                form = started[ask["name"]] = Format(ask["name"], ask["module"], folder, fixtures)
                _limit_memory()
            if not form.cases:
                print(json.dumps(asdict(Result(-1, "absent", "no fixture of it"))), file=answers, flush=True)
                continue
            for _ in range(TRIES):
                result = _attempt(form, ask["number"], ask["seed"], _emptied(folder / "damaged"), ask["seconds"])
                if result.outcome not in ("slow", "refused"):
                    break
            print(json.dumps(asdict(result)), file=answers, flush=True)


def _emptied(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    return folder


# The parent: hands out numbers, and outlives what happens to the worker.

class Worker:
    """A worker process, replaced when it dies."""

    def __init__(self, fixtures: Path = FIXTURES, patience: float = PATIENCE, seconds: float = SECONDS):
        self.fixtures, self.patience, self.seconds = fixtures, patience, seconds
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self.process:
            assert self.process.stdin
            with contextlib.suppress(OSError):
                self.process.stdin.close()  # so that it takes its own child down
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
            self.process.kill()
            self.process.wait()
            self.process = None

    def ask(self, name: str, module: str, number: int, seed: int) -> Result:
        if self.process is None:
            self.process = subprocess.Popen([sys.executable, "-m", "tests.fuzz", "--worker", str(self.fixtures)],
                                            cwd=Path(__file__).parents[1], encoding="utf-8", stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            if self._answer(START) != ({}, False):
                raise SystemExit("the worker did not start: try python -m tests.fuzz --worker tests/fixtures/weights")
        assert self.process.stdin
        request = {"name": name, "module": module, "number": number, "seed": seed, "seconds": self.seconds}
        with contextlib.suppress(OSError):
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        answer, late = self._answer(self.patience)
        if answer:
            if answer["outcome"] == "memory":
                self.stop()
            return Result(**answer)
        code, self.process = self.process.wait(), None
        if late:
            return Result(number, "hang", f"no answer in {self.patience:.0f} s", self.patience)
        return Result(number, "crash", f"the process ended with {code}")

    def _answer(self, seconds: float) -> tuple[dict | None, bool]:
        """Return the answer, None where the process ended, and whether it was killed since it took too long."""
        process, late = self.process, threading.Event()
        assert process
        assert process.stdout

        def kill() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, kill)
        timer.start()
        try:
            line = process.stdout.readline()
        finally:
            timer.cancel()
        if line:
            return json.loads(line), False
        process.kill()
        return None, late.is_set()


def fuzz(worker: Worker, name: str, numbers: Sequence[int], seed: int = 0, module: str = "",
         show: bool = False) -> Summary:
    """Read mutations of a format; `module` has a `read` and a `recognise` where the format is none of READERS."""
    summary = Summary(name)
    with tqdm(numbers, name, disable=not show, leave=False) as bar:
        for number in bar:
            result = worker.ask(name, module or READERS[name], number, seed)
            if result.outcome == "absent":
                summary.name = f"{name}: {result.told}"
                break
            summary.add(result)
            bar.set_postfix(summary.counts, refresh=False)
    return summary


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("format", nargs="?", default="all", choices=["all", *READERS])
    parser.add_argument("--mutations", type=int, default=2000, help="of each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one mutation, to repeat it")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        work(options.worker)
        return 0
    numbers = range(options.mutations) if options.only is None else [options.only]
    failed = False
    for name in READERS if options.format == "all" else [options.format]:
        with Worker() as worker:
            summary = fuzz(worker, name, numbers, options.seed, show=True)
        print(summary)
        for failure in summary.failures[:20]:
            print(f"    {failure.outcome} {failure.told}\n        python -m tests.fuzz {name} --seed {options.seed} "
                  f"--only {failure.number}")
        failed |= bool(summary.failures)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
