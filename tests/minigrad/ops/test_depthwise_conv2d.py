"""depthwise_conv2d against the loops and the complex step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad import InputError, Tensor, ops
from tests import reference
from tests.minigrad.checks import assert_close, assert_gradients, gradients
from tests.minigrad.strategies import Window, dtypes, normal, upstream, windows

multipliers = st.sampled_from([1, 2, 3, 8])


def arguments(case: Window, multiplier: int) -> list[np.ndarray]:
    return [normal(case.rng, case.shape), normal(case.rng, (*reference.pair(case.kernel), case.C, multiplier))]


@given(case=windows(), multiplier=multipliers, dtype=dtypes)
def test_forward_equals_the_loops(case, multiplier, dtype):
    arrays = [a.astype(dtype) for a in arguments(case, multiplier)]
    y = ops.depthwise_conv2d(*map(Tensor, arrays), **case.options)
    assert y.dtype == dtype
    assert_close(y.data, reference.depthwise_conv2d(*(a.astype(np.float64) for a in arrays), **case.options))


@given(data=st.data(), case=windows(), multiplier=multipliers)
def test_gradients_equal_the_complex_step(data, case, multiplier):
    def op(x, weight):
        return ops.depthwise_conv2d(x, weight, **case.options)

    def loops(x, weight):
        return reference.depthwise_conv2d(x, weight, **case.options)

    arrays = arguments(case, multiplier)
    assert_gradients(op, loops, arrays, case.rng, data.draw(upstream(op(*map(Tensor, arrays)).shape)))


@given(case=windows(), multiplier=multipliers)
def test_float32_gradients_equal_float64(case, multiplier):
    def op(x, weight):
        return ops.depthwise_conv2d(x, weight, **case.options)

    arrays = arguments(case, multiplier)
    dy = normal(case.rng, op(*map(Tensor, arrays)).shape)
    single, double = (gradients(op, [a.astype(t) for a in arrays], dy.astype(t)) for t in (np.float32, np.float64))
    for got, expected in zip(single, double, strict=True):
        assert_close(got, expected, 1e-5)


@pytest.mark.parametrize(
    ("x", "weight", "told"),
    [
        ((0, 8, 8, 3), (3, 3, 3, 4), ("0, 8, 8, 3", "batch")),
        ((2, 3, 8, 8), (3, 3, 3, 4), ("2, 3, 8, 8", "3, 3, 3, 4")),
        ((2, 8, 8, 3), (3, 3, 3), ("3, 3, 3",)),
    ],
)
def test_refuses_what_cannot_be_and_names_it(x, weight, told):
    with pytest.raises(InputError) as error:
        ops.depthwise_conv2d(Tensor(np.zeros(x)), Tensor(np.zeros(weight)))
    assert all(words in str(error.value) for words in told), str(error.value)
