"""conv2d: im2col against the loops and the complex step, direct against im2col."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad import InputError, Tensor, no_grad, ops
from tests import reference
from tests.minigrad.checks import assert_close, assert_gradients, gradients
from tests.minigrad.strategies import Window, channels, dtypes, normal, seeds, upstream, windows

METHODS = ("im2col", "direct")  # of any convolution
ALL_METHODS = (*METHODS, "winograd")  # of 3x3 kernels at steps of 1


def arguments(case: Window, O: int, dtype: Any = np.float64) -> list[np.ndarray]:
    """x, weight, bias; the weights scaled so that outputs are of order one."""
    KH, KW = reference.pair(case.kernel)
    rng = case.rng
    weight = normal(rng, (KH, KW, case.C, O), dtype) / np.sqrt(KH * KW * case.C, dtype=dtype)
    return [normal(rng, case.shape, dtype), weight, normal(rng, (O,), dtype)]


@pytest.mark.parametrize("method", METHODS)
@given(case=windows(), O=channels, dtype=dtypes, relu=st.booleans(), biased=st.booleans())
def test_forward_equals_the_loops(method, case, O, dtype, relu, biased):
    arrays = arguments(case, O, dtype)[: 3 if biased else 2]
    y = ops.conv2d(*map(Tensor, arrays), relu=relu, method=method, **case.options)
    expected = reference.conv2d(*(a.astype(np.float64) for a in arrays), **case.options)
    assert y.dtype == dtype
    assert_close(y.data, reference.relu(expected) if relu else expected)


@pytest.mark.parametrize("method", METHODS)
@given(data=st.data(), case=windows(), O=channels, relu=st.booleans())
def test_gradients_equal_the_complex_step(method, data, case, O, relu):
    arrays = arguments(case, O)

    def loops(x, weight, bias):
        y = reference.conv2d(x, weight, bias, **case.options)
        return reference.relu(y) if relu else y

    def op(x, weight, bias):
        return ops.conv2d(x, weight, bias, relu=relu, method=method, **case.options)

    dy = data.draw(upstream(op(*map(Tensor, arrays)).shape))
    assert_gradients(op, loops, arrays, case.rng, dy)


@given(data=st.data(), case=windows(largest_kernel=7), O=channels, dtype=dtypes, relu=st.booleans())
def test_direct_equals_im2col(data, case, O, dtype, relu):
    """y, dx, dw and db; where a sum is zero to rounding the ReLU's mask may differ, so there dy is zero."""
    arrays = arguments(case, O, dtype)
    with no_grad():
        sums = ops.conv2d(*map(Tensor, arrays), method="im2col", **case.options).data
    dy = data.draw(upstream(sums.shape, dtype)) * (np.abs(sums) > 1e-4)
    assert_methods_agree(arrays, dy, relu=relu, **case.options)


@st.composite
def small_kernels(draw: st.DrawFn) -> Window:
    """3x3 windows at steps of 1, over grids that are and are not multiples of 4, with every padding."""
    H, W = (draw(st.integers(3, 14)) for _ in range(2))
    sides = st.tuples(st.integers(0, 2), st.integers(0, 2))
    padding = draw(st.one_of(st.just("same"), st.integers(0, 2), st.tuples(sides, sides)))
    return Window(draw(st.integers(1, 3)), H, W, draw(channels), 3, 1, padding, draw(seeds))


@given(case=small_kernels(), O=channels, dtype=dtypes, relu=st.booleans(), biased=st.booleans())
def test_winograd_equals_the_loops(case, O, dtype, relu, biased):
    arrays = arguments(case, O, dtype)[: 3 if biased else 2]
    y = ops.conv2d(*map(Tensor, arrays), relu=relu, method="winograd", **case.options)
    expected = reference.conv2d(*(a.astype(np.float64) for a in arrays), **case.options)
    assert_close(y.data, reference.relu(expected) if relu else expected, 1e-5 if dtype == np.float32 else 1e-13)


