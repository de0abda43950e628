"""GoogLeNet as a walk over layers that any library can be asked for, after Table 1 and Caffe's conventions.

`net` has a method for each layer: conv (with bias and ReLU), max_pool, lrn, concat, average (over the whole grid),
linear. Sizes come from the weights, which a layer finds by the path it is given.
"""
from __future__ import annotations

from typing import Any, Protocol

LRN_SIZE, LRN_ALPHA, LRN_BETA, LRN_K = 5, 1e-4, 0.75, 1.0
HEADS = {"inception_4a": "aux1", "inception_4d": "aux2"}
MODULES = ("3a", "3b", "pool", "4a", "4b", "4c", "4d", "4e", "pool", "5a", "5b")


class Layers(Protocol):
    """What a library must offer; x is whatever stands for an array there."""

    def conv(self, x: Any, path: str, stride: int = 1, padding: int = 0) -> Any:
        """Convolution, bias, ReLU."""

    def max_pool(self, x: Any, kernel: int, stride: int, padding: int) -> Any:
        """Max pooling whose output size is rounded up."""

    def lrn(self, x: Any) -> Any:
        """Local response normalisation over channels, alpha divided by the window's size."""

    def concat(self, xs: list[Any]) -> Any:
        """Join along the channels."""

    def average(self, x: Any) -> Any:
        """The mean over the grid: (N, C)."""

    def linear(self, x: Any, path: str) -> Any:
        """A fully connected layer with bias."""


def trunk(net: Layers, x: Any) -> tuple[Any, dict[str, Any]]:
    """Return the mean of the last grid (N, 1024), and what the heads read, by their names."""
    x = net.lrn(net.max_pool(net.conv(x, "conv1", stride=2, padding=3), 3, 2, 0))
    x = net.lrn(net.conv(net.conv(x, "conv2_reduce"), "conv2", padding=1))
    x = net.max_pool(x, 3, 2, 0)
    read = {}
    for name in MODULES:
        x = net.max_pool(x, 3, 2, 0) if name == "pool" else inception(net, x, f"inception_{name}")
        if f"inception_{name}" in HEADS:
            read[HEADS[f"inception_{name}"]] = x
    return net.average(x), read


def inception(net: Layers, x: Any, path: str) -> Any:
    """Fig. 2b of the paper."""
    return net.concat([
        net.conv(x, f"{path}/conv_1x1"),
        net.conv(net.conv(x, f"{path}/conv_3x3_reduce"), f"{path}/conv_3x3", padding=1),
        net.conv(net.conv(x, f"{path}/conv_5x5_reduce"), f"{path}/conv_5x5", padding=2),
        net.conv(net.max_pool(x, 3, 1, 1), f"{path}/pool_proj"),
    ])
