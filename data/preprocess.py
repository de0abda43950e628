"""How a picture becomes the network's input. `Preprocessing` travels with the weights: without it a score is luck.

The paper says "224x224, RGB, mean subtracted" and names 256 as the smallest shorter side of testing; it does not say
how pictures are interpolated when they are tested. Here that is bilinear by default, as BVLC's Caffe had it, in
Pillow's sense: when it shrinks a picture the triangle widens with the step, so that nothing is skipped (antialiasing).
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.base import Dataset
from data.errors import DataError

__all__ = ["CAFFE", "FITS", "INTERPOLATIONS", "Preprocessing", "channel_statistics", "fit", "resize",
           "resize_shorter_side"]

INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
    "cubic": Image.Resampling.BICUBIC,
}
FITS = ("short", "warp")
ORDERS = ("RGB", "BGR")

# A shorter side of one pixel would make the longer one fill the memory.
MOST_ELONGATED = 100

Triple = tuple[float, float, float]


def _check_side(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise DataError(f"preprocessing: {name} {value!r}: expected a whole number of pixels, at least {least}")


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise DataError(f"preprocessing: {name} {value!r}: expected one of {', '.join(choices)}")


def _triple(name: str, values: Any) -> Triple:
    try:
        first, second, third = (float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise DataError(f"preprocessing: {name} {values!r}: expected three numbers") from error
    if not all(math.isfinite(value) for value in (first, second, third)):
        raise DataError(f"preprocessing: {name} {values!r}: expected three finite numbers")
    return first, second, third


@dataclass(frozen=True)
class Preprocessing:
    """From a uint8 picture to the network's float32 input. Raises DataError for values that make no sense."""

    size: int = 224  # pixels: the network's input is size x size
    resize: int = 0  # pixels: what the picture is resized to before it is cropped; 0 stands for size * 256 / 224
    fit: str = "short"  # "short": the shorter side becomes `resize`; "warp": the whole becomes resize x resize
    interpolation: str = "bilinear"  # one of INTERPOLATIONS
    order: str = "RGB"  # of the network's channels; "BGR" for weights from Caffe
    mean: Triple = (0.0, 0.0, 0.0)  # subtracted, on the scale 0..255, in `order`
    std: Triple = (1.0, 1.0, 1.0)  # divided by afterwards, in `order`

    def __post_init__(self) -> None:
        _check_side("size", self.size, least=1)
        if self.resize == 0:
            object.__setattr__(self, "resize", round(self.size * 256 / 224))
        _check_side("resize", self.resize, least=self.size)
        _check_choice("fit", self.fit, FITS)
        _check_choice("interpolation", self.interpolation, tuple(INTERPOLATIONS))
        _check_choice("order", self.order, ORDERS)
        object.__setattr__(self, "mean", _triple("mean", self.mean))
        object.__setattr__(self, "std", _triple("std", self.std))
        if min(self.std) <= 0:
            raise DataError(f"preprocessing: std {self.std}: expected three positive numbers")

    def normalise(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return (images - mean) / std in the network's order of channels: uint8 RGB (..., 3) -> float32 (..., 3)."""
        ordered = images[..., ::-1] if self.order == "BGR" else images
        x = np.empty(images.shape, np.float32)
        for channel, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
            # One channel at a time: over three at once NumPy's inner loop would be three long, and four times as slow.
            np.subtract(ordered[..., channel], np.float32(mean), out=x[..., channel], dtype=np.float32)
            if std != 1:
                x[..., channel] /= np.float32(std)
        return x

    def to_json(self) -> str:
        """Return all fields, exactly: `from_json` gives back an equal object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Preprocessing:
        """Return the object that `to_json` wrote. Raises DataError for anything else."""
        try:
            values = json.loads(text)
        except (TypeError, ValueError) as error:
            raise DataError(f"preprocessing {text!r}: is not JSON ({error})") from error
        expected = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or set(values) != expected:
            raise DataError(f"preprocessing {text!r}: expected the fields {', '.join(sorted(expected))}")
        return cls(**values)

    def __str__(self) -> str:
        resized = f"shorter side to {self.resize}" if self.fit == "short" else f"warped to {self.resize}x{self.resize}"
        mean, std = (", ".join(f"{value:g}" for value in triple) for triple in (self.mean, self.std))
        scaled = "" if self.std == (1.0, 1.0, 1.0) else f" over ({std})"
        return f"{resized} ({self.interpolation}), {self.size}x{self.size}, {self.order} minus ({mean}){scaled}"


# What BVLC's GoogLeNet and most of Caffe's ImageNet models were trained with.
CAFFE = Preprocessing(size=224, resize=256, fit="warp", order="BGR", mean=(104.0, 117.0, 123.0))


def fit(image: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return the picture resized as `preprocessing` says, not cropped: (H, W, 3) -> (h, w, 3), h and w >= `resize`."""
    side = preprocessing.resize
    if preprocessing.fit == "warp":
        return resize(image, side, side, preprocessing.interpolation)
    return resize_shorter_side(image, side, preprocessing.interpolation)


def resize_shorter_side(image: NDArray[np.uint8], side: int, interpolation: str) -> NDArray[np.uint8]:
    """Return the picture with its shorter side `side` and its proportions kept, to the nearest pixel.

    Raises DataError for a picture so thin that the longer side would fill the memory.
    """
    height, width = image.shape[:2]
    shorter, longer = min(height, width), max(height, width)
    if longer > MOST_ELONGATED * shorter:
        raise DataError(f"{width} x {height} pixels is too thin to resize by its shorter side: crop or remove it")
    return resize(image, round(height * side / shorter), round(width * side / shorter), interpolation)


def resize(image: NDArray[np.uint8], height: int, width: int, interpolation: str) -> NDArray[np.uint8]:
    """Resize without regard to proportions: (H, W, 3) -> (height, width, 3) uint8."""
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), INTERPOLATIONS[interpolation]))


def channel_statistics(dataset: Dataset, limit: int = 5000) -> tuple[Triple, Triple]:
    """Return the mean (the paper's "mean") and the standard deviation of red, green and blue, on the scale 0..255.

    Each image counts alike, whatever its size. Of a larger set, `limit` images at even distances are read. Damaged ones
    are passed over; raises DataError when all of them are.
    """
    total, squares, read = np.zeros(3), np.zeros(3), 0
    for index in np.linspace(0, len(dataset) - 1, min(limit, len(dataset))).round().astype(int).tolist():
        try:
            pixels = dataset.image(index).reshape(-1, 3).astype(np.float64)
        except DataError:
            continue
        total += pixels.mean(axis=0)
        squares += np.square(pixels).mean(axis=0)
        read += 1
    if not read:
        raise DataError(f"{dataset.origin}: none of the images can be read, so they have no mean")
    mean = total / read
    deviation = np.sqrt(np.maximum(squares / read - mean**2, 0))
    return _triple("mean", mean.tolist()), _triple("std", deviation.tolist())
