"""GoogLeNet found in graphs that say it otherwise, and refused in graphs that compute something else."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from googlenet.config import ModelConfig
from googlenet.model import VARIANTS, GoogLeNet
from googlenet.weights.formats.onnx import export, messages, quantised, structure
from googlenet.weights.formats.onnx.layers import LAYERS
from googlenet.weights.formats.onnx.messages import Model, Node
from googlenet.weights.formats.onnx.operators import OPERATORS
from googlenet.weights.layouts import to_ours
from minigrad.errors import InputError

FIXTURES = Path(__file__).parents[2] / "fixtures/weights"
EXPECTED = dict(np.load(FIXTURES / "onnx_caffe_expected.npz"))


def graph(name: str = "caffe") -> Model:
    return messages.load((FIXTURES / f"onnx_{name}.onnx").read_bytes(), name)


def places(model: Model, op: str) -> list[int]:
    return [place for place, node in enumerate(model.nodes) if node.op == op]


def exchanged(model: Model, place: int, *nodes: Node, arrays: dict[str, np.ndarray] | None = None) -> Model:
    """Return the graph with other nodes in a node's place, and more arrays."""
    return replace(model, nodes=model.nodes[:place] + nodes + model.nodes[place + 1:],
                   arrays=model.arrays | (arrays or {}))


def changed(model: Model, op: str, number: int = 0, name: str = "", **attributes: Any) -> Model:
    """Return the graph with the nth node of a kind made another kind, or its attributes changed."""
    place = places(model, op)[number]
    node = model.nodes[place]
    return exchanged(model, place, replace(node, op=name or op, attributes={**node.attributes, **attributes}))


def before(model: Model, *nodes: Node, arrays: dict[str, np.ndarray] | None = None) -> Model:
    """Return the graph with nodes that make `ready` of the images `data_0`, and of `ready` what it made of those."""
    first = model.nodes[0]
    return exchanged(model, 0, *nodes, replace(first, inputs=("ready", *first.inputs[1:])), arrays=arrays)


def ours(found: structure.Structure) -> dict[str, np.ndarray]:
    return {path: to_ours(found.arrays[each.name], each) for path, each in found.graph.places.items()}


def same_weights(found: structure.Structure, expected: dict[str, np.ndarray] = EXPECTED) -> None:
    weights = ours(found)
    assert weights.keys() == expected.keys()
    for path, array in weights.items():
        np.testing.assert_array_equal(array, expected[path], err_msg=path)


# Other words for the same.

def test_names_mean_nothing():
    model = graph()
    renamed = {name: f"v{number}" for number, name in enumerate(
        {*model.arrays, *model.inputs, *(name for node in model.nodes for name in (*node.inputs, *node.outputs))})}
    nodes = tuple(replace(node, name="", inputs=tuple(renamed[name] for name in node.inputs),
                          outputs=tuple(renamed[name] for name in node.outputs)) for node in model.nodes)
    made = replace(model, nodes=nodes, arrays={renamed[name]: array for name, array in model.arrays.items()},
                   inputs={renamed[name]: axes for name, axes in model.inputs.items()})
    same_weights(structure.understand(made))


@pytest.mark.parametrize("change", [
    {"pads": [0, 0, 1, 1]}, {"pads": [0, 0, 0, 0], "ceil_mode": 1}, {"pads": [0] * 4, "auto_pad": b"SAME_UPPER"}])
def test_pools_that_round_up_in_other_words(change):
    model = graph()
    for number, place in enumerate(places(model, "MaxPool")):
        if model.nodes[place].attributes["strides"] == [2, 2]:
            model = changed(model, "MaxPool", number, **change)
    found = structure.understand(model)
    assert found.graph.variant == "caffe"
    same_weights(found)


@pytest.mark.parametrize("change", [{"auto_pad": b"SAME_UPPER"}, {"pads": [2, 2, 3, 3]}])
def test_padding_of_the_first_convolution_tells_the_paper_from_caffe(change):
    assert structure.understand(changed(graph(), "Conv", **change)).graph.variant == "paper"


@pytest.mark.parametrize("attributes", [{"min": 0.0}, {"min": 0.0, "max": 3.4e38}])
def test_clip_at_zero_is_relu(attributes):
    same_weights(structure.understand(changed(graph(), "Relu", 3, "Clip", **attributes)))


def test_clip_with_its_limits_as_inputs():
    model = graph()
    place = places(model, "Relu")[0]
    node = model.nodes[place]
    made = exchanged(model, place, replace(node, op="Clip", inputs=(*node.inputs, "low")),
                     arrays={"low": np.zeros((), np.float32)})
    same_weights(structure.understand(made))


