"""GoogLeNet: Table 1 of "Going Deeper with Convolutions" (arXiv 1409.4842), and the modules its rows are made of.

The network is a chain of named stages, each an attribute of `GoogLeNet`; the path of a weight's attributes is also its
path in weight files: `inception_3a/conv_5x5_reduce/weight`. What the table leaves out is in Fig. 3: a local response
normalisation after the first pool and another before the second. ReLU follows every convolution.

Arrays are (N, H, W, C). S is the side of the input, 224 in the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from data.preprocess import Preprocessing
from googlenet.config import ModelConfig
from minigrad import Tensor, nn, ops
from minigrad.errors import InputError
from minigrad.kernels.windows import windows


class Row(NamedTuple):
    """A row of Table 1: `output` is its channels at the network's full width."""

    name: str
    type: str
    kernel: int
    stride: int
    output: int
    n1x1: int = 0
    n3x3_reduce: int = 0
    n3x3: int = 0
    n5x5_reduce: int = 0
    n5x5: int = 0
    pool_proj: int = 0


TABLE_1 = (
    #                                 patch,                    #3x3        #5x5        pool
    #   name            type          stride      output  #1x1 reduce  #3x3 reduce  #5x5  proj
    Row("conv1",        "convolution",  7, 2,         64),
    Row("pool1",        "max pool",     3, 2,         64),
    Row("conv2",        "convolution",  3, 1,        192,     0,    64,  192),
    Row("pool2",        "max pool",     3, 2,        192),
    Row("inception_3a", "inception",    0, 0,        256,    64,    96,  128,     16,   32,   32),
    Row("inception_3b", "inception",    0, 0,        480,   128,   128,  192,     32,   96,   64),
    Row("pool3",        "max pool",     3, 2,        480),
    Row("inception_4a", "inception",    0, 0,        512,   192,    96,  208,     16,   48,   64),
    Row("inception_4b", "inception",    0, 0,        512,   160,   112,  224,     24,   64,   64),
    Row("inception_4c", "inception",    0, 0,        512,   128,   128,  256,     24,   64,   64),
    Row("inception_4d", "inception",    0, 0,        528,   112,   144,  288,     32,   64,   64),
    Row("inception_4e", "inception",    0, 0,        832,   256,   160,  320,     32,  128,  128),
    Row("pool4",        "max pool",     3, 2,        832),
    Row("inception_5a", "inception",    0, 0,        832,   256,   160,  320,     32,  128,  128),
    Row("inception_5b", "inception",    0, 0,       1024,   384,   192,  384,     48,  128,  128),
    Row("pool5",        "avg pool",     7, 1,       1024),
    Row("dropout",      "dropout",      0, 0,       1024),
    Row("classifier",   "linear",       0, 0,       1000),
)

NORMALISED = {"pool1": "norm1", "conv2": "norm2"}  # Fig. 3: the stage that a local response normalisation follows
HEADS = {"inception_4a": "aux1", "inception_4d": "aux2"}
HEAD_CHANNELS, HEAD_FEATURES = 128, 1024  # the paper's section 5
FULLY_CONNECTED = 1024  # ours: as many features as the average pool gives


class Variant(NamedTuple):
    """What readings of the paper differ in: layers, and the images they want (see data.preprocess.Preprocessing)."""

    conv1_padding: int | str
    pool_padding: int | str
    pool_ceil: bool
    fit: str
    order: str
    mean: tuple[float, float, float]


VARIANTS = {
    #                conv1   pools  rounded up  images          mean of ImageNet's images
    "paper": Variant("same", "same", False,     "short", "RGB", (123.0, 117.0, 104.0)),  # Fig. 3; the mean is BVLC's
    "caffe": Variant(3,      0,      True,      "warp",  "BGR", (104.0, 117.0, 123.0)),  # BVLC's bvlc_googlenet
}


class Outputs(NamedTuple):
    """Logits (N, classes) of the classifier and of both heads; a head is None in testing, or where it isn't built."""

    logits: Tensor
    aux1: Tensor | None
    aux2: Tensor | None


