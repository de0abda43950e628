"""linear against the loops and the complex step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad import InputError, Tensor, ops
from tests import reference
from tests.minigrad.checks import assert_close, assert_gradients, gradients
from tests.minigrad.strategies import channels, dtypes, normal, seeds, upstream

sizes = st.tuples(st.integers(1, 9), channels, channels)


def arguments(sizes, seed, dtype=np.float64):
    N, C, O = sizes
    rng = np.random.default_rng(seed)
    return [normal(rng, shape, dtype) for shape in ((N, C), (C, O), (O,))]


@given(sizes=sizes, seed=seeds, dtype=dtypes, biased=st.booleans(), relu=st.booleans())
def test_forward_equals_the_loops(sizes, seed, dtype, biased, relu):
    arrays = arguments(sizes, seed, dtype)[: 3 if biased else 2]
    y = ops.linear(*map(Tensor, arrays), relu=relu)
    expected = reference.linear(*(a.astype(np.float64) for a in arrays))
    assert y.dtype == dtype
    assert_close(y.data, reference.relu(expected) if relu else expected)


@given(data=st.data(), sizes=sizes, seed=seeds, relu=st.booleans())
def test_gradients_equal_the_complex_step(data, sizes, seed, relu):
    def loops(x, weight, bias):
        y = reference.linear(x, weight, bias)
        return reference.relu(y) if relu else y

    dy = data.draw(upstream((sizes[0], sizes[2])))
    arrays = arguments(sizes, seed)
    assert_gradients(lambda *t: ops.linear(*t, relu=relu), loops, arrays, np.random.default_rng(seed), dy)


@given(sizes=sizes, seed=seeds)
def test_float32_gradients_equal_float64(sizes, seed):
    dy = normal(np.random.default_rng(seed + 1), (sizes[0], sizes[2]))
    single, double = (
        gradients(ops.linear, [a.astype(t) for a in arguments(sizes, seed)], dy.astype(t))
        for t in (np.float32, np.float64)
    )
    for got, expected in zip(single, double, strict=True):
        assert_close(got, expected, 1e-5)


@pytest.mark.parametrize(
    ("x", "weight", "bias", "told"),
    [
        ((0, 3), (3, 4), (4,), ("0, 3", "N at least 1")),
        ((2, 3), (5, 4), (4,), ("2, 3", "5, 4")),
        ((2, 1, 1, 3), (3, 4), (4,), ("2, 1, 1, 3",)),
        ((2, 3), (3, 4), (5,), ("5", "4")),
    ],
)
def test_refuses_what_cannot_be_and_names_it(x, weight, bias, told):
    with pytest.raises(InputError) as error:
        ops.linear(*(Tensor(np.zeros(shape)) for shape in (x, weight, bias)))
    assert all(words in str(error.value) for words in told), str(error.value)
