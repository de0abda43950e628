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
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import cached_property
from itertools import count
from os import PathLike

import numpy as np

from data.base import Dataset
from data.crops import crops
from data.loader import Batch, Loader
from data.preprocess import Preprocessing
from data.sampling import Sampling, training_crop
from googlenet.config import TrainingConfig
from googlenet.inference import Predictor
from googlenet.model import GoogLeNet
from googlenet.testing import Judged, Prediction, Score, judge, predictions, tally
from googlenet.training import checkpoints, freezing
from googlenet.training.groups import Groups
from googlenet.training.guard import Guard
from googlenet.training.records import DivergedError, Epoch, Losses, Restart, Step, mean, weighted
from googlenet.training.schedule import learning_rate
from googlenet.weights import LoadedModel, save_weights
from googlenet.weights.fitting import apply, transfer
from minigrad import Tensor, init, nn, ops
from minigrad.averaging import Average, TailMean, WarmedEma, averaged_state
from minigrad.errors import InputError
from minigrad.flat import FlatParameters
from minigrad.optim import SGD, clip_norm


class Trainer:
    """A network in training: what it learns from, and the state that a checkpoint holds.

    Raises InputError where `config.freeze` names layers that the network does not have, or where a batch norm would
    get a single value a channel."""

    def __init__(self, model: GoogLeNet, config: TrainingConfig, training: Dataset, validation: Dataset | None,
                 preprocessing: Preprocessing):
        self.model, self.config, self.preprocessing = model, config, preprocessing
        self.training, self.validation = training, validation
        self.sampling = Sampling(aspect_law=config.aspect_law, distortion=config.distortion, lighting=config.lighting)
        self.frozen = freezing.frozen_parameters(model, config.freeze)
        freezing.freeze(model, self.frozen)
        self.flat = FlatParameters(model)
        self.sgd = SGD(self.flat, momentum=config.momentum, weight_decay=config.weight_decay,
                       bias_rate=config.bias_rate, bias_decay=config.bias_decay)
        self.set_fresh([])
        self.sampling_seed = config.seed if config.sampling_seed < 0 else config.sampling_seed
        self.loader = Loader(training, self._sample, config.batch_size, seed=self.sampling_seed, shuffle=True,
                             threads=config.loader_threads, max_bad=config.max_bad)
        self.average: Average | None = None
        if config.averaging == "tail":
            self.average = TailMean(self.flat, start=int(config.averaging_start * config.epochs * self.epoch_steps))
        elif config.averaging == "ema":
            self.average = WarmedEma(self.flat, config.ema_decay)
        self.step = self.epoch = self.batch = self.images = 0
        self.best = math.inf, math.inf  # top-1 error and loss of the best validation
        self.losses: list[Losses] = []  # of this epoch's steps
        self.latest: Batch | None = None
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
        self.sgd.own_rates = own | dict.fromkeys(self.frozen, 0.0)

    def records(self) -> Iterator[Step | Epoch | Restart]:
        """Train until the last epoch ends.

        Raises DivergedError where training has gone wrong and is not to go back, or has too often; the step that finds
        a loss that is not finite changes no weights."""
        self.guard.begin()
        while self.epoch < self.config.epochs:
            try:
                yield from self._steps()
                yield self._end_epoch()
            except DivergedError as error:
                yield self.guard.go_back(error)

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

    def to_training(self) -> None:
        """Switch the network to training, but for batch norms that are frozen."""
        freezing.train(self.model, self.frozen)

    def _steps(self) -> Iterator[Step]:
        """Yield the steps of this epoch that are left."""
        self.to_training()
        with closing(self.loader.epoch(self.epoch, self.batch)) as batches:
            began = time.perf_counter()
            for group in Groups(batches, self.config.accumulate, self.loader.batches):
                yield self._update(group, began)
                self.guard.check()
                began = time.perf_counter()

    def _update(self, group: Iterator[Batch], began: float) -> Step:
        """Change the weights once, by the mean gradient of all images of a group of batches."""
        self.flat.zero_gradient()
        images: list[int] = []
        losses: list[Losses] = []
        for batch in group:
            nn.seed_dropout(self.model, self.sampling_seed, self.step * self.config.accumulate + len(images))
            images.append(len(batch.labels))
            losses.append(self._backward(batch, images[-1] / images[0]))
        passed = self.epoch + batch.number // self.config.accumulate / self.epoch_steps
        lr = learning_rate(self.config, passed) * self.guard.rate_factor
        norm = self._descend(lr, images[0] / sum(images))
        self.step += 1
        self.batch = batch.number + 1
        self.images += sum(images)
        self.losses.append(weighted(losses, images))
        self.latest = batch
        speed = sum(images) / (time.perf_counter() - began)
        return Step(self.step, self.epoch, self.images, lr, self.losses[-1], speed, norm)

    def _backward(self, batch: Batch, share: float) -> Losses:
        """Add `share` times the gradient of a batch's loss to that of the batches before it."""
        outputs = self.model(Tensor(batch.images.astype(self.model.config.dtype, copy=False)))
        main = ops.cross_entropy(outputs.logits, batch.labels)
        heads = [None if x is None else ops.cross_entropy(x, batch.labels) for x in (outputs.aux1, outputs.aux2)]
        total = sum((self.config.aux_weight * loss for loss in heads if loss is not None), start=main)
        losses = Losses(*(math.nan if loss is None else loss.item() for loss in (total, main, *heads)))
        if not math.isfinite(losses.total):
            raise DivergedError(f"the loss is {losses.total} at step {self.step + 1}")
        total.backward(np.asarray(share, total.dtype))
        return losses

    def _descend(self, lr: float, scale: float) -> float:
        """Update the weights by `scale` times the gradient, clipped; return its norm, NaN where nothing is clipped."""
        norm = math.nan
        if self.config.clip_norm:
            norm = scale * clip_norm(self.flat.gradient, self.config.clip_norm / scale)
            if not math.isfinite(norm):
                raise DivergedError(f"the norm of the gradient is {norm} at step {self.step + 1}")
        self.sgd.step(lr, scale)
        if self.average:
            self.average.update()
        return norm

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
        self.epoch, self.batch, self.losses = self.epoch + 1, 0, []
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

    def _sample(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the network's input (S, S, 3) of a training image; runs in a loader thread."""
        if self.config.augment == "paper":
            view: np.ndarray = self.sampling.sample(image, self.preprocessing.size, rng)
        elif self.config.augment == "crop":
            view = training_crop(image, self.preprocessing, rng)
        else:
            view = crops(image, 1, self.preprocessing)[0]
        return self.preprocessing.normalise(view)

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