def last_layers(*nodes: Node, arrays: dict[str, np.ndarray] | None = None) -> Model:
    """Return the graph with nodes between its average `pooled` and its `logits` in place of its own."""
    model = graph()
    start, end = places(model, "AveragePool")[0], places(model, "Gemm")[0]
    pool = replace(model.nodes[start], outputs=("pooled",))
    final = replace(model.nodes[-1], inputs=("logits",))
    assert model.nodes[end + 1:] == (model.nodes[-1],)
    kept = {name: array for name, array in model.arrays.items() if not name.startswith(("OC2", "loss3"))}
    return replace(model, nodes=(*model.nodes[:start], pool, *nodes, final), arrays=kept | (arrays or {}),
                   inputs={"data_0": model.inputs["data_0"]})


WEIGHT, BIAS = EXPECTED["classifier/weight"], EXPECTED["classifier/bias"]
FLAT = Node("Flatten", ("pooled",), ("flat",))
LAST = {
    "MatMul and Add": ((FLAT, Node("MatMul", ("flat", "w"), ("product",)), Node("Add", ("product", "b"), ("logits",))),
                       {"w": WEIGHT, "b": BIAS}),
    "Add the other way round": ((FLAT, Node("MatMul", ("flat", "w"), ("product",)),
                                 Node("Add", ("b", "product"), ("logits",))), {"w": WEIGHT, "b": BIAS[None]}),
    "Gemm of (C, O)": ((FLAT, Node("Gemm", ("flat", "w", "b"), ("logits",))), {"w": WEIGHT, "b": BIAS}),
    "Gemm of a transposed weight": ((FLAT, Node("Transpose", ("w",), ("wt",), {"perm": [1, 0]}),
                                     Node("Gemm", ("flat", "wt", "b"), ("logits",))),
                                    {"w": np.ascontiguousarray(WEIGHT.T), "b": BIAS}),
    "1x1 convolution": ((Node("Conv", ("pooled", "w", "b"), ("grid",)), Node("Flatten", ("grid",), ("logits",))),
                        {"w": WEIGHT.T[:, :, None, None], "b": BIAS}),
    "Squeeze": ((Node("Squeeze", ("pooled",), ("flat",), {"axes": [2, 3]}),
                 Node("Gemm", ("flat", "w", "b"), ("logits",))), {"w": WEIGHT, "b": BIAS}),
    "a shape computed from the grid's": (
        (Node("Shape", ("pooled",), ("shape",)), Node("Gather", ("shape", "0"), ("N",)),
         Node("Unsqueeze", ("N",), ("N1",), {"axes": [0]}), Node("Concat", ("N1", "-1"), ("target",), {"axis": 0}),
         Node("Reshape", ("pooled", "target"), ("flat",)), Node("Gemm", ("flat", "w", "b"), ("logits",))),
        {"w": WEIGHT, "b": BIAS, "0": np.array(0), "-1": np.array([-1])}),
    "channels last before it": (
        (Node("Transpose", ("pooled",), ("last",), {"perm": [0, 2, 3, 1]}),
         Node("Reshape", ("last", "target"), ("flat",)), Node("Gemm", ("flat", "w", "b"), ("logits",))),
        {"w": WEIGHT, "b": BIAS, "target": np.array([1, -1])}),
}


@pytest.mark.parametrize("case", LAST)
def test_the_last_layer_in_other_words(case):
    nodes, arrays = LAST[case]
    same_weights(structure.understand(last_layers(*nodes, arrays=arrays)))


@pytest.mark.parametrize(("op", "attributes"), [
    ("GlobalAveragePool", {}), ("ReduceMean", {"axes": [2, 3], "keepdims": 1}), ("ReduceMean", {"axes": [-2, -1]})])
def test_the_mean_in_other_words(op, attributes):
    model = graph()
    place = places(model, "AveragePool")[0]
    node = model.nodes[place]
    same_weights(structure.understand(exchanged(model, place, Node(op, node.inputs, node.outputs, attributes))))


def test_other_means_are_refused():
    model = graph()
    place = places(model, "AveragePool")[0]
    node = model.nodes[place]
    with pytest.raises(InputError, match=r"axes \[1, 2\]"):
        structure.understand(exchanged(model, place, Node("ReduceMean", node.inputs, node.outputs, {"axes": [1, 2]})))


def test_relu_of_what_is_not_negative_is_passed_by():
    """Here before one branch of a module only."""
    model = graph()
    place = places(model, "Conv")[4]
    x, *weights = model.nodes[place].inputs
    made = exchanged(model, place, Node("Relu", (x,), ("again",)),
                     replace(model.nodes[place], inputs=("again", *weights)))
    same_weights(structure.understand(made))


