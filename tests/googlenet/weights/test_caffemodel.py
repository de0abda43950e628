"""Caffe's models and mean images: files written by Google's protobuf, our own writer, and all that is wrong."""

import math
from pathlib import Path

import numpy as np
import pytest

from googlenet.weights.formats import caffemodel, protobuf
from googlenet.weights.formats.protobuf import Field, encode
from minigrad.errors import InputError
from tests.googlenet.weights.arrays import require_same

FIXTURES = Path(__file__).parents[2] / "fixtures/weights"
REFERENCE = Path(__file__).parents[4] / "shared/reference/weights/bvlc_googlenet.npz"
V1, V2, MEAN = (FIXTURES / name for name in ("caffe_v1.caffemodel", "caffe_v2.caffemodel", "caffe_mean.binaryproto"))


def expected() -> dict[str, np.ndarray]:
    with np.load(FIXTURES / "caffe_expected.npz") as archive:
        return dict(archive)


def without(*starts: str) -> dict[str, np.ndarray]:
    return {name: array for name, array in expected().items() if not name.startswith(starts)}


# Files of Google's protobuf.

@pytest.mark.parametrize(("path", "form", "absent"), [
    (V2, "Caffe model (V2 layers)", ("mean",)), (V1, "Caffe model (V1 layers)", ("mean", "loss1", "loss2"))],
    ids=["V2", "V1"])
def test_files_of_protobuf_are_read_exactly(path, form, absent):
    contents = caffemodel.read(path)
    assert contents.format == form
    assert contents.metadata == {"name": "GoogleNet"}
    assert contents.notes == ()
    assert contents.graph is None
    require_same(contents.arrays, without(*absent))


def test_the_fixtures_have_what_they_are_for():
    """Unpacked values and a gradient: a fixture made again must not lose them."""
    assert len(without("mean")) == 2 * (3 + 9 * 6 + 2 * 3 + 1)
    value = expected()["inception_3a/1x1/bias"][:2]
    unpacked = b"".join(b"\x2d" + each.tobytes() for each in value)
    assert unpacked in V1.read_bytes()
    assert unpacked not in V2.read_bytes()
    assert np.float32(0.5).tobytes() * 100 in V2.read_bytes()
    assert all(array.dtype == np.float32 for array in expected().values())


def test_mean_images():
    contents = caffemodel.read(MEAN)
    assert contents.format == "Caffe mean image"
    mean = expected()["mean"]
    require_same(contents.arrays, {"mean": mean})
    found = caffemodel.read_mean(MEAN)
    np.testing.assert_allclose(found, mean.astype(np.float64).mean((1, 2)), rtol=1e-12)
    assert found.shape == (3,)
    assert found[0] < found[1] < found[2], "blue first: 104, 117, 123"


def test_files_are_recognised():
    for path, network, mean in ((V1, True, False), (V2, True, False), (MEAN, True, True),
                                (FIXTURES / "caffe_expected.npz", False, False), (FIXTURES / "missing", False, False)):
        start = path.read_bytes()[:4096] if path.exists() else b""
        assert caffemodel.recognise(start, path) == network
        assert caffemodel.recognise_mean(start, path) == mean


# Files made here: the messages with every field that a file may have.

BLOB = {**caffemodel.BLOB, 6: Field("diff", "floats"), 9: Field("double_diff", "doubles")}
UNPACKED = {**BLOB, 5: Field("data", "float"), 8: Field("double_data", "double")}
V0_LAYER = {1: Field("name", "string"), 2: Field("type", "string"), 50: Field("blobs", "message", BLOB)}


def net(**values) -> bytes:
    """A network of `layer` (version 2) and `layers` (version 1), given as values to encode."""
    layer = {1: Field("name", "string"), 2: Field("type", "string"), 7: Field("blobs", "message", BLOB)}
    v1 = {1: Field("layer", "message", V0_LAYER), 4: Field("name", "string"), 5: Field("type", "int"),
          6: Field("blobs", "message", BLOB)}
    schema = {1: Field("name", "string"), 2: Field("layers", "message", v1), 100: Field("layer", "message", layer)}
    return encode(schema, values)


