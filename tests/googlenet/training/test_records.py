"""Means of losses."""

import math

import pytest

from googlenet.training import Losses, mean
from googlenet.training.records import weighted


def test_mean_of_no_losses_is_nan():
    assert all(math.isnan(loss) for loss in mean([]))
    assert mean([Losses(1, 2, 3, 4), Losses(3, 4, 5, 6)]) == Losses(2, 3, 4, 5)


def test_means_over_batches_are_weighted_by_their_images():
    assert weighted([Losses(1, 2, 3, math.nan), Losses(4, 6, 3, math.nan)], [2, 1])[:3] == pytest.approx((2, 10 / 3, 3))
    assert weighted([Losses(0.1, 0.2, 0.3, 0.7)], [3]) == Losses(0.1, 0.2, 0.3, 0.7), "to the last bit"
