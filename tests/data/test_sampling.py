from collections import Counter

import numpy as np

from data.preprocess import CAFFE, Preprocessing, fit
from data.sampling import training_crop
from tests.data.files import pixels
from tests.data.test_crops import coordinates, corner


def test_every_place_and_both_sides_are_equally_likely():
    image, preprocessing = coordinates(5, 6), Preprocessing(size=4, resize=5)
    rng = np.random.default_rng(0)
    draws = 6000
    seen = Counter(corner(training_crop(image, preprocessing, rng)) for _ in range(draws))
    assert set(seen) == {(top, left, mirrored) for top in (0, 1) for left in (0, 1, 2) for mirrored in (False, True)}
    assert all(abs(count - draws / 12) < 5 * np.sqrt(draws / 12) for count in seen.values())


def test_a_sample_is_a_window_of_the_resized_picture():
    image = pixels(37, 51, 3)
    for preprocessing in (Preprocessing(size=20, resize=24), Preprocessing(size=20, resize=24, fit="warp")):
        resized = fit(image, preprocessing)
        windows = np.lib.stride_tricks.sliding_window_view(resized, (20, 20, 3))[:, :, 0]
        for seed in range(5):
            crop = training_crop(image, preprocessing, np.random.default_rng(seed))
            assert crop.shape == (20, 20, 3)
            assert any((windows == either).all(axis=(2, 3, 4)).any() for either in (crop, crop[:, ::-1]))


def test_a_sample_depends_on_its_generator_alone():
    image = pixels(37, 51, 3)
    first, again = (training_crop(image, CAFFE, np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