def test_a_batch_that_the_graph_is_made_for():
    nodes = (Node("Reshape", ("pooled", "target"), ("flat",)), Node("Gemm", ("flat", "w", "b"), ("logits",)))
    made = last_layers(*nodes, arrays={"w": WEIGHT, "b": BIAS, "target": np.array([8, 64])})
    same_weights(structure.understand(replace(made, inputs={"data_0": (8, 3, 224, 224)})))


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1, 1), (4, 1, 1)])
def test_a_bias_added_by_a_node_of_its_own(shape):
    model = graph()
    place = next(place for place in places(model, "Conv")
                 if model.arrays[model.nodes[place].inputs[2]].size == np.prod(shape))
    node = model.nodes[place]
    x, weight, bias = node.inputs
    made = exchanged(model, place, Node("Conv", (x, weight), ("bare",), node.attributes),
                     Node("Add", ("bare", "added"), node.outputs), arrays={"added": model.arrays[bias].reshape(shape)})
    found = structure.understand(made)
    for path, array in ours(found).items():
        np.testing.assert_array_equal(array, EXPECTED[path], err_msg=path)
    assert any(each.name == "added" for each in found.graph.places.values())


def test_no_bias_is_zero_and_is_told():
    model = graph()
    place = places(model, "Conv")[2]
    made = exchanged(model, place, replace(model.nodes[place], inputs=model.nodes[place].inputs[:2]))
    found = structure.understand(made)
    assert found.notes[0].startswith("conv2 has no bias (Conv node ")
    np.testing.assert_array_equal(ours(found)["conv2/bias"], np.zeros_like(EXPECTED["conv2/bias"]))
    assert "conv2/3x3_b_0" in found.arrays, "what nothing reads must not be dropped in silence"


def test_open_axes_and_sizes():
    model = graph("f16")
    assert list(model.inputs.values()) == [(0, 3, 224, 224)]
    made = replace(model, inputs={"data_0": (0, 3, 0, 0)})
    assert structure.understand(made).graph.variant == "caffe"
    with pytest.raises(InputError, match="Reshape node 'reshape_140' can't be computed"):  # four vectors an image
        structure.understand(made, size=256)
    mean = changed(made, "AveragePool", kernel_shape=[8, 8])
    assert structure.understand(mean, size=256).graph.variant == "caffe"


def test_constants_of_local_response_normalisation():
    model = graph()
    for number in range(2):
        model = changed(model, "LRN", number, size=3, alpha=0.5, beta=0.6, bias=2.0)
    assert structure.understand(model).graph.lrn == "3 0.5 0.6 2"
    for number in range(2):
        size, alpha, beta, k = VARIANTS["inception5h"].lrn
        model = changed(model, "LRN", number, size=size, alpha=alpha, beta=beta, bias=k)
    found = structure.understand(changed(model, "Conv", pads=[2, 2, 3, 3])).graph
    assert (found.variant, found.lrn) == ("inception5h", "")
    with pytest.raises(InputError, match="two LRN nodes"):
        structure.understand(changed(graph(), "LRN", 1, alpha=0.5))


@pytest.mark.parametrize(("variant", "lrn"), [("paper", "11 0.0011 0.5 2"), ("inception5h", "5 0.0001 0.75 1")])
def test_channels_tell_the_paper_from_inception5h(variant, lrn, tmp_path):
    """Whatever the constants are: the two have the same windows."""
    config = ModelConfig(variant=variant, lrn=lrn, width=0.25, classes=7, heads="none", image_size=64)
    export.write(tmp_path / "x.onnx", GoogLeNet(config))
    found = structure.understand(messages.load((tmp_path / "x.onnx").read_bytes(), "x"))
    assert (found.graph.variant, found.graph.lrn) == (variant, lrn)


# Arithmetic on the input.

def scaled(name: str, op: str, value: Any, source: str = "data_0") -> tuple[Node, dict[str, np.ndarray]]:
    return Node(op, (source, f"{name} value"), (name,)), {f"{name} value": np.asarray(value, np.float32)}


def test_mean_and_deviation_of_each_channel():
    less, less_arrays = scaled("less", "Sub", np.reshape([104, 117, 123], (1, 3, 1, 1)))
    ready, ready_arrays = scaled("ready", "Div", np.reshape([2, 3, 4], (3, 1, 1)), "less")
    found = structure.understand(before(graph(), less, ready, arrays=less_arrays | ready_arrays)).graph
    np.testing.assert_allclose(found.mean, (104, 117, 123), rtol=1e-6)
    np.testing.assert_allclose(found.std, (2, 3, 4), rtol=1e-6)
    same_weights(structure.understand(before(graph(), less, ready, arrays=less_arrays | ready_arrays)))


