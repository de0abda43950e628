"""The parameter server, called as it is: updates, staleness, pushes that come twice, rounds."""

import math

import numpy as np
import pytest

from googlenet.config import TrainingConfig
from googlenet.distbelief.server import Applied, Counts, State, merged, passed, server_of
from googlenet.training.rules import average_of, optimiser_of
from googlenet.training.schedule import learning_rate
from minigrad.flat import FlatParameters
from tests.runs import network

BATCHES = 10


def made(shards: int = 3, **settings) -> tuple:
    """A server over a tiny network, and its vector."""
    config = TrainingConfig(**{"workers": 4, "epochs": 3, "schedule": "poly", **settings})
    flat = FlatParameters(network(3))
    memory = np.full_like(flat.data, optimiser_of(flat, config).begins_at)
    kept = np.zeros(flat.data.size) if config.averaging != "none" else None
    counts = [Counts() for _ in range(shards)]
    return server_of(State(flat, memory, kept), config, BATCHES, counts), flat, config


def push(server, gradient, worker=0, step=1, version=0, **more) -> list[Applied | None]:
    return [server.push(shard, gradient, worker, step, version=version, **{"batches": 1, **more})
            for shard in range(len(server.shards))]


def gradients(flat, count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, flat.data.size)).astype(flat.data.dtype)


@pytest.mark.parametrize("shards", [1, 2, 7])
@pytest.mark.parametrize("settings", [{}, {"optimiser": "adagrad"}, {"averaging": "ema"},
                                      {"averaging": "tail", "averaging_start": 0.1}], ids=str)
def test_shards_update_as_the_whole_would(shards, settings):
    """Bit for bit, with rates and decays of biases, wherever the borders lie."""
    server, flat, config = made(shards, **settings)
    whole = FlatParameters(network(3))
    optimiser, average = optimiser_of(whole, config), average_of(whole, config, BATCHES)
    for step, gradient in enumerate(gradients(flat, 5), 1):
        push(server, gradient, step=step, version=step - 1, scale=0.5)
        whole.gradient[:] = gradient
        optimiser.step(learning_rate(config, passed(config, BATCHES, step)), 0.5)
        if average:
            average.update()
    assert not np.array_equal(flat.data, FlatParameters(network(3)).data), "they learn"
    np.testing.assert_array_equal(flat.data, whole.data)
    for shard, place in zip(server.shards, server.slices, strict=True):
        np.testing.assert_array_equal(shard.optimiser.memory, optimiser.memory[place])
        if average:
            np.testing.assert_array_equal(shard.average.average, average.average[place])


def test_a_fetch_says_which_version_it_is():
    server, flat, _ = made()
    out = np.zeros_like(flat.data)
    assert [server.fetch(shard, out, 0) for shard in range(3)] == [0, 0, 0]
    np.testing.assert_array_equal(out, flat.data)
    server.push(1, gradients(flat, 1)[0], 0, 1, version=0, batches=1)
    assert [server.fetch(shard, out, 0) for shard in range(3)] == [0, 1, 0]
    np.testing.assert_array_equal(out, flat.data)


def test_a_fetch_looks_as_far_ahead_as_its_worker_was_stale():
    """To where pushes of nothing take the weights."""
    server, flat, _ = made(2, look_ahead=True, weight_decay=0.0)
    for worker, gradient in enumerate(gradients(flat, 3)):
        push(server, gradient, worker)  # of staleness 0, 1, 2
    ahead = np.empty((4, flat.data.size), flat.data.dtype)
    for worker, out in enumerate(ahead):  # the last of which has pushed nothing yet
        assert [server.fetch(shard, out, worker) for shard in range(2)] == [3, 3]
    np.testing.assert_array_equal(ahead[3], flat.data)
    for worker in range(3):
        np.testing.assert_allclose(ahead[worker], flat.data, rtol=1e-5, atol=1e-7)
        push(server, np.zeros_like(flat.data), 9, worker + 1, worker + 3)


@pytest.mark.parametrize("workers", [1, 3, 40])
def test_statistics_come_to_what_batches_have_however_many_workers_change_them(workers):
    """Of batches whose mean is 1, from 0 on, by workers that take turns."""
    decay, shared = 0.9, np.zeros(1)
    fetched = [shared.copy() for _ in range(workers)]
    for turn in range(20):
        for worker in range(workers):
            own = decay * fetched[worker] + (1 - decay)
            shared = merged(shared, own, fetched[worker], decay)
            fetched[worker] = shared.copy()
        if workers == 3:
            assert shared[0] > 1 - decay ** (2 * turn), "they learn faster than one worker's would"
    assert 0.8 < shared[0] < 1.0001


