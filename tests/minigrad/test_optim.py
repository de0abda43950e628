"""SGD against its formula, written out for one parameter at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad import nn
from minigrad.flat import FlatParameters
from minigrad.init import initialise
from minigrad.optim import SGD
from tests.minigrad.checks import TOLERANCE
from tests.minigrad.strategies import dtypes, seeds

rates = st.lists(st.sampled_from([0.1, 0.01, 0.5]), min_size=1, max_size=4)


class Model(nn.Module):
    def __init__(self, dtype):
        self.conv = nn.Conv2d(3, 8, 3, dtype=dtype)
        self.linear = nn.Linear(8, 5, dtype=dtype)
        self.normalised = nn.Conv2d(3, 4, 1, dtype=dtype, batch_norm=nn.BatchNorm(4, dtype=dtype))


def literal(w, gradients, rates, momentum, decay, factor):
    """v <- mu v + factor lr (g + wd w);  w <- w - v"""
    v = np.zeros_like(w)
    for g, lr in zip(gradients, rates, strict=True):
        v = momentum * v + factor * lr * (g + decay * w)
        w = w - v
    return w, v


@given(
    seed=seeds,
    dtype=dtypes,
    rates=rates,
    momentum=st.sampled_from([0.0, 0.9]),
    decay=st.sampled_from([0.0, 0.2]),
    caffe_biases=st.booleans(),
)
def test_steps_follow_the_formula(seed, dtype, rates, momentum, decay, caffe_biases):
    rng = np.random.default_rng(seed)
    model = Model(dtype)
    initialise(model, seed, bias=0.2)
    flat = FlatParameters(model)
    gradients = rng.standard_normal((len(rates), flat.data.size)).astype(dtype)
    start = flat.data.astype(np.float64)
    sgd = SGD(flat, momentum=momentum, weight_decay=decay, caffe_biases=caffe_biases)

    for gradient, lr in zip(gradients, rates, strict=True):
        flat.gradient[:] = gradient
        sgd.step(lr)
        np.testing.assert_array_equal(flat.gradient, gradient)

    starts, slopes = flat.views(start), [flat.views(g.astype(np.float64)) for g in gradients]
    for path, velocity in flat.views(sgd.velocity).items():
        special = caffe_biases and path.endswith(("/bias", "/beta"))
        own_decay = 0 if special or path.endswith("/gamma") else decay
        w, v = literal(starts[path], [s[path] for s in slopes], rates, momentum, own_decay, 2 if special else 1)
        for got, expected in ((flat.views(flat.data)[path], w), (velocity, v)):
            assert got.dtype == dtype
            np.testing.assert_allclose(got, expected, rtol=0, atol=10 * TOLERANCE[got.dtype], err_msg=path)


def test_a_lower_rate_takes_effect_gradually():
    """Caffe's rule keeps the rate inside the velocity: at rate 0 the parameters still roll on."""
    model = Model(np.float64)
    flat = FlatParameters(model)
    sgd = SGD(flat, momentum=0.5)
    flat.gradient[:] = 1
    sgd.step(0.1)
    sgd.step(0.0)
    np.testing.assert_allclose(model.linear.weight.data, -0.1 - 0.05, rtol=1e-15)


def test_the_velocity_is_the_whole_state():
    """What a checkpoint restores: data and velocity; the steps after it are bit-identical."""
    rng = np.random.default_rng(0)

    def run(flat, sgd, gradients):
        for gradient in gradients:
            flat.gradient[:] = gradient
            sgd.step(0.1)

    model = Model(np.float32)
    flat = FlatParameters(model)
    sgd = SGD(flat, momentum=0.9, weight_decay=0.1)
    gradients = rng.standard_normal((6, flat.data.size)).astype(np.float32)
    run(flat, sgd, gradients[:3])
    data, velocity = flat.data.copy(), sgd.velocity.copy()
    run(flat, sgd, gradients[3:])

    resumed = FlatParameters(Model(np.float32))
    resumed.data[:] = data
    again = SGD(resumed, momentum=0.9, weight_decay=0.1)
    again.velocity[:] = velocity
    run(resumed, again, gradients[3:])
    np.testing.assert_array_equal(resumed.data, flat.data)


def test_it_descends():
    """The minimum of |w - 3|^2 is found."""
    linear = nn.Linear(4, 4, dtype=np.float64)
    flat = FlatParameters(linear)
    sgd = SGD(flat, momentum=0.9)
    for _ in range(300):
        flat.gradient[:] = 2 * (flat.data - 3)
        sgd.step(0.05)
    assert flat.data == pytest.approx(np.full(20, 3.0), abs=1e-5)