@pytest.mark.parametrize("nodes", [
    (Node("Gather", ("data_0", "order"), ("turned",), {"axis": 1}),),
    (Node("Slice", ("data_0",), ("r",), {"starts": [0], "ends": [1], "axes": [1]}),
     Node("Slice", ("data_0",), ("gb",), {"starts": [1], "ends": [3], "axes": [1]}),
     Node("Split", ("gb",), ("g", "b"), {"axis": 1}), Node("Concat", ("b", "g", "r"), ("turned",), {"axis": 1}))])
def test_channels_turned_round(nodes):
    ready, arrays = scaled("ready", "Sub", np.reshape([104, 117, 123], (3, 1, 1)), "turned")
    found = structure.understand(before(graph(), *nodes, ready, arrays=arrays | {"order": np.array([2, 1, 0])}))
    assert found.graph.swaps_channels is True
    np.testing.assert_allclose(found.graph.mean, (104, 117, 123), rtol=1e-6)
    assert "turns the order of the channels round" in found.notes[0]


@pytest.mark.parametrize(("axes", "perm"), [((1, 224, 224, 3), [0, 3, 1, 2]), ((224, 1, 224, 3), [1, 3, 0, 2]),
                                            ((0, 224, 224, 3), [0, 3, 1, 2]), ((3, 224, 224, 1), [3, 0, 1, 2])])
def test_axes_of_the_images_in_any_order(axes, perm):
    made = before(graph(), Node("Transpose", ("data_0",), ("ready",), {"perm": perm}))
    found = structure.understand(replace(made, inputs={**made.inputs, "data_0": axes}))
    assert (found.graph.mean, found.graph.std, found.graph.swaps_channels) == ((0,) * 3, (1,) * 3, False)


ODD_INPUTS = {
    "rows and columns exchanged": ((Node("Transpose", ("data_0",), ("ready",), {"perm": [0, 1, 3, 2]}),), {},
                                   "not (x - mean)"),
    "upside down": ((Node("Slice", ("data_0",), ("ready",), {"starts": [-1], "ends": [-(2**63)], "axes": [2]}),), {},
                    "224"),
    "channels in another order": ((Node("Gather", ("data_0", "i"), ("ready",), {"axis": 1}),),
                                  {"i": np.array([1, 0, 2])}, "(1, 0, 2)"),
    "one channel thrice": ((Node("Gather", ("data_0", "i"), ("ready",), {"axis": 1}),), {"i": np.array([0, 0, 0])},
                           "(0, 0, 0)"),
    "squares": ((Node("Mul", ("data_0", "data_0"), ("ready",)),), {}, "not (x - mean)"),
    "negatives": ((Node("Sub", ("i", "data_0"), ("ready",)),), {"i": np.array(1.0)}, "not (x - mean)"),
    "nothing of the images": ((Node("Mul", ("data_0", "i"), ("ready",)),), {"i": np.array(0.0)}, "not (x - mean)"),
    "a mean for each pixel": ((Node("Sub", ("data_0", "i"), ("ready",)),),
                              {"i": np.linspace(0, 1, 224 * 224).reshape(224, 224)}, "not (x - mean)"),
    "a part of the image": ((Node("Slice", ("data_0",), ("ready",), {"starts": [0], "ends": [200], "axes": [2]}),), {},
                            "before its first layer"),
    "an average": ((Node("AveragePool", ("data_0",), ("ready",), {"kernel_shape": [2, 2]}),), {}, "reads no layer"),
    "ReLU": ((Node("Relu", ("data_0",), ("ready",)),), {}, "cuts the images' values"),
    "too much": ((Node("Concat", ("data_0",) * 500, ("ready",), {"axis": 1}),), {}, "computes more than"),
    "two channels": ((Node("Slice", ("data_0",), ("ready",), {"starts": [0], "ends": [2], "axes": [1]}),), {},
                     "(N, 3, H, W)"),
}


@pytest.mark.parametrize("case", ODD_INPUTS)
def test_other_arithmetic_is_refused(case):
    nodes, arrays, message = ODD_INPUTS[case]
    with pytest.raises(InputError) as raised:
        structure.understand(before(graph(), *nodes, arrays=arrays))
    assert message in str(raised.value)


@pytest.mark.parametrize(("axes", "message"), [
    ((1, 3, 224), "expected images of three channels"), ((1, 4, 224, 224), "expected images of three channels"),
    ((), "expected images of three channels"), ((1, 3, 224, 192), "expected squares"),
    ((1, 3, 2**40, 2**40), "at most 1024x1024"), ((1, 3, 16, 16), "x16"), ((1, 3, 300, 300), "to a grid of 38x38")])
def test_inputs_that_are_no_images(axes, message):
    model = graph()
    with pytest.raises(InputError) as raised:
        structure.understand(replace(model, inputs={**model.inputs, "data_0": axes}))
    assert message in str(raised.value)


