"""What this network costs beside its peers, in turns: python benchmarks/compare.py WORK --json FILE; see README.md."""
from __future__ import annotations

import argparse
import datetime
import json
import platform
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

if not __package__:  # run as a script: the project's folder takes the place of this one, which is a package
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import minigrad
from benchmarks.convolutions import convolutions
from benchmarks.crew import workers
from benchmarks.layers import layers
from benchmarks.load import TOLERATED
from benchmarks.peers import PEERS
from benchmarks.results import Report
from benchmarks.scaling import TABLES, scaling
from benchmarks.session import ContenderError, Session, session
from benchmarks.works import busy, crops, memory, startup, throughput
from minigrad.errors import InputError
from minigrad.kernels.target import target


class Work(NamedTuple):
    """A work with its defaults; a batch of 0 is no flag's business, and `own` are flags that only some works have."""

    run: Any
    meaning: str
    rounds: int
    batch: int = 0
    own: tuple[str, ...] = ()
    peers: tuple[str, ...] = tuple(PEERS)  # unless others are named


WORKS = {
    "training": Work(throughput, "a step with three heads and SGD, images/s", 15, 32),
    "inference": Work(throughput, "images/s; --batch 1 for latency", 15, 16),
    "crops": Work(crops, "144 crops of one photo, seconds", 7),
    "memory": Work(memory, "peak MiB of processes that train and that infer", 3),
    "startup": Work(startup, "the first run ever, and predicting one photo, seconds", 9),
    "layers": Work(layers, "a training step op by op, ms", 9, 32, peers=()),
    "convolutions": Work(convolutions, "all convolutions in sequence, direct and Winograd's, GFLOP/s", 9, 16,
                         ("dtype",), peers=()),
    "scaling": Work(scaling, "images/s against the batch and the images' size; how work is cut for many cores", 5,
                    own=("of", "only", "cores"), peers=()),
    "workers": Work(workers, "workers of one thread, --threads of them, beside serial training, images/s", 5, 32,
                    peers=()),
    "busy": Work(busy, "one thread and several beside a busy process, images/s", 9, 16, ("of",), peers=()),
}
OF = ("training", "inference")
DTYPES = ("float32", "float64")
CORES = 64
SETTINGS = ("batch", "size", "threads", "rounds", "of", "dtype", "only", "cores")
SIZE = 224
THREADS = 2


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the flags with every default filled in; ends with a usage error where they make no sense."""
    most = minigrad.available_threads()
    parser = Parser(prog="compare.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                    epilog="\n".join(["works:", *(f"  {name:12} {work.meaning}" for name, work in WORKS.items())]))
    parser.add_argument("work", nargs="?", choices=tuple(WORKS), default="training", help="(default: %(default)s)")
    parser.add_argument("--batch", type=_at_least(1), help="images at a time (default: 32 in training and layers, "
                        "16 in inference, convolutions and busy; the other works have their own)")
    parser.add_argument("--size", type=_at_least(32), help=f"side of the images in pixels (default: {SIZE})")
    parser.add_argument("--threads", type=_at_least(1), default=min(THREADS, most), help="of each contender "
                        "(default: %(default)s)")
    parser.add_argument("--rounds", type=_at_least(1), help="timed rounds of each contender (default: by the work)")
    parser.add_argument("--of", choices=OF, help="what busy and scaling measure (default: training)")
    parser.add_argument("--dtype", choices=DTYPES, help=f"of convolutions (default: {DTYPES[0]})")
    parser.add_argument("--only", choices=tuple(TABLES), help="the one table of scaling that is wanted (default: all)")
    parser.add_argument("--cores", type=_at_least(2), help="for how many cores the table blocks of scaling cuts the "
                        f"work; they need not be there (default: {CORES})")
    parser.add_argument("--peers", nargs="+", metavar="PEER", help=f"of {', '.join(PEERS)}; none for ours alone "
                        "(default: all that are installed and can do it)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures")
    flags = parser.parse_args(arguments)
    work = WORKS[flags.work]
    if flags.threads > most:
        parser.error(f"argument --threads: {flags.threads}: this process may use 1 to {most}")
    if flags.batch and not work.batch:
        parser.error(f"argument --batch: {flags.work} has batches of its own")
    if flags.size and flags.work == "scaling":
        parser.error("argument --size: scaling has sizes of its own")
    for name in ("of", "dtype", "only", "cores"):
        if getattr(flags, name) and name not in work.own:
            owners = " and ".join(each for each, other in WORKS.items() if name in other.own)
            parser.error(f"argument --{name}: it is for {owners}, not for {flags.work}")
    if flags.json and not flags.json.resolve().parent.is_dir():
        parser.error(f"argument --json: {flags.json}: there is no such folder")
    flags.named = flags.peers is not None
    flags.peers = _peers(parser, flags, work)
    flags.batch, flags.size = flags.batch or work.batch, flags.size or SIZE
    flags.rounds, flags.of = flags.rounds or work.rounds, flags.of or OF[0]
    flags.dtype, flags.cores = flags.dtype or DTYPES[0], flags.cores or CORES
    return flags


def _at_least(least: int) -> Any:
    def whole(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text}: expected a whole number, at least {least}")
        return int(text)

    return whole


def _peers(parser: argparse.ArgumentParser, flags: argparse.Namespace, work: Work) -> list[str]:
    """Return the peers to start; all that were named must know the work."""
    if flags.peers is None:
        return list(work.peers)
    if flags.peers == ["none"]:
        return []
    needed = {"memory": "inference", "startup": "predict", "scaling": flags.of or OF[0]}.get(flags.work, flags.work)
    for name in flags.peers:
        if name not in PEERS:
            parser.error(f"argument --peers: {name}: choose of {', '.join(PEERS)}, or none")
        if needed not in PEERS[name].works:
            parser.error(f"argument --peers: {name} has no part in {flags.work}")
    return list(dict.fromkeys(flags.peers))


def about(flags: argparse.Namespace, made: Session) -> dict[str, Any]:
    """Return what the figures depend on: it stands in the JSON beside them."""
    return {
        "limit": made.limit(), "busy": made.busy_cores > TOLERATED, "busy_cores": round(made.busy_cores, 2),
        "left_out": made.left_out, "date": datetime.date.today().isoformat(), "cpu": cpu(),
        "vector_bytes": target().vector_bytes,
        "settings": {name: getattr(flags, name) for name in SETTINGS},
    }


def cpu() -> str:
    """Return the processor's name as the system knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def render(report: Report, beside: dict[str, Any]) -> str:
    """Return what is printed: the tables, what was left out, the limit, and a warning if others were busy."""
    lines = [str(report), ""]
    lines += [f"left out: {name}: {reason}" for name, reason in beside["left_out"].items()]
    if limit := beside["limit"]:
        dtype, threads = beside["settings"]["dtype"], beside["settings"]["threads"]
        lines.append(f"the machine's limit: {limit['gflops']:.0f} GFLOP/s of {dtype} multiply-adds on {threads} "
                     f"threads ({limit['min']:.0f} to {limit['max']:.0f} in this run)")
    lines.append(f"{beside['cpu']}, vectors of {beside['vector_bytes']} bytes, {beside['date']}")
    if beside["busy"]:
        lines.append(f"WARNING: other processes used {beside['busy_cores']} cores meanwhile; measure again on an idle "
                     "machine before you quote a figure")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Run one work; 0, or 1 with one line for an error."""
    flags = parse(arguments)
    try:
        with session(flags.peers, flags.named) as made:
            report = WORKS[flags.work].run(made, flags)
            beside = about(flags, made)
        print(render(report, beside))
        if flags.json:
            flags.json.write_text(json.dumps({**report.as_json(flags.work), **beside}, indent=2) + "\n")
    except (ContenderError, InputError, OSError) as error:
        print(f"compare.py: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("compare.py: stopped", file=sys.stderr)
        return 130
    return 0


def _stop(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)  # children end as they do after Ctrl-C
    sys.exit(main(sys.argv[1:]))
