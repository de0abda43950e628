"""One vector for all parameters: the model's arrays are views of it."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad import InputError, Tensor, nn, ops
from minigrad.flat import FlatParameters, Slice
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


def test_other_memory_is_used_as_it_is(model):
    flat = FlatParameters(model)
    weights, gradient = np.arange(flat.data.size, dtype=np.float32), np.full(flat.data.size, 7, np.float32)
    before = flat.data.copy()
    flat.use(data=weights, gradient=gradient)
    assert flat.data is weights
    flat.zero_gradient()
    for path, parameter in model.named_parameters():
        assert np.shares_memory(parameter.data, weights), path
        assert np.shares_memory(parameter.grad, gradient), path
    assert not flat.gradient.any()
    assert np.shares_memory(flat.gradient, gradient)
    np.testing.assert_array_equal(model.classifier.weight.data, flat.views(weights)["classifier/weight"])
    flat.use(data=before)
    assert np.shares_memory(flat.gradient, gradient), "what is not named stays"


@pytest.mark.parametrize("wrong", [np.zeros(3, np.float32), np.zeros((2, 2), np.float32), "float64"], ids=str)
def test_memory_of_another_shape_or_dtype_is_refused(wrong, model):
    flat = FlatParameters(model)
    vector = np.zeros(flat.data.size, np.float64) if isinstance(wrong, str) else wrong
    with pytest.raises(InputError, match=r"a vector of gradients is .*; expected \(\d+,\) of float32"):
        flat.use(gradient=vector)


@given(st.lists(st.integers(0, 10_000), max_size=5))
def test_slices_share_the_weights_and_know_what_lies_in_them(cuts):
    """Put together, their places are the vector's, wherever the borders are."""
    flat = FlatParameters(Network())
    P = flat.data.size
    borders = sorted({0, P, *(cut % P for cut in cuts)})
    slices = [Slice(flat, *border) for border in pairwise(borders)]
    flat.data[:] = np.arange(P)
    np.testing.assert_array_equal(np.concatenate([each.data for each in slices]), flat.data)
    for path, (place, _) in flat.places.items():
        parts = [each.data[each.places[path][0]] for each in slices if path in each.places]
        np.testing.assert_array_equal(np.concatenate(parts), flat.data[place], err_msg=path)
        for each in slices:
            if path in each.places:
                assert each.views(each.data)[path].base is not None
    slices[0].data[:] = -1
    assert (flat.data[:borders[1]] == -1).all()
