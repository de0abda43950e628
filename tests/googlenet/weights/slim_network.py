"""TF-slim's inception_v1 in TensorFlow's plain operations, under slim's names: what our variant is compared with.

It is not the paper's: batch norm without gamma in place of biases, no local response normalisation, a 3x3 kernel in the
branch that is called 5x5, a fourth pool of 2x2, no heads, and a class 0 that stands for "none of the others".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from googlenet.model import scaled

EPSILON = 1e-3
STEM = {"Conv2d_1a_7x7": (7, 3, 64), "Conv2d_2b_1x1": (1, 64, 64), "Conv2d_2c_3x3": (3, 64, 192)}
MODULES = {
    #                            #3x3        "5x5"       pool
    # name           input #1x1 reduce  3x3  reduce 3x3  proj
    "Mixed_3b": (192,  64,    96, 128,    16,  32,  32),
    "Mixed_3c": (256, 128,   128, 192,    32,  96,  64),
    "Mixed_4b": (480, 192,    96, 208,    16,  48,  64),
    "Mixed_4c": (512, 160,   112, 224,    24,  64,  64),
    "Mixed_4d": (512, 128,   128, 256,    24,  64,  64),
    "Mixed_4e": (512, 112,   144, 288,    32,  64,  64),
    "Mixed_4f": (528, 256,   160, 320,    32, 128, 128),
    "Mixed_5b": (832, 256,   160, 320,    32, 128, 128),
    "Mixed_5c": (832, 384,   192, 384,    48, 128, 128),
}
OURS = {name: f"inception_{name[6]}{chr(ord(name[7]) - 1)}" for name in MODULES}


def branch_2(module: str) -> str:
    """The second convolution of the third branch: one of them was misnamed and stayed so."""
    return "Conv2d_0a_3x3" if module == "Mixed_5b" else "Conv2d_0b_3x3"


def convolutions(width: float = 1.0) -> dict[str, tuple[int, int, int, int]]:
    """The shape of every convolution's weights but the last one's, (KH, KW, C, O)."""
    def shape(kernel: int, channels: int, outputs: int) -> tuple[int, int, int, int]:
        return kernel, kernel, channels, scaled(outputs, width)

    shapes = {name: shape(kernel, 3 if channels == 3 else scaled(channels, width), outputs)
              for name, (kernel, channels, outputs) in STEM.items()}
    channels = scaled(192, width)
    for name, (_input, n1x1, reduce3, n3x3, reduce5, n5x5, proj) in MODULES.items():
        shapes |= {
            f"{name}/Branch_0/Conv2d_0a_1x1": shape(1, channels, n1x1),
            f"{name}/Branch_1/Conv2d_0a_1x1": shape(1, channels, reduce3),
            f"{name}/Branch_1/Conv2d_0b_3x3": shape(3, scaled(reduce3, width), n3x3),
            f"{name}/Branch_2/Conv2d_0a_1x1": shape(1, channels, reduce5),
            f"{name}/Branch_2/{branch_2(name)}": shape(3, scaled(reduce5, width), n5x5),
            f"{name}/Branch_3/Conv2d_0b_1x1": shape(1, channels, proj),
        }
        channels = sum(scaled(outputs, width) for outputs in (n1x1, n3x3, n5x5, proj))
    return shapes


def random_arrays(width: float = 1.0, classes: int = 1001, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights and statistics of the network, by the names of slim's variables, such that no stage fades or explodes."""
    random = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}

    def normal(shape: tuple[int, ...], deviation: float) -> np.ndarray:
        return (random.standard_normal(shape) * deviation).astype(np.float32)

    shapes = convolutions(width)
    for name, shape in shapes.items():
        outputs = shape[3:]
        arrays[f"InceptionV1/{name}/weights"] = normal(shape, np.sqrt(2 / np.prod(shape[:3])))
        arrays[f"InceptionV1/{name}/BatchNorm/beta"] = normal(outputs, 0.3)
        arrays[f"InceptionV1/{name}/BatchNorm/moving_mean"] = normal(outputs, 0.3)
        arrays[f"InceptionV1/{name}/BatchNorm/moving_variance"] = random.uniform(0.3, 1.5, outputs).astype(np.float32)
    features = sum(shapes[name][3] for name in list(shapes)[-6:]
                   if name.endswith(("Branch_0/Conv2d_0a_1x1", "_3x3", "Branch_3/Conv2d_0b_1x1")))
    arrays["InceptionV1/Logits/Conv2d_0c_1x1/weights"] = normal((1, 1, features, classes), np.sqrt(1 / features))
    arrays["InceptionV1/Logits/Conv2d_0c_1x1/biases"] = normal((classes,), 0.5)
    return arrays


