"""Weights without batch norm, each one folded into its convolution: what a network computes, whoever stored it."""

from __future__ import annotations

from dataclasses import replace

from googlenet.model import GoogLeNet, has_batch_norm
from googlenet.weights.fitting import require_same
from googlenet.weights.weights import Weights


def folded(weights: Weights) -> Weights:
    """Return weights of the same function in testing, to rounding, without batch norm.

    Other than `Weights.model` it takes values that are not finite. Raises InputError for arrays that do not fit."""
    if not has_batch_norm(weights.config):
        return weights
    model = GoogLeNet(weights.config)
    own = model.state()
    found = {path: array.shape for path, array in weights.arrays.items()}
    require_same({path: array.shape for path, array in own.items()}, found, "the file", "Use another copy of it.")
    for path, array in own.items():
        array[...] = weights.arrays[path]
    made = model.folded()
    return replace(weights, config=made.config, arrays=made.state())
