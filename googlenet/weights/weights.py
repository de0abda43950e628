"""The weights of a network, wherever they came from, with all that must travel with them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from data.preprocess import Preprocessing
from googlenet.config import ModelConfig
from googlenet.model import GoogLeNet
from googlenet.weights.fitting import apply


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

    def model(self, file: str = "the weights") -> GoogLeNet:
        """Build the network, in evaluation mode.

        Raises InputError, which names `file`, for arrays that do not fit or values that are not finite."""
        made = GoogLeNet(self.config)
        apply(made, self.arrays, file)
        return made.eval()
