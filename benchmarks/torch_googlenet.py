"""GoogLeNet in PyTorch, as Caffe has it, filled with our weights: the peer of the benchmarks."""
from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  (as everyone calls it)

from googlenet.model import TABLE_1

SIZE, ALPHA, BETA = 5, 1e-4, 0.75


class FusedLrn(torch.autograd.Function):
    """LRN as one function with a gradient of its own: what PyTorch can do when it is helped."""

    @staticmethod
    def forward(ctx, x):
        squares = F.pad(x.square(), (0, 0, 0, 0, SIZE // 2, SIZE // 2))
        C = x.shape[1]
        scale = 1 + ALPHA / SIZE * sum(squares[:, i:i + C] for i in range(SIZE))
        y = x * scale.pow(-BETA)
        ctx.save_for_backward(x, y, scale)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, y, scale = ctx.saved_tensors
        terms = F.pad(dy * y / scale, (0, 0, 0, 0, SIZE // 2, SIZE // 2))
        C = x.shape[1]
        return dy * scale.pow(-BETA) - 2 * ALPHA * BETA / SIZE * x * sum(terms[:, i:i + C] for i in range(SIZE))


class Inception(nn.Module):
    def __init__(self, channels: int, row):
        super().__init__()
        self.conv_1x1 = nn.Conv2d(channels, row.n1x1, 1)
        self.conv_3x3_reduce = nn.Conv2d(channels, row.n3x3_reduce, 1)
        self.conv_3x3 = nn.Conv2d(row.n3x3_reduce, row.n3x3, 3, padding=1)
        self.conv_5x5_reduce = nn.Conv2d(channels, row.n5x5_reduce, 1)
        self.conv_5x5 = nn.Conv2d(row.n5x5_reduce, row.n5x5, 5, padding=2)
        self.pool_proj = nn.Conv2d(channels, row.pool_proj, 1)

    def forward(self, x):
        relu = F.relu_
        return torch.cat([relu(self.conv_1x1(x)), relu(self.conv_3x3(relu(self.conv_3x3_reduce(x)))),
                          relu(self.conv_5x5(relu(self.conv_5x5_reduce(x)))),
                          relu(self.pool_proj(F.max_pool2d(x, 3, 1, 1)))], 1)


class Head(nn.Module):
    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(channels, 128, 1), nn.Linear(2048, 1024)
        self.classifier = nn.Linear(1024, classes)

    def forward(self, x):
        x = F.relu_(self.conv(F.avg_pool2d(x, 5, 3))).permute(0, 2, 3, 1).flatten(1)  # our order: H, W, C
        return self.classifier(F.dropout(F.relu_(self.fc(x)), 0.7, self.training))


class TorchGoogLeNet(nn.Module):
    def __init__(self, classes: int, fused_lrn: bool):
        super().__init__()
        self.fused_lrn = fused_lrn
        self.conv1, self.conv2_reduce = nn.Conv2d(3, 64, 7, 2, 3), nn.Conv2d(64, 64, 1)
        self.conv2 = nn.Conv2d(64, 192, 3, padding=1)
        channels = 192
        for row in TABLE_1:
            if row.type == "inception":
                setattr(self, row.name, Inception(channels, row))
                channels = row.output
        self.aux1, self.aux2 = Head(512, classes), Head(528, classes)
        self.classifier = nn.Linear(1024, classes)

    def load(self, weights: dict[str, np.ndarray]) -> None:
        """Take our arrays: (KH, KW, C, O) -> (O, C, KH, KW), (C, O) -> (O, C)."""
        parameters = dict(self.named_parameters())
        assert {name.replace("/", ".") for name in weights} == set(parameters)
        for name, array in weights.items():
            order = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[array.ndim]
            with torch.no_grad():
                parameters[name.replace("/", ".")].copy_(torch.from_numpy(np.ascontiguousarray(array.transpose(order))))

    def lrn(self, x):
        return FusedLrn.apply(x) if self.fused_lrn else F.local_response_norm(x, SIZE, ALPHA, BETA, 1.0)

    def forward(self, x):
        x = F.max_pool2d(F.relu_(self.conv1(x)), 3, 2, ceil_mode=True)
        x = self.lrn(x)
        x = F.relu_(self.conv2(F.relu_(self.conv2_reduce(x))))
        x = F.max_pool2d(self.lrn(x), 3, 2, ceil_mode=True)
        outputs = {}
        for row in TABLE_1[4:]:
            if row.type == "max pool":
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
            elif row.type == "inception":
                x = getattr(self, row.name)(x)
                outputs[row.name] = x
        main = self.classifier(F.dropout(x.mean((2, 3)), 0.4, self.training))
        if not self.training:
            return main, None, None
        return main, self.aux1(outputs["inception_4a"]), self.aux2(outputs["inception_4d"])
