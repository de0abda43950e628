"""lrn against the loops and the complex step, at constants with which every term matters."""

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad import InputError, Tensor, ops
from minigrad.ops.lrn import three_quarters
from tests import reference
from tests.minigrad.checks import assert_close, assert_gradients, gradients
from tests.minigrad.strategies import channels, dtypes, normal, seeds, upstream

# With alpha = 1e-4 and inputs of order one, y is x to four digits and a wrong window passes: so alpha is about 1.
constants = st.fixed_dictionaries(
    {
        "size": st.sampled_from([1, 3, 5, 7]),
        "alpha": st.sampled_from([0.5, 1.0, 3.0]),
        "beta": st.sampled_from([0.75, 0.5, 1.0, 0.6]),
        "k": st.sampled_from([1.0, 2.0]),
    }
)
shapes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), channels)


@given(shape=shapes, options=constants, dtype=dtypes, seed=seeds)
def test_forward_equals_the_loops(shape, options, dtype, seed):
    x = normal(np.random.default_rng(seed), shape, dtype)
    y = ops.lrn(Tensor(x), **options)
    assert y.dtype == dtype
    assert_close(y.data, reference.lrn(x.astype(np.float64), **options))


@given(data=st.data(), shape=shapes, options=constants, seed=seeds)
def test_gradient_equals_the_complex_step(data, shape, options, seed):
    rng = np.random.default_rng(seed)
    x = normal(rng, shape)
    dy = data.draw(upstream(shape))
    assert_gradients(lambda x: ops.lrn(x, **options), lambda x: reference.lrn(x, **options), [x], rng, dy)


@given(shape=shapes, options=constants, seed=seeds)
def test_float32_gradient_equals_float64(shape, options, seed):
    rng = np.random.default_rng(seed)
    x, dy = normal(rng, shape), normal(rng, shape)
    (single,), (double,) = (
        gradients(lambda x: ops.lrn(x, **options), [x.astype(t)], dy.astype(t)) for t in (np.float32, np.float64)
    )
    np.testing.assert_allclose(single, double, rtol=0, atol=1e-5 * np.abs(double).max())


def test_the_defaults_are_caffes():
    """Size 5, alpha 1e-4 (over size), beta 0.75, k 1: on the 0..255 scale that they were chosen for."""
    x = 100 * normal(np.random.default_rng(0), (1, 2, 2, 9))
    y = ops.lrn(Tensor(x)).data
    assert_close(y, x * (1 + 1e-4 / 5 * reference_energy(x, 2)) ** -0.75)
    assert np.abs(y - x).max() > 1


def reference_energy(x: np.ndarray, half: int) -> np.ndarray:
    """The sum of squares over the channels at most `half` away."""
    squares = np.pad(x * x, ((0, 0), (0, 0), (0, 0), (half, half)))
    return np.lib.stride_tricks.sliding_window_view(squares, 2 * half + 1, axis=-1).sum(-1)


def test_reads_a_channel_slice():
    x, dy = (normal(np.random.default_rng(i), (2, 3, 3, 24))[..., 4:21] for i in (0, 1))
    assert_close(ops.lrn(Tensor(x), alpha=1.0).data, reference.lrn(x, alpha=1.0))
    (got,) = gradients(lambda t: ops.lrn(t, alpha=1.0), [x], dy)
    (expected,) = gradients(lambda t: ops.lrn(t, alpha=1.0), [x.copy()], dy.copy())
    assert_close(got, expected)


@pytest.mark.parametrize("size", [4, 0, -1])
def test_refuses_a_window_without_a_centre(size):
    with pytest.raises(InputError, match=rf"{size}.*odd"):
        ops.lrn(Tensor(np.zeros((2, 2, 2, 8))), size=size)


def test_powers_of_float32_are_float32():
    """A literal would make them float64: half the lanes, twice the time."""
    three_quarters.compile((numba.float32,))
    assert three_quarters.overloads[(numba.float32,)].signature.return_type == numba.float32
