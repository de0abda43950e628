"""ONNX's messages: arrays of every type, nodes, and all that may be wrong with a file."""

from pathlib import Path

import numpy as np
import pytest

from googlenet.weights.formats import onnx, protobuf
from googlenet.weights.formats.onnx.messages import MODEL, TENSOR, Node, load
from minigrad.errors import InputError

FIXTURES = Path(__file__).parents[2] / "fixtures/weights"
VALUES = [0, 1, 2, 100]
TYPES = {1: np.float32, 2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64, 9: np.bool_,
         10: np.float16, 11: np.float64, 12: np.uint32, 13: np.uint64}
FIELDS = {1: "float_data", 7: "int64_data", 11: "double_data", 12: "uint64_data", 13: "uint64_data"}


def tensor(name: str = "w", kind: int = 1, dims=(2, 2), **data) -> dict:
    return {"name": name, "dims": list(dims), "data_type": kind, **data}


def file_of(*tensors: dict, nodes=(), **model) -> bytes:
    graph = {"node": list(nodes), "initializer": list(tensors)}
    return protobuf.encode(MODEL, {"ir_version": 8, "graph": graph, **model})


def read(*tensors: dict, **model) -> dict[str, np.ndarray]:
    return load(file_of(*tensors, **model), "x.onnx").arrays


@pytest.mark.parametrize("kind", TYPES)
def test_raw_bytes_of_every_type(kind):
    array = np.array(VALUES, TYPES[kind]).reshape(2, 2)
    found = read(tensor(kind=kind, raw_data=array.tobytes()))["w"]
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("kind", TYPES)
def test_typed_fields_of_every_type(kind):
    array = np.array(VALUES, TYPES[kind]).reshape(2, 2)
    stored = array.view(np.uint16) if kind == 10 else array
    data = stored.ravel() if kind in (1, 11) else [int(value) for value in stored.ravel()]
    found = read(tensor(kind=kind, **{FIELDS.get(kind, "int32_data"): data}))["w"]
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_negative_and_large_numbers():
    np.testing.assert_array_equal(read(tensor(kind=3, int32_data=[-128, -1, 0, 127]))["w"].ravel(), [-128, -1, 0, 127])
    largest = 2**64 - 1
    assert read(tensor(kind=13, dims=[1], uint64_data=[largest]))["w"][0] == largest


def test_bfloat16_is_widened_with_a_note():
    array = np.array([1.0, -2.5, 0.0, 2.0**100], np.float32)
    bits = (array.view(np.uint32) >> 16).astype(np.uint16)
    model = load(file_of(tensor(kind=16, raw_data=bits.tobytes())), "x.onnx")
    assert model.arrays["w"].dtype == np.float32
    np.testing.assert_array_equal(model.arrays["w"].ravel(), array)
    assert model.notes == ("bfloat16 arrays read as float32: 1, such as w",)
    np.testing.assert_array_equal(read(tensor(kind=16, int32_data=bits.tolist()))["w"].ravel(), array, strict=True)


def test_numbers_without_axes_and_empty_arrays():
    found = read(tensor("a", dims=[], float_data=[7.0]), tensor("b", dims=[0, 3]))
    assert found["a"] == 7
    assert found["a"].shape == ()
    assert found["b"].shape == (0, 3)


