"""Test trained networks as the paper does: 1, 10 or 144 crops of each image, one network or an ensemble.

    python evaluate.py --weights runs/NAME --crops 144
    python evaluate.py --weights a.h5 b.h5 --data DIR --table --json -
    python evaluate.py --weights a.h5 --data DIR --crops 144 --resume state.h5     # and again, after whatever happened

Weights may be of any framework that is read. Probabilities are averaged over crops, then over networks. What the images
need (size, mean, order of colours) belongs to the weights. Errors have intervals of 95 %.
"""
from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

import minigrad
from data.base import Dataset
from data.crops import COUNTS, sheet
from data.damaged import Damaged
from data.datasets import SPLITS, open_dataset
from data.errors import DataError
from googlenet import scripts, table3
from googlenet.commands import networks, scores
from googlenet.commands.files import check_place, weights_of
from googlenet.inference import Predictor, for_classes
from googlenet.ledger import Ledger, Progress, Trial
from googlenet.testing import POOLS, Judged, Spent, answers

SHEETS = 4  # images whose crops --save-crops draws
WRITTEN = ("json", "predictions", "probabilities", "report", "resume")  # flags that name a file


def make_parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="evaluate.py", description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    networks.add_flags(made, several=True)
    made.add_argument("--data", default="embedded", help="data set: 'embedded', a fetched one (python -m data.fetch), "
                      "or a path (default %(default)s)")
    made.add_argument("--split", default="test", choices=SPLITS, help="which part of it (default %(default)s)")
    made.add_argument("--crops", type=int, default=1, choices=COUNTS, help="crops of each image (default %(default)s)")
    made.add_argument("--pool", default="mean", choices=POOLS, help="over the crops: the mean, or of each class the "
                      "maximum, which the paper found inferior (default %(default)s)")
    made.add_argument("--table", action="store_true", help="the paper's Table 3 as well: one model and all, 1, 10 and "
                      "144 crops; with --pool max, both pools")
    made.add_argument("--limit", type=int, metavar="N", help="only the first N images, which in folders are those of "
                      "the first classes")
    made.add_argument("--resume", metavar="FILE.h5", help="keep what was found in this file, every minute and at "
                      "Ctrl-C, and go on from it where it exists")
    made.add_argument("--json", metavar="FILE", help="write the result as JSON; - is standard output")
    made.add_argument("--report", metavar="FILE.html", help="write a page: errors, confusions, worst mistakes")
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
    check(parser, flags)
    minigrad.set_threads(flags.threads or minigrad.available_threads())
    minigrad.set_convolution(flags.conv)
    opened = networks.open_networks([file for each in flags.weights for file in weights_of(each)], flags)
    dataset = open_dataset(flags.data, flags.split)
    predictors = [for_classes(each.predictor, dataset.classes, dataset.origin) for each in opened]
    for each in opened:
        say(str(each))
    say(of_images(dataset, flags))
    if flags.save_crops:
        save_sheets(dataset, opened[0].predictor, Path(flags.save_crops))

    trials = table3.trials(len(opened), flags.crops, flags.pool, flags.table)
    headline = Trial(tuple(range(len(opened))), flags.crops, flags.pool)
    files = [each.told["file"] for each in opened]
    ledger = Ledger(trials, files, len(dataset.classes), headline if flags.probabilities else None)
    progress = Progress(Path(flags.resume) if flags.resume else None, settings(flags, opened, dataset), ledger,
                        Damaged(dataset.origin, flags.max_bad), Spent(len(opened)))
    classify(predictors, dataset, flags, progress, headline)
    result = {**summarise(progress, headline, dataset, flags), "weights": [each.told for each in opened]}
    if flags.json != "-":
        print_result(result)
    if flags.json:
        write_json(flags.json, result)
    judged = ledger.judged(headline) if flags.predictions or flags.report else []
    if flags.predictions:
        write_predictions(Path(flags.predictions), judged, dataset)
    if flags.probabilities:
        write_probabilities(Path(flags.probabilities), ledger, dataset)
    if flags.report:
        from googlenet.reports import evaluation

        evaluation.write(Path(flags.report), result, judged, dataset, predictors)
        say(f"report: {flags.report}")
    return 0


def check(parser: argparse.ArgumentParser, flags: argparse.Namespace) -> None:
    """Refuse values out of range and files that cannot be written, before anything takes time."""
    for name, least in (("limit", 1), ("threads", 0), ("loader_threads", 1), ("max_bad", 0)):
        value = getattr(flags, name)
        if value is not None and value < least:
            parser.error(f"--{name.replace('_', '-')} {value}: give at least {least}")
    if flags.pool == "max" and flags.crops == 1 and not flags.table:
        parser.error("--pool max --crops 1: there is one crop to pool; give --crops 10 or 144, or --table")
    scripts.check_threads(parser, flags.threads)
    for where in filter(None, (getattr(flags, name) for name in WRITTEN)):
        if where != "-":
            check_place(Path(where))


def say(line: str) -> None:
    """Print beside the result, which may be JSON on standard output."""
    print(line, file=sys.stderr)


def of_images(dataset: Dataset, flags: argparse.Namespace) -> str:
    """Return which images are tested, and where they are: a folder tells the split that stood for another one."""
    first = f"the first {flags.limit:,} of " if flags.limit and flags.limit < len(dataset) else ""
    images = f"{len(dataset):,} images of {len(dataset.classes):,} classes"
    return f"{dataset.origin}, --split {flags.split}: {first}{images}"