@given(data=st.data(), case=small_kernels(), O=channels)
def test_gradients_of_winograd_equal_the_complex_step(data, case, O):
    arrays = arguments(case, O)

    def op(x, weight, bias):
        return ops.conv2d(x, weight, bias, method="winograd", **case.options)

    dy = data.draw(upstream(op(*map(Tensor, arrays)).shape))
    assert_gradients(op, partial(reference.conv2d, **case.options), arrays, case.rng, dy)


@given(data=st.data(), case=small_kernels(), O=channels, dtype=dtypes)
def test_winograd_equals_direct(data, case, O, dtype):
    """y, dx, dw and db, with the ReLU's mask where no sum is zero to rounding."""
    arrays = arguments(case, O, dtype)
    with no_grad():
        sums = ops.conv2d(*map(Tensor, arrays), method="direct", **case.options).data
    dy = data.draw(upstream(sums.shape, dtype)) * (np.abs(sums) > 1e-3)
    assert_methods_agree(arrays, dy, methods=("winograd", "direct"), relu=True, **case.options)


def test_winograd_over_more_tiles_than_fit_into_cache_at_once():
    rng = np.random.default_rng(0)
    arrays = [normal(rng, s, np.float32) for s in ((8, 30, 26, 96), (3, 3, 96, 112), (112,))]
    dy = normal(rng, (8, 30, 26, 112), np.float32)
    assert_methods_agree(arrays, dy, methods=("winograd", "direct"), padding=1)


@pytest.mark.parametrize("inside", [np.nan, np.inf])
def test_winograd_shows_numbers_that_are_none(inside):
    """NaN and infinity come out as NaN, through ReLU too; where no window sees them nothing changes."""
    x = np.ones((1, 12, 12, 16), np.float32)
    x[0, 2, 2, 3] = inside
    y = ops.conv2d(Tensor(x), Tensor(np.ones((3, 3, 16, 16), np.float32)), padding=1, relu=True, method="winograd").data
    assert np.isnan(y[0, 1:4, 1:4]).all()
    assert np.isfinite(y[0, 8:, 8:]).all()


