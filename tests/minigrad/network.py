"""A small network through every op, for the tests that compare one way of running it with another."""

from typing import Any, Literal

import numpy as np

from minigrad import Tensor, ops
from tests.minigrad.strategies import normal

Method = Literal["auto", "im2col", "direct", "winograd"]


def step(dtype: Any = np.float32, method: Method = "auto") -> dict[str, np.ndarray]:
    """One forward and backward pass; returns the loss and every gradient by name."""
    rng = np.random.default_rng(0)
    shapes = {
        "x": (5, 19, 18, 3),
        "conv1": (5, 5, 3, 40),
        "bias1": (40,),
        "depthwise": (3, 3, 40, 1),
        "conv2": (3, 3, 40, 17),
        "linear": (3 * 2 * 17, 10),
    }
    leaves = {name: Tensor(normal(rng, shape, dtype), requires_grad=True) for name, shape in shapes.items()}
    x, conv1, bias1, depthwise, conv2, linear = leaves.values()

    y = ops.conv2d(x, conv1 * 0.1, bias1, stride=2, padding=2, relu=True,
                   method="direct" if method == "winograd" else method)
    y = ops.lrn(ops.max_pool2d(y, 3, stride=1, padding=1), alpha=1.0)
    y = ops.relu(ops.conv2d(ops.depthwise_conv2d(y, depthwise, padding=1), conv2 * 0.1, padding="same", method=method))
    y = ops.dropout(ops.avg_pool2d(y, 5, stride=4, ceil=True), 0.4, seed=1, step=2, stream=3)
    logits = ops.linear(ops.reshape(y, (5, 3 * 2 * 17)), linear * 0.1)
    loss = ops.cross_entropy(logits, np.arange(5)) + ops.sum_all(ops.concat([logits, logits * logits])) * 0.01
    loss.backward()
    return {"loss": loss.data} | {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
