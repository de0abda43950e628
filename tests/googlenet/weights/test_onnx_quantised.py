"""Quantised operators in plain words: numbers of integers, and the ReLU that rounding does."""

from pathlib import Path

import numpy as np
import pytest

from googlenet.weights.formats.onnx import quantised
from googlenet.weights.formats.onnx.messages import Node
from googlenet.weights.formats.onnx.quantised import OPERATORS, SATURATE, Constant
from minigrad.errors import InputError

U8, I8, I32, F32 = np.uint8, np.int8, np.int32, np.float32
W = np.array([[[[0]], [[128]]], [[[255]], [[100]]]], U8)  # (O, C, 1, 1)
SCALES = {"xs": F32(0.5), "xz": U8(3), "ws": F32(0.25), "wz": U8(128), "ys": F32(1), "yz": U8(7)}


def said(op: str, inputs: str, given: dict, **attributes) -> tuple[list[Node], dict]:
    """Return the plain nodes, and the constants by name; inputs are names, '-' for one left out."""
    values = {name: Constant(name, np.asarray(array)) for name, array in given.items()}
    node = Node(op, tuple("" if name == "-" else name for name in inputs.split()), ("y",), attributes)
    nodes = list(quantised.plain(node, values, lambda node, size: None))
    return nodes, {name: each for name, each in values.items() if name not in given}


def weight_of(nodes: list[Node], constants: dict, place: int = 1) -> Constant:
    return constants[nodes[0].inputs[place]]


def test_a_convolution():
    given = {**SCALES, "w": W, "b": np.array([8, -4], I32)}
    nodes, constants = said("QLinearConv", "x xs xz w ws wz ys yz b", given, strides=[2, 2])
    assert [node.op for node in nodes] == ["Conv"]
    assert (nodes[0].inputs[0], nodes[0].outputs, nodes[0].attributes) == ("x", ("y",), {"strides": [2, 2]})
    weight, bias = weight_of(nodes, constants), weight_of(nodes, constants, 2)
    assert weight.array.ravel().tolist() == [-32, 0, 31.75, -7]
    assert (weight.name, weight.array.dtype, weight.half_step) == ("w", np.float32, 0.125)
    assert bias.array.tolist() == [1, -0.5]  # of scale 0.5 * 0.25


def test_a_scale_for_each_channel():
    given = {**SCALES, "w": W.astype(np.int16).clip(-128, 127).astype(I8), "ws": np.array([1, 2], F32),
             "wz": np.array([0, 10], I8), "b": np.array([1, 1], I32)}
    nodes, constants = said("QLinearConv", "x xs xz w ws wz ys yz b", given)
    assert weight_of(nodes, constants).array.ravel().tolist() == [0, 127, 234, 180]
    assert weight_of(nodes, constants).half_step == 1
    assert weight_of(nodes, constants, 2).array.tolist() == [0.5, 1]


@pytest.mark.parametrize(("zero", "saturates"), [(U8(0), True), (U8(1), False), (I8(-128), True), (I8(0), False)])
def test_rounding_to_the_least_value_is_a_relu(zero, saturates):
    nodes, _ = said("QLinearConv", "x xs xz w ws wz ys yz", {**SCALES, "w": W, "yz": zero})
    assert [node.op for node in nodes] == ["Conv", SATURATE][:1 + saturates]
    nodes, _ = said("QuantizeLinear", "x ys yz", {**SCALES, "yz": zero})
    assert [node.op for node in nodes] == ["Identity", SATURATE][:1 + saturates]


def test_a_quantiser_without_a_zero_point_rounds_to_unsigned_bytes():
    nodes, _ = said("QuantizeLinear", "x ys", SCALES)
    assert [node.op for node in nodes] == ["Identity", SATURATE]


@pytest.mark.parametrize(("transposed", "expected"), [(1, [[0, 1], [20, 30]]), (0, [[0, 10], [2, 30]])])
def test_gemm(transposed, expected):
    given = {**SCALES, "w": np.array([[0, 1], [2, 3]], U8), "ws": np.array([1, 10], F32), "wz": np.zeros(2, U8),
             "b": np.array([4, 4], I32)}
    nodes, constants = said("QGemm", "x xs xz w ws wz b ys yz", given, transB=transposed, alpha=1.0)
    assert [node.op for node in nodes] == ["Gemm"]
    assert weight_of(nodes, constants).array.tolist() == expected
    assert weight_of(nodes, constants, 2).array.tolist() == [2, 20]


def test_matmul_and_its_bias():
    nodes, constants = said("QLinearMatMul", "x xs xz w ws wz ys yz",
                            {**SCALES, "w": np.array([[0, 1], [2, 3]], U8), "ws": np.array([1, 10], F32), "wz": U8(1)})
    assert nodes[0].op == "MatMul"
    assert weight_of(nodes, constants).array.tolist() == [[-1, 0], [1, 20]]
    nodes, constants = said("QLinearAdd", "x xs xz w ws wz ys yz", {**SCALES, "w": np.array([128, 132], U8)})
    assert (nodes[0].op, nodes[0].inputs[0]) == ("Add", "x")
    assert weight_of(nodes, constants).array.tolist() == [0, 1]


