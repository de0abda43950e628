"""This project as a contender: what its users call, and nothing that they could not."""
from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

import minigrad
from benchmarks.job import AUX_WEIGHT, CLASSES, DECAY, MOMENTUM, RATE, Job, Network, Training
from googlenet.config import ModelConfig
from googlenet.inference import Predictor
from googlenet.model import GoogLeNet, preprocessing_of
from googlenet.weights import LoadedModel
from minigrad import Tensor, init, nn, ops
from minigrad.flat import FlatParameters
from minigrad.optim import SGD

SOFT = 0.01  # on classifiers' weights: without it a softmax is 0 or 1, and agreement in it says nothing


def network(size: int) -> GoogLeNet:
    """Return Caffe's GoogLeNet with random weights that keep the scale of what passes through."""
    model = GoogLeNet(ModelConfig(variant="caffe", image_size=size, classes=CLASSES))
    init.initialise(model, 0, weight="he")
    for path, parameter in model.named_parameters():
        if path.endswith("classifier/weight"):
            parameter.data *= np.float32(SOFT)
    return model


def inference(job: Job) -> Network:
    """Return a predictor's logits."""
    return Network(np.asarray, _predictor(job).logits)


def training(job: Job) -> Training:
    """Return steps with three heads and SGD with momentum."""
    trainee = Trainee(_loaded(job), job)
    return Training(trainee.outputs, trainee.step)


def first_step(job: Job) -> Callable[[], object]:
    """Return what a first training step takes, from building the network on."""
    def first() -> None:
        minigrad.set_threads(job.threads)
        Trainee(network(job.size), job).step()

    return first


def crops(job: Job) -> Callable[[], np.ndarray]:
    """Return what finds the probabilities of photo.jpg by 144 crops, decoding included, as `predict --crops 144`."""
    from data.crops import crops
    from data.decode import read_image

    predictor = _predictor(job)

    def probabilities() -> np.ndarray:
        views = crops(read_image(job.file("photo.jpg")), 144, predictor.preprocessing)
        return predictor.probabilities(views).mean(axis=0)

    return probabilities


def _predictor(job: Job) -> Predictor:
    model = _loaded(job)
    return Predictor(LoadedModel(model, tuple(map(str, range(CLASSES))), preprocessing_of(model.config)))


def _loaded(job: Job) -> GoogLeNet:
    minigrad.set_threads(job.threads)
    model = GoogLeNet(ModelConfig(variant="caffe", image_size=job.size, classes=CLASSES))
    weights = job.weights()
    for path, parameter in model.named_parameters():
        parameter.data[...] = weights[path]
    return model


class Trainee:
    """A network, its optimiser and its images."""

    def __init__(self, model: GoogLeNet, job: Job):
        images, self.labels = job.images()
        self.model, self.images = model.train(), Tensor(images)
        self.flat = FlatParameters(model)
        self.sgd = SGD(self.flat, momentum=MOMENTUM, weight_decay=DECAY)

    def step(self) -> float:
        """Update the weights once; returns the seconds that the update itself took, after the gradient."""
        nn.seed_dropout(self.model, 0, 0)
        self._gradient()
        began = time.perf_counter()
        self.sgd.step(RATE)
        return time.perf_counter() - began

    def outputs(self) -> dict[str, np.ndarray]:
        """Return the logits of the three heads and a gradient that has come all the way, without dropout."""
        dropouts = [module for _, module in self.model.named_modules() if isinstance(module, nn.Dropout)]
        for module in dropouts:
            module.training = False
        logits = self._gradient()
        for module in dropouts:
            module.training = True
        return {"logits": logits[0], "aux1": logits[1], "aux2": logits[2],
                "gradient": self.flat.views(self.flat.gradient)["conv1/weight"].copy()}

    def _gradient(self) -> list[np.ndarray]:
        self.flat.zero_gradient()
        heads = self.model(self.images)
        main, aux1, aux2 = (ops.cross_entropy(logits, self.labels) for logits in heads)
        (main + AUX_WEIGHT * aux1 + AUX_WEIGHT * aux2).backward()
        return [logits.data for logits in heads]
