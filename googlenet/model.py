"""GoogLeNet: Table 1 of "Going Deeper with Convolutions" (arXiv 1409.4842), and the modules its rows are made of.

The network is a chain of named stages, each an attribute of `GoogLeNet`; the path of a weight's attributes is also its
path in weight files: `inception_3a/conv_5x5_reduce/weight`. What the table leaves out is in Fig. 3: a local response
normalisation after the first pool and another before the second. ReLU follows every convolution. What ports of the
network changed stands in VARIANTS, a line for each.

Arrays are (N, H, W, C). S is the side of the input, 224 in the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from data.preprocess import PREPROCESSINGS, Preprocessing
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


def _with(*changed: Row) -> tuple[Row, ...]:
    """Return Table 1 with some of its rows changed."""
    rows = {row.name: row for row in changed}
    return tuple(rows.get(row.name, row) for row in TABLE_1)


SMALL_POOL4 = _with(
    Row("pool4",        "max pool",     2, 2,        832))
INCEPTION5H = _with(
    Row("inception_4a", "inception",    0, 0,        508,   192,    96,  204,     16,   48,   64),
    Row("inception_5a", "inception",    0, 0,        832,   256,   160,  320,     48,  128,  128))


class Lrn(NamedTuple):
    """y = x (k + alpha / size * sum of x^2 over `size` channels)^-beta, as in ops.lrn."""

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0


class BatchNorm(NamedTuple):
    """What stands between a convolution and its ReLU (arXiv 1502.03167), where a port has it."""

    gamma: bool
    eps: float
    decay: float  # of the running statistics


class Variant(NamedTuple):
    """What readings of the paper and its ports differ in; Preprocessing is what images its authors fed it.

    `pool_padding` and `pool_ceil` are those of the pools between stages; `kernel_5x5` is the kernel that stands in the
    5x5 branch; `head_grid` the grid that adaptive pooling gives a head, 0 for the paper's 5x5/3; `dropout` that before
    the classifier."""

    conv1_padding: int | str
    pool_padding: int | str
    pool_ceil: bool
    kernel_5x5: int
    table: tuple[Row, ...]
    lrn: Lrn | None
    batch_norm: BatchNorm | None
    head_grid: int
    dropout: float
    preprocessing: str


CAFFE_LRN = Lrn()  # the paper gives no constants
TF_LRN = Lrn(11, 11 * 1e-4, 0.5, 2.0)  # a radius of 5, alpha not divided by the size; a file of it has its own
TORCH_NORM, SLIM_NORM = BatchNorm(True, 1e-3, 0.9), BatchNorm(False, 1e-3, 0.9997)

VARIANTS = {
    #                      conv1   pools   up     5x5 table        LRN        batch norm  heads dropout images
    "paper":       Variant("same", "same", False, 5,  TABLE_1,     CAFFE_LRN, None,       0,    0.4,    "paper"),
    "caffe":       Variant(3,      0,      True,  5,  TABLE_1,     CAFFE_LRN, None,       0,    0.4,    "caffe"),
    "torchvision": Variant(3,      0,      True,  3,  SMALL_POOL4, None,      TORCH_NORM, 4,    0.2,    "torchvision"),
    "slim":        Variant("same", "same", False, 3,  SMALL_POOL4, None,      SLIM_NORM,  0,    0.2,    "slim"),
    "inception5h": Variant("same", "same", False, 5,  INCEPTION5H, TF_LRN,    None,       0,    0.4,    "inception5h"),
    "onnx-inception-v1":
                   Variant(3,      0,      False, 5,  TABLE_1,     CAFFE_LRN, None,       0,    0.4,    "onnx"),
}  # sources: Fig. 3; BVLC's deploy.prototxt; torchvision/models/googlenet.py; slim/nets/inception_v1.py; graphs' nodes


class Outputs(NamedTuple):
    """Logits (N, classes) of the classifier and of both heads; a head is None in testing, or where it isn't built."""

    logits: Tensor
    aux1: Tensor | None
    aux2: Tensor | None


