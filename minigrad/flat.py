"""All parameters of a network in one vector, with named views.

One vector is what an optimiser updates, what a checkpoint stores and what a parameter server exchanges. The parameters'
arrays and gradients become views of it, so that nothing is copied between the network and the vector.
"""
import numpy as np

from minigrad.nn import Module


class FlatParameters:
    """The parameters of `model` moved into `data` and `gradient`, two vectors (P,) of the parameters' dtype."""

    def __init__(self, model: Module):
        named = list(model.named_parameters())
        dtype = np.result_type(*(p.dtype for _, p in named))
        total = sum(p.data.size for _, p in named)
        self.data, self._gradient = np.empty(total, dtype), np.zeros(total, dtype)
        self._parameters = [parameter for _, parameter in named]
        self.places: dict[str, tuple[slice, tuple[int, ...]]] = {}
        begin = 0
        for path, parameter in named:
            place = slice(begin, begin + parameter.data.size)
            self.places[path] = place, parameter.shape
            self.data[place] = parameter.data.reshape(-1)
            parameter.data = self.data[place].reshape(parameter.shape)
            parameter.grad = self._gradient[place].reshape(parameter.shape)
            begin = place.stop

    def views(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """Return {path: view} of any vector (P,) laid out like `data`, such as a velocity."""
        return {path: vector[place].reshape(shape) for path, (place, shape) in self.places.items()}

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
