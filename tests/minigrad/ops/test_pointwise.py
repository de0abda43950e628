"""pointwise: the same numbers as a convolution for each branch, and one gradient of x for all of them."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad import InputError, Tensor, ops
from tests import reference
from tests.minigrad.checks import assert_close, assert_gradients, gradients
from tests.minigrad.strategies import channels, dtypes, normal, seeds

branches = st.lists(channels, min_size=1, max_size=4)


def drawn(seed: int, C: int, Os: list[int], dtype=np.float64) -> list[np.ndarray]:
    """x, then weight and bias of each branch."""
    rng = np.random.default_rng(seed)
    arrays = [normal(rng, (2, 3, 5, C), dtype)]
    for O in Os:
        arrays += [normal(rng, (1, 1, C, O), dtype) / np.sqrt(C, dtype=dtype), normal(rng, (O,), dtype)]
    return arrays


def joined(x, *weights_and_biases):
    """All branches side by side, so that one dy reaches all of them."""
    return ops.concat(ops.pointwise(x, list(zip(weights_and_biases[::2], weights_and_biases[1::2], strict=True))))


def loops(x, *weights_and_biases):
    ys = [reference.relu(reference.conv2d(x, w, b))
          for w, b in zip(weights_and_biases[::2], weights_and_biases[1::2], strict=True)]
    return np.concatenate(ys, axis=-1)


@given(seed=seeds, C=channels, Os=branches, dtype=dtypes)
def test_forward_equals_the_loops(seed, C, Os, dtype):
    arrays = drawn(seed, C, Os, dtype)
    y = joined(*map(Tensor, arrays))
    assert y.dtype == dtype
    assert_close(y.data, loops(*(a.astype(np.float64) for a in arrays)))


@given(seed=seeds, C=channels, Os=branches)
def test_gradients_equal_the_complex_step(seed, C, Os):
    arrays = drawn(seed, C, Os)
    rng = np.random.default_rng(seed + 1)
    assert_gradients(joined, loops, arrays, rng, normal(rng, (2, 3, 5, sum(Os))))


@given(seed=seeds, C=channels, Os=branches, dtype=dtypes)
def test_gradients_equal_those_of_separate_convolutions(seed, C, Os, dtype):
    arrays = drawn(seed, C, Os, dtype)

    def separate(x, *weights_and_biases):
        pairs = zip(weights_and_biases[::2], weights_and_biases[1::2], strict=True)
        return ops.concat([ops.conv2d(x, w, b, relu=True, method="im2col") for w, b in pairs])

    dy = normal(np.random.default_rng(seed), (2, 3, 5, sum(Os)), dtype) * (np.abs(loops(*arrays)) > 1e-4)
    for got, expected in zip(gradients(joined, arrays, dy), gradients(separate, arrays, dy), strict=True):
        assert_close(got, expected)


def test_writes_into_slices_and_reads_from_them():
    arrays = drawn(0, 24, [16, 8, 40], np.float32)
    wide_x, buffer = np.full((2, 3, 5, 40), 7, np.float32), np.full((2, 3, 5, 64), 7, np.float32)
    wide_x[..., 9:33] = arrays[0]
    tensors = [Tensor(wide_x[..., 9:33]), *map(Tensor, arrays[1:])]
    outs = [buffer[..., :16], None, buffer[..., 20:60]]
    ys = ops.pointwise(tensors[0], list(zip(tensors[1::2], tensors[2::2], strict=True)), outs=outs)
    assert np.shares_memory(ys[0].data, buffer)
    assert np.shares_memory(ys[2].data, buffer)
    expected = loops(*arrays)
    for y, (begin, end) in zip(ys, pairwise((0, 16, 24, 64)), strict=True):
        assert_close(y.data, expected[..., begin:end])
    assert (buffer[..., 16:20] == 7).all()
    assert (buffer[..., 60:] == 7).all()


def test_an_output_that_nobody_uses_has_no_gradient():
    arrays = drawn(0, 8, [4, 6])
    tensors = [Tensor(a, requires_grad=True) for a in arrays]
    _, y = ops.pointwise(tensors[0], [(tensors[1], tensors[2]), (tensors[3], tensors[4])])
    dy = normal(np.random.default_rng(1), y.shape)
    y.backward(dy)
    assert not tensors[1].grad.any()
    assert not tensors[2].grad.any()
    alone = gradients(lambda x, w, b: ops.conv2d(x, w, b, relu=True), [arrays[0], *arrays[3:]], dy)
    for tensor, expected in zip((tensors[0], *tensors[3:]), alone, strict=True):
        assert_close(tensor.grad, expected)


@pytest.mark.parametrize(
    ("x", "weight", "bias", "out"),
    [
        ((4, 4, 3), (1, 1, 3, 5), (5,), None),
        ((2, 4, 4, 3), (3, 3, 3, 5), (5,), None),
        ((2, 4, 4, 3), (1, 1, 4, 5), (5,), None),
        ((2, 4, 4, 3), (1, 1, 3, 5), (4,), None),
        ((2, 4, 4, 3), (1, 1, 3, 5), (5,), (2, 4, 4, 4)),
    ],
)
def test_refuses_shapes_that_do_not_fit(x, weight, bias, out):
    with pytest.raises(InputError, match="expected"):
        ops.pointwise(*(Tensor(np.zeros(x)), [(Tensor(np.zeros(weight)), Tensor(np.zeros(bias)))]),
                      outs=[None if out is None else np.zeros(out)])
    with pytest.raises(InputError, match="one dtype"):
        ops.pointwise(Tensor(np.zeros((1, 2, 2, 3))),
                      [(Tensor(np.zeros((1, 1, 3, 2), np.float32)), Tensor(np.zeros(2, np.float32)))])
