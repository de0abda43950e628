"""Dropout (Srivastava et al. 2014; paper, section 5: 40 % before the classifier, 70 % in the auxiliary heads).

    y[i]  = x[i] * m[i] / (1 - rate),  m[i] = 0 with probability rate, else 1
    dx[i] = dy[i] * m[i] / (1 - rate)

The mask is not stored: m[i] is word i % 4 of Philox at the counter (i // 4, step, stream), under the seed as its key
(kernels/philox.py). So it is the same for any number of threads and after a resume. Scaling in training leaves
testing without a scale (Caffe, "inverted" dropout).
"""
import numpy as np

from minigrad.errors import InputError
from minigrad.kernels.parallel import kernel
from minigrad.kernels.philox import philox
from minigrad.kernels.plan import empty
from minigrad.op import Op
from minigrad.tensor import Tensor


class Dropout(Op):
    def __init__(self, rate: float, seed: int, step: int, stream: int):
        self.rate, self.counter = rate, np.array([seed, step, stream], np.uint64)

    def forward(self, x):
        return self.masked(x)

    def backward(self, dy):
        return (self.masked(dy),)

    def masked(self, x: np.ndarray) -> np.ndarray:
        y = empty(x.shape, x.dtype)
        flat = np.ascontiguousarray(x).reshape(-1)
        drop_below, scale = np.uint64(round(self.rate * 2**32)), x.dtype.type(1 / (1 - self.rate))
        apply_mask(-(-x.size // 4), flat, self.counter, drop_below, scale, y.reshape(-1))
        return y


def dropout(x: Tensor, rate: float, *, seed: int, step: int, stream: int = 0) -> Tensor:
    """Set each value of x to zero with probability `rate` and scale the others by 1 / (1 - rate).

    The mask is a function of (seed, step, stream): the seed of the run (below 2**64), the number of the training step
    (below 2**32) and a number for this place in the network (below 2**32). Raises InputError for a value out of range.
    """
    for name, value, bits in (("seed", seed, 64), ("step", step, 32), ("stream", stream, 32)):
        if not 0 <= value < 2**bits:
            raise InputError(f"the {name} of dropout is {value}; it must lie in [0, 2**{bits})")
    if not 0 <= rate < 1:
        raise InputError(f"the rate of dropout is {rate}; it must lie in [0, 1)")
    return Dropout(rate, seed, step, stream)(x)


@kernel
def apply_mask(first, last, x, counter, drop_below, scale, y):
    """y[i] = x[i] * scale where the random word of i is at least drop_below, else 0; four values for each index"""
    seed, step, stream = counter[0], counter[1], counter[2]
    low, word = np.uint64(0xFFFFFFFF), np.uint64(32)
    zero = x.dtype.type(0)
    for block in range(first, last):
        b = np.uint64(block)
        random = philox(b & low, b >> word, step, stream, seed & low, seed >> word)
        for j in range(min(4, x.size - 4 * block)):
            y[4 * block + j] = x[4 * block + j] * scale if random[j] >= drop_below else zero
