"""SGD against its formula, written out for one parameter at a time; several batches to a step; clipping."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad import InputError, Tensor, available_threads, nn, ops, set_threads
from minigrad.flat import FlatParameters
from minigrad.init import initialise
from minigrad.optim import LANES, PART, SGD, Adagrad, clip_norm, global_norm
from tests.minigrad.checks import TOLERANCE
from tests.minigrad.strategies import dtypes, seeds

rates = st.lists(st.sampled_from([0.1, 0.01, 0.5]), min_size=1, max_size=4)


class Model(nn.Module):
    def __init__(self, dtype):
        self.conv = nn.Conv2d(3, 8, 3, dtype=dtype)
        self.linear = nn.Linear(8, 5, dtype=dtype)
        self.normalised = nn.Conv2d(3, 4, 1, dtype=dtype, batch_norm=nn.BatchNorm(4, dtype=dtype))


def literal(w, gradients, rates, momentum, decay, factor, scale):
    """v <- mu v + factor lr (scale g + wd w);  w <- w - v"""
    v = np.zeros_like(w)
    for g, lr in zip(gradients, rates, strict=True):
        v = momentum * v + factor * lr * (scale * g + decay * w)
        w = w - v
    return w, v


@given(
    seed=seeds,
    dtype=dtypes,
    rates=rates,
    momentum=st.sampled_from([0.0, 0.9]),
    decay=st.sampled_from([0.0, 0.2]),
    biases=st.sampled_from([(1.0, 1.0), (2.0, 0.0), (0.5, 3.0)]),
    own=st.sampled_from([{}, {"linear/weight": 3.0, "linear/bias": 0.5}, {"conv/weight": 0.0, "conv/bias": 0.0}]),
    scale=st.sampled_from([1.0, 0.25, 1 / 3]),
)
def test_steps_follow_the_formula(seed, dtype, rates, momentum, decay, biases, own, scale):
    """Biases, and parameters with a rate of their own, too; at rate 0 a parameter and its velocity stay as they are."""
    rng = np.random.default_rng(seed)
    model = Model(dtype)
    initialise(model, seed, bias=0.2)
    flat = FlatParameters(model)
    gradients = rng.standard_normal((len(rates), flat.data.size)).astype(dtype)
    start = flat.data.astype(np.float64)
    sgd = SGD(flat, momentum=momentum, weight_decay=decay, bias_rate=biases[0], bias_decay=biases[1])
    sgd.own_rates = own

    for gradient, lr in zip(gradients, rates, strict=True):
        flat.gradient[:] = gradient
        sgd.step(lr, scale)
        np.testing.assert_array_equal(flat.gradient, gradient)

    starts, slopes = flat.views(start), [flat.views(g.astype(np.float64)) for g in gradients]
    for path, velocity in flat.views(sgd.velocity).items():
        own_decay = 0 if path.endswith("/gamma") else decay
        factor = own.get(path, 1)
        if path.endswith(("/bias", "/beta")):
            factor, own_decay = factor * biases[0], own_decay * biases[1]
        w, v = literal(starts[path], [s[path] for s in slopes], rates, momentum, own_decay, factor, scale)
        for got, expected in ((flat.views(flat.data)[path], w), (velocity, v)):
            assert got.dtype == dtype
            np.testing.assert_allclose(got, expected, rtol=0, atol=10 * TOLERANCE[got.dtype], err_msg=path)


@given(seed=seeds, dtype=dtypes, momentum=st.sampled_from([0.0, 0.5, 0.9]), steps=st.integers(0, 5))
def test_looking_ahead_is_to_where_momentum_alone_leads(seed, dtype, momentum, steps):
    """Also of what does not learn, whose velocity is 0."""
    rng = np.random.default_rng(seed)
    model = Model(dtype)
    initialise(model, seed)
    flat = FlatParameters(model)
    sgd = SGD(flat, momentum=momentum)
    sgd.own_rates = {"conv/weight": 0.0}
    for _ in range(2):
        flat.gradient[:] = rng.standard_normal(flat.data.size)
        sgd.step(0.1)
    ahead = np.empty_like(flat.data)
    sgd.look_ahead(steps, ahead)
    flat.gradient[:] = 0
    for _ in range(steps):
        sgd.step(0.1)
    np.testing.assert_allclose(ahead, flat.data, rtol=0, atol=10 * TOLERANCE[ahead.dtype])


@given(seed=seeds, dtype=dtypes, rates=rates, decay=st.sampled_from([0.0, 0.2]),
       own=st.sampled_from([{}, {"linear/weight": 3.0}, {"conv/weight": 0.0}]), scale=st.sampled_from([1.0, 0.25]))
def test_adagrad_follows_its_formula(seed, dtype, rates, decay, own, scale):
    """d <- scale g + wd w;  s <- s + d^2 from 0.1 on;  w <- w - lr d / sqrt(s)"""
    rng = np.random.default_rng(seed)
    model = Model(dtype)
    initialise(model, seed, bias=0.2)
    flat = FlatParameters(model)
    gradients = rng.standard_normal((len(rates), flat.data.size)).astype(dtype)
    start = flat.data.astype(np.float64)
    adagrad = Adagrad(flat, weight_decay=decay, bias_rate=2.0, bias_decay=0.0)
    adagrad.own_rates = own
    for gradient, lr in zip(gradients, rates, strict=True):
        flat.gradient[:] = gradient
        adagrad.step(lr, scale)
    for path, (place, _) in flat.places.items():
        w, s, factor = start[place].copy(), np.full(place.stop - place.start, 0.1), own.get(path, 1)
        bias = path.endswith(("/bias", "/beta"))
        for gradient, lr in zip(gradients, rates, strict=True):
            d = scale * gradient[place] + (0 if bias or path.endswith("/gamma") else decay) * w
            s = s + d * d * bool(factor)
            w = w - (2 if bias else 1) * factor * lr * d / np.sqrt(s)
        np.testing.assert_allclose(flat.data[place], w, rtol=0, atol=10 * TOLERANCE[flat.data.dtype], err_msg=path)
        np.testing.assert_allclose(adagrad.memory[place], s, rtol=20 * TOLERANCE[flat.data.dtype], err_msg=path)


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


def test_a_parameter_without_a_rate_does_not_roll_on():
    model = Model(np.float64)
    flat = FlatParameters(model)
    sgd = SGD(flat, momentum=0.5, weight_decay=0.1)
    flat.gradient[:] = 1
    sgd.step(0.1)
    before, velocity = flat.data.copy(), sgd.velocity.copy()
    sgd.own_rates = dict.fromkeys(flat.places, 0.0)
    sgd.step(0.1)
    np.testing.assert_array_equal(flat.data, before)
    np.testing.assert_array_equal(sgd.velocity, velocity)


def test_it_descends():
    """The minimum of |w - 3|^2 is found."""
    linear = nn.Linear(4, 4, dtype=np.float64)
    flat = FlatParameters(linear)
    sgd = SGD(flat, momentum=0.9)
    for _ in range(300):
        flat.gradient[:] = 2 * (flat.data - 3)
        sgd.step(0.05)
    assert flat.data == pytest.approx(np.full(20, 3.0), abs=1e-5)


class Classifier(nn.Module):
    def __init__(self, dtype):
        self.conv = nn.Conv2d(3, 8, 3, dtype=dtype)
        self.linear = nn.Linear(8 * 4 * 4, 5, dtype=dtype)

    def forward(self, x):
        return self.linear(ops.reshape(self.conv(x), (x.shape[0], 8 * 4 * 4)))


@pytest.mark.parametrize("batches", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_step_on_several_batches_is_a_step_on_all_their_images(batches, dtype):
    rng = np.random.default_rng(batches)
    images = rng.standard_normal((12, 6, 6, 3)).astype(dtype)
    labels = rng.integers(0, 5, 12)

    def train(size):
        model = Classifier(dtype)
        initialise(model, 3, bias=0.1)
        flat = FlatParameters(model)
        sgd = SGD(flat, momentum=0.9, weight_decay=0.1, bias_rate=2.0, bias_decay=0.0)
        for _ in range(3):
            flat.zero_gradient()
            for begin in range(0, 12, size):
                x, own = Tensor(images[begin:begin + size]), labels[begin:begin + size]
                ops.cross_entropy(model(x), own).backward()
            sgd.step(0.1, scale=size / 12)
        return flat, sgd

    (whole, other), (parts, sgd) = train(12), train(12 // batches)
    for got, expected in ((parts.data, whole.data), (sgd.velocity, other.velocity)):
        assert got.any()
        np.testing.assert_allclose(got, expected, rtol=0, atol=10 * TOLERANCE[got.dtype])


@given(
    seed=seeds,
    dtype=dtypes,
    size=st.sampled_from([1, LANES - 1, LANES, LANES + 1, PART - 1, PART, PART + 1, 3 * PART + LANES + 5]),
    part=st.sampled_from([0.1, 0.5, 0.999, 1.001, 10.0]),
)
def test_clipping(seed, dtype, size, part):
    """To a limit that is a part of the norm, or beyond it."""
    gradient = np.random.default_rng(seed).normal(2, 3, size).astype(dtype)
    before, total = gradient.copy(), 0.0
    for value in gradient.tolist():
        total += value * value
    limit = part * total**0.5
    norm = clip_norm(gradient, limit)
    assert norm == pytest.approx(total**0.5, rel=1e-12)
    if part > 1:
        np.testing.assert_array_equal(gradient, before)
    else:
        np.testing.assert_allclose(gradient, before * part, rtol=TOLERANCE[before.dtype])
        assert global_norm(gradient) == pytest.approx(limit, rel=TOLERANCE[before.dtype])


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_gradient_that_is_not_finite_is_left_alone(value):
    gradient = np.ones(100_000, np.float32)
    gradient[77_777] = value
    assert not np.isfinite(clip_norm(gradient, 1.0))
    assert (gradient == 1).sum() == 99_999


def test_a_gradient_of_zeros_and_one_of_the_largest_numbers():
    """The squares of float32 numbers are no infinity in float64."""
    assert clip_norm(np.zeros(10, np.float32), 1.0) == 0
    largest = np.full(4, np.finfo(np.float32).max)
    assert clip_norm(largest, 2.0) == pytest.approx(2 * float(np.finfo(np.float32).max))
    np.testing.assert_allclose(largest, 1, rtol=1e-6)


@pytest.mark.parametrize("limit", [0.0, -1.0, np.nan])
def test_a_limit_that_is_none(limit):
    with pytest.raises(InputError, match=f"norm is {limit}; choose one above 0"):
        clip_norm(np.ones(3), limit)


@pytest.mark.skipif(available_threads() < 2, reason="one core: nothing to compare")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_norm_is_the_same_for_any_number_of_threads(dtype):
    gradient = np.random.default_rng(0).standard_normal(40 * PART + 9).astype(dtype)
    norms = set()
    for threads in range(1, available_threads() + 1):
        set_threads(threads)
        norms |= {global_norm(gradient) for _ in range(10)}
    assert len(norms) == 1
