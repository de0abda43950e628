"""The random crop of training.

BVLC's sampler: the picture is resized as for testing, a square is taken anywhere in it, and half of the squares are
mirrored. Every draw comes from the generator that is passed in, so that a sample depends on nothing but its own seed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data.preprocess import Preprocessing, fit
from data.resize import Pixels

__all__ = ["training_crop"]


def training_crop(image: NDArray[np.uint8], preprocessing: Preprocessing, rng: np.random.Generator) -> Pixels:
    """Return a random S x S square of the resized picture, mirrored with probability 1/2: (H, W, 3) -> (S, S, 3)."""
    resized = fit(image, preprocessing.with_room())
    size = preprocessing.size
    top = rng.integers(resized.shape[0] - size + 1)
    left = rng.integers(resized.shape[1] - size + 1)
    crop = resized[top : top + size, left : left + size]
    return crop[:, ::-1] if rng.random() < 0.5 else crop
