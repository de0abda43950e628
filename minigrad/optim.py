"""Stochastic gradient descent: with momentum (paper, section 6: 0.9), or with Adagrad's rates.

As in Caffe, with g the gradient of the loss, mu the momentum, lr the rate and wd the weight decay:

    v <- mu v + lr (g + wd w)
    w <- w - v

The rate is inside the velocity, so a lower rate takes effect gradually. A bias has a rate and a decay of its own, as
multiples of these (Caffe's lr_mult and decay_mult: in BVLC's GoogLeNet 2 and 0). A batch norm's beta is the bias of the
convolution before it, and is treated as one. Its gamma never decays: the value that leaves a channel as it is
normalised is 1, not 0.

A step on k batches of equal size, one after the other, is a step on all their images: the loss of a batch is the mean
over its images, backward adds up the gradients of all k, and `step(lr, scale=1 / k)` divides them. (Batch norm alone
sees each batch by itself.) Decay is not divided.

Momentum alone, without a gradient, would take w in k more steps to w - (mu + mu^2 + ... + mu^k) v. A gradient that will
be applied behind k updates by others is better taken there (`SGD.look_ahead`), as Nesterov takes that of the next one.

Adagrad (Duchi et al. 2011; DistBelief, section 4.1) gives every weight a rate of its own, which falls with what its
gradients have been:

    g <- g + wd w;  s <- s + g^2
    w <- w - lr g / sqrt(s)

It needs no momentum, only the sum of squares, and so a shard of a parameter server can do it by itself. The sum begins
at 0.1, as TensorFlow's does: from 0, the first step would move every weight by the rate, however small its gradient.

`clip_norm` shortens a gradient whose Euclidean norm over all parameters is too long, as Pascanu et al. 2013 do; neither
the paper nor BVLC clips. After k batches the gradient is k times too long, and so the limit is k times the wanted one.
"""
from abc import ABC, abstractmethod

import numpy as np

from minigrad.errors import InputError
from minigrad.flat import Vector
from minigrad.kernels.parallel import kernel

PART = 2**14  # values of one partial sum, however many threads there are
LANES = 32  # sums beside each other in a part


class Optimiser(ABC):
    """What changes the weights of a flat vector by their gradient; `memory` (P,) is its whole state, `named` in files.

    `own_rates` are factors on the rate of some parameters, by path. One of 0 stays as it is, its memory too."""

    named: str

    def __init__(self, parameters: Vector, *, weight_decay: float = 0.0, bias_rate: float = 1.0,
                 bias_decay: float = 1.0):
        self.parameters = parameters
        self.weight_decay, self.bias_rate, self.bias_decay = weight_decay, bias_rate, bias_decay
        self.own_rates: dict[str, float] = {}
        self.memory = np.full_like(parameters.data, self.begins_at)

    begins_at = 0.0

    def step(self, lr: float, scale: float = 1.0) -> None:
        """Update the parameters by `scale` times their gradient at learning rate `lr`."""
        gradient = self.parameters.gradient
        for path, (place, _) in self.parameters.places.items():
            rate, decay = self.own_rates.get(path, 1.0), self.weight_decay
            name = path.rpartition("/")[2]
            if name in ("bias", "beta"):
                rate, decay = self.bias_rate * rate, self.bias_decay * decay
            elif name == "gamma":
                decay = 0.0
            if rate:
                self._update(place, gradient, lr * rate, scale, decay)

    @abstractmethod
    def _update(self, place: slice, gradient: np.ndarray, rate: float, scale: float, decay: float) -> None:
        """Update the parameter at `place`."""


