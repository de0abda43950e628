import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations

import numpy as np
import pytest

from data.base import ArrayDataset
from data.colour import DISTORTIONS, lighting_shift, recolour
from data.errors import DataError
from data.loader import Loader
from data.preprocess import CAFFE, Preprocessing, fit
from data.resize import resize
from data.sampling import Crop, Draw, Sampling, training_crop
from tests.data.files import pixels
from tests.data.test_crops import coordinates, corner

PLAIN = Sampling(distortion=0, lighting=0, mirror=0, interpolations=("bilinear",))
DRAWS = 4000


def draws(sampling, height, width, count=DRAWS, seed=0):
    rng = np.random.default_rng(seed)
    return [sampling.draw(height, width, rng) for _ in range(count)]


def is_uniform(values, low, high):
    """Kolmogorov and Smirnov's test at a chance of 1 in 10,000 of being wrong."""
    values = (np.sort(values) - low) / (high - low)
    steps = np.arange(len(values) + 1) / len(values)
    return max((values - steps[:-1]).max(), (steps[1:] - values).max()) < 2.23 / np.sqrt(len(values))


def are_equally_likely(values, kinds):
    counts = Counter(values)
    expected = len(values) / len(kinds)
    return set(counts) == set(kinds) and all(abs(n - expected) < 4 * np.sqrt(expected) for n in counts.values())


def aspects(crops):
    return np.array([crop.width / crop.height for crop in crops])


def test_the_defaults_are_the_recipe():
    assert Sampling() == Sampling(area=(0.08, 1), aspect=(0.75, 4 / 3), aspect_law="log-uniform", tries=10, mirror=0.5,
                                  interpolations=("bilinear", "area", "nearest", "cubic"), distortion=0.5, lighting=0.1,
                                  magnitudes="eigenvalues")


# In a large square picture every crop of at most 3/4 of the area fits, whatever its aspect: none is drawn again.
SIDE = 4000
UNDISTURBED = {"area": (0.08, 0.75)}


@pytest.mark.parametrize("area", [(0.08, 0.75), (0.3, 0.4)])
def test_areas_are_uniform(area):
    crops = [draw.crop for draw in draws(Sampling(area=area), SIDE, SIDE)]
    assert is_uniform([crop.height * crop.width / SIDE**2 for crop in crops], *area)


@pytest.mark.parametrize(("law", "scale"), [("log-uniform", np.log), ("uniform", np.asarray)])
def test_aspects_follow_their_law(law, scale):
    found = aspects([draw.crop for draw in draws(Sampling(aspect_law=law, **UNDISTURBED), SIDE, SIDE)])
    assert is_uniform(scale(found), *scale(np.array([3 / 4, 4 / 3])))
    other = {"log-uniform": np.asarray, "uniform": np.log}[law]
    assert not is_uniform(other(found), *other(np.array([3 / 4, 4 / 3])))


def test_area_and_aspect_are_independent():
    crops = [draw.crop for draw in draws(Sampling(**UNDISTURBED), SIDE, SIDE)]
    area = [crop.height * crop.width for crop in crops]
    assert abs(np.corrcoef(area, np.log(aspects(crops)))[0, 1]) < 4 / np.sqrt(DRAWS)


def test_places_are_uniform():
    crops = [draw.crop for draw in draws(Sampling(), 3000, 4000)]
    assert is_uniform([crop.top / (3000 - crop.height) for crop in crops if crop.height < 2700], 0, 1)
    assert is_uniform([crop.left / (4000 - crop.width) for crop in crops if crop.width < 3600], 0, 1)


def test_both_ends_of_the_room_are_reached():
    """A crop of 5 in a side of 6 stands at 0 or at 1, equally often."""
    crops = [draw.crop for draw in draws(Sampling(area=(0.7, 0.7), aspect=(1, 1)), 6, 6)]
    assert {(crop.height, crop.width) for crop in crops} == {(5, 5)}
    assert are_equally_likely([(crop.top, crop.left) for crop in crops], [(0, 0), (0, 1), (1, 0), (1, 1)])


