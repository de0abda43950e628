"""Averages of the weights against literal loops over all the weights there were, and stopping without a trace."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad import InputError, Tensor, available_threads, hdf5, nn, set_threads
from minigrad.averaging import TailMean, WarmedEma, averaged_state
from minigrad.flat import FlatParameters
from minigrad.init import initialise
from tests.minigrad.checks import TOLERANCE, assert_close
from tests.minigrad.strategies import dtypes, seeds


class Model(nn.Module):
    def __init__(self, dtype):
        self.conv = nn.Conv2d(3, 8, 3, dtype=dtype)
        self.normalised = nn.Conv2d(8, 4, 1, dtype=dtype, batch_norm=nn.BatchNorm(4, dtype=dtype))
        self.linear = nn.Linear(8, 5, dtype=dtype)


def flat(dtype=np.float32) -> FlatParameters:
    model = Model(dtype)
    initialise(model, 0, bias=0.2)
    return FlatParameters(model)


def walk(seed: int, steps: int, parameters: FlatParameters) -> np.ndarray:
    """Weights (steps, P) that wander."""
    moves = np.random.default_rng(seed).normal(0, 0.1, (steps, parameters.data.size))
    return (1 + moves.cumsum(0)).astype(parameters.data.dtype)


def follow(average, weights: np.ndarray) -> None:
    for w in weights:
        average.parameters.data[:] = w
        average.update()


def mean_of_the_tail(weights, start):
    total, count = np.zeros(weights.shape[1]), 0
    for t in range(start + 1, len(weights) + 1):  # steps count from 1
        total, count = total + weights[t - 1], count + 1
    return total / count


def warmed_average(weights, decay):
    e = weights[0].astype(np.float64)
    for t in range(1, len(weights)):
        d = min(decay, (1 + t) / (10 + t))
        e = d * e + (1 - d) * weights[t]
    return e


def same_bits(a, b):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


@given(seed=seeds, dtype=dtypes, steps=st.integers(1, 12), start=st.integers(0, 11))
def test_tail_mean(seed, dtype, steps, start):
    parameters = flat(dtype)
    mean, weights = TailMean(parameters, start), walk(seed, steps, parameters)
    follow(mean, weights)
    expected = mean_of_the_tail(weights, start) if steps > start else weights[-1]
    assert mean.average.dtype == dtype
    assert_close(mean.average, expected, TOLERANCE[np.dtype(dtype)])
    same_bits(parameters.data, weights[-1])


@given(seed=seeds, dtype=dtypes, steps=st.integers(1, 30), decay=st.sampled_from([0.0, 0.5, 0.7, 0.9999]))
def test_warmed_moving_average(seed, dtype, steps, decay):
    """At a decay of 0.5 the warm-up ends after 8 steps, at 0.7 after 20."""
    parameters = flat(dtype)
    average, weights = WarmedEma(parameters, decay), walk(seed, steps, parameters)
    follow(average, weights)
    assert average.average.dtype == dtype
    assert_close(average.average, warmed_average(weights, decay), TOLERANCE[np.dtype(dtype)])
    same_bits(parameters.data, weights[-1])


@pytest.mark.parametrize(("steps", "decay"), [(1, 2 / 11), (8, 9 / 18), (5000, 5001 / 5010), (89_990, 0.9999)])
def test_the_decay_warms_up(steps, decay):
    """A jump of the weights from 0 to 1 after so many steps: the average keeps `decay` of what it was."""
    parameters = flat(np.float64)
    average = WarmedEma(parameters, 0.9999)
    arrays, _ = average.state()
    average.restore(arrays, {"steps": steps, "decay": 0.9999})
    parameters.data[:] = 1
    average.update()
    np.testing.assert_allclose(average.average, 1 - decay, rtol=1e-12)


@pytest.mark.parametrize("average", [lambda p: TailMean(p, 2), WarmedEma])
def test_before_there_is_an_average_it_is_the_weights(average):
    parameters = flat()
    made = average(parameters)
    same_bits(made.average, parameters.data)
    assert not np.shares_memory(made.average, parameters.data)
    for path, view in made.views().items():
        same_bits(view, parameters.views(parameters.data)[path])


def test_the_mean_of_float32_weights_is_exact():
    """To the one rounding at the end, however many steps there were; a float32 mean would be off in its third digit."""
    parameters = flat()
    mean = TailMean(parameters)
    w = np.float32(0.3) + np.arange(parameters.data.size, dtype=np.float32) / 10_000
    million = {path: 1e6 * view for path, view in parameters.views(w.astype(np.float64)).items()}
    mean.restore(million, {"steps": 1_000_000, "start": 0})
    for step in range(1000):
        parameters.data[:] = w + np.float32(0.01 * (step % 7))
        mean.update()
    added = [[Fraction(float(value)) for value in w[:20] + np.float32(0.01 * part)] for part in range(7)]
    for i in range(20):
        total = 1_000_000 * Fraction(float(w[i])) + sum(added[step % 7][i] for step in range(1000))
        assert mean.average[i] == np.float32(float(total / 1_001_000))


def test_the_moving_average_does_not_stand_still():
    """Weights 1e-5 away are approached by 1e-4 of that in a step, far below what float32 can tell apart near 1."""
    parameters = flat()
    average = WarmedEma(parameters, 0.9999)
    ones = {path: np.ones(view.shape) for path, view in parameters.views(parameters.data).items()}
    average.restore(ones, {"steps": 10**6, "decay": 0.9999})
    parameters.data[:] = 1 + 2**-17
    for _ in range(7000):
        average.update()
    np.testing.assert_allclose((average.kept - 1) * 2**17, 1 - 0.9999**7000, rtol=1e-6)


@pytest.mark.parametrize("make", [lambda p: TailMean(p, 4), lambda p: WarmedEma(p, 0.5)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("stop", [1, 4, 5, 9, 15])
def test_a_stop_leaves_no_trace(make, dtype, stop, tmp_path):
    """Through a file, before the mean starts, as it starts and after; during the warm-up and after."""
    parameters = flat(dtype)
    weights, whole = walk(1, 16, parameters), make(parameters)
    follow(whole, weights)

    first = make(flat(dtype))
    follow(first, weights[:stop])
    arrays, numbers = first.state()
    hdf5.save(tmp_path / "state.h5", arrays, numbers)
    second = make(flat(dtype))
    second.restore(*hdf5.load(tmp_path / "state.h5"))
    follow(second, weights[stop:])
    same_bits(second.kept, whole.kept)
    same_bits(second.average, whole.average)
    assert second.steps == whole.steps == 16


def test_what_does_not_fit_is_refused_and_changes_nothing():
    mean = TailMean(flat(), 4)
    follow(mean, walk(2, 6, mean.parameters))
    arrays, numbers = mean.state()
    other = TailMean(flat(), 4)
    cases = [
        (arrays, {**numbers, "start": 3}, "made with start 3, this one with 4"),
        (arrays, {"steps": 6}, "made with start None"),
        (arrays, {"steps": 6, "decay": 0.5}, "made with start None"),
        ({k: v for k, v in arrays.items() if k != "linear/bias"}, numbers, "has nothing for linear/bias"),
        ({**arrays, "linear/bias": np.zeros(4)}, numbers, r"\(4,\) of float64 for linear/bias, expected \(5,\)"),
        ({**arrays, "linear/bias": np.zeros(5, np.float32)}, numbers, "float32 for linear/bias"),
    ]
    for found, settings, message in cases:
        with pytest.raises(InputError, match=message):
            other.restore(found, settings)
        assert not other.kept.any()
        assert other.steps == 0
    other.restore(arrays, numbers)
    same_bits(other.kept, mean.kept)
    assert not np.shares_memory(other.kept, mean.kept)


@pytest.mark.parametrize(("make", "message"), [
    (lambda p: TailMean(p, -1), "after step -1; choose 0 or more"),
    (lambda p: WarmedEma(p, 1.0), "is 1.0; choose at least 0 and less than 1"),
    (lambda p: WarmedEma(p, -0.1), "is -0.1; choose"),
    (lambda p: WarmedEma(p, float("nan")), "is nan; choose"),
])
def test_settings_out_of_range(make, message):
    with pytest.raises(InputError, match=message):
        make(flat())


def test_running_statistics_are_taken_as_they_are():
    """The state of a network with averaged parameters, which share no memory with the network in training."""
    model = Model(np.float32)
    initialise(model, 0)
    parameters = FlatParameters(model)
    mean = TailMean(parameters)
    follow(mean, walk(3, 3, parameters))
    model.normalised(Tensor(np.random.default_rng(0).normal(3, 2, (2, 4, 4, 8)).astype(np.float32)))
    state = averaged_state(model, mean)
    assert list(state) == list(model.state())
    for path, array in model.state().items():
        statistic = path.endswith(("/mean", "/variance"))
        assert array.any()
        same_bits(state[path], array if statistic else mean.views()[path])
        assert not np.shares_memory(state[path], array)
        assert statistic or (state[path] != array).any()


@pytest.mark.skipif(available_threads() < 2, reason="one core: nothing to compare")
@pytest.mark.parametrize("make", [TailMean, WarmedEma])
def test_the_number_of_threads_changes_no_bit(make):
    """With more weights than a single thread takes on alone."""
    kept = []
    for threads in range(1, available_threads() + 1):
        set_threads(threads)
        average = make(FlatParameters(nn.Linear(300, 333)))
        follow(average, walk(4, 4, average.parameters))
        kept.append(average.kept)
    assert kept[0].any()
    for other in kept[1:]:
        same_bits(other, kept[0])
