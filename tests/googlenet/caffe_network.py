"""BVLC's GoogLeNet in training, on torch's functions and under Caffe's names: what our steps are compared with.

Layers and their order are those of BVLC's train_val.prototxt, the update that of Caffe's SGD solver. There is no
dropout, whose masks no two frameworks share. The arrays are Caffe's, in its layouts: (O, C, KH, KW), (O, C), (O,).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

HEADS = {"inception_4a": "loss1", "inception_4d": "loss2"}
HEAD_WEIGHT = 0.3  # loss_weight of loss1/loss1 and loss2/loss1
POOLED = ("inception_3b", "inception_4e")  # modules that a pool follows
MODULES = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")


def head_arrays(seed: int, classes: int = 1000) -> dict[str, np.ndarray]:
    """Both heads, which the published weights lack: uniform weights in +-sqrt(3 / fan-in), and small biases.

    Those of the classifiers are a tenth of that, so that a head's loss begins at that of a guess, ln(classes)."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for head, channels in (("loss1", 512), ("loss2", 528)):
        shapes = {"conv": (128, channels, 1, 1), "fc": (1024, 128 * 4 * 4), "classifier": (classes, 1024)}
        for layer, shape in shapes.items():
            limit = np.sqrt(3 / np.prod(shape[1:])) * (0.1 if layer == "classifier" else 1)
            arrays[f"{head}/{layer}/weight"] = rng.uniform(-limit, limit, shape).astype(np.float32)
            arrays[f"{head}/{layer}/bias"] = rng.uniform(-0.1, 0.2, shape[0]).astype(np.float32)
    return arrays


class CaffeNetwork:
    """The network and its solver: `arrays` are the weights by Caffe's names; `velocity` likewise."""

    def __init__(self, arrays: dict[str, np.ndarray], dtype: torch.dtype):
        self.arrays = {name: torch.tensor(a, dtype=dtype).requires_grad_() for name, a in arrays.items()}
        self.velocity = {name: torch.zeros_like(a) for name, a in self.arrays.items()}

    def _conv(self, x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        weight, bias = self.arrays[f"{name}/weight"], self.arrays[f"{name}/bias"]
        return functional.relu(functional.conv2d(x, weight, bias, stride, padding))

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return functional.linear(x, self.arrays[f"{name}/weight"], self.arrays[f"{name}/bias"])

    def _inception(self, x: Tensor, name: str) -> Tensor:
        pooled = functional.max_pool2d(x, 3, 1, 1)
        return torch.cat([
            self._conv(x, f"{name}/1x1"),
            self._conv(self._conv(x, f"{name}/3x3_reduce"), f"{name}/3x3", padding=1),
            self._conv(self._conv(x, f"{name}/5x5_reduce"), f"{name}/5x5", padding=2),
            self._conv(pooled, f"{name}/pool_proj"),
        ], 1)

    def _head(self, x: Tensor, name: str) -> Tensor:
        x = self._conv(functional.avg_pool2d(x, 5, 3), f"{name}/conv")
        x = functional.relu(self._linear(x.flatten(1), f"{name}/fc"))
        return self._linear(x, f"{name}/classifier")

    def logits(self, x: Tensor) -> dict[str, Tensor]:
        """(N, 3, 224, 224) -> the logits (N, classes) of loss1, loss2 and loss3."""
        x = _max_pool(self._conv(x, "conv1/7x7_s2", stride=2, padding=3))
        x = self._conv(_lrn(x), "conv2/3x3_reduce")
        x = _max_pool(_lrn(self._conv(x, "conv2/3x3", padding=1)))
        logits = {}
        for name in (f"inception_{module}" for module in MODULES):
            x = self._inception(x, name)
            if name in HEADS:
                logits[HEADS[name]] = self._head(x, HEADS[name])
            if name in POOLED:
                x = _max_pool(x)
        x = functional.avg_pool2d(x, 7).flatten(1)
        return {**logits, "loss3": self._linear(x, "loss3/classifier")}

    def step(self, x: Tensor, labels: Tensor, rate: float, momentum: float, decay: float) -> dict[str, float]:
        """Update the weights by a batch; return the losses before it: "loss1", "loss2", "loss3" and their "total".

        v <- momentum v + rate lr_mult (dw + decay decay_mult w);  w <- w - v, where lr_mult is 2 and decay_mult 0 for
        biases, and both 1 for weights."""
        x = x.to(self.arrays["conv1/7x7_s2/weight"].dtype)
        losses = {name: functional.cross_entropy(y, labels) for name, y in self.logits(x).items()}
        losses["total"] = losses["loss3"] + HEAD_WEIGHT * losses["loss1"] + HEAD_WEIGHT * losses["loss2"]
        gradients = torch.autograd.grad(losses["total"], list(self.arrays.values()))
        with torch.no_grad():
            for (name, w), dw in zip(self.arrays.items(), gradients, strict=True):
                rate_factor, decay_factor = (2, 0) if name.endswith("/bias") else (1, 1)
                v = self.velocity[name]
                v.copy_(momentum * v + rate * rate_factor * (dw + decay * decay_factor * w))
                w -= v
        return {name: loss.item() for name, loss in losses.items()}


def _max_pool(x: Tensor) -> Tensor:
    return functional.max_pool2d(x, 3, 2, ceil_mode=True)


def _lrn(x: Tensor) -> Tensor:
    """local_size 5, alpha 1e-4 (divided by the size, in torch as in Caffe), beta 0.75, k 1."""
    return functional.local_response_norm(x, 5, 1e-4, 0.75, 1.0)
