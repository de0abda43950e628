"""Protocol buffers: what is read, byte by byte; the writer against the reader; and all that is malformed.

Bytes that stand in a test were worked out by hand from the encoding's rules: key = number << 3 | wire type.
"""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from googlenet.weights.formats import protobuf
from googlenet.weights.formats.message_kind import kind_of
from googlenet.weights.formats.protobuf import Field, encode, parse, spans, varint
from minigrad.errors import InputError

FIXTURES = Path(__file__).parents[2] / "fixtures/weights"

INNER = {1: Field("id", "int")}
SCHEMA = {
    1: Field("int", "int"), 2: Field("text", "string"), 3: Field("bytes", "bytes"), 4: Field("ints", "ints"),
    5: Field("floats", "floats"), 6: Field("doubles", "doubles"), 7: Field("inner", "message", INNER),
    8: Field("float", "float"), 9: Field("double", "double"), 10: Field("fixed32", "fixed32"),
    11: Field("fixed64", "fixed64"), 12: Field("same", "message", lambda: SCHEMA), 2000: Field("far", "floats"),
}


def read(content: bytes, schema=SCHEMA):
    return parse(memoryview(content), schema, "model.pb")


def refused(content: bytes, told: str) -> None:
    with pytest.raises(InputError, match=told) as error:
        read(content)
    assert str(error.value).startswith("model.pb")


def outcome(content: bytes) -> str:
    """"read", or what is said of a message that is refused."""
    try:
        read(content)
    except InputError as error:
        return str(error)
    return "read"


def test_an_empty_message_has_every_field():
    found = read(b"")
    assert found.keys() == {field.name for field in SCHEMA.values()}
    assert all(len(values) == 0 for values in found.values())
    assert found["floats"].dtype == np.float32
    assert found["doubles"].dtype == np.float64


@pytest.mark.parametrize(("content", "value"), [
    ("08 00", 0), ("08 01", 1), ("08 7f", 127), ("08 80 01", 128), ("08 ac 02", 300), ("08 80 00", 0),
    ("08 ff ff ff ff ff ff ff ff 7f", 2**63 - 1), ("08 ff ff ff ff ff ff ff ff ff 01", -1),
    ("08 80 80 80 80 80 80 80 80 80 01", -2**63)])
def test_varints(content, value):
    content = bytes.fromhex(content)
    assert read(content)["int"] == [value]
    assert read(b"\x22" + bytes([len(content) - 1]) + content[1:])["ints"] == [value], "packed"


def test_every_kind_by_hand():
    found = read(bytes.fromhex(
        "12 03 68 c3 a9"  # 2, length 3: hé
        "1a 02 00 ff"  # 3: two bytes
        "3a 02 08 05"  # 7: a message whose field 1 is 5
        "45 00 00 c0 3f"  # 8: 1.5
        "49 00 00 00 00 00 00 04 c0"  # 9: -2.5
        "55 ff ff ff ff"  # 10
        "59 01 00 00 00 00 00 00 80"  # 11
        "12 01 78"))  # 2 again: x
    assert found["text"] == ["hé", "x"]
    assert [bytes(each) for each in found["bytes"]] == [b"\0\xff"]
    assert found["inner"] == [{"id": [5]}]
    assert found["float"] == [1.5]
    assert found["double"] == [-2.5]
    assert found["fixed32"] == [2**32 - 1]
    assert found["fixed64"] == [2**63 + 1]


def test_repeated_numbers_are_read_packed_and_one_by_one_in_the_files_order():
    """4: 1, [2, 300], [], 3; other fields in between."""
    assert read(bytes.fromhex("20 01 22 03 02 ac 02 08 09 22 00 20 03"))["ints"] == [1, 2, 300, 3]


def test_floats_come_in_any_number_of_runs():
    values = np.arange(300, dtype=np.float32)
    packed = b"\x2a\x28" + values[:10].tobytes() + b"\x2a\x00"
    single = b"".join(b"\x2d" + value.tobytes() for value in values[10:])
    found = read(packed + b"\x08\x01" + single[:5 * 200] + b"\x08\x02" + single[5 * 200:] + packed + single[:5])
    np.testing.assert_array_equal(found["floats"], [*values, *values[:10], values[10]])
    assert found["floats"].dtype == np.float32
    assert found["int"] == [1, 2]


