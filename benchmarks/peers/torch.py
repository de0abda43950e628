"""PyTorch, eager or compiled, channels last; its LRN as the library has it, or as one function written by hand."""
from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  (as everyone calls it)

from benchmarks.job import AUX_WEIGHT, DECAY, MOMENTUM, RATE, Job, Network, Training
from benchmarks.peers.network import HEADS, LRN_ALPHA, LRN_BETA, LRN_K, LRN_SIZE, trunk


def prepare(job: Job) -> None:
    """Write the network as torch_predict.py reads it: whole, so that loading fills no weights with random numbers."""
    torch.save(_model(job, fused_lrn=False).eval(), job.file("network.pt"))


def inference(job: Job, fused_lrn: bool = False, compiled: bool = False) -> Network:
    """Return the network in inference mode."""
    model = _model(job, fused_lrn).eval()
    run = torch.compile(model) if compiled else model

    def infer(x: torch.Tensor) -> np.ndarray:
        with torch.inference_mode():
            return run(x)[0].numpy()

    return Network(_placed, infer)


def training(job: Job, fused_lrn: bool = False, compiled: bool = False) -> Training:
    """Return steps with three heads and SGD with momentum."""
    model = _model(job, fused_lrn).train()
    run = torch.compile(model) if compiled else model
    images, labels = job.images()
    x, targets = _placed(images), torch.from_numpy(labels)
    sgd = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)

    def gradient() -> list[torch.Tensor]:
        sgd.zero_grad()
        heads = run(x)
        main, aux1, aux2 = (F.cross_entropy(logits, targets) for logits in heads)
        (main + AUX_WEIGHT * aux1 + AUX_WEIGHT * aux2).backward()
        return heads

    def step() -> None:
        gradient()
        sgd.step()

    def outputs() -> dict[str, np.ndarray]:
        model.dropping = False
        logits = [y.detach().numpy() for y in gradient()]
        model.dropping = True
        weight = model.layers["conv1"].weight.grad.numpy().transpose(2, 3, 1, 0)  # -> (KH, KW, C, O)
        return {"logits": logits[0], "aux1": logits[1], "aux2": logits[2], "gradient": weight.copy()}

    return Training(outputs, step)


def _placed(x: np.ndarray) -> torch.Tensor:
    """(N, H, W, C) is PyTorch's (N, C, H, W) in the order channels_last: nothing is copied."""
    return torch.from_numpy(x).permute(0, 3, 1, 2)


def _model(job: Job, fused_lrn: bool) -> GoogLeNet:
    torch.set_num_threads(job.threads)
    return GoogLeNet(job.weights(), fused_lrn).to(memory_format=torch.channels_last)


class FusedLrn(torch.autograd.Function):
    """LRN as one function with a gradient of its own: what PyTorch can do when it is helped."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        scale = LRN_K + LRN_ALPHA / LRN_SIZE * _window_sum(x.square())
        y = x * scale.pow(-LRN_BETA)
        ctx.save_for_backward(x, y, scale)
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> torch.Tensor:
        x, y, scale = ctx.saved_tensors
        terms = _window_sum(dy * y / scale)
        return dy * scale.pow(-LRN_BETA) - 2 * LRN_ALPHA * LRN_BETA / LRN_SIZE * x * terms


def _window_sum(x: torch.Tensor) -> torch.Tensor:
    """Return the sum over each channel's neighbours."""
    wide, C = F.pad(x, (0, 0, 0, 0, LRN_SIZE // 2, LRN_SIZE // 2)), x.shape[1]
    return sum(wide[:, i:i + C] for i in range(1, LRN_SIZE)) + wide[:, :C]


class GoogLeNet(nn.Module):
    """The network with its heads; the heads are computed in training only."""

    def __init__(self, weights: dict[str, np.ndarray], fused_lrn: bool):
        super().__init__()
        self.fused_lrn, self.dropping = fused_lrn, True
        self.layers = nn.ModuleDict()
        for path in weights:
            layer, _, kind = path.rpartition("/")
            if kind == "weight":
                self.layers[layer] = _layer(weights[path], weights[f"{layer}/bias"])

    def conv(self, x: torch.Tensor, path: str, stride: int = 1, padding: int = 0) -> torch.Tensor:
        """Convolution, bias, ReLU."""
        layer = self.layers[path]
        return F.relu_(F.conv2d(x, layer.weight, layer.bias, stride, padding))

    def max_pool(self, x: torch.Tensor, kernel: int, stride: int, padding: int) -> torch.Tensor:
        """Max pooling, rounded up."""
        return F.max_pool2d(x, kernel, stride, padding, ceil_mode=True)

    def lrn(self, x: torch.Tensor) -> torch.Tensor:
        """Local response normalisation; PyTorch divides alpha by the size as well."""
        if self.fused_lrn:
            return FusedLrn.apply(x)
        return F.local_response_norm(x, LRN_SIZE, LRN_ALPHA, LRN_BETA, LRN_K)

    def concat(self, xs: list[torch.Tensor]) -> torch.Tensor:
        """Join along the channels."""
        return torch.cat(xs, 1)

    def average(self, x: torch.Tensor) -> torch.Tensor:
        """The mean over the grid."""
        return x.mean((2, 3))

    def linear(self, x: torch.Tensor, path: str) -> torch.Tensor:
        """A fully connected layer."""
        return self.layers[path](x)

    def head(self, x: torch.Tensor, path: str) -> torch.Tensor:
        """The paper's section 5."""
        x = self.conv(F.avg_pool2d(x, min(5, x.shape[2]), 3), f"{path}/conv")
        x = x.permute(0, 2, 3, 1).flatten(1)  # our order of features: H, W, C
        x = F.dropout(F.relu_(self.linear(x, f"{path}/fc")), 0.7, self.dropping)
        return self.linear(x, f"{path}/classifier")

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(N, 3, S, S) -> logits; in training also those of both heads."""
        features, read = trunk(self, x)
        if not self.training:
            return (self.linear(features, "classifier"),)
        main = self.linear(F.dropout(features, 0.4, self.dropping), "classifier")
        return main, *(self.head(read[name], name) for name in HEADS.values())


def _layer(weight: np.ndarray, bias: np.ndarray) -> nn.Module:
    """Return a layer with our arrays: (KH, KW, C, O) -> (O, C, KH, KW), (C, O) -> (O, C)."""
    *kernel, C, O = weight.shape
    layer = nn.Conv2d(C, O, tuple(kernel)) if kernel else nn.Linear(C, O)
    order = (3, 2, 0, 1) if kernel else (1, 0)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight.transpose(order))))
        layer.bias.copy_(torch.from_numpy(bias))
    return layer
