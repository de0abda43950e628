"""Which GoogLeNet a graph is: its layers held beside the stages of our network, variant by variant.

The graph's chain of layers, from the images to the logits, must be that of a variant: the same kernels, strides and
grids, a ReLU behind each convolution, local response normalisation where the variant has it. What a window meets is its
kernel, its stride, where the first one begins and how many there are: padding behind the last one, and whether pools
round up or are padded at the end, are other words for the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NoReturn

import numpy as np

from googlenet.config import ModelConfig
from googlenet.model import (
    HEADS,
    VARIANTS,
    AuxiliaryHead,
    GlobalAverage,
    GoogLeNet,
    InceptionModule,
    LocalResponseNorm,
    MaxPool,
    has_batch_norm,
    scaled,
)
from googlenet.weights.contents import Graph, Place
from googlenet.weights.formats.onnx.layers import Layer, Walk
from googlenet.weights.formats.onnx.messages import Model
from googlenet.weights.formats.onnx.quantised import Constant
from googlenet.weights.formats.wording import shown
from minigrad import nn
from minigrad.errors import InputError
from minigrad.kernels.windows import Padding, Pair, Windows, windows

NARROW = 1 / 16  # our networks are built for their windows only
FEATURES = 1024  # of the classifier's input, at full width
BRANCHES = (("conv_1x1",), ("conv_3x3_reduce", "conv_3x3"), ("conv_5x5_reduce", "conv_5x5"), ("pool", "pool_proj"))
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Structure:
    """What a file's graph is: where our arrays are among `arrays`, which are in the graph's layouts."""

    graph: Graph
    arrays: dict[str, np.ndarray]
    notes: tuple[str, ...]


class _OtherNetworkError(InputError):
    """The graph is not this variant; `place` is how far down the chain it is, `off` in how many numbers it differs."""

    def __init__(self, message: str, off: int = 1, place: int = 0):
        super().__init__(message)
        self.place, self.off = place, off


@dataclass
class _Found:
    """A variant that fits, with the graph's layers by our paths."""

    config: ModelConfig
    layers: dict[str, Layer] = field(default_factory=dict)
    lrn: set[tuple[float, ...]] = field(default_factory=set)
    lrn_of_variant: set[tuple[float, ...]] = field(default_factory=set)


def understand(model: Model, size: int = 224) -> Structure:
    """Find GoogLeNet in a graph; `size` is the side of the images where the graph leaves it open.

    Raises InputError that names the node where the graph is no known variant, what it has and what was expected."""
    walk = Walk(model, size)
    chains = sorted(_chains(walk), key=lambda chain: (_modules(chain), len(chain)))
    if not chains or walk.first is None:
        raise walk.stopped or InputError("the graph has no layer that reads images: give a GoogLeNet")
    mean, std, swaps = _normalisation(walk.image, walk.first)
    trunk, heads = chains[-1], chains[:-1]
    if walk.stopped:
        _require_like(trunk[:_known(trunk)], _side(walk))
        raise walk.stopped
    _require_relu(walk)
    found = _variant(trunk, _side(walk))
    for head in heads:
        found.layers |= _head(found, head, trunk)
    return _Writer(walk, found).structure(mean, std, swaps)


def _chains(walk: Walk) -> Iterator[list[Layer]]:
    """Yield the layers from the first to each one that nothing follows; a module is its concatenation."""
    layers = walk.layers.values()
    followed = {id(each.node) for layer in layers for each in layer.inputs}
    for end in layers:
        if id(end.node) not in followed:
            chain = [end]
            while chain[-1].inputs[0].kind != "images":
                chain.append(_before(chain[-1]))
            yield chain[::-1]


def _before(layer: Layer) -> Layer:
    return _branches(layer)[1] if layer.kind == "concat" else layer.inputs[0]


def _modules(chain: list[Layer]) -> int:
    return sum(layer.kind == "concat" for layer in chain)


def _branches(concat: Layer) -> tuple[dict[str, Layer], Layer]:
    """Return a module's layers by our names, and the layer they all start from."""
    if len(concat.inputs) != len(BRANCHES):
        raise InputError(f"{concat.node} joins {len(concat.inputs)} branches, expected a module's four: 1x1, "
                         "1x1 -> 3x3, 1x1 -> 5x5, pool -> 1x1")
    found: dict[str, Layer] = {}
    for names, layer in zip(BRANCHES, concat.inputs, strict=True):
        for name in reversed(names):
            kind = "max pool" if name == "pool" else "convolution"
            if layer.kind != kind:
                raise InputError(f"{layer.node} is in a module's branch {' -> '.join(names)}, where a {kind} was "
                                 "expected: no GoogLeNet known has that, or not in this order")
            found[name], layer = layer, layer.inputs[0]
        if name == "conv_1x1":
            start = layer
        if not layer.same(start):
            raise InputError(f"{found[names[0]].node} does not start where its module's 1x1 convolution does: "
                             "no GoogLeNet known has that")
    return found, start


