"""Our network as an ONNX file, which says what the network computes in testing: no more and no less.

Images enter as (N, 3, S, S) float32, N being open, in the variant's order of channels and with its preprocessing done;
the logits leave. Auxiliary heads, which testing does not use, are not written. Windows are written as they are laid:
padding as numbers, and whether pools round up.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any, NamedTuple

import numpy as np

from googlenet.model import (
    Flatten,
    GlobalAverage,
    GoogLeNet,
    InceptionModule,
    LocalResponseNorm,
    MaxPool,
    NaiveInception,
    SeparableStem,
)
from googlenet.weights.files import write_whole
from googlenet.weights.formats.onnx.messages import FLOAT, MODEL
from googlenet.weights.formats.protobuf import encode
from minigrad import nn
from minigrad.errors import InputError
from minigrad.kernels.windows import Padding, Pair, windows

OPSET, IR_VERSION = 13, 8  # old enough for every reader
INPUT, OUTPUT = "images", "logits"
CHANNELS_FIRST = (3, 2, 0, 1)  # (KH, KW, C, O) -> (O, C, KH, KW)
TYPES = {float: ("f", 1), int: ("i", 2), list: ("ints", 7)}  # of attributes: their field and the number of their type


class Value(NamedTuple):
    """An array of the graph by its name, and the grid that it is on."""

    name: str
    H: int = 1
    W: int = 1


def write(path: str | PathLike[str], model: GoogLeNet, metadata: Mapping[str, str] | None = None) -> None:
    """Write the network and texts that belong to it, whole or not at all. Arrays become float32.

    They bear our names and ONNX's layouts; batch norm becomes nodes of its own where the network has it. Raises
    InputError where the file can't be written."""
    graph = _Graph()
    S = model.config.image_size
    value = Value(INPUT, S, S)
    for name in model.stage_shapes:
        value = graph.stage(value, name, getattr(model, name))
    graph.node("Identity", [value.name], output=OUTPUT)
    content = encode(MODEL, {
        "ir_version": IR_VERSION, "producer_name": "googlenet", "opset_import": {"domain": "", "version": OPSET},
        "graph": {"name": "googlenet", "node": graph.nodes, "initializer": graph.arrays,
                  "input": _described(INPUT, ["N", 3, S, S]),
                  "output": _described(OUTPUT, ["N", model.config.classes])},
        "metadata_props": [{"key": key, "value": value} for key, value in (metadata or {}).items()],
    })
    write_whole(path, [content])


