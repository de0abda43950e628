"""The pictures on pages: a network's first layer, images of a data set."""
from __future__ import annotations

import numpy as np
from PIL import Image

from data.preprocess import Preprocessing
from googlenet.model import GoogLeNet
from googlenet.weights.picture import draw_filters
from googlenet.weights.weights import Weights

SIDE = 168  # pixels of a thumbnail


def filters(model: GoogLeNet, preprocessing: Preprocessing, title: str) -> Image.Image:
    """Draw a network's first layer. Raises InputError where it has none that can be drawn."""
    return draw_filters(Weights(model.config, model.state(), (), preprocessing), title)


def thumbnail(image: np.ndarray, side: int = SIDE) -> Image.Image:
    """Return an image (H, W, 3), its longer side at most `side` pixels."""
    made = Image.fromarray(np.ascontiguousarray(image))
    made.thumbnail((side, side), Image.Resampling.LANCZOS)
    return made


def seen(inputs: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Return what the network is given, (N, S, S, 3), as images again: uint8 RGB."""
    pixels = np.rint(inputs * np.array(preprocessing.std) + np.array(preprocessing.mean))
    ordered = pixels[..., ::-1] if preprocessing.order == "BGR" else pixels
    return np.clip(ordered, 0, 255).astype(np.uint8)
