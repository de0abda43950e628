"""python -m googlenet simulate: what many workers and shards would do, by times that were measured on one machine."""
from __future__ import annotations

import argparse
import math

from googlenet.commands import text
from googlenet.distbelief.simulation import Measured, Projected, project
from minigrad.errors import InputError

SATURATED = 0.9  # of the time that a shard serves


def add(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the command's parser."""
    made: argparse.ArgumentParser = commands.add_parser(
        "simulate", help="project images/s and staleness for hundreds of workers", description=(
            "Simulate workers and shards, each on a machine of its own, in counted time: a worker computes a step, "
            "sends every shard its slice of the gradient and waits for that of the weights; a shard serves one after "
            "the other. Print images/s, by how many times that is one worker's, the staleness, and how busy the "
            "shards are."))
    made.add_argument("--workers", type=int, nargs="+", default=[1, 8, 32, 128, 512], metavar="N")
    made.add_argument("--shards", type=int, nargs="+", default=[1, 4, 16, 64], metavar="S")
    made.add_argument("--step", type=float, default=1.1, metavar="SECONDS", help="of a worker's step (default "
                      "%(default)s: batch 32 at 224x224 on one thread)")
    made.add_argument("--spread", type=float, default=0.1, help="relative deviation of it (default %(default)s)")
    made.add_argument("--images", type=int, default=32, help="of a step (default %(default)s)")
    made.add_argument("--update", type=float, default=0.01, metavar="SECONDS", help="that a core takes to update all "
                      "weights (default %(default)s)")
    made.add_argument("--parameters", type=int, default=13_378_280, help="of the network, 4 bytes each (default: with "
                      "both heads)")
    made.add_argument("--line", type=float, default=10.0, metavar="GBIT", help="gigabits a second of a shard's line, "
                      "each way (default %(default)s)")
    made.add_argument("--latency", type=float, default=0.5, metavar="MS", help="milliseconds of a message (default "
                      "%(default)s)")
    made.add_argument("--seed", type=int, default=0)
    return made


def run(flags: argparse.Namespace) -> int:
    """Print a table. Raises InputError for times that are none."""
    for name in ("step", "update", "line", "images", "parameters"):
        if not 0 < getattr(flags, name) < math.inf:
            raise InputError(f"--{name} {getattr(flags, name)}: give more than 0")
    for name in ("spread", "latency", "seed"):
        if not 0 <= getattr(flags, name) < math.inf:
            raise InputError(f"--{name} {getattr(flags, name)}: give 0 or more")
    for name in ("workers", "shards"):
        if min(getattr(flags, name)) < 1:
            raise InputError(f"--{name} {min(getattr(flags, name))}: give at least 1")
    measured = Measured(flags.step, flags.spread, flags.update, 4 * flags.parameters, flags.line * 1e9 / 8,
                        flags.latency / 1e3, flags.images)
    found = [project(measured, workers, shards, seed=flags.seed) for shards in flags.shards
             for workers in flags.workers]
    print(text.table([("shards", "workers", "images/s", "times one", "staleness", "at most", "shards busy", ""),
                      *map(_row, found)]))
    return 0


def _row(found: Projected) -> tuple[str, ...]:
    return (str(found.shards), str(found.workers), f"{found.images_per_second:,.0f}",
            f"{found.images_per_second / found.alone:.1f}", f"{found.staleness:.1f}", str(found.most),
            f"{found.busy:.0%}", "saturated" if found.busy > SATURATED else "")
