"""The random samples of training.

`Sampling` is the paper's recipe (section 6): a crop of 8 to 100 % of the picture's area and an aspect ratio of 3/4 to
4/3, resized by an interpolation drawn by lot, mirrored half of the time, its contrast, brightness, colour and light
changed (data/colour.py). What the paper leaves open has its source beside the field. A crop that does not fit into the
picture is drawn again; after ten tries it is the largest of a permitted aspect, in the centre: the whole picture, or
of a longer one than 4:3 the middle 4:3, its whole height.

`training_crop` is BVLC's: the picture is resized as for testing, a square is taken anywhere in it, and half of the
squares are mirrored.

Every draw comes from the generator that is passed in, so that a sample depends on nothing but its own seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.colour import COMPONENTS, DISTORTIONS, EIGENVALUES, MAGNITUDES, lighting_shift, recolour
from data.errors import DataError
from data.preprocess import Preprocessing, fit
from data.resize import INTERPOLATIONS, Pixels, resize

__all__ = ["ASPECT_LAWS", "Crop", "Draw", "Sampling", "sample_generator", "training_crop"]

ASPECT_LAWS = ("log-uniform", "uniform")

Triple = tuple[float, float, float]


class Crop(NamedTuple):
    """A part of a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int


class Draw(NamedTuple):
    """What was drawn for one sample."""

    crop: Crop
    interpolation: str
    mirrored: bool
    distortions: tuple[tuple[str, float], ...]  # (one of DISTORTIONS, strength), in the order in which they are applied
    shift: Triple  # of the light, levels of red, green and blue


