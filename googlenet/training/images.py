"""The images that a run learns from."""
from __future__ import annotations

from data.base import Dataset
from data.datasets import open_dataset, split_validation
from googlenet.config import TrainingConfig


def open_data(config: TrainingConfig) -> tuple[Dataset, Dataset | None]:
    """Open the training images and those of them held out for validation, None without any."""
    training = open_dataset(config.data, "train")
    if config.validation_fraction == 0:
        return training, None
    return split_validation(training, config.validation_fraction, config.seed)