def test_a_crop_may_have_all_of_a_side():
    """Squares of half of a 10 x 20 picture: 10 x 10, anywhere along it."""
    crops = [draw.crop for draw in draws(Sampling(area=(0.5, 0.5), aspect=(1, 1)), 10, 20)]
    assert are_equally_likely(crops, [Crop(0, left, 10, 10) for left in range(11)])


def test_crops_that_do_not_fit_are_drawn_again():
    """Of 4:3 pictures a crop of 3:4 has at most 9/16 of the area: large ones are wide."""
    crops = [draw.crop for draw in draws(Sampling(), 300, 400)]
    assert all(crop.height <= 300 and crop.width <= 400 for crop in crops)
    assert all(crop.top + crop.height <= 300 and crop.left + crop.width <= 400 for crop in crops)
    area = np.array([crop.height * crop.width for crop in crops]) / (300 * 400)
    assert area.min() < 0.085
    assert area.max() > 0.97
    assert aspects(crops)[area > 0.6].min() > 0.8
    assert is_uniform(np.log(aspects(crops)[area < 0.55]), math.log(3 / 4), math.log(4 / 3))


def test_as_many_tries_as_are_said():
    """Of areas from nothing to all of a 2 x 1 picture, squares of at most half fit: one try in two misses."""
    sampling = {tries: Sampling(area=(1e-9, 1.0), aspect=(1, 1), tries=tries) for tries in (1, 2, 5)}
    for tries, each in sampling.items():
        missed = np.mean([draw.crop == Crop(0, 500, 1000, 1000) for draw in draws(each, 1000, 2000)])
        assert missed == pytest.approx(0.5**tries, abs=4 * np.sqrt(0.25 / DRAWS))


@pytest.mark.parametrize(("height", "width", "crop"), [
    (1, 1, Crop(0, 0, 1, 1)),
    (1, 5000, Crop(0, 2499, 1, 1)),
    (5000, 1, Crop(2499, 0, 1, 1)),
    (3, 5000, Crop(0, 2498, 3, 4)),  # 4:3
    (5000, 3, Crop(2498, 0, 4, 3)),
    (60, 400, Crop(0, 160, 60, 80)),
    (400, 60, Crop(160, 0, 80, 60)),
])
def test_a_picture_in_which_nothing_fits_gives_its_centre(height, width, crop):
    """The largest centred crop between 3:4 and 4:3."""
    found = draws(Sampling(area=(1.0, 1.0)), height, width, 20)
    assert {draw.crop for draw in found} == {crop}
    sample = Sampling().sample(pixels(height, width, 3), 8, np.random.default_rng(0))
    assert sample.shape == (8, 8, 3)


def test_the_centre_of_a_picture_of_permitted_aspect_is_all_of_it():
    assert Sampling(area=(1.0, 1.0), aspect=(1.1, 1.2), tries=1)._largest_centre(100, 115) == Crop(0, 0, 100, 115)
    assert Sampling()._largest_centre(375, 500) == Crop(0, 0, 375, 500)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 2), (2, 3), (5, 1), (7, 300), (28, 28), (32, 32)])
def test_crops_of_small_and_thin_pictures_lie_inside(height, width):
    for draw in draws(Sampling(), height, width, 300):
        top, left, h, w = draw.crop
        assert 0 <= top <= top + 1 <= top + h <= height
        assert 0 <= left <= left + 1 <= left + w <= width


def test_interpolations_are_equally_likely():
    assert are_equally_likely([draw.interpolation for draw in draws(Sampling(), 300, 400)],
                              ["bilinear", "area", "nearest", "cubic"])
    assert are_equally_likely([draw.interpolation for draw in draws(Sampling(interpolations=("area", "opencv")), 9, 9)],
                              ["area", "opencv"])


@pytest.mark.parametrize("mirror", [0, 0.2, 0.5, 1])
def test_as_many_are_mirrored_as_are_said(mirror):
    mirrored = np.mean([draw.mirrored for draw in draws(Sampling(mirror=mirror), 300, 400)])
    assert mirrored == pytest.approx(mirror, abs=4 * np.sqrt(mirror * (1 - mirror) / DRAWS))