@pytest.mark.parametrize("count", [1, 2, 16, 17, 18, 80, 81, 82, 5000])
@pytest.mark.parametrize(("number", "kind"), [(5, "f"), (6, "d"), (2000, "f")])
def test_unpacked_runs_end_where_another_field_begins(count, number, kind):
    """The reader compares fields in growing blocks: no value may be lost or gained at their borders."""
    values = np.random.default_rng(count).standard_normal(count).astype(kind)
    wire = 5 if kind == "f" else 1
    key = number << 3 | wire
    key = bytes([key]) if key < 128 else bytes([key & 127 | 128, key >> 7])
    run = b"".join(key + value.tobytes() for value in values)
    name = SCHEMA[number].name
    for end, after in ((b"", []), (b"\x08\x07" * 9, [7] * 9), (b"\x12\x00", [])):
        found = read(run + end)
        np.testing.assert_array_equal(found[name], values)
        assert found["int"] == after
    refused(run + key + b"\0\0\0", "3 are left")


def test_a_run_of_values_counts_as_one_field():
    values = np.random.default_rng(0).standard_normal(protobuf.MOST_FIELDS + 1, np.float32)
    run = b"".join(b"\x2d" + value.tobytes() for value in values)
    np.testing.assert_array_equal(read(run)["floats"], values)


def test_values_that_look_like_keys_are_values():
    """Three fields of the float 2d2d2d2d: a run advances by whole fields, not by keys."""
    assert read(b"\x2d" * 15)["floats"].tolist() == list(struct.unpack("<3f", b"\x2d" * 12))


@given(st.lists(st.integers(-2**63, 2**63 - 1), max_size=200))
def test_many_packed_varints_equal_the_plain_loops(values):
    content = encode({4: Field("ints", "ints")}, {"ints": values})
    assert read(content)["ints"] == values
    one_by_one = encode({4: Field("ints", "int")}, {"ints": values})
    assert read(one_by_one)["ints"] == values


@pytest.mark.parametrize("count", [1, 100])
@pytest.mark.parametrize("last", ["80", "80 80 80 80 80 80 80 80 80 80 01", "ff ff ff ff ff ff ff ff ff 02"])
def test_packed_varints_that_are_malformed(count, last):
    content = bytes([1] * count) + bytes.fromhex(last)
    refused(b"\x22" + bytes([len(content)]) + content, "cut short|10 bytes|64 bits")


def test_unknown_fields_are_skipped():
    unknown = bytes.fromhex("98 06 05" "99 06 0000000000000000" "9a 06 03 0b0c0d" "9d 06 00000000")  # 99: all types
    assert read(unknown + b"\x08\x03" + unknown)["int"] == [3]


def test_messages_that_contain_themselves():
    found = read(encode(SCHEMA, {"same": {"int": 1, "same": [{"int": 2}, {"int": 3}]}}))
    assert found["same"][0]["int"] == [1]
    assert [each["int"] for each in found["same"][0]["same"]] == [[2], [3]]


def test_nesting_is_bounded():
    def nested(depth):
        content = b""
        for _ in range(depth):
            content = encode({12: Field("same", "bytes")}, {"same": content})
        return content

    assert read(nested(protobuf.DEEPEST))
    refused(nested(protobuf.DEEPEST + 1), "nest more than 64 deep")
    refused(nested(20_000), "nest more than 64 deep")


def test_the_number_of_fields_is_bounded():
    assert len(read(b"\x3a\x00" * 1000)["inner"]) == 1000
    refused(b"\x3a\x00" * (protobuf.MOST_FIELDS + 1), "more than 131072 fields")
    refused(b"\xf8\x07\x00" * (protobuf.MOST_FIELDS + 1), "more than 131072 fields")


