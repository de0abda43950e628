"""BVLC's ImageNet-trained weights: every stage's activations and the probabilities of photos, stored by another
implementation. The reference is not part of the project; without it these tests skip."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import googlenet
from data.crops import crops
from googlenet import weights
from googlenet.weights.formats import caffemodel
from googlenet.weights.formats.onnx import export as onnx_export
from googlenet.weights.placing import foreign, texts
from minigrad import Tensor, no_grad

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference"
WEIGHTS = REFERENCE / "weights" / "bvlc_googlenet.npz"
pytestmark = pytest.mark.skipif(not WEIGHTS.exists(), reason=f"no reference weights at {WEIGHTS}")

MODULES = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
STAGES = {
    "conv1": "conv1_7x7_s2", "pool1": "pool1_3x3_s2", "norm1": "pool1_norm1", "conv2": "conv2_3x3",
    "norm2": "conv2_norm2", "pool2": "pool2_3x3_s2", "pool3": "pool3_3x3_s2", "pool4": "pool4_3x3_s2",
    "pool5": "pool5_7x7_s1", "classifier": "loss3_classifier",
    **{f"inception_{name}": f"inception_{name}_output" for name in MODULES},
}  # ours, Caffe's


@pytest.fixture(scope="module")
def travelled(tmp_path_factory):
    """The weights after archive -> HDF5 -> Caffe's model -> HDF5 -> ONNX -> HDF5: the last file."""
    folder = tmp_path_factory.mktemp("travelled")
    weights.save(folder / "1.h5", weights.read(WEIGHTS).weights)
    caffemodel.write(folder / "2.caffemodel", foreign(weights.read(folder / "1.h5").weights, "caffe"))
    weights.save(folder / "3.h5", weights.read(folder / "2.caffemodel").weights)
    third = weights.read(folder / "3.h5").weights
    onnx_export.write(folder / "4.onnx", third.model(), texts(third))
    weights.save(folder / "5.h5", weights.read(folder / "4.onnx").weights)
    return folder / "5.h5"


@pytest.fixture(scope="module", params=["archive", "after a journey"])
def predictor(request):
    return googlenet.load(WEIGHTS if request.param == "archive" else request.getfixturevalue("travelled"))


def test_a_journey_through_other_formats_changes_no_bit(travelled):
    before, after = weights.read(WEIGHTS).weights, weights.read(travelled).weights
    assert set(before.arrays) == set(after.arrays)
    for path, array in before.arrays.items():
        np.testing.assert_array_equal(after.arrays[path], array, err_msg=path)
        assert after.arrays[path].dtype == array.dtype


@pytest.mark.parametrize("photo", ["n01558993_robin", "n02504013_Indian_elephant"])
def test_every_stage_agrees(predictor, photo):
    """The largest difference is at most 1e-5 of the largest stored value."""
    stored = np.load(REFERENCE / "activations" / f"{photo}.npz")
    x = Tensor(np.ascontiguousarray(stored["input"].transpose(0, 2, 3, 1)))
    seen = set()
    with no_grad():
        for name, y in predictor.model.stages(x):
            if name in STAGES:
                expected = stored[STAGES[name]]
                got = y.data.transpose(0, 3, 1, 2) if y.data.ndim == 4 else y.data.reshape(expected.shape)
                error = np.abs(got - expected).max() / np.abs(expected).max()
                assert got.shape == expected.shape, name
                assert error <= 1e-5, f"{name}: {error:.1e} of the largest value"
                seen.add(STAGES[name])
    assert seen == set(stored.files) - {"input", "prob"}


def test_preprocessing_makes_the_stored_input(predictor):
    stored = np.load(REFERENCE / "activations" / "n01558993_robin.npz")
    image = np.asarray(Image.open(REFERENCE / "photos" / "n01558993_robin.JPEG").convert("RGB"))
    got = predictor.preprocessing.normalise(crops(image, 1, predictor.preprocessing))
    np.testing.assert_array_equal(got.transpose(0, 3, 1, 2), stored["input"])
    np.testing.assert_allclose(predictor.predict([image]), stored["prob"], atol=1e-5)


def test_probabilities_of_200_photos(predictor):
    stored = np.load(REFERENCE / "activations" / "probabilities.npz")
    images = [np.asarray(Image.open(REFERENCE / "photos" / name).convert("RGB")) for name in stored["files"]]
    probabilities = predictor.predict(images)
    assert np.abs(probabilities - stored["probabilities"]).max() <= 1e-5
    with open(REFERENCE / "photos" / "labels.csv", newline="") as file:
        labels = {row["file"]: int(row["class_index"]) for row in csv.DictReader(file)}
    right = sum(probabilities.argmax(axis=1) == [labels[name] for name in stored["files"]])
    assert right >= 130, f"{right} of 200 photos recognised"
