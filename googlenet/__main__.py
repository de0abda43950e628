"""Look at the network and use it: python -m googlenet summary | predict."""
from __future__ import annotations

import argparse
import json

from data.crops import COUNTS, crops
from data.decode import read_image
from data.errors import DataError
from googlenet import report
from googlenet.config import ModelConfig, add_flags, from_flags
from googlenet.inference import load, top
from googlenet.summary import render, summary


def make_parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m googlenet", description=__doc__)
    commands = made.add_subparsers(dest="command", required=True, metavar="summary | predict")
    recount = commands.add_parser("summary", help="Table 1, recounted from the built network")
    add_flags(recount, ModelConfig)
    recount.set_defaults(run=summarise)
    predict = commands.add_parser("predict", help="the five most probable classes of images")
    predict.add_argument("images", nargs="+", metavar="IMAGE")
    predict.add_argument("--weights", required=True, metavar="FILE", help="best.h5 of a run, or Caffe's weights (.npz)")
    predict.add_argument("--crops", type=int, default=1, choices=COUNTS, help="crops of each image")
    predict.set_defaults(run=classify)
    for command in (recount, predict):
        command.add_argument("--json", action="store_true", help="print JSON")
        command.add_argument("--debug", action="store_true", help="show where an error comes from")
    return made


def main(arguments: list[str]) -> int:
    flags = make_parser().parse_args(arguments)
    return flags.run(flags)


def summarise(flags: argparse.Namespace) -> int:
    """Print the recounted table."""
    counted = summary(from_flags(ModelConfig, flags))
    print(json.dumps(counted, indent=2) if flags.json else render(counted))
    return 0


def classify(flags: argparse.Namespace) -> int:
    """Print the five best classes of each image; the damaged ones are named at the end, as an error."""
    network = load(flags.weights)
    results, failures = [], []
    for path in flags.images:
        try:
            mean = network.probabilities(crops(read_image(path), flags.crops, network.preprocessing)).mean(axis=0)
        except DataError as error:  # the other images still have their answer
            failures.append(str(error))
            continue
        best = [{"class": network.classes[c], "index": int(c), "probability": float(mean[c])} for c in top(mean)]
        results.append({"file": path, "top5": best})
    print(json.dumps(results, indent=2) if flags.json else "\n".join(map(as_text, results)))
    if failures:
        raise DataError("; ".join(failures))
    return 0


def as_text(result: dict) -> str:
    """Return a line for the file and one for each of its five classes."""
    return "\n".join([result["file"], *(f"  {each['probability']:7.2%}  {each['class']}" for each in result["top5"])])


if __name__ == "__main__":
    report.run(main, "python -m googlenet")
