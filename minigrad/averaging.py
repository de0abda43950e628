"""Averages of the weights over the steps of training, which are tested in place of the last weights.

The paper (section 6) made its final model by Polyak averaging, cites Polyak and Juditsky 1992, and does not say over
which steps. Two readings, w[t] being the weights after step t:

    TailMean     m[t] = (w[s + 1] + ... + w[t]) / (t - s)         for t > s; before that w[t]
    WarmedEma    e[1] = w[1];  e[t + 1] = d e[t] + (1 - d) w[t + 1]    with d = min(decay, (1 + t) / (10 + t))

TailMean is the mean of Polyak, Juditsky and Ruppert: the noise of the single steps cancels, and a later start s keeps
out the weights of before training had settled. WarmedEma is what TensorFlow's GoogLeNets were tested with
(tf.train.ExponentialMovingAverage with num_updates): it forgets by itself, what is t / 9 steps old at first and
1 / (1 - decay) steps old in the end. Without the warm-up it would remember the random beginning for that long.

What is kept is float64, 8 bytes a weight. In float32 a step far into a run adds less than half of the last digit, which
is nothing: after a million steps the mean of slowly drifting weights is wrong by several per cent, the moving average
by a thousandth. The sum of float32 weights in float64 is exact for some 2^29 steps, as long as a weight keeps its
exponent; the mean is rounded once, when it is asked for.

A batch norm's running statistics are no parameters and are averages already: `averaged_state` takes them as they are.
"""
from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from minigrad.errors import InputError
from minigrad.flat import Vector
from minigrad.kernels.parallel import kernel
from minigrad.nn import Module

Settings = dict[str, int | float]


class Average(ABC):
    """An average of `parameters` over the calls of `update`; `kept` (P,) float64 and `steps` are its whole state."""

    def __init__(self, parameters: Vector):
        self.parameters = parameters
        self.kept = np.zeros(parameters.data.size, np.float64)
        self.steps = 0

    @abstractmethod
    def update(self) -> None:
        """Take in the weights as they are now; to be called once after each step."""

    @property
    @abstractmethod
    def average(self) -> np.ndarray:
        """The average (P,) in the parameters' dtype, a new array; before there is any, the weights as they are."""

    @abstractmethod
    def settings(self) -> Settings:
        """Return what the average was made with, which a resumed run must share."""

    def views(self) -> dict[str, np.ndarray]:
        """Return {path: array} of `average`."""
        return self.parameters.views(self.average)

    def state(self) -> tuple[dict[str, np.ndarray], Settings]:
        """Return what a checkpoint stores: {path: float64 array}, which are views of `kept`, and numbers by name."""
        return self.parameters.views(self.kept), {"steps": self.steps, **self.settings()}

    def restore(self, arrays: Mapping[str, np.ndarray], numbers: Mapping[str, int | float]) -> None:
        """Take over what `state` returned: all updates after it give the same bits as if there had been no stop.

        Raises InputError, and changes nothing, where the settings or the network were others."""
        for name, value in self.settings().items():
            if numbers.get(name) != value:
                raise InputError(f"the stored average was made with {name} {numbers.get(name)}, "
                                 f"this one with {value}; resume with {name} {numbers.get(name)}")
        views = self.parameters.views(self.kept)
        for path, view in views.items():
            stored = arrays.get(path)
            if stored is None or stored.shape != view.shape or stored.dtype != view.dtype:
                found = "nothing" if stored is None else f"{stored.shape} of {stored.dtype}"
                raise InputError(f"the stored average has {found} for {path}, expected {view.shape} of {view.dtype}; "
                                 "resume with the network that it was made of")
        for path, view in views.items():
            view[...] = arrays[path]
        self.steps = int(numbers["steps"])


class TailMean(Average):
    """The mean of the weights after each step beyond the first `start`; `kept` is their sum."""

    def __init__(self, parameters: Vector, start: int = 0):
        if start < 0:
            raise InputError(f"the mean of the weights starts after step {start}; choose 0 or more")
        super().__init__(parameters)
        self.start = start

    def update(self) -> None:
        """Add the weights to the sum, one pass over memory; nothing up to `start`."""
        self.steps += 1
        if self.steps > self.start:
            add_to_sum(self.kept.size, self.parameters.data, self.kept)

    @property
    def average(self) -> np.ndarray:
        """The mean (P,); up to `start`, the weights as they are."""
        data, count = self.parameters.data, self.steps - self.start
        if count <= 0:
            return data.copy()
        return np.divide(self.kept, count, out=np.empty_like(data), casting="same_kind")

    def settings(self) -> Settings:
        """Return where the mean starts."""
        return {"start": self.start}


class WarmedEma(Average):
    """The exponential moving average, whose decay rises to `decay`; `kept` is the average itself."""

    def __init__(self, parameters: Vector, decay: float = 0.9999):
        if not 0 <= decay < 1:
            raise InputError(f"the decay of the moving average is {decay}; choose at least 0 and less than 1")
        super().__init__(parameters)
        self.decay = decay

    def update(self) -> None:
        """Move the average towards the weights, one pass over memory; the first call takes them as they are."""
        t = self.steps
        decay = min(self.decay, (1 + t) / (10 + t)) if t else 0.0
        move_towards(self.kept.size, self.parameters.data, self.kept, 1 - decay)
        self.steps += 1

    @property
    def average(self) -> np.ndarray:
        """The moving average (P,); before the first update, the weights as they are."""
        return self.kept.astype(self.parameters.data.dtype) if self.steps else self.parameters.data.copy()

    def settings(self) -> Settings:
        """Return the decay."""
        return {"decay": self.decay}


def averaged_state(model: Module, average: Average) -> dict[str, np.ndarray]:
    """Return {path: array} as `model.state()` does, with averaged parameters; buffers are copied as they are now.

    So a network with batch norm is tested with averaged weights and the running statistics of the last steps."""
    buffers = {path: buffer.data.copy() for path, buffer in model.named_buffers()}
    return average.views() | buffers


@kernel
def add_to_sum(first, last, w, total):
    """total[i] += w[i]"""
    w, total = w[first:last], total[first:last]
    for i in range(w.size):
        total[i] += w[i]


@kernel
def move_towards(first, last, w, average, part):
    """average[i] += part * (w[i] - average[i])"""
    w, average = w[first:last], average[first:last]
    for i in range(w.size):
        average[i] += part * (w[i] - average[i])