def test_operators_of_activations_alone():
    assert said("QLinearConcat", "ys yz a xs xz b xs xz c xs xz", SCALES, axis=1)[0][0].inputs == ("a", "b", "c")
    for op, plain in [("QLinearAveragePool", "AveragePool"), ("QLinearGlobalAveragePool", "GlobalAveragePool"),
                      ("QLinearSoftmax", "Softmax"), ("QLinearMul", "Mul")]:
        nodes, _ = said(op, "x xs xz w ws wz ys yz" if op == "QLinearMul" else "x xs xz ys yz", {**SCALES, "w": U8(1)})
        assert nodes[0].op == plain
        assert nodes[0].inputs[0] == "x"


def test_dequantisers_of_weights_along_an_axis():
    given = {"w": np.array([[1, 2], [3, 4]], I8), "s": np.array([1, 10], F32), "z": np.array([0, 1], I8)}
    for axis, expected in [(0, [[1, 2], [20, 30]]), (1, [[1, 10], [3, 30]]), (-1, [[1, 10], [3, 30]])]:
        nodes, constants = said("DequantizeLinear", "w s z", given, axis=axis)
        assert weight_of(nodes, constants, 0).array.tolist() == expected
    nodes, constants = said("DequantizeLinear", "w s", given)
    assert weight_of(nodes, constants, 0).array.tolist() == [[1, 20], [3, 40]]
    assert said("DequantizeLinear", "x s z", {name: given[name] for name in "sz"})[0][0].inputs == ("x",)


def test_quantisers_of_weights():
    """Weights that stay floats in the file are rounded as the graph says."""
    given = {"w": np.array([[-1, 0.3], [0.26, 99]], F32), "s": np.array([0.5, 1], F32), "z": np.array([0, 1], I8)}
    nodes, constants = said("QuantizeLinear", "w s z", given, axis=0)
    assert weight_of(nodes, constants, 0).array.dtype == np.int8
    assert weight_of(nodes, constants, 0).array.tolist() == [[-2, 1], [1, 100]]
    nodes, constants = said("QuantizeLinear", "w t", {"w": given["w"], "t": F32(0.01)})
    assert weight_of(nodes, constants, 0).array.tolist() == [[0, 30], [26, 255]]


def test_other_nodes_stay_as_they_are():
    nodes, constants = said("Conv", "x w", {})
    assert nodes[0].op == "Conv"
    assert constants == {}


ODD = {
    "a scale that isn't constant": ("QLinearConv", "x xs xz w x wz ys yz", {}, "its input 'x' is not a constant"),
    "scales that don't fit": ("QLinearConv", "x xs xz w ws wz ys yz", {"ws": np.ones(3, F32)}, "3 scales or zero"),
    "zero points that don't fit": ("QLinearConv", "x xs xz w ws wz ys yz", {"wz": np.ones(3, U8)}, "3 scales"),
    "a scale that is no number": ("QLinearConv", "x xs xz w ws wz ys yz", {"ws": F32(np.nan)}, "no positive number"),
    "a negative scale": ("QLinearConv", "x xs xz w ws wz ys yz", {"ws": F32(-1)}, "no positive number"),
    "floats": ("QLinearConv", "x xs xz w ws wz ys yz", {"w": W.astype(F32)},
               "float32 and uint8, expected quantised integers"),
    "a zero point of floats": ("QLinearConv", "x xs xz w ws wz ys yz", {"wz": F32(1)},
                               "uint8 and float32, expected quantised integers"),
    "scales of the input": ("QLinearConv", "x xs xz w ws wz ys yz b", {"xs": np.ones(2, F32), "b": np.ones(2, I32)},
                            "2 scales of its input"),
    "an axis that is no number": ("DequantizeLinear", "w s z", {"axis": [1]}, "axis is .1., expected a whole number"),
    "too few inputs": ("QLinearConv", "x xs xz w", {}, "fewer than it needs"),
    "too few for a dequantiser": ("DequantizeLinear", "w", {}, "fewer than it needs"),
    "an axis that isn't there": ("DequantizeLinear", "w s z", {"s": np.ones(2, F32), "axis": 9}, "axis 9"),
    "blocks": ("DequantizeLinear", "w ws wz", {"block_size": 16}, "in blocks"),
    "channels last": ("QLinearAveragePool", "x xs xz ys yz", {"channels_last": 1}, "channels last"),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_nodes_are_refused(case):
    op, inputs, changes, message = ODD[case]
    attributes = {name: value for name, value in changes.items() if isinstance(value, int | list)}
    given = {**SCALES, "w": W, "z": U8(0), **{name: value for name, value in changes.items() if name not in attributes}}
    with pytest.raises(InputError, match=message):
        said(op, inputs, given, **attributes)


def test_every_operator_is_tested():
    source = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{op}"' in source for op in OPERATORS)


def test_what_weights_take_is_told():
    spent = []
    node = Node("DequantizeLinear", ("w", "s"), ("y",))
    values = {"w": Constant("w", np.zeros(100, I8)), "s": Constant("s", F32(1))}
    list(quantised.plain(node, values, lambda node, size: spent.append(size)))
    assert spent == [400]
