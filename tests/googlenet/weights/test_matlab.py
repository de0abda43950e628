"""MATLAB files: MatConvNet's networks as scipy wrote them, versions 5 and 7.3, and elements that lie."""

import re
import struct
import time
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from googlenet.weights.formats import matlab
from minigrad.errors import InputError
from tests.googlenet.weights.arrays import require_same

FIXTURES = Path(__file__).parents[2] / "fixtures" / "weights"
GRID = 4


@pytest.fixture(scope="module")
def caffe() -> dict[str, np.ndarray]:
    """Caffe's arrays as MATLAB's: linear layers are convolutions as large as their grid."""
    with np.load(FIXTURES / "caffe_npz.npz") as file:
        arrays = dict(file)
    for name, array in arrays.items():
        if array.ndim == 2:
            side = GRID if "/fc/" in name else 1
            arrays[name] = array.reshape(len(array), -1, side, side)
    return {name: array.transpose(2, 3, 1, 0) if array.ndim == 4 else array for name, array in arrays.items()}


def test_matconvnet_under_princetons_names(caffe):
    contents = matlab.read(FIXTURES / "matconvnet.mat")
    found = contents.arrays
    assert contents.format == "MATLAB 5"
    assert len(found) == len(caffe)
    for theirs, name in {"conv1": "conv1/7x7_s2", "reduction2": "conv2/3x3_reduce", "icp1_out0": "inception_3a/1x1",
                         "icp4_reduction2": "inception_4b/5x5_reduce", "icp9_out3": "inception_5b/pool_proj",
                         "cls1_reduction": "loss1/conv", "cls2_fc1": "loss2/fc", "cls3_fc": "loss3/classifier"}.items():
        np.testing.assert_array_equal(found[f"{theirs}_filter"], caffe[f"{name}/weight"], strict=True)
        np.testing.assert_array_equal(found[f"{theirs}_bias"], caffe[f"{name}/bias"], strict=True)
    assert contents.metadata == {"average_image": "122.700 116.700 104.000"}
    assert contents.notes == ("meta: no weights, left out",)


@pytest.mark.parametrize(("file", "version", "layers"), [("matconvnet_caffe.mat", "MATLAB 5", 58),
                                                        ("matconvnet_73.mat", "MATLAB 7.3", 9)])
def test_matconvnet_under_caffes_names(caffe, file, version, layers):
    contents = matlab.read(FIXTURES / file)
    names = [name for name in caffe if not name.startswith(("loss1", "loss2"))][:2 * layers]
    require_same(contents.arrays, {name.replace("/weight", "_filter").replace("/bias", "_bias"): caffe[name]
                                   for name in names})
    assert contents.format == version


def cell(*values: object) -> np.ndarray:
    array = np.empty((1, len(values)), object)
    array[0] = list(values)
    return array


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
def test_simplenn_by_layers(tmp_path, inside, compressed):
    W, b = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4), np.arange(4, dtype=np.float32)
    weights = np.empty((1, 2), object)
    weights[0, 0], weights[0, 1] = W, b
    net = {"layers": cell({"name": "conv1", "type": "conv", "weights": weights}, {"name": "relu1", "type": "relu"},
                          {"name": "fc8", "type": "conv", "filters": W, "biases": b}, {"type": "softmax"}),
           "normalization": {"averageImage": np.stack([np.full((2, 2), value) for value in (1.0, 2.0, 3.0)], axis=-1)}}
    scipy.io.savemat(tmp_path / "a.mat", {"net": net} if inside else net, oned_as="row", do_compression=compressed)
    contents = matlab.read(tmp_path / "a.mat")
    require_same(contents.arrays, {"conv1_filter": W, "conv1_bias": b, "fc8_filter": W, "fc8_bias": b})
    assert contents.metadata == {"average_image": "1.000 2.000 3.000"}


