"""A run of training: started anew, from trained weights, or taken up where it stopped; and the folder it writes.

    config.json   what the run is made with, to read
    last.h5       to go on from; epoch-0007.h5, ... are those of earlier epochs, where --keep asks for them
    best.h5       the weights of the lowest validation error
    log.csv       losses, rates and validation; curves.png draws them
    test.json     the errors of best.h5 on the test images, at the end
"""
from __future__ import annotations

import json
import math
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import minigrad
from data.base import Dataset
from data.locks import locked, unlock
from data.preprocess import Preprocessing, channel_statistics
from googlenet.config import ModelConfig, TrainingConfig
from googlenet.distbelief.trainer import made
from googlenet.model import GoogLeNet, preprocessing_of
from googlenet.scripts import writing
from googlenet.training import Trainer, configuration
from googlenet.training.images import open_data
from googlenet.training.memory import require_memory
from googlenet.weights import load_model, read
from googlenet.weights.fetch import PUBLISHED, resolve
from googlenet.weights.files import file_of
from googlenet.weights.fitting import spans
from minigrad import init
from minigrad.errors import InputError

OF_WORKERS = frozenset({  # what does nothing where one process trains
    "shards", "fetch_every", "push_every", "overlap", "staleness_lr", "look_ahead", "warm_start", "sync",
    "backup_workers", "max_restarts", "hang_timeout", "push_log"})
CHANGEABLE = OF_WORKERS | {  # of a resumed run
    "data", "epochs", "lr", "threads", "conv", "loader_threads", "max_bad", "save_every", "log_every", "keep",
    "report", "tensorboard", "workers", "cluster"}
FREE_WITH_WEIGHTS = frozenset({"image_size", "heads", "dropout", "aux_dropout", "dtype"})  # beside --init FILE
OF_WEIGHTS = frozenset({"resize", "standardise"})  # flags of training that the file's preprocessing decides
MEAN_OF = 2000  # training images that the mean and the deviation are taken over


class Files:
    """The files in the folder of a run."""

    folder: Path

    @property
    def last(self) -> Path:
        """The checkpoint to go on from."""
        return self.folder / "last.h5"

    @property
    def best(self) -> Path:
        """The weights of the lowest validation error."""
        return self.folder / "best.h5"

    @property
    def log(self) -> Path:
        """The losses of the steps and epochs."""
        return self.folder / "log.csv"

    @property
    def pushes(self) -> Path:
        """The gradients that were applied, where --push-log asks for them."""
        return self.folder / "pushes.log"

    @property
    def curves(self) -> Path:
        """The picture of the log."""
        return self.folder / "curves.png"


@dataclass(frozen=True)
class Run(Files):
    """A network in training and the folder it writes; `notes` tell how it began."""

    trainer: Trainer
    folder: Path
    notes: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether all epochs are behind it."""
        return self.trainer.epoch >= self.trainer.config.epochs


def started(config: TrainingConfig, network: ModelConfig, given: Mapping[str, Any],
            folder: Path | None = None) -> Run:
    """Begin a run in `folder`, or in a new one of its own below `config.output`, made when all else is well.

    The network's number of classes is the data's. With `init` a file of trained weights, the network and the
    preprocessing are the file's; `given` are the flags that were chosen, which must not contradict. Raises InputError
    and DataError for data or weights that can't be used, or where the memory does not suffice."""
    prepare_kernels(config)
    training, validation = open_data(config)
    notes: tuple[str, ...] = ()
    if config.init in init.SCHEMES:
        network = replace(network, classes=len(training.classes))
        trainer = made(GoogLeNet(network), config, training, validation, images_of(network, config, training))
        trainer.initialise()
    else:
        trainer, note = pretrained(config, network, given, training, validation)
        notes = (note,)
    memory = require_memory(trainer)
    return Run(trainer, folder or new_folder(Path(config.output)), (*notes, f"memory: about {memory}"))


