"""What is asked: each choice of the paper, and what a run changes of the base to do without it.

A base network and its recipe are varied in one thing at a time. Each variation is trained from several seeds, which
choose the initial weights, the order of images, their crops and dropout; the base from the same ones. Nothing is held
out and nothing is chosen on the way: the weights of the last step are tested, or their average.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, NamedTuple

from googlenet import presets
from googlenet.config import ModelConfig, TrainingConfig

BASE = "base"
SIZE, WIDTH, EPOCHS, SEEDS = 48, 0.5, 5, 3


class Question(NamedTuple):
    """What is asked, where the paper speaks of it, and what of it the base has."""

    title: str
    source: str
    base: str


class Variation(NamedTuple):
    """An answer to a question: the run's name, the settings in which it differs from the base (`width` as a factor),
    which of the run's weights are tested, and the run whose last weights it is compared with."""

    question: str
    label: str
    run: str
    changes: Mapping[str, Any]
    averaged: bool = False
    against: str = BASE


QUESTIONS = {
    "heads":        Question("auxiliary heads", "section 5", "two, at 4a and 4d"),
    "classifier":   Question("before the classifier", "section 5", "average pool"),
    "module":       Question("Inception module", "section 4, Fig. 2", "reduced (2b)"),
    "width":        Question("width, of the base's", "section 3", "1"),
    "augmentation": Question("training images", "section 6", "mirrored"),
    "averaging":    Question("weights tested", "section 6", "last step, rate falls to 0"),
}  # fmt: skip

STEADY = {"schedule": "step"}  # the paper's: 4 % every 8 epochs
VARIATIONS = (
    Variation("heads",        "none",                        "no-heads",        {"heads": "none"}),
    Variation("heads",        "one, at 4a",                  "head-4a",         {"heads": "aux1"}),
    Variation("heads",        "one, at 4d",                  "head-4d",         {"heads": "aux2"}),
    Variation("classifier",   "fully connected layer",       "fully-connected", {"classifier": "fully_connected"}),
    Variation("module",       "naive (2a)",                  "naive",           {"module": "naive"}),
    Variation("width",        "1/2",                         "width-half",      {"width": 0.5}),
    Variation("width",        "1/4",                         "width-quarter",   {"width": 0.25}),
    Variation("augmentation", "as they are",                 "no-augmentation", {"augment": "none"}),
    Variation("augmentation", "the paper's crops, colours",  "paper-crops",     {"augment": "paper"}),
    Variation("averaging",    "average, rate falls to 0",    BASE,              {}, averaged=True),
    Variation("averaging",    "last step, the paper's rate", "paper-rate",      STEADY),
    Variation("averaging",    "its average",                 "paper-rate",      STEADY, True, against="paper-rate"),
)  # fmt: skip
BASE_ROW = Variation("", "base", BASE, {})


def base(own: Mapping[str, Any]) -> tuple[TrainingConfig, ModelConfig]:
    """Return the base's settings: the recipe of the embedded images with nothing held out and with averaging, which
    changes nothing of the training; but for those of `own`."""
    chosen = {"image_size": SIZE, "width": WIDTH, "epochs": EPOCHS, "validation_fraction": 0.0, "averaging": "tail",
              "log_every": 1, **own}
    settings = asdict(ModelConfig()) | asdict(TrainingConfig()) | chosen
    presets.apply("embedded", settings, chosen)
    training, network = ({item.name: settings[item.name] for item in fields(config)}
                         for config in (TrainingConfig, ModelConfig))
    return TrainingConfig(**training), ModelConfig(**network)
