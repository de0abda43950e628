"""Stochastic gradient descent with momentum (paper, section 6: momentum 0.9).

As in Caffe, with g the gradient of the loss, mu the momentum, lr the rate and wd the weight decay:

    v <- mu v + lr (g + wd w)
    w <- w - v

The rate is inside the velocity, so a lower rate takes effect gradually. With `caffe_biases` a bias learns at twice the
rate and does not decay, as in BVLC's GoogLeNet.

A batch norm's beta is the bias of the convolution before it, and is treated as one. Its gamma never decays: the value
that leaves a channel as it is normalised is 1, not 0.
"""
import numpy as np

from minigrad.flat import FlatParameters
from minigrad.kernels.parallel import kernel


class SGD:
    """Momentum SGD over a flat vector; `velocity` (P,) is its whole state."""

    def __init__(self, parameters: FlatParameters, *, momentum: float = 0.9, weight_decay: float = 0.0,
                 caffe_biases: bool = False):
        self.parameters = parameters
        self.momentum, self.weight_decay, self.caffe_biases = momentum, weight_decay, caffe_biases
        self.velocity = np.zeros_like(parameters.data)

    def step(self, lr: float) -> None:
        """Update the parameters by their gradient at learning rate `lr`."""
        p, gradient = self.parameters, self.parameters.gradient
        real = p.data.dtype.type
        for path, (place, _) in p.places.items():
            name = path.rpartition("/")[2]
            as_bias = self.caffe_biases and name in ("bias", "beta")
            rate = 2 * lr if as_bias else lr
            decay = 0.0 if as_bias or name == "gamma" else self.weight_decay
            update(place.stop - place.start, p.data[place], gradient[place], self.velocity[place],
                   real(rate), real(decay), real(self.momentum))


@kernel
def update(first, last, w, g, v, rate, decay, momentum):
    """v[i] = momentum * v[i] + rate * (g[i] + decay * w[i]);  w[i] -= v[i]"""
    w, g, v = w[first:last], g[first:last], v[first:last]
    for i in range(w.size):
        v[i] = momentum * v[i] + rate * (g[i] + decay * w[i])
        w[i] -= v[i]
