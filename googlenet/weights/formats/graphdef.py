"""TensorFlow's frozen graphs (GraphDef, .pb): inception5h, and TF-slim's inception_v1, as they were published.

A graph says more than arrays: it is followed from the classifier back to the image, and every convolution, pool, norm
and concatenation on the way is compared with what the variant computes. What may differ between files is read off: the
constants of the local response normalisation, the heads, and the arithmetic before the first convolution. Names of
nodes do not matter but for those of weights (see schemes.py).

Sources: graph.proto, node_def.proto and attr_value.proto of TensorFlow, and the defaults of its ops' attributes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np

from googlenet.model import HEADS, NORMALISED, VARIANTS, Row
from googlenet.weights.contents import Contents, Graph
from googlenet.weights.files import read_whole
from googlenet.weights.formats.elements import BFLOAT16, told_widened
from googlenet.weights.formats.message_kind import kind_of
from googlenet.weights.formats.protobuf import Field, Schema, last, parse
from googlenet.weights.formats.tensorflow_tensor import DTYPES, SHAPE, STRING, TENSOR, Tensors
from googlenet.weights.formats.wording import DAMAGED, quoted, shown
from googlenet.weights.schemes import SCHEMES
from minigrad.errors import InputError

VALUE: Schema = {
    1: Field("list", "message", {3: Field("ints", "ints")}), 2: Field("bytes", "bytes"), 3: Field("int", "int"),
    4: Field("float", "float"), 5: Field("bool", "int"), 6: Field("type", "int"), 7: Field("shape", "message", SHAPE),
    8: Field("tensor", "message", TENSOR),
}
NODE: Schema = {1: Field("name", "string"), 2: Field("op", "string"), 3: Field("input", "string"),
                5: Field("attr", "message", {1: Field("key", "string"), 2: Field("value", "message", VALUE)})}
GRAPH: Schema = {1: Field("node", "message", NODE)}

SAME_VALUES = ("Identity", "StopGradient", "PreventGradient", "CheckNumerics", "ReadVariableOp")
SAME_ORDER = ("Reshape", "Squeeze")  # they leave values in their order; allowed where the grid has become a vector
ADD = ("BiasAdd", "Add", "AddV2")
DIVIDE = ("Div", "RealDiv")
BATCH_NORM = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
INPUTS = ("Placeholder", "PlaceholderWithDefault")


@dataclass(frozen=True)
class Node:
    """An operation: `inputs` are names of nodes, those that only order execution left out."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: dict[str, dict[str, Any]]

    def get(self, name: str, kind: str, default: Any) -> Any:
        """Return an attribute, of a kind of VALUE's fields, or its default where the file leaves it out."""
        return last(self.attributes.get(name, {}).get(kind, []), default)

    def ints(self, name: str, default: list[int]) -> list[int]:
        """Return an attribute that is a list of integers."""
        found = self.get(name, "list", None)
        return default if found is None else list(found["ints"])

    def text(self, name: str, default: str) -> str:
        """Return an attribute that is a word."""
        return bytes(self.get(name, "bytes", default.encode())).decode("utf-8", "replace")


def recognise(start: bytes, path: Path) -> bool:
    """Return whether a file's fields are a GraphDef's."""
    return bool(start) and kind_of(path) == "graphdef"


def read(path: Path) -> Contents:
    """Return a frozen graph's constants by their nodes' names, and what network the graph is.

    Constants without an axis (an image's mean, a dropout's rate) are part of the arithmetic and not among the arrays.
    Contents.graph is None where the weights' names are of no GoogLeNet. Raises InputError for a malformed file, and for
    a node that does not compute what the variant does."""
    nodes = _nodes(parse(read_whole(path), GRAPH, str(path)), str(path))
    constants, notes = _constants(nodes, str(path))
    variant = next((name for name in ("inception5h", "slim") if _weight(name, "conv1") in constants), None)
    graph, arithmetic = None, set()
    if variant:
        walk = _Walk(str(path), variant, nodes, constants)
        graph, arithmetic = walk.graph(), walk.arithmetic
    arrays = {name: array for name, array in constants.items()
              if array.ndim and array.dtype.kind == "f" and name not in arithmetic}
    return Contents("TensorFlow graph", arrays, notes, graph)


