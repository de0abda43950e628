"""The interpreter of shapes and arithmetic: each operator against what ONNX's specification says, and its limits."""

import numpy as np
import pytest

from googlenet.weights.formats.onnx.messages import Node
from googlenet.weights.formats.onnx.operators import MOST_BYTES, OPERATORS, Interpreter
from minigrad.errors import InputError

X = np.arange(24.0).reshape(1, 2, 3, 4)


def run(op: str, *inputs, opset: int = 13, outputs: int = 1, **attributes) -> list[np.ndarray]:
    node = Node(op, tuple(f"in{i}" for i in range(len(inputs))), tuple(f"out{i}" for i in range(outputs)), attributes)
    return Interpreter(opset).run(node, [x if x is None else np.asarray(x) for x in inputs])


CASES = {
    "Identity": (run, ("Identity", X), {}, X),
    "Cast": (run, ("Cast", X / 3), {"to": 7}, (X / 3).astype(np.int64)),
    "Reshape": (run, ("Reshape", X, [0, -1]), {}, X.reshape(1, 24)),
    "Reshape, old": (run, ("Reshape", X), {"shape": [4, 6]}, X.reshape(4, 6)),
    "Flatten": (run, ("Flatten", X), {"axis": 2}, X.reshape(2, 12)),
    "Transpose": (run, ("Transpose", X), {"perm": [0, 2, 3, 1]}, X.transpose(0, 2, 3, 1)),
    "Transpose, reversed": (run, ("Transpose", X), {}, X.T),
    "Squeeze": (run, ("Squeeze", X, [0]), {}, X[0]),
    "Squeeze, old": (run, ("Squeeze", X), {"axes": [0]}, X[0]),
    "Squeeze, all": (run, ("Squeeze", X), {}, X[0]),
    "Unsqueeze": (run, ("Unsqueeze", X, [0, 2]), {}, X[None, :, None]),
    "Unsqueeze, old": (run, ("Unsqueeze", X), {"axes": [1]}, X[:, None]),
    "Gather": (run, ("Gather", X, 1), {"axis": 1}, X[:, 1]),
    "Gather, reversed": (run, ("Gather", X, [1, 0]), {"axis": 1}, X[:, ::-1]),
    "Slice": (run, ("Slice", X, [1, 0], [3, 2], [3, 2]), {}, X[:, :, :2, 1:3]),
    "Slice, backwards": (run, ("Slice", X, [-1], [-(2**63)], [1], [-1]), {}, X[:, ::-1]),
    "Slice, old": (run, ("Slice", X), {"starts": [1], "ends": [2**31], "axes": [1]}, X[:, 1:]),
    "Concat": (run, ("Concat", X, X), {"axis": 1}, np.concatenate([X, X], 1)),
    "Shape": (run, ("Shape", X), {}, [1, 2, 3, 4]),
    "Shape, part": (run, ("Shape", X), {"start": 1, "end": 3}, [2, 3]),
    "ConstantOfShape": (run, ("ConstantOfShape", [2, 3]), {"value": np.array([0.5])}, np.full((2, 3), 0.5)),
    "Add": (run, ("Add", X, [[1.0], [2], [3]]), {}, X + np.array([[1], [2], [3]])),
    "Add, old": (run, ("Add", X, [10.0, 20.0]), {"opset": 6, "broadcast": 1, "axis": 1},
                 X + np.array([[[10]], [[20]]])),
    "Sub": (run, ("Sub", X, 3.0), {}, X - 3),
    "Mul": (run, ("Mul", X, 3.0), {}, X * 3),
    "Div": (run, ("Div", X, 4.0), {}, X / 4),
    "Div of integers": (run, ("Div", [7, 8, -7, -8], 2), {}, [3, 4, -3, -4]),
}


@pytest.mark.parametrize("case", CASES)
def test_operators_compute_what_onnx_says(case):
    call, given, attributes, expected = CASES[case]
    (found,) = call(*given, **attributes)
    np.testing.assert_array_equal(found, expected)
    assert found.shape == np.shape(expected)


def test_split_in_all_its_versions():
    for found in (run("Split", X, outputs=2, axis=3), run("Split", X, [2, 2], outputs=2, axis=3),
                  run("Split", X, outputs=2, axis=3, split=[2, 2])):
        np.testing.assert_array_equal(found[0], X[..., :2])
        np.testing.assert_array_equal(found[1], X[..., 2:])


def test_every_operator_has_a_case():
    assert {case.split(",")[0].split(" of ")[0] for case in CASES} | {"Split"} == OPERATORS.keys()


@pytest.mark.parametrize(("op", "inputs", "attributes"), [
    ("Reshape", (X, [5, 5]), {}), ("Reshape", (X,), {}), ("Transpose", (X,), {"perm": [0, 0, 1, 2]}),
    ("Gather", (X, 9), {"axis": 1}), ("Concat", (X, X[0]), {}), ("Add", (X, np.zeros(5)), {}), ("Add", (X,), {}),
    ("Cast", (X,), {"to": 8}), ("Cast", (X,), {"to": 16}), ("Cast", (X,), {}),
    ("Squeeze", (X, [1]), {}), ("Slice", (X, [0], [1], [9]), {}),
    ("ConstantOfShape", ([-1],), {}), ("ConstantOfShape", ([2**40],), {}), ("Unsqueeze", (X, [9]), {}),
    ("Slice", (X, [0], [1], [0], [0]), {}), ("Reshape", (X, [0.5]), {}),
])
def test_nonsense_is_refused(op, inputs, attributes):
    with pytest.raises(InputError, match=f"{op} node 'out0' can't be computed"):
        run(op, *inputs, **attributes)


def test_what_would_fill_the_memory_is_refused_before_it_does():
    side = 2**20
    with pytest.raises(InputError, match="computes more than"):
        run("Add", np.zeros((side, 1)), np.zeros((1, side)))
    with pytest.raises(InputError, match="computes more than"):
        run("Gather", np.zeros((2, 1000)), np.zeros(side, np.int64))
    large = np.broadcast_to(np.float32(0), (MOST_BYTES // 8 + 1,))
    with pytest.raises(InputError, match="computes more than"):
        run("Cast", large, to=11)


def test_what_nodes_take_is_added_up():
    interpreter = Interpreter(13)
    node = Node("Concat", ("a",), ("b",), {"axis": 0})
    interpreter.run(node, [np.zeros(2**20)])
    interpreter.spend(node, MOST_BYTES - 9 * 2**20)
    interpreter.run(node, [np.zeros(2**17)])
    with pytest.raises(InputError, match="computes more than"):
        interpreter.run(node, [np.zeros(1)])
