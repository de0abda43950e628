"""Intervals against SciPy, literal formulas and simulation: do 95 % of them hold the truth?"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from googlenet.intervals import Interval, of_bounded_mean, of_mean, of_paired_errors, wilson
from minigrad.errors import InputError

DRAWS = 2000
ALLOWED = 0.975, 0.93  # of 2000 intervals that hold 95 %, with two standard deviations and what few images cost


def holds(interval: Interval, value: float) -> bool:
    return interval.low <= value <= interval.high


# Of one fraction.

@pytest.mark.parametrize(("wrong", "n"), [(0, 10), (1, 10), (5, 10), (10, 10), (0, 1), (1, 1), (1345, 10_000)])
def test_wilson_is_scipys(wrong, n):
    expected = stats.binomtest(wrong, n).proportion_ci(0.95, method="wilson")
    assert wilson(wrong, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_holds_what_the_normal_approximation_does_not_reject():
    """Where |k / n - p| = z sqrt(p (1 - p) / n) is where the interval ends."""
    for p in wilson(7, 50):
        assert abs(7 / 50 - p) == pytest.approx(1.959964 * math.sqrt(p * (1 - p) / 50), rel=1e-6)


@pytest.mark.parametrize("about", [0.02, 0.3, 0.5])
def test_wilson_holds_the_truth(about):
    """For fractions near by: of a single one it holds somewhat more or less, as counts are whole numbers."""
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5 * about, 1.5 * about, DRAWS)
    covered = [holds(wilson(int(k), 200), truth) for k, truth in zip(rng.binomial(200, p), p, strict=True)]
    assert ALLOWED[1] <= np.mean(covered) <= ALLOWED[0]


# Of a mean.

@pytest.mark.parametrize("n", [2, 3, 1000])
def test_of_a_mean_is_students(n):
    x = np.random.default_rng(n).normal(3, 2, n)
    expected = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert of_mean(x) == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_of_many_values_it_is_196_standard_errors():
    x = np.random.default_rng(0).exponential(1, 100_000)
    low, high = of_mean(x)
    assert (low + high) / 2 == pytest.approx(x.mean())
    assert (high - low) / 2 == pytest.approx(1.96 * x.std(ddof=1) / math.sqrt(len(x)), rel=1e-4)


def test_one_value_leaves_it_open():
    assert of_mean([3.0]) == (-math.inf, math.inf)


@pytest.mark.parametrize(("n", "skewed"), [(3, False), (200, False), (1000, True)])
def test_of_a_mean_it_holds_the_truth(n, skewed):
    """Losses are skewed, as exponential values are; of differences between seeds there are few."""
    rng = np.random.default_rng(1)
    x = rng.exponential(2, (DRAWS, n)) if skewed else rng.normal(2, 1, (DRAWS, n))
    assert ALLOWED[1] <= np.mean([holds(of_mean(own), 2) for own in x]) <= ALLOWED[0]


# Of a mean of bounded values.

def mean_errors(rng, n: int, hard: float, low: float) -> np.ndarray:
    """(n,) mean errors of five networks, each wrong of 30 % of the `hard` images; from -1 on those of their majority
    less these."""
    wrong = (rng.random((5, n)) < 0.3) & (rng.random(n) < hard)
    mean = wrong.mean(axis=0)
    return (mean > 0.5) - mean if low else mean


@pytest.mark.parametrize(("low", "truth"), [(0.0, 0.3), (-1.0, 0.16308 - 0.3)])
@pytest.mark.parametrize("hard", [0.002, 0.2])
def test_of_a_bounded_mean_it_holds_the_truth(hard, low, truth):
    """Also where nearly all values are alike, of which Student's holds but 68 and 80 %."""
    rng = np.random.default_rng(4)
    found = [of_bounded_mean(mean_errors(rng, 1000, hard, low), low, 1.0) for _ in range(DRAWS)]
    covered = np.mean([holds(each, hard * truth) for each in found])
    assert covered >= ALLOWED[1]
    assert hard < 0.1 or covered <= ALLOWED[0]


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30))
def test_of_a_bounded_mean_it_holds_the_mean_and_keeps_the_bounds(values):
    low, high = of_bounded_mean(values, -1, 1)
    assert -1 <= low < high <= 1
    assert low - 1e-12 <= np.mean(values) <= high + 1e-12


def test_of_many_bounded_values_it_is_196_standard_errors():
    x = np.random.default_rng(0).random(100_000)
    low, high = of_bounded_mean(x, 0, 1)
    assert (low + high) / 2 == pytest.approx(x.mean(), abs=1e-5)
    assert (high - low) / 2 == pytest.approx(1.96 * x.std() / math.sqrt(len(x)), rel=1e-3)


# Of two errors on the same images.

def literal(first, second):
    """Bonett and Price's, counted one image at a time."""
    n, worse, better = 0, 0, 0
    for a, b in zip(first, second, strict=True):
        n += 1
        worse += b and not a
        better += a and not b
    p, q = (worse + 1) / (n + 2), (better + 1) / (n + 2)
    error = 1.959964 * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    return max(p - q - error, -1), min(p - q + error, 1)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_of_paired_errors(pairs):
    first, second = zip(*pairs, strict=True)
    found = of_paired_errors(first, second)
    assert found == pytest.approx(literal(first, second), rel=1e-6)
    assert holds(found, np.mean(second) - np.mean(first))
    low, high = of_paired_errors(second, first)
    assert (-high, -low) == pytest.approx(found)


def test_no_different_image_is_no_proof_of_no_difference():
    low, high = of_paired_errors([True, False] * 50, [True, False] * 50)
    assert low == -high
    assert 0.02 < high < 0.04


@pytest.mark.parametrize(("worse", "better"), [(0.05, 0.05), (0.02, 0.08), (0.2, 0.1), (0.005, 0.01)])
def test_of_paired_errors_it_holds_the_truth(worse, better):
    """Rare differences are held more often than needed, as its authors found."""
    rng = np.random.default_rng(2)
    u = rng.random((DRAWS, 400))
    second, first = u < worse, (u >= worse) & (u < worse + better)
    covered = np.mean([holds(of_paired_errors(a, b), worse - better) for a, b in zip(first, second, strict=True)])
    assert ALLOWED[1] <= covered <= (ALLOWED[0] if worse > 0.01 else 0.995)


def test_pairs_tell_more_than_two_intervals():
    """Two tests that are wrong of the same images but for a few: the difference is known better than either error."""
    rng = np.random.default_rng(3)
    first = rng.random(2000) < 0.3
    second = first ^ (rng.random(2000) < 0.02)
    low, high = of_paired_errors(first, second)
    alone = wilson(int(first.sum()), 2000)
    assert high - low < 0.4 * (alone.high - alone.low)


@pytest.mark.parametrize("call", [lambda: wilson(0, 0), lambda: of_mean([]), lambda: of_paired_errors([], []),
                                  lambda: of_bounded_mean([], 0, 1)])
def test_of_nothing_there_is_no_interval(call):
    with pytest.raises(InputError, match="no values"):
        call()


def test_pairs_are_of_the_same_images():
    with pytest.raises(InputError, match="3 and 2 images"):
        of_paired_errors([True] * 3, [True] * 2)