def _known(chain: list[Layer]) -> int:
    """Return how many layers of a chain that ends too early are the trunk's: the last ones may be of a branch."""
    last = max((place for place, layer in enumerate(chain) if layer.kind == "concat"), default=-1)
    return last + 1 if last >= 0 else len(chain) - 2


def _require_relu(walk: Walk) -> None:
    """Raise InputError for a convolution without ReLU, other than one that may be a linear layer in other words."""
    for layer in walk.layers.values():
        if layer.kind == "convolution" and not layer.relu and layer.inputs[0].kind != "average pool":
            raise InputError(f"{layer.node} has no ReLU behind it, as every convolution of GoogLeNet has: "
                             "no GoogLeNet known computes that")


def _variant(trunk: list[Layer], side: int) -> _Found:
    """Return the variant that the chain is: of several with the same windows the one whose channels, then whose LRN's
    constants are the graph's."""
    fitting = list(_require_like(trunk, side))
    for found, stages in fitting:
        if len(trunk) != stages:
            raise InputError(f"{trunk[-1].node} is the last of {len(trunk)} stages ({_modules(trunk)} modules), where "
                             f"{found.config.variant} has {stages} (9): give a whole GoogLeNet")
    width = trunk[-1].inputs[0].shape[0] / FEATURES
    return min((found for found, _ in fitting), key=lambda found: (_unlike(found, width),
                                                                   found.lrn != found.lrn_of_variant))


def _unlike(found: _Found, width: float) -> int:
    """Return how many of the modules' convolutions have other channels than the variant's."""
    rows = {row.name: row._asdict() for row in VARIANTS[found.config.variant].table}
    unlike = 0
    for path, layer in found.layers.items():
        stage, _, name = path.partition("/")
        if name:
            unlike += layer.shape[0] != scaled(rows[stage][name.replace("conv_", "n")], width)
    return unlike


def _require_like(trunk: list[Layer], side: int) -> list[tuple[_Found, int]]:
    """Return the variants that begin with this chain, and how many stages they have.

    Raises InputError where there is none, about the one that differs latest and least."""
    fitting: list[tuple[_Found, int]] = []
    others: list[_OtherNetworkError] = []
    for name in VARIANTS:
        try:
            config = ModelConfig(variant=name, image_size=side, width=NARROW, heads="none", classes=1)
            fitting.append(_beside(trunk, GoogLeNet(config)))
        except _OtherNetworkError as other:
            others.append(other)
        except InputError:  # the variant does not fit images of this size
            continue
    if not fitting and not others:
        raise InputError(f"no GoogLeNet has images of {side}x{side} pixels: export the model for 224x224")
    if not fitting:
        raise max(others, key=lambda error: (error.place, -error.off))
    return fitting


def _side(walk: Walk) -> int:
    H, W = walk.image.shape[:2]
    if H != W:
        raise InputError(f"the graph's images are {H}x{W} pixels, expected squares: export it for square images")
    return H


def _beside(trunk: list[Layer], model: GoogLeNet) -> tuple[_Found, int]:
    """Hold the chain beside a network's stages; return what was found, and the number of stages.

    Raises _OtherNetworkError at the first that differs."""
    found = _Found(model.config)
    stages = [(name, getattr(model, name)) for name in model.stage_shapes]
    stages = [(name, module) for name, module in stages if not isinstance(module, nn.Dropout)]
    for place, (layer, (name, module)) in enumerate(zip(trunk, stages, strict=False)):
        try:
            _stage(found, layer, name, module)
        except _OtherNetworkError as error:
            error.place = place
            raise
    return found, len(stages)


def _stage(found: _Found, layer: Layer, name: str, module: nn.Module) -> None:
    """Compare a layer with a stage, and keep the layers that have weights."""
    expect = _Expectation(found.config.variant, name, layer)
    if isinstance(module, nn.Conv2d):
        expect.convolution(module)
        found.layers[name] = layer
    elif isinstance(module, MaxPool):
        expect.kind("max pool")
        expect.windows(module.kernel, module.stride, module.padding, module.ceil)
    elif isinstance(module, LocalResponseNorm):
        expect.kind("LRN")
        assert layer.lrn
        found.lrn.add(layer.lrn)
        found.lrn_of_variant.add((module.size, module.alpha, module.beta, module.k))
    elif isinstance(module, InceptionModule):
        expect.kind("concat")
        found.layers |= _module(found.config.variant, name, layer, module)
    elif isinstance(module, GlobalAverage):
        expect.mean()
    else:
        expect.linear()
        found.layers[name] = layer


