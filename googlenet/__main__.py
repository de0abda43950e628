"""Look at the network, use it, and read, write and compare weights of any framework."""
from __future__ import annotations

import argparse

from googlenet import scripts
from googlenet.commands import (
    ablations,
    compare,
    convert,
    crew,
    export,
    fetch,
    inspect,
    predict,
    replay,
    simulate,
    summary,
)

COMMANDS = (summary, predict, inspect, convert, export, compare, fetch, ablations, crew, replay, simulate)


def make_parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m googlenet", description=__doc__)
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for each in COMMANDS:
        command = each.add(commands)
        command.add_argument("--debug", action="store_true", help="show where an error comes from")
        command.set_defaults(run=each.run)
    return made


def main(arguments: list[str]) -> int:
    flags = make_parser().parse_args(arguments)
    return flags.run(flags)


if __name__ == "__main__":
    scripts.run(main, "python -m googlenet")
