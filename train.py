"""Train GoogLeNet: `python train.py` on the embedded images, `python train.py --data DIR` on your own.

A run writes a folder of its own: last.h5 (to go on from), best.h5 (the lowest validation loss), log.csv, curves.png
and config.json. Ctrl-C finishes the step, saves and says how to go on.
"""
from __future__ import annotations

import argparse
import json
import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields, replace
from pathlib import Path
from shlex import quote
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

import minigrad
from data.base import Dataset
from data.datasets import open_dataset, split_validation
from data.errors import DataError
from data.preprocess import Preprocessing, channel_statistics
from googlenet import scripts
from googlenet.commands.files import path_of
from googlenet.config import ModelConfig, TrainingConfig, add_flags, from_flags
from googlenet.inference import load
from googlenet.model import VARIANTS, GoogLeNet, preprocessing_of
from googlenet.reports.curves import curves
from googlenet.reports.log import Log, read_log
from googlenet.testing import score
from googlenet.training import DivergedError, Epoch, Step, Trainer, configuration
from googlenet.weights import fetch, load_model, read
from googlenet.weights.files import file_of
from minigrad import init
from minigrad.errors import InputError

# The embedded images are 28x28 pixels and fill their frame: at 64 pixels, nothing cropped, the whole network learns
# them in a few minutes. There is no time for the paper's slow schedule: the rate falls to zero in a line.
FOR_EMBEDDED: dict[str, Any] = {"image_size": 64, "epochs": 7, "batch_size": 16, "lr": 0.0025, "schedule": "poly",
                                "power": 1.0, "init": "he", "bias_init": 0.0, "standardise": True,
                                "validation_fraction": 0.05}
# Flags that may be given beside --resume.
CHANGEABLE = {"data", "epochs", "lr", "threads", "conv", "loader_threads", "max_bad", "save_every", "log_every"}
# What of the network may be chosen beside --init FILE.
FREE_WITH_WEIGHTS = {"image_size", "heads", "dropout", "aux_dropout", "dtype"}
OF_WEIGHTS = {"resize", "standardise"}  # flags of training that the file's preprocessing decides
MEAN_OF = 2000  # training images that the mean and the deviation are taken over


def make_parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="train.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="For the embedded images the defaults are " + " ".join(
            f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")
            for name, value in FOR_EMBEDDED.items()) + ", and --resize as --image-size.")
    add_flags(made.add_argument_group("training"), TrainingConfig)
    add_flags(made.add_argument_group("network"), ModelConfig, skip=("classes",))
    changeable = ", ".join("--" + name.replace("_", "-") for name in sorted(CHANGEABLE))
    made.add_argument("--resume", metavar="RUN", help="go on with this run: its folder, or its last.h5; of the other "
                      f"flags only {changeable} may change")
    made.add_argument("--debug", action="store_true", help="show where an error comes from")
    return made


