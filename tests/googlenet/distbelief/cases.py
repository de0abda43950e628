"""Shared by the tests of workers: trainers by real processes, on pictures in a folder."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from data.preprocess import Preprocessing
from googlenet.config import ModelConfig, TrainingConfig
from googlenet.distbelief.trainer import AsynchronousTrainer
from googlenet.model import GoogLeNet, preprocessing_of
from googlenet.training import Trainer
from googlenet.training.images import open_data
from tests.runs import CLASSES


def config_of(data: Path, **settings) -> TrainingConfig:
    return TrainingConfig(**{"data": str(data), "epochs": 2, "batch_size": 4, "lr": 0.0005, "init": "he", "threads": 1,
                             "validation_fraction": 0.25, "hang_timeout": 30.0, **settings})


def trainer_of(config: TrainingConfig, kind: type[Trainer] = AsynchronousTrainer, **model) -> Trainer:
    network = ModelConfig(**{"classes": len(CLASSES), "image_size": 32, "width": 0.05, **model})
    images = Preprocessing(size=32, mean=(80.0,) * 3, order=preprocessing_of(network).order)
    trainer = kind(GoogLeNet(network), config, *open_data(config), images)
    trainer.initialise()
    return trainer


def state_of(trainer: Trainer) -> dict[str, np.ndarray]:
    """All that its steps changed."""
    state = {path: array.copy() for path, array in trainer.model.state().items()}
    state["memory"] = trainer.optimiser.memory.copy()
    if trainer.average:
        state["kept"] = trainer.average.kept.copy()
    return state


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


def below(pid: int) -> list[int]:
    """The processes that a process has started, in order."""
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def descendants(pid: int) -> list[int]:
    """These, and those below them, but for Python's own tracker of resources."""
    found = [each for child in below(pid) for each in (child, *descendants(child))]
    return [each for each in found if "resource_tracker" not in words_of(each)]


def words_of(pid: int) -> str:
    """A process's command line; nothing where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def alive(pid: int) -> bool:
    return bool(words_of(pid))


@contextmanager
def nothing_left() -> Iterator[None]:
    """No process and no shared memory is left behind."""
    memory = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    yield
    assert not descendants(os.getpid()), [words_of(each) for each in descendants(os.getpid())]
    if os.path.isdir("/dev/shm"):
        assert set(os.listdir("/dev/shm")) <= memory


def trained(trainer: Trainer) -> list:
    """All records of a run."""
    with closing(trainer.records()) as records:
        return list(records)