class SeparableStem(nn.Module):
    """A 7x7/2 depthwise convolution of multiplier 8, then 1x1: 2,712 weights, what Table 1 prints for its first row.

    The paper does not say that its first layer is separable; the two printed numbers fit nothing else. ReLU follows the
    second of the two only, as in TensorFlow."""

    def __init__(self, channels: int, output: int, padding: int | str, dtype: np.dtype):
        self.kernel, self.stride = 7, 2
        self.depthwise = nn.DepthwiseConv2d(channels, 8, self.kernel, stride=self.stride, padding=padding, dtype=dtype)
        self.pointwise = nn.Conv2d(8 * channels, output, 1, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))  # (N, S, S, 3) -> (N, S/2, S/2, 24) -> (N, S/2, S/2, 64)


class MaxPool(nn.Module):
    """Max pooling, 3x3 with stride 2 between stages."""

    def __init__(self, kernel: int, stride: int, padding: int | str, ceil: bool):
        self.kernel, self.stride, self.padding, self.ceil = kernel, stride, padding, ceil

    def forward(self, x: Tensor) -> Tensor:
        return ops.max_pool2d(x, self.kernel, stride=self.stride, padding=self.padding, ceil=self.ceil)


class LocalResponseNorm(nn.Module):
    """Local response normalisation with Caffe's constants (the paper gives none)."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.lrn(x, size=5, alpha=1e-4, beta=0.75, k=1.0)


class GlobalAverage(nn.Module):
    """The mean over the whole grid, 7x7 at S = 224: (N, H, W, C) -> (N, C)."""

    def __init__(self, kernel: int):
        self.kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        return ops.reshape(ops.avg_pool2d(x, self.kernel, stride=1), (x.shape[0], x.shape[3]))


class Flatten(nn.Module):
    """(N, H, W, C) -> (N, H * W * C)."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.reshape(x, (x.shape[0], int(np.prod(x.shape[1:]))))


class InceptionModule(nn.Module):
    """Fig. 2b: 1x1, 1x1 -> 3x3, 1x1 -> 5x5 and max pool -> 1x1, side by side: (N, H, W, C) -> (N, H, W, O)."""

    def __init__(self, channels: int, row: Row, dtype: np.dtype):
        self.conv_1x1 = nn.Conv2d(channels, row.n1x1, 1, dtype=dtype)
        self.conv_3x3_reduce = nn.Conv2d(channels, row.n3x3_reduce, 1, dtype=dtype)
        self.conv_3x3 = nn.Conv2d(row.n3x3_reduce, row.n3x3, 3, padding=1, dtype=dtype)
        self.conv_5x5_reduce = nn.Conv2d(channels, row.n5x5_reduce, 1, dtype=dtype)
        self.conv_5x5 = nn.Conv2d(row.n5x5_reduce, row.n5x5, 5, padding=2, dtype=dtype)
        self.pool_proj = nn.Conv2d(channels, row.pool_proj, 1, dtype=dtype)
        self.ends = np.cumsum([row.n1x1, row.n3x3, row.n5x5, row.pool_proj])
        self.output = int(self.ends[-1])

    def forward(self, x: Tensor) -> Tensor:
        # Every branch writes into its channels of one buffer, so that nothing is left for the concatenation to copy.
        out = np.split(ops.empty((*x.shape[:3], self.output), x.dtype), self.ends[:-1], axis=-1)
        first = (self.conv_1x1, self.conv_3x3_reduce, self.conv_5x5_reduce)
        y_1x1, reduce_3x3, reduce_5x5 = ops.pointwise(x, [(conv.weight, conv.bias) for conv in first],
                                                      outs=[out[0], None, None])
        return ops.concat([
            y_1x1,
            self.conv_3x3(reduce_3x3, out=out[1]),
            self.conv_5x5(reduce_5x5, out=out[2]),
            self.pool_proj(ops.max_pool2d(x, 3, stride=1, padding=1), out=out[3]),
        ])


class NaiveInception(nn.Module):
    """Fig. 2a: 1x1, 3x3, 5x5 and max pool side by side, without reductions, so that channels can only grow."""

    def __init__(self, channels: int, row: Row, dtype: np.dtype):
        self.conv_1x1 = nn.Conv2d(channels, row.n1x1, 1, dtype=dtype)
        self.conv_3x3 = nn.Conv2d(channels, row.n3x3, 3, padding=1, dtype=dtype)
        self.conv_5x5 = nn.Conv2d(channels, row.n5x5, 5, padding=2, dtype=dtype)
        self.output = row.n1x1 + row.n3x3 + row.n5x5 + channels

    def forward(self, x: Tensor) -> Tensor:
        pooled = ops.max_pool2d(x, 3, stride=1, padding=1)
        return ops.concat([self.conv_1x1(x), self.conv_3x3(x), self.conv_5x5(x), pooled])