class SeparableStem(nn.Module):
    """A 7x7/2 depthwise convolution of multiplier 8, then 1x1: 2,712 weights, what Table 1 prints for its first row.

    The paper does not say that its first layer is separable; the two printed numbers fit nothing else. ReLU follows the
    second of the two only, as in TensorFlow."""

    def __init__(self, channels: int, output: int, padding: int | str, config: ModelConfig):
        self.kernel, self.stride = 7, 2
        self.depthwise = nn.DepthwiseConv2d(channels, 8, self.kernel, stride=self.stride, padding=padding,
                                            dtype=np.dtype(config.dtype))
        self.pointwise = convolution(8 * channels, output, 1, config)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))  # (N, S, S, 3) -> (N, S/2, S/2, 24) -> (N, S/2, S/2, 64)


class MaxPool(nn.Module):
    """Max pooling between stages."""

    def __init__(self, kernel: int, stride: int, padding: int | str, ceil: bool):
        self.kernel, self.stride, self.padding, self.ceil = kernel, stride, padding, ceil

    def forward(self, x: Tensor) -> Tensor:
        return ops.max_pool2d(x, self.kernel, stride=self.stride, padding=self.padding, ceil=self.ceil)


class LocalResponseNorm(nn.Module):
    """Local response normalisation."""

    def __init__(self, constants: Lrn):
        self.size, self.alpha, self.beta, self.k = constants

    def forward(self, x: Tensor) -> Tensor:
        return ops.lrn(x, size=self.size, alpha=self.alpha, beta=self.beta, k=self.k)


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
    """Fig. 2b: 1x1, 1x1 -> 3x3, 1x1 -> 5x5 and max pool -> 1x1, side by side: (N, H, W, C) -> (N, H, W, O).

    conv_5x5 is 3x3 in variants that have it so."""

    def __init__(self, channels: int, row: Row, config: ModelConfig):
        kernel = VARIANTS[config.variant].kernel_5x5
        self.conv_1x1 = convolution(channels, row.n1x1, 1, config)
        self.conv_3x3_reduce = convolution(channels, row.n3x3_reduce, 1, config)
        self.conv_3x3 = convolution(row.n3x3_reduce, row.n3x3, 3, config, padding=1)
        self.conv_5x5_reduce = convolution(channels, row.n5x5_reduce, 1, config)
        self.conv_5x5 = convolution(row.n5x5_reduce, row.n5x5, kernel, config, padding=kernel // 2)
        self.pool_proj = convolution(channels, row.pool_proj, 1, config)
        self.ends = np.cumsum([row.n1x1, row.n3x3, row.n5x5, row.pool_proj])
        self.output = int(self.ends[-1])

    def forward(self, x: Tensor) -> Tensor:
        # Every branch writes into its channels of one buffer, so that nothing is left for the concatenation to copy.
        out = np.split(ops.empty((*x.shape[:3], self.output), x.dtype), self.ends[:-1], axis=-1)
        y_1x1, reduce_3x3, reduce_5x5 = self._first(x, out[0])
        return ops.concat([
            y_1x1,
            self.conv_3x3(reduce_3x3, out=out[1]),
            self.conv_5x5(reduce_5x5, out=out[2]),
            self.pool_proj(ops.max_pool2d(x, 3, stride=1, padding=1), out=out[3]),
        ])

    def _first(self, x: Tensor, out: np.ndarray) -> tuple[Tensor, ...]:
        """Return the three 1x1 convolutions of x, the first one written into `out`."""
        first = (self.conv_1x1, self.conv_3x3_reduce, self.conv_5x5_reduce)
        outs = (out, None, None)
        biases = [conv.bias for conv in first if conv.bias is not None]
        if len(biases) < len(first):
            return tuple(conv(x, out=place) for conv, place in zip(first, outs, strict=True))
        return ops.pointwise(x, [(conv.weight, b) for conv, b in zip(first, biases, strict=True)], outs=list(outs))


class NaiveInception(nn.Module):
    """Fig. 2a: 1x1, 3x3, 5x5 and max pool side by side, without reductions, so that channels can only grow."""

    def __init__(self, channels: int, row: Row, config: ModelConfig):
        kernel = VARIANTS[config.variant].kernel_5x5
        self.conv_1x1 = convolution(channels, row.n1x1, 1, config)
        self.conv_3x3 = convolution(channels, row.n3x3, 3, config, padding=1)
        self.conv_5x5 = convolution(channels, row.n5x5, kernel, config, padding=kernel // 2)
        self.output = row.n1x1 + row.n3x3 + row.n5x5 + channels

    def forward(self, x: Tensor) -> Tensor:
        pooled = ops.max_pool2d(x, 3, stride=1, padding=1)
        return ops.concat([self.conv_1x1(x), self.conv_3x3(x), self.conv_5x5(x), pooled])


class AuxiliaryHead(nn.Module):
    """The paper's section 5: average pool 5x5/3, 1x1 convolution, fully connected, dropout, linear: -> (N, classes).

    On a grid below 5 the pool's window is the whole grid. `adaptive` is the grid of the variants whose pool adapts."""

    def __init__(self, channels: int, size: int, config: ModelConfig):
        dtype = np.dtype(config.dtype)
        width, features = scaled(HEAD_CHANNELS, config.width), scaled(HEAD_FEATURES, config.width)
        self.window = min(5, size)
        self.adaptive = VARIANTS[config.variant].head_grid
        self.size = self.adaptive or (size - self.window) // 3 + 1
        self.conv = convolution(channels, width, 1, config)
        self.fc = nn.Linear(self.size * self.size * width, features, relu=True, dtype=dtype)
        self.dropout = nn.Dropout(config.aux_dropout)
        self.classifier = nn.Linear(features, config.classes, dtype=dtype)
        self.flatten = Flatten()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self._pool(x))  # (N, 14, 14, C) -> (N, 4, 4, C) -> (N, 4, 4, 128)
        return self.classifier(self.dropout(self.fc(self.flatten(x))))

    def _pool(self, x: Tensor) -> Tensor:
        if self.adaptive:
            return ops.adaptive_avg_pool2d(x, self.adaptive)
        return ops.avg_pool2d(x, self.window, stride=3)


class GoogLeNet(nn.Module):
    """The network of a `ModelConfig`; weights are zero until `minigrad.init` fills them or a file is read.

    `stage_shapes` has its stages in order and the shape of each one's output without the batch, (H, W, C) or (C,);
    `rows` the stages that a row of Table 1 became; `heads` the stage and the name of each auxiliary head."""

    def __init__(self, config: ModelConfig | None = None):
        self.config = config or ModelConfig()
        self.stage_shapes: dict[str, tuple[int, ...]] = {}
        shape: tuple[int, ...] = (self.config.image_size, self.config.image_size, 3)
        self.rows: dict[str, tuple[str, ...]] = {}
        for row in VARIANTS[self.config.variant].table:
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

    def head(self, name: str) -> AuxiliaryHead:
        """Return the head of this name, "aux1" or "aux2"."""
        return getattr(self, name)

    def folded(self) -> GoogLeNet:
        """Return this network, in its mode, with every batch norm folded into its convolution: the same function in
        testing, to rounding, and faster. A network without batch norm returns itself."""
        if not has_batch_norm(self.config):
            return self
        made = GoogLeNet(replace(self.config, batch_norm="folded"))
        arrays = self.state()
        for path, module in self.named_modules():
            if isinstance(module, nn.Conv2d):
                arrays[f"{path}/weight"], arrays[f"{path}/bias"] = module.folded()
        for path, own in made.state().items():
            own[...] = arrays[path]
        return made.train(self.training)

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
    return PREPROCESSINGS[VARIANTS[config.variant].preprocessing].at(config.image_size)


def has_batch_norm(config: ModelConfig) -> bool:
    """Return whether the network has layers of batch norm, its variant's and not folded."""
    return VARIANTS[config.variant].batch_norm is not None and config.batch_norm == "learned"


def lrn_of(config: ModelConfig) -> Lrn | None:
    """Return the constants of local response normalisation, None for a variant without it.

    Raises InputError for a text that is not four numbers that make sense, or where the variant has none."""
    variant = VARIANTS[config.variant]
    if not config.lrn:
        return variant.lrn
    if variant.lrn is None:
        raise InputError(f"lrn {config.lrn!r}: the variant {config.variant} has no local response normalisation: "
                         "leave lrn empty")
    try:
        size, alpha, beta, k = config.lrn.split()
        found = Lrn(int(size), float(alpha), float(beta), float(k))
    except ValueError as error:
        raise InputError(f"lrn {config.lrn!r}: expected four numbers, 'size alpha beta k', such as '5 1e-4 0.75 1'"
                         ) from error
    if found.size < 1 or found.size % 2 == 0 or found.alpha < 0 or found.k <= 0 or not np.isfinite(found).all():
        raise InputError(f"lrn {config.lrn!r}: expected an odd size, alpha from 0 on, k above 0, all of them finite: "
                         "otherwise a channel has no middle, or a root is of a negative number")
    return found


def batch_norm_of(config: ModelConfig) -> BatchNorm:
    """Return the constants of the batch norms of a network that has some."""
    return VARIANTS[config.variant].batch_norm or TORCH_NORM


def convolution(channels: int, output: int, kernel: int, config: ModelConfig, *, stride: int = 1,
                padding: int | str = 0) -> nn.Conv2d:
    """Return a convolution and its ReLU, with batch norm between them where the network has it."""
    dtype = np.dtype(config.dtype)
    norm = None
    if has_batch_norm(config):
        gamma, eps, decay = batch_norm_of(config)
        norm = nn.BatchNorm(output, gamma=gamma, eps=eps, decay=decay, relu=True, dtype=dtype)
    return nn.Conv2d(channels, output, kernel, stride=stride, padding=padding, batch_norm=norm, dtype=dtype)


Stages = Iterator[tuple[str, nn.Module, tuple[int, ...]]]  # name, module, shape of the output without the batch


def _stages(row: Row, shape: tuple[int, ...], config: ModelConfig) -> Stages:
    """Yield the stages of a row of Table 1 behind an input of the given shape."""
    for name, module, output in BUILD[row.type](_scaled(row, config.width), shape, config):
        yield name, module, output
        lrn = lrn_of(config)
        if lrn and name in NORMALISED:
            yield NORMALISED[name], LocalResponseNorm(lrn), output


def _convolution(row: Row, shape: tuple[int, ...], config: ModelConfig) -> Stages:
    H, W, C = shape
    if row.n3x3_reduce:
        yield f"{row.name}_reduce", convolution(C, row.n3x3_reduce, 1, config), (H, W, row.n3x3_reduce)
        yield row.name, convolution(row.n3x3_reduce, row.n3x3, 3, config, padding=1), (H, W, row.n3x3)
        return
    padding = VARIANTS[config.variant].conv1_padding
    grid = windows((1, *shape), row.kernel, row.stride, padding)
    if config.stem == "separable":
        stem: nn.Module = SeparableStem(C, row.output, padding, config)
    else:
        stem = convolution(C, row.output, row.kernel, config, stride=row.stride, padding=padding)
    yield row.name, stem, (grid.OH, grid.OW, row.output)


def _max_pool(row: Row, shape: tuple[int, ...], config: ModelConfig) -> Stages:
    variant = VARIANTS[config.variant]
    grid = windows((1, *shape), row.kernel, row.stride, variant.pool_padding, variant.pool_ceil)
    pool = MaxPool(row.kernel, row.stride, variant.pool_padding, variant.pool_ceil)
    yield row.name, pool, (grid.OH, grid.OW, shape[2])


def _inception(row: Row, shape: tuple[int, ...], config: ModelConfig) -> Stages:
    kind = NaiveInception if config.module == "naive" else InceptionModule
    module = kind(shape[2], row, config)
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