@dataclass(frozen=True)
class Sampling:
    """From a picture to a training sample. Raises DataError for values that make no sense."""

    area: tuple[float, float] = (0.08, 1.0)  # part of the picture's area, uniform (paper)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)  # width / height of the crop (paper)
    aspect_law: str = "log-uniform"  # one of ASPECT_LAWS: the paper says neither; torchvision's, and uniform is slim's
    tries: int = 10  # of an area and an aspect that fit into the picture, before the largest centre crop (torchvision)
    interpolations: tuple[str, ...] = ("bilinear", "area", "nearest", "cubic")  # equally likely (paper)
    mirror: float = 0.5  # probability (AlexNet; the paper does not mention it)
    distortion: float = 0.5  # of contrast, brightness, colour: strengths uniform in 1 +- this (Howard); 0: none
    lighting: float = 0.1  # deviation of the principal components' factors (AlexNet); 0: none
    magnitudes: str = "eigenvalues"  # what is multiplied with them, one of MAGNITUDES (ports of AlexNet)
    eigenvalues: Triple = EIGENVALUES  # of the training pixels' covariance, on the scale 0..1 (ImageNet's)
    components: tuple[Triple, Triple, Triple] = COMPONENTS  # its eigenvectors; rows are red, green, blue (ImageNet's)

    def __post_init__(self) -> None:
        _check_range("area", self.area, most=1.0)
        _check_range("aspect", self.aspect)
        _check_choices("aspect_law", (self.aspect_law,), ASPECT_LAWS)
        _check_choices("interpolations", self.interpolations, tuple(INTERPOLATIONS))
        _check_choices("magnitudes", (self.magnitudes,), tuple(MAGNITUDES))
        _check_number("tries", self.tries, 1)
        _check_number("mirror", self.mirror, 0, 1)
        _check_number("distortion", self.distortion, 0, 1)
        _check_number("lighting", self.lighting, 0)
        if np.shape(self.eigenvalues) != (3,) or not all(0 <= value < math.inf for value in self.eigenvalues):
            raise DataError(f"sampling: eigenvalues {self.eigenvalues}: expected three finite numbers, none negative")
        if np.shape(self.components) != (3, 3) or not np.isfinite(self.components).all():
            raise DataError(f"sampling: components {self.components}: expected three rows of three finite numbers")

    def __str__(self) -> str:
        area, aspect = (" to ".join(f"{end:.4g}" for end in ends) for ends in (self.area, self.aspect))
        parts = [f"{area} of the area, aspect {aspect} {self.aspect_law}", "/".join(self.interpolations),
                 f"mirrored {self.mirror:g}", f"distortion {self.distortion:g}", f"lighting {self.lighting:g}"]
        return ", ".join(parts)

    def sample(self, image: NDArray[np.uint8], size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return a random sample of a picture: (H, W, 3) -> (size, size, 3), channels RGB, on the scale 0..255."""
        height, width, _ = image.shape
        return self.apply(image, size, self.draw(height, width, rng))

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Draw:
        """Draw all that is random about a sample of a height x width picture.

        The generator is asked for the same numbers in the same order whatever the picture and the fields, but `tries`:
        to switch the colours off, say, changes no crop."""
        shapes = rng.random((self.tries, 2))  # areas and aspects
        place = rng.random(2)
        lot = int(rng.random() * len(self.interpolations))
        mirrored = bool(rng.random() < self.mirror)
        order = rng.random(3).argsort().tolist()
        strengths = (1 + self.distortion * rng.uniform(-1, 1, 3)).tolist()
        alphas = self.lighting * rng.standard_normal(3)
        shift = lighting_shift(alphas, self.magnitudes, self.eigenvalues, self.components)
        return Draw(self._crop(height, width, shapes, place), self.interpolations[lot], mirrored,
                    tuple((DISTORTIONS[i], strengths[i]) for i in order), tuple(shift.tolist()))

    def apply(self, image: NDArray[np.uint8], size: int, draw: Draw) -> NDArray[np.uint8]:
        """Return the sample that was drawn: (H, W, 3) -> (size, size, 3).

        It is cut out, resized, recoloured and mirrored, in whole levels after each step. A sample that nothing
        changes may be a view of the picture."""
        top, left, height, width = draw.crop
        sample = _whole(resize(image[top : top + height, left : left + width], size, size, draw.interpolation))
        if any(draw.shift) or any(strength != 1 for _, strength in draw.distortions):
            sample = recolour(sample, draw.distortions, draw.shift)
        return sample[:, ::-1] if draw.mirrored else sample

    def _crop(self, height: int, width: int, shapes: NDArray[np.float64], place: NDArray[np.float64]) -> Crop:
        """Return the first of the shapes, (n, 2) in 0..1, that fits into the picture, at `place`, (2,) in 0..1."""
        for area, aspect in shapes.tolist():
            pixels = _between(self.area, area) * height * width
            ratio = self._ratio(aspect)
            h, w = max(round(math.sqrt(pixels / ratio)), 1), max(round(math.sqrt(pixels * ratio)), 1)
            if h <= height and w <= width:
                return Crop(int(place[0] * (height - h + 1)), int(place[1] * (width - w + 1)), h, w)
        return self._largest_centre(height, width)

    def _ratio(self, part: float) -> float:
        if self.aspect_law == "uniform":
            return _between(self.aspect, part)
        return math.exp(_between((math.log(self.aspect[0]), math.log(self.aspect[1])), part))

    def _largest_centre(self, height: int, width: int) -> Crop:
        """Return the largest crop of a permitted aspect: the whole picture, or the middle of its longer side."""
        least, most = self.aspect
        h, w = min(height, max(round(width / least), 1)), min(width, max(round(height * most), 1))
        return Crop((height - h) // 2, (width - w) // 2, h, w)


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return the generator of one image's sample in one epoch: each has its own, whoever makes the sample and when."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch, index)))


def training_crop(image: NDArray[np.uint8], preprocessing: Preprocessing, rng: np.random.Generator) -> Pixels:
    """Return a random S x S square of the resized picture, mirrored with probability 1/2: (H, W, 3) -> (S, S, 3)."""
    resized = fit(image, preprocessing.with_room())
    size = preprocessing.size
    top = rng.integers(resized.shape[0] - size + 1)
    left = rng.integers(resized.shape[1] - size + 1)
    crop = resized[top : top + size, left : left + size]
    return crop[:, ::-1] if rng.random() < 0.5 else crop


def _whole(image: Pixels) -> NDArray[np.uint8]:
    """Return whole levels; only some interpolations give fractions."""
    return (image if image.dtype == np.uint8 else np.rint(image)).astype(np.uint8, copy=False)


def _between(ends: tuple[float, float], part: float) -> float:
    return ends[0] + part * (ends[1] - ends[0])


def _check_range(name: str, ends: tuple[float, float], most: float = math.inf) -> None:
    if len(ends) != 2 or not 0 < ends[0] <= ends[1] <= most or math.isinf(ends[1]):
        limit = f", at most {most:g}" if math.isfinite(most) else ""
        raise DataError(f"sampling: {name} {ends}: expected the least and the greatest, above 0{limit}")


def _check_choices(name: str, values: tuple[str, ...], choices: tuple[str, ...]) -> None:
    if not values or not set(values) <= set(choices):
        raise DataError(f"sampling: {name} {', '.join(values)!r}: expected of {', '.join(choices)}")


def _check_number(name: str, value: float, least: float, most: float = math.inf) -> None:
    if not least <= value <= most or math.isinf(value):
        expected = f"{least:g} to {most:g}" if math.isfinite(most) else f"at least {least:g}"
        raise DataError(f"sampling: {name} {value!r}: expected {expected}")
