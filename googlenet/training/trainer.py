"""Training (paper, section 6): SGD with momentum on the sum of three losses, as a generator of records.

    loss = L(classifier) + aux_weight * (L(aux1) + L(aux2))        L: softmax cross-entropy, aux_weight 0.3

The paper's final weights are an average over steps (minigrad/averaging.py): where one is kept, it is validated beside
the raw weights, both are in the files, and the average is what is tested.

`Trainer.records` yields a `Step` after every update and an `Epoch` after every pass and its validation; it never
prints. All that a run needs to go on is in the file that `Trainer.save` writes between two records: a run that is
stopped and resumed computes the same numbers, bit for bit, as one that was not.
"""
from __future__ import annotations

import json
import math
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from os import PathLike

import numpy as np

from data.base import Dataset
from data.crops import crops
from data.loader import Batch, Loader
from data.preprocess import Preprocessing
from data.sampling import Sampling, training_crop
from googlenet.config import TrainingConfig, from_json, to_json
from googlenet.inference import Predictor
from googlenet.model import GoogLeNet
from googlenet.testing import Score, score
from googlenet.training.records import DivergedError, Epoch, Losses, Step, mean
from googlenet.training.schedule import learning_rate
from googlenet.weights import LoadedModel, save_weights
from googlenet.weights.fitting import apply, transfer
from minigrad import Tensor, init, nn, no_grad, ops
from minigrad.averaging import Average, TailMean, WarmedEma, averaged_state
from minigrad.errors import InputError
from minigrad.flat import FlatParameters
from minigrad.optim import SGD

STUCK = 0.02  # a head whose loss stays this close to ln(classes) has learned nothing


