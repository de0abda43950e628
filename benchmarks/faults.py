"""What faults cost a run by workers: the embedded images, learned by two, left alone and disturbed, by several seeds.

    python benchmarks/faults.py --json FILE                     # every fault, three seeds each; on Linux
    python benchmarks/faults.py --only "worker killed" --seeds 0

Every run is train.py as a user starts it, of a network that learns in a minute (RECIPE). A fault comes after a third of
the steps, and again after two thirds: by a signal, by a limit on the size of files, by taking a node out of a Ray
cluster (extra `ray`) that has three on this machine. A run that a fault ends is resumed. Told are the errors on the
2,000 test images, and by how many points they differ from those of the same seeds left alone.
"""
from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from a checkout that isn't installed

from googlenet.commands import text

ROOT = Path(sys.path[0])
RECIPE = ("--workers", 2, "--threads", 1, "--look-ahead", "--warm-start", 600, "--width", 0.25, "--epochs", 4)
TURNS = (1 / 3, 2 / 3)  # parts of a run after which a fault comes
BAR = re.compile(r"(\d+)/(\d+) \[.*step")
WARNING = "warning: "
LEFT_ALONE = "left alone"
ON_RAY = "three Ray nodes"
RAISING = """\
import signal

def fail(number, frame):
    raise RuntimeError("made to fail")

signal.signal(signal.SIGUSR1, fail)
"""
CRAWLING = """\
import os, signal, sys, time
from contextlib import suppress
with suppress(ProcessLookupError):
    while True:
        os.kill(int(sys.argv[1]), signal.SIGSTOP)
        time.sleep(0.09)
        os.kill(int(sys.argv[1]), signal.SIGCONT)
        time.sleep(0.01)
"""


class FaultError(Exception):
    """A run did not go as it should."""


