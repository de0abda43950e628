"""The network as an ONNX file, made of our weights by hand: what OpenVINO and ONNX Runtime read."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.job import CLASSES, Job
from benchmarks.peers.network import LRN_ALPHA, LRN_BETA, LRN_K, LRN_SIZE, trunk

OPSET, IR_VERSION = 13, 8  # old enough for every reader


def write(job: Job) -> Path:
    """Write network.onnx, for the job's batch of images (N, 3, S, S), and return its path."""
    graph = Graph(job.weights())
    features, _ = trunk(graph, "images")
    graph.nodes.append(helper.make_node("Identity", [graph.linear(features, "classifier")], ["logits"]))
    shape = [job.batch, 3, job.size, job.size]
    made = helper.make_graph(graph.nodes, "googlenet",
                             [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
                             [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [job.batch, CLASSES])],
                             graph.constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    onnx.save(model, job.file("network.onnx"))
    return job.file("network.onnx")


class Graph:
    """Collects nodes; an array is the name of the node's output."""

    def __init__(self, weights: dict[str, np.ndarray]):
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def _node(self, op: str, inputs: list[str], **attributes: Any) -> str:
        output = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def _constant(self, path: str, order: tuple[int, ...]) -> str:
        array = np.ascontiguousarray(self.weights[path].transpose(order))
        self.constants.append(numpy_helper.from_array(array, path))
        return path

    def conv(self, x: str, path: str, stride: int = 1, padding: int = 0) -> str:
        """Convolution, bias, ReLU."""
        weight = self._constant(f"{path}/weight", (3, 2, 0, 1))
        y = self._node("Conv", [x, weight, self._constant(f"{path}/bias", (0,))], strides=[stride] * 2,
                       pads=[padding] * 4)
        return self._node("Relu", [y])

    def max_pool(self, x: str, kernel: int, stride: int, padding: int) -> str:
        """Max pooling, rounded up."""
        return self._node("MaxPool", [x], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[padding] * 4,
                          ceil_mode=1)

    def lrn(self, x: str) -> str:
        """Local response normalisation; ONNX divides alpha by the size as well."""
        return self._node("LRN", [x], size=LRN_SIZE, alpha=LRN_ALPHA, beta=LRN_BETA, bias=LRN_K)

    def concat(self, xs: list[str]) -> str:
        """Join along the channels."""
        return self._node("Concat", xs, axis=1)

    def average(self, x: str) -> str:
        """The mean over the grid."""
        return self._node("Flatten", [self._node("GlobalAveragePool", [x])])

    def linear(self, x: str, path: str) -> str:
        """A fully connected layer."""
        return self._node("Gemm", [x, self._constant(f"{path}/weight", (0, 1)), self._constant(f"{path}/bias", (0,))])
