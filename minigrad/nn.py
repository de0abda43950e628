"""Modules: layers with parameters, and networks made of them.

A module's parameters are found by walking its attributes in the order they were assigned; a parameter's name is its
attribute path, `inception_3a/conv_5x5_reduce/weight`, which is also its path in an HDF5 file.
"""
import zlib
from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from minigrad import ops
from minigrad.errors import InputError
from minigrad.kernels.windows import Padding, Pair, pair
from minigrad.tensor import Tensor


class Parameter(Tensor):
    """A tensor that training changes."""

    def __init__(self, data: np.ndarray):
        super().__init__(data, requires_grad=True)


class Module:
    """A part of a network: attributes that are parameters or modules belong to it; `forward` computes it."""

    training = True

    def forward(self, *inputs: Any) -> Any:
        """Compute the module's output."""
        raise NotImplementedError

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        return self.forward(*inputs, **options)

    def named_modules(self, path: str = "") -> "Iterator[tuple[str, Module]]":
        """Yield (path, module) for this module ("") and all below it."""
        yield path, self
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield from value.named_modules(f"{path}/{name}" if path else name)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield (path, parameter) for all parameters below this module."""
        for path, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter):
                    yield f"{path}/{name}" if path else name, value

    def parameters(self) -> dict[str, np.ndarray]:
        """Return {path: array} of all parameters; the arrays are the parameters' own, not copies."""
        return {path: parameter.data for path, parameter in self.named_parameters()}

    def train(self, mode: bool = True) -> Self:
        """Switch to training (dropout and auxiliary heads work) or back; returns the module."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Switch to testing; returns the module."""
        return self.train(False)


class Conv2d(Module):
    """A convolution with bias, and the ReLU that follows it unless relu=False; weight (KH, KW, C, O), bias (O,)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: Pair, *, stride: Pair = 1, padding: Padding = 0,
                 relu: bool = True, dtype: Any = np.float32):
        self.weight = Parameter(np.zeros((*pair(kernel, "kernel"), in_channels, out_channels), dtype))
        self.bias = Parameter(np.zeros(out_channels, dtype))
        self.stride, self.padding, self.relu = stride, padding, relu

    def forward(self, x: Tensor, out: np.ndarray | None = None) -> Tensor:
        """x (N, H, W, C) -> (N, OH, OW, O), written into `out` if given."""
        return ops.conv2d(x, self.weight, self.bias, stride=self.stride, padding=self.padding, relu=self.relu, out=out)


class DepthwiseConv2d(Module):
    """Filters for each channel alone, without bias; weight (KH, KW, C, multiplier)."""

    def __init__(self, channels: int, multiplier: int, kernel: Pair, *, stride: Pair = 1, padding: Padding = 0,
                 dtype: Any = np.float32):
        self.weight = Parameter(np.zeros((*pair(kernel, "kernel"), channels, multiplier), dtype))
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """x (N, H, W, C) -> (N, OH, OW, C * multiplier)."""
        return ops.depthwise_conv2d(x, self.weight, stride=self.stride, padding=self.padding)


class Linear(Module):
    """A fully connected layer; weight (C, O), bias (O,)."""

    def __init__(self, in_features: int, out_features: int, *, relu: bool = False, dtype: Any = np.float32):
        self.weight = Parameter(np.zeros((in_features, out_features), dtype))
        self.bias = Parameter(np.zeros(out_features, dtype))
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C) -> (N, O)."""
        return ops.linear(x, self.weight, self.bias, relu=self.relu)


class Dropout(Module):
    """Dropout in training, nothing in testing. Its masks follow from `seed_dropout`."""

    def __init__(self, rate: float):
        self.rate = rate
        self.key: dict[str, int] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape -> the same shape."""
        if not self.training or self.rate == 0:
            return x
        if self.key is None:
            raise InputError("dropout has no seed yet: call nn.seed_dropout(model, seed, step) before each step, "
                             "or model.eval() to test")
        return ops.dropout(x, self.rate, **self.key)


def seed_dropout(module: Module, seed: int, step: int) -> None:
    """Give every dropout below `module` its mask for this training step; each place has a stream of its own."""
    for path, each in module.named_modules():
        if isinstance(each, Dropout):
            each.key = {"seed": seed, "step": step, "stream": zlib.crc32(path.encode())}
