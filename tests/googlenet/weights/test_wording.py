"""What a file says is shown in one short, printable line, whichever reader shows it."""

import numpy as np
import pytest

from googlenet.weights.formats import caffemodel, graphdef, keras_hdf5, matlab, npz, onnx, safetensors
from googlenet.weights.formats.caffemodel import NET
from googlenet.weights.formats.graphdef import GRAPH
from googlenet.weights.formats.onnx.messages import MODEL
from googlenet.weights.formats.protobuf import encode
from googlenet.weights.formats.wording import quoted, shown, shown_shape
from minigrad.errors import InputError

ODD = "two\nlines \x1b[2J" + "x" * 10_000
SHOWN = r"two\nlines \x1b[2Jxxx"


def test_texts_are_made_fit():
    assert shown("conv1/weight") == "conv1/weight"
    assert shown(ODD).startswith(SHOWN)
    assert len(shown(ODD)) == len(shown("\n" * 10_000)) == 100
    assert shown("ü") == r"\xfc"
    assert shown("it's") == "it's"
    assert shown(b"bytes") == "bytes"
    assert shown(7) == "int"
    assert quoted("") == "''"
    assert quoted("a") == "'a'"


def test_shapes_are_made_fit():
    assert shown_shape([2, 3]) == "(2, 3)"
    assert shown_shape([1] * 33) == "of 33 axes"


def caffe() -> bytes:
    return encode(NET, {"layer": {"name": ODD, "blobs": {"data": np.zeros(2, np.float32), "shape": {"dim": [3]}}}})


def graph() -> bytes:
    node = {"name": ODD, "op": "Const"}
    return encode(GRAPH, {"node": [node, node]})


def onnx_array() -> bytes:
    return encode(MODEL, {"ir_version": 8, "graph": {"initializer": {"name": ODD, "dims": [3], "data_type": 1}}})


def onnx_node() -> bytes:
    node = {"op_type": ODD, "name": ODD, "output": "y"}
    return encode(MODEL, {"ir_version": 8, "graph": {
        "node": node, "input": {"name": "x", "type": {"tensor_type": {"shape": {"dim": [{"dim_value": n} for n in
                                                                                        (1, 3, 224, 224)]}}}}}})


def json_header() -> bytes:
    name = ODD.replace("\n", r"\n").replace("\x1b", r"\u001b").encode()
    return (len(name) + 6).to_bytes(8, "little") + b'{"' + name + b'":1}'


@pytest.mark.parametrize(("reader", "content"), [
    (caffemodel, caffe()), (graphdef, graph()), (onnx, onnx_array()), (onnx, onnx_node()),
    (safetensors, json_header())])
def test_names_are_shown_in_one_line(tmp_path, reader, content):
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        reader.read(path)
    assert SHOWN in str(error.value)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("reader", [keras_hdf5, matlab])
def test_names_in_hdf5_are_shown_in_one_line(tmp_path, reader):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x", "w", userblock_size=512) as file:
        file["two lines \x1b[2J"] = h5py.SoftLink("/nowhere")
    with open(tmp_path / "x", "r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")
    with pytest.raises(InputError, match=r"two lines .{1,5}\[2J is a link") as error:
        reader.read(tmp_path / "x")
    assert str(error.value).isprintable()


def test_names_in_archives_are_shown_in_one_line(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        archive.writestr(ODD, "x")
    with pytest.raises(InputError) as error:
        npz.read(tmp_path / "x")
    assert SHOWN in str(error.value)
    assert str(error.value).isprintable()
