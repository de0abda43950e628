"""Stochastic gradient descent with momentum (paper, section 6: momentum 0.9).

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

`clip_norm` shortens a gradient whose Euclidean norm over all parameters is too long, as Pascanu et al. 2013 do; neither
the paper nor BVLC clips. After k batches the gradient is k times too long, and so the limit is k times the wanted one.
"""
import numpy as np

from minigrad.errors import InputError
from minigrad.flat import FlatParameters
from minigrad.kernels.parallel import kernel

PART = 2**14  # values of one partial sum, however many threads there are
LANES = 32  # sums beside each other in a part


class SGD:
    """Momentum SGD over a flat vector; `velocity` (P,) is its whole state.

    `own_rates` are factors on the rate of some parameters, by path. One of 0 stays as it is, its velocity too."""

    def __init__(self, parameters: FlatParameters, *, momentum: float = 0.9, weight_decay: float = 0.0,
                 bias_rate: float = 1.0, bias_decay: float = 1.0):
        self.parameters = parameters
        self.momentum, self.weight_decay = momentum, weight_decay
        self.bias_rate, self.bias_decay = bias_rate, bias_decay
        self.own_rates: dict[str, float] = {}
        self.velocity = np.zeros_like(parameters.data)

    def step(self, lr: float, scale: float = 1.0) -> None:
        """Update the parameters by `scale` times their gradient at learning rate `lr`."""
        p, gradient = self.parameters, self.parameters.gradient
        real = p.data.dtype.type
        for path, (place, _) in p.places.items():
            rate, decay = self.own_rates.get(path, 1.0), self.weight_decay
            name = path.rpartition("/")[2]
            if name in ("bias", "beta"):
                rate, decay = self.bias_rate * rate, self.bias_decay * decay
            elif name == "gamma":
                decay = 0.0
            if rate:
                update(place.stop - place.start, p.data[place], gradient[place], self.velocity[place],
                       real(lr * rate), real(scale), real(decay), real(self.momentum))


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