def blob(*shape: int, **more) -> dict:
    return {"data": np.arange(math.prod(shape)), "shape": {"dim": shape}, **more}


def legacy(num: int, channels: int, height: int, width: int) -> dict:
    return {"data": np.arange(num * channels * height * width), "num": num, "channels": channels, "height": height,
            "width": width}


def read(tmp_path, content: bytes):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(content)
    return caffemodel.read(path)


def refused(tmp_path, content: bytes, told: str) -> None:
    with pytest.raises(InputError, match=told) as error:
        read(tmp_path, content)
    assert "net.caffemodel" in str(error.value)


@pytest.mark.parametrize(("kind", "shapes", "found"), [
    (4, [(8, 3, 2, 2), (1, 1, 1, 8)], [(8, 3, 2, 2), (8,)]),
    (4, [(1, 1, 5, 5), (1, 1, 1, 1)], [(1, 1, 5, 5), (1,)]),
    (14, [(1, 1, 7, 9), (1, 1, 1, 7)], [(7, 9), (7,)]),
    (14, [(1, 1, 1, 9), (1, 1, 1, 1)], [(1, 9), (1,)]),
    (14, [(7, 9, 1, 1), (1, 7, 1, 1)], [(7, 9, 1, 1), (1, 7, 1, 1)]),  # of no Caffe: left for its user to see
    (33, [(1, 1, 7, 9), (1, 1, 1, 7), (1, 1, 1, 2)], [(1, 1, 7, 9), (1, 1, 1, 7), (1, 1, 1, 2)]),
], ids=["convolution", "one channel", "inner product", "one output", "other places", "other type"])
def test_four_numbers_become_the_shape_that_the_layers_type_has(tmp_path, kind, shapes, found):
    v1 = {"name": "x", "type": kind, "blobs": [legacy(*shape) for shape in shapes]}
    arrays = read(tmp_path, net(layers=v1)).arrays
    assert [array.shape for array in arrays.values()] == found
    assert list(arrays) == ["x/weight", "x/bias", "x/2"][:len(shapes)]
    text = {4: "Convolution", 14: "InnerProduct", 33: "Eltwise"}[kind]  # as Caffe writes them when it upgrades
    require_same(read(tmp_path, net(layer={**v1, "type": text})).arrays, arrays)


def test_four_numbers_win_over_a_shape(tmp_path):
    both = {**legacy(2, 3, 1, 1), "shape": {"dim": [6]}}
    assert read(tmp_path, net(layer={"name": "x", "blobs": both})).arrays["x/weight"].shape == (2, 3, 1, 1)
    some = {"data": np.zeros(6), "num": 6, "shape": {"dim": [6]}}
    refused(tmp_path, net(layer={"name": "x", "blobs": some}), r"x/weight has 6 values for the shape \(6, 0, 0, 0\)")


def test_double_values_win_over_single_ones(tmp_path):
    double = np.array([1 / 3, 2 / 3])
    arrays = read(tmp_path, net(layer={"name": "x", "blobs": blob(2, double_data=double)})).arrays
    require_same(arrays, {"x/weight": double})


def test_values_one_by_one_and_gradients(tmp_path):
    values = np.random.default_rng(0).standard_normal(1000)
    single = encode(UNPACKED, {"data": list(values), "shape": {"dim": [1000]}, "diff": np.ones(1000)})
    double = encode(UNPACKED, {"double_data": list(values), "shape": {"dim": [10, 100]}, "double_diff": np.ones(3)})
    layer = {1: Field("name", "string"), 7: Field("blobs", "bytes")}
    content = encode({100: Field("layer", "message", layer)}, {"layer": {"name": "x", "blobs": [single, double]}})
    require_same(read(tmp_path, content).arrays, {"x/weight": values.astype(np.float32),
                                                  "x/bias": values.reshape(10, 100)})


