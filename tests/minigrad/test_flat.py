"""One vector for all parameters: the model's arrays are views of it."""

import numpy as np
import pytest

from minigrad import Tensor, nn, ops
from minigrad.flat import FlatParameters
from minigrad.init import initialise
from tests.minigrad.test_nn import PATHS, Block, Network


@pytest.fixture
def model() -> Network:
    model = Network()
    initialise(model, 0, bias=0.5)
    return model


def test_values_stay_and_memory_is_shared_both_ways(model):
    before = {path: array.copy() for path, array in model.parameters().items()}
    flat = FlatParameters(model)
    assert flat.data.shape == flat.gradient.shape == (sum(a.size for a in before.values()),)
    assert flat.data.dtype == np.float32
    assert flat.data.flags.c_contiguous
    for path, parameter in model.named_parameters():
        np.testing.assert_array_equal(parameter.data, before[path], err_msg=path)
        assert np.shares_memory(parameter.data, flat.data), path
        assert np.shares_memory(parameter.grad, flat.gradient), path
    flat.data[:] = 3
    assert all((array == 3).all() for array in model.parameters().values())
    model.classifier.weight.data[...] = 4
    assert (flat.data == 4).sum() == model.classifier.weight.data.size


def test_views_have_names_shapes_and_the_order_of_the_model(model):
    flat = FlatParameters(model)
    views = flat.views(np.arange(flat.data.size, dtype=np.float32))
    assert [path for path in views if path != "temperature"] == PATHS
    assert {path: view.shape for path, view in views.items()} == {p: a.shape for p, a in model.parameters().items()}
    np.testing.assert_array_equal(np.concatenate([v.ravel() for v in views.values()]), np.arange(flat.data.size))
    velocity = np.zeros_like(flat.data)
    flat.views(velocity)["stem/weight"][...] = 1
    assert velocity.sum() == views["stem/weight"].size


def test_backward_adds_to_the_gradient_in_place():
    block = Block()
    initialise(block, 0)
    flat = FlatParameters(block)
    x = Tensor(np.ones((1, 4, 4, 3), np.float32))

    def loss():
        y = block(x)
        return ops.sum_all(y * y)

    loss().backward()
    once = flat.gradient.copy()
    assert once.any()
    loss().backward()
    np.testing.assert_allclose(flat.gradient, 2 * once, rtol=1e-6)
    flat.zero_gradient()
    assert not flat.gradient.any()
    assert not block.conv.weight.grad.any()
    loss().backward()
    np.testing.assert_array_equal(flat.gradient, once)
    assert np.shares_memory(block.conv.weight.grad, flat.gradient)


def test_a_frozen_copy_of_the_data_is_not_touched(model):
    flat = FlatParameters(model)
    kept = flat.data.copy()
    flat.data += 1
    assert not np.shares_memory(kept, flat.data)
    assert (kept != flat.data).all()


def test_buffers_stay_outside():
    """A running mean has no gradient and no velocity."""
    model = nn.Conv2d(3, 4, 1, batch_norm=nn.BatchNorm(4))
    mean = model.batch_norm.mean.data
    flat = FlatParameters(model)
    assert list(flat.places) == ["weight", "batch_norm/gamma", "batch_norm/beta"]
    assert model.batch_norm.mean.data is mean
    assert not np.shares_memory(flat.data, mean)


def test_float64():
    linear = nn.Linear(3, 2, dtype=np.float64)
    assert FlatParameters(linear).data.dtype == FlatParameters(linear).gradient.dtype == np.float64