def test_every_cut_is_read_or_refused():
    """A message cut between two of its outermost fields is whole; anywhere else it is not."""
    content = encode(SCHEMA, {"int": 300, "text": "ab", "ints": [1, 2], "floats": [1, 2], "doubles": [3],
                              "inner": [{"id": 500}], "float": 1, "double": 2, "fixed32": 3, "fixed64": 4})
    ends = [end for end in range(len(content)) if spans(content[:end])[1]]
    assert len(ends) == 10
    for end in range(len(content)):
        told = outcome(content[:end])
        assert told == "read" if end in ends else told.startswith("model.pb is damaged at byte"), end


@pytest.mark.parametrize(("content", "told"), [
    ("08", "cut short"),
    ("88", "cut short"),
    ("08 80 80 80 80 80 80 80 80 80 80 01", "more than 10 bytes"),
    ("08 ff ff ff ff ff ff ff ff ff 02", "more than 64 bits"),
    ("12 05 61", "field 2 is 5 bytes long, where 1 are left"),
    ("12 80 80 80 80 80 20", "1099511627776 bytes long, where 0 are left"),
    ("12 ff ff ff ff ff ff ff ff ff 01", "18446744073709551615 bytes long"),
    ("9a 06 7f", "field 99 is 127 bytes long"),
    ("2a 80 80 80 80 80 20", "1099511627776 bytes long"),
    ("2d 00 00", "4 bytes long, where 2 are left"),
    ("13 14", "wire type 3"),  # a group, empty
    ("14", "wire type 4"),
    ("9b 06 9c 06", "wire type 3"),  # of a field that the schema lacks
    ("0e", "wire type 6"),
    ("0f", "wire type 7"),
    ("00 00", "no field 0"),
    ("80 80 80 80 10 00", "no field 536870912"),
])
def test_malformed_messages_are_refused(content, told):
    content = bytes.fromhex(content)
    refused(content, told)
    assert not spans(content)[1]


@pytest.mark.parametrize(("content", "told"), [
    ("0a 01 00", r"int \(1\) has wire type 2, not 0"),
    ("15 00 00 00 00", r"text \(2\) has wire type 5, not 2"),
    ("10 00", r"text \(2\) has wire type 0, not 2"),
    ("29 00 00 00 00 00 00 00 00", r"floats \(5\) has wire type 1, not 2"),
    ("2a 03 00 00 00", "3 bytes are no whole number of 32-bit values"),
    ("32 04 00 00 00 00", "4 bytes are no whole number of 64-bit values"),
    ("12 01 ff", "text is no text"),
    ("3a 03 08 01 12", "cut short"),  # the rest are in a message within
    ("3a 02 08 80", "cut short"),
    ("3a 02 12 05 08 01", "5 bytes long, where 0 are left"),
])
def test_messages_at_odds_with_the_schema_are_refused(content, told):
    content = bytes.fromhex(content)
    refused(content, told)
    assert spans(content)[1]


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(content):
    assert outcome(content).startswith(("read", "model.pb is damaged"))
    spans(content)
    kind_of(content)


def test_the_place_of_the_damage_is_told():
    refused(b"\x08\x01" + b"\x3a\x04\x08\x01\x08\x80", "at byte 7")


def test_spans_of_fields():
    content = encode(SCHEMA, {"int": 1, "text": ["a", "b"], "inner": {"id": 1}, "float": 2, "double": 1})
    fields, whole = spans(content)
    assert whole
    assert [(field.number, field.wire) for field in fields] == [(1, 0), (2, 2), (2, 2), (7, 2), (8, 5), (9, 1)]
    assert [content[field.start:field.stop] for field in fields[1:4]] == [b"a", b"b", b"\x08\x01"]
    cut, whole = spans(content[:-1])
    assert not whole
    assert cut == [*fields[:-1], fields[-1]._replace(stop=len(content) - 1)]
    inner = fields[3]
    assert spans(content, inner.start, inner.stop) == ([(1, 0, inner.start + 1, inner.stop)], True)
    assert spans(b"") == ([], True)


def test_varints_by_themselves():
    assert varint(memoryview(b"\xff\xac\x02\x7f"), 1, 4) == (300, 3)
    for content, told in ((b"\x80", "cut short"), (b"\x80" * 10 + b"\0", "more than 10 bytes"),
                          (b"\xff" * 9 + b"\2", "more than 64 bits")):
        with pytest.raises(ValueError, match=told):
            varint(memoryview(content), 0, len(content))


