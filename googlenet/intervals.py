"""Confidence intervals of 95 %: how far a figure of some images may be from that of all images like them.

Each interval is for itself: of twenty that are read together one is expected to miss.

`wilson`: of a fraction p = k / n, all the values that the normal approximation does not reject (Wilson 1927):

    (p + z^2 / 2n  -+  z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)

Unlike p -+ z sqrt(p (1 - p) / n) it holds for few images and for p near 0 (Brown, Cai and DasGupta 2001).

`of_mean`: of the mean m of values with standard deviation s (Student 1908); of many values m -+ 1.96 s / sqrt(n):

    m  -+  t(n - 1) s / sqrt(n)

Of two tests of the same images the differences image by image are such values. What both find hard drops out, so the
interval is narrower than those of the two.

`of_bounded_mean`: of the mean of values in [low, high], such as errors averaged over networks, or their differences.
Where nearly all images have the same value, s is of the few others, and Student's interval is too narrow, of no width
where all are alike, and may pass the bounds. Here it is as if each bound had come up once more: with m and s of these
n + 2 values (s^2 the mean of the squared distances)

    m  -+  z s / sqrt(n + 2)

cut off at the bounds.

`of_paired_errors`: of the difference (b - c) / n of two errors on the same images, of which b were wrong only in the
second test and c only in the first (Bonett and Price 2012; recommended by Fagerland, Lydersen and Laake 2014):

    B = (b + 1) / (n + 2),  C = (c + 1) / (n + 2):   B - C  -+  z sqrt((B + C - (B - C)^2) / (n + 2))

It is `of_bounded_mean` of -1, 0 and 1. Without the added ones it is Wald's, which claims to know exactly where no image
was judged differently.

z = 1.96, the 97.5 % point of the normal distribution.

- Wilson, E. B. (1927). Probable inference, the law of succession, and statistical inference. JASA 22, 209-212.
- Brown, L. D., Cai, T. T., DasGupta, A. (2001). Interval estimation for a binomial proportion. Statist. Sci. 16,
  101-133.
- Bonett, D. G., Price, R. M. (2012). Adjusted Wald confidence interval for a difference of binomial proportions based
  on paired data. J. Educ. Behav. Statist. 37, 479-488.
- Fagerland, M. W., Lydersen, S., Laake, P. (2014). Recommended tests and confidence intervals for paired binomial
  proportions. Statist. Med. 33, 2850-2875.
- Student (1908). The probable error of a mean. Biometrika 6, 1-25.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from minigrad.errors import InputError

LEVEL = 0.95
TAIL = (1 + LEVEL) / 2
Z = NormalDist().inv_cdf(TAIL)


class Interval(NamedTuple):
    """From `low` to `high`; without bounds where one value tells nothing of its spread."""

    low: float
    high: float


def wilson(wrong: int, n: int) -> Interval:
    """Return the interval of the fraction wrong / n."""
    _check(n)
    p = wrong / n
    middle = p + Z**2 / (2 * n)
    half = Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    low, high = ((middle + sign * half) / (1 + Z**2 / n) for sign in (-1, 1))
    return Interval(max(low, 0.0) if wrong else 0.0, min(high, 1.0) if wrong < n else 1.0)


def of_mean(values: ArrayLike) -> Interval:
    """Return the interval of the mean of (n,) values, such as losses, or differences of losses image by image."""
    x = np.asarray(values, np.float64)
    _check(len(x))
    if len(x) == 1:
        return Interval(-math.inf, math.inf)
    half = float(stdtrit(len(x) - 1, TAIL) * x.std(ddof=1) / math.sqrt(len(x)))
    return Interval(float(x.mean()) - half, float(x.mean()) + half)


def of_bounded_mean(values: ArrayLike, low: float, high: float) -> Interval:
    """Return the interval of the mean of (n,) values from `low` to `high`."""
    _check(len(np.asarray(values)))
    x = np.append(np.asarray(values, np.float64), [low, high])
    half = float(Z * x.std() / math.sqrt(len(x)))
    return Interval(max(float(x.mean()) - half, low), min(float(x.mean()) + half, high))


def of_paired_errors(first: ArrayLike, second: ArrayLike) -> Interval:
    """Return the interval of the second error minus the first, for (n,) bools: was the image wrong?"""
    a, b = np.asarray(first, bool), np.asarray(second, bool)
    if a.shape != b.shape:
        raise InputError(f"paired errors of {len(a)} and {len(b)} images: expected the same images")
    return of_bounded_mean(b.astype(np.float64) - a, -1.0, 1.0)


def _check(n: int) -> None:
    if n < 1:
        raise InputError("an interval of no values: give at least one")