def _nodes(message: dict[str, Any], where: str) -> dict[str, Node]:
    nodes: dict[str, Node] = {}
    for each in message["node"]:
        name, op = last(each["name"], ""), last(each["op"], "")
        if name in nodes:
            raise InputError(f"{where} has two nodes named {shown(name)}: {DAMAGED}")
        inputs = tuple(source for source in each["input"] if not source.startswith("^"))
        attributes = {last(entry["key"], ""): entry["value"][-1] for entry in each["attr"] if entry["value"]}
        nodes[name] = Node(name, op, inputs, attributes)
    return nodes


def _constants(nodes: dict[str, Node], where: str) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Return the values of all constants that are numbers, and notes on those that were converted."""
    tensors, found, widened = Tensors(where), {}, []
    for node in nodes.values():
        tensor = node.get("value", "tensor", None)
        if node.op != "Const" or tensor is None or tensor["dtype"][-1:] in ([], [STRING]):
            continue
        number = tensor["dtype"][-1]
        found[node.name] = tensors.from_proto(tensor, number, tensors.shape_of(tensor["shape"], node.name), node.name)
        if DTYPES[number] == BFLOAT16:
            widened.append(node.name)
    return found, told_widened(widened)


def _weight(variant: str, layer: str, array: str = "weight") -> str:
    """Return what a variant's constant of one of our layers' arrays is called."""
    scheme = SCHEMES[variant]
    return scheme.convolution[array].format(scheme.layers[layer])


@dataclass
class _Walk:
    """The way from the classifier back to the image; its parts are given a node and return the one before them."""

    where: str
    variant: str
    nodes: dict[str, Node]
    constants: dict[str, np.ndarray]
    arithmetic: set[str] = field(default_factory=set)  # constants that are no weights
    lrn: dict[str, str] = field(default_factory=dict)  # node -> "size alpha beta k"

    def graph(self) -> Graph:
        """Return what network the graph is. Raises InputError for the first node that differs from the variant's."""
        stages: dict[str, Node] = {}
        node = self.classifier("classifier")
        for row in reversed([row for row in VARIANTS[self.variant].table if row.type in self.ROWS]):
            if VARIANTS[self.variant].lrn and row.name in NORMALISED:
                node = self.local_response_norm(node)
            stages[row.name] = node
            node = self.ROWS[row.type](self, node, row)
        for stage, head in HEADS.items():
            if f"{head}/classifier" in SCHEMES[self.variant].layers and \
                    _weight(self.variant, f"{head}/classifier") in self.constants:
                self.head(head, stages[stage])
        mean, std = self.image(node)
        if len(set(self.lrn.values())) > 1:
            told = ", ".join(f"{shown(name)} {text}" for name, text in self.lrn.items())
            raise InputError(f"{self.where}: its local response normalisations differ (size alpha beta k: {told}): "
                             "expected the same constants in both")
        return Graph(self.variant, lrn="".join(list(self.lrn.values())[:1]), mean=mean, std=std)

    # Parts of the network.

    def classifier(self, layer: str) -> Node:
        """Return the input of a last layer, which is found by its bias."""
        bias = _weight(self.variant, layer, "bias")
        users = [node for node in self.nodes.values()
                 if node.op in ADD and bias in (self.origin(source) for source in node.inputs)]
        if len(users) != 1:
            raise InputError(f"{self.where}: {len(users)} nodes add {bias}, expected one: give the frozen graph of the "
                             "whole network")
        return self.fully_connected(users[0], layer)

    def fully_connected(self, node: Node, layer: str) -> Node:
        node = self.without_bias(node, layer)
        if node.op == "Conv2D":  # 1x1 on a grid of one
            return self.source(self.convolution(node, layer, 1, 1), SAME_VALUES + SAME_ORDER)
        self.expect(node, "MatMul", transpose_a=(node.get("transpose_a", "bool", 0), 0),
                    transpose_b=(node.get("transpose_b", "bool", 0), 0))
        self.require_weight(node, 1, layer)
        return self.source(node, SAME_VALUES + SAME_ORDER)

    def global_average(self, node: Node, row: Row) -> Node:
        if node.op == "Mean":
            axes = self.constants.get(self.origin(node.inputs[-1]), np.zeros(0))
            self.expect(node, "Mean", axes=(sorted(axes.ravel()[:3].tolist()), [1, 2]))
            return self.source(node)
        return self.pool(node, "AvgPool", row.kernel, None, "VALID")

    def max_pool(self, node: Node, row: Row) -> Node:
        return self.pool(node, "MaxPool", row.kernel, row.stride, "SAME")

    def module(self, node: Node, row: Row) -> Node:
        """Return the input of an inception module, which all of its branches must share."""
        name, kernel = row.name, VARIANTS[self.variant].kernel_5x5
        outer = node.op == "Relu"  # one for all branches: the same numbers
        if outer:
            node = self.source(node)
        branches = [self.resolved(branch) for branch in self.concatenated(node)]
        self.expect(node, node.op, inputs=(len(branches), 4))
        y_1x1, y_3x3, y_5x5, y_pool = (
            self.layer(branch, f"{name}/{layer}", size, relu=not outer) for branch, layer, size in
            zip(branches, ("conv_1x1", "conv_3x3", "conv_5x5", "pool_proj"), (1, 3, kernel, 1), strict=True))
        inputs = [y_1x1, self.layer(y_3x3, f"{name}/conv_3x3_reduce", 1),
                  self.layer(y_5x5, f"{name}/conv_5x5_reduce", 1), self.pool(y_pool, "MaxPool", 3, 1, "SAME")]
        for branch in inputs[1:]:
            if branch.name != inputs[0].name:
                self.differs(branch, f"begins a branch of {name}",
                             f"{shown(inputs[0].name)}, where another branch begins")
        return inputs[0]

    def convolutions(self, node: Node, row: Row) -> Node:
        if not row.n3x3_reduce:
            return self.layer(node, row.name, row.kernel, row.stride)
        return self.layer(self.layer(node, row.name, row.kernel), f"{row.name}_reduce", 1)

    ROWS: ClassVar = {"convolution": convolutions, "max pool": max_pool, "inception": module,
                      "avg pool": global_average}

    def layer(self, node: Node, layer: str, kernel: int, stride: int = 1, relu: bool = True) -> Node:
        """Return the input of a convolution with its bias or batch norm and, unless that follows later, its ReLU."""
        if relu:
            self.expect(node, "Relu")
            node = self.source(node)
        norm = VARIANTS[self.variant].batch_norm
        node = self.batch_norm(node, layer) if norm else self.without_bias(node, layer)
        return self.source(self.convolution(node, layer, kernel, stride))

    def head(self, head: str, stage: Node) -> None:
        node = self.classifier(f"{head}/classifier")
        self.expect(node, "Relu")
        node = self.fully_connected(self.source(node), f"{head}/fc")
        node = self.pool(self.layer(node, f"{head}/conv", 1), "AvgPool", 5, 3, "VALID")
        if node.name != stage.name:
            self.differs(node, f"is what {head} begins behind", shown(stage.name))

    # Operations.

    def convolution(self, node: Node, layer: str, kernel: int, stride: int) -> Node:
        """Return the node of a convolution, found to be as the variant has it."""
        self.expect(node, "Conv2D", **self.windows(node, "strides", stride),
                    dilations=(node.ints("dilations", [1, 1, 1, 1]), [1, 1, 1, 1]))
        shape = self.require_weight(node, 1, layer).shape
        if shape[:2] != (kernel, kernel):
            self.differs(node, f"has a kernel of shape {shape}", f"({kernel}, {kernel}, ...)")
        if kernel > 1:  # without neighbours nothing is padded
            self.expect(node, "Conv2D", padding=(node.text("padding", ""), "SAME"))
        return node

    def pool(self, node: Node, op: str, kernel: int, stride: int | None, padding: str) -> Node:
        """Return a pool's input; without a stride the pool has but one window."""
        self.expect(node, op, **self.windows(node, "ksize", kernel), padding=(node.text("padding", ""), padding))
        if stride:
            self.expect(node, op, **self.windows(node, "strides", stride))
        return self.source(node)

    def windows(self, node: Node, attribute: str, side: int) -> dict[str, tuple[Any, Any]]:
        return {"data_format": (node.text("data_format", "NHWC"), "NHWC"),
                attribute: (node.ints(attribute, []), [1, side, side, 1])}

    def concatenated(self, node: Node) -> Sequence[str]:
        """Return what a node joins along channels."""
        if node.op not in ("Concat", "ConcatV2"):
            self.expect(node, "ConcatV2")
        at = 0 if node.op == "Concat" else -1
        axis = self.constants.get(self.origin(node.inputs[at]), np.zeros(0)) if node.inputs else np.zeros(0)
        if axis.size != 1 or int(axis.ravel()[0]) not in (3, -1):
            self.differs(node, f"joins along axis {axis.ravel()[:3].tolist()}", "3")
        return node.inputs[1:] if node.op == "Concat" else node.inputs[:-1]

    def local_response_norm(self, node: Node) -> Node:
        """Return its input, having noted its constants in our convention, where alpha is shared by the window."""
        self.expect(node, "LRN")
        size = 2 * node.get("depth_radius", "int", 5) + 1
        alpha, beta, k = (node.get(name, "float", default)
                          for name, default in (("alpha", 1.0), ("beta", 0.5), ("bias", 1.0)))
        if not 0 < size < 2**16 or not all(map(math.isfinite, (alpha, beta, k))) or k <= 0 or alpha < 0:
            self.differs(node, f"has size {size}, alpha {alpha}, beta {beta}, bias {k}", "positive finite numbers")
        self.lrn[node.name] = f"{size} {alpha * size!r} {beta!r} {k!r}"
        return self.source(node)

    def without_bias(self, node: Node, layer: str) -> Node:
        """Return what the layer's bias is added to."""
        if node.op not in ADD:
            self.expect(node, "BiasAdd")
        bias = _weight(self.variant, layer, "bias")
        return self.other(node, bias)

    def batch_norm(self, node: Node, layer: str) -> Node:
        """Return the input of slim's batch norm: one operation, or the seven that it is without one."""
        beta, mean, variance = (_weight(self.variant, layer, f"batch_norm/{name}")
                                for name in ("beta", "mean", "variance"))
        if node.op in BATCH_NORM:
            return self.fused_norm(node, beta, mean, variance)
        return self.spelled_norm(node, beta, mean, variance)

    def fused_norm(self, node: Node, beta: str, mean: str, variance: str) -> Node:
        """Return the input of a batch norm in one operation: image, gamma, beta, mean, variance."""
        self.expect(node, node.op, is_training=(node.get("is_training", "bool", 1), 0),
                    data_format=(node.text("data_format", "NHWC"), "NHWC"))
        self.require_epsilon(node, node.get("epsilon", "float", 1e-4))
        origins = [self.origin(source) for source in node.inputs]
        self.expect(node, node.op, inputs=(origins[2:], [beta, mean, variance]))
        gamma = self.constants.get(origins[1], np.zeros(1))
        if (gamma != 1).any():
            self.differs(node, f"scales by {shown(origins[1])}", "ones: slim's batch norm has no gamma")
        self.arithmetic.add(origins[1])
        return self.source(node)

    def spelled_norm(self, node: Node, beta: str, mean: str, variance: str) -> Node:
        """Return x of (x * scale) + (beta - mean * scale), where scale is (variance + epsilon)^(-1/2)."""
        if node.op not in ADD or len(node.inputs) != 2:
            self.expect(node, BATCH_NORM[0])
        product, shift = map(self.resolved, node.inputs)
        self.expect(product, "Mul")
        self.expect(shift, "Sub", inputs=(len(shift.inputs), 2))
        if self.origin(shift.inputs[0]) != beta:
            self.differs(shift, f"subtracts from {shown(shift.inputs[0])}", beta)
        scaled_mean = self.resolved(shift.inputs[1])
        self.expect(scaled_mean, "Mul")
        scale = self.other(scaled_mean, mean)
        self.expect(scale, "Rsqrt")
        shifted = self.source(scale)
        if shifted.op not in ADD:
            self.expect(shifted, "Add")
        epsilon = self.other(shifted, variance)
        self.require_epsilon(epsilon, float(self.constants.get(epsilon.name, np.zeros(1)).ravel()[:1].sum()))
        return self.other(product, scale.name)

    def require_epsilon(self, node: Node, epsilon: float) -> None:
        norm = VARIANTS[self.variant].batch_norm
        if norm and not math.isclose(epsilon, norm.eps, rel_tol=1e-6):
            self.differs(node, f"has epsilon {epsilon}", str(norm.eps))

    def image(self, node: Node) -> tuple[Triple, Triple]:
        """Return mean and deviation of the arithmetic between the image and the first convolution, (x - mean) / std."""
        mean, std = np.zeros(3), np.ones(3)
        with np.errstate(all="ignore"):
            for step, value in reversed(list(self.preparation(node))):
                if step.op == "Sub":
                    mean = mean + value * std
                elif step.op in ADD:
                    mean = mean - value * std
                else:
                    std = std * value if step.op in DIVIDE else std / value
        if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
            raise InputError(f"{self.where}: the graph prepares images as (x - {mean.tolist()}) / {std.tolist()}: "
                             "expected finite numbers, and positive ones to divide by")
        return _triple(mean), _triple(std)

    def preparation(self, node: Node) -> Iterator[tuple[Node, np.ndarray]]:
        """Yield the steps before the first convolution, the last first, each with its constant for every channel."""
        for _ in self.nodes:
            if node.op in INPUTS:
                return
            if node.op in ("Cast", "ExpandDims", *SAME_VALUES):
                node = self.source(node)
                continue
            operands = [self.origin(source) for source in node.inputs]
            constant = [name for name in operands if name in self.constants]
            if node.op not in ("Sub", "Mul", *ADD, *DIVIDE) or len(operands) != 2 or len(constant) != 1 or \
                    (constant[0] == operands[0] and node.op in ("Sub", *DIVIDE)) or \
                    self.constants[constant[0]].size not in (1, 3):
                break
            self.arithmetic.add(constant[0])
            yield node, np.broadcast_to(self.constants[constant[0]].astype(np.float64).ravel(), 3)
            node = self.other(node, constant[0])
        self.differs(node, f"is {shown(node.op)}, before the first convolution",
                     "an image and, between them, a constant that is added, subtracted, multiplied or divided by")

    # Following edges.

    def node(self, source: str) -> Node:
        """Return the node that an input names, "name" or "name:0"."""
        name = source.removesuffix(":0")
        if name not in self.nodes:
            raise InputError(f"{self.where}: no node has the output {quoted(source)}: {DAMAGED}")
        return self.nodes[name]

    def resolved(self, source: str, passed: tuple[str, ...] = SAME_VALUES) -> Node:
        """Return the node that an input comes from, past those that leave its values as they are."""
        node = self.node(source)
        for _ in self.nodes:
            if node.op not in passed or not node.inputs:
                return node
            node = self.node(node.inputs[0])
        raise InputError(f"{self.where}: node {shown(node.name)} follows itself: {DAMAGED}")

    def origin(self, source: str) -> str:
        """Return the name of the node that an input comes from."""
        return self.resolved(source).name

    def source(self, node: Node, passed: tuple[str, ...] = SAME_VALUES) -> Node:
        """Return where a node's first input comes from, of a concatenation and the like; InputError without one."""
        if not node.inputs:
            self.differs(node, f"is {shown(node.op)} without an input", "a layer of the network")
        return self.resolved(node.inputs[0], passed)

    def other(self, node: Node, name: str) -> Node:
        """Return what a node of two inputs takes beside the node `name`."""
        first, *rest = [self.resolved(source) for source in node.inputs] or [node]
        if len(rest) == 1 and name in (first.name, rest[0].name):
            return first if rest[0].name == name else rest[0]
        self.differs(node, f"is {shown(node.op)} of {', '.join(map(shown, node.inputs)) or 'nothing'}",
                     f"{shown(name)} as one of two inputs")

    def require_weight(self, node: Node, index: int, layer: str) -> np.ndarray:
        """Return a layer's weight, which must be the node's input."""
        name = _weight(self.variant, layer)
        found = self.origin(node.inputs[index]) if index < len(node.inputs) else "nothing"
        if found != name or name not in self.constants:
            self.differs(node, f"has the weight {shown(found)}", name)
        return self.constants[name]

    def expect(self, node: Node, op: str, **attributes: tuple[Any, Any]) -> None:
        """Raise InputError where a node is of another kind, or one of its attributes (found, expected) differs."""
        if node.op != op:
            self.differs(node, f"is {shown(node.op)}", op)
        for name, (found, expected) in attributes.items():
            if found != expected:
                self.differs(node, f"({op}) has {name} {shown(str(found))}", str(expected))

    def differs(self, node: Node, found: str, expected: str) -> NoReturn:
        raise InputError(f"{self.where}: node {shown(node.name)} {found}, where {self.variant} has {expected}: give "
                         "the graph as it was published, or convert a checkpoint")


Triple = tuple[float, float, float]


def _triple(values: np.ndarray) -> Triple:
    first, second, third = values.tolist()
    return first, second, third