def test_what_is_written_by_hand():
    content = encode(SCHEMA, {"inner": [{"id": 5}, {}], "int": 300, "text": "hé", "bytes": b"\0", "ints": [1, 300],
                              "floats": [1.5], "doubles": np.array([-2.5]), "float": 1.5, "fixed32": 1})
    assert content.hex(" ") == (
        "08 ac 02 12 03 68 c3 a9 1a 01 00 22 03 01 ac 02 2a 04 00 00 c0 3f 32 08 00 00 00 00 00 00 04 c0 "
        "3a 02 08 05 3a 00 45 00 00 c0 3f 55 01 00 00 00")


def test_empty_lists_are_not_written():
    assert encode(SCHEMA, {"ints": [], "floats": [], "doubles": [], "text": [], "inner": []}) == b""


@given(st.fixed_dictionaries({}, optional={
    "int": st.integers(-2**63, 2**63 - 1), "text": st.lists(st.text(max_size=9), max_size=3),
    "bytes": st.binary(max_size=9), "ints": st.lists(st.integers(-2**63, 2**63 - 1), max_size=30),
    "floats": st.lists(st.floats(width=32, allow_nan=False), max_size=30),
    "doubles": st.lists(st.floats(allow_nan=False), max_size=30), "fixed64": st.integers(0, 2**64 - 1),
    "inner": st.lists(st.fixed_dictionaries({"id": st.integers(0, 1000)}), max_size=3)}))
def test_what_is_written_is_read(values):
    found = read(encode(SCHEMA, values))
    for name, value in values.items():
        if name == "inner":
            value = [{"id": [each["id"]]} for each in value]
        assert list(found[name]) == (value if isinstance(value, list) else [value])


def test_the_machines_byte_order():
    found = read(encode(SCHEMA, {"floats": np.array([1, 2], ">f4"), "doubles": np.array([1, 2], ">f8")}))
    assert found["floats"].dtype.isnative
    assert found["floats"].tolist() == found["doubles"].tolist() == [1, 2]


def test_unknown_names_are_not_written():
    with pytest.raises(KeyError):
        encode(SCHEMA, {"typo": 1})


# Which framework's message it is.

NODE = {1: Field("name", "string"), 2: Field("op", "string"), 3: Field("input", "string")}
GRAPH_DEF = {1: Field("node", "message", NODE), 2: Field("library", "bytes"), 3: Field("version", "int"),
             4: Field("versions", "bytes")}
ONNX_GRAPH = {1: Field("node", "bytes"), 2: Field("name", "string"), 5: Field("initializer", "bytes"),
              11: Field("input", "bytes"), 12: Field("output", "bytes")}
ONNX = {1: Field("ir_version", "int"), 2: Field("producer_name", "string"), 3: Field("producer_version", "string"),
        5: Field("model_version", "int"), 7: Field("graph", "message", ONNX_GRAPH), 8: Field("opset_import", "bytes"),
        14: Field("metadata_props", "bytes")}
V1_LAYER = {4: Field("name", "string"), 6: Field("blobs", "bytes")}
V2_LAYER = {1: Field("name", "string"), 7: Field("blobs", "bytes")}
V1_NET = {1: Field("name", "string"), 2: Field("layers", "message", V1_LAYER)}
V2_NET = {1: Field("name", "string"), 100: Field("layer", "message", V2_LAYER)}
BLOB = {1: Field("num", "int"), 2: Field("channels", "int"), 3: Field("height", "int"), 4: Field("width", "int"),
        5: Field("data", "floats"), 7: Field("shape", "message", {1: Field("dim", "ints")}),
        8: Field("double", "doubles")}

