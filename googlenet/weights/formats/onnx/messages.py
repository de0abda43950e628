"""ONNX's messages (onnx.proto) as far as a network needs them, and a file's graph as nodes and arrays.

Arrays may lie as raw little-endian bytes or in typed fields, where small integers share `int32_data` with the bits of
float16. Weights kept in files of their own beside the model are refused: a file must not name others to be read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from googlenet.weights.formats.elements import BFLOAT16, decode, item_size, shape_of, told_widened, widened
from googlenet.weights.formats.protobuf import Buffer, Field, last, parse
from googlenet.weights.formats.wording import DAMAGED, quoted, shown, shown_shape
from minigrad.errors import InputError

TENSOR = {
    1: Field("dims", "ints"), 2: Field("data_type", "int"), 4: Field("float_data", "floats"),
    5: Field("int32_data", "ints"), 7: Field("int64_data", "ints"), 8: Field("name", "string"),
    9: Field("raw_data", "bytes"), 10: Field("double_data", "doubles"), 11: Field("uint64_data", "ints"),
    13: Field("external_data", "bytes"), 14: Field("data_location", "int"),
}
ATTRIBUTE = {
    1: Field("name", "string"), 2: Field("f", "float"), 3: Field("i", "int"), 4: Field("s", "bytes"),
    5: Field("t", "message", TENSOR), 7: Field("floats", "floats"), 8: Field("ints", "ints"), 20: Field("type", "int"),
}
NODE = {
    1: Field("input", "string"), 2: Field("output", "string"), 3: Field("name", "string"),
    4: Field("op_type", "string"), 5: Field("attribute", "message", ATTRIBUTE), 7: Field("domain", "string"),
}
DIMENSION = {1: Field("dim_value", "int"), 2: Field("dim_param", "string")}
SHAPE = {1: Field("dim", "message", DIMENSION)}
TENSOR_TYPE = {1: Field("elem_type", "int"), 2: Field("shape", "message", SHAPE)}
TYPE = {1: Field("tensor_type", "message", TENSOR_TYPE)}
VALUE_INFO = {1: Field("name", "string"), 2: Field("type", "message", TYPE)}
GRAPH = {
    1: Field("node", "message", NODE), 2: Field("name", "string"), 5: Field("initializer", "message", TENSOR),
    11: Field("input", "message", VALUE_INFO), 12: Field("output", "message", VALUE_INFO),
    15: Field("sparse_initializer", "bytes"),
}
OPERATOR_SET = {1: Field("domain", "string"), 2: Field("version", "int")}
ENTRY = {1: Field("key", "string"), 2: Field("value", "string")}
MODEL = {
    1: Field("ir_version", "int"), 2: Field("producer_name", "string"), 3: Field("producer_version", "string"),
    7: Field("graph", "message", GRAPH), 8: Field("opset_import", "message", OPERATOR_SET),
    14: Field("metadata_props", "message", ENTRY),
}

FLOAT = 1
DTYPES = {FLOAT: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool",
          10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 16: BFLOAT16}
FIELDS = {"float32": "float_data", "int64": "int64_data", "float64": "double_data", "uint32": "uint64_data",
          "uint64": "uint64_data"}  # all others: int32_data
EXTERNAL = 1

# What an attribute's `type` says of where its value is.
VALUES = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints"}
DEFAULTS: dict[str, Any] = {"f": 0.0, "i": 0, "s": b""}  # which some writers leave out

KINDS: dict[type, tuple[Any, str]] = {int: (int, "a whole number"), float: (int | float, "a number"),
                                      list: (list, "whole numbers"), bytes: (bytes, "text")}


@dataclass(frozen=True, eq=False)
class Node:
    """An operation on named arrays; `domain` is empty for ONNX's own operators."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)  # numbers, lists of numbers, bytes, arrays
    name: str = ""

    def told(self, name: str, default: Any) -> Any:
        """Return an attribute, which must be of its default's kind: a number, whole numbers, or bytes."""
        value = self.attributes.get(name, default)
        kind, expected = KINDS[type(default)]
        if not isinstance(value, kind) or (isinstance(value, list) and not all(isinstance(n, int) for n in value)):
            raise InputError(f"{self}: its attribute {name} is {shown(repr(value))}, expected {expected}: "
                             "export the model again")
        return value

    def __str__(self) -> str:
        return f"{shown(self.op)} node {shown(self.name) if self.name else quoted(self.outputs[0])}"


@dataclass(frozen=True)
class Model:
    """A file's graph. Axes of an input that the file leaves open are 0."""

    nodes: tuple[Node, ...]
    arrays: dict[str, np.ndarray]  # the initialisers
    inputs: dict[str, tuple[int, ...]]
    opset: int
    producer: str
    metadata: dict[str, str]
    notes: tuple[str, ...]


