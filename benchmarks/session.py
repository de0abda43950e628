"""Contenders as processes: started, compared, asked for rounds in turns, and ended whatever happens."""
from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from benchmarks import limit
from benchmarks.job import CLASSES, Job
from benchmarks.load import Load, before_start
from benchmarks.peers import OURS, PEERS

ROOT = Path(__file__).resolve().parent.parent
AGREEMENT = 1e-3  # of the largest value
# Where two values of a max pool, or one and ReLU's zero, are equal but for rounding, a gradient takes another way:
# PyTorch differs by 4e-3 from itself when its LRN is written in another order.
GRADIENT_AGREEMENT = 2e-2
PAUSE = 0.1  # seconds between rounds: the threads of some pools spin for a moment before they sleep
PATIENCE = 10  # seconds that a process gets to end by itself

Outputs = dict[str, np.ndarray]


class ContenderError(Exception):
    """A contender that can't take part, and why."""


class Child:
    """A process that answers lines of JSON."""

    def __init__(self, name: str, command: Sequence[str], environment: dict[str, str], log: Path):
        self.name, self.log = name, log
        self.seconds: list[float] = []  # of its rounds
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        with open(log, "w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                cwd=ROOT, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment})

    def answer(self) -> dict[str, Any]:
        """Return its next answer. Raises ContenderError where it has failed or is gone."""
        line = _pipe(self.process.stdout).readline()
        told = json.loads(line) if line else {"failed": self._last_words()}
        if "failed" in told:
            raise ContenderError(told["failed"])
        return told

    def ask(self, request: str) -> dict[str, Any]:
        """Send a line and return the answer. Raises ContenderError."""
        try:
            _pipe(self.process.stdin).write(request + "\n")
            _pipe(self.process.stdin).flush()
        except OSError as error:
            raise ContenderError(self._last_words()) from error
        return self.answer()

    def round(self) -> None:
        """Let it work one round."""
        self.seconds.append(self.ask("go")["seconds"])

    def end(self) -> None:
        """End it, gently if it listens."""
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                _pipe(pipe).close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _last_words(self) -> str:
        code = self.process.wait()
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return f"ended with code {code}" + (f": {lines[-1].strip()}" if lines else "")


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


class Session:
    """What one call of compare.py shares: a folder, the children, who was left out, and the load of the machine."""

    def __init__(self, folder: Path, peers: Sequence[str], named: bool):
        self.folder, self.peers, self.named = folder, peers, named
        self.size = 0  # of the network whose weights are in the folder
        self.children: list[Child] = []
        self.left_out: dict[str, str] = {}  # peer -> reason
        self.limits: list[float] = []  # GFLOP/s on all threads, one for each round
        self.busy_cores = before_start()
        self.own: set[int] = set()  # other processes that contenders have started
        self.prepared: dict[str, tuple[int, int]] = {}  # module -> batch and size that its files are for

    def start(self, job: Job, environment: dict[str, str] | None = None, name: str = "") -> Child:
        """Start a contender; its first answer is still to come."""
        peer = PEERS.get(job.contender)
        environment = {**(peer.environment if peer else {}), **(environment or {})}
        return self._started(name or job.contender, ["-m", "benchmarks.contender", job.to_json()], environment)

    def spin(self) -> Child:
        """Start a process that keeps a core busy."""
        child = self._started("competitor", ["-m", "benchmarks.spin"], {})
        _pipe(child.process.stdout).readline()
        return child

    def _started(self, name: str, command: Sequence[str], environment: dict[str, str]) -> Child:
        child = Child(name, command, environment, self.folder / f"{len(self.children)}.log")
        self.children.append(child)
        return child

    def job(self, contender: str, work: str, batch: int, size: int, threads: int) -> Job:
        """Return a job in this session's folder, with our weights in it."""
        job = Job(contender, work, batch, size, threads, str(self.folder))
        if self.size != size:
            self.size = size
            write_inputs(job)
        return job

    def contender(self, job: Job, expected: Outputs | None = None) -> tuple[Child, Outputs]:
        """Start a contender and return it with what its network computed, compared with `expected`.

        Raises ContenderError where it can't take part or computes something else."""
        if job.contender != OURS:
            self.prepare(job)
        child = self.start(job)
        try:
            outputs = {name: np.array(values) for name, values in child.answer()["outputs"].items()}
            require_agreement(expected or {}, outputs)
        except ContenderError:
            self.end(child)
            raise
        return child, outputs

    def prepare(self, job: Job) -> None:
        """Let a peer write the files that it reads. Raises ContenderError."""
        module = PEERS[job.contender].module
        if self.prepared.get(module) != (job.batch, job.size):
            child = self.start(replace(job, work="prepare"))
            try:
                child.answer()
            finally:
                self.end(child)
            self.prepared[module] = job.batch, job.size

    def line_up(self, work: str, batch: int, size: int, threads: int) -> list[tuple[Child, Job]]:
        """Return ours and the peers that compute the same, each started and warm.

        Raises ContenderError where ours fails, or a peer that was asked for by name."""
        found: list[tuple[Child, Job]] = []
        expected: Outputs = {}
        for name in (OURS, *self.peers_for(work)):
            job = self.job(name, work, batch, size, threads)
            with self.leaving_out(name):
                child, outputs = self.contender(job, expected)
                expected = expected or outputs
                found.append((child, job))
        return found

    def peers_for(self, work: str) -> list[str]:
        """Return the peers that do this work and have not been left out."""
        return [name for name in self.peers if work in PEERS[name].works and name not in self.left_out]

    @contextmanager
    def leaving_out(self, name: str) -> Iterator[None]:
        """Leave out a peer that fails inside, and note why; raise ContenderError for ours, and for a peer that was
        asked for by name."""
        try:
            yield
        except ContenderError as error:
            self.left_out[name] = str(error)
            if self.named or name not in PEERS:
                raise ContenderError(f"{name}: {error}") from error

    def rounds(self, children: Sequence[Child], count: int, threads: int) -> list[Child]:
        """Let the children work `count` rounds in turns, and return those that came through.

        Raises ContenderError as `line_up` does."""
        for _ in self.turns(range(count), threads):
            for child in children:
                if child.name not in self.left_out:
                    with self.leaving_out(child.name):
                        child.round()
                    time.sleep(PAUSE)
        return [child for child in children if child.name not in self.left_out]

    def turns(self, over: Iterable[Any], threads: int, dtype: str = "float32") -> Iterator[Any]:
        """Yield from `over`, measuring the machine's limit before each, and how busy others are meanwhile."""
        load = Load(lambda: [*(child.process.pid for child in self.children), *self.own])
        for each in over:
            self.limits.append(limit.gflops(threads, dtype))
            yield each
        self.busy_cores = max(self.busy_cores, load.others())

    def end(self, *children: Child) -> None:
        """End these, or all."""
        for child in children or tuple(self.children):
            child.end()
            self.children.remove(child)

    def limit(self) -> dict[str, float]:
        """Return the limit that was measured, in GFLOP/s."""
        if not self.limits:
            return {}
        return {"gflops": statistics.median(self.limits), "min": min(self.limits), "max": max(self.limits)}


@contextmanager
def session(peers: Sequence[str], named: bool) -> Iterator[Session]:
    """Open a session; at its end, however that comes, no child is left. `named`: the user asked for these peers."""
    with tempfile.TemporaryDirectory(prefix="googlenet-benchmark-") as folder:
        made = Session(Path(folder), peers, named)
        try:
            yield made
        except BaseException:
            for child in made.children:
                child.process.kill()
            raise
        finally:
            made.end()


def require_agreement(expected: Outputs, found: Outputs) -> None:
    """Raise ContenderError where an output differs from ours by more than agreement allows."""
    for name, ours in expected.items():
        theirs = found.get(name, np.empty(0))
        if theirs.shape != ours.shape:
            raise ContenderError(f"computes something else: its {name} is {theirs.shape}, ours {ours.shape}")
        difference = float(np.abs(theirs - ours).max() / np.abs(ours).max())
        allowed = GRADIENT_AGREEMENT if name == "gradient" else AGREEMENT
        if not difference <= allowed:
            raise ContenderError(f"computes something else: its {name} differs by {difference:.0e} of the largest "
                                 f"value, more than {allowed:.0e}")


def write_inputs(job: Job) -> None:
    """Write what all contenders read: weights.npz and weights.h5 (the same weights), and photo.jpg, 500 x 375."""
    from benchmarks import ours
    from googlenet.model import preprocessing_of
    from googlenet.weights import save_weights

    model = ours.network(job.size)
    np.savez(job.file("weights.npz"), **model.parameters())  # type: ignore[arg-type]  # no path is "allow_pickle"
    save_weights(job.file("weights.h5"), model, preprocessing=preprocessing_of(model.config),
                 classes=tuple(map(str, range(CLASSES))))
    photo(375, 500).save(job.file("photo.jpg"), quality=90)


def photo(height: int, width: int) -> Any:
    """Return a picture with detail at all scales, as photos have it."""
    from PIL import Image

    rng, total = np.random.default_rng(0), np.zeros((height, width, 3))
    for cells in (4, 16, 64, 256):
        noise = rng.integers(0, 256, (cells, cells, 3), np.uint8)
        total += np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)) / cells**0.5
    return Image.fromarray(np.interp(total, (total.min(), total.max()), (0, 255)).astype(np.uint8))
