"""Networks to predict with, as `predict` and evaluate.py open them: the flags, and what is told of each."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from data.preprocess import PREPROCESSINGS
from googlenet.commands.files import (
    PREPROCESS_HELP,
    WEIGHTS_HELP,
    add_classes,
    add_image_size,
    class_names,
    named_preprocessing,
    path_of,
)
from googlenet.inference import Predictor
from googlenet.weights import LoadedModel, read
from googlenet.weights.files import sha256
from googlenet.weights.inspection import OURS
from googlenet.weights.weights import Weights
from minigrad import hdf5
from minigrad.errors import InputError

log = logging.getLogger(__name__)


class Network(NamedTuple):
    """A network and what its file is; `told` is fit for JSON."""

    predictor: Predictor
    told: dict[str, str]
    usual: str = ""  # which of raw and averaged weights its file says are for testing, where it has both

    def __str__(self) -> str:
        which = f", its {self.told['tested']} weights" if self.usual else ""
        return "{file}: {variant} ({format}){which}, {preprocessing}".format(**self.told, which=which)


def add_flags(parser: argparse.ArgumentParser, *, several: bool) -> None:
    """Add --weights, --preprocess, --classes, --image-size, --raw and --averaged."""
    help_ = f"a run's folder or its best.h5; {WEIGHTS_HELP}"
    if several:
        help_ += "; several, or the folder of train.py --ensemble, are an ensemble"
    parser.add_argument("--weights", nargs="+" if several else None, required=True, metavar="FILE", help=help_)
    parser.add_argument("--preprocess", choices=PREPROCESSINGS, help=PREPROCESS_HELP)
    add_classes(parser)
    add_image_size(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--raw", action="store_true", help="the weights of the last step, where the file has their "
                       "average too (default: what train.py's --tested was)")
    which.add_argument("--averaged", action="store_true", help="the average")


def open_networks(weights: Sequence[str], flags: argparse.Namespace) -> list[Network]:
    """Open weights, and say where --raw or --averaged changes nothing.

    Raises InputError where two are the same, and as below."""
    opened: dict[str, Network] = {}
    for text in weights:
        network = open_network(text, flags)
        other = opened.setdefault(network.told["sha256"], network)
        if other is not network:
            raise InputError(f"{network.told['file']}: the same weights as {other.told['file']}, which is given too: "
                             "give each network once")
    wanted = "raw" if flags.raw else "averaged" if flags.averaged else ""
    if wanted and not any(each.usual not in ("", wanted) for each in opened.values()):
        log.info("--%s changes nothing: a file without an average has one kind of weights, and others are tested so "
                 "anyhow", wanted)
    return list(opened.values())


def open_network(text: str, flags: argparse.Namespace) -> Network:
    """Open the weights that `text` names, as the flags of `add_flags` say. Raises InputError where they are none."""
    path = path_of(text)
    stored = read(path, image_size=flags.image_size)
    usual = stored.for_testing if stored.averaged else ""
    weights = (replace(stored, for_testing="averaged") if flags.averaged else stored).tested(flags.raw)
    if flags.classes:
        weights = replace(weights, classes=class_names(flags.classes, weights))
    if flags.preprocess:
        weights = replace(weights, preprocessing=named_preprocessing(flags.preprocess, weights.config))
    loaded = LoadedModel(weights.model(str(path)), weights.classes, weights.preprocessing)
    told = {"file": str(path), "variant": weights.config.variant, "format": _format(path, weights),
            "sha256": sha256(path), "preprocessing": str(weights.preprocessing)}
    if usual:
        told["tested"] = "raw" if flags.raw else "averaged" if flags.averaged else usual
    return Network(Predictor(loaded), told, usual)


def _format(path: Path, weights: Weights) -> str:
    source = weights.source
    if not hdf5.is_ours(path):
        return source.format if source else ""
    return f"{OURS}, from {source.file}, {source.format}" if source else OURS
