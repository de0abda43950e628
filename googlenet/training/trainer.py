"""Training (paper, section 6): SGD with momentum on the sum of three losses, as a generator of records.

    loss = L(classifier) + aux_weight * (L(aux1) + L(aux2))        L: softmax cross-entropy, aux_weight 0.3

The paper's final weights are an average over steps (minigrad/averaging.py): where one is kept, it is validated beside
the raw weights, both are in the files, and `tested` says which of the two is what is tested.

`Trainer.records` yields a `Step` after every update, an `Epoch` after every pass and its validation, and a `Restart`
where it went back (guard.py); it never prints. All that a run needs to go on is in the file that `Trainer.save` writes
between two records: a run that is stopped, and resumed on as many threads, computes the same numbers, bit for bit, as
one that was not. With other threads sums have other parts and round otherwise.
"""
from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from functools import cached_property
from itertools import count
from os import PathLike

import numpy as np

from data.base import Dataset
from data.loader import Batch
from data.preprocess import Preprocessing
from googlenet.config import TrainingConfig
from googlenet.inference import Predictor
from googlenet.model import GoogLeNet
from googlenet.testing import Judged, Prediction, Score, judge, predictions, tally
from googlenet.training import checkpoints
from googlenet.training.guard import Guard
from googlenet.training.records import DivergedError, Epoch, Fault, Losses, Restart, Step, mean
from googlenet.training.replica import Replica
from googlenet.training.rules import average_of, optimiser_of
from googlenet.training.schedule import learning_rate
from googlenet.weights import LoadedModel, save_weights
from googlenet.weights.fitting import apply, transfer
from googlenet.weights.store import Attribute
from minigrad import init
from minigrad.averaging import averaged_state
from minigrad.errors import InputError


