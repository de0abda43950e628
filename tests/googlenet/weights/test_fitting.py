"""Trained weights as the beginning of a network for another task."""

import numpy as np
import pytest

from googlenet.config import ModelConfig
from googlenet.model import GoogLeNet
from googlenet.weights.fitting import transfer
from minigrad import init
from minigrad.errors import InputError


def network(seed: int, **config) -> GoogLeNet:
    made = GoogLeNet(ModelConfig(**{"variant": "caffe", "classes": 7, "width": 1 / 16, "image_size": 224, **config}))
    init.initialise(made, seed, weight="he", bias=0.2)
    return made


def test_all_is_taken_where_the_task_is_the_same():
    trained, begun = network(1), network(2)
    assert transfer(begun, trained.state(), "f") == []
    for path, array in trained.state().items():
        np.testing.assert_array_equal(begun.state()[path], array)


def test_classifiers_of_other_classes_are_left_to_chance():
    trained, begun = network(1), network(2, classes=3)
    before = begun.classifier.weight.data.copy()
    assert transfer(begun, trained.state(), "f") == ["aux1/classifier", "aux2/classifier", "classifier"]
    np.testing.assert_array_equal(begun.classifier.weight.data, before)
    np.testing.assert_array_equal(begun.aux1.fc.weight.data, trained.aux1.fc.weight.data)


def test_heads_that_were_not_trained_are_left_to_chance():
    trained, begun = network(1, heads="none"), network(2)
    assert transfer(begun, trained.state(), "f") == [f"{head}/{layer}" for head in ("aux1", "aux2")
                                                     for layer in ("classifier", "conv", "fc")]
    np.testing.assert_array_equal(begun.inception_5b.conv_3x3.weight.data, trained.inception_5b.conv_3x3.weight.data)


def test_heads_that_are_not_wanted_are_left_out():
    begun = network(2, heads="none")
    assert transfer(begun, network(1).state(), "f") == []


@pytest.mark.parametrize(("change", "told"), [
    (lambda arrays: arrays.pop("inception_4a/conv_3x3/bias"), r"lacks inception_4a/conv_3x3/bias"),
    (lambda arrays: arrays.update({"conv1/weight": np.zeros((7, 7, 3, 5))}), r"conv1/weight \(7, 7, 3, 5\)"),
    (lambda arrays: arrays.update({"conv1/extra": np.zeros(5)}), r"the network lacks conv1/extra"),
    (lambda arrays: arrays.update({"conv1/bias": np.full(4, np.inf)}), r"conv1/bias .*not finite"),
    (lambda arrays: arrays.update({"conv1/bias": np.full(4, 1e300)}), r"conv1/bias .*not finite numbers in float32"),
    (lambda arrays: arrays.update({"conv1/bias": np.zeros(4, np.int64)}), r"conv1/bias is of int64"),
])
def test_what_else_differs_is_an_error_that_changes_nothing(change, told):
    begun, arrays = network(2), dict(network(1).state())
    before = {path: array.copy() for path, array in begun.state().items()}
    change(arrays)
    with pytest.raises(InputError, match=told):
        transfer(begun, arrays, "f")
    for path, array in before.items():
        np.testing.assert_array_equal(begun.state()[path], array)