class AuxiliaryHead(nn.Module):
    """The paper's section 5: average pool 5x5/3, 1x1 convolution, fully connected, dropout, linear: -> (N, classes).

    On a grid below 5 the pool's window is the whole grid."""

    def __init__(self, channels: int, size: int, config: ModelConfig):
        dtype = np.dtype(config.dtype)
        width, features = scaled(HEAD_CHANNELS, config.width), scaled(HEAD_FEATURES, config.width)
        self.window = min(5, size)
        self.size = (size - self.window) // 3 + 1
        self.conv = nn.Conv2d(channels, width, 1, dtype=dtype)
        self.fc = nn.Linear(self.size * self.size * width, features, relu=True, dtype=dtype)
        self.dropout = nn.Dropout(config.aux_dropout)
        self.classifier = nn.Linear(features, config.classes, dtype=dtype)
        self.flatten = Flatten()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(ops.avg_pool2d(x, self.window, stride=3))  # (N, 14, 14, C) -> (N, 4, 4, C) -> (N, 4, 4, 128)
        return self.classifier(self.dropout(self.fc(self.flatten(x))))


class GoogLeNet(nn.Module):
    """The network of a `ModelConfig`; weights are zero until `minigrad.init` fills them or a file is read.

    `stage_shapes` has its stages in order and the shape of each one's output without the batch, (H, W, C) or (C,);
    `rows` the stages that a row of Table 1 became; `heads` the stage and the name of each auxiliary head."""

    def __init__(self, config: ModelConfig | None = None):
        self.config = config or ModelConfig()
        self.stage_shapes: dict[str, tuple[int, ...]] = {}
        shape: tuple[int, ...] = (self.config.image_size, self.config.image_size, 3)
        self.rows: dict[str, tuple[str, ...]] = {}
        for row in TABLE_1:
            stages = list(_stages(row, shape, self.config))
            for name, module, shape in stages:
                setattr(self, name, module)
                self.stage_shapes[name] = shape
            self.rows[row.name] = tuple(name for name, _, _ in stages)
        self.heads = {stage: head for stage, head in HEADS.items() if self.config.heads in (head, "both")}
        for stage, head in self.heads.items():
            size, _, channels = self.stage_shapes[stage]
            setattr(self, head, AuxiliaryHead(channels, size, self.config))

    def stages(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and the output of every stage in order, the last of them the logits.

        x: (N, S, S, 3), colours as the variant has them, mean subtracted. Raises InputError for another shape or
        precision."""
        self._check(x)
        for name in self.stage_shapes:
            x = getattr(self, name)(x)
            yield name, x

    def forward(self, x: Tensor) -> Outputs:
        """Return the logits of the classifier and, in training, of the heads; x as in `stages`."""
        aux: dict[str, Tensor] = {}
        for name, y in self.stages(x):
            if self.training and name in self.heads:
                aux[self.heads[name]] = getattr(self, self.heads[name])(y)
        return Outputs(y, aux.get("aux1"), aux.get("aux2"))

    def _check(self, x: Tensor) -> None:
        S = self.config.image_size
        if x.shape[1:] != (S, S, 3) or x.shape[0] < 1:
            raise InputError(f"expected images (N, {S}, {S}, 3), got {x.shape}: {_remedy(x.shape, S)}")
        if x.dtype != self.config.dtype:
            raise InputError(f"expected images in {self.config.dtype}, got {x.dtype}: convert them with "
                             f".astype({self.config.dtype!r})")


def scaled(channels: int, width: float) -> int:
    """Return channels times the width multiplier, to the nearest multiple of 4 (vectors hold it), at least 4; ours."""
    return max(4, 4 * round(channels * width / 4))


def preprocessing_of(config: ModelConfig) -> Preprocessing:
    """Return how images become the network's input where nothing else is known: as the variant's authors had it."""
    variant = VARIANTS[config.variant]
    return Preprocessing(size=config.image_size, fit=variant.fit, order=variant.order, mean=variant.mean)


Stages = Iterator[tuple[str, nn.Module, tuple[int, ...]]]  # name, module, shape of the output without the batch


def _stages(row: Row, shape: tuple[int, ...], config: ModelConfig) -> Stages:
    """Yield the stages of a row of Table 1 behind an input of the given shape."""
    for name, module, output in BUILD[row.type](_scaled(row, config.width), shape, config):
        yield name, module, output
        if name in NORMALISED:
            yield NORMALISED[name], LocalResponseNorm(), output


def _convolution(row: Row, shape: tuple[int, ...], config: ModelConfig) -> Stages:
    H, W, C = shape
    dtype = np.dtype(config.dtype)
    if row.n3x3_reduce:
        yield f"{row.name}_reduce", nn.Conv2d(C, row.n3x3_reduce, 1, dtype=dtype), (H, W, row.n3x3_reduce)
        yield row.name, nn.Conv2d(row.n3x3_reduce, row.n3x3, 3, padding=1, dtype=dtype), (H, W, row.n3x3)
        return
    padding = VARIANTS[config.variant].conv1_padding
    grid = windows((1, *shape), row.kernel, row.stride, padding)
    if config.stem == "separable":
        stem: nn.Module = SeparableStem(C, row.output, padding, dtype)
    else:
        stem = nn.Conv2d(C, row.output, row.kernel, stride=row.stride, padding=padding, dtype=dtype)
    yield row.name, stem, (grid.OH, grid.OW, row.output)


def _max_pool(row: Row, shape: tuple[int, ...], config: ModelConfig) -> Stages:
    variant = VARIANTS[config.variant]
    grid = windows((1, *shape), row.kernel, row.stride, variant.pool_padding, variant.pool_ceil)
    pool = MaxPool(row.kernel, row.stride, variant.pool_padding, variant.pool_ceil)
    yield row.name, pool, (grid.OH, grid.OW, shape[2])


def _inception(row: Row, shape: tuple[int, ...], config: ModelConfig) -> Stages:
    kind = NaiveInception if config.module == "naive" else InceptionModule
    module = kind(shape[2], row, np.dtype(config.dtype))
    yield row.name, module, (*shape[:2], module.output)


def _features(row: Row, shape: tuple[int, ...], config: ModelConfig) -> Stages:
    """Yield the stages that make the last grid one vector: its mean, or all of it through a fully connected layer."""
    if config.classifier == "average":
        yield row.name, GlobalAverage(shape[0]), shape[2:]
        return
    flat, features = int(np.prod(shape)), scaled(FULLY_CONNECTED, config.width)
    yield "flatten", Flatten(), (flat,)
    yield "fc", nn.Linear(flat, features, relu=True, dtype=np.dtype(config.dtype)), (features,)


def _dropout(row: Row, shape: tuple[int, ...], config: ModelConfig) -> Stages:
    yield row.name, nn.Dropout(config.dropout), shape


def _linear(row: Row, shape: tuple[int, ...], config: ModelConfig) -> Stages:
    yield row.name, nn.Linear(shape[0], config.classes, dtype=np.dtype(config.dtype)), (config.classes,)


BUILD: dict[str, Callable[[Row, tuple[int, ...], ModelConfig], Stages]] = {
    "convolution": _convolution, "max pool": _max_pool, "inception": _inception, "avg pool": _features,
    "dropout": _dropout, "linear": _linear,
}


def _scaled(row: Row, width: float) -> Row:
    """Return the row with its channels, all that stands behind the stride, times the width multiplier."""
    return Row(*row[:4], *(scaled(channels, width) if channels else 0 for channels in row[4:]))


def _remedy(shape: tuple[int, ...], S: int) -> str:
    """Return what to do about an array that is no batch of images."""
    if len(shape) == 3:
        return "channels go last, behind an axis of images" if shape[0] == 3 else "add the axis of images, x[None]"
    if len(shape) == 4 and shape[0] == 0:
        return "an empty batch has no result"
    if len(shape) == 4 and shape[1] == 3:
        return "channels go last, x.transpose(0, 2, 3, 1)"
    if len(shape) == 4 and shape[3] == 1:
        return "repeat grey images over three channels"
    return f"resize or crop them to {S} x {S} pixels, or build the network with another image_size"