def test_values_in_several_packed_runs(tmp_path):
    run = encode(BLOB, {"data": np.arange(3)})
    content = encode({100: Field("layer", "message", {1: Field("name", "string"), 7: Field("blobs", "bytes")})},
                     {"layer": {"name": "x", "blobs": run + encode(BLOB, {"shape": {"dim": [2, 3]}}) + run}})
    np.testing.assert_array_equal(read(tmp_path, content).arrays["x/weight"], [[0, 1, 2], [0, 1, 2]])


def test_a_blob_of_one_value_needs_no_shape(tmp_path):
    arrays = read(tmp_path, net(layer={"name": "scale", "blobs": {"data": [2.5]}})).arrays
    assert arrays["scale/weight"] == np.full((), 2.5, np.float32)
    assert arrays["scale/weight"].shape == ()


def test_a_network_without_a_name(tmp_path):
    assert read(tmp_path, net(layer={"name": "x", "blobs": blob(2)})).metadata == {}


ONE = {"name": "x", "blobs": blob(2)}


@pytest.mark.parametrize(("content", "told"), [
    (b"", "0 layers and no weights"),
    (net(name="GoogleNet", layer=[{"name": "data"}, {"name": "relu"}]), "2 layers and no weights"),
    (net(layer=ONE, layers=ONE), "layers of two versions"),
    (net(layer={"name": "data"}, layers=ONE), "layers of two versions"),
    (net(layers={"layer": {"name": "conv1", "type": "conv", "blobs": legacy(1, 1, 1, 2)}}), "version 0"),
    (net(layers=[ONE, {"layer": {"name": "conv1"}}]), "version 0"),
    (net(layer=[ONE, ONE]), "two layers with weights named 'x'"),
    (net(layer={"blobs": blob(2)}), "a layer with weights named ''"),
    (net(layer={"name": "x", "blobs": {"shape": {"dim": [2]}}}), r"x/weight has 0 values for the shape \(2,\)"),
    (net(layer={"name": "x", "blobs": [blob(2), {"shape": {"dim": [2]}, "diff": [1, 2]}]}), "x/bias has 0 values"),
    (net(layer={"name": "x", "blobs": [blob(2), {}]}), r"x/bias has 0 values for the shape \(\)"),
    (net(layer={"name": "x", "blobs": blob(0, 3)}), r"x/weight has 0 values for the shape \(0, 3\)"),
    (net(layer={"name": "x", "blobs": {"data": np.zeros(6), "shape": {"dim": [2, 4]}}}), r"6 values for .* \(2, 4\)"),
    (net(layer={"name": "x", "blobs": {"data": np.zeros(6), "shape": {"dim": [2**40]}}}), r"\(1099511627776,\)"),
    (net(layer={"name": "x", "blobs": {"data": np.zeros(6), "shape": {"dim": [2**62] * 32}}}), "6 values"),
    (net(layer={"name": "x", "blobs": {"data": np.zeros(6), "shape": {"dim": [-2, -3]}}}), r"\(-2, -3\)"),
    (net(layer={"name": "x", "blobs": {"data": np.zeros(1), "shape": {"dim": [1] * 33}}}), "of 33 axes"),
    (net(layers={"name": "x", "type": 14, "blobs": {"data": np.zeros(4), "num": -1, "channels": -1, "height": 2,
                                                    "width": 2}}), r"\(-1, -1, 2, 2\)"),
    (V2.read_bytes()[:-1], "damaged at byte .* where .* are left"),
    (V2.read_bytes()[:1000], "damaged at byte"),
    (V1.read_bytes()[:-1], "damaged at byte"),
    (bytes(1000), "damaged at byte 0: there is no field 0"),
    (b"\x89HDF\r\n\x1a\n" + bytes(100), "damaged"),
    (b"\xa2\x06\x80\x80\x80\x80\x80\x20", "1099511627776 bytes long"),
    (V2.read_bytes()[::-1], "damaged"),
])
def test_what_is_wrong_is_told(tmp_path, content, told):
    refused(tmp_path, content, told)


