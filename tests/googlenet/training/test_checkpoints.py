"""Stopping without a trace: a run that is saved and resumed anywhere gives the same numbers, bit for bit."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

import minigrad
from data.datasets import split_validation
from googlenet.config import TrainingConfig
from googlenet.training import Trainer, configuration
from googlenet.weights import load_model
from minigrad.errors import InputError
from tests.googlenet.training.cases import (
    Pictures,
    assert_same_state,
    comparable,
    make,
    resumed,
    run_in_pieces,
    split,
)
from tests.runs import CLASSES, computing_alone, network

one_thread = pytest.fixture(computing_alone, scope="module", autouse=True)

LONG = TrainingConfig(epochs=3, batch_size=5, lr=0.002, schedule="poly", init="he", loader_threads=3, seed=5)


BAD = (4,)  # the damaged picture of a long run


def long_run() -> Trainer:
    """36 images less those held out, one of them damaged, in seven steps an epoch; dropout at work."""
    return make(LONG, *split(LONG, BAD))


@pytest.fixture(scope="module")
def uninterrupted():
    return run_in_pieces(long_run(), None, [])


@pytest.mark.parametrize("threads", [1, 2])
def test_same_seed_and_threads_same_run(threads, tmp_path):
    """Bit for bit, and in two pieces too."""
    if threads > minigrad.available_threads():
        pytest.skip("one core")
    minigrad.set_threads(threads)
    whole, records = run_in_pieces(long_run(), tmp_path / "last.h5", [])
    again, same_records = run_in_pieces(long_run(), tmp_path / "last.h5", [4], BAD)
    minigrad.set_threads(1)
    assert same_records == records
    assert_same_state(again, whole)


def test_another_seed_is_another_order_of_other_crops_and_weights():
    trainers = [make(TrainingConfig(batch_size=16, seed=seed)) for seed in (5, 6)]
    one, other = (next(trainer.loader.epoch(0)) for trainer in trainers)
    assert one.indices.tolist() != other.indices.tolist()
    assert not np.array_equal(one.images[one.indices.argsort()], other.images[other.indices.argsort()])
    assert not np.array_equal(trainers[0].flat.data, trainers[1].flat.data)


@pytest.mark.parametrize("stops", [(3,), (7,), (8,), (9,), (2, 8, 12, 23)], ids=str)
def test_resumed_is_as_never_stopped(uninterrupted, tmp_path, stops):
    """Of the eight records of an epoch the last is its end: stopped within it, before that, after it, all over."""
    trainer, found = run_in_pieces(long_run(), tmp_path / "last.h5", stops, BAD)
    assert found == uninterrupted[1]
    assert_same_state(trainer, uninterrupted[0])


# What a run is made with, the network, and what must have happened in it.
KINDS = {
    "accumulate": ({"accumulate": 2}, {}),
    "clip": ({"clip_norm": 0.5}, {}),
    "freeze": ({"freeze": "conv1..inception_4b,aux1"}, {}),
    "frozen statistics": ({"freeze": "conv1..inception_4b"}, {"variant": "torchvision"}),
    "statistics": ({}, {"variant": "torchvision"}),
    "tail": ({"averaging": "tail"}, {}),
    "ema": ({"averaging": "ema", "tested": "raw"}, {}),
    "the paper's samples": ({"augment": "paper"}, {}),
    "warm-up": ({"warmup_epochs": 1.5}, {}),
    "steps": ({"schedule": "step", "decay": 0.5, "decay_epochs": 0.7}, {}),
    "sampling": ({"sampling_seed": 8}, {}),
    "halve": ({"on_divergence": "halve"}, {}),
    "float64": ({"bias_rate": 1.0, "bias_decay": 1.0}, {"dtype": "float64", "variant": "slim"}),
    "all": ({"accumulate": 3, "clip_norm": 0.5, "freeze": "conv1", "averaging": "tail", "augment": "paper",
             "warmup_epochs": 0.5, "on_divergence": "halve"}, {"variant": "torchvision"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_run_goes_on_as_if_it_had_not_stopped(kind, tmp_path):
    """Stopped within the first epoch, at its end, and within the second one."""
    options, model = KINDS[kind]
    config = TrainingConfig(**{"epochs": 2, "batch_size": 5, "lr": 0.002, "schedule": "poly", "init": "he", "seed": 5,
                               **options})
    whole, expected = run_in_pieces(make(config, *split(config), **model), None, [])
    epoch = whole.epoch_steps + 1  # records
    again, found = run_in_pieces(make(config, *split(config), **model), tmp_path / "last.h5",
                                 [2, epoch - 1, epoch, epoch + 2])
    assert found == expected
    assert_same_state(again, whole)
    assert np.ptp(whole.optimiser.memory) > 0


def test_layers_left_to_chance_keep_their_rate(tmp_path):
    config = TrainingConfig(epochs=1, batch_size=5, lr=0.002, fresh_rate=10.0)
    trained = network(classes=3).state()

    def begun():
        trainer = make(config, *split(config))
        assert trainer.initialise(trained, "trained") == ["aux1/classifier", "aux2/classifier", "classifier"]
        return trainer

    whole, expected = run_in_pieces(begun(), None, [])
    again, found = run_in_pieces(begun(), tmp_path / "last.h5", [3])
    assert again.optimiser.own_rates["classifier/weight"] == 10
    assert found == expected
    assert_same_state(again, whole)


@pytest.mark.parametrize("averaging", ["tail", "ema"])
@pytest.mark.parametrize("stop", [2, 5, 7])
def test_averages_go_on_too_and_are_what_is_tested(tmp_path, averaging, stop):
    """Of six steps in two epochs, four records each; the mean of the tail begins after three."""
    config = TrainingConfig(epochs=2, batch_size=4, seed=3, validation_fraction=0.25, averaging=averaging)
    training, validation = split_validation(Pictures(4), 0.25, 3)

    def run(trainer, count=None):
        return [comparable(record) for record in itertools.islice(trainer.records(), count)]

    whole = make(config, training, validation)
    expected = run(whole)
    first = make(config, training, validation)
    found = run(first, stop)
    first.save(tmp_path / "last.h5")
    loaded = load_model(tmp_path / "last.h5", raw=True)
    again = Trainer(loaded.model, configuration(loaded, tmp_path), training, validation, loaded.preprocessing)
    again.restore(loaded)
    assert found + run(again) == expected
    assert again.save_weights(tmp_path / "best.h5")
    raw, tested = load_model(tmp_path / "best.h5", raw=True).model, load_model(tmp_path / "best.h5").model
    for path, array in whole.averaged().items():
        np.testing.assert_array_equal(tested.state()[path], array)
        np.testing.assert_array_equal(raw.state()[path], whole.model.state()[path])
    assert (tested.conv1.weight.data != raw.conv1.weight.data).any()


def test_a_longer_run_keeps_the_beginning_of_its_mean(tmp_path):
    config = TrainingConfig(epochs=2, batch_size=4, averaging="tail", validation_fraction=0)
    trainer = make(config, Pictures(4))
    list(trainer.records())
    trainer.save(tmp_path / "last.h5")
    loaded = load_model(tmp_path / "last.h5", raw=True)
    longer = Trainer(loaded.model, replace(config, epochs=6), Pictures(4), None, loaded.preprocessing)
    longer.restore(loaded)
    assert longer.average.settings() == trainer.average.settings()
    np.testing.assert_array_equal(longer.average.average, trainer.average.average)


def test_saving_changes_nothing(uninterrupted, tmp_path):
    trainer, found = long_run(), []
    for record in trainer.records():
        found.append(comparable(record))
        trainer.save(tmp_path / "last.h5")
        trainer.save_weights(tmp_path / "best.h5")
    assert found == uninterrupted[1]


def test_damaged_images_are_remembered(tmp_path):
    trainer = long_run()
    list(itertools.islice(trainer.records(), 8))
    assert list(trainer.loader.bad) == ["4.png"]
    trainer.save(tmp_path / "last.h5")
    assert resumed(tmp_path / "last.h5", BAD).loader.bad == trainer.loader.bad


def test_a_checkpoint_of_other_images_is_refused(tmp_path):
    trainer = long_run()
    trainer.save(tmp_path / "last.h5")
    loaded = load_model(tmp_path / "last.h5")
    other = Trainer(loaded.model, LONG, Pictures(4), None, loaded.preprocessing)
    with pytest.raises(InputError, match=r"trained on 32 images.*holds 16 images.*resume with the data"):
        other.restore(loaded)


def test_relabelled_images_are_other_images(tmp_path):
    trainer = make(LONG)
    trainer.save(tmp_path / "last.h5")
    loaded = load_model(tmp_path / "last.h5")
    relabelled = Pictures(4)
    relabelled.labels = relabelled.labels[::-1].copy()
    with pytest.raises(InputError, match="resume with the data"):
        Trainer(loaded.model, LONG, relabelled, None, loaded.preprocessing).restore(loaded)


@pytest.mark.parametrize("other", [{"names": [f"{i}.jpg" for i in range(16)]}, {"classes": ("a", "b", "c", "d")}],
                         ids=lambda other: next(iter(other)))
def test_images_and_classes_of_other_names_are_others(tmp_path, other):
    trainer = make(LONG)
    trainer.save(tmp_path / "last.h5")
    loaded = load_model(tmp_path / "last.h5")
    dataset = Pictures(4)
    vars(dataset).update(other)
    with pytest.raises(InputError, match="resume with the data"):
        Trainer(loaded.model, LONG, dataset, None, loaded.preprocessing).restore(loaded)


def test_weights_alone_are_half_and_no_checkpoint(tmp_path):
    trainer = make(LONG)
    trainer.save(tmp_path / "last.h5")
    trainer.save_weights(tmp_path / "best.h5")
    assert (tmp_path / "best.h5").stat().st_size < 0.6 * (tmp_path / "last.h5").stat().st_size
    loaded = load_model(tmp_path / "best.h5")
    assert loaded.preprocessing == trainer.preprocessing
    assert loaded.classes == CLASSES
    for path, array in loaded.model.parameters().items():
        np.testing.assert_array_equal(array, trainer.model.parameters()[path])
    with pytest.raises(InputError, match=r"best\.h5 holds weights but no state of training.*last\.h5"):
        configuration(loaded, tmp_path / "best.h5")


def test_a_checkpoint_knows_its_configuration(tmp_path):
    trainer = make(LONG, heads="aux2")
    trainer.save(tmp_path / "last.h5")
    loaded = load_model(tmp_path / "last.h5")
    assert (loaded.model.config, configuration(loaded, "last.h5")) == (trainer.model.config, LONG)


@pytest.mark.parametrize(("tested", "same_as"), [("averaged", "averaged"), ("raw", "weights")])
def test_a_file_says_which_of_its_weights_are_for_testing(tmp_path, tested, same_as):
    trainer = make(TrainingConfig(epochs=1, batch_size=4, averaging="ema", tested=tested, validation_fraction=0))
    list(trainer.records())
    arrays = {"averaged": trainer.averaged(), "weights": trainer.model.state()}
    assert (arrays["averaged"]["conv1/weight"] != arrays["weights"]["conv1/weight"]).any()
    for save, name in ((trainer.save, "last.h5"), (trainer.save_weights, "best.h5")):
        save(tmp_path / name)
        for path, array in load_model(tmp_path / name).model.state().items():
            np.testing.assert_array_equal(array, arrays[same_as][path])


@pytest.mark.parametrize("averaging", ["none", "ema"])
def test_the_state_to_go_back_to_is_kept_beside_another(averaging, tmp_path):
    """Of two steps in an epoch: the beginning, nothing at an epoch's end, which is that state itself, and this end."""
    config = TrainingConfig(epochs=2, batch_size=8, lr=0.002, init="he", on_divergence="halve", averaging=averaging)
    trainer = make(config)
    begun = trainer.model.state()["conv1/weight"].copy()
    records = trainer.records()

    def kept(count):
        assert len(list(itertools.islice(records, count))) == count
        trainer.save(tmp_path / "last.h5")
        loaded = load_model(tmp_path / "last.h5", raw=True)
        return loaded.arrays, loaded.attributes

    arrays, numbers = kept(1)
    np.testing.assert_array_equal(arrays["good/weights/conv1/weight"], begun)
    assert (numbers["good.step"], numbers["good.best_error"]) == (0, np.inf)
    assert not arrays["good/velocity/conv1/weight"].any()
    arrays, numbers = kept(2)
    assert not [name for name in (*arrays, *numbers) if name.startswith("good")]
    ended, velocity = trainer.model.state()["conv1/weight"].copy(), arrays["velocity/conv1/weight"]
    arrays, numbers = kept(1)
    np.testing.assert_array_equal(arrays["good/weights/conv1/weight"], ended)
    np.testing.assert_array_equal(arrays["good/velocity/conv1/weight"], velocity)
    assert (numbers["good.step"], numbers["good.epoch"], numbers["good.batch"]) == (2, 1, 0)
    assert ("good/average/conv1/weight" in arrays) == ("good.average.steps" in numbers) == (averaging == "ema")
