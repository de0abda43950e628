"""Random changes of contrast, brightness, colour and light, after Howard (arXiv 1312.5402) and AlexNet.

With x a pixel (red, green, blue) on the scale 0..255, g(x) = 0.299 red + 0.587 green + 0.114 blue its grey, and s a
strength, of which 1 changes nothing, the distortions are those of Pillow's ImageEnhance:

    contrast     x <- s x + (1 - s) mean of g(x)     a blend with one grey, the picture's mean
    brightness   x <- s x                            a blend with black
    colour       x <- s x + (1 - s) g(x)             a blend with the picture in grey
    lighting     x <- x + shift                      the same for all pixels of a picture

After each of them pixels are rounded and cut to 0..255, as ImageEnhance does (which rounds down, and so darkens a
little: here it is to the nearest). That is all that their order is about: uncut, the three distortions commute.

The shift of lighting is the sum over k of alpha_k m_k p_k, AlexNet's: p_k are the principal components of the colours
of ImageNet's pixels, alpha_k is a normal number of deviation 0.1, drawn for each picture, and m_k a magnitude on which
sources disagree. AlexNet's paper says that it is the k-th eigenvalue of the pixels' covariance, which depends on the
unit: ports take the eigenvalues of pixels on the scale 0..1, times 255, which makes (55.5, 4.8, 1.1) levels
(fb.resnet.torch, whose numbers these are, and MXNet). AlexNet's own program, cuda-convnet2, multiplies by "stdevs": the
roots, in any unit, which makes (118.9, 35.0, 17.1): twice as much light and far more tint. MAGNITUDES has both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["COMPONENTS", "DISTORTIONS", "EIGENVALUES", "MAGNITUDES", "lighting_shift", "recolour"]

DISTORTIONS = ("contrast", "brightness", "colour")

GREY = np.array([0.299, 0.587, 0.114])  # ITU-R 601-2, as Pillow's convert("L")

# Of the covariance of the pixels of some of ImageNet, RGB on the scale 0..1 (fb.resnet.torch, datasets/imagenet.lua).
EIGENVALUES = (0.2175, 0.0188, 0.0045)
COMPONENTS = (  # a column is a component; the rows are red, green and blue
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)
MAGNITUDES = {"eigenvalues": 1.0, "deviations": 0.5}  # m_k = 255 * eigenvalue_k ** this

Vector = NDArray[np.float64]
Table = NDArray[np.float64]  # (3, 256): of red, green and blue, what each level becomes, in whole numbers

LEVELS: Table = np.tile(np.arange(256.0), (3, 1))  # the table that changes nothing


def recolour(image: NDArray[np.uint8], steps: Iterable[tuple[str, float]], shift: Sequence[float]) -> NDArray[np.uint8]:
    """Return the picture after the distortions (name, strength), in their order, and the shift of its light, (3,):
    (H, W, 3) -> (H, W, 3)."""
    picture = Image.fromarray(image)
    # All but the distortion of colour map the levels of a channel by themselves: those that follow on one another are
    # one table, and the picture is passed over once for them all.
    table = LEVELS
    for name, strength in steps:
        if name == "contrast":
            table = _cut(strength * table + (1 - strength) * (GREY @ _means(picture, table)))
        elif name == "brightness":
            table = _cut(strength * table)
        else:
            picture, table = _mixed(_mapped(picture, table), strength), LEVELS
    return np.asarray(_mapped(picture, _cut(table + np.array(shift)[:, None])))


def lighting_shift(alphas: Vector, magnitudes: str = "eigenvalues", eigenvalues: Sequence[float] = EIGENVALUES,
                   components: Sequence[Sequence[float]] = COMPONENTS) -> Vector:
    """Return the shift (3,), in levels of 0..255, that a factor for each component, (3,), makes."""
    shift: Vector = np.array(components) @ (alphas * 255 * np.array(eigenvalues) ** MAGNITUDES[magnitudes])
    return shift


def _cut(levels: Table) -> Table:
    return np.clip(np.rint(levels), 0, 255)


def _means(picture: Image.Image, table: Table) -> Vector:
    """Return the mean red, green and blue, (3,), of a picture to which a table is yet to be applied."""
    counts = np.array(picture.histogram()).reshape(3, 256)
    means: Vector = (counts * table).sum(axis=1) / (picture.width * picture.height)
    return means


def _mapped(picture: Image.Image, table: Table) -> Image.Image:
    return picture if table is LEVELS else picture.point(table.astype(int).ravel().tolist())


def _mixed(picture: Image.Image, strength: float) -> Image.Image:
    """Return each pixel blended with its own grey."""
    rows = np.zeros((3, 4))  # of red, green and blue; the last column is a constant
    rows[:, :3] = strength * np.eye(3) + (1 - strength) * GREY
    return picture.convert("RGB", tuple(rows.ravel().tolist()))
