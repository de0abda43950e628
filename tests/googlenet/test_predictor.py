"""googlenet.load: photos in, probabilities and features out."""

import subprocess
import sys

import numpy as np
import pytest

import googlenet
from data.crops import crops
from googlenet import weights
from googlenet.config import ModelConfig
from googlenet.model import GoogLeNet, preprocessing_of
from minigrad import Tensor, init
from minigrad.errors import InputError


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    model = GoogLeNet(ModelConfig(classes=4, image_size=32, width=0.125))
    init.initialise(model, 0, weight="he", bias=0.2)
    path = tmp_path_factory.mktemp("predictor") / "weights.h5"
    weights.save_weights(path, model, preprocessing=preprocessing_of(model.config), classes="abcd")
    return googlenet.load(path)


def photos(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (40 + i, 60 - i, 3), np.uint8) for i in range(count)]


def test_probabilities_of_photos_of_any_size(predictor):
    images = photos(19)  # more than one batch
    probabilities = predictor.predict(images)
    assert probabilities.shape == (19, 4)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(probabilities[17:18], predictor.predict(images[17:18]), rtol=1e-4)


def test_prediction_is_the_network_on_the_preprocessed_centre(predictor):
    image = photos(1)[0]
    x = predictor.preprocessing.normalise(crops(image, 1, predictor.preprocessing))
    logits = predictor.model(Tensor(x)).logits.data.astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(predictor.predict([image]), expected, rtol=1e-5)
    np.testing.assert_array_equal(predictor.predict(image[None]), predictor.predict([image]))


def test_the_least_probable_class_is_not_impossible(predictor, monkeypatch):
    """In float32 a difference of 104 between two logits is a probability of 0, whose loss is no number."""
    logits = np.array([[200, 0, 0, 100]], np.float32)
    monkeypatch.setattr(predictor, "_logits", lambda x: logits)
    view = np.zeros((1, 32, 32, 3), np.uint8)
    np.testing.assert_allclose(np.log(predictor.probabilities(view)), logits - 200.0)


@pytest.mark.parametrize(("stage", "shape"), [
    ("inception_4a", (2, 2, 2, 64)), ("pool5", (2, 128)), ("classifier", (2, 4))])
def test_features_of_a_stage(predictor, stage, shape):
    assert predictor.features(photos(2), stage).shape == shape


def test_features_end_in_the_probabilities(predictor):
    logits = predictor.features(photos(3), "classifier").astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(predictor.predict(photos(3)), expected, rtol=1e-5)


def test_unknown_stage_lists_the_stages(predictor):
    with pytest.raises(InputError, match="no stage 'conv3': choose one of conv1, pool1"):
        predictor.features(photos(1), "conv3")


@pytest.mark.parametrize(("images", "told"), [
    ([], "no images"), (np.zeros((40, 40, 3), np.uint8), r"uint8 \(40, 3\)"), ([np.zeros((40, 40), np.uint8)], "RGB"),
    ([np.zeros((40, 40, 3))], "float64"), (["photo.jpg"], "str"), ([np.zeros((0, 4, 3), np.uint8)], "4, 3")])
def test_other_things_are_refused(predictor, images, told):
    with pytest.raises(InputError, match=told):
        predictor.predict(images)


def test_public_names_are_there():
    for name in googlenet.__all__:
        assert getattr(googlenet, name).__name__ == name
    with pytest.raises(AttributeError, match="predict"):
        googlenet.predict  # noqa: B018


def test_package_is_imported_without_the_engine():
    code = "import googlenet, sys; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
