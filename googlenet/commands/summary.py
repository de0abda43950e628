"""python -m googlenet summary: Table 1, recounted from the built network."""

from __future__ import annotations

import argparse
import json

from googlenet.config import ModelConfig, add_flags, from_flags
from googlenet.summary import render, summary


def add(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the command's parser."""
    made: argparse.ArgumentParser = commands.add_parser("summary", help="Table 1, recounted from the built network")
    add_flags(made, ModelConfig)
    made.add_argument("--json", action="store_true", help="print JSON")
    return made


def run(flags: argparse.Namespace) -> int:
    """Print the recounted table."""
    counted = summary(from_flags(ModelConfig, flags))
    print(json.dumps(counted, indent=2) if flags.json else render(counted))
    return 0