DIMS = {"num": 1, "channels": 3, "height": 2, "width": 2}
CONV1 = {"name": "conv1", "blobs": bytes(200)}
KINDS = {
    "graphdef": [encode(GRAPH_DEF, {"node": [{"name": "x", "op": "Placeholder"}] * 3, "versions": b"\x08\x15"}),
                 encode(GRAPH_DEF, {"node": [{"name": "x", "op": "Const"}], "library": b"\x0a\x00", "version": 9})],
    "onnx": [encode(ONNX, {"ir_version": 3, "producer_name": "onnx-caffe2", "graph": {"node": [b"\x22\x00"]},
                           "opset_import": b"\x10\x09"}),
             encode(ONNX, {"ir_version": 10, "producer_version": "2", "model_version": 1, "metadata_props": b"\x0a\x00",
                           "graph": {"node": [b"\x0a\x01x"] * 4, "name": "main", "initializer": [bytes(200)] * 3}})],
    "caffe": [encode(V1_NET, {"name": "GoogleNet", "layers": [{"name": "data"}, CONV1]}),
              encode(V1_NET, {"layers": [CONV1]}),
              encode({2: Field("layers", "message", {1: Field("layer", "bytes")})}, {"layers": {"layer": b"\x0a\x00"}}),
              encode(V2_NET, {"name": "GoogleNet", "layer": [{"name": "data"}, CONV1]}),
              encode(V2_NET, {"layer": [CONV1]})],
    "caffe mean": [encode(BLOB, {**DIMS, "data": np.zeros(12)}),
                   encode(BLOB, {"shape": {"dim": [3, 2, 2]}, "double": np.zeros(12)})],
}


@pytest.mark.parametrize(("kind", "content"), [(kind, each) for kind, contents in KINDS.items() for each in contents])
def test_kinds_are_told_by_content(tmp_path, kind, content):
    assert kind_of(content) == kind
    assert kind_of(memoryview(content)) == kind
    path = tmp_path / "model.txt"
    path.write_bytes(content)
    assert kind_of(path) == kind_of(str(path)) == kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_file_is_still_told(kind):
    """So that its reader can say that it is cut."""
    content = KINDS[kind][-1]
    assert kind_of(content[:-3]) == kind
    assert not spans(content[:-3])[1]


@pytest.mark.parametrize("content", [
    b"", b"\0" * 100, b"PK\x03\x04" + bytes(100), b"\x89HDF\r\n\x1a\n" + bytes(100), b"\x80\x02}q\x00.",
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", b"MATLAB 5.0 MAT-file", b"name: \"GoogleNet\"\nlayer {\n",
    b"<html><body>Not found</body></html>", b"* a list\n* of things\n", b"\n# A title\n\nSome text\n", b"\xff" * 50,
    encode({1: Field("a", "string"), 2: Field("b", "string")}, {"a": "key", "b": "value"}),
    encode(V2_NET, {"name": "no layers"}), encode(V2_NET, {"layer": {"blobs": b"no name"}}),
    encode({100: Field("layer", "message", {1: Field("name", "string"), 2: Field("type", "int")})},
           {"layer": {"name": "conv1", "type": 1}}),
    encode({**V2_NET, 5: Field("force_backward", "string")}, {"layer": CONV1, "force_backward": "yes"}),
    encode(BLOB, DIMS), encode(BLOB, {"num": 1, "data": [1.0]}), encode(BLOB, {"data": [1.0]}),
    encode({**BLOB, 9: Field("double_diff", "int")}, {**DIMS, "data": [1.0], "double_diff": 1}),
    encode(ONNX, {"ir_version": 3}), encode({1: ONNX[1], 7: Field("graph", "string")}, {"ir_version": 3, "graph": "x"}),
    encode({**ONNX, 8: Field("opset_import", "int")},
           {"ir_version": 3, "opset_import": 9, "graph": {"node": [b"\x22\x00"]}}),
])
def test_other_content_is_of_no_kind(content):
    assert kind_of(content) is None


def test_paths_that_cannot_be_read_are_of_no_kind(tmp_path):
    (tmp_path / "empty").touch()
    for path in (tmp_path, tmp_path / "missing", tmp_path / "empty"):
        assert kind_of(path) is None


def test_fixtures_of_every_framework_are_told():
    kinds = {"caffe_v1.caffemodel": "caffe", "caffe_v2.caffemodel": "caffe", "caffe_mean.binaryproto": "caffe mean",
             "caffe_expected.npz": None}
    assert {name: kind_of(FIXTURES / name) for name in kinds} == kinds
