"""What the processes of a run are given when they are started: settings, and the memory that they share."""
from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np

import minigrad
from data.preprocess import Preprocessing
from googlenet.config import ModelConfig, TrainingConfig
from googlenet.distbelief.messages import Place
from googlenet.distbelief.server import Counts
from googlenet.distbelief.shared import SharedArray
from minigrad.flat import Places

SLOTS = 2  # buffers of each kind that a worker has


class Slots:
    """The workers' buffers, each (P + statistics,), in one piece of shared memory; their signs of life in another."""

    def __init__(self, workers: int, size: int, dtype: np.dtype):
        self.size = size
        self.values = SharedArray(workers * 2 * SLOTS * size, dtype)
        self.lives = SharedArray(workers * 2, np.int64)

    def weights(self, worker: int, buffer: int) -> np.ndarray:
        """Return a buffer that the server fills."""
        return self._buffer(worker, buffer)

    def gradient(self, worker: int, buffer: int) -> np.ndarray:
        """Return a buffer that the worker fills."""
        return self._buffer(worker, SLOTS + buffer)

    def life(self, worker: int) -> np.ndarray:
        """Return the worker's signs of life, and the id of its process (2,)."""
        return self.lives.array[2 * worker:2 * worker + 2]

    def _buffer(self, worker: int, number: int) -> np.ndarray:
        return self.values.array.reshape(-1, 2 * SLOTS, self.size)[worker, number]


@dataclass(kw_only=True)
class Plan:
    """The settings, and where training is."""

    config: TrainingConfig
    model: ModelConfig
    preprocessing: Preprocessing
    places_of: Places  # of the parameters in the vector
    epoch_batches: int
    average: dict[str, int | float] = field(default_factory=dict)  # what it was made with
    counts: list[Counts] = field(default_factory=list)
    places: dict[int, Place] = field(default_factory=dict)
    own_rates: dict[str, float] = field(default_factory=dict)
    factor: float = 1.0
    restarts: int = 0
    push_log: str = ""  # a file; none where it is empty


@dataclass(kw_only=True)
class Job(Plan):
    """And the memory."""

    weights: SharedArray  # (P + statistics,): the parameters, then the running statistics of batch norms
    memory: SharedArray  # (P,)
    kept: SharedArray | None  # (P,) float64
    begun: SharedArray  # (1,): updates that were begun since the server was started
    life: SharedArray  # (2,): the server's signs of life, and the id of its process
    slots: Slots

    @property
    def parameters(self) -> int:
        """P."""
        return self.memory.size

    def plan(self) -> Plan:
        """Return the settings without the memory."""
        return Plan(**{item.name: getattr(self, item.name) for item in fields(Plan)})


def share(config: TrainingConfig) -> int:
    """Return how many threads each worker computes with."""
    return config.threads or max(1, minigrad.available_threads() // config.workers)
