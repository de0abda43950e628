"""Training by worker processes: one of them computes what none does, several cover every image once an epoch."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest

from googlenet.distbelief.messages import Place, Pushed, Update
from googlenet.distbelief.trainer import AsynchronousTrainer
from googlenet.distbelief.worker import Worker
from googlenet.training import Epoch, Step, Trainer, configuration
from googlenet.training.records import Losses
from googlenet.weights import load_model
from minigrad import InputError
from tests.googlenet.distbelief.cases import assert_same, config_of, nothing_left, state_of, trained, trainer_of
from tests.googlenet.training.cases import comparable
from tests.runs import computing_alone, write_set

one_thread = pytest.fixture(computing_alone, scope="module", autouse=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("data"), train=9)


SERIAL = {
    "plain": ({}, {}),
    "statistics": ({}, {"variant": "torchvision"}),
    "groups, paper's crops": ({"accumulate": 2, "augment": "paper", "schedule": "poly", "loader_threads": 2}, {}),
    "mean, rate that falls": ({"averaging": "tail", "averaging_start": 0.4, "shards": 1, "schedule": "step",
                               "decay_epochs": 0.3}, {}),
    "moving average, clipped, looking ahead": ({"averaging": "ema", "clip_norm": 0.1, "shards": 9, "look_ahead": True},
                                               {}),
    "adagrad, frozen": ({"optimiser": "adagrad", "freeze": "conv1..inception_3a"}, {}),
    "float64, no heads": ({"shards": 2}, {"dtype": "float64", "heads": "none"}),
}


@pytest.mark.parametrize("name", SERIAL)
def test_one_worker_is_serial_training_bit_for_bit(name, data):
    settings, model = SERIAL[name]
    config = config_of(data, **settings)
    with nothing_left():
        serial, alone = (trainer_of(config, kind, **model) for kind in (Trainer, AsynchronousTrainer))
        told = [[comparable(each._replace(crew=None) if isinstance(each, Step) else each) for each in trained(trainer)]
                for trainer in (serial, alone)]
    assert told[0] == told[1]
    assert len(told[0]) > 6
    assert_same(state_of(serial), state_of(alone))


def test_one_worker_goes_back_as_serial_training_does(data):
    """A rate at which the loss overflows, halved until it does not."""
    config = config_of(data, lr=30.0, on_divergence="halve", init="xavier", epochs=1)
    serial, alone = (trainer_of(config, kind) for kind in (Trainer, AsynchronousTrainer))
    told = [[comparable(each._replace(crew=None) if isinstance(each, Step) else each)
             for each in _until_given_up(trainer)] for trainer in (serial, alone)]
    assert any("Restart" in each for each in told[0])
    assert [each for each in told[0] if "Restart" not in each] == [each for each in told[1] if "Restart" not in each]


def _until_given_up(trainer):
    found = []
    with contextlib.suppress(InputError):
        found.extend(trainer.records())
    return found


@pytest.mark.parametrize("workers", [2, 3])
def test_several_cover_each_batch_of_an_epoch_once(workers, data):
    config = config_of(data, workers=workers, epochs=3)
    with nothing_left():
        trainer = trainer_of(config)
        found = trained(trainer)
    steps, epochs = ([each for each in found if isinstance(each, kind)] for kind in (Step, Epoch))
    batches = trainer.loader.batches
    assert [each.step for each in steps] == list(range(1, 3 * batches + 1))
    assert [each.epoch for each in epochs] == [0, 1, 2]
    assert [each.step for each in epochs] == [batches, 2 * batches, 3 * batches]
    assert len(trainer.places) == workers
    assert max(each.crew.most for each in steps) >= 1
    assert sum(trainer.histogram.values()) == config.shards * 3 * batches
    assert all(np.isfinite(array).all() for array in state_of(trainer).values())


def test_statistics_of_several_learn_as_fast_as_those_of_one(data):
    """Each worker's change is added to what the others have made of them."""
    means = []
    for workers in (1, 4):
        config = config_of(data, workers=workers, epochs=12, lr=1e-9, augment="none", warm_start=0, weight_decay=0.0)
        trainer = trainer_of(config, variant="slim")
        trained(trainer)
        means.append(trainer.model.state()["conv1/batch_norm/mean"].copy())
    assert np.abs(means[0]).max() > 0
    np.testing.assert_allclose(means[1], means[0], rtol=0, atol=0.1 * np.abs(means[0]).max())


@pytest.mark.parametrize("settings", [{"fetch_every": 8, "push_every": 2}, {"push_every": 3}], ids=str)
def test_statistics_of_rare_fetches_are_counted_once(settings, data):
    """What a worker has pushed is in the server's, from which its next push goes on."""
    config = config_of(data, epochs=12, lr=1e-9, augment="none", weight_decay=0.0, **settings)
    found = []
    for each in (config, config_of(data, epochs=12, lr=1e-9, augment="none", weight_decay=0.0)):
        trainer = trainer_of(each, variant="torchvision")
        trained(trainer)
        found.append(trainer.model.state()["conv1/batch_norm/variance"].copy())
    np.testing.assert_allclose(found[0], found[1], rtol=0.1)


