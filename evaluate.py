"""Test trained networks as the paper does: 1, 10 or 144 crops of each image, one network or an ensemble.

    python evaluate.py --weights runs/NAME/best.h5 --crops 144
    python evaluate.py --weights a.h5 b.h5 --data DIR --json -

Weights may be of any framework that is read. Probabilities are averaged over crops, then over networks. What the images
need (size, mean, order of colours) belongs to the weights.
"""
from __future__ import annotations

import argparse
import csv
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

import minigrad
from data.base import Dataset
from data.crops import COUNTS, sheet
from data.datasets import SPLITS, open_dataset
from data.errors import DataError
from googlenet import scripts
from googlenet.commands import networks
from googlenet.inference import Predictor, for_classes
from googlenet.testing import Prediction, predictions, tally, top
from minigrad.errors import InputError

SHEETS = 4  # images whose crops --save-crops draws


def make_parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="evaluate.py", description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    networks.add_flags(made, several=True)
    made.add_argument("--data", default="embedded", help="data set: 'embedded', or a path (default %(default)s)")
    made.add_argument("--split", default="test", choices=SPLITS, help="which part of it (default %(default)s)")
    made.add_argument("--crops", type=int, default=1, choices=COUNTS, help="crops of each image (default %(default)s)")
    made.add_argument("--limit", type=int, metavar="N", help="only the first N images")
    made.add_argument("--json", metavar="FILE", help="write the result as JSON; - is standard output")
    made.add_argument("--predictions", metavar="FILE.csv", help="write the five best classes of each image")
    made.add_argument("--probabilities", metavar="FILE.npz",
                      help="write all probabilities: files, labels, probabilities")
    made.add_argument("--save-crops", metavar="DIR", help=f"draw the 144 crops of the first {SHEETS} images")
    made.add_argument("--threads", type=int, default=0, help="threads that compute; 0: one a core")
    made.add_argument("--conv", choices=minigrad.runtime.CONVOLUTIONS, default="auto",
                      help="how convolutions are computed (default %(default)s)")
    made.add_argument("--loader-threads", type=int, default=1, help="threads that decode images (default %(default)s)")
    made.add_argument("--max-bad", type=int, default=10, help="damaged images that are left out before giving up "
                      "(default %(default)s)")
    made.add_argument("--debug", action="store_true", help="show where an error comes from")
    return made


def main(arguments: list[str]) -> int:
    parser = make_parser()
    flags = parser.parse_args(arguments)
    for name, least in (("limit", 1), ("threads", 0), ("loader_threads", 1), ("max_bad", 0)):
        value = getattr(flags, name)
        if value is not None and value < least:
            parser.error(f"--{name.replace('_', '-')} {value}: give at least {least}")
    scripts.check_threads(parser, flags.threads)
    for where in (flags.json, flags.predictions, flags.probabilities):
        if where and where != "-" and not Path(where).parent.is_dir():
            raise InputError(f"can't write {where}: there is no folder {Path(where).parent}; make it first")
    minigrad.set_threads(flags.threads or minigrad.available_threads())
    minigrad.set_convolution(flags.conv)
    opened = [networks.open_network(each, flags) for each in flags.weights]
    dataset = open_dataset(flags.data, flags.split)
    predictors = [for_classes(each.predictor, dataset.classes, dataset.origin) for each in opened]
    for each in opened:
        say(str(each))
    if flags.save_crops:
        save_sheets(dataset, opened[0].predictor, Path(flags.save_crops))

    bad: dict[str, str] = {}
    began = time.perf_counter()
    total = min(len(dataset), flags.limit or len(dataset))
    found = classify(predictors, dataset, flags, total, bad)
    seconds = time.perf_counter() - began
    if flags.predictions:
        write_predictions(Path(flags.predictions), found, dataset)
    if flags.probabilities:
        write_probabilities(Path(flags.probabilities), found, dataset)
    result = {**summarise(found, dataset, flags, seconds, bad), "weights": [each.told for each in opened]}
    if flags.json != "-":
        print_result(result)
    if flags.json:
        write_json(flags.json, result)
    return 0


def say(line: str) -> None:
    """Print beside the result, which may be JSON on standard output."""
    print(line, file=sys.stderr)


