"""Fetch a published data set: `python -m data.fetch fashion-mnist|cifar10|flowers17 [--folder DIR]`.

It is downloaded from its official address, checked by its digests and unpacked. What has come of a download is kept,
and the next fetch goes on from it. Wherever a command asks for a data set, the name will do from then on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from data import scripts
from data.download import Progress
from data.published import SETS, fetch

__all__ = ["bar", "main", "run"]

PROGRAM = "python -m data.fetch"


def main(arguments: Sequence[str]) -> None:
    """Fetch, and print where the set is and how to go on."""
    flags = _parser().parse_args(arguments)
    home = fetch(flags.name, flags.folder, bar)
    print(home)
    print(f"licence: {SETS[flags.name].licence}")
    print(f"cite: {SETS[flags.name].cite}")
    print(f'go on with: python train.py --data "{home}"' if flags.folder else
          f"go on with: python train.py --data {flags.name}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Fetch a published data set from its official address; what has come of it is kept, "
                                  "and the next fetch goes on from there.")  # fmt: skip
    parser.add_argument("name", choices=SETS, metavar="NAME", help=", ".join(SETS))
    parser.add_argument("--folder", type=Path, metavar="DIR",
                        help="where to keep it, as DIR/NAME (default: this program's cache)")
    return parser


@contextmanager
def bar(name: str) -> Iterator[Progress]:
    """Show a bar of bytes, which appears with the first of them; the block gets what to call as they come."""
    bars: list[tqdm] = []

    def progress(here: int, total: int | None) -> None:
        if not bars:
            bars.append(tqdm(total=total, initial=here, unit="B", unit_scale=True, desc=name))
        bars[0].total = total
        bars[0].update(here - bars[0].n)

    try:
        yield progress
    finally:
        for each in bars:
            each.close()


def run(arguments: list[str]) -> None:
    """Run `main` and exit: 0, 1 with one line for an error, 130 after Ctrl-C."""
    scripts.run(main, PROGRAM, arguments, "what has come is kept, the next fetch goes on from it")


if __name__ == "__main__":
    run(sys.argv[1:])
