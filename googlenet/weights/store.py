"""Our weight files: HDF5 with the weights under `weights/`, by the paths of their attributes in the network.

What evaluation needs travels as attributes: the configuration (with the variant), the class names, the preprocessing.
A checkpoint is such a file with more groups and attributes: the optimiser's state, the place in the data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike

import numpy as np

from data.errors import DataError
from data.preprocess import Preprocessing
from googlenet.config import ModelConfig, from_json, to_json
from googlenet.model import GoogLeNet
from googlenet.weights.fitting import apply
from minigrad import hdf5
from minigrad.errors import InputError

Attribute = str | int | float
OWN = ("model", "variant", "classes", "preprocessing")
GROUP = "weights/"


@dataclass(frozen=True)
class LoadedModel:
    """A network with its weights, and what travels with them; `arrays` and `attributes` are what else the file had."""

    model: GoogLeNet
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    attributes: dict[str, Attribute] = field(default_factory=dict)


def save_weights(path: str | PathLike[str], model: GoogLeNet, *, preprocessing: Preprocessing, classes: Sequence[str],
                 arrays: Mapping[str, np.ndarray] | None = None,
                 attributes: Mapping[str, Attribute] | None = None) -> None:
    """Write the network, whole or not at all; `arrays` and `attributes` are kept beside it under their own names.

    Raises InputError where the class names are not as many as the network's classes, a name is taken, or the file
    can't be written."""
    if len(classes) != model.config.classes:
        raise InputError(f"{len(classes)} class names for a network of {model.config.classes} classes: "
                         "give one name for each class")
    arrays, attributes = arrays or {}, attributes or {}
    taken = [name for name in arrays if name.startswith(GROUP)] + [name for name in attributes if name in OWN]
    if taken:
        raise InputError(f"{', '.join(taken)}: these names are the network's own, choose others")
    own = dict(zip(OWN, (to_json(model.config), model.config.variant, json.dumps(list(classes)),
                         preprocessing.to_json()), strict=True))
    weights = {GROUP + name: parameter.data for name, parameter in model.named_parameters()}
    hdf5.save(path, {**weights, **arrays}, {**own, **attributes})


def load_model(path: str | PathLike[str]) -> LoadedModel:
    """Build the network that a file describes and fill it, in evaluation mode.

    Raises InputError for a file that is missing, damaged, foreign, or at odds with itself."""
    arrays, attributes = hdf5.load(path)
    absent = [name for name in OWN if not isinstance(attributes.get(name), str)]
    if absent:
        raise InputError(f"{path} has no {', '.join(absent)}: it is no GoogLeNet file of this program; "
                         "take one that train.py wrote")
    own = {name: str(attributes[name]) for name in OWN}
    try:
        config = from_json(ModelConfig, own["model"])
        classes = tuple(map(str, json.loads(own["classes"])))
        preprocessing = Preprocessing.from_json(own["preprocessing"])
    except (InputError, DataError, ValueError, TypeError) as error:
        raise InputError(f"{path}: {error}") from error
    if len(classes) != config.classes:
        raise InputError(f"{path} names {len(classes)} classes for a network of {config.classes}: write it again")
    model = GoogLeNet(config)
    weights = {name.removeprefix(GROUP): array for name, array in arrays.items() if name.startswith(GROUP)}
    apply(model, weights, str(path))
    model.eval()
    return LoadedModel(model, classes, preprocessing,
                       {name: array for name, array in arrays.items() if not name.startswith(GROUP)},
                       {name: value for name, value in attributes.items() if name not in OWN})
