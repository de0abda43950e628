"""inception5h in TensorFlow's plain operations, its nodes named as in tensorflow_inception_graph.pb.

It is the paper's network with SAME padding, LRN of TensorFlow's kind, two widths of its own and 1008 classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from googlenet.model import scaled

MODULES = {
    #        #1x1 #3x3reduce #3x3 #5x5reduce #5x5 pool
    "mixed3a": (64, 96, 128, 16, 32, 32),
    "mixed3b": (128, 128, 192, 32, 96, 64),
    "mixed4a": (192, 96, 204, 16, 48, 64),
    "mixed4b": (160, 112, 224, 24, 64, 64),
    "mixed4c": (128, 128, 256, 24, 64, 64),
    "mixed4d": (112, 144, 288, 32, 64, 64),
    "mixed4e": (256, 160, 320, 32, 128, 128),
    "mixed5a": (256, 160, 320, 48, 128, 128),
    "mixed5b": (384, 192, 384, 48, 128, 128),
}
POOLS = {"mixed4a": "maxpool4", "mixed5a": "maxpool10"}  # before which module
OUR_POOLS = {"maxpool4": "pool3", "maxpool10": "pool4"}
HEADS = {"mixed4a": 0, "mixed4d": 1}
HEAD_CHANNELS, HEAD_FEATURES, HEAD_GRID = 128, 1024, 4
LRN = {"depth_radius": 5, "bias": 2.0, "alpha": 1e-4, "beta": 0.5}


def shapes(width: float, classes: int, heads: bool = True) -> dict[str, tuple[int, ...]]:
    """Every weight's shape by its node: (KH, KW, C, O) or (C, O)."""
    def channels(count: int) -> int:
        return scaled(count, width)

    found: dict[str, tuple[int, ...]] = {
        "conv2d0": (7, 7, 3, channels(64)), "conv2d1": (1, 1, channels(64), channels(64)),
        "conv2d2": (3, 3, channels(64), channels(192)),
    }
    last = channels(192)
    for name, row in MODULES.items():
        n1x1, reduce3, n3x3, reduce5, n5x5, proj = map(channels, row)
        found |= {f"{name}_1x1": (1, 1, last, n1x1), f"{name}_3x3_bottleneck": (1, 1, last, reduce3),
                  f"{name}_3x3": (3, 3, reduce3, n3x3), f"{name}_5x5_bottleneck": (1, 1, last, reduce5),
                  f"{name}_5x5": (5, 5, reduce5, n5x5), f"{name}_pool_reduce": (1, 1, last, proj)}
        last = n1x1 + n3x3 + n5x5 + proj
        if heads and name in HEADS:
            number, features = HEADS[name], channels(HEAD_FEATURES)
            found |= {f"head{number}_bottleneck": (1, 1, last, channels(HEAD_CHANNELS)),
                      f"nn{number}": (HEAD_GRID ** 2 * channels(HEAD_CHANNELS), features),
                      f"softmax{number}": (features, classes)}
    return {**found, "softmax2": (last, classes)}


def random_arrays(width: float = 1.0, classes: int = 1008, seed: int = 0, heads: bool = True) -> dict[str, np.ndarray]:
    """Weights and biases by the names of their nodes, such that every term of LRN matters to the result."""
    random = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}
    for name, shape in shapes(width, classes, heads).items():
        deviation = np.sqrt(2 / np.prod(shape[:-1]))
        arrays[f"{name}_w"] = (random.standard_normal(shape) * deviation).astype(np.float32)
        arrays[f"{name}_b"] = (random.standard_normal(shape[-1:]) * 0.5).astype(np.float32)
    return arrays


