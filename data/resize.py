"""Resizing as each framework does it: networks notice the difference, above all where a picture shrinks much.

    bilinear, area, nearest, cubic   Pillow's. When it shrinks a picture the window widens with the step, so that
                                     nothing is skipped (antialiasing). torchvision resizes with Pillow.
    opencv                           cv2.resize(INTER_LINEAR), which Caffe's convert_imageset calls: pixels are squares
                                     with centres, no antialiasing, whole numbers with weights of 11 bits.
    tensorflow                       TensorFlow 1's resize_bilinear(align_corners=False), which slim calls: pixel i of
                                     the result stands at i * scale, not at a centre; no antialiasing; in float32.

All give uint8, but "tensorflow" float32, not rounded, on the same scale 0..255.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["INTERPOLATIONS", "Pixels", "resize"]

Pixels = NDArray[np.uint8 | np.float32]

OPENCV_ONE = 2**11  # the weight 1


def resize(image: Pixels, height: int, width: int, interpolation: str) -> Pixels:
    """Resize without regard to proportions: (H, W, 3) -> (height, width, 3), by one of INTERPOLATIONS."""
    return INTERPOLATIONS[interpolation](image, height, width)


def _pillow(resample: Image.Resampling, image: Pixels, height: int, width: int) -> Pixels:
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), resample))


def _opencv(image: Pixels, height: int, width: int) -> Pixels:
    """Return what OpenCV's fixed-point loops return: rows are interpolated first and cut to 15 bits, then columns."""
    if image.shape[:2] == (height, width):
        return image
    (y0, y1, down), (x0, x1, right) = _opencv_grid(image.shape[0], height), _opencv_grid(image.shape[1], width)

    def interpolated_rows(number: NDArray[np.int64]) -> NDArray[np.int32]:
        rows = image[number]
        return (rows[:, x0] * (OPENCV_ONE - right[:, None]) + rows[:, x1] * right[:, None]) >> 4

    upper = interpolated_rows(y0) * (OPENCV_ONE - down[:, None, None]) >> 16
    lower = interpolated_rows(y1) * down[:, None, None] >> 16
    return ((upper + lower + 2) >> 2).astype(np.uint8)


def _opencv_grid(size: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """Return the pixels before and behind each place of the result, and the weight of the second, to even at a half."""
    places = ((np.arange(count) + 0.5) * (1 / (count / size)) - 0.5).astype(np.float32)
    before = np.floor(places)
    first = before.astype(np.int64)
    weight = np.rint((places - before) * np.float32(OPENCV_ONE)).astype(np.int32)
    return np.maximum(first, 0), np.minimum(first + 1, size - 1), weight


def _tensorflow(image: Pixels, height: int, width: int) -> NDArray[np.float32]:
    (y0, y1, down), (x0, x1, right) = _tensorflow_grid(image.shape[0], height), _tensorflow_grid(image.shape[1], width)

    def interpolated_rows(number: NDArray[np.int64]) -> NDArray[np.float32]:
        rows = image[number]
        return _between(rows[:, x0].astype(np.float32), rows[:, x1].astype(np.float32), right[:, None])

    return _between(interpolated_rows(y0), interpolated_rows(y1), down[:, None, None])


def _tensorflow_grid(size: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return the pixels before and behind each place of the result, and how far behind the first the place lies."""
    places = np.arange(count, dtype=np.float32) * (np.float32(size) / np.float32(count))
    before = np.floor(places)
    first = before.astype(np.int64)
    return first, np.minimum(first + 1, size - 1), places - before


def _between(first: NDArray[np.float32], second: NDArray[np.float32], part: NDArray[np.float32]) -> NDArray[np.float32]:
    return first + (second - first) * part


INTERPOLATIONS: dict[str, Callable[[Pixels, int, int], Pixels]] = {
    "bilinear": partial(_pillow, Image.Resampling.BILINEAR),
    "area": partial(_pillow, Image.Resampling.BOX),
    "nearest": partial(_pillow, Image.Resampling.NEAREST),
    "cubic": partial(_pillow, Image.Resampling.BICUBIC),
    "opencv": _opencv,
    "tensorflow": _tensorflow,
}
