"""What a graph computes: its nodes as layers, each with its windows and weights, from the images to the logits.

The nodes are followed once, in the file's order, with images of one size. Names mean nothing. What a value is, is known
at every place: a constant; the images, on which arithmetic is done as the graph says, with random pixels; or what a
layer gives. Nodes that only rearrange one vector, that scale probabilities or that do nothing in testing are passed by.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from googlenet.model import Lrn
from googlenet.weights.formats.onnx import operators, quantised
from googlenet.weights.formats.onnx.messages import Model, Node
from googlenet.weights.formats.onnx.operators import Interpreter
from googlenet.weights.formats.onnx.quantised import SATURATE, Constant
from googlenet.weights.formats.wording import quoted, shown, shown_shape
from minigrad.errors import InputError
from minigrad.kernels.windows import Padding, Windows, windows

LARGEST_SIDE = 1024  # pixels
LARGEST_GRID = 2**22  # values that are rearranged
MOST_LAYERS = 1000  # GoogLeNet has 93 with its heads
LARGEST_HALF = float(np.finfo(np.float16).max)
KEEPING = {"Cast", "Identity", *operators.SHAPING}  # a constant keeps its name through these


@dataclass(frozen=True)
class Pixels:
    """The images as the graph has them so far: one image of random pixels, whatever the order of its axes."""

    array: np.ndarray


@dataclass(frozen=True)
class Norm:
    """Batch norm behind a convolution."""

    gamma: Constant
    beta: Constant
    mean: Constant
    variance: Constant
    eps: float


@dataclass(frozen=True, eq=False)
class Layer:
    """What a node computes: (C, H, W), or (C,) behind the grids, for each image.

    `kind` is images, convolution, max pool, average pool, LRN, concat or linear."""

    kind: str
    node: Node
    inputs: tuple[Layer, ...]
    shape: tuple[int, ...]
    windows: Windows | None = None
    weight: Constant | None = None
    layout: str = ""  # of the weight
    bias: Constant | None = None
    norm: Norm | None = None
    relu: bool = False
    lrn: Lrn | None = None
    pads_counted: bool = False  # whether an average's padding is divided by

    def same(self, other: Layer) -> bool:
        """Return whether both are one value."""
        return self.node is other.node and self.relu == other.relu

    def __str__(self) -> str:
        grid = f" on a grid of {self.shape[1]}x{self.shape[2]}" if len(self.shape) == 3 else ""
        return f"{self.kind}{grid}"


Value = Constant | Pixels | Layer


class Walk:
    """Follows a graph's nodes. `image` is the random image it is given, `first` what the first layer gets of it.

    A node that can't be followed ends the walk; `stopped` says why. What was found before may tell more."""

    def __init__(self, model: Model, size: int):
        self.model, self.opset = model, model.opset
        self.interpreter = Interpreter(model.opset)
        self.values: dict[str, Value] = {name: Constant(name, array) for name, array in model.arrays.items()}
        self.constants = dict(model.arrays)  # by name: what the file holds
        self.read: set[str] = set()  # names of values that nodes read
        self.layers: dict[int, Layer] = {}  # by the node's identity; a layer with its batch norm and its ReLU
        self.first: np.ndarray | None = None
        self.stopped: InputError | None = None
        self.batch, self.image = self._images(size)
        try:
            for node in model.nodes:
                self.read.update(node.inputs)
                for each in quantised.plain(node, self.values, self.interpreter.spend):
                    self._follow(each)
        except InputError as error:
            self.stopped = error

    def _images(self, size: int) -> tuple[int, np.ndarray]:
        """Give the graph's input random pixels; return the batch that it has, and the image as (H, W, C)."""
        inputs = {name: axes for name, axes in self.model.inputs.items() if name not in self.values}
        if len(inputs) != 1:
            raise InputError(f"the graph has {len(inputs)} inputs ({shown(', '.join(inputs))}), expected the images "
                             "alone: export the model with one input")
        (name, axes), = inputs.items()
        batch, channels, rows, columns = _axes(name, axes)
        H, W = axes[rows] or size, axes[columns] or size
        if not (0 < H <= LARGEST_SIDE and 0 < W <= LARGEST_SIDE):
            raise InputError(f"the graph's input {quoted(name)} {axes} has images of {H}x{W} pixels, expected at most "
                             f"{LARGEST_SIDE}x{LARGEST_SIDE}: export it for smaller ones")
        image = np.random.default_rng(0).integers(0, 256, (H, W, 3)).astype(np.float64)
        order = sorted(range(4), key=(batch, rows, columns, channels).__getitem__)
        self.values[name] = Pixels(image[None].transpose(order))
        return axes[batch] or 1, image

    def _follow(self, node: Node) -> None:
        """Find what a node's outputs are."""
        if node.op == "Constant":
            array = _constant(node)
            self.constants[node.outputs[0]] = array
            self.values[node.outputs[0]] = Constant(node.outputs[0], array)
            return
        inputs = [self._value(node, name) for name in node.inputs]
        if node.op in operators.OPERATORS and not any(isinstance(each, Layer) for each in inputs):
            outputs: list[Any] = self._computed(node, inputs)
        elif node.op in LAYERS and any(isinstance(each, Layer | Pixels) for each in inputs):
            outputs = [LAYERS[node.op](self, node, inputs)]
        elif node.op in (*operators.SHAPING, "Shape"):
            outputs = [self._rearranged(node, inputs)]
        else:
            raise InputError(f"{node} is no part of any GoogLeNet known: give a graph of convolutions, ReLU, pools, "
                             "LRN, concatenations and a linear layer")
        for name, output in zip(node.outputs, outputs, strict=False):
            self.values[name] = output
            if isinstance(output, Layer):
                self.layers[id(output.node)] = output
        if len(self.layers) > MOST_LAYERS:
            raise InputError(f"{node}: the graph has more than {MOST_LAYERS} layers, which no GoogLeNet has")

    def _value(self, node: Node, name: str) -> Value | None:
        if not name:
            return None
        if name not in self.values:
            raise InputError(f"{node} reads {quoted(name)}, which nothing before it gives: export the model again")
        return self.values[name]

    def _computed(self, node: Node, inputs: list[Any]) -> list[Constant | Pixels]:
        """Run a node on constants and pixels."""
        pixels = [each for each in inputs if isinstance(each, Pixels)]
        if pixels and node.op == "Cast":  # to no other type than theirs, the widest, so that nothing is rounded
            return [pixels[0]]
        arrays = self.interpreter.run(node, [each if each is None else each.array for each in inputs])
        if pixels and node.op != "Shape":
            return [Pixels(array) for array in arrays]
        if node.op in KEEPING and isinstance(inputs[0], Constant):
            return [replace(inputs[0], array=arrays[0])]
        return [Constant(name, array) for name, array in zip(node.outputs, arrays, strict=False)]

    def _rearranged(self, node: Node, inputs: list[Any]) -> Layer | Constant:
        """Return a layer in another shape; its values must stay in their order."""
        layer = inputs[0]
        shape = (self.batch, *layer.shape) if isinstance(layer, Layer) else ()
        if node.op == "Shape":
            return Constant(node.outputs[0], np.array(shape, np.int64))
        if not shape or math.prod(shape) > LARGEST_GRID or not all(isinstance(each, Constant) for each in inputs[1:]):
            raise InputError(f"{node} shapes what is not known: export the model for one size of images")
        self.interpreter.spend(node, 8 * math.prod(shape))
        numbers = np.arange(math.prod(shape)).reshape(shape)
        found = self.interpreter.run(node, [numbers, *(each.array for each in inputs[1:])])[0]
        if not np.array_equal(found.ravel(), numbers.ravel()):
            raise InputError(f"{node} changes the order of {layer}, which no GoogLeNet does: "
                             "export the model with channels first")
        new = found.shape[1:] if found.shape[:1] == (self.batch,) else found.shape
        is_vector = math.prod(new) == max(new, default=1) and new[1:] != (1, 1)
        return replace(layer, shape=(math.prod(new),) if is_vector else new)