def classify(predictors: list[Predictor], dataset: Dataset, flags: argparse.Namespace, total: int,
             bad: dict[str, str]) -> list[Prediction]:
    """Predict under a bar that counts images and the errors so far."""
    found: list[Prediction] = []
    wrong = 0
    with logging_redirect_tqdm(), tqdm(total=total, unit="image") as bar:
        for each in predictions(predictors, dataset, flags.crops, threads=flags.loader_threads, max_bad=flags.max_bad,
                                limit=flags.limit, bad=bad):
            found.append(each)
            wrong += int(each.probabilities.argmax() != each.label)
            bar.update(len(found) + len(bad) - bar.n)
            bar.set_postfix_str(f"top-1 error {wrong / len(found):.2%}", refresh=False)
    return found


def summarise(found: list[Prediction], dataset: Dataset, flags: argparse.Namespace, seconds: float,
              bad: dict[str, str]) -> dict[str, object]:
    """Return the result as it goes into JSON; errors are fractions."""
    score = tally(found)
    if not math.isfinite(score.loss):
        raise InputError(f"{', '.join(flags.weights)}: probabilities are not numbers; take an earlier checkpoint")
    by_label: dict[int, list[Prediction]] = {}
    for each in found:
        by_label.setdefault(each.label, []).append(each)
    classes = {}
    for label, own in sorted(by_label.items()):
        part = tally(own)
        classes[dataset.classes[label]] = {"images": part.images, "top1_error": part.top1_error,
                                           "top5_error": part.top5_error}
    return {"top1_error": score.top1_error, "top5_error": score.top5_error, "loss": score.loss, "images": score.images,
            "crops": flags.crops, "networks": len(flags.weights), "seconds": seconds, "data": flags.data,
            "split": flags.split, "left_out": sorted(bad), "classes": classes}


def print_result(result: dict) -> None:
    """Print the errors of each class, worst first, and of all."""
    rows = sorted(result["classes"].items(), key=lambda item: -item[1]["top1_error"])
    width = max(len("all"), *(len(name) for name, _ in rows))
    print(f"{'class':<{width}}  images  top-1 error  top-5 error")
    for name, part in [*rows, ("all", result)]:
        print(f"{name:<{width}}  {part['images']:6d}  {part['top1_error']:11.2%}  {part['top5_error']:11.2%}")
    print(f"{result['crops']} crop{'s' * (result['crops'] > 1)}, {result['networks']} network"
          f"{'s' * (result['networks'] > 1)}, {result['seconds']:.1f} s, "
          f"{result['images'] / result['seconds']:.1f} images/s")


def save_sheets(dataset: Dataset, network: Predictor, folder: Path) -> None:
    """Draw the crops of the first images, one PNG each."""
    with scripts.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for index in range(min(SHEETS, len(dataset))):
        name = dataset.names[index]
        path = folder / f"{name.replace('/', '_')}.png"
        try:
            image = dataset.image(index)
        except DataError as error:
            say(f"no crops of {name}: {error}")
            continue
        with scripts.writing(path):
            sheet(image, network.preprocessing).save(path)
        say(f"crops of {name}: {path}")


def write_predictions(path: Path, found: list[Prediction], dataset: Dataset) -> None:
    """Write one line an image: file, label, then five classes with their probabilities."""
    with scripts.writing(path), open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        ranks = range(1, min(5, len(dataset.classes)) + 1)
        guessed = (column for rank in ranks for column in (f"class_{rank}", f"probability_{rank}"))
        writer.writerow(["file", "label", *guessed])
        for each in found:
            best = top(each.probabilities)
            guesses = (value for c in best for value in (dataset.classes[c], f"{each.probabilities[c]:.6g}"))
            writer.writerow([dataset.names[each.image], dataset.classes[each.label], *guesses])


def write_probabilities(path: Path, found: list[Prediction], dataset: Dataset) -> None:
    """Write all probabilities (images, classes) as float32, with the files' names and labels."""
    with scripts.writing(path), open(path, "wb") as file:
        np.savez_compressed(file, files=np.array([dataset.names[each.image] for each in found]),
                            labels=np.array([each.label for each in found]),
                            probabilities=np.array([each.probabilities for each in found], np.float32))


def write_json(where: str, result: dict[str, object]) -> None:
    """Write the result to a file, or to standard output for "-"."""
    text = json.dumps(result, indent=2, allow_nan=False)
    if where == "-":
        print(text)
    else:
        with scripts.writing(where):
            Path(where).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    scripts.run(main, "evaluate.py")