def load(content: Buffer, where: str) -> Model:
    """Return the graph of a ModelProto. Raises InputError, beginning with `where`, for what is malformed or missing."""
    message = parse(content, MODEL, where)
    if not message["graph"]:
        raise InputError(f"{where} has no graph: {DAMAGED}")
    graph = message["graph"][-1]
    if graph["sparse_initializer"]:
        raise InputError(f"{where} stores sparse arrays, which no GoogLeNet has: export it with dense ones")
    arrays: dict[str, np.ndarray] = {}
    for tensor in graph["initializer"]:
        name = last(tensor["name"], "")
        if name in arrays or not name:
            raise InputError(f"{where} has two arrays named {quoted(name)}: export it again")
        arrays[name] = array_of(tensor, f"{where}: {shown(name)}")
    halves = [last(tensor["name"], "") for tensor in graph["initializer"]
              if DTYPES[last(tensor["data_type"], 0)] == BFLOAT16]
    return Model(
        nodes=tuple(_node(node, where) for node in graph["node"]), arrays=arrays,
        inputs={last(value["name"], ""): _axes(value) for value in graph["input"]},
        opset=max([last(entry["version"], 0) for entry in message["opset_import"]
                   if last(entry["domain"], "") in ("", "ai.onnx")], default=1),
        producer=" ".join(message["producer_name"][-1:] + message["producer_version"][-1:]).strip(),
        metadata={last(entry["key"], ""): last(entry["value"], "") for entry in message["metadata_props"]},
        notes=told_widened(halves))


def array_of(tensor: Mapping[str, Any], where: str) -> np.ndarray:
    """Return a TensorProto's values, which may be a view of the file's bytes.

    Raises InputError for values that are in another file, of no type of numbers, or don't fit their shape."""
    if last(tensor["data_location"], 0) == EXTERNAL or tensor["external_data"]:
        raise InputError(f"{where} lies in a file of its own: save the model with its data in one file "
                         "(onnx.save_model, save_as_external_data=False)")
    kind = last(tensor["data_type"], 0)
    if kind not in DTYPES:
        raise InputError(f"{where} has data type {kind}, expected floats or integers of 8 to 64 bits: export it so")
    dtype, shape = DTYPES[kind], shape_of(tensor["dims"])
    if shape is None:
        raise InputError(f"{where} is said to have shape {shown_shape(tensor['dims'])}: {DAMAGED}")
    values = _raw(tensor, dtype, where) if tensor["raw_data"] else _typed(tensor, dtype, where)
    if values.size != math.prod(shape):
        raise InputError(f"{where} has {values.size} values, its shape {shape} {math.prod(shape)}: {DAMAGED}")
    return values.reshape(shape)


def _raw(tensor: Mapping[str, Any], dtype: str, where: str) -> np.ndarray:
    raw = tensor["raw_data"][-1]
    if any(len(tensor[name]) for name in {*FIELDS.values(), "int32_data"}):
        raise InputError(f"{where} has its values twice, raw and typed: export it again")
    if len(raw) % item_size(dtype):
        raise InputError(f"{where} has {len(raw)} bytes, no whole number of {dtype} values: {DAMAGED}")
    return decode(raw, dtype)


def _typed(tensor: Mapping[str, Any], dtype: str, where: str) -> np.ndarray:
    values = tensor[FIELDS.get(dtype, "int32_data")]
    if isinstance(values, np.ndarray):  # float32 and float64
        return values
    numbers = np.array(values, np.int64)
    if dtype == "uint64":
        return numbers.view(np.uint64)
    stored = "uint16" if dtype in ("float16", BFLOAT16) else dtype  # halves are there as their bits
    fitting = numbers.astype(stored)
    if (fitting != numbers).any():
        raise InputError(f"{where} has values that its type {stored} can't hold: {DAMAGED}")
    if dtype == BFLOAT16:
        return widened(fitting)
    return fitting.view(np.float16) if dtype == "float16" else fitting


def _node(message: Mapping[str, Any], where: str) -> Node:
    node = Node(op=last(message["op_type"], ""), inputs=tuple(message["input"]), outputs=tuple(message["output"]),
                name=last(message["name"], ""), attributes={
                    last(each["name"], ""): _value(each, where) for each in message["attribute"]})
    if not node.outputs:
        raise InputError(f"{where}: a node {quoted(node.op)} {quoted(node.name)} has no output: {DAMAGED}")
    return node


def _value(attribute: Mapping[str, Any], where: str) -> Any:
    """Return an attribute's value; None for kinds that no network of ours has, such as graphs."""
    name = last(attribute["name"], "")
    kind = VALUES.get(last(attribute["type"], 0)) if attribute["type"] else \
        next((each for each in VALUES.values() if len(attribute[each])), None)
    if kind is None:
        return None
    if kind in ("floats", "ints"):
        return list(attribute[kind])
    value = last(attribute[kind], DEFAULTS.get(kind))
    if kind == "t":
        return None if value is None else array_of(value, f"{where}: attribute {shown(name)}")
    return bytes(value) if kind == "s" else value


def _axes(value: Mapping[str, Any]) -> tuple[int, ...]:
    for kind in value["type"]:
        for tensor in kind["tensor_type"]:
            for shape in tensor["shape"]:
                return tuple(max(last(axis["dim_value"], 0), 0) for axis in shape["dim"])
    return ()