def pretrained(config: TrainingConfig, network: ModelConfig, given: Mapping[str, Any], training: Dataset,
               validation: Dataset | None) -> tuple[Trainer, str]:
    """Begin with the weights of a file: the network and the preprocessing are the file's, the classes the data's."""
    if config.init not in PUBLISHED and not file_of(config.init).exists():
        raise InputError(f"--init {config.init}: there is no such file; give {', '.join(init.SCHEMES)}, a file of "
                         f"trained weights, or {', '.join(PUBLISHED)} to download them")
    config = replace(config, **{name: getattr(TrainingConfig, name) for name in OF_WEIGHTS})  # the file decides
    fixed = sorted(given.keys() & ({field.name for field in fields(ModelConfig)} - FREE_WITH_WEIGHTS | OF_WEIGHTS))
    if fixed:
        raise InputError(f"--{fixed[0].replace('_', '-')} can't change beside --init {config.init}, whose network and "
                         "preprocessing are taken; leave it out, or start with --init xavier")
    found = resolve(config.init)
    try:
        weights = read(found).tested()
    except InputError:
        if "image_size" not in given:
            raise
        weights = read(found, image_size=given["image_size"]).tested()  # of heads on another grid than that of 224
    own = {name: given[name] for name in FREE_WITH_WEIGHTS & given.keys()}
    model_config = replace(weights.config, **{"heads": network.heads, **own}, classes=len(training.classes))
    preprocessing = weights.preprocessing.at(model_config.image_size)
    trainer = made(GoogLeNet(model_config), config, training, validation, preprocessing)
    fresh = trainer.initialise(weights.arrays, str(found))
    own = trainer.model.state()
    taken = {path for path in own.keys() & weights.arrays if path.rpartition("/")[0] not in fresh}
    told = [f"{len(taken)} of its {len(weights.arrays)} arrays are taken: {spans(taken, own)}"]
    if fresh:
        told.append(f"drawn anew, as classes differ or it lacks them: {', '.join(fresh)}")
    return trainer, f"{found}: {weights.config.variant}; {'; '.join(told)}"


def resumed(where: str, changed: Mapping[str, Any]) -> Run:
    """Take up a run, given its folder or its checkpoint, where it stopped; `changed` are settings of CHANGEABLE.

    One that has ended is taken up too: what was to follow its last checkpoint may be missing. Raises InputError for a
    setting that can't change."""
    fixed = sorted(changed.keys() - CHANGEABLE)
    if fixed:
        raise InputError(f"--{fixed[0].replace('_', '-')} can't change when a run is resumed; leave it out, "
                         "or start a new run")
    path = Path(where)
    path = path / "last.h5" if path.is_dir() else path
    loaded = load_model(path, raw=True)
    config = replace(configuration(loaded, path), **changed)
    without = sorted(changed.keys() & OF_WORKERS) if config.workers == 1 and not config.cluster else []
    if without:
        raise InputError(f"--{without[0].replace('_', '-')}: it is of several workers: give --workers 2 or more, or "
                         "leave it out")
    prepare_kernels(config)
    training, validation = open_data(config)
    trainer = made(loaded.model, config, training, validation, loaded.preprocessing)
    trainer.restore(loaded)
    run = Run(trainer, path.parent)
    if not run.best.exists():
        trainer.best = math.inf, math.inf  # the next epoch is the best of this folder
    if path == run.last and trainer.epoch and not trainer.batch:
        keep_epoch(run)  # which it may have been killed before
    if run.ended:
        return run
    place = f"going on at step {trainer.step:,}, epoch {trainer.epoch + 1} of {config.epochs}"
    return replace(run, notes=(place, f"memory: about {require_memory(trainer)}"))


def prepare_kernels(config: TrainingConfig) -> None:
    """Say how many threads compute, 0 for all cores, and how convolutions do."""
    most = minigrad.available_threads()
    alone = config.workers == 1 and not config.cluster
    threads = config.threads if alone else min(most, config.threads * config.workers)
    minigrad.set_threads(threads or most)
    minigrad.set_convolution(config.conv)


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
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        taken = 0
        while True:
            folder = output / (f"{name}-{taken + 1}" if taken else name)
            with suppress(FileExistsError):
                folder.mkdir()
                return folder
            taken += 1


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes from training into a run's folder.

    Raises InputError where one does already."""
    with writing(folder), open(folder / ".lock", "ab") as file:
        if not locked(file.fileno()):
            raise InputError(f"{folder}: another process trains this run; wait until it ends, or stop it")
        try:
            yield
        finally:
            unlock(file.fileno())


def write_settings(run: Run) -> None:
    """Write what the run is made with, as JSON to read; a checkpoint has the same."""
    trainer, path = run.trainer, run.folder / "config.json"
    settings = {"model": asdict(trainer.model.config), "training": asdict(trainer.config),
                "preprocessing": json.loads(trainer.preprocessing.to_json())}
    with writing(path):
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def keep_epoch(run: Run) -> None:
    """Keep last.h5 as that of the epoch which has just ended; of the kept ones the latest --keep stay."""
    keep, epoch = run.trainer.config.keep, run.trainer.epoch
    if not keep:
        return
    kept = run.folder / f"epoch-{epoch:04}.h5"
    with writing(kept):
        kept.unlink(missing_ok=True)
        try:
            os.link(run.last, kept)  # the next checkpoint replaces last.h5, it does not write into it
        except OSError:  # a file system without links
            shutil.copyfile(run.last, kept)
        found = {path: re.fullmatch(r"epoch-(\d+)\.h5", path.name) for path in run.folder.iterdir()}
        numbers = {int(match[1]): path for path, match in found.items() if match}
        for number in sorted(number for number in numbers if number <= epoch)[:-keep]:
            numbers[number].unlink()
