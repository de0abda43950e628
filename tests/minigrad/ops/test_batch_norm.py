"""batch_norm against the loops, the complex step and PyTorch, in training and in testing."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minigrad
from minigrad import InputError, Tensor, ops
from minigrad.kernels.plan import Plan
from minigrad.runtime import available_threads
from tests import reference
from tests.minigrad.checks import assert_close, assert_gradients, gradients
from tests.minigrad.strategies import channels, dtypes, normal, seeds, upstream

# At least two pixels; up to 147, more than two partial sums.
images = st.tuples(st.integers(1, 3), st.integers(2, 7), st.integers(1, 7), channels)
shapes = st.one_of(st.tuples(st.integers(2, 80), channels), images)
# With eps = 1e-3 and inputs of order one, y hardly depends on it: so it is larger.
epsilons = st.sampled_from([0.01, 0.1, 1.0])
modes = {"training": st.booleans(), "relu": st.booleans(), "scaled": st.booleans()}


class Case:
    """Inputs of one call: x, gamma (or None) and beta, and running statistics."""

    def __init__(self, shape, seed, dtype=np.float64, *, scaled=True, training=True, relu=False, eps=0.1, decay=0.75):
        self.rng = np.random.default_rng(seed)
        C = shape[-1]
        offset, self.mean = normal(self.rng, (2, C), dtype)
        self.x = normal(self.rng, shape, dtype) + offset
        self.gamma = normal(self.rng, (C,), dtype) if scaled else None
        self.beta = normal(self.rng, (C,), dtype)
        self.variance = self.rng.uniform(0.5, 2, C).astype(dtype)
        self.training, self.relu, self.eps, self.decay = training, relu, eps, decay

    @property
    def arrays(self) -> list[np.ndarray]:
        return [self.x, self.beta] if self.gamma is None else [self.x, self.beta, self.gamma]

    def op(self, x, beta, gamma=None, out=None) -> Tensor:
        """The op on copies of the running statistics, which stay in `running`."""
        self.running = self.mean.copy(), self.variance.copy()
        mean, variance = self.running
        return ops.batch_norm(x, gamma, beta, mean=mean, variance=variance, eps=self.eps, decay=self.decay,
                              training=self.training, relu=self.relu, out=out)  # fmt: skip

    def loops(self, x, beta, gamma=None) -> np.ndarray:
        statistics = {} if self.training else {"mean": self.mean, "variance": self.variance}
        gamma = np.ones(len(beta)) if gamma is None else gamma
        y = reference.batch_norm(x, gamma, beta, eps=self.eps, **statistics)
        return reference.relu(y) if self.relu else y

    def computed(self, **options) -> np.ndarray:
        return self.op(*map(Tensor, self.arrays), **options).data


@given(shape=shapes, eps=epsilons, dtype=dtypes, seed=seeds, options=st.fixed_dictionaries(modes))
def test_forward_equals_the_loops(shape, eps, dtype, seed, options):
    case = Case(shape, seed, dtype, eps=eps, **options)
    y = case.computed()
    assert y.dtype == dtype
    assert_close(y, case.loops(*(array.astype(np.float64) for array in case.arrays)))


@given(shape=shapes, dtype=dtypes, seed=seeds, decay=st.sampled_from([0.0, 0.5, 0.9, 1.0]))
def test_training_moves_the_running_statistics_and_testing_does_not(shape, dtype, seed, decay):
    case = Case(shape, seed, dtype, decay=decay)
    case.computed()
    pixels = case.x.reshape(-1, shape[-1]).astype(np.float64)
    batch = pixels.mean(0), pixels.var(0, ddof=1)
    for running, before, now in zip(case.running, (case.mean, case.variance), batch, strict=True):
        assert running.dtype == dtype
        assert_close(running, decay * before.astype(np.float64) + (1 - decay) * now)
    case.training = False
    case.computed()
    np.testing.assert_array_equal(case.running, (case.mean, case.variance))


@given(data=st.data(), shape=shapes, eps=epsilons, seed=seeds, options=st.fixed_dictionaries(modes))
def test_gradient_equals_the_complex_step(data, shape, eps, seed, options):
    case = Case(shape, seed, eps=eps, **options)
    assert_gradients(case.op, case.loops, case.arrays, case.rng, data.draw(upstream(shape)))


@given(shape=shapes, seed=seeds, training=st.booleans())
def test_float32_gradients_equal_float64(shape, seed, training):
    case = Case(shape, seed, training=training)
    dy = normal(case.rng, shape)
    double = gradients(case.op, case.arrays, dy)
    case.mean, case.variance = case.mean.astype(np.float32), case.variance.astype(np.float32)
    single = gradients(case.op, [array.astype(np.float32) for array in case.arrays], dy.astype(np.float32))
    for got, expected in zip(single, double, strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("relu", [True, False])
def test_equals_torch(training, relu):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    case = Case((4, 9, 8, 17), 0, training=training, relu=relu, eps=1e-3, decay=0.9)
    dy = normal(case.rng, case.x.shape)
    theirs = torch.nn.BatchNorm2d(17, eps=1e-3, momentum=0.1, dtype=torch.float64).train(training)
    with torch.no_grad():
        for there, here in ((theirs.weight, case.gamma), (theirs.bias, case.beta),
                            (theirs.running_mean, case.mean), (theirs.running_var, case.variance)):  # fmt: skip
            there.copy_(torch.tensor(here))
    x = torch.tensor(case.x.transpose(0, 3, 1, 2), requires_grad=True)
    y = torch.relu(theirs(x)) if relu else theirs(x)
    y.backward(torch.tensor(dy.transpose(0, 3, 1, 2)))

    assert_close(case.computed(), y.detach().numpy().transpose(0, 2, 3, 1))
    assert_close(case.running[0], theirs.running_mean.numpy(), what="mean")
    assert_close(case.running[1], theirs.running_var.numpy(), what="variance")
    dx, dbeta, dgamma = gradients(case.op, case.arrays, dy)
    assert_close(dx, x.grad.numpy().transpose(0, 2, 3, 1), what="dx")
    assert_close(dbeta, theirs.bias.grad.numpy(), what="dbeta")
    assert_close(dgamma, theirs.weight.grad.numpy(), what="dgamma")


@pytest.mark.parametrize("where", ["far from zero", "first pixel far", "drifting"])
def test_variance_keeps_its_digits(where):
    """E[x^2] - E[x]^2 in float32 would have none left."""
    x = normal(np.random.default_rng(0), (4, 32, 32, 24), np.float32)
    if where == "first pixel far":
        x[0, 0, 0] = 3000
    else:
        begin = 3000 if where == "far from zero" else 0
        x += np.linspace(begin, 3000, 4, dtype=np.float32)[:, None, None, None]
    case = Case(x.shape, 0, np.float32, decay=0.0)
    case.x = x
    case.computed()
    exact = x.reshape(-1, 24).astype(np.float64)
    assert (np.abs(case.running[0] - exact.mean(0)) < 1e-6 * exact.std(0) + 1e-7 * np.abs(exact.mean(0))).all()
    np.testing.assert_allclose(case.running[1], exact.var(0, ddof=1), rtol=5e-5)


def test_constant_channels_have_no_variance():
    case = Case((3, 5, 5, 8), 0, np.float32, decay=0.0)
    case.x[...] = np.float32(0.1)
    np.testing.assert_array_equal(case.computed(), np.broadcast_to(case.beta, case.x.shape))
    np.testing.assert_array_equal(case.running[1], 0)


def test_any_number_of_threads_computes_the_same():
    case = Case((4, 40, 40, 33), 0, np.float32, relu=True)
    dy = normal(case.rng, case.x.shape, np.float32)
    before, found = minigrad.get_threads(), []
    try:
        for threads in range(1, min(available_threads(), 4) + 1):
            minigrad.set_threads(threads)
            found.append([case.computed(), *case.running, *gradients(case.op, case.arrays, dy)])
    finally:
        minigrad.set_threads(before)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("training", [True, False])
def test_reads_and_writes_slices(training):
    case = Case((2, 6, 6, 24), 0, relu=True, training=training)
    x, case.beta, case.gamma, case.mean, case.variance = (
        a[..., 4:21] for a in (case.x, case.beta, case.gamma, case.mean, case.variance)
    )
    case.x, dy = x.copy(), normal(case.rng, (2, 6, 6, 24))[..., 4:21]
    expected, slopes = case.computed(), gradients(case.op, case.arrays, dy.copy())
    case.x = x
    channels, rows = np.zeros((2, 6, 6, 40))[..., 3:20], np.zeros((2, 9, 7, 17))[:, :6, :6]
    for out in (channels, rows):
        out[...] = np.nan
        assert np.shares_memory(case.computed(out=out), out)
        np.testing.assert_array_equal(out, expected)
    for got, slope in zip(gradients(case.op, case.arrays, dy), slopes, strict=True):
        np.testing.assert_array_equal(got, slope)


def test_writes_nothing_beside_its_slice():
    case, wide = Case((2, 3, 3, 8), 0), np.full((2, 3, 3, 20), 7.0)
    case.computed(out=wide[..., 5:13])
    assert (wide[..., :5] == 7).all()
    assert (wide[..., 13:] == 7).all()


def test_gradient_belongs_to_the_inputs_that_want_one():
    case = Case((2, 5, 5, 8), 0)
    dy = normal(case.rng, case.x.shape)
    expected = gradients(case.op, case.arrays, dy)
    for i, slope in enumerate(expected):
        tensors = [Tensor(a, requires_grad=i == j) for j, a in enumerate(case.arrays)]
        case.op(*tensors).backward(dy)
        assert [t.grad is not None for t in tensors] == [i == j for j in range(3)]
        np.testing.assert_array_equal(tensors[i].grad, slope)


def test_the_slope_at_zero_is_zero():
    """As relu's. Beta is 0, and the batch's mean one of its values."""
    case = Case((3, 1), 0, relu=True, training=False)
    case.x, case.beta, case.gamma = np.array([[-1.0], [0], [1]]), np.zeros(1), np.ones(1)
    case.mean, case.variance, case.eps = np.zeros(1), np.ones(1), 0.0
    dx, dbeta, dgamma = gradients(case.op, case.arrays, np.full((3, 1), 5.0))
    np.testing.assert_array_equal(dx, [[0], [0], [5]])
    assert (dbeta, dgamma) == (5, 5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("relu", [True, False])
def test_not_a_number_stays_visible(training, relu):
    case = Case((2, 4, 4, 8), 0, np.float32, training=training, relu=relu)
    case.x[0, 1, 1, 3] = np.nan
    assert np.isnan(case.computed()[0, 1, 1, 3])
    assert np.isnan(case.running[1][3]) == training


@pytest.mark.parametrize("scaled", [True, False])
def test_a_plan_repeats_it_with_the_parameters_of_its_recording(scaled):
    case = Case((2, 9, 9, 40), 0, np.float32, training=False, relu=True, scaled=scaled)
    other = normal(case.rng, case.x.shape, np.float32)
    mean, variance = case.mean, case.variance

    def normalised(x):
        parameters = (None if case.gamma is None else Tensor(case.gamma)), Tensor(case.beta)
        options = {"mean": mean, "variance": variance, "eps": 0.1, "decay": 0.9, "training": False, "relu": True}
        return ops.batch_norm(Tensor(x), *parameters, **options).data

    plan = Plan(normalised, case.x)
    assert plan.agrees
    expected = normalised(other)
    for array in [mean, variance, *case.arrays[1:]]:
        array *= 2
    np.testing.assert_array_equal(plan(other), expected)
    assert not np.allclose(normalised(other), expected)


def test_a_single_value_a_channel_cannot_train_but_test():
    case = Case((1, 1, 1, 8), 0)
    with pytest.raises(InputError, match=re.escape("(1, 1, 1, 8), one value a channel")):
        case.computed()
    np.testing.assert_array_equal(case.running, (case.mean, case.variance))
    case.training = False
    assert_close(case.computed(), case.loops(*case.arrays))


@pytest.mark.parametrize("name", ["gamma", "beta", "mean", "variance"])
@pytest.mark.parametrize("wrong", [np.ones(7), np.ones(8, np.float32), np.ones((8, 1))])
def test_refuses_parameters_that_do_not_fit(name, wrong):
    case = Case((2, 4, 4, 8), 0)
    setattr(case, name, wrong)
    with pytest.raises(InputError, match=rf"expected {name} \(8,\) of float64.*{re.escape(str(wrong.shape))}"):
        case.computed()


def test_refuses_an_out_or_constants_that_do_not_fit():
    case = Case((2, 4, 4, 8), 0)
    for out in (np.zeros((2, 4, 4, 9)), np.zeros((2, 4, 4, 8), np.float32)):
        with pytest.raises(InputError, match="expected out"):
            case.computed(out=out)
    for eps, decay in ((-1e-3, 0.9), (1e-3, 1.5), (1e-3, -0.5)):
        case.eps, case.decay = eps, decay
        with pytest.raises(InputError, match=rf"eps is {eps} and decay {decay}"):
            case.computed()
