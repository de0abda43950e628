from itertools import permutations

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from data.colour import COMPONENTS, DISTORTIONS, EIGENVALUES, lighting_shift, recolour
from data.decode import read_image
from tests.data.files import pixels
from tests.data.test_reference import REFERENCE, needs_reference

NO_SHIFT = (0.0, 0.0, 0.0)
ENHANCERS = {"contrast": ImageEnhance.Contrast, "brightness": ImageEnhance.Brightness, "colour": ImageEnhance.Color}
STEPS = (("colour", 0.6), ("contrast", 1.4), ("brightness", 0.8))
LEVEL = 0.5 + 1e-3  # half a level of rounding, and float32


def distorted(image, name, strength):
    """The equations, literally, in floating point: (H, W, 3), not yet rounded and cut."""
    x = image.astype(np.float64)
    grey = (0.299 * x[..., 0] + 0.587 * x[..., 1] + 0.114 * x[..., 2])[..., None]
    blended = {"brightness": 0.0, "contrast": grey.mean(), "colour": grey}[name]
    return strength * x + (1 - strength) * blended


@pytest.mark.parametrize("name", DISTORTIONS)
@pytest.mark.parametrize("strength", [0.0, 0.5, 0.83, 1.0, 1.31, 1.5, 2.0])
def test_each_distortion_is_its_equation(name, strength):
    image = pixels(40, 30, 3)
    found = recolour(image, [(name, strength)], NO_SHIFT)
    assert found.dtype == np.uint8
    difference = found - np.clip(distorted(image, name, strength), 0, 255)
    assert np.abs(difference).max() <= LEVEL


# Strengths of so many digits that hardly a level lies at a half, which float32 might round the other way.
CHAIN = (("colour", 0.61373), ("contrast", 1.38717), ("brightness", 0.82193), ("contrast", 1.47739))


@pytest.mark.parametrize("steps", list(permutations(CHAIN)))
def test_a_chain_is_its_equations_rounded_and_cut_one_by_one(steps):
    image, shift = pixels(40, 30, 3), np.array([6.4123, -3.3777, 0.0])
    expected = image
    for name, strength in steps:
        expected = np.clip(np.rint(distorted(expected, name, strength)), 0, 255)
    expected = np.clip(np.rint(expected + shift), 0, 255)
    assert (recolour(image, steps, tuple(shift)) != expected).mean() < 0.002


@pytest.mark.parametrize("name", DISTORTIONS)
@pytest.mark.parametrize("strength", [0.5, 0.83, 1.0, 1.31, 1.5])
def test_each_distortion_is_pillows(name, strength):
    """Pillow rounds down, and for contrast rounds the mean."""
    image = pixels(40, 30, 3)
    expected = np.asarray(ENHANCERS[name](Image.fromarray(image)).enhance(strength))
    difference = recolour(image, [(name, strength)], NO_SHIFT).astype(int) - expected
    assert difference.min() >= 0
    assert difference.max() <= 1


@pytest.mark.parametrize("steps", list(permutations(STEPS)))
def test_a_chain_is_pillows(steps):
    image = pixels(40, 30, 3)
    expected = Image.fromarray(image)
    for name, strength in steps:
        expected = ENHANCERS[name](expected).enhance(strength)
    difference = recolour(image, steps, NO_SHIFT).astype(int) - np.asarray(expected)
    assert np.abs(difference).max() <= 4  # Pillow's roundings, up to one a step


def test_levels_are_cut_after_each_step():
    image = np.full((2, 2, 3), 200, np.uint8)
    assert recolour(image, [("brightness", 1.5), ("brightness", 0.5)], NO_SHIFT).tolist() == [[[128] * 3] * 2] * 2
    assert recolour(image, [("brightness", 1.5)], (-5.0, 5.0, 0.0))[0, 0].tolist() == [250, 255, 255]


def test_the_order_matters_only_where_levels_are_cut():
    dull, vivid = 100 + pixels(40, 30, 3) // 8, pixels(40, 30, 3)
    steps = (("brightness", 1.4), ("contrast", 1.4), ("colour", 0.6))

    def spread(image):
        found = np.array([recolour(image, order, NO_SHIFT) for order in permutations(steps)])
        return np.ptp(found, axis=0).max()

    assert spread(dull) <= 4
    assert spread(vivid) > 25


def test_light_is_added_last():
    image = 50 + pixels(40, 30, 3) // 2
    shift = (20.3, -14.7, 3.5)
    distorted_first = recolour(image, STEPS, NO_SHIFT)
    np.testing.assert_array_equal(recolour(image, STEPS, shift), np.rint(distorted_first + shift))


def test_strength_one_changes_nothing():
    image = pixels(9, 8, 3)
    np.testing.assert_array_equal(recolour(image, [(name, 1.0) for name in DISTORTIONS], NO_SHIFT), image)


@pytest.mark.parametrize("view", [lambda image: image[:, ::-1], lambda image: image[2:7, 1:5]])
def test_views_are_recoloured_as_copies_are(view):
    image = view(pixels(9, 8, 3))
    np.testing.assert_array_equal(recolour(image, STEPS, NO_SHIFT), recolour(image.copy(), STEPS, NO_SHIFT))


def test_lighting_is_a_sum_of_components():
    alphas = np.array([0.1, -0.2, 0.3])
    for magnitudes, power in (("eigenvalues", 1), ("deviations", 0.5)):
        expected = np.zeros(3)
        for k in range(3):
            for channel in range(3):
                expected[channel] += alphas[k] * 255 * EIGENVALUES[k] ** power * COMPONENTS[channel][k]
        np.testing.assert_allclose(lighting_shift(alphas, magnitudes), expected, rtol=1e-12)
    own = lighting_shift(alphas, "eigenvalues", (1.0, 0.0, 0.0), ((0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0)))
    np.testing.assert_allclose(own, [0, 0, 25.5])


@pytest.mark.parametrize(("magnitudes", "levels"), [
    ("eigenvalues", [55.46, 4.794, 1.148]),  # MXNet's numbers
    ("deviations", [118.9, 35.0, 17.1]),
])
def test_how_many_levels_a_component_shifts(magnitudes, levels):
    found = [np.linalg.norm(lighting_shift(factor, magnitudes)) for factor in np.eye(3)]
    np.testing.assert_allclose(found, levels, rtol=2e-3)


def test_components_are_orthonormal_and_the_first_is_light():
    components = np.array(COMPONENTS)
    np.testing.assert_allclose(components.T @ components, np.eye(3), rtol=0, atol=2e-4)
    assert (components[:, 0] < 0).all()  # all channels together
    assert sorted(EIGENVALUES, reverse=True) == list(EIGENVALUES)


@needs_reference
def test_components_are_those_of_photos():
    """ImageNet's from 200 of its photos: nearly the same, which they would not be transposed, or with channels BGR."""
    moments = [photo_moments(read_image(path)) for path in sorted((REFERENCE / "photos").glob("*.JPEG"))]
    first, second = (np.mean(each, axis=0) for each in zip(*moments, strict=True))
    eigenvalues, vectors = np.linalg.eigh(second - np.outer(first, first))
    np.testing.assert_allclose(eigenvalues[::-1], EIGENVALUES, rtol=0.2)
    likeness = np.abs((vectors[:, ::-1] * COMPONENTS).sum(axis=0))  # cosines
    assert likeness.min() > 0.999


def photo_moments(image):
    x = image.reshape(-1, 3) / 255
    return x.mean(axis=0), x.T @ x / len(x)
