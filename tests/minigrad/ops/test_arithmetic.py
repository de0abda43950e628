"""add, multiply, sum_all, reshape, and the operators of Tensor."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad import InputError, Tensor, ops
from tests.minigrad.checks import assert_gradients
from tests.minigrad.strategies import normal, seeds, upstream

shapes = st.one_of(st.just(()), st.tuples(st.integers(1, 50)), st.tuples(st.integers(1, 5), st.integers(1, 9)))
FUNCTIONS = {
    "add": lambda a, b: a + b,
    "multiply": lambda a, b: a * b,
    "mixed": lambda a, b: 1.5 - (a - b) * a + 2.0 * b * b - 3.0 + -a,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@given(data=st.data(), shape=shapes, seed=seeds)
def test_gradients_equal_the_complex_step(name, data, shape, seed):
    """The same expression of tensors and of arrays."""
    rng, f = np.random.default_rng(seed), FUNCTIONS[name]
    arrays = [normal(rng, shape), normal(rng, shape)] if shape else [np.array(0.3), np.array(-1.2)]
    dy = data.draw(upstream(shape)) if shape else np.array(0.7)
    np.testing.assert_allclose(f(*map(Tensor, arrays)).data, f(*arrays), rtol=1e-14)
    assert_gradients(f, lambda a, b: np.asarray(f(a, b)), arrays, rng, dy)


@given(shape=shapes, seed=seeds, scale=st.sampled_from([1.0, 0.3, -2.0]))
def test_sum_all(shape, seed, scale):
    rng = np.random.default_rng(seed)
    x = np.asarray(rng.standard_normal(shape))
    assert_gradients(ops.sum_all, lambda x: np.asarray(x.sum()), [x], rng, np.array(scale))


def leaf(*values: float) -> Tensor:
    return Tensor(np.array(values), requires_grad=True)


def test_arithmetic_with_numbers_and_tensors():
    a, b = leaf(2.0, 5.0), leaf(3.0, 7.0)
    y = 1.0 - (a - b) * a + 2.0 * b - 3.0
    np.testing.assert_array_equal(y.data, [1 - (2 - 3) * 2 + 6 - 3, 1 - (5 - 7) * 5 + 14 - 3])
    y.backward(np.ones(2))
    np.testing.assert_array_equal(a.grad, [-(2 * 2 - 3), -(2 * 5 - 7)])
    np.testing.assert_array_equal(b.grad, [2 + 2, 5 + 2])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_do_not_change_the_dtype(dtype):
    x = Tensor(np.ones(3, dtype), requires_grad=True)
    y = ops.sum_all(2.0 * x - np.float64(0.5) + x * x)
    assert y.dtype == dtype
    y.backward()
    assert x.grad.dtype == dtype
    np.testing.assert_array_equal(x.grad, [4, 4, 4])


def test_tensors_of_different_shapes_are_refused_with_both():
    for combine in (ops.add, ops.multiply):
        with pytest.raises(InputError, match=r"\(2, 3\).*\(3,\)"):
            combine(Tensor(np.ones((2, 3))), Tensor(np.ones(3)))


def test_reshape_and_back():
    x = Tensor(np.arange(6.0), requires_grad=True)
    y = ops.reshape(x, (2, 3))
    y.backward(np.arange(6.0).reshape(2, 3))
    assert y.shape == (2, 3)
    np.testing.assert_array_equal(x.grad, np.arange(6.0))
    with pytest.raises(InputError, match=r"\(6,\).*\(4, 2\)"):
        ops.reshape(x, (4, 2))