def read_flags(arguments: list[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Return all flags with their defaults, and {name: value} of those that were given."""
    parser = make_parser()
    flags = parser.parse_args(arguments)
    scripts.check_threads(parser, flags.threads)
    parser.set_defaults(**dict.fromkeys(vars(flags)))
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    if "dropout" not in given:
        flags.dropout = VARIANTS[flags.variant].dropout
    if flags.data == "embedded":
        vars(flags).update({name: value for name, value in FOR_EMBEDDED.items() if name not in given})
        flags.resize = given.get("resize", flags.image_size)
    return flags, given


def main(arguments: list[str]) -> int:
    flags, given = read_flags(arguments)
    trainer, folder = resumed(flags, given) if flags.resume else started(flags, given)
    config = trainer.config
    print(f"{config.data}: {len(trainer.training)} training images"
          + (f", {len(trainer.validation)} for validation" if trainer.validation else "")
          + f", {len(trainer.training.classes)} classes")
    print(f"{trainer.flat.data.size:,} parameters; images: {trainer.preprocessing}")
    print(f"run folder: {folder}")
    write_settings(trainer, folder / "config.json")
    log = Log(folder / "log.csv", config.log_every, trainer.step, trainer.epoch)
    try:
        finished = train(trainer, folder, log)
    except BaseException as error:
        with suppress(InputError):  # what stopped the run is the news
            close(log, folder)
        if isinstance(error, DivergedError):
            kept = (folder / "last.h5").exists()
            remedy = f"the last good checkpoint is kept: --resume {quote(str(folder))}" if kept else "start again"
            raise InputError(f"{error}; {remedy}") from error
        raise
    close(log, folder)
    if trainer.loader.bad or trainer.bad:
        print(f"left out as damaged: {len(trainer.loader.bad)} training, {len(trainer.bad)} validation images")
    if not finished:
        print(f"stopped at step {trainer.step}, saved; go on with: python train.py --resume {quote(str(folder))}")
        return 130
    test(trainer, folder)
    return 0


def write_settings(trainer: Trainer, path: Path) -> None:
    """Write what the run is made with, as JSON to read; a checkpoint has the same."""
    settings = {"model": asdict(trainer.model.config), "training": asdict(trainer.config),
                "preprocessing": json.loads(trainer.preprocessing.to_json())}
    with scripts.writing(path):
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def close(log: Log, folder: Path) -> None:
    """End the log and draw its curves."""
    log.close()
    curves(read_log(folder / "log.csv"), folder / "curves.png")


def started(flags: argparse.Namespace, given: dict[str, Any]) -> tuple[Trainer, Path]:
    """Start a new run in a folder of its own."""
    config = from_flags(TrainingConfig, flags)
    prepare_kernels(config)
    training, validation = open_data(config)
    if config.init in init.SCHEMES:
        model_config = from_flags(ModelConfig, flags, classes=len(training.classes))
        trainer = Trainer(GoogLeNet(model_config), config, training, validation,
                          images_of(model_config, config, training))
        trainer.initialise()
    else:
        trainer = pretrained(flags, given, config, training, validation)
    folder = new_folder(Path(config.output))
    return trainer, folder


def pretrained(flags: argparse.Namespace, given: dict[str, Any], config: TrainingConfig, training: Dataset,
               validation: Dataset | None) -> Trainer:
    """Begin with the weights of a file: the network and the preprocessing are the file's, the classes the data's."""
    fixed = sorted(given.keys() & ({field.name for field in fields(ModelConfig)} - FREE_WITH_WEIGHTS | OF_WEIGHTS))
    if fixed:
        raise InputError(f"--{fixed[0].replace('_', '-')} can't change beside --init {config.init}, whose network and "
                         "preprocessing are taken; leave it out, or start with --init xavier")
    if config.init not in fetch.PUBLISHED and not file_of(config.init).exists():
        raise InputError(f"--init {config.init}: there is no such file; give {', '.join(init.SCHEMES)}, a file of "
                         f"trained weights, or {', '.join(fetch.PUBLISHED)} to download them")
    found = path_of(config.init)
    try:
        weights = read(found).tested()
    except InputError:
        if "image_size" not in given:
            raise
        weights = read(found, image_size=given["image_size"]).tested()  # of heads on another grid than that of 224
    own = {name: given[name] for name in FREE_WITH_WEIGHTS & given.keys()}
    model_config = replace(weights.config, **{"heads": flags.heads, **own}, classes=len(training.classes))
    preprocessing = weights.preprocessing.at(model_config.image_size)
    trainer = Trainer(GoogLeNet(model_config), config, training, validation, preprocessing)
    fresh = trainer.initialise(weights.arrays, str(found))
    print(f"{found}: {weights.config.variant}, {len(weights.arrays)} arrays; "
          + (f"drawn anew, as classes differ or it lacks them: {', '.join(fresh)}" if fresh else "all of the network"))
    return trainer


def resumed(flags: argparse.Namespace, given: dict[str, Any]) -> tuple[Trainer, Path]:
    """Take up the run of a checkpoint, where it stopped."""
    fixed = sorted(given.keys() - CHANGEABLE - {"resume", "debug"})
    if fixed:
        raise InputError(f"--{fixed[0].replace('_', '-')} can't change when a run is resumed; leave it out, "
                         "or start a new run")
    path = Path(flags.resume)
    path = path / "last.h5" if path.is_dir() else path
    loaded = load_model(path, raw=True)
    changed = {name: value for name, value in given.items() if name in CHANGEABLE}
    config = replace(configuration(loaded, path), **changed)
    prepare_kernels(config)
    training, validation = open_data(config)
    trainer = Trainer(loaded.model, config, training, validation, loaded.preprocessing)
    trainer.restore(loaded)
    if trainer.epoch >= config.epochs:
        raise InputError(f"{path} has all its {config.epochs} epochs behind it; give more --epochs to go on")
    return trainer, path.parent


def prepare_kernels(config: TrainingConfig) -> None:
    """Say how many threads compute, 0 for all cores, and how convolutions do."""
    minigrad.set_threads(config.threads or minigrad.available_threads())
    minigrad.set_convolution(config.conv)


def open_data(config: TrainingConfig) -> tuple[Dataset, Dataset | None]:
    """Open the training images and those of them held out for validation, None without any."""
    training = open_dataset(config.data, "train")
    if config.validation_fraction == 0:
        return training, None
    return split_validation(training, config.validation_fraction, config.seed)


def images_of(network: ModelConfig, config: TrainingConfig, training: Dataset) -> Preprocessing:
    """Return the variant's preprocessing, with the mean of these training images and, to standardise, the deviation."""
    usual = preprocessing_of(network)
    preprocessing = replace(usual, resize=config.resize or usual.resize)
    mean, deviation = channel_statistics(training, limit=MEAN_OF)
    if preprocessing.order == "BGR":
        mean, deviation = mean[::-1], deviation[::-1]
    if not config.standardise:
        return replace(preprocessing, mean=mean)
    return replace(preprocessing, mean=mean, std=deviation)


def new_folder(output: Path) -> Path:
    """Make a folder named after the time, and after a number where that is taken."""
    name = time.strftime("%Y%m%d-%H%M%S")
    with scripts.writing(output):
        output.mkdir(parents=True, exist_ok=True)
        taken = 0
        while True:
            folder = output / (f"{name}-{taken + 1}" if taken else name)
            with suppress(FileExistsError):
                folder.mkdir()
                return folder
            taken += 1


@contextmanager
def stop_on_signal() -> Iterator[list[int]]:
    """Note the first Ctrl-C (or termination) in the list, so that the step can end; the second one interrupts."""
    caught: list[int] = []

    def note(number: int, frame: object) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)
        os.write(2, b"\nstopping after this step; once more stops at once, without saving\n")  # print may be in use

    before = {each: signal.signal(each, note) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def train(trainer: Trainer, folder: Path, log: Log) -> bool:
    """Train to the end, or until a signal, saving last.h5 and best.h5; return whether all epochs are done."""
    saved = time.monotonic()
    steps = trainer.loader.batches
    with (logging_redirect_tqdm(), stop_on_signal() as stop,
          tqdm(total=steps * trainer.config.epochs, initial=steps * trainer.epoch + trainer.batch, unit="step") as bar):
        for record in trainer.records():
            if isinstance(record, Step):
                log.step(record)
                bar.update(steps * record.epoch + trainer.batch - bar.n)
                bar.set_postfix_str(progress(record), refresh=False)
            else:
                log.epoch(record)
                announce(record, trainer)
                if record.best:
                    trainer.save_weights(folder / "best.h5")
            if stop or isinstance(record, Epoch) or time.monotonic() - saved > 60 * trainer.config.save_every:
                log.flush()
                trainer.save(folder / "last.h5")
                saved = time.monotonic()
            if stop:
                return trainer.epoch >= trainer.config.epochs
    return True


def progress(record: Step) -> str:
    """Return the bar's text: the three losses, the rate, the speed."""
    names = {"main": record.losses.main, "aux1": record.losses.aux1, "aux2": record.losses.aux2}
    losses = " ".join(f"{name} {loss:.3f}" for name, loss in names.items() if not math.isnan(loss))
    return f"{losses} lr {record.lr:.4g} {record.images_per_second:.0f} images/s"


def announce(record: Epoch, trainer: Trainer) -> None:
    """Print a line for an epoch, and its warnings."""
    line = f"epoch {record.epoch + 1}/{trainer.config.epochs}  loss {record.losses.main:.4f}"
    if record.validation is not None:
        line += (f"  validation: loss {record.validation.loss:.4f}, top-1 error {record.validation.top1_error:.2%}, "
                 f"top-5 error {record.validation.top5_error:.2%}")
    if record.averaged is not None:
        line += f"; averaged weights: loss {record.averaged.loss:.4f}, top-1 error {record.averaged.top1_error:.2%}"
    tqdm.write(line + ("  (best so far)" if record.best and record.validation is not None else ""))
    for warning in record.warnings:
        tqdm.write(f"warning: {warning}")


def test(trainer: Trainer, folder: Path) -> None:
    """Score the best weights on the test images, which nothing has looked at until now."""
    data, best = trainer.config.data, folder / "best.h5"
    try:
        images = open_dataset(data, "test")
    except DataError as error:
        print(f"no test images: {error}")
    else:
        if trainer.average:
            print("the averaged weights are tested, here and by evaluate.py and predict, where --raw takes the others")
        result = score([load(best)], images, 1, threads=trainer.config.loader_threads, max_bad=trainer.config.max_bad)
        print(f"test: top-1 error {result.top1_error:.2%}, top-5 error {result.top5_error:.2%} "
              f"({result.images} images, centre crop)")
    source = "" if data == "embedded" else f" --data {quote(data)}"
    print(f"curves: {folder / 'curves.png'}")
    print(f"evaluate with: python evaluate.py --weights {quote(str(best))}{source} --crops 144")


if __name__ == "__main__":
    scripts.run(main, "train.py")
