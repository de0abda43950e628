"""Networks whose pictures are resized without rounding, as TensorFlow does: their crops are float32."""

import numpy as np
import pytest

from data.crops import crops
from data.preprocess import PREPROCESSINGS
from googlenet.inference import Predictor
from googlenet.testing import predictions
from googlenet.weights import LoadedModel
from tests.googlenet.test_testing import SHAPES, Photos, literal
from tests.runs import CLASSES, computing_alone, network

one_thread = pytest.fixture(computing_alone, scope="module", autouse=True)


def predictor(name, seed):
    return Predictor(LoadedModel(network(seed, variant="paper", image_size=32), CLASSES, PREPROCESSINGS[name].at(32)))


@pytest.mark.parametrize("count", [1, 10, 144])
def test_a_network_on_fractions_beside_one_on_whole_numbers(count):
    photos = Photos(SHAPES)
    networks = [predictor("slim", seed=1), predictor("onnx", seed=2)]
    for each in predictions(networks, photos, count):
        views = [crops(photos.image(each.image), count, one.preprocessing) for one in networks]
        assert [view.dtype for view in views] == [np.float32, np.uint8]
        expected = np.mean([literal(one, view) for one, view in zip(networks, views, strict=True)], axis=0)
        np.testing.assert_allclose(each.probabilities, expected, rtol=1e-4, atol=1e-7)


def test_the_centres_are_not_rounded():
    photos, one = Photos(SHAPES), predictor("slim", seed=1)
    found = one.predict(photos.photos)
    for photo, probabilities in zip(photos.photos, found, strict=True):
        view = crops(photo, 1, one.preprocessing)
        np.testing.assert_allclose(probabilities, literal(one, view), rtol=1e-4, atol=1e-7)
        rounded = literal(one, np.rint(view))
        assert np.abs(rounded - literal(one, view)).max() > 1e-6, "the test could not tell"
