"""Shared by the tests of training: a few pictures, a tiny network, records that can be compared, runs in pieces."""

import itertools

import numpy as np

from data.base import ArrayDataset
from data.datasets import split_validation
from data.errors import DataError
from data.preprocess import Preprocessing
from googlenet.config import ModelConfig, TrainingConfig
from googlenet.model import GoogLeNet, preprocessing_of
from googlenet.training import Step, Trainer, configuration
from googlenet.weights import load_model
from tests.runs import CLASSES, pictures


class Pictures(ArrayDataset):
    """Embedded pictures in memory; those at `bad` can't be read."""

    def __init__(self, count: int, bad=()):
        images, labels = zip(*pictures("train", count), strict=True)
        super().__init__(np.stack(images), labels, [f"{i}.png" for i in range(len(labels))], CLASSES, "pictures")
        self.bad = bad

    def image(self, index):
        if index in self.bad:
            raise DataError(f"{index}.png: cannot be decoded")
        return super().image(index)


def make(config: TrainingConfig, dataset=None, validation=None, std=1.0, **model) -> Trainer:
    """A trainer of a tiny network, its weights drawn; images are divided by `std`."""
    config_of_model = ModelConfig(**{"classes": 4, "image_size": 32, "width": 0.05, **model})
    images = Preprocessing(size=config_of_model.image_size, mean=(80.0,) * 3, std=(std,) * 3,
                           order=preprocessing_of(config_of_model).order)
    trainer = Trainer(GoogLeNet(config_of_model), config, dataset or Pictures(4), validation, images)
    trainer.initialise()
    return trainer


def comparable(record):
    """A record without its speed; NaN equals NaN in text."""
    return str(record._replace(images_per_second=0)) if isinstance(record, Step) else str(record)


def split(config: TrainingConfig, bad=()):
    """36 pictures, less those held out for validation."""
    return split_validation(Pictures(9, bad=bad), config.validation_fraction, config.seed)


def resumed(path, bad=()) -> Trainer:
    """A trainer made anew from a checkpoint alone."""
    loaded = load_model(path, raw=True)
    config = configuration(loaded, path)
    trainer = Trainer(loaded.model, config, *split(config, bad), loaded.preprocessing)
    trainer.restore(loaded)
    return trainer


def run_in_pieces(trainer: Trainer, path, stops, bad=()) -> tuple[Trainer, list[str]]:
    """All records of a run that is stopped after so many, each time saved and made anew from the file."""
    found: list[str] = []
    for stop in [*stops, None]:
        running = trainer.records()
        found += [comparable(record) for record in itertools.islice(running, stop and stop - len(found))]
        running.close()
        if stop is not None:
            assert len(found) == stop
            assert trainer.save(path)
            trainer = resumed(path, bad)
    return trainer, found


def assert_same_state(one: Trainer, other: Trainer):
    """Bit for bit: weights, running statistics, velocity, average, and the place in the data."""
    for path, array in one.model.state().items():
        np.testing.assert_array_equal(other.model.state()[path], array, err_msg=path)
    np.testing.assert_array_equal(one.optimiser.memory, other.optimiser.memory)
    assert (one.average is None) == (other.average is None)
    if one.average:
        np.testing.assert_array_equal(one.average.kept, other.average.kept)
        assert one.average.steps == other.average.steps
    for name in ("step", "epoch", "batch", "images", "best", "losses"):
        assert getattr(one, name) == getattr(other, name), name
    assert one.loader.bad == other.loader.bad
    assert one.guard.halvings == other.guard.halvings