def _module(variant: str, stage: str, concat: Layer, module: InceptionModule) -> dict[str, Layer]:
    """Compare a module's convolutions and its pool with ours; return the convolutions by path."""
    branches, _ = _branches(concat)
    _Expectation(variant, f"{stage}'s pool", branches.pop("pool")).windows(3, 1, 1)
    for name, layer in branches.items():
        _Expectation(variant, f"{stage}/{name}", layer).convolution(getattr(module, name))
    return {f"{stage}/{name}": layer for name, layer in branches.items()}


def _head(found: _Found, chain: list[Layer], trunk: list[Layer]) -> dict[str, Layer]:
    """Return the layers of an auxiliary head by path: those of a chain that leaves the trunk."""
    model = GoogLeNet(replace(found.config, heads="both"))
    shared = sum(ours.same(theirs) for ours, theirs in zip(trunk, chain, strict=False))
    stages = [name for name in model.stage_shapes if not isinstance(getattr(model, name), nn.Dropout)]
    stage, own = stages[max(shared - 1, 0)], chain[shared:]
    if stage not in HEADS or len(own) != 4:
        raise InputError(f"{own[0].node if own else chain[-1].node} leaves the network at {stage} with {len(own)} "
                         "layers, expected an auxiliary head of four at inception_4a or inception_4d")
    name, (pool, convolution, fc, classifier) = HEADS[stage], own
    module: AuxiliaryHead = getattr(model, name)
    variant = found.config.variant
    expect = _Expectation(variant, f"{name}'s pool", pool)
    expect.kind("average pool")
    if module.adaptive:
        raise InputError(f"{pool.node}: the head's pool does not adapt, as {variant}'s does: export it without heads")
    expect.windows(module.window, 3, 0)
    _Expectation(variant, f"{name}/conv", convolution).convolution(module.conv)
    _Expectation(variant, f"{name}/fc", fc).linear(relu=True)
    _Expectation(variant, f"{name}/classifier", classifier).linear()
    return {f"{name}/conv": convolution, f"{name}/fc": fc, f"{name}/classifier": classifier}


class _Expectation:
    """A layer of the graph beside a stage of a variant: each method raises InputError where they differ."""

    def __init__(self, variant: str, name: str, layer: Layer):
        self.variant, self.name, self.layer = variant, name, layer

    def differ(self, has: str, expected: str, off: int = 1) -> NoReturn:
        raise _OtherNetworkError(f"{self.layer.node} has {has} where {self.variant}'s {self.name} has {expected}: "
                                 "no GoogLeNet known computes that", off)

    def kind(self, *kinds: str) -> None:
        if self.layer.kind not in kinds:
            raise _OtherNetworkError(f"{self.layer.node} stands where {self.variant} has {self.name}, expected "
                                     f"{kinds[0]}: no GoogLeNet known computes that", len(Windows._fields))

    def windows(self, kernel: Pair, stride: Pair, padding: Padding, ceil: bool = False) -> None:
        C, H, W = self.layer.inputs[0].shape
        own, assumed = self.layer.windows, windows((1, H, W, C), kernel, stride, padding, ceil)
        assert own
        off = sum(here != there for here, there in zip(_met(own), _met(assumed), strict=True))
        if off:
            self.differ(_told(own), _told(assumed), off)

    def convolution(self, module: nn.Conv2d) -> None:
        self.kind("convolution")
        KH, KW = module.weight.shape[:2]
        self.windows((KH, KW), module.stride, module.padding)
        if not self.layer.relu:
            self.differ("no ReLU behind it", "one")

    def mean(self) -> None:
        """The average of the whole grid, whether or not a window reaches past its end."""
        self.kind("average pool")
        own, (H, W) = self.layer.windows, self.layer.inputs[0].shape[1:]
        assert own
        covers = own.KH - own.top >= H and own.KW - own.left >= W and (own.OH, own.OW) == (1, 1)
        divides = own.KH * own.KW == H * W or not self.layer.pads_counted
        if not (covers and divides):
            self.differ(_told(own) + ("" if divides else ", zeros of the padding counted"), f"the mean of {H}x{W}")

    def linear(self, relu: bool = False) -> None:
        """A matrix product, or a convolution of one vector."""
        self.kind("linear", "convolution")
        if self.layer.kind == "convolution" and self.layer.inputs[0].shape[1:] != (1, 1):
            self.differ(f"a grid {self.layer.inputs[0].shape[1:]} before it", "one vector")
        if self.layer.relu != relu:
            self.differ("a ReLU" if self.layer.relu else "no ReLU", "one" if relu else "none")


