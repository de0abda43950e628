"""How a picture becomes the network's input. `Preprocessing` travels with the weights: without it a score is luck.

The paper says "224x224, RGB, mean subtracted" and names 256 as the smallest shorter side of testing; it does not say
how pictures are interpolated when they are tested. Here that is bilinear by default, as BVLC's Caffe had it, in
Pillow's sense: with antialiasing (data/resize.py). PREPROCESSINGS has what other authors did.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.base import Dataset
from data.errors import DataError
from data.resize import INTERPOLATIONS, Pixels, resize

__all__ = ["CAFFE", "FITS", "INTERPOLATIONS", "PREPROCESSINGS", "Preprocessing", "channel_statistics", "fit", "resize",
           "resize_shorter_side"]

FITS = (
    "short",  # the shorter side becomes `resize`, the longer the nearest whole number of pixels
    "torchvision",  # as "short", rounded as torchvision does: the longer side down, half pixels of the centre to even
    "warp",  # the whole becomes resize x resize, whatever its proportions
)
ORDERS = ("RGB", "BGR")
LATER_FIELDS = {"central"}  # that older files do not have
LEAST_CENTRAL = 0.01

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


def _part(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not LEAST_CENTRAL <= value <= 1:
        raise DataError(f"preprocessing: {name} {value!r}: expected a part of the picture, {LEAST_CENTRAL} to 1")
    return float(value)


@dataclass(frozen=True)
class Preprocessing:
    """From a uint8 picture to the network's float32 input. Raises DataError for values that make no sense."""

    size: int = 224  # pixels: the network's input is size x size
    resize: int = 0  # pixels: what the picture is resized to before it is cropped; 0 stands for size * 256 / 224
    fit: str = "short"  # one of FITS
    interpolation: str = "bilinear"  # one of INTERPOLATIONS
    order: str = "RGB"  # of the network's channels; "BGR" for weights from Caffe
    mean: Triple = (0.0, 0.0, 0.0)  # subtracted, on the scale 0..255, in `order`
    std: Triple = (1.0, 1.0, 1.0)  # divided by afterwards, in `order`
    central: float = 1.0  # the part of each side that is left when the rim is cut off, before anything is resized

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
        object.__setattr__(self, "central", _part("central", self.central))

    def at(self, size: int) -> Preprocessing:
        """Return the same for a network whose input is size x size: `resize` stays in proportion."""
        return replace(self, size=size, resize=round(self.resize * size / self.size))

    def with_room(self) -> Preprocessing:
        """Return the same with room for crops beside the centre.

        A picture that is warped to the network's own size leaves none: then the whole of it is warped to 256 / 224 of
        that size. Of slim's preprocessing the centre stays what it was, for its central part is 224 / 256."""
        return replace(self, central=1.0, resize=0) if self.fit == "warp" and self.resize == self.size else self

    def normalise(self, images: Pixels) -> NDArray[np.float32]:
        """Return (images - mean) / std in the network's order of channels: RGB (..., 3) -> float32 (..., 3).

        Images are on the scale 0..255, in uint8 or float32."""
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
        """Return the object that `to_json` wrote, today or before fields were added. Raises DataError for others."""
        try:
            values = json.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(f"preprocessing {text!r}: is not JSON ({error})") from error
        expected = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or not expected - LATER_FIELDS <= set(values) <= expected:
            raise DataError(f"preprocessing {text!r}: expected the fields {', '.join(sorted(expected))}")
        try:
            return cls(**values)
        except OverflowError as error:
            raise DataError(f"preprocessing {text!r}: holds a number beyond all floats ({error})") from error

    def __str__(self) -> str:
        fitted = {"short": f"shorter side to {self.resize}",
                  "torchvision": f"shorter side to {self.resize} as in torchvision",
                  "warp": f"warped to {self.resize}x{self.resize}"}[self.fit]
        steps = [f"central {self.central:.4g} of each side"] * (self.central < 1)
        steps.append(f"{fitted} ({self.interpolation})")
        if self.fit != "warp" or self.size != self.resize:
            steps.append(f"{self.size}x{self.size}")
        mean, std = (", ".join(f"{value:g}" for value in triple) for triple in (self.mean, self.std))
        scaled = "" if self.std == (1.0, 1.0, 1.0) else f" over ({std})"
        return f"{', '.join(steps)}, {self.order} minus ({mean}){scaled}"


# What BVLC's GoogLeNet and most of Caffe's ImageNet models were trained with.
CAFFE = Preprocessing(size=224, resize=256, fit="warp", order="BGR", mean=(104.0, 117.0, 123.0))

# What the published GoogLeNets were trained or scored with, by the name of who published them.
PREPROCESSINGS = {
    "paper": Preprocessing(size=224, resize=256, mean=(123.0, 117.0, 104.0)),  # its mean is not given; BVLC's
    "caffe": CAFFE,
    # To the pixel what Caffe's own tool makes of decoded pixels.
    "caffe-opencv": replace(CAFFE, interpolation="opencv"),
    # torchvision divides by ImageNet's deviation, but its GoogLeNet undoes that: in the end it sees -1..1.
    "torchvision": Preprocessing(size=224, resize=256, fit="torchvision", mean=(127.5,) * 3, std=(127.5,) * 3),
    "slim": Preprocessing(size=224, resize=224, fit="warp", interpolation="tensorflow", mean=(127.5,) * 3,
                          std=(127.5,) * 3, central=0.875),
    # The model zoo's readme resizes with Pillow's default, which is cubic.
    "onnx": Preprocessing(size=224, resize=224, fit="warp", interpolation="cubic", order="BGR",
                          mean=(103.939, 116.779, 123.68)),
    "inception5h": Preprocessing(size=224, resize=224, fit="warp", interpolation="tensorflow", mean=(117.0,) * 3),
    # MATLAB's imresize is cubic.
    "matconvnet": Preprocessing(size=224, resize=224, fit="warp", interpolation="cubic",
                                mean=(123.68, 116.779, 103.939)),
}


def fit(image: NDArray[np.uint8], preprocessing: Preprocessing) -> Pixels:
    """Return the picture resized as `preprocessing` says, not cropped: (H, W, 3) -> (h, w, 3), h and w >= `resize`.

    Raises DataError for a picture too thin to resize by its shorter side."""
    side, interpolation = preprocessing.resize, preprocessing.interpolation
    part = _central_part(image, preprocessing.central)
    if preprocessing.fit == "warp":
        return resize(part, side, side, interpolation)
    return resize_shorter_side(part, side, interpolation, int if preprocessing.fit == "torchvision" else round)


def _central_part(image: NDArray[np.uint8], part: float) -> NDArray[np.uint8]:
    """Return the picture without its rim, (H, W, 3) -> (h, w, 3), to the pixel as tf.image.central_crop does."""
    height, width = image.shape[:2]
    top, left = (int((side - side * part) / 2) for side in (height, width))
    return image[top:height - top, left:width - left]


def resize_shorter_side(image: NDArray[np.uint8], side: int, interpolation: str,
                        whole: Callable[[float], int] = round) -> Pixels:
    """Return the picture with its shorter side `side` and its proportions kept; `whole` makes pixels of the longer.

    Raises DataError for a picture so thin that the longer side would fill the memory.
    """
    height, width = image.shape[:2]
    shorter, longer = min(height, width), max(height, width)
    if longer > MOST_ELONGATED * shorter:
        raise DataError(f"{width} x {height} pixels is too thin to resize by its shorter side: crop or remove it")
    return resize(image, whole(height * side / shorter), whole(width * side / shorter), interpolation)


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
