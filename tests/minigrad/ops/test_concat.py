"""concat: the values, the gradients, and that parts already side by side are not copied."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad import InputError, Tensor, ops
from tests import reference
from tests.minigrad.checks import assert_gradients
from tests.minigrad.strategies import channels, dtypes, normal, seeds, upstream

parts = st.lists(channels, min_size=1, max_size=4)


@given(parts=parts, seed=seeds, dtype=dtypes)
def test_forward_equals_the_loops(parts, seed, dtype):
    rng = np.random.default_rng(seed)
    arrays = [normal(rng, (2, 3, 2, C), dtype) for C in parts]
    y = ops.concat([Tensor(a) for a in arrays])
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.data, reference.concat(arrays))


@given(data=st.data(), parts=parts, seed=seeds)
def test_gradients_equal_the_complex_step(data, parts, seed):
    rng = np.random.default_rng(seed)
    arrays = [normal(rng, (2, 3, 2, C)) for C in parts]
    dy = data.draw(upstream((2, 3, 2, sum(parts))))
    assert_gradients(lambda *t: ops.concat(t), lambda *a: reference.concat(a), arrays, rng, dy)


def test_parts_side_by_side_are_not_copied():
    whole = normal(np.random.default_rng(0), (2, 3, 3, 24))
    y = ops.concat([Tensor(whole[..., a:b]) for a, b in ((0, 8), (8, 11), (11, 24))])
    assert np.shares_memory(y.data, whole)
    assert y.data.strides == whole.strides
    np.testing.assert_array_equal(y.data, whole)


@pytest.mark.parametrize(
    "cuts", [((8, 24), (0, 8)), ((0, 8), (7, 23)), ((0, 12), (0, 12)), ((0, 8), (9, 24)), ((0, 8), (7, 24))]
)
def test_parts_of_one_buffer_in_another_order_or_with_gaps_are_copied(cuts):
    whole = normal(np.random.default_rng(0), (2, 3, 3, 24))
    arrays = [whole[..., a:b] for a, b in cuts]
    y = ops.concat([Tensor(a) for a in arrays]).data
    assert not np.shares_memory(y, whole)
    np.testing.assert_array_equal(y, reference.concat(arrays))


def test_parts_of_different_buffers_are_copied():
    """Neighbours by chance in memory are still two buffers: views of one of them must not reach into the other."""
    a, b = np.zeros((1, 1, 1, 4)), np.ones((1, 1, 1, 4))
    y = ops.concat([Tensor(a), Tensor(b)]).data
    assert not np.shares_memory(y, a)
    assert not np.shares_memory(y, b)


def test_a_gradient_of_a_part_used_twice_is_summed():
    x = Tensor(np.ones((1, 1, 1, 3)), requires_grad=True)
    ops.concat([x, x]).backward(np.arange(6.0).reshape(1, 1, 1, 6))
    np.testing.assert_array_equal(x.grad.ravel(), [3, 5, 7])


@pytest.mark.parametrize("shapes", [((2, 3, 3, 4), (2, 3, 2, 4)), ((2, 3, 3, 4), (1, 3, 3, 4)), ((2, 4), (2, 3, 3, 4))])
def test_refuses_parts_that_do_not_fit_and_names_both_shapes(shapes):
    with pytest.raises(InputError) as error:
        ops.concat([Tensor(np.zeros(shape)) for shape in shapes])
    assert all(str(shape)[1:-1] in str(error.value) for shape in shapes), str(error.value)


def test_refuses_nothing():
    with pytest.raises(InputError):
        ops.concat([])
