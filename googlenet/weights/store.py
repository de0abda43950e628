"""Our weight files: HDF5 with the weights under `weights/`, by the paths of their attributes in the network.

What evaluation needs travels as attributes: the configuration (with the variant), the class names, the preprocessing;
and, for converted weights, where each array came from. Averaged weights stand beside the raw ones under `averaged/`;
the attribute `tested` says which of the two are for testing. A checkpoint is such a file with more groups and
attributes: the optimiser's state, the place in the data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from typing import Any, TypeVar

import numpy as np

from data.errors import DataError
from data.preprocess import Preprocessing
from googlenet.config import ModelConfig, from_json, to_json
from googlenet.model import GoogLeNet
from googlenet.weights.weights import Source, Weights
from minigrad import hdf5
from minigrad.errors import InputError

T = TypeVar("T")
Attribute = str | int | float
OWN = ("model", "variant", "classes", "preprocessing")
SOURCE, TESTED = "source", "tested"
GROUP, AVERAGED = "weights/", "averaged/"


@dataclass(frozen=True)
class Stored:
    """What a file of ours holds: `averaged` is empty where none was kept, `arrays` and `attributes` are the rest.

    `for_testing` is "averaged", where there are any, or "raw"."""

    weights: Weights
    averaged: dict[str, np.ndarray] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    attributes: dict[str, Attribute] = field(default_factory=dict)
    for_testing: str = "averaged"

    def tested(self, raw: bool = False) -> Weights:
        """Return the weights to test with: those that the file says, or the `raw` ones."""
        raw = raw or self.for_testing == "raw" or not self.averaged
        return self.weights if raw else replace(self.weights, arrays=self.averaged)


def save(path: str | PathLike[str], weights: Weights, *, averaged: Mapping[str, np.ndarray] | None = None,
         tested: str = "averaged", arrays: Mapping[str, np.ndarray] | None = None,
         attributes: Mapping[str, Attribute] | None = None) -> None:
    """Write the weights, whole or not at all; `arrays` and `attributes` are kept beside them under their own names.

    Of raw weights and `averaged` ones, `tested` says which are for testing: "averaged" or "raw".

    Raises InputError where the class names are not as many as the network's classes, a name is taken, or the file
    can't be written."""
    classes = weights.config.classes
    if len(weights.classes) != classes:
        raise InputError(f"{len(weights.classes)} class names for a network of {classes} classes: "
                         "give one name for each class")
    averaged, arrays, attributes = averaged or {}, arrays or {}, attributes or {}
    taken = [name for name in arrays if name.startswith((GROUP, AVERAGED))]
    taken += [name for name in attributes if name in (*OWN, SOURCE, TESTED)]
    if taken:
        raise InputError(f"{', '.join(taken)}: these names are the network's own, choose others")
    own = dict(zip(OWN, (to_json(weights.config), weights.config.variant, json.dumps(list(weights.classes)),
                         weights.preprocessing.to_json()), strict=True))
    if averaged:
        own[TESTED] = tested
    if weights.source:
        own[SOURCE] = json.dumps(asdict(weights.source))
    named = {GROUP + name: array for name, array in weights.arrays.items()}
    named |= {AVERAGED + name: array for name, array in averaged.items()}
    hdf5.save(path, {**named, **arrays}, {**own, **attributes})


def save_weights(path: str | PathLike[str], model: GoogLeNet, *, preprocessing: Preprocessing, classes: Sequence[str],
                 **more: Any) -> None:
    """Write a network, whole or not at all; `more`, and what is raised, as in `save`."""
    save(path, Weights(model.config, model.state(), tuple(classes), preprocessing), **more)


def read(path: str | PathLike[str]) -> Stored:
    """Return what a file of ours holds.

    Raises InputError for a file that is missing, damaged, foreign, or at odds with itself."""
    arrays, attributes = hdf5.load(path)
    absent = [name for name in OWN if not isinstance(attributes.get(name), str)]
    if absent:
        raise InputError(f"{path} has no {', '.join(absent)}: it is no GoogLeNet file of this program; "
                         "take one that train.py or convert wrote")
    own = {name: str(attributes[name]) for name in OWN}
    try:
        config = from_json(ModelConfig, own["model"])
        classes = tuple(map(str, json.loads(own["classes"])))
        preprocessing = Preprocessing.from_json(own["preprocessing"])
        source = _source(str(attributes[SOURCE])) if SOURCE in attributes else None
    except (InputError, DataError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{path}: {error}") from error
    if len(classes) != config.classes:
        raise InputError(f"{path} names {len(classes)} classes for a network of {config.classes}: write it again")
    weights = Weights(config, below(GROUP, arrays), classes, preprocessing, source)
    rest = {name: array for name, array in arrays.items() if not name.startswith((GROUP, AVERAGED))}
    others = {name: value for name, value in attributes.items() if name not in (*OWN, SOURCE, TESTED)}
    return Stored(weights, below(AVERAGED, arrays), rest, others, str(attributes.get(TESTED, "averaged")))


def below(group: str, named: Mapping[str, T]) -> dict[str, T]:
    """Return what is in a group, by the names in it."""
    return {name.removeprefix(group): value for name, value in named.items() if name.startswith(group)}


def _source(text: str) -> Source:
    known = json.loads(text)
    return Source(**{**known, "notes": tuple(known["notes"])})