class Run:
    """train.py in a process of its own, and the folder that it writes."""

    def __init__(self, output: Path, flags: Sequence[object], environment: dict[str, str], cluster: Any = None):
        self.output, self.environment, self.cluster = output, environment, cluster
        self.done = 0.0  # part of the steps
        self.said: deque[str] = deque(maxlen=20)  # its latest lines
        self.warnings: list[str] = []
        self.beside: list[subprocess.Popen] = []  # processes that disturb it
        self._start(*flags, "--output", output)

    def _start(self, *flags: object) -> None:
        self.process = subprocess.Popen([sys.executable, "train.py", *map(str, flags)], cwd=ROOT, env=self.environment,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.listener = threading.Thread(target=self._listen, args=(self.process.stdout,), daemon=True)
        self.listener.start()

    def _listen(self, stream: Any) -> None:
        rest = ""
        while part := stream.read1(4096):
            *lines, rest = re.split(r"[\r\n]+", rest + part.decode(errors="replace"))
            for line in lines:
                if bar := BAR.search(line):
                    self.done = int(bar[1]) / int(bar[2])
                elif line.startswith(WARNING):
                    self.warnings.append(line.removeprefix(WARNING))
            self.said += filter(str.strip, lines)

    def until(self, part: float) -> None:
        """Wait until this part of the steps is done. Raises FaultError where the run ends before."""
        while self.done < part:
            if self.process.poll() is not None:
                raise FaultError(self._ending())
            time.sleep(0.05)

    def ended(self) -> int:
        """Wait until it ends; return the exit code."""
        code = self.process.wait()
        self.listener.join()
        for each in self.beside:
            each.kill()
            each.wait()
        self.beside.clear()
        return code

    def resume(self) -> None:
        """Go on with the run, by what it has saved."""
        self.ended()
        self.done = 0.0
        self._start("--resume", self.folder)

    def result(self) -> dict[str, Any]:
        """Wait for the end; return what the test of the best weights told. Raises FaultError where it failed."""
        if self.ended():
            raise FaultError(self._ending())
        found: dict[str, Any] = json.loads((self.folder / "test.json").read_text())
        return found

    def close(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.ended()

    def _ending(self) -> str:
        return f"train.py ended with code {self.process.returncode}: {self.said[-1] if self.said else ''}"

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return next(self.output.iterdir())

    @property
    def server(self) -> int:
        """The id of the server's process."""
        return _below(self.process.pid)[-1]

    @property
    def worker(self) -> int:
        """The id of one worker's process."""
        return _below(self.server)[-1]


def _below(pid: int) -> list[int]:
    """Return the processes that a process has started, but for Python's tracker of resources."""
    found = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return [each for each in found if "resource_tracker" not in _words(each)]


def _all_below(pid: int) -> Iterator[int]:
    """Yield these, and those below them."""
    with suppress(FileNotFoundError):
        for child in _below(pid):
            yield child
            yield from _all_below(child)


def _words(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


# Faults: what is done to a run that is under way.

def kill_worker(run: Run) -> None:
    """End a worker by SIGKILL."""
    os.kill(run.worker, signal.SIGKILL)


def stop_worker(run: Run) -> None:
    """Let a worker hang."""
    os.kill(run.worker, signal.SIGSTOP)


def fail_worker(run: Run) -> None:
    """Let a worker raise an error."""
    os.kill(run.worker, signal.SIGUSR1)


def slow_worker(run: Run) -> None:
    """Let a worker have a tenth of the time, from now on."""
    if not run.beside:
        run.beside.append(subprocess.Popen([sys.executable, "-c", CRAWLING, str(run.worker)]))


def kill_server(run: Run) -> None:
    """End the server by SIGKILL."""
    os.kill(run.server, signal.SIGKILL)


def kill_parent(run: Run) -> None:
    """End train.py by SIGKILL, and resume the run."""
    run.process.kill()
    run.resume()


def fill_disk(run: Run) -> None:
    """Let no checkpoint be written any more: the run ends, and is resumed when there is room again."""
    import resource

    size = (run.folder / "last.h5").stat().st_size
    resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (size // 2, resource.RLIM_INFINITY))
    if run.ended() != 1:
        raise FaultError("train.py did not notice that the disk is full")
    run.resume()


def kill_shard(run: Run) -> None:
    """End the actor of a shard by SIGKILL."""
    os.kill(next(pid for pid in _all_below(os.getpid()) if "ShardActor" in _words(pid)), signal.SIGKILL)


def remove_node(run: Run) -> None:
    """Take a node with actors out of the cluster, and put an empty one in its place."""
    used = (node for node in run.cluster.worker_nodes for info in node.all_processes["raylet"]
            if any("Actor" in _words(pid) for pid in _all_below(info.process.pid)))
    run.cluster.remove_node(next(used), allow_graceful=False)
    run.cluster.add_node(num_cpus=1)


class Fault(NamedTuple):
    """What happens to a run, where, and with which flags beside those of the one that is left alone."""

    act: Callable[[Run], None]
    on_ray: bool = False
    flags: tuple[str, ...] = ()


def nothing(run: Run) -> None:
    """Leave it alone."""


FAULTS = {
    LEFT_ALONE: Fault(nothing),
    "worker killed": Fault(kill_worker),
    "worker hung": Fault(stop_worker, flags=("--hang-timeout", "3")),
    "worker ten times slower": Fault(slow_worker),
    "worker raised": Fault(fail_worker),
    "server killed": Fault(kill_server),
    "train.py killed": Fault(kill_parent),
    "disk full": Fault(fill_disk),
    ON_RAY: Fault(nothing, on_ray=True),
    "Ray shard killed": Fault(kill_shard, on_ray=True),
    "Ray node removed": Fault(remove_node, on_ray=True),
}


@contextmanager
def ray_cluster() -> Iterator[Any]:
    """Three nodes of a Ray cluster on this machine, each with room for one worker."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_AUTH_MODE"] = "disabled"  # no token is written to the user's folder
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        yield cluster
    finally:
        cluster.shutdown()


def measure(fault: Fault, seed: int, flags: Sequence[object], folder: Path) -> tuple[float, list[str]]:
    """Return the top-1 error on the test images of a run with a fault, and what the run said of it."""
    (folder / "sitecustomize.py").write_text(RAISING)
    paths = [str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    flags = [*RECIPE, "--seed", seed, *fault.flags, *flags]
    output = folder / "runs"
    output.mkdir()
    if not fault.on_ray:
        return _carried_out(fault, Run(output, flags, environment))
    with ray_cluster() as cluster:
        environment["RAY_AUTH_MODE"] = "disabled"
        return _carried_out(fault, Run(output, [*flags, "--cluster", cluster.address], environment, cluster))


def _carried_out(fault: Fault, run: Run) -> tuple[float, list[str]]:
    with closing(run):
        for turn in TURNS:
            run.until(turn)
            fault.act(run)
        return float(run.result()["top1_error"]), run.warnings


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, and print a table."""
    parser = argparse.ArgumentParser(description="Measure what faults cost a run by workers.")
    parser.add_argument("--only", nargs="+", choices=FAULTS, metavar="FAULT", help=f"of {', '.join(FAULTS)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    parser.add_argument("flags", nargs="*", help="more flags of train.py behind --, which win over the recipe's")
    flags = parser.parse_args(arguments)
    if sys.platform != "linux":
        parser.error("it finds and stops processes as Linux has them")
    names = dict.fromkeys([LEFT_ALONE, *(flags.only or FAULTS)])
    errors: dict[str, list[float]] = {name: [] for name in names}
    for seed in flags.seeds:  # all of a seed before the next, so that what is stopped can be told
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    error, said = measure(FAULTS[name], seed, flags.flags, Path(folder))
                except FaultError as reason:
                    print(f"faults.py: error: {name}, seed {seed}: {reason}", file=sys.stderr)
                    return 1
                except KeyboardInterrupt:
                    print("faults.py: stopped", file=sys.stderr)
                    return 130
            errors[name].append(error)
            print(f"{name}, seed {seed}: {error:.2%}", *said, sep="\n    ", flush=True)
    alone = errors[LEFT_ALONE]
    rows = [("fault", "top-1 error", "of each seed", "difference in points")]
    for name, found in errors.items():
        each = " ".join(f"{error:.2%}" for error in found)
        more = statistics.mean(found) - statistics.mean(alone)
        rows.append((name, f"{statistics.mean(found):.2%}", each, "" if name == LEFT_ALONE else f"{100 * more:+.2f}"))
    print(text.table(rows))
    if flags.json:
        flags.json.write_text(json.dumps({"seeds": flags.seeds, "flags": flags.flags, "errors": errors}, indent=2)
                              + "\n")
    return 0


def _stop(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)  # what it has started ends as after Ctrl-C
    sys.exit(main())
