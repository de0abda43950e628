"""What a contender is asked to do, the same for all, and what it is asked to do it on.

A peer's process imports this file and NumPy, and nothing of minigrad: the memory it takes is its own.
"""
from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

CLASSES = 1000
CHUNK = 16  # crops at a time
AUX_WEIGHT = 0.3  # of the losses of both heads (paper, section 5)
RATE, MOMENTUM, DECAY = 1e-6, 0.9, 2e-4  # so low a rate that all networks stay as they are over many steps


@dataclass(frozen=True)
class Job:
    """`work` is prepare, training, inference, crops or first_step; `folder` holds what the session wrote for all."""

    contender: str
    work: str
    batch: int
    size: int  # of the images' sides, in pixels
    threads: int
    folder: str

    def to_json(self) -> str:
        """Return the job as the one argument of its process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Read `to_json`'s text."""
        return cls(**json.loads(text))

    def file(self, name: str) -> Path:
        """Return the path of a file that contenders share."""
        return Path(self.folder) / name

    def weights(self) -> dict[str, np.ndarray]:
        """Return our weights {path: array}, each read when it is asked for: (KH, KW, C, O), (C, O), (O,)."""
        return np.load(self.file("weights.npz"))

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the same images (N, S, S, 3), on the scale of a photo minus its mean, and labels for everybody."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((self.batch, self.size, self.size, 3), np.float32)
        return np.multiply(x, 60, out=x), rng.integers(0, CLASSES, self.batch)


class Network(NamedTuple):
    """A network ready for inference: `place` puts images (N, S, S, 3) where it wants them, `infer` returns logits."""

    place: Callable[[np.ndarray], Any]
    infer: Callable[[Any], np.ndarray]


class Training(NamedTuple):
    """A network in training: `outputs` are what peers must agree in, computed without dropout; `step` is one step."""

    outputs: Callable[[], dict[str, np.ndarray]]
    step: Callable[[], object]
