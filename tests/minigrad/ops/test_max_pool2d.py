"""max_pool2d against the loops, its gradient against central differences between well separated values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad import InputError, Tensor, ops
from tests import reference
from tests.minigrad.checks import assert_gradients, central_difference, gradients, spaced
from tests.minigrad.strategies import dtypes, normal, upstream, windows

pools = windows(largest_kernel=4, pooling=True)


@given(case=pools, ceil=st.booleans(), dtype=dtypes)
def test_forward_equals_the_loops(case, ceil, dtype):
    x = normal(case.rng, case.shape, dtype) - 5  # below zero: a zero of the padding would win
    y = ops.max_pool2d(Tensor(x), case.kernel, ceil=ceil, **case.options)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.data, reference.max_pool2d(x, case.kernel, ceil=ceil, **case.options))


@given(data=st.data(), case=pools, ceil=st.booleans())
def test_gradient_equals_central_differences(data, case, ceil):
    x = spaced(case.rng, case.shape)

    def op(x):
        return ops.max_pool2d(x, case.kernel, ceil=ceil, **case.options)

    def loops(x):
        return reference.max_pool2d(x, case.kernel, ceil=ceil, **case.options)

    dy = data.draw(upstream(op(Tensor(x)).shape))
    assert_gradients(op, loops, [x], case.rng, dy, derivative=central_difference)


@given(data=st.data(), case=pools)
def test_float32_gradient_equals_float64(data, case):
    x = spaced(case.rng, case.shape)

    def op(x):
        return ops.max_pool2d(x, case.kernel, **case.options)

    dy = data.draw(upstream(op(Tensor(x)).shape))
    (single,), (double,) = (gradients(op, [x.astype(t)], dy.astype(t)) for t in (np.float32, np.float64))
    np.testing.assert_allclose(single, double, rtol=0, atol=1e-5)


def test_stride_is_the_kernel_unless_given():
    x = np.arange(36.0).reshape(1, 6, 6, 1)
    np.testing.assert_array_equal(
        ops.max_pool2d(Tensor(x), (2, 3)).data, reference.max_pool2d(x, (2, 3), stride=(2, 3))
    )


def test_the_gradient_of_a_tie_goes_to_one_pixel():
    (dx,) = gradients(lambda x: ops.max_pool2d(x, 3, stride=1), [np.zeros((1, 4, 4, 2))], np.ones((1, 2, 2, 2)))
    assert dx.sum() == 8
    assert set(np.unique(dx)) <= {0, 1, 2, 3, 4}
    (dx,) = gradients(lambda x: ops.max_pool2d(x, 2), [np.zeros((1, 2, 2, 1))], np.ones((1, 1, 1, 1)))
    assert sorted(dx.ravel()) == [0, 0, 0, 1]


@pytest.mark.parametrize(("size", "floor", "ceil"), [(112, 55, 56), (56, 27, 28), (28, 13, 14), (14, 6, 7), (7, 3, 3)])
def test_rounding_up_gives_the_sizes_of_table_1(size, floor, ceil):
    x = Tensor(np.zeros((1, size, size, 1), np.float32))
    assert ops.max_pool2d(x, 3, stride=2).shape == (1, floor, floor, 1)
    assert ops.max_pool2d(x, 3, stride=2, ceil=True).shape == (1, ceil, ceil, 1)


def test_reads_a_channel_slice():
    wide = normal(np.random.default_rng(0), (2, 6, 6, 24))
    x = wide[..., 4:21]
    dy = normal(np.random.default_rng(1), (2, 3, 3, 17))
    np.testing.assert_array_equal(ops.max_pool2d(Tensor(x), 2).data, reference.max_pool2d(x, 2))
    (got,), (expected,) = (gradients(lambda t: ops.max_pool2d(t, 2), [a], dy) for a in (x, x.copy()))
    np.testing.assert_array_equal(got, expected)


def test_refuses_padding_as_wide_as_the_kernel():
    """A window could lie outside the image: it has no maximum."""
    with pytest.raises(InputError, match=r"padding 2.*2x3"):
        ops.max_pool2d(Tensor(np.zeros((2, 8, 8, 3))), (2, 3), padding=2)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_not_a_number_stays_visible(value):
    """A diverged network must not be cured by its pools: the loss has to show it."""
    x = np.full((1, 2, 2, 3), value)
    x[0, 1, 0] = 1, np.nan, 2
    np.testing.assert_array_equal(ops.max_pool2d(Tensor(x), 2).data, reference.max_pool2d(x, 2))


@pytest.mark.parametrize("pool", [ops.max_pool2d, ops.avg_pool2d])
@pytest.mark.parametrize(
    ("x", "kernel", "options", "told"),
    [
        ((0, 8, 8, 3), 2, {}, ("0, 8, 8, 3", "batch")),
        ((8, 8, 3), 2, {}, ("8, 8, 3",)),
        ((2, 3, 4, 5), 6, {}, ("3", "4", "6")),
        ((2, 8, 8, 3), 0, {}, ("kernel", "0")),
        ((2, 8, 8, 3), 2, {"stride": -1}, ("stride", "-1")),
        ((2, 8, 8, 3), 2, {"padding": "full"}, ("padding", "full", "same")),
    ],
)
def test_refuses_what_cannot_be_and_names_it(pool, x, kernel, options, told):
    with pytest.raises(InputError) as error:
        pool(Tensor(np.zeros(x)), kernel, **options)
    assert all(words in str(error.value) for words in told), str(error.value)
