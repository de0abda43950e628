"""The weights of a network, wherever they came from, with all that must travel with them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from data.preprocess import Preprocessing
from googlenet.config import ModelConfig
from googlenet.model import GoogLeNet, has_batch_norm
from googlenet.weights.fitting import apply, require_same


@dataclass(frozen=True)
class Source:
    """Where weights came from: the file's name, format and SHA-256, and for each array its name and layout there."""

    file: str
    format: str
    sha256: str
    arrays: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what was done or left out on the way


@dataclass(frozen=True)
class Weights:
    """Arrays by canonical name, in our layouts and the precision they were trained in; `source` is None for our own."""

    config: ModelConfig
    arrays: dict[str, np.ndarray]
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    source: Source | None = None

    def model(self, file: str = "") -> GoogLeNet:
        """Build the network, in evaluation mode.

        Raises InputError, which names `file`, for arrays that do not fit or values that are not finite."""
        made = GoogLeNet(self.config)
        apply(made, self.arrays, file or self._file)
        return made.eval()

    def folded(self) -> Weights:
        """Return weights of the same function in testing, to rounding, with batch norms folded into the convolutions.

        Other than `model` it takes values that are not finite. Raises InputError for arrays that do not fit."""
        made = GoogLeNet(self.config)
        own = made.state()
        require_same({path: array.shape for path, array in own.items()},
                     {path: array.shape for path, array in self.arrays.items()}, self._file, "Use another copy of it.")
        if not has_batch_norm(self.config):
            return self
        for path, array in own.items():
            array[...] = self.arrays[path]
        made = made.folded()
        return replace(self, config=made.config, arrays=made.state())

    @property
    def _file(self) -> str:
        return self.source.file if self.source else "the weights"