class SGD(Optimiser):
    """With momentum; its memory is the velocity."""

    named = "velocity"

    def __init__(self, parameters: Vector, *, momentum: float = 0.9, weight_decay: float = 0.0,
                 bias_rate: float = 1.0, bias_decay: float = 1.0):
        super().__init__(parameters, weight_decay=weight_decay, bias_rate=bias_rate, bias_decay=bias_decay)
        self.momentum = momentum

    @property
    def velocity(self) -> np.ndarray:
        """The velocity (P,)."""
        return self.memory

    def _update(self, place: slice, gradient: np.ndarray, rate: float, scale: float, decay: float) -> None:
        w = self.parameters.data
        real = w.dtype.type
        update(place.stop - place.start, w[place], gradient[place], self.memory[place], real(rate), real(scale),
               real(decay), real(self.momentum))

    def look_ahead(self, steps: int, out: np.ndarray) -> None:
        """Write into `out` (P,) the weights to which momentum alone would take them in so many steps."""
        if not steps:
            out[:] = self.parameters.data
            return
        factor = sum(self.momentum**k for k in range(1, steps + 1))
        extrapolate(out.size, self.parameters.data, self.memory, out, out.dtype.type(factor))


class Adagrad(Optimiser):
    """With rates that fall with the squares of the gradients; its memory is their sum."""

    named = "squares"
    begins_at = 0.1

    def _update(self, place: slice, gradient: np.ndarray, rate: float, scale: float, decay: float) -> None:
        w = self.parameters.data
        real = w.dtype.type
        update_by_squares(place.stop - place.start, w[place], gradient[place], self.memory[place], real(rate),
                          real(scale), real(decay))


def global_norm(gradient: np.ndarray) -> float:
    """Return the Euclidean norm of a vector (P,), summed in float64, the same for any number of threads.

    It is infinite or NaN where a value is."""
    parts = -(-gradient.size // PART)
    sums = np.zeros((parts, LANES))
    sum_squares(parts, gradient, sums)
    return float(np.sqrt(sums.sum()))


def clip_norm(gradient: np.ndarray, limit: float) -> float:
    """Shorten a gradient (P,) in place to norm `limit` where it is longer; return the norm it had.

    A gradient that is not finite stays as it is: the returned norm says so. Raises InputError unless limit > 0."""
    if not limit > 0:
        raise InputError(f"the limit of the gradient's norm is {limit}; choose one above 0")
    norm = global_norm(gradient)
    if limit < norm < np.inf:
        multiply(gradient.size, gradient, gradient.dtype.type(limit / norm))
    return norm


@kernel
def update(first, last, w, g, v, rate, scale, decay, momentum):
    """v[i] = momentum * v[i] + rate * (scale * g[i] + decay * w[i]);  w[i] -= v[i]"""
    w, g, v = w[first:last], g[first:last], v[first:last]
    for i in range(w.size):
        v[i] = momentum * v[i] + rate * (scale * g[i] + decay * w[i])
        w[i] -= v[i]


@kernel
def extrapolate(first, last, w, v, out, factor):
    """out[i] = w[i] - factor * v[i]"""
    w, v, out = w[first:last], v[first:last], out[first:last]
    for i in range(w.size):
        out[i] = w[i] - factor * v[i]


@kernel
def update_by_squares(first, last, w, g, s, rate, scale, decay):
    """d = scale * g[i] + decay * w[i];  s[i] += d^2;  w[i] -= rate * d / sqrt(s[i])"""
    w, g, s = w[first:last], g[first:last], s[first:last]
    for i in range(w.size):
        d = scale * g[i] + decay * w[i]
        s[i] += d * d
        w[i] -= rate * d / np.sqrt(s[i])


@kernel
def sum_squares(first, last, g, sums):
    """sums[part, l] = sum over the part's i = l (mod LANES) of g[i]^2; the sums of all l are independent: vectors"""
    for part in range(first, last):
        values, total = g[part * PART:(part + 1) * PART], sums[part]
        whole = values.size // LANES * LANES
        for i in range(0, whole, LANES):
            row = values[i:i + LANES]
            for l in range(LANES):
                value = np.float64(row[l])
                total[l] += value * value
        for l in range(values.size - whole):
            value = np.float64(values[whole + l])
            total[l] += value * value


@kernel
def multiply(first, last, g, factor):
    """g[i] *= factor"""
    g = g[first:last]
    for i in range(g.size):
        g[i] *= factor
