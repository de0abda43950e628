"""torchvision's GoogLeNet as a torch module, under torchvision's names: what our variant and readers are compared with.

It is not the paper's: batch norm (eps 1e-3) in place of biases, no local response normalisation, a 3x3 kernel in the
branch that is called 5x5, a fourth pool of 2x2, and heads that begin with an adaptive average of 4x4.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from googlenet.model import scaled

INCEPTION = {
    #                            #3x3        "5x5"       pool
    # name              #1x1   reduce  3x3  reduce  3x3  proj
    "inception3a": (192,  64,     96, 128,     16,   32,   32),
    "inception3b": (256, 128,    128, 192,     32,   96,   64),
    "inception4a": (480, 192,     96, 208,     16,   48,   64),
    "inception4b": (512, 160,    112, 224,     24,   64,   64),
    "inception4c": (512, 128,    128, 256,     24,   64,   64),
    "inception4d": (512, 112,    144, 288,     32,   64,   64),
    "inception4e": (528, 256,    160, 320,     32,  128,  128),
    "inception5a": (832, 256,    160, 320,     32,  128,  128),
    "inception5b": (832, 384,    192, 384,     48,  128,  128),
}
POOLS = {"inception3b": "maxpool3", "inception4e": "maxpool4"}  # behind which module
HEADS = {"inception4a": "aux1", "inception4d": "aux2"}


class BasicConv2d(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, channels: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0):
        super().__init__()
        self.conv = nn.Conv2d(channels, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


class Inception(nn.Module):
    """Four branches side by side, as wide as a row of INCEPTION says."""

    def __init__(self, channels: int, n1x1: int, reduce3: int, n3x3: int, reduce5: int, n5x5: int, proj: int):
        super().__init__()
        self.branch1 = BasicConv2d(channels, n1x1, 1)
        self.branch2 = nn.Sequential(BasicConv2d(channels, reduce3, 1), BasicConv2d(reduce3, n3x3, 3, padding=1))
        self.branch3 = nn.Sequential(BasicConv2d(channels, reduce5, 1), BasicConv2d(reduce5, n5x5, 3, padding=1))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, padding=1, ceil_mode=True), BasicConv2d(channels, proj, 1))
        self.outputs = n1x1 + n3x3 + n5x5 + proj

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in (self.branch1, self.branch2, self.branch3, self.branch4)], 1)


class InceptionAux(nn.Module):
    """An auxiliary head: mean over 4x4 areas, 1x1 convolution, two fully connected layers."""

    def __init__(self, channels: int, classes: int, width: float):
        super().__init__()
        self.conv = BasicConv2d(channels, scaled(128, width), 1)
        self.fc1 = nn.Linear(scaled(128, width) * 4 * 4, scaled(1024, width))
        self.fc2 = nn.Linear(scaled(1024, width), classes)
        self.dropout = nn.Dropout(0.7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(functional.adaptive_avg_pool2d(x, (4, 4)))
        return self.fc2(self.dropout(functional.relu(self.fc1(torch.flatten(x, 1)))))


class GoogLeNet(nn.Module):
    """The network for images (N, 3, H, W); `width` is a factor on every layer's channels, as ours.

    `transform_input` takes images normalised by ImageNet's mean and deviation back to [-1, 1], which the published
    weights want."""

    def __init__(self, num_classes: int = 1000, aux_logits: bool = True, width: float = 1.0,
                 transform_input: bool = False):
        super().__init__()
        self.transform_input = transform_input
        stem = scaled(64, width)
        self.conv1 = BasicConv2d(3, stem, 7, stride=2, padding=3)
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = BasicConv2d(stem, stem, 1)
        self.conv3 = BasicConv2d(stem, scaled(192, width), 3, padding=1)
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        channels, inputs = scaled(192, width), {}
        for name, (_, *row) in INCEPTION.items():
            module = Inception(channels, *(scaled(n, width) for n in row))
            setattr(self, name, module)
            channels = inputs[name] = module.outputs
            if name in POOLS:
                kernel = 3 if POOLS[name] == "maxpool3" else 2
                setattr(self, POOLS[name], nn.MaxPool2d(kernel, 2, ceil_mode=True))
        if aux_logits:
            for name, head in HEADS.items():
                setattr(self, head, InceptionAux(inputs[name], num_classes, width))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(channels, num_classes)

    def stages(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield our name and the output of every stage in order, the logits ("classifier"), then those of the heads."""
        if self.transform_input:
            mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((.485, .456, .406), (.229, .224, .225)))
            x = x * (std / 0.5) + (mean - 0.5) / 0.5
        for name, ours in (("conv1", "conv1"), ("maxpool1", "pool1"), ("conv2", "conv2_reduce"), ("conv3", "conv2"),
                           ("maxpool2", "pool2")):
            x = getattr(self, name)(x)
            yield ours, x
        heads = {}
        for name in INCEPTION:
            x = getattr(self, name)(x)
            yield name.replace("inception", "inception_"), x
            if hasattr(self, HEADS.get(name, "none")):
                heads[HEADS[name]] = getattr(self, HEADS[name])(x)
            if name in POOLS:
                x = getattr(self, POOLS[name])(x)
                yield POOLS[name].removeprefix("max"), x
        x = torch.flatten(self.avgpool(x), 1)
        yield "pool5", x
        yield "classifier", self.fc(self.dropout(x))
        yield from heads.items()

    def forward(self, x: Tensor) -> Tensor:
        return dict(self.stages(x))["classifier"]


def random_network(seed: int, num_classes: int = 7, aux_logits: bool = True, width: float = 1 / 16,
                   transform_input: bool = False) -> GoogLeNet:
    """Return the network in evaluation mode with random weights, affine factors and running statistics.

    Every batch norm has a mean, a (positive) variance, a gamma and a beta of its own, so that none can be left out or
    taken for another unseen; activations keep their scale through all stages."""
    generator = torch.Generator().manual_seed(seed)
    network = GoogLeNet(num_classes, aux_logits, width, transform_input)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
                if module.bias is not None:
                    module.bias.normal_(0, 0.1, generator=generator)
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.uniform_(-0.5, 0.5, generator=generator)
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
                module.num_batches_tracked.fill_(1000)
    return network.eval()
