"""TensorFlow's frozen graphs: weights come back exactly, and a graph that computes something else is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from googlenet.weights.formats import graphdef
from googlenet.weights.formats.graphdef import GRAPH
from googlenet.weights.formats.protobuf import encode, parse
from minigrad.errors import InputError
from tests.fixtures.make_tensorflow import fill

FIXTURES = Path(__file__).parents[2] / "fixtures/weights"
INCEPTION5H, SLIM = FIXTURES / "inception5h_graph.pb", FIXTURES / "slim_frozen.pb"

Nodes = dict[str, dict[str, Any]]


def edited(tmp_path: Path, source: Path, change: Callable[[Nodes], None]) -> Path:
    """A copy of a graph whose nodes, by name, were changed."""
    nodes = {node["name"][-1]: node for node in parse(source.read_bytes(), GRAPH, "")["node"]}
    change(nodes)
    path = tmp_path / "edited.pb"
    path.write_bytes(encode(GRAPH, {"node": list(nodes.values())}))
    return path


def attribute(node: dict[str, Any], name: str) -> dict[str, Any]:
    return next(entry["value"][0] for entry in node["attr"] if entry["key"] == [name])


def without(node: dict[str, Any], *names: str) -> None:
    node["attr"] = [entry for entry in node["attr"] if entry["key"][0] not in names]


def new(name: str, op: str, *inputs: str, **attributes: dict[str, Any]) -> dict[str, Any]:
    return {"name": [name], "op": [op], "input": list(inputs),
            "attr": [{"key": key, "value": value} for key, value in attributes.items()]}


def constant(name: str, *values: float) -> dict[str, Any]:
    """A float constant: a scalar, or one value a channel."""
    shape = {"dim": [{"size": len(values)}] if len(values) > 1 else []}
    return new(name, "Const", value={"tensor": {"dtype": 1, "shape": shape, "floats": np.array(values, np.float32)}})


# What TensorFlow wrote.

def test_inception5h_comes_back():
    assert graphdef.recognise(INCEPTION5H.read_bytes()[:4096], INCEPTION5H)
    contents = graphdef.read(INCEPTION5H)
    with np.load(FIXTURES / "inception5h_expected.npz") as archive:
        wanted = {name.removeprefix("array/"): archive[name] for name in archive.files if name.startswith("array/")}
    assert contents.arrays.keys() == wanted.keys()
    for name, array in wanted.items():
        assert contents.arrays[name].dtype == np.float32
        np.testing.assert_array_equal(contents.arrays[name], array, err_msg=name)
    alpha = float(np.float32(1e-4))  # not divided by the window, as ours is
    assert contents.graph.lrn == f"11 {11 * alpha!r} 0.5 2.0"
    assert (contents.graph.variant, contents.graph.batch_norm) == ("inception5h", "learned")
    assert (contents.graph.mean, contents.graph.std) == ((0, 0, 0), (1, 1, 1))


def test_slim_comes_back():
    """Its weights are one value each, which TensorFlow stores once; the picture is prepared as 2 (x / 255 - 1/2)."""
    assert graphdef.recognise(SLIM.read_bytes()[:4096], SLIM)
    contents = graphdef.read(SLIM)
    assert len(contents.arrays) == 4 * 57 + 2
    assert contents.arrays["InceptionV1/Conv2d_1a_7x7/weights"].shape == (7, 7, 3, 4)
    for name, array in contents.arrays.items():
        assert (array == np.float32(fill(name))).all(), name
    assert contents.graph.variant == "slim"
    assert contents.graph.lrn == ""
    assert (contents.graph.mean, contents.graph.std) == ((127.5,) * 3, (127.5,) * 3)


def test_other_graphs_have_no_network(tmp_path):
    path = tmp_path / "other.pb"
    path.write_bytes(encode(GRAPH, {"node": [constant("w", 1, 2), constant("scalar", 3), new("y", "Relu", "w")]}))
    assert graphdef.recognise(path.read_bytes(), path)
    contents = graphdef.read(path)
    assert contents.graph is None
    assert {name: array.tolist() for name, array in contents.arrays.items()} == {"w": [1, 2]}


def test_other_files_are_not_taken_for_graphs(tmp_path):
    for content in (b"", b"\n", b"\n\2\n\0", b"hello", (FIXTURES / "slim_v1.ckpt").read_bytes()):
        (tmp_path / "x").write_bytes(content)
        assert not graphdef.recognise(content[:4096], tmp_path / "x")
    assert not graphdef.recognise(b"", tmp_path / "nothing")


# Graphs that compute the same.

def same(tmp_path: Path, source: Path, change: Callable[[Nodes], None]) -> graphdef.Graph:
    contents = graphdef.read(edited(tmp_path, source, change))
    wanted = graphdef.read(source)
    assert contents.arrays.keys() == wanted.arrays.keys()
    return contents.graph


def test_spellings_that_do_not_matter(tmp_path):
    def change(nodes: Nodes) -> None:
        nodes["conv2d0_pre_relu"]["op"] = ["Add"]
        nodes["conv2d0_pre_relu"]["input"].reverse()
        nodes["conv2d2_pre_relu"]["op"] = ["AddV2"]
        attribute(nodes["conv2d1_pre_relu/conv"], "padding")["bytes"] = [b"VALID"]  # 1x1: no neighbours
        nodes["conv2d1"]["input"] = ["conv2d1_pre_relu:0", "^conv2d0"]
        nodes["passed"] = new("passed", "Identity", "conv2d1")
        nodes["conv2d2_pre_relu/conv"]["input"][0] = "passed"
        nodes["mixed3a"]["op"] = ["Concat"]
        nodes["mixed3a"]["input"] = nodes["mixed3a"]["input"][-1:] + nodes["mixed3a"]["input"][:-1]
        for branch in ("1x1", "3x3", "5x5", "pool_reduce"):  # one ReLU for all, behind the concatenation
            nodes["mixed3b"]["input"] = [name.replace(f"mixed3b_{branch}", f"mixed3b_{branch}_pre_relu")
                                         for name in nodes["mixed3b"]["input"]]
        nodes["mixed3b_relu"] = new("mixed3b_relu", "Relu", "mixed3b")
        nodes["maxpool4"]["input"] = ["mixed3b_relu"]
        without(nodes["conv2d0_pre_relu/conv"], "dilations", "data_format")
    assert same(tmp_path, INCEPTION5H, change) == graphdef.read(INCEPTION5H).graph


def test_heads_may_be_absent(tmp_path):
    def change(nodes: Nodes) -> None:
        for name in [name for name in nodes if name.startswith(("head", "nn", "softmax0", "softmax1"))]:
            del nodes[name]
    contents = graphdef.read(edited(tmp_path, INCEPTION5H, change))
    assert contents.graph == graphdef.read(INCEPTION5H).graph
    assert len(contents.arrays) == 2 * 58


def test_lrn_takes_tensorflows_defaults(tmp_path):
    def change(nodes: Nodes) -> None:
        for name in ("localresponsenorm0", "localresponsenorm1"):
            without(nodes[name], "depth_radius", "alpha", "beta", "bias")
    assert same(tmp_path, INCEPTION5H, change).lrn == "11 11.0 0.5 1.0"


def test_mean_that_the_graph_subtracts(tmp_path):
    """((x - 117) / 2 + (1, 2, 3)) * 4, as (x - mean) / std."""
    def change(nodes: Nodes) -> None:
        for node in (constant("m", 117), constant("two", 2), constant("shift", 1, 2, 3), constant("four", 4),
                     new("a", "Sub", "input", "m"), new("b", "RealDiv", "a", "two"), new("c", "Add", "shift", "b"),
                     new("d", "Mul", "c", "four")):
            nodes[node["name"][0]] = node
        nodes["conv2d0_pre_relu/conv"]["input"][0] = "d"
    graph = same(tmp_path, INCEPTION5H, change)  # the shift is no weight
    assert graph.mean == (115, 113, 111)
    assert graph.std == (0.5, 0.5, 0.5)


def mean_over(*axes: int, size: int = 0) -> Callable[[Nodes], None]:
    """A mean instead of the last pool; of a larger size than its axes are, the last of them is repeated."""
    def change(nodes: Nodes) -> None:
        value = {"tensor": {"dtype": 3, "shape": {"dim": [{"size": size or len(axes)}]}, "ints": list(axes)}}
        nodes["axes"] = new("axes", "Const", value=value)
        nodes["avgpool0"] = new("avgpool0", "Mean", "mixed5b", "axes")
    return change


def test_average_may_be_written_as_a_mean(tmp_path):
    assert same(tmp_path, INCEPTION5H, mean_over(1, 2)) == graphdef.read(INCEPTION5H).graph


# Graphs that do not.

def set_ints(name: str, key: str, *values: int) -> Callable[[Nodes], None]:
    return lambda nodes: attribute(nodes[name], key)["list"][-1].update(ints=list(values))


def set_bytes(name: str, key: str, value: bytes) -> Callable[[Nodes], None]:
    return lambda nodes: attribute(nodes[name], key).update(bytes=[value])


def set_input(name: str, index: int, value: str) -> Callable[[Nodes], None]:
    return lambda nodes: nodes[name]["input"].__setitem__(index, value)


def set_float(name: str, key: str, value: float) -> Callable[[Nodes], None]:
    return lambda nodes: attribute(nodes[name], key).update(float=[value])


def set_op(name: str, value: str) -> Callable[[Nodes], None]:
    return lambda nodes: nodes[name].update(op=[value])


def add_before_conv1(*nodes_: dict[str, Any]) -> Callable[[Nodes], None]:
    def change(nodes: Nodes) -> None:
        nodes.update({node["name"][0]: node for node in nodes_})
        nodes["conv2d0_pre_relu/conv"]["input"][0] = nodes_[-1]["name"][0]
    return change


def set_ones(name: str, *shape: int) -> Callable[[Nodes], None]:
    tensor = {"dtype": 1, "shape": {"dim": [{"size": size} for size in shape]}, "floats": np.ones(1, np.float32)}
    return lambda nodes: nodes.update({name: new(name, "Const", value={"tensor": tensor})})


def delete(name: str) -> Callable[[Nodes], None]:
    return lambda nodes: nodes.pop(name)


DIFFERENT = {
    "conv1's stride": (set_ints("conv2d0_pre_relu/conv", "strides", 1, 1, 1, 1),
                       r"conv2d0_pre_relu/conv \(Conv2D\) has strides \[1, 1, 1, 1\].*\[1, 2, 2, 1\]"),
    "conv1's padding": (set_bytes("conv2d0_pre_relu/conv", "padding", b"VALID"), "has padding VALID.*has SAME"),
    "a dilation": (set_ints("conv2d2_pre_relu/conv", "dilations", 1, 2, 2, 1), r"dilations \[1, 2, 2, 1\]"),
    "channels first": (set_bytes("mixed4a_pool", "data_format", b"NCHW"), "data_format NCHW.*has NHWC"),
    "a pool's window": (set_ints("maxpool10", "ksize", 1, 2, 2, 1), r"maxpool10 \(MaxPool\) has ksize \[1, 2, 2, 1\]"),
    "a pool's stride": (set_ints("mixed5b_pool", "strides", 1, 2, 2, 1), "mixed5b_pool .*strides"),
    "a pool's padding": (set_bytes("maxpool0", "padding", b"VALID"), "maxpool0 .*padding VALID"),
    "a pool's kind": (set_op("maxpool4", "AvgPool"), "maxpool4 is AvgPool, where inception5h has MaxPool"),
    "the last pool": (set_ints("avgpool0", "ksize", 1, 5, 5, 1), r"avgpool0 \(AvgPool\) has ksize"),
    "the axes of a mean": (mean_over(2, 3), r"avgpool0 \(Mean\) has axes \[2, 3\].*has \[1, 2\]"),
    "a kernel": (set_ones("mixed3a_5x5_w", 3, 3, 4, 4),
                 r"mixed3a_5x5_pre_relu/conv has a kernel of shape \(3, 3, 4, 4\)"),
    "a head's pool": (set_ints("head1_pool", "strides", 1, 5, 5, 1), "head1_pool .*strides"),
    "a head's place": (set_input("head1_pool", 0, "mixed4c"), "mixed4c is what aux2 begins behind.*has mixed4d"),
    "a head's ReLU": (set_op("nn0", "Sigmoid"), "nn0 is Sigmoid.*Relu"),
    "an activation": (set_op("mixed4b_3x3", "Relu6"), "mixed4b_3x3 is Relu6"),
    "another weight": (set_input("mixed4c_3x3_pre_relu/conv", 1, "mixed4b_3x3_w"),
                       "has the weight mixed4b_3x3_w.*has mixed4c_3x3_w"),
    "another bias": (set_input("mixed4c_3x3_pre_relu", 1, "mixed4c_1x1_b"), "mixed4c_3x3_b as one of two inputs"),
    "the branches' order": (lambda nodes: nodes["mixed5a"]["input"].__setitem__(
        slice(0, 2), nodes["mixed5a"]["input"][1::-1]), "mixed5a_3x3_pre_relu is .* has mixed5a_1x1_b"),
    "a missing branch": (lambda nodes: nodes["mixed5a"]["input"].pop(0), "mixed5a .*has inputs 3.*has 4"),
    "a branch's beginning": (set_input("mixed4d_pool", 0, "maxpool4"), "maxpool4 begins a branch of inception_4d"),
    "a mean over 2^24 axes": (mean_over(0, size=2**24), r"has axes \[0, 0, 0\].*has \[1, 2\]"),
    "an axis of 2^24 numbers": (lambda nodes: attribute(nodes["mixed3a/axis"], "value")["tensor"][-1].update(
        shape=[{"dim": [{"size": 2**24}]}]), r"along axis \[3, 3, 3\]"),
    "the axis": (lambda nodes: attribute(nodes["mixed3a/axis"], "value")["tensor"][-1].update(ints=[1]), "along axis"),
    "a missing norm": (set_input("conv2d1_pre_relu/conv", 0, "maxpool0"), "maxpool0 is MaxPool.*has LRN"),
    "norms that differ": (set_float("localresponsenorm1", "alpha", 2e-4), "local response normalisations differ"),
    "a norm without numbers": (set_float("localresponsenorm1", "bias", float("nan")), "bias nan"),
    "a transposed weight": (lambda nodes: attribute(nodes["nn0_pre_relu/matmul"], "transpose_b").update(bool=[1]),
                            "transpose_b 1"),
    "what precedes": (add_before_conv1(new("r", "ResizeBilinear", "input", "avgpool0/reshape/shape")),
                      "node r is ResizeBilinear, before the first convolution"),
    "a picture turned over": (add_before_conv1(constant("c", 255), new("r", "Sub", "c", "input")), "r is Sub"),
    "a picture negated": (add_before_conv1(constant("c", -1), new("r", "Mul", "c", "input")), "positive ones"),
    "a picture of nothing": (add_before_conv1(constant("c", 0), new("r", "Mul", "c", "input")), "finite numbers"),
    "a mean of four": (add_before_conv1(constant("c", 1, 2, 3, 4), new("r", "Sub", "input", "c")), "r is Sub"),
    "no classifier": (delete("softmax2_pre_activation"), "0 nodes add softmax2_b"),
    "no such node": (delete("mixed4e_pool"), "no node has the output 'mixed4e_pool'"),
    "another output": (set_input("conv2d1", 0, "conv2d1_pre_relu:1"), "no node has the output 'conv2d1_pre_relu:1'"),
    "a ring": (lambda nodes: nodes["conv2d1"].update(op=["Identity"], input=["conv2d1"]), "conv2d1 follows itself"),
    "a ring of additions": (add_before_conv1(constant("c", 1), new("r", "Add", "r", "c")), "r is Add"),
    "nothing to work on": (lambda nodes: nodes["maxpool4"].update(input=[]), "maxpool4 is MaxPool without an input"),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_what_differs_is_named(tmp_path, what):
    change, message = DIFFERENT[what]
    with pytest.raises(InputError, match=message):
        graphdef.read(edited(tmp_path, INCEPTION5H, change))


NORM = "batchnorm"
SLIM_DIFFERENT = {
    "epsilon": (lambda nodes: attribute(nodes[f"{NORM}/add/y"], "value")["tensor"][-1].update(
        floats=np.array([1e-4], np.float32)), "epsilon"),
    "another mean": (set_input(f"{NORM}/mul_1", 0, "InceptionV1/Conv2d_2b_1x1/BatchNorm/moving_mean/read"),
                     "moving_mean as one of two inputs"),
    "another beta": (set_input(f"{NORM}/sub", 0, "InceptionV1/Conv2d_2b_1x1/BatchNorm/beta/read"), "beta"),
    "no root": (set_op(f"{NORM}/Rsqrt", "Sqrt"), "Sqrt.*Rsqrt"),
    "a paper's pool": (set_ints("MaxPool2d_10", "ksize", 1, 3, 3, 1), r"has \[1, 2, 2, 1\]"),
}


@pytest.mark.parametrize("what", SLIM_DIFFERENT)
def test_what_differs_from_slim_is_named(tmp_path, what):
    change, message = SLIM_DIFFERENT[what]
    with pytest.raises(InputError, match=message):
        graphdef.read(edited(tmp_path, SLIM, change))


# Malformed files.

def test_malformed_files(tmp_path):
    path = tmp_path / "x.pb"
    content = INCEPTION5H.read_bytes()
    for damaged in (content[:1000], content[:-1], content + b"\n\xff\xff\xff\xff\x7f"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=str(path)):
            graphdef.read(path)


@pytest.mark.parametrize(("tensor", "message"), [
    ({"dtype": 1, "shape": {"dim": [{"size": 2**40}]}, "floats": np.ones(1, np.float32)}, "more than 128 MiB"),
    ({"dtype": 1, "shape": {"dim": [{"size": 3}]}, "content": bytes(8)}, "8 bytes"),
    ({"dtype": 1, "shape": {"unknown_rank": 1}}, "known sizes"),
    ({"dtype": 8, "shape": {"dim": []}}, "data type 8"),
])
def test_malformed_constants(tmp_path, tensor, message):
    with pytest.raises(InputError, match=f"conv2d0_w .*{message}"):
        graphdef.read(edited(tmp_path, INCEPTION5H, lambda nodes: nodes.update(
            conv2d0_w=new("conv2d0_w", "Const", value={"tensor": tensor}))))


def test_nodes_of_one_name(tmp_path):
    path = tmp_path / "x.pb"
    path.write_bytes(encode(GRAPH, {"node": [constant("w", 1), constant("w", 2)]}))
    with pytest.raises(InputError, match="two nodes named w"):
        graphdef.read(path)


# Against TensorFlow, where it is installed.

def test_slim_with_one_operation_for_the_norm(tmp_path):
    """As slim has it since 2017: gamma is ones and no array of ours."""
    tf = pytest.importorskip("tensorflow", reason="makes the graph")
    from tests.googlenet.weights import slim_network

    arrays = slim_network.random_arrays(1 / 16, 7, seed=4)
    graph = slim_network.frozen(lambda name, _shape: tf.constant(arrays[name], name=name), slim_network.SlimFused,
                                1 / 16, 7)
    path = tmp_path / "fused.pb"
    path.write_bytes(graph.SerializeToString())
    contents = graphdef.read(path)
    assert contents.graph.variant == "slim"
    assert contents.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(contents.arrays[name], array, err_msg=name)

    def scaled(nodes: Nodes) -> None:
        gamma = next(node for node in nodes.values() if node["op"][0].startswith("FusedBatchNorm"))["input"][1]
        attribute(nodes[gamma], "value")["tensor"][-1].update(content=[], floats=np.full(1, 2, np.float32))

    def training(nodes: Nodes) -> None:
        norm = next(node for node in nodes.values() if node["op"][0].startswith("FusedBatchNorm"))
        attribute(norm, "is_training")["bool"] = [1]

    for change, message in ((scaled, "has no gamma"), (training, "is_training 1")):
        with pytest.raises(InputError, match=message):
            graphdef.read(edited(tmp_path, path, change))


def test_mean_in_tensorflows_own_graph(tmp_path):
    pytest.importorskip("tensorflow", reason="makes the graph")
    from tests.googlenet.weights import inception5h_network

    arrays = inception5h_network.random_arrays(1 / 16, 7, heads=False)
    path = tmp_path / "mean.pb"
    path.write_bytes(inception5h_network.frozen(arrays, mean=117.0).SerializeToString())
    contents = graphdef.read(path)
    assert contents.graph.mean == (117, 117, 117)
    assert contents.arrays.keys() == arrays.keys()
