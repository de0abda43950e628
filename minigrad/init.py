"""Initial weights.

Each parameter is drawn by a generator of its own, keyed by (seed, path), so that it does not depend on what else the
network contains. fan_in counts the inputs of one output: KH * KW * C, for a linear layer C.

| name | weights | source |
|---|---|---|
| xavier | uniform in +-sqrt(3 / fan_in) | Caffe's filler.hpp: by fan-in alone, unlike Glorot and Bengio 2010 |
| he | normal, deviation sqrt(2 / fan_in) | He et al. 2015; keeps the variance through ReLU |
| truncated_normal | normal, deviation 0.01, redrawn beyond two deviations | TF-slim's inception_v1 |

A batch norm begins as the identity: gamma and variance 1, beta and mean 0.
"""
import zlib

import numpy as np

from minigrad.errors import InputError
from minigrad.nn import Module


def fan_in(shape: tuple[int, ...]) -> int:
    """Return how many inputs one output sums: of weight (KH, KW, C, O) or (C, O)."""
    return int(np.prod(shape[:-1]))


def _xavier(rng: np.random.Generator, shape: tuple[int, ...], inputs: int) -> np.ndarray:
    limit = np.sqrt(3 / inputs)
    return rng.uniform(-limit, limit, shape)


def _he(rng: np.random.Generator, shape: tuple[int, ...], inputs: int) -> np.ndarray:
    return rng.normal(0, np.sqrt(2 / inputs), shape)


def _truncated_normal(rng: np.random.Generator, shape: tuple[int, ...], inputs: int) -> np.ndarray:
    from scipy.stats import truncnorm  # here, as it takes half a second and 60 MiB to import

    return truncnorm.rvs(-2, 2, scale=0.01, size=shape, random_state=rng)


SCHEMES = {"xavier": _xavier, "he": _he, "truncated_normal": _truncated_normal}
BATCH_NORM = {"gamma": 1, "beta": 0, "mean": 0, "variance": 1}


def initialise(model: Module, seed: int, *, weight: str = "xavier", bias: float = 0.0,
               zero_bias: tuple[str, ...] = ()) -> None:
    """Fill the parameters of `model`: arrays named weight by the scheme, biases with `bias`, or 0 in modules whose
    name (the path's last part) is in `zero_bias`. Batch norms and their buffers begin anew, whatever `bias` is.

    A depthwise weight (KH, KW, C, M) sums over KH * KW inputs. Raises InputError for an unknown scheme.
    """
    from minigrad.nn import DepthwiseConv2d

    if weight not in SCHEMES:
        raise InputError(f'the initialiser is "{weight}"; choose one of {", ".join(SCHEMES)}')
    depthwise = {path for path, module in model.named_modules() if isinstance(module, DepthwiseConv2d)}
    for path, array in model.state().items():
        where, _, name = path.rpartition("/")
        shape = array.shape
        if name == "bias":
            array[...] = 0 if where.rpartition("/")[2] in zero_bias else bias
        elif name in BATCH_NORM:
            array[...] = BATCH_NORM[name]
        else:
            inputs = shape[0] * shape[1] if where in depthwise else fan_in(shape)
            rng = np.random.default_rng([seed, zlib.crc32(path.encode())])
            array[...] = SCHEMES[weight](rng, shape, inputs)