class Trainer:
    """A network in training: what it learns from, and the state that a checkpoint holds.

    Raises InputError where `config.freeze` names layers that the network does not have, or where a batch norm would
    get a single value a channel."""

    def __init__(self, model: GoogLeNet, config: TrainingConfig, training: Dataset, validation: Dataset | None,
                 preprocessing: Preprocessing):
        self.model, self.config, self.preprocessing = model, config, preprocessing
        self.training, self.validation = training, validation
        self.replica = Replica(model, config, training, preprocessing)
        self.frozen, self.flat, self.loader = self.replica.frozen, self.replica.flat, self.replica.loader
        self.optimiser = optimiser_of(self.flat, config)
        self.set_fresh([])
        self.average = average_of(self.flat, config, self.epoch_steps)
        self.step = self.epoch = self.batch = self.images = 0
        self.best = math.inf, math.inf  # top-1 error and loss of the best validation
        self.losses: list[Losses] = []  # of this epoch's steps
        self.bad: dict[str, str] = {}  # validation images that can't be used: name -> reason
        self.watch_validation: Callable[[int], None] = lambda done: None  # called with the images that are scored
        self.guard = Guard(self)
        self._require_variance()

    @property
    def epoch_steps(self) -> int:
        """Updates in an epoch, the last one of fewer batches."""
        return -(-self.loader.batches // self.config.accumulate)

    @cached_property
    def fingerprint(self) -> str:
        """What tells this training set from others."""
        return checkpoints.fingerprint(self.training)

    def initialise(self, trained: Mapping[str, np.ndarray] | None = None, source: str = "") -> list[str]:
        """Fill the weights as the configuration says; biases of classifiers begin at zero (BVLC).

        `trained` are arrays by canonical name, from `source`, to begin with; returns the layers that these leave to
        chance: heads that they do not have, classifiers of other classes. Raises InputError where others differ."""
        scheme = self.config.init if self.config.init in init.SCHEMES else "xavier"
        init.initialise(self.model, self.config.seed, weight=scheme, bias=self.config.bias_init,
                        zero_bias=("classifier",))
        self.set_fresh(transfer(self.model, trained, source) if trained else [])
        return self.fresh

    def set_fresh(self, layers: list[str]) -> None:
        """Say which layers trained weights have left to chance: they learn at a rate of their own."""
        self.fresh = layers
        own = {path: self.config.fresh_rate for path in self.flat.places if path.rpartition("/")[0] in set(layers)}
        self.optimiser.own_rates = own | dict.fromkeys(self.frozen, 0.0)

    def records(self) -> Generator[Step | Epoch | Restart | Fault]:
        """Train until the last epoch ends.

        Raises DivergedError where training has gone wrong and is not to go back, or has too often; the step that finds
        a loss that is not finite changes no weights."""
        self.guard.begin()
        while self.epoch < self.config.epochs:
            try:
                yield from self._steps()
                yield self._end_epoch()
            except DivergedError as error:
                self.stand_still()
                yield self.guard.go_back(error)

    def stand_still(self) -> None:
        """Let nothing change the weights: they are about to be set back."""

    def _require_variance(self) -> None:
        """Raise InputError where a batch norm that learns would get a single value a channel, which has no variance."""
        images, size = len(self.training), self.config.batch_size
        norms = {path.partition("/")[0] for path in self.flat.places.keys() - self.frozen
                 if path.endswith("/batch_norm/beta")}
        heads = self.model.heads.values()
        grids = {name: self.model.head(name).size if name in heads else self.model.stage_shapes[name][0]
                 for name in norms}
        if (images % size or size) == 1 and 1 in grids.values():
            raise InputError(f"batch-size {size}: of {images} images the last batch has a single one, which has no "
                             "variance for a batch norm on a grid of 1x1: give another --batch-size, or a larger "
                             "--image-size")

    def _steps(self) -> Iterator[Step | Restart | Fault]:
        """Yield the steps of this epoch that are left."""
        self.replica.to_training()
        with closing(self.replica.groups(self.epoch, min(self.batch, self.loader.batches))) as groups:
            began = time.perf_counter()
            for group in groups:
                yield self._update(group, began)
                self.guard.check()
                began = time.perf_counter()

    def _update(self, group: Iterator[Batch], began: float) -> Step:
        """Change the weights once, by the mean gradient of all images of a group of batches."""
        try:
            found = self.replica.gradient(group, self.step)
        except DivergedError as error:
            raise DivergedError(f"{error} at step {self.step + 1}") from None
        passed = self.epoch + found.batch // self.config.accumulate / self.epoch_steps
        lr = learning_rate(self.config, passed) * self.guard.rate_factor
        self._descend(lr, found.scale)
        self.step += 1
        self.batch = found.batch + 1
        self.images += found.images
        self.losses.append(found.losses)
        speed = found.images / (time.perf_counter() - began)
        return Step(self.step, self.epoch, self.images, lr, found.losses, speed, found.norm)

    def _descend(self, lr: float, scale: float) -> None:
        """Update the weights by `scale` times the gradient."""
        self.optimiser.step(lr, scale)
        if self.average:
            self.average.update()

    def _end_epoch(self) -> Epoch:
        self.guard.require_sound()
        warnings = self.guard.stuck_heads()
        result = None if self.validation is None else self.validate()
        averaged = None if self.validation is None or self.average is None else self.validate(averaged=True)
        for score, of in ((result, ""), (averaged, " of the averaged weights")):
            if score is not None and not math.isfinite(score.loss):
                raise DivergedError(f"the validation loss{of} is {score.loss} after epoch {self.epoch + 1}")
        tested = result if self.config.tested == "raw" else averaged or result
        best = tested is None or (tested.top1_error, tested.loss) < self.best
        if best and tested is not None:
            self.best = tested.top1_error, tested.loss
        record = Epoch(self.epoch, self.step, self.images, mean(self.losses), result, best, warnings, averaged)
        self.epoch, self.batch, self.losses = self.epoch + 1, max(0, self.batch - self.loader.batches), []
        self.guard.epoch_ended()
        return record

    def validate(self, averaged: bool = False) -> Score:
        """Score the validation images by their centre, with the weights as they are or their average."""
        assert self.validation is not None
        model = self.model
        if averaged:
            model = GoogLeNet(self.model.config)
            apply(model, self.averaged(), "the average")
        predictor = Predictor(LoadedModel(model, self.training.classes, self.preprocessing))
        found = predictions([predictor], self.validation, 1, threads=self.config.loader_threads,
                            max_bad=self.config.max_bad, bad=self.bad)
        return tally(map(self._judged, found, count(1)))

    def _judged(self, found: Prediction, number: int) -> Judged:
        self.watch_validation(number)
        return judge(found)

    def averaged(self) -> dict[str, np.ndarray]:
        """Return the averaged weights by canonical name, none where no average is kept."""
        return averaged_state(self.model, self.average) if self.average else {}

    def own_state(self) -> dict[str, Attribute]:
        """Return what else a checkpoint holds, of trainers of other kinds."""
        return {}

    def take_over(self, numbers: Mapping[str, Attribute]) -> None:
        """Take over what `own_state` returned."""

    def save(self, path: str | PathLike[str]) -> bool:
        """Write a checkpoint: weights, velocity, the place in the data, all of checkpoints.py.

        Where the latest step ruined the weights the file is kept as it was: returns False where training is going back,
        which the next record tells, and raises DivergedError where it is not. Raises InputError where the file can't be
        written."""
        if not self.guard.sound():
            return False
        checkpoints.save(self, path)
        return True

    def save_weights(self, path: str | PathLike[str]) -> bool:
        """Write the weights alone, half as large as a checkpoint. Returns and raises as `save` does."""
        if not self.guard.sound():
            return False
        save_weights(path, self.model, preprocessing=self.preprocessing, classes=self.training.classes,
                     averaged=self.averaged(), tested=self.config.tested,
                     attributes={"trained_images": self.images, "data": self.fingerprint})
        return True

    def restore(self, loaded: LoadedModel) -> None:
        """Take over a checkpoint's state; the model must be the loaded one, the configuration that of `configuration`.

        Raises InputError where the checkpoint was made with other training labels."""
        checkpoints.restore(self, loaded)
