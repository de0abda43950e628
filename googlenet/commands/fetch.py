"""python -m googlenet fetch: published weights."""

from __future__ import annotations

import argparse
from pathlib import Path

from data.fetch import bar
from googlenet.weights import fetch


def add(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the command's parser."""
    made: argparse.ArgumentParser = commands.add_parser(
        "fetch", help="published weights, from their official addresses", description=(
            "Fetch published weights; what has come of a file is kept, and the next fetch goes on from it. Wherever a "
            "command asks for weights, the name will do as well. Data sets: python -m data.fetch NAME"))
    made.add_argument("name", choices=fetch.PUBLISHED, metavar="NAME", help=", ".join(fetch.PUBLISHED))
    made.add_argument("--folder", type=Path, metavar="DIR", help="where to keep it (default: this program's cache)")
    return made


def run(flags: argparse.Namespace) -> int:
    """Fetch, and print where the file is and how to go on."""
    with bar(flags.name) as progress:
        path = fetch.fetch(flags.name, flags.folder, progress)
    print(path)
    print(f"licence: {fetch.PUBLISHED[flags.name].licence}")
    print(f'go on with: python -m googlenet convert "{path}" {flags.name}.h5')
    print(f'        or: python evaluate.py --weights "{path}" --data DIR')
    return 0
