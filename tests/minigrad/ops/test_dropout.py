"""dropout: its mask is that of the counter-based generator, its values and gradient are the mask's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad import InputError, Tensor, ops
from tests import reference
from tests.minigrad.checks import assert_close, assert_gradients
from tests.minigrad.strategies import dtypes, normal, seeds, upstream

shapes = st.one_of(st.tuples(st.integers(1, 70)), st.tuples(st.integers(1, 5), st.integers(1, 33)))
rates = st.sampled_from([0.0, 0.1, 0.4, 0.5, 0.7, 0.99])
words = st.integers(0, 2**32 - 1)
counters = st.fixed_dictionaries({"seed": st.integers(0, 2**64 - 1), "step": words, "stream": words})


def mask(shape: tuple[int, ...], rate: float, seed: int, step: int, stream: int) -> np.ndarray:
    """m[i] is kept if word i % 4 of Philox at (i // 4, step, stream) is at least rate * 2^32."""
    keep = np.zeros(shape, bool)
    for i in range(keep.size):
        word = reference.philox((i // 4, 0, step, stream), (seed % 2**32, seed >> 32))[i % 4]
        keep.flat[i] = word >= round(rate * 2**32)
    return keep


@given(shape=shapes, rate=rates, counter=counters, dtype=dtypes, seed=seeds)
def test_forward_equals_the_definition(shape, rate, counter, dtype, seed):
    x = normal(np.random.default_rng(seed), shape, dtype)
    y = ops.dropout(Tensor(x), rate, **counter)
    assert y.dtype == dtype
    keep = mask(shape, rate, **counter)
    assert_close(y.data, reference.dropout(x.astype(np.float64), keep, rate))
    np.testing.assert_array_equal(y.data != 0, keep)


@given(data=st.data(), shape=shapes, rate=rates, counter=counters, seed=seeds)
def test_gradient_equals_the_complex_step(data, shape, rate, counter, seed):
    rng = np.random.default_rng(seed)
    keep = mask(shape, rate, **counter)
    assert_gradients(
        lambda x: ops.dropout(x, rate, **counter),
        lambda x: reference.dropout(x, keep, rate),
        [normal(rng, shape)],
        rng,
        data.draw(upstream(shape)),
    )


@pytest.mark.parametrize("rate", [0.4, 0.7])
def test_the_rate_is_met_and_the_mean_kept(rate):
    n = 200_000
    y = ops.dropout(Tensor(np.ones(n, np.float32)), rate, seed=1, step=0, stream=0).data
    spread = np.sqrt(rate * (1 - rate) / n)
    assert abs((y == 0).mean() - rate) < 5 * spread
    assert abs(y.mean(dtype=np.float64) - 1) < 5 * spread / (1 - rate)


@pytest.mark.parametrize("other", [{"seed": 2}, {"step": 2}, {"stream": 2}, {"seed": 1 + 2**32}])
def test_each_part_of_the_counter_gives_another_mask(other):
    x, counter = Tensor(np.ones(256)), {"seed": 1, "step": 1, "stream": 1}
    first, second = (ops.dropout(x, 0.5, **c).data for c in (counter, counter | other))
    assert 0.3 < (first != second).mean() < 0.7


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_refuses_a_rate_out_of_range(rate):
    with pytest.raises(InputError, match=f"{rate}"):
        ops.dropout(Tensor(np.ones(3)), rate, seed=0, step=0, stream=0)