class Inception5h:
    """The network on arrays by the names of their nodes; x is (N, 224, 224, 3), a picture less 117."""

    def __init__(self, arrays: Mapping[str, Any], lrn: Mapping[str, Any] = LRN):
        self.arrays = arrays
        self.lrn = lrn

    def stages(self, x: Any) -> Iterator[tuple[str, Any]]:
        """Yield every stage's and head's output under our name, the logits last."""
        yield "conv1", (x := self.conv(x, "conv2d0", 2))
        yield "pool1", (x := self.pool(x, "maxpool0", 2))
        yield "norm1", (x := tf.nn.local_response_normalization(x, **self.lrn, name="localresponsenorm0"))
        yield "conv2_reduce", (x := self.conv(x, "conv2d1"))
        yield "conv2", (x := self.conv(x, "conv2d2"))
        yield "norm2", (x := tf.nn.local_response_normalization(x, **self.lrn, name="localresponsenorm1"))
        yield "pool2", (x := self.pool(x, "maxpool1", 2))
        for name in MODULES:
            if name in POOLS:
                yield OUR_POOLS[POOLS[name]], (x := self.pool(x, POOLS[name], 2))
            yield f"inception_{name[-2:]}", (x := self.module(x, name))
            if name in HEADS and f"nn{HEADS[name]}_w" in self.arrays:
                yield f"aux{HEADS[name] + 1}", self.head(x, HEADS[name])
        x = tf.nn.avg_pool2d(x, 7, 1, "VALID", name="avgpool0")
        yield "pool5", (x := tf.reshape(x, [-1, x.shape[3]], name="avgpool0/reshape"))
        yield "classifier", self.linear(x, "softmax2", "softmax2_pre_activation")

    def head(self, x: Any, number: int) -> Any:
        x = tf.nn.avg_pool2d(x, 5, 3, "VALID", name=f"head{number}_pool")
        x = self.conv(x, f"head{number}_bottleneck")
        x = tf.reshape(x, [-1, HEAD_GRID ** 2 * x.shape[3]], name=f"head{number}_bottleneck/reshape")
        x = tf.nn.relu(self.linear(x, f"nn{number}", f"nn{number}_pre_relu"), name=f"nn{number}")
        x = tf.reshape(x, [-1, x.shape[1]], name=f"nn{number}/reshape")
        return self.linear(x, f"softmax{number}", f"softmax{number}_pre_activation")

    def module(self, x: Any, name: str) -> Any:
        return tf.concat([
            self.conv(x, f"{name}_1x1"),
            self.conv(self.conv(x, f"{name}_3x3_bottleneck"), f"{name}_3x3"),
            self.conv(self.conv(x, f"{name}_5x5_bottleneck"), f"{name}_5x5"),
            self.conv(self.pool(x, f"{name}_pool", 1), f"{name}_pool_reduce"),
        ], 3, name=name)

    def pool(self, x: Any, name: str, stride: int) -> Any:
        return tf.nn.max_pool2d(x, 3, stride, "SAME", name=name)

    def conv(self, x: Any, name: str, stride: int = 1) -> Any:
        y = tf.nn.conv2d(x, self.weight(f"{name}_w"), stride, "SAME", name=f"{name}_pre_relu/conv")
        return tf.nn.relu(tf.nn.bias_add(y, self.weight(f"{name}_b"), name=f"{name}_pre_relu"), name=name)

    def linear(self, x: Any, name: str, node: str) -> Any:
        y = tf.matmul(x, self.weight(f"{name}_w"), name=f"{node}/matmul")
        return tf.nn.bias_add(y, self.weight(f"{name}_b"), name=node)

    def weight(self, name: str) -> Any:
        return tf.constant(self.arrays[name], name=name)


def frozen(arrays: Mapping[str, Any], lrn: Mapping[str, Any] = LRN, mean: float | None = None) -> Any:
    """The network as a GraphDef; with a mean, the graph itself subtracts it."""
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, 224, 224, 3), name="input")
        if mean is not None:
            x = tf.subtract(x, mean, name="centred")
        for name, y in Inception5h(arrays, lrn).stages(x):
            if name in ("aux1", "aux2", "classifier"):
                number = {"aux1": 0, "aux2": 1, "classifier": 2}[name]
                tf.identity(tf.nn.softmax(y, name=f"softmax{number}"), name=f"output{number or ''}")
    return graph.as_graph_def(add_shapes=False)
