"""python -m googlenet crew: runs by different numbers of workers, as a table and a picture."""
from __future__ import annotations

import argparse
from itertools import groupby
from pathlib import Path

from googlenet.commands import text
from googlenet.commands.files import check_place
from googlenet.reports.crew import CrewRun, picture, read_run

HEAD = ("run", "workers", "seed", "images", "validation loss", "top-1 error", "images/s", "staleness", "at most")


def add(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the command's parser."""
    made: argparse.ArgumentParser = commands.add_parser(
        "crew", help="compare runs by different numbers of workers", description=(
            "Print what runs of train.py --workers N came to after as many images, and draw how stale their pushes "
            "were and how their losses fell."))
    made.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="the runs' folders")
    made.add_argument("--plot", type=Path, metavar="FILE", help="draw them, as PNG, SVG or PDF")
    return made


def run(flags: argparse.Namespace) -> int:
    """Print the table, with a line of means where several runs are alike: in workers and epochs."""
    if flags.plot:
        check_place(flags.plot)
    runs = sorted(map(read_run, flags.runs), key=lambda each: (each.kind, each.seed))
    rows = [HEAD, *map(_row, runs)]
    for _, group in groupby(runs, key=lambda each: each.kind):
        same = [(each, each.last) for each in group if each.last]
        if len(same) > 1:
            means = [sum(float(last[name]) for _, last in same) / len(same)
                     for name in ("validation_loss", "validation_top1_error")]
            rows.append(("mean", _workers(same[0][0]), "", "", f"{means[0]:.4f}", f"{means[1]:.2%}", "", "", ""))
    print(text.table(rows))
    if flags.plot:
        picture(runs, flags.plot)
        print(f"picture: {flags.plot}")
    return 0


def _workers(of: CrewRun) -> str:
    return f"{of.workers} on Ray" if of.on_ray else str(of.workers)


def _row(of: CrewRun) -> tuple[str, ...]:
    last = of.last
    learned = (last["images"], f"{float(last['validation_loss']):.4f}",
               f"{float(last['validation_top1_error']):.2%}") if last else ("", "", "")
    stale = (f"{of.mean_staleness:.2f}", str(max(of.staleness))) if of.staleness else ("", "")
    return of.folder.name, _workers(of), str(of.seed), *learned, f"{of.images_per_second:.4g}", *stale