def test_a_graph_needs_one_input():
    with pytest.raises(InputError, match="2 inputs"):
        structure.understand(replace(graph(), inputs={**graph().inputs, "more": (1,)}))
    with pytest.raises(InputError, match="no layer that reads images"):
        structure.understand(replace(graph(), nodes=()))


# What no GoogLeNet computes.

ODD = {
    "stride": (lambda m: changed(m, "Conv", strides=[1, 1]), "Conv node 'conv_0' has 7x7 windows, stride 1x1"),
    "padding": (lambda m: changed(m, "Conv", pads=[1] * 4), "1 and 1 cells of padding before the first"),
    "padding at the end": (lambda m: changed(m, "Conv", pads=[3, 3, 0, 0]), "to a grid of 111x111"),
    "padding in one direction": (lambda m: changed(m, "Conv", pads=[3, 2, 3, 3]), "3 and 2 cells"),
    "SAME_LOWER": (lambda m: changed(m, "Conv", auto_pad=b"SAME_LOWER"), "auto_pad b'SAME_LOWER'"),
    "dilation": (lambda m: changed(m, "Conv", 5, dilations=[2, 2]), "dilations [2, 2]"),
    "groups": (lambda m: changed(m, "Conv", 1, group=2), "2 groups"),
    "kernel": (lambda m: changed(m, "Conv", kernel_shape=[5, 5]), "kernel_shape [5, 5], expected its weight's"),
    "negative padding": (lambda m: changed(m, "Conv", pads=[-1] * 4), "can't be negative"),
    "no stride": (lambda m: changed(m, "MaxPool", strides=[0, 0]), "at least 1"),
    "three axes": (lambda m: changed(m, "MaxPool", kernel_shape=[3, 3, 3]), "those of two axes"),
    "a pool's kernel": (lambda m: changed(m, "MaxPool", kernel_shape=[2, 2], pads=[0] * 4), "has 2x2 windows"),
    "a pool's start": (lambda m: changed(m, "MaxPool", 1, pads=[1, 1, 1, 1]), "1 and 1 cells"),
    "a module's pool": (lambda m: changed(m, "MaxPool", 2, strides=[2, 2]), "grids"),
    "a module's pool's kernel": (lambda m: changed(m, "MaxPool", 2, kernel_shape=[5, 5], pads=[2] * 4),
                                 "has 5x5 windows"),
    "no classifier": (lambda m: replace(m, nodes=m.nodes[:places(m, "AveragePool")[0] + 1]),
                      "is the last of 19 stages"),
    "a pool of averages": (lambda m: changed(m, "MaxPool", 2, "AveragePool"), "where a max pool was expected"),
    "no ReLU": (lambda m: changed(m, "Relu", 7, "Identity"), "no ReLU behind it"),
    "no ReLU at first": (lambda m: changed(m, "Relu", 0, "Identity"), "as every convolution of GoogLeNet has"),
    "ReLU6": (lambda m: changed(m, "Relu", 0, "Clip", min=0.0, max=6.0), "limits 0.0 and 6.0"),
    "Tanh": (lambda m: changed(m, "Relu", 0, "Tanh"), "Tanh node 'relu_1' is no part of any GoogLeNet known"),
    "no name of an operator": (lambda m: changed(m, "Relu", 0, "\n"), "is no part of any GoogLeNet known"),
    "one LRN": (lambda m: changed(m, "LRN", 1, "Identity"), "stands where"),
    "an even size of LRN": (lambda m: changed(m, "LRN", 1, size=4), "an odd size"),
    "a ReLU behind the logits": (lambda m: changed(m, "Softmax", 0, "Relu"), "has a ReLU"),
    "Softmax of a grid": (lambda m: changed(m, "LRN", 0, "Softmax"), "expected logits"),
    "alpha": (lambda m: changed(m, "Gemm", alpha=2.0), "transA, alpha and beta"),
    "transposed inputs": (lambda m: changed(m, "Gemm", transA=1), "transA, alpha and beta"),
    "a weight of other inputs": (lambda m: changed(m, "Gemm", transB=0), "a weight for 7 inputs"),
    "Concat of rows": (lambda m: changed(m, "Concat", 2, axis=2), "channels of one grid"),
    "padding counted": (lambda m: changed(m, "AveragePool", pads=[0, 0, 1, 1], count_include_pad=1), "Reshape"),
}


@pytest.mark.parametrize("case", ODD)
def test_other_networks_are_refused_by_the_node(case):
    change, message = ODD[case]
    with pytest.raises(InputError) as raised:
        structure.understand(change(graph()))
    assert message in str(raised.value), str(raised.value)
    assert "node" in str(raised.value)


