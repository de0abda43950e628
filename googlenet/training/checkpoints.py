"""What of a training is in a file, and how it comes back: all that it needs to go on as if it had not stopped.

    weights/ averaged/          the network, as in every file of weights (googlenet/weights/store.py)
    velocity/ average/ losses   state of SGD (of Adagrad: squares/), of the average, and the losses of the epoch's steps
    good/                       all of these at the place that training would go back to (guard.py)
    attributes                  the place in the data, the best validation, the configuration, ...; good.step, ...
"""
from __future__ import annotations

import json
import zlib
from os import PathLike
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from data.base import Dataset
from googlenet.config import TrainingConfig, from_json, to_json
from googlenet.training.records import Losses
from googlenet.weights import LoadedModel, save_weights
from googlenet.weights.store import Attribute, below
from minigrad.averaging import TailMean
from minigrad.errors import InputError

if TYPE_CHECKING:
    from googlenet.training.trainer import Trainer

PLACE = ("step", "epoch", "batch", "images")
WEIGHTS = "weights/"
GOOD = "good"


class State(NamedTuple):
    """What steps change: arrays and numbers by name. Its arrays may be the trainer's own."""

    arrays: dict[str, np.ndarray]
    numbers: dict[str, Attribute]

    def copy(self) -> State:
        """Return a state that later steps leave alone."""
        return State({name: array.copy() for name, array in self.arrays.items()}, dict(self.numbers))


def state_of(trainer: Trainer) -> State:
    """Return the state of a trainer, but for the weights."""
    optimiser = trainer.optimiser
    arrays = {f"{optimiser.named}/{path}": view for path, view in trainer.flat.views(optimiser.memory).items()}
    arrays["losses"] = np.array(trainer.losses, np.float64).reshape(-1, len(Losses._fields))
    numbers: dict[str, Attribute] = {name: getattr(trainer, name) for name in PLACE}
    numbers["best_error"], numbers["best_loss"] = trainer.best
    numbers |= trainer.own_state()
    if trainer.average:
        own, settings = trainer.average.state()
        arrays |= {f"average/{path}": array for path, array in own.items()}
        numbers |= {f"average.{name}": value for name, value in settings.items()}
    return State(arrays, numbers)


def take_over(trainer: Trainer, state: State) -> None:
    """Put a trainer into a state; its weights are those of the state already."""
    arrays, numbers = state
    for path, view in trainer.flat.views(trainer.optimiser.memory).items():
        view[...] = arrays[f"{trainer.optimiser.named}/{path}"]
    if trainer.average:
        settings = {name: float(value) for name, value in below("average.", numbers).items()}
        if isinstance(trainer.average, TailMean):  # which begins where it began, though the run be made longer
            trainer.average.start = int(settings.get("start", trainer.average.start))
        trainer.average.restore(below("average/", arrays), settings)
    for name in PLACE:
        setattr(trainer, name, int(numbers[name]))
    trainer.best = float(numbers["best_error"]), float(numbers["best_loss"])
    trainer.losses = [Losses(*row) for row in arrays["losses"].tolist()]
    trainer.take_over(numbers)


def with_weights(trainer: Trainer) -> State:
    """Return a copy of the whole state of a trainer, weights and running statistics included."""
    arrays, numbers = state_of(trainer)
    weights = {WEIGHTS + path: array for path, array in trainer.model.state().items()}
    return State(weights | arrays, numbers).copy()


def put_back(trainer: Trainer, state: State) -> None:
    """Put a trainer into a state that `with_weights` returned."""
    for path, own in trainer.model.state().items():
        own[...] = state.arrays[WEIGHTS + path]
    take_over(trainer, state)


def save(trainer: Trainer, path: str | PathLike[str]) -> None:
    """Write a checkpoint, whole or not at all. Raises InputError where the file can't be written."""
    arrays, numbers = state_of(trainer)
    good = trainer.guard.beside()
    if good:
        arrays |= {f"{GOOD}/{name}": array for name, array in good.arrays.items()}
        numbers |= {f"{GOOD}.{name}": value for name, value in good.numbers.items()}
    attributes: dict[str, Attribute] = {
        "training": to_json(trainer.config), "data": trainer.fingerprint, "bad": json.dumps(trainer.loader.bad),
        "fresh": json.dumps(trainer.fresh), "halvings": trainer.guard.halvings}
    save_weights(path, trainer.model, preprocessing=trainer.preprocessing, classes=trainer.training.classes,
                 averaged=trainer.averaged(), tested=trainer.config.tested, arrays=arrays,
                 attributes={**numbers, **attributes})


def restore(trainer: Trainer, loaded: LoadedModel) -> None:
    """Take over the state of a checkpoint: see `Trainer.restore`."""
    attributes, arrays = loaded.attributes, loaded.arrays
    if attributes["data"] != trainer.fingerprint:
        raise InputError(f"the checkpoint was trained on {attributes['data']}, {trainer.config.data} holds "
                         f"{trainer.fingerprint}; resume with the data it was trained on")
    trainer.set_fresh(json.loads(str(attributes["fresh"])))
    good = below(f"{GOOD}/", arrays)
    if good:
        trainer.guard.good = State(good, below(f"{GOOD}.", attributes))
    trainer.guard.halvings = int(attributes["halvings"])
    take_over(trainer, State(arrays, attributes))
    trainer.loader.bad.update(json.loads(str(attributes["bad"])))


def configuration(loaded: LoadedModel, path: str | PathLike[str]) -> TrainingConfig:
    """Return how a checkpoint was trained. Raises InputError where the file at `path` is none."""
    if "training" not in loaded.attributes:
        raise InputError(f"{path} holds weights but no state of training; resume from the run's last.h5")
    return from_json(TrainingConfig, str(loaded.attributes["training"]))


def fingerprint(dataset: Dataset) -> str:
    """Return what tells one set of images from another: their labels, their names and those of the classes."""
    names = "\0".join([*dataset.classes, "", *dataset.names]).encode("utf-8", "surrogatepass")
    return f"{len(dataset)} images (labels and names {zlib.crc32(names, zlib.crc32(dataset.labels.tobytes())):08x})"
