"""Recorded activations: whose names they bear, and which axis is which."""

import numpy as np
import pytest

from googlenet.model import GoogLeNet
from googlenet.weights.contents import Contents, Graph
from googlenet.weights.recording import NAMES, recording
from googlenet.weights.schemes import SCHEMES
from minigrad.errors import InputError


def recorded(**arrays):
    """What arrays of these names and shapes are taken for."""
    made = {name: np.zeros(array, np.float32) if isinstance(array, tuple) else array for name, array in arrays.items()}
    return recording(Contents("NumPy archive", made), "r.npz")


@pytest.mark.parametrize(("names", "framework", "stages"), [
    (["data", "conv1/7x7_s2", "pool1/norm1", "inception_3a/output", "loss3/classifier", "prob"], "Caffe",
     ["input", "conv1", "norm1", "inception_3a", "classifier", "probabilities"]),
    (["input", "conv1_7x7_s2", "conv2_3x3_reduce", "pool5_7x7_s1"], "Caffe",
     ["input", "conv1", "conv2_reduce", "pool5"]),
    (["conv1", "conv2", "conv3", "maxpool2", "inception3a", "avgpool", "fc"], "torchvision",
     ["conv1", "conv2_reduce", "conv2", "pool2", "inception_3a", "pool5", "classifier"]),
    (["Conv2d_1a_7x7", "Conv2d_2b_1x1", "Conv2d_2c_3x3", "MaxPool_3a_3x3", "MaxPool_5a_2x2", "Mixed_3b", "Mixed_5c",
      "Logits", "Predictions"], "TF-slim",
     ["conv1", "conv2_reduce", "conv2", "pool2", "pool4", "inception_3a", "inception_5b", "classifier",
      "probabilities"]),
    (["input", "conv1", "pool1", "conv2", "inception_5b", "classifier"], "this program",
     ["input", "conv1", "pool1", "conv2", "inception_5b", "classifier"]),
])
def test_names_of_each_framework(names, framework, stages):
    found = recorded(**dict.fromkeys(names, (2, 6)))
    assert found.framework == framework
    assert list(found.stages) == stages
    assert found.unknown == ()
    assert found.images == 2


@pytest.mark.parametrize("framework", NAMES)
def test_every_name_stands_for_a_stage(framework):
    assert set(NAMES[framework].values()) <= {*GoogLeNet().stage_shapes, "input", "probabilities"}


@pytest.mark.parametrize(("first", "second", "channels"), [
    ((1, 3, 8, 8), (1, 4, 4, 4), "first"), ((1, 8, 8, 3), (1, 4, 4, 4), "last"), ((1, 6, 1, 1), (1, 4, 4, 4), "first")])
def test_square_grids_tell_where_the_channels_are(first, second, channels):
    values = np.arange(np.prod(second), dtype=np.float32).reshape(second)
    found = recorded(input=first, conv1=values)
    assert found.channels == channels
    expected = values.transpose(0, 2, 3, 1) if channels == "first" else values
    np.testing.assert_array_equal(found.stages["conv1"], expected)


def test_halves_become_floats_that_can_be_computed_with():
    assert recorded(fc=np.ones((1, 5), np.float16)).stages["classifier"].dtype == np.float32


def test_a_grid_of_one_is_no_grid():
    assert recorded(input=(2, 3, 8, 8), pool5=(2, 64, 1, 1)).stages["pool5"].shape == (2, 64)


def test_what_is_no_stage_is_named():
    found = recorded(**{"conv1": (1, 4, 8, 8), "inception_3a/1x1": (1, 2, 4, 4), "labels": (5,)})
    assert found.unknown == ("inception_3a/1x1", "labels")
    assert str(found) == ("1 image, 1 arrays by this program's names, channels first; "
                          "no stages: inception_3a/1x1, labels")


def test_the_first_images():
    made = Contents("NumPy archive", {"prob": np.eye(3)}, metadata={"files": "a.png\nb.png\nc.png"})
    found = recording(made, "r.npz")
    assert found.files == ("a.png", "b.png", "c.png")
    assert found.first(2).files == ("a.png", "b.png")
    assert found.first(2).images == 2
    assert found.first(None).images == 3


@pytest.mark.parametrize(("arrays", "told"), [
    ({"input": (1, 3, 8, 9)}, "square grids"), ({"input": (1, 3, 8, 8), "conv1": (1, 8, 8, 4)}, "square grids"),
    ({"input": (1, 3, 8, 8), "conv1": (2, 4, 8, 8)}, "same images"), ({"input": ()}, "same images"),
    ({"prob": (0, 5)}, "same images")])
def test_recordings_that_contradict_themselves(arrays, told):
    with pytest.raises(InputError, match=f"r.npz.*{told}"):
        recorded(**arrays)


def test_weights_are_no_recording():
    weights = {name: np.zeros(1) for name in SCHEMES["caffe"].known()}
    assert recording(Contents("NumPy archive", {**weights, "data": np.zeros((1, 3))}), "w.npz") is None
    assert recording(Contents("NumPy archive", {"a": np.zeros(1)}), "w.npz") is None
    assert recording(Contents("ONNX", {"data": np.zeros((1, 3))}, graph=Graph("caffe")), "w.onnx") is None