ODD = {
    "no type": (tensor(kind=0, raw_data=b"\0" * 16), "data type 0"),
    "text": (tensor(kind=8, raw_data=b"\0" * 16), "data type 8"),
    "too few values": (tensor(raw_data=b"\0" * 12), "3 values, its shape (2, 2) 4"),
    "too many values": (tensor(float_data=np.zeros(5)), "5 values"),
    "no values": (tensor(), "0 values"),
    "part of a value": (tensor(raw_data=b"\0" * 15), "15 bytes"),
    "values twice": (tensor(raw_data=b"\0" * 16, float_data=np.zeros(4)), "twice"),
    "a size of 2^62": (tensor(dims=[2**62]), "said to have shape"),
    "a product of 2^80": (tensor(dims=[2**40, 2**40]), "said to have shape"),
    "a negative size": (tensor(dims=[-2, 2]), "said to have shape"),
    "many axes": (tensor(dims=[1] * 33, float_data=np.zeros(1)), "said to have shape"),
    "a number that doesn't fit": (tensor(kind=2, int32_data=[0, 1, 2, 256]), "can't hold"),
    "bfloat16 of 17 bits": (tensor(kind=16, int32_data=[0, 1, 2, 65536]), "can't hold"),
    "float16 of 17 bits": (tensor(kind=10, int32_data=[0, 1, 2, 65536]), "can't hold"),
    "a file beside": (tensor(data_location=1), "in a file of its own"),
    "a file's name": (tensor(external_data=b"x"), "in a file of its own"),
    "no name": (tensor(name="", raw_data=b"\0" * 16), "''"),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_arrays_are_refused(case):
    odd, message = ODD[case]
    with pytest.raises(InputError) as raised:
        read(odd)
    assert message in str(raised.value)
    assert str(raised.value).startswith("x.onnx")


def test_a_name_twice_is_refused():
    with pytest.raises(InputError, match="two arrays named 'w'"):
        read(tensor(raw_data=b"\0" * 16), tensor(raw_data=b"\0" * 16))


def test_files_without_a_graph_or_with_sparse_arrays():
    with pytest.raises(InputError, match="no graph"):
        load(protobuf.encode(MODEL, {"ir_version": 8}), "x.onnx")
    with pytest.raises(InputError, match="sparse"):
        load(protobuf.encode(MODEL, {"graph": {"sparse_initializer": b"x"}}), "x.onnx")


def test_nodes_and_what_the_file_tells():
    kinds = [("f", 1, 0.5), ("i", 2, -3), ("s", 3, b"SAME"), ("floats", 6, [1.5]), ("ints", 7, [1, -2]),
             ("t", 4, tensor(dims=[1], float_data=[4.0]))]
    attributes = [{"name": field, field: value, "type": kind} for field, kind, value in kinds]
    attributes += [{"name": "untyped", "ints": [7]}, {"name": "left out", "type": 2}, {"name": "graph", "type": 5}]
    content = file_of(nodes=[{"op_type": "Conv", "name": "n", "input": ["a", "", "b"], "output": ["c"],
                              "attribute": attributes}],
                      opset_import=[{"domain": "com.microsoft", "version": 20}, {"domain": "", "version": 9}],
                      producer_name="made", producer_version="1.0",
                      metadata_props=[{"key": "classes", "value": "tench"}])
    model = load(content, "x.onnx")
    (node,) = model.nodes
    assert (node.op, node.name, node.inputs, node.outputs) == ("Conv", "n", ("a", "", "b"), ("c",))
    assert node.attributes.pop("t").tolist() == [4]
    assert node.attributes == {"f": 0.5, "i": -3, "s": b"SAME", "floats": [1.5], "ints": [1, -2], "untyped": [7],
                               "left out": 0, "graph": None}
    assert (model.opset, model.producer, model.metadata) == (9, "made 1.0", {"classes": "tench"})


@pytest.mark.parametrize(("value", "default", "message"), [
    (1.5, 0, "is 1.5, expected a whole number"), (b"x", 0.0, "expected a number"),
    ([0.5], [1], "expected whole numbers"),
    (3, [1], "expected whole numbers"), (None, 1, "is None"), (7, b"NOTSET", "expected text"),
    (np.zeros(3), 0, "expected a whole number")])
def test_attributes_of_other_kinds_are_refused(value, default, message):
    node = Node("Conv", (), ("y",), {"a": value})
    with pytest.raises(InputError, match=f"Conv node 'y': its attribute a is .*{message.removeprefix('is ')}"):
        node.told("a", default)
    assert node.told("absent", default) == default


def test_a_node_without_output_is_refused():
    with pytest.raises(InputError, match="no output"):
        load(file_of(nodes=[{"op_type": "Relu", "input": ["a"]}]), "x.onnx")


def test_it_is_recognised_by_content(tmp_path):
    for name in ("onnx_caffe.onnx", "onnx_qlinear.onnx", "onnx_torchvision.onnx"):
        start = (FIXTURES / name).read_bytes()[:4096]
        assert onnx.recognise(start, FIXTURES / name), name
    for path in FIXTURES.iterdir():
        if path.suffix != ".onnx":
            assert not onnx.recognise(path.read_bytes()[:4096], path), path
    assert not onnx.recognise(b"", tmp_path)
    assert not onnx.recognise(b"", tmp_path / "none.onnx")


@pytest.mark.parametrize("name", ["onnx_caffe.onnx", "onnx_qdq.onnx"])
def test_cut_files_are_refused(name, tmp_path):
    content = (FIXTURES / name).read_bytes()
    path = tmp_path / "x.onnx"
    for size in np.random.default_rng(0).integers(0, len(content) - 64, 40):
        path.write_bytes(content[:size])
        with pytest.raises(InputError, match=r"x\.onnx"):
            onnx.read(path)


def test_the_schema_writes_what_it_reads():
    assert protobuf.parse(protobuf.encode(TENSOR, tensor(raw_data=b"abcd")), TENSOR, "")["raw_data"] == [b"abcd"]
