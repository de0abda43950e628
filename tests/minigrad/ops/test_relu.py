"""relu against the loops and central differences."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minigrad import Tensor, ops
from tests import reference
from tests.minigrad.checks import assert_gradients, central_difference, gradients, spaced
from tests.minigrad.strategies import dtypes, normal, seeds, upstream

shapes = st.one_of(
    st.tuples(st.integers(1, 300)), st.tuples(*[st.integers(1, 9)] * 2), st.tuples(*[st.integers(1, 5)] * 4)
)


@given(shape=shapes, dtype=dtypes, seed=seeds)
def test_forward_equals_the_loops(shape, dtype, seed):
    x = normal(np.random.default_rng(seed), shape, dtype)
    y = ops.relu(Tensor(x))
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.data, reference.relu(x))


@given(data=st.data(), shape=shapes, seed=seeds)
def test_gradient_equals_central_differences(data, shape, seed):
    rng = np.random.default_rng(seed)
    x = spaced(rng, shape)
    assert_gradients(ops.relu, reference.relu, [x], rng, data.draw(upstream(shape)), derivative=central_difference)


def test_the_slope_at_zero_is_zero():
    (dx,) = gradients(ops.relu, [np.array([-1, 0, 2], np.float32)], np.full(3, 5, np.float32))
    np.testing.assert_array_equal(dx, [0, 0, 5])


def test_not_a_number_stays_visible():
    """A diverged network must not be cured by its ReLUs: the loss has to show it."""
    assert np.isnan(ops.relu(Tensor(np.array([np.nan, 1.0], np.float32))).data[0])


def test_reads_a_channel_slice():
    x = normal(np.random.default_rng(0), (2, 3, 3, 24))[..., 4:21]
    np.testing.assert_array_equal(ops.relu(Tensor(x)).data, reference.relu(x))
