"""avg_pool2d against the loops and the complex step (its refusals: test_max_pool2d.py)."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minigrad import Tensor, ops
from tests import reference
from tests.minigrad.checks import assert_close, assert_gradients, gradients
from tests.minigrad.strategies import dtypes, normal, upstream, windows

pools = windows(largest_kernel=5, pooling=True)


@given(case=pools, ceil=st.booleans(), dtype=dtypes)
def test_forward_equals_the_loops(case, ceil, dtype):
    x = normal(case.rng, case.shape, dtype)
    y = ops.avg_pool2d(Tensor(x), case.kernel, ceil=ceil, **case.options)
    assert y.dtype == dtype
    assert_close(y.data, reference.avg_pool2d(x.astype(np.float64), case.kernel, ceil=ceil, **case.options))


@given(data=st.data(), case=pools, ceil=st.booleans())
def test_gradient_equals_the_complex_step(data, case, ceil):
    x = normal(case.rng, case.shape)

    def op(x):
        return ops.avg_pool2d(x, case.kernel, ceil=ceil, **case.options)

    def loops(x):
        return reference.avg_pool2d(x, case.kernel, ceil=ceil, **case.options)

    assert_gradients(op, loops, [x], case.rng, data.draw(upstream(op(Tensor(x)).shape)))


@given(data=st.data(), case=pools)
def test_float32_gradient_equals_float64(data, case):
    x = normal(case.rng, case.shape)

    def op(x):
        return ops.avg_pool2d(x, case.kernel, **case.options)

    dy = data.draw(upstream(op(Tensor(x)).shape))
    (single,), (double,) = (gradients(op, [x.astype(t)], dy.astype(t)) for t in (np.float32, np.float64))
    np.testing.assert_allclose(single, double, rtol=0, atol=1e-5)


def test_divides_by_the_window_clipped_to_the_padded_image():
    """Caffe's rule: the padding's zeros count, what sticks out beyond them does not."""
    y = ops.avg_pool2d(Tensor(np.ones((1, 4, 4, 1))), 3, stride=2, padding=1, ceil=True).data[0, :, :, 0]
    row = np.array([2 / 3, 1, 1 / 2])  # rows -1..1 of 3; 1..3 of 3; 3..4 of 2, the fifth being outside the padding
    np.testing.assert_allclose(y, np.outer(row, row), rtol=1e-15)


def test_reads_a_channel_slice():
    x = normal(np.random.default_rng(0), (2, 6, 6, 24))[..., 4:21]
    dy = normal(np.random.default_rng(1), (2, 3, 3, 17))
    assert_close(ops.avg_pool2d(Tensor(x), 2).data, reference.avg_pool2d(x, 2))
    (got,), (expected,) = (gradients(lambda t: ops.avg_pool2d(t, 2), [a], dy) for a in (x, x.copy()))
    np.testing.assert_array_equal(got, expected)