class _Graph:
    """Collects messages: nodes, and arrays with their values."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.arrays: list[dict[str, Any]] = []

    def stage(self, x: Value, name: str, module: nn.Module) -> Value:
        """Add a stage of the network, or a layer of one; return its output."""
        for kind, add in STAGES.items():
            if isinstance(module, kind):
                return add(self, x, name, module)
        raise InputError(f"{name} ({type(module).__name__}) has no ONNX operator: export another network")

    def node(self, op: str, inputs: list[str], output: str, **attributes: float | int | list[int]) -> str:
        described = [{"name": name, TYPES[type(value)][0]: value, "type": TYPES[type(value)][1]}
                     for name, value in attributes.items()]
        self.nodes.append({"op_type": op, "name": output, "input": inputs, "output": output, "attribute": described})
        return output

    def array(self, name: str, array: np.ndarray) -> str:
        values = np.ascontiguousarray(array, "<f4")
        self.arrays.append({"name": name, "dims": list(values.shape), "data_type": FLOAT, "raw_data": values.tobytes()})
        return name

    def windows(self, op: str, x: Value, inputs: list[str], output: str, kernel: Pair, stride: Pair, padding: Padding,
                **more: int) -> Value:
        """Add a node that has windows."""
        laid = windows((1, x.H, x.W, 1), kernel, stride, padding, bool(more.get("ceil_mode")))
        self.node(op, inputs, output, kernel_shape=[laid.KH, laid.KW], strides=[laid.SH, laid.SW],
                  pads=[laid.top, laid.left, laid.bottom, laid.right], **more)
        return Value(output, laid.OH, laid.OW)

    def relu(self, x: Value) -> Value:
        return x._replace(name=self.node("Relu", [x.name], f"{x.name}/relu"))


def _convolution(graph: _Graph, x: Value, name: str, module: nn.Conv2d) -> Value:
    inputs = [x.name, graph.array(f"{name}/weight", module.weight.data.transpose(CHANNELS_FIRST))]
    if module.bias is not None:
        inputs.append(graph.array(f"{name}/bias", module.bias.data))
    KH, KW = module.weight.shape[:2]
    y = graph.windows("Conv", x, inputs, name, (KH, KW), module.stride, module.padding)
    if module.batch_norm is not None:
        y = _batch_norm(graph, y, f"{name}/batch_norm", module.batch_norm)
    return graph.relu(y) if module.relu else y


def _batch_norm(graph: _Graph, x: Value, name: str, module: nn.BatchNorm) -> Value:
    gamma = np.ones_like(module.beta.data) if module.gamma is None else module.gamma.data
    arrays = {"gamma": gamma, "beta": module.beta.data, "mean": module.mean.data, "variance": module.variance.data}
    inputs = [x.name, *(graph.array(f"{name}/{each}", array) for each, array in arrays.items())]
    return x._replace(name=graph.node("BatchNormalization", inputs, name, epsilon=float(module.eps)))


def _depthwise(graph: _Graph, x: Value, name: str, module: nn.DepthwiseConv2d) -> Value:
    KH, KW, C, M = module.weight.shape
    weight = graph.array(f"{name}/weight", module.weight.data.transpose(2, 3, 0, 1).reshape(C * M, 1, KH, KW))
    return graph.windows("Conv", x, [x.name, weight], name, (KH, KW), module.stride, module.padding, group=C)


def _separable(graph: _Graph, x: Value, name: str, module: SeparableStem) -> Value:
    return _convolution(graph, _depthwise(graph, x, f"{name}/depthwise", module.depthwise), f"{name}/pointwise",
                        module.pointwise)


def _max_pool(graph: _Graph, x: Value, name: str, module: MaxPool) -> Value:
    return graph.windows("MaxPool", x, [x.name], name, module.kernel, module.stride, module.padding,
                         ceil_mode=int(module.ceil))


def _lrn(graph: _Graph, x: Value, name: str, module: LocalResponseNorm) -> Value:
    return x._replace(name=graph.node("LRN", [x.name], name, size=module.size, alpha=float(module.alpha),
                                      beta=float(module.beta), bias=float(module.k)))


def _pool_of_module(graph: _Graph, x: Value, name: str) -> Value:
    return graph.windows("MaxPool", x, [x.name], f"{name}/pool", 3, 1, 1)


def _inception(graph: _Graph, x: Value, name: str, module: InceptionModule) -> Value:
    def convolution(x: Value, layer: str) -> Value:
        return _convolution(graph, x, f"{name}/{layer}", getattr(module, layer))

    branches = [convolution(x, "conv_1x1"),
                convolution(convolution(x, "conv_3x3_reduce"), "conv_3x3"),
                convolution(convolution(x, "conv_5x5_reduce"), "conv_5x5"),
                convolution(_pool_of_module(graph, x, name), "pool_proj")]
    return x._replace(name=graph.node("Concat", [each.name for each in branches], name, axis=1))


def _naive_inception(graph: _Graph, x: Value, name: str, module: NaiveInception) -> Value:
    convolutions = {"conv_1x1": module.conv_1x1, "conv_3x3": module.conv_3x3, "conv_5x5": module.conv_5x5}
    branches = [_convolution(graph, x, f"{name}/{layer}", each) for layer, each in convolutions.items()]
    branches.append(_pool_of_module(graph, x, name))
    return x._replace(name=graph.node("Concat", [each.name for each in branches], name, axis=1))


def _average(graph: _Graph, x: Value, name: str, module: GlobalAverage) -> Value:
    return Value(graph.node("Flatten", [graph.node("GlobalAveragePool", [x.name], name)], f"{name}/flat"))


def _flatten(graph: _Graph, x: Value, name: str, module: Flatten) -> Value:
    last = graph.node("Transpose", [x.name], f"{name}/channels_last", perm=[0, 2, 3, 1])
    return Value(graph.node("Flatten", [last], name))


def _dropout(graph: _Graph, x: Value, name: str, module: nn.Dropout) -> Value:
    return x


def _linear(graph: _Graph, x: Value, name: str, module: nn.Linear) -> Value:
    inputs = [x.name, graph.array(f"{name}/weight", module.weight.data), graph.array(f"{name}/bias", module.bias.data)]
    y = Value(graph.node("Gemm", inputs, name))
    return graph.relu(y) if module.relu else y


STAGES: dict[type[nn.Module], Any] = {
    nn.Conv2d: _convolution, SeparableStem: _separable, MaxPool: _max_pool, LocalResponseNorm: _lrn,
    InceptionModule: _inception, NaiveInception: _naive_inception, GlobalAverage: _average, Flatten: _flatten,
    nn.Dropout: _dropout, nn.Linear: _linear,
}


def _described(name: str, axes: list[int | str]) -> dict[str, Any]:
    """Return the description of an input or output; an axis of a name is open."""
    shape = [{"dim_param": axis} if isinstance(axis, str) else {"dim_value": axis} for axis in axes]
    return {"name": name, "type": {"tensor_type": {"elem_type": FLOAT, "shape": {"dim": shape}}}}
