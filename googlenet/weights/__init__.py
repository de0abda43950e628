"""Weight files: ours (`store`), and those of other frameworks, read in two steps.

`formats/` has the containers (Caffe's, torch's, ...), which know nothing of networks: a file's arrays under its own
names. `schemes` has the frameworks' names, whatever container they come in; `placing` finds our arrays by them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np

from data.preprocess import Preprocessing
from googlenet.model import GoogLeNet
from googlenet.weights import placing, store
from googlenet.weights.configuration import require_size
from googlenet.weights.files import sha256
from googlenet.weights.fitting import apply
from googlenet.weights.store import Attribute, Stored, save, save_weights
from googlenet.weights.weights import Source, Weights
from minigrad import hdf5

__all__ = ["LoadedModel", "Source", "Stored", "Weights", "apply", "load_model", "read", "save", "save_weights"]


@dataclass(frozen=True)
class LoadedModel:
    """A network with its weights, and what travels with them; `arrays` and `attributes` are what else the file had."""

    model: GoogLeNet
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    attributes: dict[str, Attribute] = field(default_factory=dict)


def read(path: str | PathLike[str], *, image_size: int | None = None) -> Stored:
    """Return the weights of a file of ours or of another framework, recognised by its content.

    `image_size` is for foreign files that do not tell it; without it, it is 224. Raises InputError for a file that is
    missing, damaged, of no known format, that does not hold a GoogLeNet, or that tells of another image size."""
    if hdf5.is_ours(path):
        stored = store.read(path)
        require_size(stored.weights.config, image_size, str(path))
        return stored
    from googlenet.weights import formats  # here, as our own files need none of its readers

    contents = formats.read(Path(path))
    return Stored(placing.place(contents, str(path), sha256(path), image_size=image_size))


def load_model(path: str | PathLike[str], *, raw: bool = False, image_size: int | None = None) -> LoadedModel:
    """Return the network of any weight file, in evaluation mode: with the weights that are for testing, or `raw`.

    `image_size` as in `read`. Raises InputError as `read` does, and for weights that are not finite."""
    stored = read(path, image_size=image_size)
    weights = stored.tested(raw)
    return LoadedModel(weights.model(str(path)), weights.classes, weights.preprocessing, stored.arrays,
                       stored.attributes)