def test_variables_that_are_arrays(tmp_path):
    arrays = {f"type {np.dtype(kind).name}": np.arange(6).reshape(2, 3).astype(kind)
              for kind in ("f4", "f8", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")}
    arrays |= {"conv1/7x7_s2": np.arange(8.0).reshape(2, 2, 2), "integers as doubles": np.array([[1.0, 255.0], [3, 4]])}
    left = {"text": "héllo", "empty": np.zeros((0, 3)), "cell": cell("a", "b"), "record": {"a": 1.0}}
    vectors = {"row": np.arange(3.0)[None], "column": np.arange(3.0)[:, None], "one": np.array([[2.0]])}
    scipy.io.savemat(tmp_path / "a.mat", {**arrays, **left, **vectors}, do_compression=True)
    contents = matlab.read(tmp_path / "a.mat")
    require_same(contents.arrays, {**arrays, "row": np.arange(3.0), "column": np.arange(3.0), "one": np.array([2.0])})
    assert contents.notes == ("text, cell, record: no weights, left out",)


def element(kind: int, data: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(of: int, shape: tuple[int, ...], *parts: bytes, name: bytes = b"x", flags: int = 0,
           order: str = "<") -> bytes:
    return element(14, b"".join([element(6, struct.pack(f"{order}II", of | flags, 0), order),
                                 element(5, struct.pack(f"{order}{len(shape)}i", *shape), order),
                                 element(1, name, order), *parts]), order)


def file(*variables: bytes, order: str = "<") -> bytes:
    return b"MATLAB 5.0 MAT-file".ljust(124) + {"<": b"\x00\x01IM", ">": b"\x01\x00MI"}[order] + b"".join(variables)


FLOATS = element(7, np.arange(6, dtype="<f4").tobytes())


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("stored", ["u1", "i2", "f4"])
def test_both_byte_orders_and_numbers_stored_as_smaller_ones(tmp_path, order, stored):
    kinds = {"u1": 2, "i2": 3, "f4": 7}
    data = element(kinds[stored], np.arange(6, dtype=order + stored).tobytes(), order)
    letters = element(4, np.array([ord(letter) for letter in "été"], f"{order}u2").tobytes(), order)
    (tmp_path / "a.mat").write_bytes(file(matrix(6, (2, 3), data, order=order),
                                          matrix(4, (1, 3), letters, name=b"t", order=order), order=order))
    start = (tmp_path / "a.mat").read_bytes()[:4096]
    assert matlab.recognise(start, tmp_path / "a.mat")
    require_same(matlab.read(tmp_path / "a.mat").arrays, {"x": np.arange(6.0).reshape(2, 3, order="F")})


def nested(depth: int) -> bytes:
    inner = matrix(7, (2, 3), FLOATS)
    for _ in range(depth):
        inner = matrix(1, (1, 1), inner, name=b"")
    return inner


def fields(names: bytes, length: int, *values: bytes) -> tuple[bytes, ...]:
    return element(5, struct.pack("<i", length)), element(1, names), *values


@pytest.mark.parametrize(("content", "told"), [
    (b"", "does not begin as a MATLAB file"),
    (b"MATLAB 5.0".ljust(124) + b"\0\2IM", "does not begin"),
    (file(), "no arrays of numbers"),
    (file(b"\0"), "ends within an element"),
    (file(matrix(7, (2, 3), FLOATS)[:-8]), "bytes, and .* are left"),
    (file(element(9, bytes(8))), "a variable is of type 9"),
    (file(struct.pack("<II", 14, 2**31)), "an element has 2,147,483,648 bytes"),
    (file(struct.pack("<HHI", 1, 5, 0)), "a short element has 5 bytes"),
    (file(matrix(7, (2, 4), FLOATS)), re.escape("'x' is (2, 4), but 24 bytes")),
    (file(matrix(7, (2**30, 2**30, 2**30), FLOATS)), "24 bytes"),
    (file(matrix(7, (-2, 3), FLOATS)), "no proper shape"),
    (file(matrix(7, (6,), FLOATS)), "no proper shape"),
    (file(matrix(7, (2**31 - 1, 2**31 - 1, 0), element(7, b""))), "0 bytes"),
    (file(matrix(7, (2, 3), FLOATS, flags=0x800)), "complex"),
    (file(matrix(7, (2, 3), element(14, FLOATS))), "stored as type 14"),
    (file(matrix(4, (1, 2), element(9, bytes(8)))), "characters are of type 9"),
    (file(matrix(7, (2, 3), FLOATS), matrix(7, (2, 3), FLOATS)), "two variables are named 'x'"),
    (file(matrix(1, (2**31 - 1, 2), b"")), "values in 0 bytes"),
    (file(matrix(1, (1, 1), element(9, bytes(8)))), "holds type 9"),
    (file(matrix(2, (1, 1), *fields(b"ab", 0))), "fields have no names"),
    (file(matrix(2, (1, 1), *fields(b"abc", 2))), "fields have no names"),
    (file(matrix(2, (1, 1), *fields(b"aa", 1, matrix(7, (2, 3), FLOATS)))), "one name"),
    (file(nested(20)), "more than 16 structs and cells"),
    (file(element(15, b"nonsense")), "does not unpack"),
    (file(element(15, zlib.compress(matrix(7, (2, 3), FLOATS))[:-2])), "has no end"),
    (file(element(15, zlib.compress(b"\0" * 5))), "ends within an element"),
    (file(matrix(1, (1, 300_000), struct.pack("<II", 14, 0) * 300_000)), "more than 200,000 elements"),
    (b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(2000), "can't be read"),
    (file(matrix(5, (2, 2), FLOATS)), "variables x: give a network"),
])
def test_elements_that_lie_are_refused(tmp_path, content, told):
    path = tmp_path / "lie.mat"
    path.write_bytes(content)
    with pytest.raises(InputError, match=told) as error:
        matlab.read(path)
    assert str(error.value).startswith(str(path))


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(matlab, "BEYOND", 2**20)
    values = element(7, bytes(2**21))
    (tmp_path / "a.mat").write_bytes(file(element(15, zlib.compress(matrix(7, (2**19, 1), values)))))
    with pytest.raises(InputError, match="would unpack to more than its own size"):
        matlab.read(tmp_path / "a.mat")
    (tmp_path / "a.mat").write_bytes(file(matrix(6, (2**20, 1), element(2, bytes(2**20)))))
    with pytest.raises(InputError, match="more numbers than its size"):
        matlab.read(tmp_path / "a.mat")


def test_simplenn_in_hdf5(tmp_path):
    """Cells and structs of one element: in place where the struct is, references where a cell is."""
    W, b = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4), np.arange(4, dtype=np.float32)
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as hdf5:
        hdf5["#refs#/W"], hdf5["#refs#/b"] = W.T, b[:, None]
        hdf5["#refs#/layer/name"] = np.array([[ord(letter)] for letter in "fc8"], np.uint16)
        hdf5["#refs#/layer/name"].attrs["MATLAB_class"] = np.bytes_("char")
        for name, items in {"#refs#/layer/weights": ("W", "b"), "layers": ("layer",)}.items():
            hdf5.create_dataset(name, data=[[hdf5[f"#refs#/{item}"].ref] for item in items], dtype=h5py.ref_dtype)
            hdf5[name].attrs["MATLAB_class"] = np.bytes_("cell")
    with open(tmp_path / "a.mat", "r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")
    require_same(matlab.read(tmp_path / "a.mat").arrays, {"fc8_filter": W, "fc8_bias": b})


def test_references_in_a_circle_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as hdf5:
        cells = hdf5.create_dataset("#refs#/a", (1, 1), h5py.ref_dtype)
        cells[0, 0] = cells.ref
        hdf5.create_dataset("layers", (1, 1), h5py.ref_dtype)[0, 0] = cells.ref
    with open(tmp_path / "a.mat", "r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")
    with pytest.raises(InputError, match="more than 16 structs and cells"):
        matlab.read(tmp_path / "a.mat")


def test_references_upon_references_take_little_time(tmp_path):
    """Five cells, each of them 20 references to the next: 20^5 values, were each reference followed."""
    begin = time.process_time()
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as hdf5:
        below = hdf5.create_dataset("#refs#/x", data=np.eye(2))
        for i in range(5):
            below = hdf5.create_dataset(f"#refs#/{i}", data=[[below.ref] * 20], dtype=h5py.ref_dtype)
        hdf5.create_dataset("layers", data=[[below.ref]], dtype=h5py.ref_dtype)
    with open(tmp_path / "a.mat", "r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")
    with pytest.raises(InputError, match="no arrays of numbers"):
        matlab.read(tmp_path / "a.mat")
    assert time.process_time() - begin < 2


def test_a_param_without_a_name_of_its_own_is_refused(tmp_path):
    params = np.zeros((1, 2), [("name", object), ("value", object)])
    params[0, 0], params[0, 1] = ("a", np.eye(2)), ("a", np.eye(2))
    scipy.io.savemat(tmp_path / "a.mat", {"params": params})
    with pytest.raises(InputError, match="two arrays named 'a'"):
        matlab.read(tmp_path / "a.mat")
