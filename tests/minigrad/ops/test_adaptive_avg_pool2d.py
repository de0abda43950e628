"""adaptive_avg_pool2d against the loops, the complex step and PyTorch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad import InputError, Tensor, ops
from minigrad.kernels.plan import Plan
from tests import reference
from tests.minigrad.checks import assert_close, assert_gradients, gradients
from tests.minigrad.strategies import channels, dtypes, normal, seeds, upstream

shapes = st.tuples(st.integers(1, 3), st.integers(1, 13), st.integers(1, 13), channels)
sizes = st.integers(1, 6)


@given(shape=shapes, size=sizes, dtype=dtypes, seed=seeds)
def test_forward_equals_the_loops(shape, size, dtype, seed):
    x = normal(np.random.default_rng(seed), shape, dtype)
    y = ops.adaptive_avg_pool2d(Tensor(x), size)
    assert y.dtype == dtype
    assert_close(y.data, reference.adaptive_avg_pool2d(x.astype(np.float64), size))


@given(data=st.data(), shape=shapes, size=sizes, seed=seeds)
def test_gradient_equals_the_complex_step(data, shape, size, seed):
    rng = np.random.default_rng(seed)
    dy = data.draw(upstream((shape[0], size, size, shape[3])))

    def op(x):
        return ops.adaptive_avg_pool2d(x, size)

    def loops(x):
        return reference.adaptive_avg_pool2d(x, size)

    assert_gradients(op, loops, [normal(rng, shape)], rng, dy)


@given(shape=shapes, size=sizes, seed=seeds)
def test_float32_gradient_equals_float64(shape, size, seed):
    rng = np.random.default_rng(seed)
    x, dy = normal(rng, shape), normal(rng, (shape[0], size, size, shape[3]))
    (single,), (double,) = (
        gradients(lambda x: ops.adaptive_avg_pool2d(x, size), [x.astype(t)], dy.astype(t))
        for t in (np.float32, np.float64)
    )
    np.testing.assert_allclose(single, double, rtol=0, atol=1e-5)


def test_windows_of_seven_rows_by_four_overlap():
    """Rows 0-1, 1-3, 3-5 and 5-6, as torchvision's heads pool a 7x7 map."""
    x = np.broadcast_to(np.arange(7.0)[None, :, None, None], (1, 7, 7, 1))
    np.testing.assert_allclose(ops.adaptive_avg_pool2d(Tensor(x), 4).data[0, :, 0, 0], [0.5, 2, 4, 5.5], rtol=1e-15)


@pytest.mark.parametrize(("H", "W", "size"), [(14, 14, 4), (7, 9, 4), (3, 2, 4), (12, 8, 4), (5, 5, 1)])
def test_equals_torch(H, W, size):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    rng = np.random.default_rng(0)
    x, dy = normal(rng, (2, H, W, 5)), normal(rng, (2, size, size, 5))
    theirs = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    y = torch.nn.AdaptiveAvgPool2d(size)(theirs)
    y.backward(torch.tensor(dy.transpose(0, 3, 1, 2)))
    assert_close(ops.adaptive_avg_pool2d(Tensor(x), size).data, y.detach().numpy().transpose(0, 2, 3, 1))
    (dx,) = gradients(lambda t: ops.adaptive_avg_pool2d(t, size), [x], dy)
    assert_close(dx, theirs.grad.numpy().transpose(0, 2, 3, 1))


def test_reads_a_channel_slice():
    x = normal(np.random.default_rng(0), (2, 6, 7, 24))[..., 4:21]
    dy = normal(np.random.default_rng(1), (2, 4, 4, 24))[..., 4:21]
    assert_close(ops.adaptive_avg_pool2d(Tensor(x), 4).data, reference.adaptive_avg_pool2d(x, 4))
    (got,), (expected,) = (
        gradients(lambda t: ops.adaptive_avg_pool2d(t, 4), arrays[:1], arrays[1])
        for arrays in ((x, dy), (x.copy(), dy.copy()))
    )
    np.testing.assert_array_equal(got, expected)


def test_a_plan_repeats_it():
    one, other = normal(np.random.default_rng(0), (2, 2, 7, 7, 24), np.float32)

    def pooled(x):
        return ops.adaptive_avg_pool2d(Tensor(x), 4).data

    plan = Plan(pooled, one)
    assert plan.agrees
    np.testing.assert_array_equal(plan(other), pooled(other))


@pytest.mark.parametrize(("shape", "size"), [((2, 4, 4, 8), 0), ((4, 4, 8), 4)])
def test_refuses_what_has_no_windows(shape, size):
    with pytest.raises(InputError, match=r"N, H, W, C.*at least 1"):
        ops.adaptive_avg_pool2d(Tensor(np.zeros(shape)), size)