def test_wrong_endian_lengths_are_refused(tmp_path):
    """A shape with its bytes in the other order asks for 2^56 values, which are not there."""
    swapped = int.from_bytes((1).to_bytes(8, "big"), "little")
    refused(tmp_path, net(layer={"name": "x", "blobs": {"data": [1.0], "shape": {"dim": [swapped]}}}), "1 values for")


def test_a_missing_file_is_named(tmp_path):
    for call in (caffemodel.read, caffemodel.read_mean):
        with pytest.raises(InputError, match=r"nowhere.*No such file"):
            call(tmp_path / "nowhere")


@pytest.mark.parametrize(("image", "told"), [
    (legacy(2, 3, 2, 2), r"is \(2, 3, 2, 2\), expected \(1, C, H, W\)"),
    (blob(3, 4), r"is \(3, 4\), expected"),
    ({"data": np.zeros(12), "num": 1, "channels": 3, "height": 5, "width": 5}, r"12 values for the shape \(3, 5, 5\)"),
])
def test_mean_images_that_are_none(tmp_path, image, told):
    refused(tmp_path, encode(BLOB, image), told)


@pytest.mark.parametrize(("image", "mean"), [
    (legacy(1, 3, 2, 2), [1.5, 5.5, 9.5]), (blob(3, 2, 2), [1.5, 5.5, 9.5]), (blob(1, 3, 1, 1), [0, 1, 2]),
    ({"double_data": np.arange(3.0), "shape": {"dim": [3, 1, 1]}}, [0, 1, 2])])
def test_means_of_channels(tmp_path, image, mean):
    path = tmp_path / "mean.binaryproto"
    path.write_bytes(encode(BLOB, image))
    assert caffemodel.read_mean(path).tolist() == mean
    assert caffemodel.read(path).arrays["mean"].ndim == 3


def test_a_mean_of_other_channels_is_refused(tmp_path):
    path = tmp_path / "mean.binaryproto"
    path.write_bytes(encode(BLOB, blob(1, 4, 2, 2)))
    with pytest.raises(InputError, match=r"mean\.binaryproto.* 4 channels"):
        caffemodel.read_mean(path)


