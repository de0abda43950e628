"""A replica of the network with the images it learns from: what computes gradients, here or in a worker's process.

DistBelief's word (section 4.1). Alone it has all images, and gets its weights from the optimiser beside it. Of several
each has a part of every epoch's batches, the n-th of which it takes from the same shuffled order as the others: the
parts are disjoint, and one replica of one has what training without any has.
"""
from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import NamedTuple

import numpy as np

from data.base import Dataset
from data.crops import crops
from data.loader import Batch, Loader
from data.preprocess import Preprocessing
from data.sampling import Sampling, training_crop
from googlenet.config import TrainingConfig
from googlenet.model import GoogLeNet
from googlenet.training import freezing
from googlenet.training.groups import Groups
from googlenet.training.records import DivergedError, Losses, weighted
from minigrad import Tensor, nn, ops
from minigrad.flat import FlatParameters
from minigrad.optim import clip_norm


class Part(NamedTuple):
    """Which of the batches of every epoch: those `number`, `number + of`, `number + 2 of`, ..."""

    number: int = 0
    of: int = 1


class Gradient(NamedTuple):
    """What is known of a gradient that stands in `Replica.flat`, of a group of batches."""

    losses: Losses
    images: int
    scale: float  # that makes of the sum over batches the mean over images, clipped or not
    norm: float  # of that mean, before it was clipped; NaN where nothing is
    batch: int  # the number of its last batch in the replica's part of the epoch


class Replica:
    """A network, its weights in one vector, and its part of the training images.

    Raises InputError where `config.freeze` names layers that the network does not have."""

    def __init__(self, model: GoogLeNet, config: TrainingConfig, training: Dataset, preprocessing: Preprocessing,
                 part: Part = Part()):  # noqa: B008  (a tuple)
        self.model, self.config, self.preprocessing, self.part = model, config, preprocessing, part
        self.sampling = Sampling(aspect_law=config.aspect_law, distortion=config.distortion, lighting=config.lighting)
        self.frozen = freezing.frozen_parameters(model, config.freeze)
        freezing.freeze(model, self.frozen)
        self.flat = FlatParameters(model)
        self.sampling_seed = config.seed if config.sampling_seed < 0 else config.sampling_seed
        self.dropout_seed = seed_of(self.sampling_seed, part.number)
        self.loader = Loader(training, self._sample, config.batch_size, seed=self.sampling_seed, shuffle=True,
                             threads=config.loader_threads, max_bad=config.max_bad, part=part)
        self.latest: Batch | None = None

    def to_training(self) -> None:
        """Switch the network to training, but for batch norms that are frozen."""
        freezing.train(self.model, self.frozen)

    def groups(self, epoch: int, batch: int) -> Generator[Iterator[Batch]]:
        """Yield the batches of its part of an epoch, from number `batch` on, in groups of an update each."""
        with closing(self.loader.epoch(epoch, batch)) as batches:
            yield from Groups(batches, self.config.accumulate, self.loader.batches)

    def gradient(self, group: Iterator[Batch], step: int) -> Gradient:
        """Compute the gradient of a group of batches into `flat`; `step` counts this replica's groups from 0 on.

        Raises DivergedError where a loss is not finite."""
        self.flat.zero_gradient()
        images: list[int] = []
        losses: list[Losses] = []
        for batch in group:
            nn.seed_dropout(self.model, self.dropout_seed, step * self.config.accumulate + len(images))
            images.append(len(batch.labels))
            losses.append(self._backward(batch, images[-1] / images[0]))
        self.latest = batch
        scale, norm = images[0] / sum(images), math.nan
        if self.config.clip_norm:
            norm = scale * clip_norm(self.flat.gradient, self.config.clip_norm / scale)
            if not math.isfinite(norm):
                raise DivergedError(f"the norm of the gradient is {norm}")
        return Gradient(weighted(losses, images), sum(images), scale, norm, batch.number)

    def _backward(self, batch: Batch, share: float) -> Losses:
        """Add `share` times the gradient of a batch's loss to that of the batches before it."""
        outputs = self.model(Tensor(batch.images.astype(self.model.config.dtype, copy=False)))
        main = ops.cross_entropy(outputs.logits, batch.labels)
        heads = [None if x is None else ops.cross_entropy(x, batch.labels) for x in (outputs.aux1, outputs.aux2)]
        total = sum((self.config.aux_weight * loss for loss in heads if loss is not None), start=main)
        losses = Losses(*(math.nan if loss is None else loss.item() for loss in (total, main, *heads)))
        if not math.isfinite(losses.total):
            raise DivergedError(f"the loss is {losses.total}")
        total.backward(np.asarray(share, total.dtype))
        return losses

    def _sample(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the network's input (S, S, 3) of a training image; runs in a loader thread."""
        if self.config.augment == "paper":
            view: np.ndarray = self.sampling.sample(image, self.preprocessing.size, rng)
        elif self.config.augment == "crop":
            view = training_crop(image, self.preprocessing, rng)
        else:
            view = crops(image, 1, self.preprocessing)[0]
        return self.preprocessing.normalise(view)


def seed_of(seed: int, number: int) -> int:
    """Return the seed of replica `number`, whose generators are independent of the others'; the first has `seed`."""
    if not number:
        return seed
    return int(np.random.SeedSequence(seed, spawn_key=(number,)).generate_state(1)[0])