def _met(laid: Windows) -> tuple[int, ...]:
    """Return what cells the windows meet."""
    return laid.KH, laid.KW, laid.SH, laid.SW, laid.top, laid.left, laid.OH, laid.OW


def _told(laid: Windows) -> str:
    return (f"{laid.KH}x{laid.KW} windows, stride {laid.SH}x{laid.SW}, {laid.top} and {laid.left} cells of padding "
            f"before the first, to a grid of {laid.OH}x{laid.OW}")


class _Writer:
    """Names the places of the arrays, and writes down what the graph says besides."""

    def __init__(self, walk: Walk, found: _Found):
        self.walk, self.found = walk, found
        self.placed: dict[str, Constant] = {}  # by the file's name
        self.places: dict[str, Place] = {}
        self.notes: list[str] = []

    def structure(self, mean: Triple, std: Triple, swaps: bool) -> Structure:
        learned = self.learns()
        for path, layer in self.found.layers.items():
            self.layer(path, layer if learned or layer.norm is None else _folded(layer))
        self.tell_input(mean, std, swaps)
        self.tell_quantisation()
        norm = "learned" if learned or not has_batch_norm(self.found.config) else "folded"
        graph = Graph(self.found.config.variant, norm, self.places, self.lrn(), mean, std, swaps,
                      image_size=self.walk.image.shape[0])
        unread = {name: array for name, array in self.walk.constants.items() if name not in self.walk.read}
        return Structure(graph, unread | {name: each.array for name, each in self.placed.items()}, tuple(self.notes))

    def learns(self) -> bool:
        """Return whether the graph's batch norm is the variant's; if not, it is folded, which a note says."""
        norms = [layer.norm for layer in self.found.layers.values() if layer.kind == "convolution"]
        if not any(norms):
            return False
        assumed = VARIANTS[self.found.config.variant].batch_norm
        reasons = [reason for reason, holds in (
            (f"{self.found.config.variant} has none", assumed is None),
            ("some convolutions have none", not all(norms)),
            ("some convolutions have biases besides", any(layer.bias for layer in self.found.layers.values()
                                                          if layer.norm)),
            (f"epsilon is {', '.join(str(eps) for eps in sorted({norm.eps for norm in norms if norm}))}",
             assumed is not None and any(norm.eps != assumed.eps for norm in norms if norm)),
            ("gamma is not 1", assumed is not None and not assumed.gamma and
             any((norm.gamma.array != 1).any() for norm in norms if norm)),
        ) if holds]
        if reasons:
            self.notes.append(f"batch norm folded into weights and biases: {reasons[0]}")
        return not reasons

    def layer(self, path: str, layer: Layer) -> None:
        """Place a layer's arrays."""
        assert layer.weight
        weight, layout, channels = layer.weight, layer.layout, 0
        if path.endswith("classifier"):
            weight, layout = _matrix(weight, layout)
        if path.endswith("/fc"):  # its inputs are the head's convolution, flattened
            layout, channels = {"OI": "O(CHW)", "IO": "(CHW)O"}[layout], _channels(layer.inputs[0])
        self.place(f"{path}/weight", weight, layout, channels)
        if layer.norm:
            self.norm(path, layer)
            return
        if layer.bias is None:
            self.notes.append(f"{path} has no bias ({layer.node}): zeros")
            zeros = np.zeros(layer.shape[0], weight.array.dtype)
            layer = replace(layer, bias=Constant(f"{weight.name}, no bias", zeros))
        assert layer.bias
        self.place(f"{path}/bias", layer.bias, "O")

    def norm(self, path: str, layer: Layer) -> None:
        assert layer.norm
        assumed = VARIANTS[self.found.config.variant].batch_norm
        for name in ("gamma", "beta", "mean", "variance"):
            if name != "gamma" or (assumed and assumed.gamma):
                self.place(f"{path}/batch_norm/{name}", getattr(layer.norm, name), "O")

    def place(self, path: str, constant: Constant, layout: str, channels: int = 0) -> None:
        before = self.placed.setdefault(constant.name, constant)
        if before is not constant and not np.array_equal(before.array, constant.array):
            raise InputError(f"the graph uses {shown(constant.name)} for two layers, in two shapes: export it again")
        self.places[path] = Place(constant.name, layout, channels)

    def lrn(self) -> str:
        """Return the constants of local response normalisation where they aren't the variant's."""
        if self.found.lrn == self.found.lrn_of_variant:
            return ""
        if len(self.found.lrn) > 1:
            raise InputError(f"the graph's two LRN nodes have different constants, {sorted(self.found.lrn)}: "
                             "no GoogLeNet known has that")
        return " ".join(f"{number:.9g}" for number in next(iter(self.found.lrn)))

    def tell_input(self, mean: Triple, std: Triple, swaps: bool) -> None:
        done = [f"subtracts ({', '.join(f'{each:g}' for each in mean)}) and divides by "
                f"({', '.join(f'{each:g}' for each in std)})"] if any(mean) or set(std) != {1.0} else []
        done += ["turns the order of the channels round"] * swaps
        if done:
            self.notes.append(f"the graph itself {' and '.join(reversed(done))}, on the scale of its own input, "
                              "which the file does not tell")

    def tell_quantisation(self) -> None:
        """Say how far rounding may have put weights off: half a step beside the layer's largest weight."""
        off = {}
        for path, layer in self.found.layers.items():
            if layer.weight and layer.weight.half_step:
                largest = float(np.abs(layer.weight.array).max(initial=0.0))
                off[path] = layer.weight.half_step / largest if largest else 0.0
        if off:
            worst = max(off, key=off.__getitem__)
            self.notes.append(
                f"8-bit weights dequantised: a value is off by up to half a step, {off[worst]:.2%} of its layer's "
                f"largest at worst ({worst}), {sum(off.values()) / len(off):.2%} on average over {len(off)} layers; "
                "the rounding of activations is left out")