def frozen(constant: Callable[[str, tuple[int, ...]], Any], network: type[Slim], width: float, classes: int) -> Any:
    """The network as a GraphDef, from a picture of bytes to probabilities; `constant` makes each weight of its name."""
    with tf.Graph().as_default() as graph:
        shapes = {name: array.shape for name, array in random_arrays(width, classes).items()}
        arrays = {name: tf.identity(constant(name, shape), name=f"{name}/read") for name, shape in shapes.items()}
        x = tf.cast(tf.compat.v1.placeholder(tf.uint8, (1, 224, 224, 3), name="input"), tf.float32)
        x = tf.multiply(tf.subtract(tf.divide(x, 255.0), 0.5), 2.0)
        *_, (_name, y) = network(arrays).stages(x)
        tf.nn.softmax(y, name="InceptionV1/Logits/Predictions/Softmax")
    return graph.as_graph_def(add_shapes=False)


class Slim:
    """The network in testing, on arrays or variables by slim's names; x is (N, 224, 224, 3) from -1 to 1."""

    def __init__(self, arrays: Mapping[str, Any]):
        self.arrays = arrays

    def stages(self, x: Any) -> Iterator[tuple[str, Any]]:
        """Yield every stage's output under our name, the logits last. x: any multiple of 32 as its side."""
        x = self.conv(tf.convert_to_tensor(x), "Conv2d_1a_7x7", 2)
        yield "conv1", x
        yield "pool1", (x := tf.nn.max_pool2d(x, 3, 2, "SAME"))
        yield "conv2_reduce", (x := self.conv(x, "Conv2d_2b_1x1"))
        yield "conv2", (x := self.conv(x, "Conv2d_2c_3x3"))
        yield "pool2", (x := tf.nn.max_pool2d(x, 3, 2, "SAME"))
        for name in MODULES:
            if name == "Mixed_4b":
                yield "pool3", (x := tf.nn.max_pool2d(x, 3, 2, "SAME"))
            if name == "Mixed_5b":
                yield "pool4", (x := tf.nn.max_pool2d(x, 2, 2, "SAME"))
            yield OURS[name], (x := self.module(x, name))
        x = tf.nn.avg_pool2d(x, x.shape[1], 1, "VALID")
        yield "pool5", tf.squeeze(x, [1, 2])
        logits = tf.nn.conv2d(x, self.arrays["InceptionV1/Logits/Conv2d_0c_1x1/weights"], 1, "SAME")
        logits = tf.nn.bias_add(logits, self.arrays["InceptionV1/Logits/Conv2d_0c_1x1/biases"])
        yield "classifier", tf.squeeze(logits, [1, 2], name="InceptionV1/Logits/SpatialSqueeze")

    def module(self, x: Any, name: str) -> Any:
        pooled = tf.nn.max_pool2d(x, 3, 1, "SAME")
        return tf.concat([
            self.conv(x, f"{name}/Branch_0/Conv2d_0a_1x1"),
            self.conv(self.conv(x, f"{name}/Branch_1/Conv2d_0a_1x1"), f"{name}/Branch_1/Conv2d_0b_3x3"),
            self.conv(self.conv(x, f"{name}/Branch_2/Conv2d_0a_1x1"), f"{name}/Branch_2/{branch_2(name)}"),
            self.conv(pooled, f"{name}/Branch_3/Conv2d_0b_1x1"),
        ], 3)

    def conv(self, x: Any, name: str, stride: int = 1) -> Any:
        """Convolution, batch norm without gamma, ReLU."""
        path = f"InceptionV1/{name}"
        norm = [self.arrays[f"{path}/BatchNorm/{part}"] for part in ("moving_mean", "moving_variance", "beta")]
        y = tf.nn.conv2d(x, self.arrays[f"{path}/weights"], stride, "SAME")
        return tf.nn.relu(self.normalised(y, *norm))

    def normalised(self, y: Any, mean: Any, variance: Any, beta: Any) -> Any:
        return tf.nn.batch_normalization(y, mean, variance, beta, None, EPSILON)


class SlimFused(Slim):
    """The same with one operation for the batch norm, as slim has since 2017."""

    def normalised(self, y: Any, mean: Any, variance: Any, beta: Any) -> Any:
        gamma = tf.ones_like(beta) if tf.executing_eagerly() else tf.constant(np.ones(beta.shape, np.float32))
        return tf.compat.v1.nn.fused_batch_norm(y, gamma, beta, mean, variance, EPSILON, is_training=False)[0]


def preprocessed(image: np.ndarray, side: int = 224) -> np.ndarray:
    """What slim's evaluation makes of a picture: (H, W, 3) uint8 -> (side, side, 3) float32 from -1 to 1."""
    x = tf.image.convert_image_dtype(image, tf.float32)
    x = tf.image.central_crop(x, 0.875)
    x = tf.compat.v1.image.resize_bilinear(x[None], [side, side], align_corners=False)[0]
    return tf.multiply(tf.subtract(x, 0.5), 2.0).numpy()
