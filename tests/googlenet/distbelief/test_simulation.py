"""The simulator against closed forms: of a quadratic, of queues."""

import math
from itertools import islice

import numpy as np
import pytest

from googlenet.config import TrainingConfig
from googlenet.distbelief.server import Counts, State, Weights, server_of
from googlenet.distbelief.simulation import Measured, Simulation, Timing, project
from minigrad import InputError

ALIKE = [1.0, 0.5, 2.0]  # the quadratic's curvatures


def quadratic(workers: int, lr: float, momentum: float, steps: int, shards: int = 1, **settings) -> np.ndarray:
    """The weights after each update (steps + 1, P), of workers that take turns."""
    P = len(ALIKE)
    weights = Weights(np.ones(P), {"w/weight": (slice(0, P), (P,))})
    config = TrainingConfig(workers=workers, lr=lr, momentum=momentum, weight_decay=0.0, schedule="constant",
                            **settings)
    server = server_of(State(weights, np.zeros(P)), config, 10, [Counts() for _ in range(shards)])
    simulation = Simulation(server, lambda w, worker, step: np.array(ALIKE) * w, workers, lambda worker, step: 1.0)
    found = [weights.data.copy()]
    for served in islice(simulation.run(), steps * shards):
        if served.shard == shards - 1:
            found.append(weights.data.copy())
    return np.array(found)


def closed_form(a: float, workers: int, lr: float, momentum: float, steps: int) -> np.ndarray:
    """w[t] = sum of c_i z_i^t, with the c_i that fit the first weights.

    The first N updates are of the initial weights: up to then the workers' gradients are a, a, a, ..."""
    tau = workers - 1
    first, velocity = [1.0], 0.0
    for _ in range(tau + 1):
        velocity = momentum * velocity + lr * a
        first.append(first[-1] - velocity)
    polynomial = np.zeros(tau + 3)
    polynomial[:3] += [1, -(1 + momentum), momentum]
    polynomial[tau + 1] += lr * a
    roots = np.roots(polynomial)
    t = np.arange(len(roots))
    c = np.linalg.solve(roots[None, :] ** t[:, None], np.array(first[:len(roots)], complex))
    return (roots[None, :] ** np.arange(steps + 1)[:, None] @ c).real


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_a_quadratic_follows_its_closed_form(workers, momentum):
    lr, steps = 0.13, 60
    found = quadratic(workers, lr, momentum, steps, shards=2)
    for column, a in zip(found.T, ALIKE, strict=True):
        np.testing.assert_allclose(column, closed_form(a, workers, lr, momentum, steps), rtol=0, atol=1e-9)


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_the_largest_rate_falls_with_the_workers(workers):
    """lr a < 2 sin(pi / (4 tau + 2)), for the steepest direction."""
    limit = 2 * math.sin(math.pi / (4 * (workers - 1) + 2)) / max(ALIKE)
    below, above = (np.abs(quadratic(workers, factor * limit, 0.0, 4000)[-1]).max() for factor in (0.97, 1.03))
    assert below < 1e-3
    assert above > 1e3


@pytest.mark.parametrize("workers", [2, 4, 8])
def test_looking_ahead_allows_a_larger_rate(workers):
    """w[t+1] = w[t] + mu (w[t] - w[t-1]) - lr a w', w' = w[t-tau] + (mu + ... + mu^tau) (w[t-tau] - w[t-tau-1])."""
    tau, mu = workers - 1, 0.9
    plain, ahead = (largest_rate(tau, mu, factor) for factor in (0.0, sum(mu**k for k in range(1, tau + 1))))
    assert ahead > 1.4 * plain
    below, above = (np.abs(quadratic(workers, rate * ahead / max(ALIKE), mu, 4000, look_ahead=True)[-1]).max()
                    for rate in (0.97, 1.03))
    assert below < 1e-3
    assert above > 10


def largest_rate(tau: int, mu: float, factor: float) -> float:
    """The largest lr a of which all roots of the recurrence's polynomial are below 1."""
    rates = np.geomspace(0.01, 0.3, 1000)
    return max(rate for rate in rates if np.abs(np.roots(
        np.polyadd([1, -(1 + mu), mu] + [0] * tau, [rate * (1 + factor), -rate * factor]))).max() < 1)


def test_workers_that_take_turns_are_stale_by_the_others():
    timing = Timing(4, 2, lambda worker, step: 1.0)
    staleness = [served.staleness for served in islice(timing.run(), 80)]
    assert staleness[:8] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert set(staleness[8:]) == {3}


def test_one_that_is_slow_is_stale_and_holds_up_nobody():
    served = list(islice(Timing(3, 1, lambda worker, step: 10.0 if worker == 2 else 1.0).run(), 42))
    assert [sum(each.worker == worker for each in served) for worker in range(3)] == [20, 20, 2]
    assert {each.staleness for each in served if each.worker == 2} == {20}


def test_it_is_the_same_every_time():
    def run():
        rng = np.random.default_rng(1)
        return list(islice(Timing(7, 3, lambda worker, step: float(rng.random()), service=0.01).run(), 500))

    assert run() == run()


MEASURED = Measured(step=1.0, spread=0.0, update=0.01, size=28_000_000, line=1e9, latency=0.0005, images=32)
SERVICE = 0.028 + 0.01


@pytest.mark.parametrize(("workers", "shards"), [(1, 1), (1, 8), (8, 1), (8, 8)])
def test_below_saturation_every_worker_has_its_own_pace(workers, shards):
    found = project(MEASURED, workers, shards)
    assert found.images_per_second == pytest.approx(workers * found.alone, rel=0.03)
    assert found.staleness == pytest.approx(workers - 1, abs=0.1)


@pytest.mark.parametrize(("workers", "shards"), [(100, 1), (400, 1), (300, 4)])
def test_above_it_the_shards_pace_is_all(workers, shards):
    """A shard serves one request after the other: images/s = images shards / service of all weights."""
    found = project(MEASURED, workers, shards)
    assert found.images_per_second == pytest.approx(32 * shards / SERVICE, rel=0.03)
    assert found.busy > 0.95


def test_there_are_workers_and_shards():
    with pytest.raises(InputError, match="0 workers and 1 shards: give at least 1"):
        Timing(0, 1, lambda worker, step: 1.0)
