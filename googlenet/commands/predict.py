"""python -m googlenet predict: the five most probable classes of images."""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np

from data.crops import COUNTS, crops
from data.decode import read_image
from data.errors import DataError
from googlenet.commands import networks
from googlenet.commands.files import weights_of
from googlenet.testing import top
from minigrad.errors import InputError


def add(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the command's parser."""
    made: argparse.ArgumentParser = commands.add_parser("predict", help="the five most probable classes of images")
    made.add_argument("images", nargs="+", metavar="IMAGE")
    networks.add_flags(made, several=False)
    made.add_argument("--crops", type=int, default=1, choices=COUNTS, help="crops of each image")
    made.add_argument("--json", action="store_true", help="print JSON")
    return made


def run(flags: argparse.Namespace) -> int:
    """Print the five best classes of each image; the damaged ones are named at the end, as an error."""
    found = weights_of(flags.weights)
    if len(found) > 1:
        raise InputError(f"{flags.weights} names {len(found)} networks, predict takes one: give one, such as "
                         f"{found[0]}")
    opened, = networks.open_networks(found, flags)
    network = opened.predictor
    print(opened, file=sys.stderr)
    results, failures = [], []
    for path in flags.images:
        try:
            mean = network.probabilities(crops(read_image(path), flags.crops, network.preprocessing)).mean(axis=0)
        except DataError as error:  # the other images still have their answer
            failures.append(str(error))
            continue
        if not np.isfinite(mean).all():
            raise InputError(f"{flags.weights}: the probabilities of {path} are not numbers; take another copy of the "
                             "weights, or an earlier checkpoint")
        best = [{"class": network.classes[c], "index": int(c), "probability": float(mean[c])} for c in top(mean)]
        results.append({"file": path, "top5": best})
    print(json.dumps(results, indent=2) if flags.json else "\n".join(map(_as_text, results)))
    if failures:
        raise DataError("; ".join(failures))
    return 0


def _as_text(result: dict) -> str:
    """Return a line for the file and one for each of its five classes."""
    return "\n".join([result["file"], *(f"  {each['probability']:7.2%}  {each['class']}" for each in result["top5"])])