# (x, weight, options): on images large enough for many tiles, groups of tiles and chunks of pixels.
LAYERS = {
    "conv1": ((2, 64, 64, 3), (7, 7, 3, 64), {"stride": 2, "padding": 3}),
    "conv1 as TensorFlow pads it": ((2, 64, 64, 3), (7, 7, 3, 64), {"stride": 2, "padding": "same"}),
    "1x1": ((4, 28, 28, 192), (1, 1, 192, 64), {}),
    "3x3": ((3, 14, 14, 96), (3, 3, 96, 208), {"padding": 1}),
    "5x5": ((2, 28, 28, 16), (5, 5, 16, 32), {"padding": 2}),
    "5x5 at width 1/4": ((4, 28, 28, 5), (5, 5, 5, 9), {"padding": 2}),
    "strided 1x1": ((3, 29, 27, 40), (1, 1, 40, 24), {"stride": 2}),
    "batch 1, one pixel": ((1, 1, 1, 100), (1, 1, 100, 33), {}),
    "batch 64, one pixel": ((64, 1, 1, 17), (1, 1, 17, 100), {}),
    "one row": ((2, 1, 200, 8), (1, 7, 8, 16), {"stride": (1, 3)}),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layer", LAYERS)
def test_direct_equals_im2col_on_whole_layers(layer, dtype):
    shape, kernel, options = LAYERS[layer]
    rng = np.random.default_rng(0)
    weight = normal(rng, kernel, dtype) / np.sqrt(np.prod(kernel[:3]), dtype=dtype)
    arrays = [normal(rng, shape, dtype), weight, normal(rng, kernel[3:], dtype)]
    with no_grad():
        dy = normal(rng, ops.conv2d(*map(Tensor, arrays), method="im2col", **options).shape, dtype)
    assert_methods_agree(arrays, dy, **options)


def assert_methods_agree(arrays: list[np.ndarray], dy: np.ndarray, methods=METHODS, **options: Any) -> None:
    results = []
    for method in methods:
        op = partial(ops.conv2d, method=method, **options)
        results.append([op(*map(Tensor, arrays)).data, *gradients(op, arrays, dy)])
    for name, one, other in zip(("y", "dx", "dw", "db"), *results, strict=True):
        assert_close(one, other, 1e-5 if dy.dtype == np.float32 else 1e-11, what=name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", ALL_METHODS)
def test_reads_and_writes_channel_slices(method, dtype):
    """Input and output may be slices of wider buffers: the same values, and the neighbours stay as they were."""
    rng = np.random.default_rng(0)
    wide_x, wide_y = normal(rng, (2, 7, 6, 40), dtype), np.full((2, 7, 6, 64), 7, dtype)
    weight, bias = normal(rng, (3, 3, 17, 33), dtype), normal(rng, (33,), dtype)
    part, out = wide_x[..., 5:22], wide_y[..., 9:42]

    y = ops.conv2d(Tensor(part), Tensor(weight), Tensor(bias), padding=1, relu=True, method=method, out=out)

    expected = reference.relu(reference.conv2d(*(a.astype(np.float64) for a in (part, weight, bias)), padding=1))
    assert np.shares_memory(y.data, wide_y)
    assert_close(out, expected, 1e-5 if dtype == np.float32 else 1e-12)
    assert (wide_y[..., :9] == 7).all()
    assert (wide_y[..., 42:] == 7).all()


@pytest.mark.parametrize("method", METHODS)
def test_gradient_from_and_into_channel_slices(method):
    """dx, dw, db are the same whether x and dy lie in wider buffers or by themselves."""
    rng = np.random.default_rng(1)
    wide_x, wide_dy = normal(rng, (2, 9, 8, 40)), normal(rng, (2, 5, 4, 64))
    weight, bias = normal(rng, (3, 3, 24, 16)), normal(rng, (16,))
    x, dy = wide_x[..., 3:27], wide_dy[..., 30:46]

    def op(*tensors):
        return ops.conv2d(*tensors, stride=2, padding=1, method=method)

    alone = gradients(op, [x.copy(), weight, bias], dy.copy())
    for name, got, expected in zip(("dx", "dw", "db"), gradients(op, [x, weight, bias], dy), alone, strict=True):
        assert_close(got, expected, what=name)


@pytest.mark.parametrize("method", ALL_METHODS)
def test_branches_side_by_side_in_one_buffer(method):
    """As in an Inception module: branches write slices of one buffer, concat joins them; gradients as if apart."""
    rng = np.random.default_rng(4)
    arrays = [normal(rng, s) for s in ((2, 5, 4, 6), (1, 1, 6, 17), (17,), (3, 3, 6, 8), (8,))]
    dy = normal(rng, (2, 5, 4, 25))

    def module(x, w1, b1, w3, b3, buffer=None):
        left, right = (None, None) if buffer is None else (buffer[..., :17], buffer[..., 17:])
        branches = (
            ops.conv2d(x, w1, b1, relu=True, method="direct" if method == "winograd" else method, out=left),
            ops.conv2d(x, w3, b3, padding=1, relu=True, method=method, out=right),
        )
        return ops.concat(branches)

    buffer = np.full((2, 5, 4, 25), np.nan)
    assert module(*map(Tensor, arrays), buffer).data is buffer
    apart = gradients(module, arrays, dy)
    for got, expected in zip(gradients(partial(module, buffer=buffer), arrays, dy), apart, strict=True):
        assert_close(got, expected, 1e-14)


@pytest.mark.parametrize("method", ALL_METHODS)
def test_backward_leaves_its_arguments_alone(method):
    rng = np.random.default_rng(2)
    arrays = [normal(rng, (2, 5, 5, 3)), normal(rng, (3, 3, 3, 8)), normal(rng, (8,)), normal(rng, (2, 5, 5, 8))]
    before = [a.copy() for a in arrays]
    gradients(lambda *t: ops.conv2d(*t, padding=1, relu=True, method=method), arrays[:3], arrays[3])
    assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))