def test_staleness_is_what_came_between_fetch_and_push():
    server, flat, _ = made(1)
    g = gradients(flat, 1)[0]
    staleness = [push(server, g, worker, step, version)[0].staleness
                 for worker, step, version in [(0, 1, 0), (1, 1, 0), (0, 2, 1), (2, 1, 0)]]
    assert staleness == [0, 1, 1, 3]


def test_the_rate_of_a_stale_push_is_divided():
    server, flat, config = made(1, staleness_lr=True, schedule="constant")
    g = gradients(flat, 1)[0]
    rates = [push(server, g, 0, step, 0)[0].lr for step in (1, 2, 3, 4)]  # of staleness 0, 1, 2, 3
    assert rates == pytest.approx([config.lr, config.lr, config.lr / 2, config.lr / 3])


def test_a_push_that_was_seen_before_changes_nothing():
    server, flat, _ = made(averaging="ema")
    first, second = gradients(flat, 2)
    push(server, first, 5, 4)
    before = flat.data.copy(), [shard.average.kept.copy() for shard in server.shards]
    for step in (4, 3):
        assert push(server, second, 5, step) == [None] * 3
    np.testing.assert_array_equal(flat.data, before[0])
    for shard, kept in zip(server.shards, before[1], strict=True):
        np.testing.assert_array_equal(shard.average.kept, kept)
        assert (shard.counts.version, shard.counts.batches, shard.counts.seen) == (1, 1, {5: 4})
    assert None not in push(server, second, 6, 4), "another worker's step 4 is another push"


def test_one_shard_that_missed_a_push_takes_it_when_it_is_sent_again():
    """What a worker does that died between two shards."""
    server, flat, _ = made(2)
    other, whole, _ = made(2)
    g = gradients(flat, 1)[0]
    server.push(0, g, 0, 1, version=0, batches=1)
    assert [each is None for each in push(server, g)] == [True, False]
    push(other, g)
    np.testing.assert_array_equal(flat.data, whole.data)


def test_epochs_are_counted_over_all_workers():
    """Four workers' pushes of one batch each lower the rate as four steps of one do."""
    rates = []
    for workers in (1, 4):
        server, flat, _ = made(1, schedule="step", decay=0.5, decay_epochs=1.0)
        g = np.zeros_like(flat.data)
        rates.append([push(server, g, step % workers, 1 + step // workers, step)[0].lr for step in range(3 * BATCHES)])
    assert rates[0] == rates[1] == [0.01] * BATCHES + [0.005] * BATCHES + [0.0025] * BATCHES


def test_a_push_over_several_batches_counts_as_many():
    server, flat, config = made(1)
    applied = push(server, gradients(flat, 1)[0], batches=15)[0]
    assert server.shards[0].counts.batches == 15
    assert applied.lr == pytest.approx(config.lr * math.sqrt(1 - 1.4 / 3))


# Rounds: synchronous training.

def test_a_round_updates_by_the_mean_of_its_gradients_whoever_came_first():
    orders, results = [(0, 1, 2, 3), (2, 0, 3, 1)], []
    for order in orders:
        server, flat, config = made(2, sync=True)
        g = gradients(flat, 4)
        before = flat.data.copy()
        for worker in order[:3]:
            assert push(server, g[worker], worker) == [None, None]
            np.testing.assert_array_equal(flat.data, before)
        assert None not in push(server, g[order[3]], order[3])
        results.append(flat.data.copy())
    np.testing.assert_array_equal(results[0], results[1])
    one, alone, _ = made(2, momentum=config.momentum)
    push(one, g.mean(axis=0), batches=4)
    np.testing.assert_allclose(results[0], alone.data, rtol=0, atol=1e-6)


def test_backup_workers_are_not_waited_for_and_their_late_gradients_dropped():
    server, flat, _ = made(1, sync=True, backup_workers=1)
    g = gradients(flat, 4)
    assert [push(server, g[k], k)[0] is None for k in range(3)] == [True, True, False]
    after = flat.data.copy()
    assert push(server, g[3], 3) == [None]
    np.testing.assert_array_equal(flat.data, after)
    assert server.shards[0].late == 1
    assert server.shards[0].counts.batches == 3
    assert push(server, g[3], 3, step=2, version=1) == [None], "but its next one counts"
    assert 3 in server.shards[0].waiting


def test_a_worker_that_leaves_a_round_may_send_its_step_again():
    server, flat, _ = made(1, sync=True)
    g = gradients(flat, 4)
    push(server, g[1], 1)
    server.shards[0].leave(1)
    assert not server.shards[0].waiting
    push(server, g[1], 1)
    assert list(server.shards[0].waiting) == [1]
