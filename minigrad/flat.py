"""All parameters of a network in one vector, with named views.

One vector is what an optimiser updates, what a checkpoint stores and what a parameter server exchanges. The parameters'
arrays and gradients become views of it, so that nothing is copied between the network and the vector. `use` moves them
into other memory, such as that which processes share; a `Slice` is the part that a server's shard holds.
"""
from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from minigrad.errors import InputError
from minigrad.nn import Module

Places = dict[str, tuple[slice, tuple[int, ...]]]


class Vector(ABC):
    """What an optimiser and an average work on: weights and their gradient (P,), and where each parameter lies."""

    data: np.ndarray
    places: Places

    @property
    @abstractmethod
    def gradient(self) -> np.ndarray:
        """Their gradient (P,)."""

    def views(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """Return {path: view} of any vector (P,) laid out like `data`, such as a velocity."""
        return {path: vector[place].reshape(shape) for path, (place, shape) in self.places.items()}


class FlatParameters(Vector):
    """The parameters of `model` moved into `data` and `gradient`, two vectors (P,) of the parameters' dtype."""

    def __init__(self, model: Module):
        named = list(model.named_parameters())
        dtype = np.result_type(*(p.dtype for _, p in named))
        total = sum(p.data.size for _, p in named)
        self.data, self._gradient = np.empty(total, dtype), np.zeros(total, dtype)
        self._parameters = [parameter for _, parameter in named]
        self.places: Places = {}
        begin = 0
        for path, parameter in named:
            place = slice(begin, begin + parameter.data.size)
            self.places[path] = place, parameter.shape
            self.data[place] = parameter.data.reshape(-1)
            parameter.data = self.data[place].reshape(parameter.shape)
            parameter.grad = self._gradient[place].reshape(parameter.shape)
            begin = place.stop

    def use(self, *, data: np.ndarray | None = None, gradient: np.ndarray | None = None) -> None:
        """Make other vectors (P,) the weights, or what gradients are summed in, as they are: nothing is copied.

        Raises InputError for one of another length or dtype."""
        for vector, name in ((data, "weights"), (gradient, "gradients")):
            if vector is not None and (vector.shape != self.data.shape or vector.dtype != self.data.dtype):
                raise InputError(f"a vector of {name} is {vector.shape} of {vector.dtype}; expected {self.data.shape} "
                                 f"of {self.data.dtype}")
        if data is not None:
            self.data = data
        if gradient is not None:
            self._gradient = gradient
        for parameter, (place, shape) in zip(self._parameters, self.places.values(), strict=True):
            parameter.data = self.data[place].reshape(shape)
            parameter.grad = self._gradient[place].reshape(shape)

    def zero_gradient(self) -> None:
        """Begin a new gradient. Zeros are written only where no gradient arrives: see `gradient`."""
        for parameter in self._parameters:
            parameter.stale = True

    @property
    def gradient(self) -> np.ndarray:
        """The sum of the gradients (P,) since `zero_gradient`."""
        for parameter in self._parameters:
            if parameter.stale and parameter.grad is not None:
                parameter.grad[...] = 0
                parameter.stale = False
        return self._gradient


class Slice(Vector):
    """The values `begin` to `end` of a vector: a vector itself, which shares its weights.

    A parameter that lies across a border is in two slices, under one path. `given` is its gradient, to be set."""

    def __init__(self, of: Vector, begin: int, end: int):
        self.begin, self.end = begin, end
        self.data = of.data[begin:end]
        self.given = np.empty(0, of.data.dtype)
        self.places: Places = {}
        for path, (place, _) in of.places.items():
            first, last = max(place.start, begin), min(place.stop, end)
            if first < last:
                self.places[path] = slice(first - begin, last - begin), (last - first,)

    @property
    def gradient(self) -> np.ndarray:
        """The gradient that was given."""
        return self.given