def _axes(name: str, axes: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return which axes of the input are the images, the channels, the rows and the columns.

    The channels are the axis of three, or the second; the images the axis of one or of no known size, or the first."""
    threes = [axis for axis in (1, 3, 0, 2) if len(axes) == 4 and axes[axis] == 3]
    if len(axes) != 4 or not (threes or axes[1] == 0):
        raise InputError(f"the graph's input {quoted(name)} has shape {shown_shape(axes)}, expected images of three "
                         "channels such as (N, 3, 224, 224): give a classifier of colour images")
    channels = (threes or [1])[0]
    others = [axis for axis in range(4) if axis != channels]
    batch = next((axis for axis in others if axes[axis] <= 1), others[0])
    rows, columns = (axis for axis in others if axis != batch)
    return batch, channels, rows, columns


def _constant(node: Node) -> np.ndarray:
    """Return a Constant node's value."""
    for name, value in node.attributes.items():
        if name == "value" and isinstance(value, np.ndarray):
            return value
        if name in ("value_float", "value_floats") and value is not None:
            return np.array(value, np.float32)
        if name in ("value_int", "value_ints") and value is not None:
            return np.array(value, np.int64)
    raise InputError(f"{node} has no number or array as its value: export the model with dense constants")


def _require(right: bool, node: Node, has: str, expected: str) -> None:
    if not right:
        raise InputError(f"{node} has {shown(has)}, expected {expected}: no GoogLeNet known computes that")


def _array(node: Node, inputs: list[Any], place: int, name: str) -> Constant | None:
    """Return a constant input, None where it is left out."""
    found = inputs[place] if len(inputs) > place else None
    if found is None or isinstance(found, Constant):
        return found
    raise InputError(f"{node}: its {name} is computed from the images: give a trained network")


def _grid(layer: Value, node: Node) -> tuple[int, int, int]:
    if not isinstance(layer, Layer) or len(layer.shape) != 3:
        raise InputError(f"{node} reads {layer if isinstance(layer, Layer) else 'no layer'}, expected a layer's grid "
                         "(C, H, W): no GoogLeNet known computes that")
    C, H, W = layer.shape
    return C, H, W


def _windows(node: Node, shape: tuple[int, int, int], kernel: list[int]) -> Windows:
    """Lay a node's windows over (C, H, W)."""
    C, H, W = shape
    strides, pads = node.told("strides", [1, 1]), node.told("pads", [0, 0, 0, 0])
    dilations = node.told("dilations", [1, 1])
    _require(len(kernel) == 2 and len(strides) == 2 and len(pads) == 4, node,
             f"kernel {kernel}, strides {strides} and pads {pads}", "those of two axes")
    _require(set(dilations) == {1}, node, f"dilations {dilations}", "1")
    auto = node.told("auto_pad", b"NOTSET")
    _require(auto in (b"NOTSET", b"", b"VALID", b"SAME_UPPER"), node, f"auto_pad {auto!r}", "NOTSET or SAME_UPPER")
    padding: Padding = "same" if auto == b"SAME_UPPER" else ((pads[0], pads[2]), (pads[1], pads[3]))
    try:
        return windows((1, H, W, C), (kernel[0], kernel[1]), (strides[0], strides[1]),
                       0 if auto == b"VALID" else padding, bool(node.told("ceil_mode", 0)))
    except InputError as error:
        raise InputError(f"{node}: {error}") from error


def _convolution(walk: Walk, node: Node, inputs: list[Any]) -> Layer:
    x = inputs[0]
    if isinstance(x, Pixels):
        _require(walk.first is None, node, "the images as its input, as another has", "one first layer")
        _require(x.array.ndim == 4 and x.array.shape[:2] == (1, 3), node,
                 f"images of shape {x.array.shape} as its input", "(N, 3, H, W)")
        walk.first = x.array[0].transpose(1, 2, 0)
        x = Layer("images", node, (), x.array.shape[1:])
    C, H, W = _grid(x, node)
    weight, bias = _array(node, inputs, 1, "weight"), _array(node, inputs, 2, "bias")
    if weight is None or weight.array.ndim != 4:
        raise InputError(f"{node} has no weight (O, C, KH, KW): give a network of convolutions in two dimensions")
    group = node.told("group", 1)
    _require(group == 1, node, f"{group} groups", "1")
    _require(weight.array.shape[1] == C, node, f"a weight of shape {weight.array.shape}", f"{C} input channels")
    O = weight.array.shape[0]
    _require(bias is None or bias.array.shape == (O,), node, f"a bias of shape {bias.array.shape if bias else ()}",
             f"({O},)")
    kernel = list(weight.array.shape[2:])
    told = node.told("kernel_shape", kernel)
    _require(told == kernel, node, f"kernel_shape {told}", f"its weight's, {kernel}")
    laid = _windows(node, (C, H, W), kernel)
    return Layer("convolution", node, (x,), (O, laid.OH, laid.OW), laid, weight, "OIHW", bias)


def _pool(kind: str) -> Callable[[Walk, Node, list[Any]], Layer]:
    def made(walk: Walk, node: Node, inputs: list[Any]) -> Layer:
        shape = _grid(inputs[0], node)
        laid = _windows(node, shape, node.told("kernel_shape", []))
        return Layer(kind, node, (inputs[0],), (shape[0], laid.OH, laid.OW), laid,
                     pads_counted=bool(node.told("count_include_pad", 0)))
    return made


def _mean(walk: Walk, node: Node, inputs: list[Any]) -> Layer:
    """The mean over the grid: GlobalAveragePool, or ReduceMean over both of its axes."""
    C, H, W = _grid(inputs[0], node)
    if node.op == "ReduceMean":
        given = _array(node, inputs, 1, "axes")
        axes = given.array.ravel().tolist() if given else node.told("axes", [])
        _require(sorted(axis % 4 for axis in axes) == [2, 3], node, f"axes {axes}", "[2, 3]")
    keeps = node.op == "GlobalAveragePool" or node.told("keepdims", 1)
    return Layer("average pool", node, (inputs[0],), (C, 1, 1) if keeps else (C,), windows((1, H, W, C), (H, W), 1, 0))


def _lrn(walk: Walk, node: Node, inputs: list[Any]) -> Layer:
    alpha, beta, k = (_decimal(node.told(name, default)) for name, default in
                      (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))
    constants = Lrn(node.told("size", 0), alpha, beta, k)
    _require(constants.size % 2 == 1 and all(map(math.isfinite, constants)), node, f"{constants}", "an odd size")
    return Layer("LRN", node, (inputs[0],), _grid(inputs[0], node), lrn=constants)


def _decimal(value: float) -> float:
    """Return the shortest number that is the same float32: 9.999999747378752e-05 is 1e-4."""
    with np.errstate(over="ignore"):
        return float(str(np.float32(value)))


def _concat(walk: Walk, node: Node, inputs: list[Any]) -> Layer:
    axis = node.told("axis", 1)
    shapes = [_grid(each, node) for each in inputs]
    _require(axis in (1, -3) and len({shape[1:] for shape in shapes}) == 1, node,
             f"axis {axis} and grids {[shape[1:] for shape in shapes]}", "channels of one grid")
    return Layer("concat", node, tuple(inputs), (sum(shape[0] for shape in shapes), *shapes[0][1:]))


def _linear(walk: Walk, node: Node, inputs: list[Any]) -> Layer:
    """Gemm and MatMul."""
    x = inputs[0]
    weight, bias = _array(node, inputs, 1, "weight"), _array(node, inputs, 2, "bias")
    if not isinstance(x, Layer) or len(x.shape) != 1 or weight is None or weight.array.ndim != 2:
        raise InputError(f"{node} is no linear layer of one vector an image: no GoogLeNet known has another product")
    factors = [node.told("transA", 0), node.told("alpha", 1.0), node.told("beta", 1.0)]
    _require(factors == [0, 1, 1], node, f"transA, alpha and beta {factors}", "[0, 1, 1]")
    layout = "OI" if node.told("transB", 0) else "IO"
    I, O = weight.array.shape[::-1] if layout == "OI" else weight.array.shape
    _require(x.shape == (I,), node, f"a weight for {I} inputs", f"{x.shape[0]}")
    made = Layer("linear", node, (x,), (O,), weight=weight, layout=layout)
    return made if bias is None else _biased(made, node, bias)


def _sum(walk: Walk, node: Node, inputs: list[Any]) -> Layer:
    """A bias that is added by a node of its own."""
    _require(len(inputs) == 2, node, f"{len(inputs)} inputs", "2")
    x, bias = inputs if isinstance(inputs[0], Layer) else inputs[::-1]
    plain = isinstance(x, Layer) and x.kind in ("convolution", "linear") and not (x.bias or x.norm or x.relu)
    if not plain or not isinstance(bias, Constant):
        raise InputError(f"{node} adds to something else than a layer without bias: no GoogLeNet known does")
    grid = 0 if x.kind == "linear" or (walk.opset < 7 and "axis" in node.attributes) else 2
    _require(bias.array.shape[bias.array.ndim - grid:] == (1,) * grid, node,
             f"a summand of shape {bias.array.shape}", "one number a channel")
    return _biased(x, node, bias)


def _biased(layer: Layer, node: Node, bias: Constant) -> Layer:
    _require(bias.array.size == layer.shape[0], node, f"a bias of shape {bias.array.shape}", f"({layer.shape[0]},)")
    return replace(layer, bias=replace(bias, array=bias.array.reshape(-1)))


def _batch_norm(walk: Walk, node: Node, inputs: list[Any]) -> Layer:
    x = inputs[0]
    right = isinstance(x, Layer) and x.kind == "convolution" and not (x.norm or x.relu)
    _require(right, node, f"{x if isinstance(x, Layer) else 'the images'} before it", "a convolution without ReLU")
    _require(not node.told("training_mode", 0), node, "training_mode 1", "that of testing, 0")
    names = ("scale", "bias", "mean", "variance")
    arrays = [each for place, name in enumerate(names, 1) if (each := _array(node, inputs, place, name))]
    _require([each.array.shape for each in arrays] == [(x.shape[0],)] * 4, node,
             f"arrays of shapes {[each.array.shape for each in arrays]}", f"four of ({x.shape[0]},)")
    gamma, beta, mean, variance = arrays
    return replace(x, norm=Norm(gamma, beta, mean, variance, _decimal(node.told("epsilon", 1e-5))))


def _relu(walk: Walk, node: Node, inputs: list[Any]) -> Layer:
    """Relu, and Clip at zero."""
    x = inputs[0]
    if node.op == "Clip":
        low, high = (_bound(node, inputs, place, name) for place, name in ((1, "min"), (2, "max")))
        _require(low == 0 and high >= LARGEST_HALF, node, f"limits {low} and {high}", "ReLU's, 0 and none")
    if not isinstance(x, Layer):
        raise InputError(f"{node} cuts the images' values: no GoogLeNet known does")
    return replace(x, relu=True) if x.kind in ("convolution", "linear") else _passed(walk, node, inputs)


def _bound(node: Node, inputs: list[Any], place: int, name: str) -> float:
    """Return a limit of Clip: an input in new versions, an attribute in old ones."""
    given = _array(node, inputs, place, name)
    if given and given.array.size == 1:
        return float(given.array.ravel()[0])
    return node.told(name, 0.0 if name == "min" else math.inf)


def _saturated(walk: Walk, node: Node, inputs: list[Any]) -> Value:
    x = inputs[0]
    return replace(x, relu=True) if isinstance(x, Layer) and x.kind == "convolution" else x


def _softmax(walk: Walk, node: Node, inputs: list[Any]) -> Layer:
    x = inputs[0]
    _require(isinstance(x, Layer) and math.prod(x.shape) == x.shape[0], node, "a grid before it", "logits")
    return x


def _passed(walk: Walk, node: Node, inputs: list[Any]) -> Layer:
    return inputs[0]


LAYERS: dict[str, Callable[[Walk, Node, list[Any]], Any]] = {
    "Conv": _convolution, "MaxPool": _pool("max pool"), "AveragePool": _pool("average pool"),
    "GlobalAveragePool": _mean, "ReduceMean": _mean, "LRN": _lrn, "Concat": _concat, "Gemm": _linear,
    "MatMul": _linear, "Add": _sum, "BatchNormalization": _batch_norm, "Relu": _relu, "Clip": _relu,
    SATURATE: _saturated, "Identity": _passed, "Dropout": _passed, "Cast": _passed, "Softmax": _softmax,
    "LogSoftmax": _softmax,
}
