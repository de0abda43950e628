"""Modules: layers with parameters and buffers, and networks made of them.

A module's parameters are found by walking its attributes in the order they were assigned; a parameter's name is its
attribute path, `inception_3a/conv_5x5_reduce/weight`, which is also its path in an HDF5 file. So are its buffers.
"""
import zlib
from collections.abc import Iterator
from typing import Any, Self, TypeVar

import numpy as np

from minigrad import ops
from minigrad.errors import InputError
from minigrad.kernels.windows import Padding, Pair, pair
from minigrad.tensor import Tensor


class Parameter(Tensor):
    """A tensor that training changes."""

    def __init__(self, data: np.ndarray):
        super().__init__(data, requires_grad=True)


class Buffer:
    """An array that training changes, but no gradient does, such as the running mean of a batch norm."""

    def __init__(self, data: np.ndarray):
        self.data = data

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of `data`."""
        return self.data.shape

    @property
    def dtype(self) -> np.dtype:
        """The dtype of `data`."""
        return self.data.dtype


Held = TypeVar("Held", Parameter, Buffer)


class Module:
    """A part of a network: attributes that are parameters, buffers or modules belong to it; `forward` computes it."""

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
        return self._named(Parameter)

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        """Yield (path, buffer) for all buffers below this module."""
        return self._named(Buffer)

    def _named(self, kind: type[Held]) -> Iterator[tuple[str, Held]]:
        for path, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, kind):
                    yield f"{path}/{name}" if path else name, value

    def parameters(self) -> dict[str, np.ndarray]:
        """Return {path: array} of all parameters; the arrays are the parameters' own, not copies."""
        return {path: parameter.data for path, parameter in self.named_parameters()}

    def state(self) -> dict[str, np.ndarray]:
        """Return {path: array} of all parameters, then of all buffers; the arrays are their own, not copies."""
        return self.parameters() | {path: buffer.data for path, buffer in self.named_buffers()}

    def train(self, mode: bool = True) -> Self:
        """Switch to training (dropout and auxiliary heads work, batch norms see the batch) or back; returns the
        module."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Switch to testing; returns the module."""
        return self.train(False)


class BatchNorm(Module):
    """Batch normalisation, then ReLU if relu=True; gamma (C,), or None for gamma=False, beta (C,).

    `mean` and `variance` (C,) are the running statistics. Training normalises by the batch's and keeps `decay` of the
    running ones, PyTorch's 1 - momentum; testing normalises by the running ones.
    """

    def __init__(self, channels: int, *, gamma: bool = True, eps: float = 1e-3, decay: float = 0.9, relu: bool = False,
                 dtype: Any = np.float32):
        self.gamma = Parameter(np.ones(channels, dtype)) if gamma else None
        self.beta = Parameter(np.zeros(channels, dtype))
        self.mean, self.variance = Buffer(np.zeros(channels, dtype)), Buffer(np.ones(channels, dtype))
        self.eps, self.decay, self.relu = eps, decay, relu

    def forward(self, x: Tensor, out: np.ndarray | None = None) -> Tensor:
        """x (..., C) -> the same shape, written into `out` if given."""
        return ops.batch_norm(x, self.gamma, self.beta, mean=self.mean.data, variance=self.variance.data, eps=self.eps,
                              decay=self.decay, training=self.training, relu=self.relu, out=out)


class Conv2d(Module):
    """A convolution with bias, and the ReLU that follows it unless relu=False; weight (KH, KW, C, O), bias (O,).

    A batch norm, if given, comes between the two: its beta stands for the bias, which is None, and it does the ReLU.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: Pair, *, stride: Pair = 1, padding: Padding = 0,
                 relu: bool = True, dtype: Any = np.float32, batch_norm: BatchNorm | None = None):
        self.weight = Parameter(np.zeros((*pair(kernel, "kernel"), in_channels, out_channels), dtype))
        self.bias = Parameter(np.zeros(out_channels, dtype)) if batch_norm is None else None
        self.stride, self.padding, self.relu, self.batch_norm = stride, padding, relu, batch_norm
        if batch_norm is not None:
            if (batch_norm.beta.shape, batch_norm.beta.dtype) != ((out_channels,), self.weight.dtype):
                raise InputError(f"expected a batch norm of {out_channels} channels of {self.weight.dtype}, "
                                 f"got {batch_norm.beta.shape[0]} of {batch_norm.beta.dtype}")
            batch_norm.relu = relu

    def forward(self, x: Tensor, out: np.ndarray | None = None) -> Tensor:
        """x (N, H, W, C) -> (N, OH, OW, O), written into `out` if given."""
        if self.batch_norm is None:
            return ops.conv2d(x, self.weight, self.bias, stride=self.stride, padding=self.padding, relu=self.relu,
                              out=out)
        return self.batch_norm(ops.conv2d(x, self.weight, stride=self.stride, padding=self.padding), out=out)

    def folded(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the weight and bias of the convolution that computes in testing what this one and its batch norm do.

        Computed in float64 and rounded once; without a batch norm they are the module's own arrays.
        """
        norm = self.batch_norm
        if norm is None:
            assert self.bias is not None
            return self.weight.data, self.bias.data
        deviation = np.sqrt(norm.variance.data.astype(np.float64) + norm.eps)
        scale = 1 / deviation if norm.gamma is None else norm.gamma.data / deviation
        bias = norm.beta.data - norm.mean.data * scale
        return (self.weight.data * scale).astype(self.weight.dtype), bias.astype(self.weight.dtype)


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