def readable(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file, none where it is refused."""
    try:
        return caffemodel.read(path).arrays
    except InputError:
        return {}


@pytest.mark.parametrize("path", [V1, V2, MEAN], ids=["V1", "V2", "mean"])
def test_flipped_bits_give_an_error_or_arrays_of_the_stated_shapes(tmp_path, path):
    rng = np.random.default_rng(7)
    content = path.read_bytes()
    damaged = tmp_path / "damaged"
    for _ in range(100):
        mutated = bytearray(content)
        for place in rng.integers(0, len(content), 20):
            mutated[place] ^= 1 << int(rng.integers(8))
        damaged.write_bytes(mutated)
        arrays = readable(damaged)
        assert all(array.size and array.dtype.kind == "f" for array in arrays.values())


# The writer.

def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "net.caffemodel"
    arrays = {**without("mean"), "scale/weight": np.full((), 3, np.float32), "norm/weight": np.ones(4, np.float32),
              "norm/bias": np.array([1 / 3, -0.0, np.nan, np.inf]), "norm/2": np.ones((1, 2, 3), np.float32)}
    caffemodel.write(path, arrays, name="mine")
    contents = caffemodel.read(path)
    require_same(contents.arrays, arrays)
    assert contents.format == "Caffe model (V2 layers)"
    assert contents.metadata == {"name": "mine"}
    assert caffemodel.recognise(path.read_bytes()[:4096], path)
    assert [each.name for each in tmp_path.iterdir()] == ["net.caffemodel"]


def test_written_layers_have_the_types_of_their_weights(tmp_path):
    caffemodel.write(tmp_path / "net", {"fc/bias": np.zeros(2, np.float32), "fc/weight": np.zeros((2, 3), np.float32),
                                        "conv/weight": np.zeros((2, 3, 1, 1), np.float32),
                                        "scale/weight": np.zeros(3, np.float32)})
    found = protobuf.parse((tmp_path / "net").read_bytes(), caffemodel.NET, "net")
    assert [(layer["name"], layer["type"]) for layer in found["layer"]] == [
        (["fc"], ["InnerProduct"]), (["conv"], ["Convolution"]), (["scale"], [])]
    assert [blob["shape"][0]["dim"] for blob in found["layer"][0]["blobs"]] == [[2, 3], [2]]


def test_precisions_and_orders_of_bytes(tmp_path):
    values = np.array([1 / 3, 65504, 2**-24, -0.0, np.inf])
    caffemodel.write(tmp_path / "net", {"half/weight": values.astype(np.float16), "double/weight": values,
                                        "big/weight": values.astype(">f4"), "strided/weight": np.arange(6.0)[::2]})
    require_same(caffemodel.read(tmp_path / "net").arrays, {
        "half/weight": values.astype(np.float16).astype(np.float32), "double/weight": values,
        "big/weight": values.astype(np.float32), "strided/weight": np.array([0.0, 2.0, 4.0])})


@pytest.mark.parametrize(("arrays", "told"), [
    ({"weight": np.zeros(2)}, "weight is no name of a Caffe blob"),
    ({"/weight": np.zeros(2)}, "/weight is no name"),
    ({"conv1/gamma": np.zeros(2)}, "conv1/gamma is no name"),
    ({"conv1/01": np.zeros(2)}, "conv1/01 is no name"),
    ({"conv1/1": np.zeros(2)}, "conv1/1 is no name"),
    ({"conv1/bias": np.zeros(2)}, r"conv1 has the blobs \[1\]"),
    ({"conv1/weight": np.zeros(2), "conv1/2": np.zeros(2)}, r"conv1 has the blobs \[0, 2\]"),
    ({"conv1/weight": np.zeros(2, np.int8)}, r"conv1/weight \(int8, \(2,\)\)"),
    ({"conv1/weight": np.zeros((0, 3))}, r"conv1/weight \(float64, \(0, 3\)\)"),
])
def test_what_caffe_cannot_hold_is_refused_and_the_old_file_stays(tmp_path, arrays, told):
    path = tmp_path / "net"
    path.write_bytes(b"old")
    with pytest.raises(InputError, match=told):
        caffemodel.write(path, arrays)
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["net"]


@pytest.mark.skipif(not REFERENCE.exists(), reason="the published weights are not here")
def test_the_published_weights_go_there_and_back(tmp_path):
    with np.load(REFERENCE) as archive:
        arrays = dict(archive)
    caffemodel.write(tmp_path / "bvlc.caffemodel", arrays)
    require_same(caffemodel.read(tmp_path / "bvlc.caffemodel").arrays, arrays)


def test_protobuf_reads_what_is_written(tmp_path):
    pytest.importorskip("google.protobuf", reason="needs Google's protobuf")
    from tests.fixtures.make_caffe import compiled

    arrays = without("mean")
    caffemodel.write(tmp_path / "net", arrays)
    found = compiled(packs=True)["NetParameter"].FromString((tmp_path / "net").read_bytes())
    require_same({f"{layer.name}/{name}": np.array(each.data, np.float32).reshape(tuple(each.shape.dim))
                  for layer in found.layer for name, each in zip(("weight", "bias"), layer.blobs, strict=True)}, arrays)
