"""cross_entropy against the loops and the complex step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad import InputError, Tensor, ops
from tests import reference
from tests.minigrad.checks import assert_close, assert_gradients
from tests.minigrad.strategies import dtypes, normal, seeds

shapes = st.tuples(st.integers(1, 9), st.sampled_from([1, 2, 10, 17, 40]))


@given(shape=shapes, seed=seeds, dtype=dtypes)
def test_forward_equals_the_loops(shape, seed, dtype):
    rng = np.random.default_rng(seed)
    logits, labels = 3 * normal(rng, shape, dtype), rng.integers(shape[1], size=shape[0])
    loss = ops.cross_entropy(Tensor(logits), labels)
    assert loss.shape == ()
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(reference.cross_entropy(logits.astype(np.float64), labels), rel=1e-5, abs=1e-6)


@given(shape=shapes, seed=seeds, scale=st.sampled_from([1.0, 0.3, -2.0]))
def test_gradient_equals_the_complex_step(shape, seed, scale):
    rng = np.random.default_rng(seed)
    logits, labels = normal(rng, shape), rng.integers(shape[1], size=shape[0])
    assert_gradients(
        lambda x: ops.cross_entropy(x, labels),
        lambda x: reference.cross_entropy(x, labels),
        [logits],
        rng,
        np.array(scale),
    )


@pytest.mark.parametrize("shift", [0.0, 1000.0, -1000.0])
def test_large_logits_neither_overflow_nor_vanish(shift):
    x = Tensor(np.array([[shift, shift + 200.0, shift - 300.0]], np.float32), requires_grad=True)
    loss = ops.cross_entropy(x, np.array([2]))
    loss.backward()
    assert loss.item() == pytest.approx(500)
    assert_close(x.grad, np.array([[0.0, 1, -1]]))


def test_the_loss_of_equal_logits_is_the_logarithm_of_the_classes():
    assert ops.cross_entropy(Tensor(np.zeros((4, 1000))), np.arange(4)).item() == pytest.approx(np.log(1000), rel=1e-14)


@pytest.mark.parametrize(
    ("logits", "labels", "told"),
    [
        ((0, 3), [], ("0, 3", "N at least 1")),
        ((2, 3), [0, 1, 2], ("2", "3")),
        ((2, 3), [0, 3], ("3", "0 to 2")),
        ((2, 3), [-1, 0], ("-1",)),
        ((2, 1, 1, 3), [0, 1], ("2, 1, 1, 3",)),
    ],
)
def test_refuses_what_cannot_be_and_names_it(logits, labels, told):
    with pytest.raises(InputError) as error:
        ops.cross_entropy(Tensor(np.zeros(logits)), np.array(labels, np.int64))
    assert all(words in str(error.value) for words in told), str(error.value)


def test_refuses_labels_that_are_not_whole_numbers():
    with pytest.raises(InputError, match="float"):
        ops.cross_entropy(Tensor(np.zeros((2, 3))), np.array([0.0, 1.0]))
