"""From images to probabilities: a network with the preprocessing and the class names that travel with its weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from os import PathLike
from typing import NoReturn

import numpy as np

from data.crops import crops
from googlenet.classes import columns, same
from googlenet.model import GoogLeNet
from googlenet.weights import LoadedModel, load_model
from googlenet.weights.fitting import listed
from minigrad import Tensor, no_grad, ops
from minigrad.errors import InputError
from minigrad.kernels.plan import Constants, Plan
from minigrad.runtime import get_threads, jit_disabled

log = logging.getLogger(__name__)

BATCH_PIXELS = 4 * 224**2  # of a batch: what lies between two layers then stays in L3, and larger batches are slower
MOST_IMAGES = 32  # of a batch


class Predictor:
    """A trained network that takes photos as they are: uint8 RGB arrays (H, W, 3) of any sizes.

    The network is switched to testing (`model.eval()`), its batch norms folded into the convolutions. The second batch
    of a size records its kernel calls, with the weights, and later ones repeat them (minigrad/kernels/plan.py): after
    changing weights, make a new Predictor."""

    def __init__(self, loaded: LoadedModel):
        self.model = loaded.model.eval().folded()
        self.classes = loaded.classes
        self.preprocessing = loaded.preprocessing
        self.batch = min(MOST_IMAGES, max(1, BATCH_PIXELS // self.preprocessing.size**2))  # images at a time
        self._plans: dict[tuple[tuple[int, ...], int], Plan | None] = {}  # by the batch's shape and the threads
        self._constants: Constants = {}  # that all plans share

    def predict(self, images: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Return the probability of every class, (N, classes), from the centre of each image.

        Raises InputError for images that are not uint8 (H, W, 3), or none; DataError for one too thin to resize."""
        return self.probabilities(self._centres(images))

    def features(self, images: Sequence[np.ndarray] | np.ndarray, stage: str) -> np.ndarray:
        """Return the output of a stage, such as "inception_4a" (N, 14, 14, 512) or "pool5" (N, 1024).

        Raises InputError for a stage that the network does not have, and as `predict` does."""
        if stage not in self.model.stage_shapes:
            raise InputError(f"no stage {stage!r}: choose one of {', '.join(self.model.stage_shapes)}")
        with no_grad():
            return np.concatenate([self._stage(x, stage) for x in self._batches(self._centres(images))])

    def probabilities(self, views: np.ndarray) -> np.ndarray:
        """Return every class's probability, (K, classes), for RGB crops of the network's size as data.crops gives them:
        (K, S, S, 3) on the scale 0..255, uint8 or float32.

        They are float64: in float32 a class whose logit is 104 below another's has a probability of 0."""
        logits = np.concatenate([self._logits(x.data) for x in self._batches(views)])
        return ops.softmax(Tensor(logits.astype(np.float64))).data

    def logits(self, x: np.ndarray) -> np.ndarray:
        """Return the logits (N, classes) for inputs as the network takes them: (N, S, S, 3), mean subtracted.

        Raises InputError for another shape or precision."""
        return np.concatenate([self._logits(x[start:start + self.batch])
                               for start in range(0, max(1, len(x)), self.batch)])

    def _logits(self, x: np.ndarray) -> np.ndarray:
        """Return the logits of a batch, by its plan from the second batch of this shape on."""
        key = x.shape, get_threads()
        if key not in self._plans or jit_disabled():
            self._plans[key] = None
            return self._forward(x)
        plan = self._plans[key] = self._plans[key] or Plan(self._forward, x, self._constants)
        return plan(x) if plan.agrees else self._forward(x)

    def _forward(self, x: np.ndarray) -> np.ndarray:
        with no_grad():
            return self.model(Tensor(x)).logits.data

    def _stage(self, x: Tensor, stage: str) -> np.ndarray:
        return next(y.data for name, y in self.model.stages(x) if name == stage)

    def _batches(self, views: np.ndarray) -> Iterator[Tensor]:
        """Yield the network's inputs, (up to `batch`, S, S, 3)."""
        for start in range(0, len(views), self.batch):
            x = self.preprocessing.normalise(views[start:start + self.batch])
            yield Tensor(x.astype(self.model.config.dtype, copy=False))

    def _centres(self, images: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Return the centre of each image, (N, S, S, 3)."""
        if not len(images):
            raise InputError("no images: give at least one")
        for image in images:
            fits = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
            if not fits or not image.size:
                found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
                raise InputError(f"expected images as uint8 RGB arrays (H, W, 3), got {found}: convert each with "
                                 'np.asarray(image.convert("RGB")) and give a list of them')
        return np.concatenate([crops(image, 1, self.preprocessing) for image in images])


def load(path: str | PathLike[str], *, raw: bool = False, image_size: int | None = None) -> Predictor:
    """Open a weight file, ours or another framework's, for prediction: with the weights that it says are for testing,
    such as averaged ones, or the `raw` ones; or published weights by their name (`googlenet.weights.fetch.PUBLISHED`),
    fetched where they are not here. `image_size` is for files that do not tell it.

    Raises InputError for a file that is missing, damaged or no GoogLeNet."""
    from googlenet.weights.fetch import resolve  # here, as it takes a while to import

    return Predictor(load_model(resolve(path), raw=raw, image_size=image_size))


def for_classes(network: Predictor, classes: Sequence[str], origin: str) -> Predictor:
    """Return the network for these classes, in this order: itself where they are its own; otherwise one without the
    other classes, whose probabilities add up to 1 again.

    Raises InputError, which names `origin`, where the network does not have them: see `googlenet.classes.columns`."""
    chosen = columns(network.classes, classes)
    if chosen == list(range(len(network.classes))):
        return network
    if chosen is None:
        _refuse(network.classes, classes, origin)
    left = [name for number, name in enumerate(network.classes) if number not in set(chosen)]
    log.info("%s", f"of the network's {len(network.classes)} classes, the {len(chosen)} of {origin} are used"
             + (f"; without {listed(left)} the probabilities add up to 1 again" if left else ", in its order"))
    whole = network.model
    model = GoogLeNet(replace(whole.config, classes=len(chosen), heads="none")).eval()
    arrays = whole.state()
    for path, own in model.state().items():  # softmax over fewer logits is what the others' probabilities are shared by
        own[...] = arrays[path][..., chosen] if path.startswith("classifier/") else arrays[path]
    return Predictor(LoadedModel(model, tuple(classes), network.preprocessing))


def _refuse(own: Sequence[str], wanted: Sequence[str], origin: str) -> NoReturn:
    """Say why a network's own classes are not those that are wanted."""
    if len(own) != len(wanted):
        unnamed = len(own) > len(wanted) and any(name.isdigit() for name in own)
        naming = "; where these are some of the network's, name all of those by --classes NAMES.txt" if unnamed else ""
        raise InputError(f"the network has {len(own)} classes, {origin} has {len(wanted)}: give the weights and the "
                         f"data of one task{naming}")
    number = next(number for number, pair in enumerate(zip(own, wanted, strict=True)) if not same(*pair))
    raise InputError(f'class {number} is "{own[number]}" to the network and "{wanted[number]}" in {origin}; '
                     "give the weights and the data of one task, in one order")