def test_an_average_that_divides_by_its_padding_is_refused():
    found = structure.understand(graph("floor"))
    assert found.graph.variant == "onnx-inception-v1"
    with pytest.raises(InputError, match="zeros of the padding counted"):
        structure.understand(changed(graph("floor"), "AveragePool", count_include_pad=1))
    with pytest.raises(InputError, match=r"5x5 windows.* has the mean of 6x6"):
        structure.understand(changed(graph("floor"), "AveragePool", kernel_shape=[5, 5], strides=[5, 5], pads=[0] * 4))


def test_graphs_that_would_take_long_are_refused():
    """A chain of layers from each end would be a square of them."""
    model = graph()
    x = model.nodes[1].outputs[0]
    more = tuple(Node("LRN", (x,), (f"more{number}",), {"size": 5}) for number in range(1001))
    with pytest.raises(InputError, match="more than 1000 layers"):
        structure.understand(replace(model, nodes=(*model.nodes, *more)))
    turned = tuple(Node("Transpose", (x,), (f"turned{number}",), {"perm": [0, 1, 2, 3]}) for number in range(1000))
    with pytest.raises(InputError, match="computes more than"):
        structure.understand(replace(model, nodes=(*model.nodes, *turned)))


def test_batch_norm_of_the_batch_is_refused(torchvision):
    with pytest.raises(InputError, match="training_mode 1"):
        structure.understand(changed(torchvision[1], "BatchNormalization", 5, training_mode=1))


def rewired(model: Model, place: int, *inputs: str) -> Model:
    return exchanged(model, place, replace(model.nodes[place], inputs=inputs))


def test_branches_in_another_order_are_refused():
    model = graph()
    place = places(model, "Concat")[4]
    a, b, c, d = model.nodes[place].inputs
    for inputs, message in [((a, c, b, d), "5x5 windows"), ((d, b, c, a), "does not start where"),
                            ((b, a, c, d), "where a convolution was expected|does not start"),
                            ((a, b, c), "3 branches"), ((a, b, c, d, d), "5 branches"),
                            ((a, b, c, a), "where a max pool was expected")]:
        with pytest.raises(InputError, match=message):
            structure.understand(rewired(model, place, *inputs))


def test_wires_elsewhere_are_refused():
    model = graph()
    first = model.nodes[0].outputs[0]
    with pytest.raises(InputError, match="which nothing before it gives"):
        structure.understand(replace(model, nodes=model.nodes[::-1]))
    with pytest.raises(InputError, match="'none', which nothing"):
        structure.understand(rewired(model, 0, "none", *model.nodes[0].inputs[1:]))
    with pytest.raises(InputError, match="has no weight"):
        structure.understand(rewired(model, 0, model.nodes[0].inputs[0]))
    with pytest.raises(InputError, match="no ReLU behind it"):  # the ReLU is left beside the way
        structure.understand(rewired(model, places(model, "MaxPool")[0], first))


def test_a_branch_that_starts_elsewhere_is_refused():
    """3b's 5x5 branch reads 3a's pool: as many channels are there, the network is another."""
    model = graph()
    pool = model.nodes[places(model, "MaxPool")[2]]
    reduce = [place for place in places(model, "Conv") if model.nodes[place].inputs[0] == pool.inputs[0]][2]
    x, *weights = model.nodes[reduce].inputs
    assert x == pool.inputs[0]
    spare = Node("MaxPool", (x,), ("spare",), pool.attributes)
    made = exchanged(model, reduce, spare, replace(model.nodes[reduce], inputs=("spare", *weights)))
    with pytest.raises(InputError, match="does not start where its module's 1x1 convolution does"):
        structure.understand(made)


def test_a_module_too_few_is_refused():
    model = graph()
    start, last = places(model, "MaxPool")[-3] + 1, places(model, "Concat")[-2]  # 5a gives as many channels as it gets
    passed = {model.nodes[last].outputs[0]: model.nodes[start - 1].outputs[0]}
    nodes = tuple(replace(node, inputs=tuple(passed.get(name, name) for name in node.inputs))
                  for place, node in enumerate(model.nodes) if not start <= place <= last)
    with pytest.raises(InputError, match=r"stands where \S+ has inception_5b"):
        structure.understand(replace(model, nodes=nodes))


# Batch norm.

def normalised(variant: str, **changes: Any) -> tuple[GoogLeNet, Model, Path]:
    config = ModelConfig(variant=variant, width=1 / 16, classes=7, heads="none", image_size=64)
    model = GoogLeNet(config)
    rng = np.random.default_rng(3)
    for array in model.state().values():
        array[...] = rng.uniform(0.5, 1.5, array.shape)
    return model.eval(), config, changes


@pytest.fixture
def torchvision(tmp_path):
    """A network with batch norm, and its graph, where it stands in nodes of its own."""
    model, _, _ = normalised("torchvision")
    export.write(tmp_path / "x.onnx", model)
    return model, messages.load((tmp_path / "x.onnx").read_bytes(), "x")