def test_distortions_come_in_all_orders_with_uniform_strengths():
    found = [draw.distortions for draw in draws(Sampling(), 300, 400)]
    assert are_equally_likely([tuple(name for name, _ in steps) for steps in found], list(permutations(DISTORTIONS)))
    for name in DISTORTIONS:
        assert is_uniform([dict(steps)[name] for steps in found], 0.5, 1.5)
    strengths = np.array([[dict(steps)[name] for name in DISTORTIONS] for steps in found])
    assert np.abs(np.corrcoef(strengths.T) - np.eye(3)).max() < 4 / np.sqrt(DRAWS)


def test_light_shifts_along_the_components():
    """Its covariance is sum_k (0.1 m_k)^2 p_k p_k'."""
    for sampling in (Sampling(), Sampling(lighting=0.3, magnitudes="deviations")):
        shifts = np.array([draw.shift for draw in draws(sampling, 300, 400)])
        unit = [lighting_shift(row, sampling.magnitudes) for row in np.eye(3)]
        expected = sampling.lighting**2 * sum(np.outer(each, each) for each in unit)
        spread = np.sqrt(np.diag(expected))
        assert np.abs(shifts.mean(axis=0)).max() < 4 * spread.max() / np.sqrt(DRAWS)
        np.testing.assert_allclose(np.cov(shifts.T), expected, rtol=0, atol=8 * spread.max()**2 / np.sqrt(DRAWS))


def test_a_sample_is_cut_resized_recoloured_and_mirrored():
    image, sampling = pixels(40, 60, 3), Sampling()
    for seed in range(12):
        draw = sampling.draw(40, 60, np.random.default_rng(seed))
        top, left, height, width = draw.crop
        expected = resize(image[top : top + height, left : left + width], 16, 16, draw.interpolation)
        expected = recolour(expected, draw.distortions, draw.shift)[:, :: -1 if draw.mirrored else 1]
        found = sampling.sample(image, 16, np.random.default_rng(seed))
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected)


def test_what_is_drawn_does_what_it_says():
    image = coordinates(20, 30)
    draw = Draw(Crop(3, 5, 8, 8), "nearest", False, (("contrast", 1.0),), (0.0, 0.0, 0.0))
    assert corner(PLAIN.apply(image, 8, draw)) == (3, 5, False)
    assert corner(PLAIN.apply(image, 8, draw._replace(mirrored=True))) == (3, 5, True)
    lit = PLAIN.apply(image, 8, draw._replace(shift=(0.0, 0.0, 9.0)))
    np.testing.assert_array_equal(lit, image[3:11, 5:13] + np.array([0, 0, 9]))
    darker = PLAIN.apply(image, 8, draw._replace(distortions=(("brightness", 0.0),)))
    assert not darker.any()


def test_switched_off_a_step_changes_no_other():
    image = pixels(50, 70, 3)
    for seed in range(20):
        full = Sampling().draw(50, 70, np.random.default_rng(seed))
        plain = PLAIN.draw(50, 70, np.random.default_rng(seed))
        assert plain.crop == full.crop
        assert not plain.mirrored
        assert {strength for _, strength in plain.distortions} == {1.0}
        assert plain.shift == (0.0, 0.0, 0.0)
        top, left, height, width = full.crop
        expected = resize(image[top : top + height, left : left + width], 16, 16, "bilinear")
        np.testing.assert_array_equal(PLAIN.sample(image, 16, np.random.default_rng(seed)), expected)


def test_every_sample_asks_the_generator_for_as_much():
    """What follows a sample is the same whatever the picture was, even where ten tries failed."""
    def next_after(sampling, height, width):
        rng = np.random.default_rng(3)
        sampling.draw(height, width, rng)
        return rng.random()
    expected = next_after(Sampling(), 300, 400)
    assert {next_after(Sampling(), *size) for size in ((1, 5000), (28, 28))} == {expected}
    assert next_after(PLAIN, 300, 400) == expected


def test_fractions_are_rounded():
    sampling = Sampling(distortion=0, lighting=0, mirror=0, area=(1.0, 1.0), interpolations=("tensorflow",))
    image = pixels(6, 6, 3)
    sample = sampling.sample(image, 8, np.random.default_rng(0))
    assert sample.dtype == np.uint8
    np.testing.assert_array_equal(sample, np.rint(resize(image, 8, 8, "tensorflow")))