class Trainer:
    """A network in training: what it learns from, and the state that a checkpoint holds."""

    def __init__(self, model: GoogLeNet, config: TrainingConfig, training: Dataset, validation: Dataset | None,
                 preprocessing: Preprocessing):
        self.model, self.config, self.preprocessing = model, config, preprocessing
        self.training, self.validation = training, validation
        self.sampling = Sampling(aspect_law=config.aspect_law, distortion=config.distortion, lighting=config.lighting)
        self.flat = FlatParameters(model)
        self.sgd = SGD(self.flat, momentum=config.momentum, weight_decay=config.weight_decay,
                       caffe_biases=config.bias_rate_doubled)
        self.average: Average | None = None
        self.sampling_seed = config.seed if config.sampling_seed < 0 else config.sampling_seed
        self.loader = Loader(training, self._sample, config.batch_size, seed=self.sampling_seed, shuffle=True,
                             threads=config.loader_threads, max_bad=config.max_bad)
        if config.averaging == "tail":
            steps = config.epochs * self.loader.batches
            self.average = TailMean(self.flat, start=int(config.averaging_start * steps))
        elif config.averaging == "ema":
            self.average = WarmedEma(self.flat, config.ema_decay)
        self.step = self.epoch = self.batch = self.images = 0
        self.lowest_loss = math.inf  # of validation
        self.losses: list[Losses] = []  # of this epoch's steps
        self.latest: Batch | None = None
        self.good_at = 0  # the step whose weights were last found good
        self.bad: dict[str, str] = {}  # validation images that can't be used: name -> reason

    def initialise(self, trained: Mapping[str, np.ndarray] | None = None, source: str = "") -> list[str]:
        """Fill the weights as the configuration says; biases of classifiers begin at zero (BVLC).

        `trained` are arrays by canonical name, from `source`, to begin with; returns the layers that these leave to
        chance: heads that they do not have, classifiers of other classes. Raises InputError where others differ."""
        scheme = self.config.init if self.config.init in init.SCHEMES else "xavier"
        init.initialise(self.model, self.config.seed, weight=scheme, bias=self.config.bias_init,
                        zero_bias=("classifier",))
        return transfer(self.model, trained, source) if trained else []

    def records(self) -> Iterator[Step | Epoch]:
        """Train until the last epoch ends.

        Raises DivergedError when the loss is not finite; the step that finds it changes nothing."""
        while self.epoch < self.config.epochs:
            self.model.train()
            with closing(self.loader.epoch(self.epoch, self.batch)) as batches:
                began = time.perf_counter()
                for batch in batches:
                    lr = learning_rate(self.config, self.epoch + batch.number / self.loader.batches)
                    losses = self._update(batch, lr)
                    speed = len(batch.labels) / (time.perf_counter() - began)
                    yield Step(self.step, self.epoch, self.images, lr, losses, speed)
                    began = time.perf_counter()
            yield self._end_epoch()

    def _update(self, batch: Batch, lr: float) -> Losses:
        nn.seed_dropout(self.model, self.sampling_seed, self.step)
        self.flat.zero_gradient()
        outputs = self.model(Tensor(batch.images.astype(self.model.config.dtype, copy=False)))
        main = ops.cross_entropy(outputs.logits, batch.labels)
        heads = [None if x is None else ops.cross_entropy(x, batch.labels) for x in (outputs.aux1, outputs.aux2)]
        total = sum((self.config.aux_weight * loss for loss in heads if loss is not None), start=main)
        losses = Losses(*(math.nan if loss is None else loss.item() for loss in (total, main, *heads)))
        if not math.isfinite(losses.total):
            raise self._diverged(f"the loss is {losses.total} at step {self.step + 1}")
        total.backward()
        self.sgd.step(lr)
        if self.average:
            self.average.update()
        self.step += 1
        self.batch = batch.number + 1
        self.images += len(batch.labels)
        self.losses.append(losses)
        self.latest = batch
        return losses

    def _diverged(self, found: str) -> DivergedError:
        return DivergedError(f"{found}; a lower rate than {self.config.lr:g} is needed, such as --lr "
                             f"{self.config.lr / 2:g}")

    def _end_epoch(self) -> Epoch:
        result = None if self.validation is None else self.validate()
        if result is not None and not math.isfinite(result.loss):
            raise self._diverged(f"the validation loss is {result.loss} after epoch {self.epoch + 1}")
        averaged = None if self.validation is None or self.average is None else self.validate(averaged=True)
        tested = averaged or result
        best = tested is None or tested.loss < self.lowest_loss
        if tested is not None:
            self.lowest_loss = min(self.lowest_loss, tested.loss)
        warnings = self._stuck_heads() if self.epoch == 0 else ()
        record = Epoch(self.epoch, self.step, self.images, mean(self.losses), result, best, warnings, averaged)
        self.epoch, self.batch, self.losses = self.epoch + 1, 0, []
        return record

    def validate(self, averaged: bool = False) -> Score:
        """Score the validation images by their centre, with the weights as they are or their average."""
        assert self.validation is not None
        model = self.model
        if averaged:
            model = GoogLeNet(self.model.config)
            apply(model, self.averaged(), "the average")
        predictor = Predictor(LoadedModel(model, self.training.classes, self.preprocessing))
        return score([predictor], self.validation, 1, threads=self.config.loader_threads, max_bad=self.config.max_bad,
                     bad=self.bad)

    def averaged(self) -> dict[str, np.ndarray]:
        """Return the averaged weights by canonical name, none where no average is kept."""
        return averaged_state(self.model, self.average) if self.average else {}

    def _stuck_heads(self) -> tuple[str, ...]:
        """Return a warning for each head whose loss in the second half of the epoch is that of a guess."""
        classes, lr = self.model.config.classes, self.config.lr
        late = mean(self.losses[len(self.losses) // 2:])._asdict()
        return tuple(f"{head} has learned nothing: its loss is {late[head]:.3f}, that of a guess ln({classes}) = "
                     f"{math.log(classes):.3f}; start again with a lower rate, --lr {lr / 2:g}, "
                     "or with --init he --bias-init 0 --standardise"
                     for head in ("main", "aux1", "aux2") if abs(late[head] - math.log(classes)) < STUCK)

    def _sample(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the network's input (S, S, 3) of a training image; runs in a loader thread."""
        if self.config.augment == "paper":
            view: np.ndarray = self.sampling.sample(image, self.preprocessing.size, rng)
        elif self.config.augment == "crop":
            view = training_crop(image, self.preprocessing, rng)
        else:
            view = crops(image, 1, self.preprocessing)[0]
        return self.preprocessing.normalise(view)

    def save(self, path: str | PathLike[str]) -> None:
        """Write a checkpoint: weights, velocity, and the place in the data.

        Raises DivergedError, and keeps the file as it was, where the latest step ruined the weights; InputError where
        the file can't be written."""
        self._require_good()
        velocity = {f"velocity/{name}": view for name, view in self.flat.views(self.sgd.velocity).items()}
        state: dict[str, str | int | float] = {
            "step": self.step, "epoch": self.epoch, "batch": self.batch, "images": self.images,
            "lowest_loss": self.lowest_loss, "training": to_json(self.config), "data": self._fingerprint(),
            "bad": json.dumps(self.loader.bad)}
        losses = np.array(self.losses, np.float64).reshape(-1, len(Losses._fields))
        kept: dict[str, np.ndarray] = {}
        if self.average:
            arrays, numbers = self.average.state()
            kept = {f"average/{name}": array for name, array in arrays.items()}
            state |= {f"average.{name}": number for name, number in numbers.items()}
        save_weights(path, self.model, preprocessing=self.preprocessing, classes=self.training.classes,
                     averaged=self.averaged(), arrays={**velocity, **kept, "losses": losses}, attributes=state)

    def _require_good(self) -> None:
        """Raise DivergedError where the latest step ruined the weights; its own loss is of the weights before it."""
        if self.latest is None or self.good_at == self.step:
            return
        training = self.model.training
        x = Tensor(self.latest.images.astype(self.model.config.dtype, copy=False))
        with no_grad():
            loss = ops.cross_entropy(self.model.eval()(x).logits, self.latest.labels).item()
        self.model.train(training)
        if not math.isfinite(loss) or not np.isfinite(self.flat.data).all() or not np.isfinite(self.sgd.velocity).all():
            raise self._diverged(f"after step {self.step} the loss is {loss}, or a weight is no number")
        self.good_at = self.step

    def save_weights(self, path: str | PathLike[str]) -> None:
        """Write the weights alone, half as large as a checkpoint. Raises as `save` does."""
        self._require_good()
        save_weights(path, self.model, preprocessing=self.preprocessing, classes=self.training.classes,
                     averaged=self.averaged(), attributes={"trained_images": self.images, "data": self._fingerprint()})

    def restore(self, loaded: LoadedModel) -> None:
        """Take over a checkpoint's state; the model must be the loaded one, the configuration that of `configuration`.

        Raises InputError where the checkpoint was made with other training labels.
        """
        attributes, arrays = loaded.attributes, loaded.arrays
        if attributes["data"] != self._fingerprint():
            raise InputError(f"the checkpoint was trained on {attributes['data']}, {self.config.data} holds "
                             f"{self._fingerprint()}; resume with the data it was trained on")
        for name, view in self.flat.views(self.sgd.velocity).items():
            view[...] = arrays[f"velocity/{name}"]
        if self.average:
            numbers = {name.removeprefix("average."): float(value) for name, value in attributes.items()
                       if name.startswith("average.")}
            if isinstance(self.average, TailMean):  # which begins where it began, though the run be made longer
                self.average.start = int(numbers.get("start", self.average.start))
            self.average.restore({name.removeprefix("average/"): array for name, array in arrays.items()
                                  if name.startswith("average/")}, numbers)
        for name in ("step", "epoch", "batch", "images"):
            setattr(self, name, int(attributes[name]))
        self.lowest_loss = float(attributes["lowest_loss"])
        self.losses = [Losses(*row) for row in arrays["losses"].tolist()]
        self.loader.bad.update(json.loads(str(attributes["bad"])))

    def _fingerprint(self) -> str:
        return f"{len(self.training)} images (labels {zlib.crc32(self.training.labels.tobytes()):08x})"


def configuration(loaded: LoadedModel, path: str | PathLike[str]) -> TrainingConfig:
    """Return how a checkpoint was trained. Raises InputError where the file at `path` is none."""
    if "training" not in loaded.attributes:
        raise InputError(f"{path} holds weights but no state of training; resume from the run's last.h5")
    return from_json(TrainingConfig, str(loaded.attributes["training"]))