def test_batch_norm_is_kept_where_it_is_the_variants(torchvision):
    model, read = torchvision
    found = structure.understand(read)
    assert (found.graph.variant, found.graph.batch_norm, found.notes) == ("torchvision", "learned", ())
    same_weights(found, model.state())


@pytest.mark.parametrize(("change", "reason"), [
    (lambda m: changed(m, "BatchNormalization", 3, epsilon=1e-5), "epsilon is 1e-05, 0.001"),
    (lambda m: exchanged(m, 0, replace(m.nodes[0], inputs=(*m.nodes[0].inputs, "zero")),
                         arrays={"zero": np.zeros(4, np.float32)}), "some convolutions have biases besides")])
def test_other_batch_norm_is_folded(torchvision, change, reason):
    model, read = torchvision
    found = structure.understand(change(read))
    assert found.graph.batch_norm == "folded"
    assert found.notes == (f"batch norm folded into weights and biases: {reason}",)
    eps = 1e-5 if "epsilon" in reason else 1e-3
    folded = model.folded().state()
    layer = model.conv2  # the fourth convolution is inception_3a/conv_1x1; all others are as our network folds them
    for path, array in ours(found).items():
        if path.startswith("inception_3a/conv_1x1") and eps == 1e-5:
            layer = model.inception_3a.conv_1x1
            scale = layer.batch_norm.gamma.data / np.sqrt(layer.batch_norm.variance.data + 1e-5)
            expected = layer.weight.data * scale if path.endswith("weight") else \
                layer.batch_norm.beta.data - layer.batch_norm.mean.data * scale
        else:
            expected = folded[path]
        np.testing.assert_allclose(array, expected, rtol=2e-5, atol=1e-5, err_msg=path)


def test_a_bias_before_batch_norm_moves_the_mean(torchvision):
    model, read = torchvision
    bias = np.arange(1.0, 5.0, dtype=np.float32)
    made = exchanged(read, 0, replace(read.nodes[0], inputs=(*read.nodes[0].inputs, "bias")), arrays={"bias": bias})
    norm = model.conv1.batch_norm
    expected = norm.beta.data + (bias - norm.mean.data) * norm.gamma.data / np.sqrt(norm.variance.data + 1e-3)
    np.testing.assert_allclose(ours(structure.understand(made))["conv1/bias"], expected, rtol=1e-5)


def test_slim_has_no_gamma_but_one(tmp_path):
    model, _, _ = normalised("slim")
    export.write(tmp_path / "x.onnx", model)
    read = messages.load((tmp_path / "x.onnx").read_bytes(), "x")
    found = structure.understand(read)
    assert (found.graph.variant, found.graph.batch_norm) == ("slim", "learned")
    same_weights(found, model.state())
    arrays = {"conv2/batch_norm/gamma": read.arrays["conv2/batch_norm/gamma"] * 2}
    found = structure.understand(replace(read, arrays=read.arrays | arrays))
    assert found.graph.batch_norm == "folded"
    assert found.notes == ("batch norm folded into weights and biases: gamma is not 1",)


def test_batch_norm_where_the_variant_has_none():
    model = graph()
    place = places(model, "Conv")[0]
    node, ones = model.nodes[place], np.ones(4, np.float32)
    arrays = {"gamma": 2 * ones, "beta": 3 * ones, "mean": 0 * ones, "variance": 3 * ones}
    norm = Node("BatchNormalization", ("bare", *arrays), node.outputs, {"epsilon": 1.0})
    found = structure.understand(exchanged(model, place, replace(node, outputs=("bare",)), norm, arrays=arrays))
    assert found.notes == ("batch norm folded into weights and biases: caffe has none",)
    np.testing.assert_allclose(ours(found)["conv1/weight"], EXPECTED["conv1/weight"])
    np.testing.assert_allclose(ours(found)["conv1/bias"], EXPECTED["conv1/bias"] + 3, rtol=1e-6)
    relu = model.nodes[place + 1]
    late = exchanged(model, place + 1, relu, replace(norm, inputs=(relu.outputs[0], *arrays), outputs=("late",)),
                     arrays=arrays)
    late = rewired(late, places(late, "MaxPool")[0], "late")
    with pytest.raises(InputError, match="expected a convolution without ReLU"):
        structure.understand(late)


# Auxiliary heads.

@pytest.fixture(scope="module")
def headed():
    pytest.importorskip("onnx")
    from tests.fixtures import make_onnx

    arrays = make_onnx.random_arrays(heads="both")
    builder = make_onnx.Builder(arrays)
    model = builder.model(builder.network("data_0"))
    return arrays, messages.load(model.SerializeToString(), "x")


def test_heads_are_found(headed):
    arrays, model = headed
    found = structure.understand(model)
    assert found.graph.places["aux1/fc/weight"].layout == "O(CHW)"
    same_weights(found, arrays)