def test_a_sample_depends_on_its_generator_alone():
    image = pixels(37, 51, 3)
    for sampler in (lambda rng: training_crop(image, CAFFE, rng), lambda rng: Sampling().sample(image, 24, rng)):
        first, again, other = (sampler(np.random.default_rng(seed)) for seed in (4, 4, 5))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()


def test_threads_change_nothing():
    image, sampling = pixels(37, 51, 3), Sampling()

    def sample(seed):
        return sampling.sample(image, 24, np.random.default_rng(seed))

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(sample, range(40)))
    np.testing.assert_array_equal(found, [sample(seed) for seed in range(40)])


def test_a_sample_depends_on_seed_epoch_and_image_alone():
    images = pixels(10, 20, 25, 3)
    dataset = ArrayDataset(images, np.zeros(10, int), [str(i) for i in range(10)], ["one"], "memory")

    def epoch(number, seed=1, **options):
        loader = Loader(dataset, lambda image, rng: Sampling().sample(image, 16, rng), 3, seed=seed, **options)
        batches = list(loader.epoch(number))
        order = np.concatenate([batch.indices for batch in batches])
        return np.concatenate([batch.images for batch in batches])[order.argsort()]

    expected = epoch(0, shuffle=False)
    np.testing.assert_array_equal(epoch(0, shuffle=True, threads=4), expected)
    assert (epoch(1, shuffle=False) != expected).any(axis=(1, 2, 3)).all()
    assert (epoch(0, seed=2, shuffle=False) != expected).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize(("field", "value"), [
    ("area", (0.0, 1.0)), ("area", (0.5, 0.2)), ("area", (0.08, 1.1)), ("area", (0.5,)), ("area", (0.1, math.nan)),
    ("aspect", (0.0, 1.0)), ("aspect", (1.0, math.inf)), ("aspect", (4 / 3, 3 / 4)),
    ("aspect_law", "normal"), ("interpolations", ()), ("interpolations", ("bilinear", "lanczos")),
    ("tries", 0), ("mirror", 1.5), ("mirror", math.nan), ("distortion", -0.1), ("distortion", 1.1),
    ("lighting", -1.0), ("lighting", math.inf), ("magnitudes", "roots"),
    ("eigenvalues", (1.0, 2.0)), ("eigenvalues", (1.0, -2.0, 0.0)), ("eigenvalues", (1.0, math.nan, 0.0)),
    ("eigenvalues", (1.0, math.inf, 0.0)),
    ("components", ((1.0, 0.0, 0.0),)), ("components", ((math.nan, 0.0, 0.0),) * 3),
])
def test_values_that_make_no_sense(field, value):
    with pytest.raises(DataError, match=rf"^sampling: {field} .*: expected"):
        Sampling(**{field: value})


def test_every_place_and_both_sides_are_equally_likely():
    image, preprocessing = coordinates(5, 6), Preprocessing(size=4, resize=5)
    rng = np.random.default_rng(0)
    draws = 6000
    seen = Counter(corner(training_crop(image, preprocessing, rng)) for _ in range(draws))
    assert set(seen) == {(top, left, mirrored) for top in (0, 1) for left in (0, 1, 2) for mirrored in (False, True)}
    assert all(abs(count - draws / 12) < 5 * np.sqrt(draws / 12) for count in seen.values())


def test_a_training_crop_is_a_window_of_the_resized_picture():
    image = pixels(37, 51, 3)
    for preprocessing in (Preprocessing(size=20, resize=24), Preprocessing(size=20, resize=24, fit="warp")):
        resized = fit(image, preprocessing)
        windows = np.lib.stride_tricks.sliding_window_view(resized, (20, 20, 3))[:, :, 0]
        for seed in range(5):
            crop = training_crop(image, preprocessing, np.random.default_rng(seed))
            assert crop.shape == (20, 20, 3)
            assert any((windows == either).all(axis=(2, 3, 4)).any() for either in (crop, crop[:, ::-1]))