@pytest.mark.parametrize("method", ALL_METHODS)
def test_only_what_is_asked_for_gets_a_gradient(method):
    rng = np.random.default_rng(3)
    x, weight, bias = (
        Tensor(normal(rng, (1, 4, 4, 3))),
        Tensor(normal(rng, (3, 3, 3, 5)), True),
        Tensor(normal(rng, (5,))),
    )
    ops.conv2d(x, weight, bias, method=method).backward(np.ones((1, 2, 2, 5)))
    assert x.grad is None
    assert bias.grad is None
    expected = reference.conv2d(x.data.transpose(3, 1, 2, 0), np.ones((2, 2, 1, 5))).transpose(1, 2, 0, 3)
    assert_close(weight.grad, expected)


@pytest.mark.parametrize(
    ("x", "weight", "bias", "options", "told"),
    [
        ((0, 8, 8, 3), (3, 3, 3, 4), (4,), {}, ("0, 8, 8, 3", "batch")),
        ((2, 3, 8, 8), (3, 3, 3, 4), (4,), {}, ("2, 3, 8, 8", "3, 3, 3, 4")),
        ((8, 8, 3), (3, 3, 3, 4), (4,), {}, ("8, 8, 3",)),
        ((2, 8, 8, 3), (3, 3, 3), (4,), {}, ("3, 3, 3",)),
        ((2, 8, 8, 3), (3, 3, 3, 4), (5,), {}, ("5", "4")),
        ((2, 4, 9, 3), (5, 3, 3, 4), (4,), {}, ("4", "9", "5", "3")),
        ((2, 8, 8, 3), (3, 3, 3, 4), (4,), {"stride": 0}, ("stride", "0")),
        ((2, 8, 8, 3), (3, 3, 3, 4), (4,), {"padding": -1}, ("padding", "-1")),
        ((2, 8, 8, 3), (3, 3, 3, 4), (4,), {"padding": "valid"}, ("padding", "valid", "same")),
        ((2, 8, 8, 3), (3, 3, 3, 4), (4,), {"method": "fft"}, ("fft", "im2col", "direct", "winograd")),
        ((2, 8, 8, 3), (3, 3, 3, 4), (4,), {"method": "winograd", "stride": 2}, ("winograd", "3x3", "stride")),
        ((2, 8, 8, 3), (5, 5, 3, 4), (4,), {"method": "winograd"}, ("winograd", "3x3", "5, 5", "direct")),
    ],
)
def test_refuses_what_cannot_be_and_names_it(x, weight, bias, options, told):
    with pytest.raises(InputError) as error:
        ops.conv2d(*(Tensor(np.zeros(shape)) for shape in (x, weight, bias)), **options)
    assert all(words in str(error.value) for words in told), str(error.value)


@pytest.mark.parametrize("out", [np.zeros((2, 6, 6, 5)), np.zeros((2, 6, 6, 4), np.float32), np.zeros((2, 7, 6, 4))])
def test_refuses_an_out_of_another_shape_or_dtype(out):
    x, weight = Tensor(np.zeros((2, 8, 8, 3))), Tensor(np.zeros((3, 3, 3, 4)))
    with pytest.raises(InputError, match="out"):
        ops.conv2d(x, weight, out=out)


def test_refuses_mixed_dtypes():
    with pytest.raises(InputError, match=r"float32.*float64|float64.*float32"):
        ops.conv2d(Tensor(np.zeros((2, 8, 8, 3), np.float32)), Tensor(np.zeros((3, 3, 3, 4))))