def settings(flags: argparse.Namespace, opened: list[networks.Network], dataset: Dataset) -> dict[str, object]:
    """Return what must be the same where an evaluation is taken up again."""
    def digest(values: list) -> str:
        return hashlib.sha256(json.dumps(values).encode()).hexdigest()

    kept = ("crops", "pool", "table", "limit", "raw", "conv")
    return {**{name: getattr(flags, name) for name in kept}, "probabilities": bool(flags.probabilities),
            "weights": [each.told["sha256"] for each in opened],
            "preprocessing": [each.told["preprocessing"] for each in opened],
            "classes": digest([dataset.classes, *(each.predictor.classes for each in opened)]),
            "images": digest([*dataset.names, *dataset.labels.tolist()]),
            "data": str(Path(dataset.origin).resolve())}  # other pictures may have the same names


def classify(predictors: list[Predictor], dataset: Dataset, flags: argparse.Namespace, progress: Progress,
             headline: Trial) -> None:
    """Judge the images under a bar that counts them and the errors so far; whatever ends it, what was found is kept."""
    ledger, start = progress.ledger, progress.ledger.following
    total = min(len(dataset), flags.limit or len(dataset))
    if start:
        say(f"{flags.resume}: goes on after {start} of {total} images")
    counts, pools = {trial.crops for trial in ledger.trials}, {trial.pool for trial in ledger.trials}
    running = answers(predictors, dataset, sorted(counts), sorted(pools), threads=flags.loader_threads, start=start,
                      limit=flags.limit, damaged=progress.damaged, spent=progress.spent)
    try:
        with logging_redirect_tqdm(), tqdm(total=total, initial=start, unit="image") as bar, closing(running), progress:
            for each in running:
                progress.add(each)
                bar.update(ledger.following - bar.n)
                bar.set_postfix_str(f"top-1 error {ledger.top1_error(headline):.2%}", refresh=False)
    except KeyboardInterrupt:
        say(stopped(progress, headline, total, flags))
        raise


def stopped(progress: Progress, headline: Trial, total: int, flags: argparse.Namespace) -> str:
    """Return what is known, and kept, where an evaluation ends too early."""
    ledger = progress.ledger
    if not len(ledger):
        return "no image was judged yet"
    kept = f"the same command goes on from {flags.resume}" if flags.resume else "--resume FILE.h5 would have kept it"
    return f"after {ledger.following} of {total} images: {scores.headline(table3.of_trial(ledger, headline))}; {kept}"


def summarise(progress: Progress, headline: Trial, dataset: Dataset, flags: argparse.Namespace) -> dict[str, object]:
    """Return the result as it goes into JSON; errors are fractions, intervals [low, high] of 95 %.

    `seconds` and `ms_per_image` are those of all tests of the table, where there is one."""
    ledger, spent = progress.ledger, progress.spent
    result = {**table3.of_trial(ledger, headline), "crops": flags.crops, "pool": flags.pool,
              "networks": len(headline.networks), "seconds": progress.seconds,
              "ms_per_image": 1000 * progress.seconds / len(ledger),
              "network_ms_per_image": 1000 * spent.an_image(headline.networks, flags.crops), "data": flags.data,
              "split": flags.split, "left_out": sorted(progress.damaged.found)}
    if len(headline.networks) > 1:
        result["members"] = table3.members(ledger, headline)
    if flags.table:
        result["table"] = table3.table(ledger, len(headline.networks), spent)
    return {**result, "classes": table3.by_class(ledger, headline, dataset.classes)}


def print_result(result: dict) -> None:
    """Print the errors of each class, worst first, and of all; what networks do alone; Table 3; what it took."""
    print(scores.classes(result))
    print()
    if "members" in result:
        print(scores.members(result), end="\n\n")
    if "table" in result:
        print(scores.table(result["table"]), end="\n\n")
    print(scores.headline(result))


def save_sheets(dataset: Dataset, network: Predictor, folder: Path) -> None:
    """Draw the crops of the first images, one PNG each."""
    with scripts.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for index in range(min(SHEETS, len(dataset))):
        name = dataset.names[index]
        path = folder / f"{index:05d}-{name.replace('/', '_')[-60:]}.png"
        try:
            drawn = sheet(dataset.image(index), network.preprocessing)
        except DataError as error:
            say(f"no crops of {name}: {error}")
            continue
        with scripts.writing(path):
            drawn.save(path)
        say(f"crops of {name}: {path}")


def write_predictions(path: Path, judged: list[Judged], dataset: Dataset) -> None:
    """Write one line an image: file, label, then five classes with their probabilities.

    Of a file name that is not UTF-8 the odd bytes are written as \\udce9."""
    with scripts.writing(path), open(path, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        ranks = range(1, min(5, len(dataset.classes)) + 1)
        guessed = (column for rank in ranks for column in (f"class_{rank}", f"probability_{rank}"))
        writer.writerow(["file", "label", *guessed])
        for each in judged:
            pairs = zip(each.classes, each.probabilities, strict=True)
            guesses = (value for c, p in pairs for value in (dataset.classes[c], f"{p:.6g}"))
            writer.writerow([dataset.names[each.image], dataset.classes[each.label], *guesses])


def write_probabilities(path: Path, ledger: Ledger, dataset: Dataset) -> None:
    """Write all probabilities (images, classes) as float32, with the files' names and labels."""
    with scripts.writing(path), open(path, "wb") as file:
        np.savez_compressed(file, files=np.array([dataset.names[image] for image in ledger.images().tolist()]),
                            labels=ledger.labels(), probabilities=ledger.probabilities())


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
