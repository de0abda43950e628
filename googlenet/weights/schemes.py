"""What other frameworks call our layers and arrays: a naming scheme each, whatever container the file is.

    ours                   Caffe              torchvision            TF-slim                inception5h
    conv1                  conv1/7x7_s2       conv1                  Conv2d_1a_7x7          conv2d0
    conv2_reduce           conv2/3x3_reduce   conv2                  Conv2d_2b_1x1          conv2d1
    conv2                  conv2/3x3          conv3                  Conv2d_2c_3x3          conv2d2
    inception_3a/conv_1x1  inception_3a/1x1   inception3a.branch1    Mixed_3b/Branch_0/...  mixed3a_1x1
    .../conv_5x5_reduce    .../5x5_reduce     ...branch3.0           .../Branch_2/...       ..._5x5_bottleneck
    aux1/fc                loss1/fc           aux1.fc1               -                      nn0
    classifier             loss3/classifier   fc                     Logits/Conv2d_0c_1x1   softmax2

Sources: BVLC's train_val.prototxt; torchvision/models/googlenet.py; slim/nets/inception_v1.py; the nodes of
tensorflow_inception_graph.pb; chainer/links/model/vision/googlenet.py; MatConvNet's import-caffe.py, which takes the
layers' names from the Caffe file, here Princeton's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from googlenet.model import HEADS, TABLE_1
from googlenet.weights.contents import Place


class Layouts(NamedTuple):
    """Keys of layouts.LAYOUTS, for the weight of a fully connected layer, of one behind a flattened grid, of a
    convolution."""

    linear: str
    grid: str
    convolution: str


TORCH = Layouts("OI", "O(CHW)", "OIHW")  # Caffe's and Chainer's too
TF = Layouts("IO", "IO", "HWIO")
SLIM_LAYOUTS = Layouts("11IO", "IO", "HWIO")
MATLAB = Layouts("11IO", "(HW)CO", "HWIO")
THEANO = Layouts("IO", "(CHW)O", "OIHW turned")

MODULES = [row.name for row in TABLE_1 if row.type == "inception"]
BRANCHES = ("conv_1x1", "conv_3x3_reduce", "conv_3x3", "conv_5x5_reduce", "conv_5x5", "pool_proj")
STEM = ("conv1", "conv2_reduce", "conv2")
HEAD_LAYERS = ("conv", "fc", "classifier")


def _layers(stem: tuple[str, ...], module: Callable[[str], str], branches: tuple[str, ...],
            heads: Mapping[str, tuple[str, ...]], classifier: str) -> dict[str, str]:
    """Return {our layer: theirs}: `module` turns "3a" into a prefix that the branches' names follow."""
    names = dict(zip(STEM, stem, strict=True))
    for ours in MODULES:
        prefix = module(ours.removeprefix("inception_"))
        names |= {f"{ours}/{branch}": prefix + theirs for branch, theirs in zip(BRANCHES, branches, strict=True)}
    for head, layers in heads.items():
        names |= {f"{head}/{ours}": theirs for ours, theirs in zip(HEAD_LAYERS, layers, strict=True)}
    return {**names, "classifier": classifier}


def _heads(pattern: str, layers: tuple[str, ...], first: int = 1) -> dict[str, tuple[str, ...]]:
    """Return {our head: its layers' names} where heads are numbered from `first` in the pattern's braces."""
    return {head: tuple(pattern.format(number) + layer for layer in layers)
            for number, head in enumerate(HEADS.values(), first)}