def test_odd_heads_are_refused(headed):
    _, model = headed
    for change, message in [
        (lambda m: changed(m, "AveragePool", 0, strides=[2, 2]), "Reshape"),
        (lambda m: changed(m, "AveragePool", 0, kernel_shape=[4, 4]), "aux1's pool"),
        (lambda m: changed(m, "Relu", [node.inputs[0].startswith("gemm") for place, node in enumerate(m.nodes)
                                       if node.op == "Relu"].index(True), "Identity"), "aux1/fc has one"),
    ]:
        with pytest.raises(InputError, match=message):
            structure.understand(change(model))


def test_a_branch_that_leaves_elsewhere_is_refused():
    model = graph()
    conv = model.nodes[places(model, "Conv")[1]]
    made = replace(model, nodes=(*model.nodes, Node("Conv", (model.nodes[2].outputs[0], *conv.inputs[1:]), ("x",)),
                                 Node("Relu", ("x",), ("y",))))
    with pytest.raises(InputError, match="leaves the network at pool1"):
        structure.understand(made)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_told_from_the_others(variant, tmp_path):
    for config in (ModelConfig(variant=variant, width=1 / 16, classes=7, heads="none", image_size=size)
                   for size in (64, 224)):
        export.write(tmp_path / "x.onnx", GoogLeNet(config))
        found = structure.understand(messages.load((tmp_path / "x.onnx").read_bytes(), "x"))
        assert (found.graph.variant, found.graph.lrn) == (variant, "")


# Graphs that were changed at random: refused, or read.

ANYTHING = [None, 0, -1, 3, 2**62, -(2**63), 1.5, float("nan"), [], [0], [1, 2, 3], [2**62] * 4, [-1] * 4, [0.5], b"x",
            b"SAME_UPPER", np.zeros(3), np.zeros(())]
ATTRIBUTES = ["axis", "axes", "perm", "pads", "strides", "kernel_shape", "group", "ceil_mode", "auto_pad", "to",
              "shape", "starts", "ends", "split", "keepdims", "size", "alpha", "epsilon", "transB", "min", "max",
              "value", "block_size", "allowzero", "dilations"]
KINDS = [*OPERATORS, *LAYERS, *quantised.OPERATORS, "Constant"]


def drawn(model: Model, rng: np.random.Generator) -> Model:
    """Return the graph with a node or an array changed; places near the input are drawn more often."""
    place = int(rng.integers(len(model.nodes) if rng.integers(2) else 20))
    node = model.nodes[place]
    names = [*model.arrays, *model.inputs, *(name for each in model.nodes[:place + 3] for name in each.outputs), ""]
    name, other = (names[int(rng.integers(len(names)))] for _ in range(2))
    anything = ANYTHING[int(rng.integers(len(ANYTHING)))]
    attributes = [*node.attributes, *ATTRIBUTES]
    attribute = attributes[int(rng.integers(len(attributes)))]
    array = model.arrays.get(other, np.zeros(1, np.float32))
    arrays = [array.T, array.reshape(-1), array[..., None], array.ravel()[:0], array.astype(np.int32), array * np.nan,
              np.broadcast_to(np.float32(1), 2**20), np.full(4, 2**40)]
    ways = [
        lambda: exchanged(model, place, replace(node, op=KINDS[int(rng.integers(len(KINDS)))])),
        lambda: exchanged(model, place, replace(node, inputs=(name, *node.inputs[1:]))),
        lambda: exchanged(model, place, replace(node, inputs=node.inputs[:int(rng.integers(4))])),
        lambda: exchanged(model, place, replace(node, inputs=(*node.inputs, name))),
        lambda: exchanged(model, place, replace(node, outputs=(name or "y",))),
        lambda: exchanged(model, place, replace(node, attributes={**node.attributes, attribute: anything})),
        lambda: exchanged(model, place, replace(node, attributes={**node.attributes, attribute: anything})),
        lambda: replace(model, arrays=model.arrays | {other: arrays[int(rng.integers(len(arrays)))]}),
        lambda: exchanged(exchanged(model, place), int(rng.integers(len(model.nodes) - 1)), node),
    ]
    return ways[int(rng.integers(len(ways)))]()


@pytest.mark.parametrize("name", ["caffe", "qlinear", "qdq", "torchvision", "channels_last"])
def test_graphs_changed_at_random(name):
    model, read = graph(name), 0
    with np.errstate(all="raise"), warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(60):
            rng = np.random.default_rng(seed)
            try:
                found = structure.understand(drawn(drawn(model, rng), rng))
            except InputError:
                continue
            read += 1
            assert all(each.name in found.arrays for each in found.graph.places.values())
    assert 0 < read < 60
