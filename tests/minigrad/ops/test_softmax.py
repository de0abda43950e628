"""softmax and log_softmax against the loops and the complex step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad import Tensor, ops
from tests import reference
from tests.minigrad.checks import assert_close, assert_gradients, gradients
from tests.minigrad.strategies import dtypes, normal, seeds, upstream

shapes = st.tuples(st.integers(1, 9), st.sampled_from([1, 2, 10, 17, 40]))
both = pytest.mark.parametrize("name", ["softmax", "log_softmax"])


@both
@given(shape=shapes, seed=seeds, dtype=dtypes)
def test_forward_equals_the_loops(name, shape, seed, dtype):
    x = 3 * normal(np.random.default_rng(seed), shape, dtype)
    y = getattr(ops, name)(Tensor(x))
    assert y.dtype == dtype
    assert_close(y.data, getattr(reference, name)(x.astype(np.float64)))


@both
@given(data=st.data(), shape=shapes, seed=seeds)
def test_gradient_equals_the_complex_step(name, data, shape, seed):
    rng = np.random.default_rng(seed)
    x, dy = normal(rng, shape), data.draw(upstream(shape))
    assert_gradients(getattr(ops, name), getattr(reference, name), [x], rng, dy)


@both
@given(shape=shapes, seed=seeds)
def test_float32_gradient_equals_float64(name, shape, seed):
    rng = np.random.default_rng(seed)
    x, dy = normal(rng, shape), normal(rng, shape)
    (single,), (double,) = (
        gradients(getattr(ops, name), [x.astype(t)], dy.astype(t)) for t in (np.float32, np.float64)
    )
    assert_close(single, double, 1e-5)


@pytest.mark.parametrize("shift", [0.0, 1000.0, -1000.0])
def test_large_values_neither_overflow_nor_vanish(shift):
    x = np.array([[shift, shift + 200.0, shift - 300.0]], np.float32)
    assert_close(ops.softmax(Tensor(x)).data, np.array([[0.0, 1, 0]]))
    assert_close(ops.log_softmax(Tensor(x)).data, np.array([[-200.0, 0, -500]]))