CAFFE = _layers(
    ("conv1/7x7_s2", "conv2/3x3_reduce", "conv2/3x3"), lambda module: f"inception_{module}/",
    ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj"), _heads("loss{}/", HEAD_LAYERS), "loss3/classifier")
TORCHVISION = _layers(
    ("conv1", "conv2", "conv3"), lambda module: f"inception{module}.",
    ("branch1", "branch2.0", "branch2.1", "branch3.0", "branch3.1", "branch4.1"),
    _heads("aux{}.", ("conv", "fc1", "fc2")), "fc")
SLIM = _layers(
    ("Conv2d_1a_7x7", "Conv2d_2b_1x1", "Conv2d_2c_3x3"), lambda module: f"Mixed_{module[0]}{chr(ord(module[1]) + 1)}/",
    ("Branch_0/Conv2d_0a_1x1", "Branch_1/Conv2d_0a_1x1", "Branch_1/Conv2d_0b_3x3", "Branch_2/Conv2d_0a_1x1",
     "Branch_2/Conv2d_0b_3x3", "Branch_3/Conv2d_0b_1x1"), {}, "Logits/Conv2d_0c_1x1")
SLIM["inception_5a/conv_5x5"] = "Mixed_5b/Branch_2/Conv2d_0a_3x3"  # so it is in the file; all others are 0b
INCEPTION5H = _layers(
    ("conv2d0", "conv2d1", "conv2d2"), lambda module: f"mixed{module}_",
    ("1x1", "3x3_bottleneck", "3x3", "5x5_bottleneck", "5x5", "pool_reduce"),
    {head: (f"head{n}_bottleneck", f"nn{n}", f"softmax{n}") for n, head in enumerate(HEADS.values())}, "softmax2")
CHAINER = _layers(
    ("conv1", "conv2_reduce", "conv2"), lambda module: f"inc{module}/",
    ("conv1", "proj3", "conv3", "proj5", "conv5", "projp"), _heads("loss{}_", ("conv", "fc1", "fc2")), "loss3_fc")
PRINCETON = _layers(
    ("conv1", "reduction2", "conv2"), lambda module: f"icp{MODULES.index(f'inception_{module}') + 1}_",
    ("out0", "reduction1", "out1", "reduction2", "out2", "out3"),
    _heads("cls{}_", ("reduction", "fc1", "fc2")), "cls3_fc")


class Scheme(NamedTuple):
    """A framework's names and layouts; the variant is that of its published network.

    `layers` has its name of each of our layers; `convolution` and `linear` how the name of an array of such a layer is
    made, by our array's name; `layouts` those of weights. `none` matches arrays that are no weights of a network, such
    as an optimiser's."""

    framework: str
    variant: str
    layers: Mapping[str, str]
    convolution: Mapping[str, str]
    linear: Mapping[str, str]
    layouts: Layouts
    none: str = r"(?!)"

    def place(self, path: str, shape: tuple[int, ...], channels: int = 0) -> Place | None:
        """Return where our array `path` of this shape stands, None where the framework has no such array.

        `channels` are given for a layer behind a flattened grid."""
        layer, array = split(path)
        names = self.linear if layer.endswith(LINEAR) else self.convolution
        if layer not in self.layers or array not in names:
            return None
        name = names[array].format(self.layers[layer])
        if len(shape) == 1:
            return Place(name, "O")
        if len(shape) == 4:
            return Place(name, self.layouts.convolution)
        return Place(name, self.layouts.grid if channels else self.layouts.linear, channels)

    def known(self) -> set[str]:
        """Return the name of every layer's weight."""
        kinds = ((layer, self.linear if layer.endswith(LINEAR) else self.convolution) for layer in self.layers)
        return {names["weight"].format(self.layers[layer]) for layer, names in kinds}


LINEAR = ("fc", "classifier")  # how our fully connected layers end


def split(path: str) -> tuple[str, str]:
    """Return the layer and its array: "conv1/batch_norm/gamma" -> "conv1", "batch_norm/gamma"."""
    layer, norm, array = path.partition("/batch_norm/")
    return (layer, f"batch_norm/{array}") if norm else tuple(path.rsplit("/", 1))  # type: ignore[return-value]


def _arrays(weight: str, bias: str) -> dict[str, str]:
    return {"weight": weight, "bias": bias}


_TORCH_NORM = {"batch_norm/gamma": "{}.bn.weight", "batch_norm/beta": "{}.bn.bias",
               "batch_norm/mean": "{}.bn.running_mean", "batch_norm/variance": "{}.bn.running_var"}
_SLIM_NORM = {"batch_norm/gamma": "InceptionV1/{}/BatchNorm/gamma", "batch_norm/beta": "InceptionV1/{}/BatchNorm/beta",
              "batch_norm/mean": "InceptionV1/{}/BatchNorm/moving_mean",
              "batch_norm/variance": "InceptionV1/{}/BatchNorm/moving_variance"}
_SLASH, _W_B, _FILTER = _arrays("{}/weight", "{}/bias"), _arrays("{}/W", "{}/b"), _arrays("{}_filter", "{}_bias")
_SLIM = _arrays("InceptionV1/{}/weights", "InceptionV1/{}/biases")
_5H = _arrays("{}_w", "{}_b")
_TRAINING = r".*/(ExponentialMovingAverage|RMSProp(_1)?|Momentum|Adam(_1)?)|global_step|save_counter|_CHECKPOINTABLE.*"

SCHEMES = {
    "caffe": Scheme("Caffe", "caffe", CAFFE, _SLASH, _SLASH, TORCH),
    "torchvision": Scheme("torchvision", "torchvision", TORCHVISION,
                          {**_arrays("{}.conv.weight", "{}.conv.bias"), **_TORCH_NORM},
                          _arrays("{}.weight", "{}.bias"), TORCH, r".*\.num_batches_tracked"),
    "slim": Scheme("TF-slim", "slim", SLIM, {**_SLIM, **_SLIM_NORM}, _SLIM, SLIM_LAYOUTS, _TRAINING),
    "inception5h": Scheme("TensorFlow's inception5h", "inception5h", INCEPTION5H, _5H, _5H, TF, r".*(?<!_[wb])"),
    "chainer": Scheme("Chainer", "caffe", CHAINER, _W_B, _W_B, TORCH),
    "keras (Theano)": Scheme("Keras, Theano's kernels", "caffe", CAFFE, _SLASH, _SLASH, THEANO),
    "keras": Scheme("Keras", "caffe", CAFFE, _SLASH, _SLASH, TF),
    "matconvnet": Scheme("MatConvNet", "caffe", CAFFE, _FILTER, _FILTER, MATLAB),
    "matconvnet (Princeton)": Scheme("MatConvNet, Princeton's names", "caffe", PRINCETON, _FILTER, _FILTER, MATLAB),
}
