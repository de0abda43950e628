"""python -m googlenet crew: runs by different numbers of workers, as a table and a picture."""
from __future__ import annotations

import argparse
from pathlib import Path

from googlenet.commands import text
from googlenet.commands.files import check_picture, check_run
from googlenet.reports.crew import CrewRun, in_groups, picture, read_run

HEAD = ("run", "seed", "images", "validation loss", "top-1 error", "images/s", "staleness", "at most")


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
    """Print a table for each group of runs that differ in seeds alone, with their means."""
    if flags.plot:
        check_picture(flags.plot)
    for folder in flags.runs:
        check_run(folder)
    runs = list(map(read_run, flags.runs))
    rows: list[tuple[str, ...]] = [HEAD]
    for name, same in in_groups(runs).items():
        rows += [(f"{name}:", *[""] * (len(HEAD) - 1)), *map(_row, same)]
        found = [run.validation for run in same if run.validation]
        if len(found) > 1:
            loss, error = (sum(values) / len(found) for values in zip(*found, strict=True))
            rows.append(("mean", "", "", f"{loss:.4f}", f"{error:.2%}", "", "", ""))
    print(text.table(rows))
    if flags.plot:
        picture(runs, flags.plot)
        print(f"picture: {flags.plot}")
    return 0


def _row(of: CrewRun) -> tuple[str, ...]:
    learned = ("-", "-", "-")
    if of.last and of.validation:
        loss, error = of.validation
        learned = of.last["images"], f"{loss:.4f}", f"{error:.2%}"
    stale = (f"{of.mean_staleness:.2f}", str(max(of.staleness))) if of.staleness else ("", "")
    return of.folder.name, str(of.seed), *learned, f"{of.images_per_second:.4g}", *stale