def _channels(layer: Layer) -> int:
    assert layer.weight
    return layer.weight.array.shape[0]


def _matrix(weight: Constant, layout: str) -> tuple[Constant, str]:
    """Return a 1x1 convolution's weight as the matrix that it is of one vector."""
    if layout != "OIHW":
        return weight, layout
    return replace(weight, array=weight.array.reshape(weight.array.shape[:2])), "OI"


def _folded(layer: Layer) -> Layer:
    """Return a convolution with its batch norm in its weight and bias, which take the names of weight and beta."""
    norm, weight = layer.norm, layer.weight
    assert norm
    assert weight
    with np.errstate(all="ignore"):  # what isn't finite is found where weights are loaded
        scale = norm.gamma.array / np.sqrt(norm.variance.array.astype(np.float64) + norm.eps)
        bias = 0 if layer.bias is None else layer.bias.array
        shift = norm.beta.array + (bias - norm.mean.array) * scale
        folded = (weight.array * scale[:, None, None, None]).astype(np.float32)
    return replace(layer, norm=None, weight=replace(weight, array=folded),
                   bias=replace(norm.beta, array=shift.astype(np.float32)))


def _normalisation(image: np.ndarray, first: np.ndarray) -> tuple[Triple, Triple, bool]:
    """Return mean, std and whether channels are swapped, such that the first layer got (image[channel] - mean) / std.

    Both are (H, W, 3); a straight line through two pixels must meet all others."""
    if first.shape != image.shape:
        raise InputError(f"the graph makes {first.shape} of images {image.shape} before its first layer: "
                         "no GoogLeNet known resizes or cuts them")
    scales, offsets, sources = zip(*(_line(image, first[..., channel], channel) for channel in range(3)), strict=True)
    if sources not in ((0, 1, 2), (2, 1, 0)):
        raise InputError(f"the graph makes its channels of the image's {sources}, expected all three in order or "
                         "turned round: give a network of colour images")
    mean = [-offset / scale if offset else 0.0 for scale, offset in zip(scales, offsets, strict=True)]
    std = [1 / scale for scale in scales]
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2]), sources == (2, 1, 0)


def _line(image: np.ndarray, got: np.ndarray, channel: int) -> tuple[float, float, int]:
    """Return scale and offset of one of the image's channels, and which it is."""
    for source in (channel, 2 - channel, *{0, 1, 2} - {channel, 2 - channel}):
        x = image[..., source]
        low, high = np.unravel_index(x.argmin(), x.shape), np.unravel_index(x.argmax(), x.shape)
        scale = float((got[high] - got[low]) / (x[high] - x[low]))
        offset = float(got[low] - scale * x[low])
        if scale > 0 and np.allclose(got, scale * x + offset, rtol=1e-5, atol=1e-5 * scale * 255):
            return scale, offset, source
    raise InputError(f"what the graph does with its input is not (x - mean) / std (channel {channel} of the first "
                     "layer): no GoogLeNet known does that")