def test_a_worker_fetches_when_it_has_loaded_all_that_a_gradient_needs(data):
    """Or its first push would be as stale as that takes long."""
    replica, order = trainer_of(config_of(data), Trainer).replica, []
    compute = replica.gradient
    replica.gradient = lambda group, step: (order.append("gradient"), compute(group, step))[1]

    class Line:
        versions, gradient = (0,), replica.flat.gradient

        def join(self):
            order.append("join")
            return Place(), 0.1

        def push(self, found):
            order.append("push")

        def fetch(self):
            order.append("fetch")
            return 0.1

    next(Worker(replica, Line(), {}).steps())
    assert order == ["gradient", "join", "gradient", "push", "fetch"]


def test_a_late_push_does_not_take_a_worker_back(data):
    """Of synchronous workers: the gradient of step 5 came too late for its round, that of step 6 was in the next."""
    trainer = trainer_of(config_of(data, workers=2, sync=True, backup_workers=1))
    pushes = [Pushed(0, 0, Place(step, 0, step), (0,), 1, 4, 1.0, Losses(1.0, 1.0, 1.0, 1.0), 0.0, 0.1, {})
              for step in (5, 6)]
    trainer._take(Update((pushes[1],), (0,), 0.1, 1, 1, {0: 6}, 0.0, (pushes[0],)))
    assert trainer.places == {0: Place(6, 0, 6)}


def test_settings_that_contradict_each_other_are_refused(data):
    for settings in ({"overlap": True, "fetch_every": 2}, {"overlap": True, "push_every": 2},
                     {"sync": True, "warm_start": 3}, {"sync": True, "look_ahead": True}, {"backup_workers": 1},
                     {"optimiser": "adagrad", "look_ahead": True}, {"cluster": "auto", "sync": True}):
        with pytest.raises(InputError, match=r"leave|give fewer"):
            trainer_of(config_of(data, workers=2, **settings))


@pytest.mark.parametrize("settings", [{"overlap": True}, {"fetch_every": 3, "push_every": 2}, {"warm_start": 4},
                                      {"sync": True}, {"sync": True, "workers": 3, "backup_workers": 1},
                                      {"look_ahead": True, "shards": 3},
                                      {"staleness_lr": True, "optimiser": "adagrad", "averaging": "ema"}], ids=str)
def test_ways_to_work_together(settings, data):
    config = config_of(data, **{"workers": 2, **settings})
    with nothing_left():
        trainer = trainer_of(config)
        before = state_of(trainer)
        found = trained(trainer)
    epochs = [each for each in found if isinstance(each, Epoch)]
    assert len(epochs) == 2
    steps = [each for each in found if isinstance(each, Step)]
    if "warm_start" in settings:
        assert [each.crew.speeds[1] for each in steps[:4]] == [0.0] * 4
    if "sync" in settings:
        assert {each.crew.most for each in steps} == {0}
        assert len(steps) < 2 * trainer.loader.batches
    after = state_of(trainer)
    assert not np.array_equal(before["conv1/weight"], after["conv1/weight"])


def test_synchronous_training_does_not_depend_on_who_is_first(data):
    config = config_of(data, workers=3, sync=True)
    states = []
    for _ in range(2):
        trainer = trainer_of(config)
        trained(trainer)
        states.append(state_of(trainer))
    assert_same(*states)


@pytest.mark.parametrize(("first", "second"), [(1, 1), (2, 2), (3, 2), (1, 2)])
def test_what_is_stopped_goes_on(first, second, data, tmp_path):
    """By as many workers, by more, by fewer; by one it is exact."""
    config = config_of(data, workers=first, epochs=3, averaging="ema")
    path = tmp_path / "last.h5"
    trainer = trainer_of(config)
    records = trainer.records()
    for record in records:
        if isinstance(record, Step) and record.step == 9:
            assert trainer.save(path)
            break
    records.close()
    loaded = load_model(path, raw=True)
    config = replace(configuration(loaded, path), workers=second)
    again = trainer_of(config)
    for name, own in again.model.state().items():
        own[...] = loaded.model.state()[name]
    again.restore(loaded)
    assert (again.step, again.epoch, again.batch) == (trainer.step, trainer.epoch, trainer.batch)
    found = trained(again)
    assert [each.epoch for each in found if isinstance(each, Epoch)][-1] == 2
    assert again.step == 3 * again.loader.batches
    if first == second == 1:
        whole = trainer_of(config)
        trained(whole)
        assert_same(state_of(whole), state_of(again))


def test_more_workers_than_batches_are_refused(data):
    with pytest.raises(InputError, match="--workers 8: an epoch has batches of 4 images for 7 only: give fewer"):
        trainer_of(config_of(data, workers=8))
