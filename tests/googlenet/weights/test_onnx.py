"""ONNX graphs of many hands: the weights, the variant, the arithmetic before the first layer, and what is computed."""

from pathlib import Path

import numpy as np
import pytest

from googlenet.weights.formats import onnx
from googlenet.weights.layouts import to_ours
from googlenet.weights.placing import place
from minigrad import Tensor, no_grad

FIXTURES = Path(__file__).parents[2] / "fixtures/weights"
IMAGENET_MEAN, IMAGENET_STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
#                variant              folded   what it is compared with
GRAPHS = {
    "caffe":         ("caffe",             False, "caffe"),
    "floor":         ("onnx-inception-v1", False, "caffe"),
    "f16":           ("caffe",             False, "caffe"),
    "qlinear":       ("caffe",             False, "qlinear"),
    "qdq":           ("caffe",             False, "qdq"),
    "torchvision":   ("torchvision",       True,  "torchvision"),
    "qualcomm":      ("torchvision",       True,  "torchvision"),
    "channels_last": ("torchvision",       True,  "torchvision"),
}
HALVES = {"f16", "channels_last"}


def read(name: str):
    return onnx.read(FIXTURES / f"onnx_{name}.onnx")


def ours(contents) -> dict[str, np.ndarray]:
    return {path: to_ours(contents.arrays[each.name], each) for path, each in contents.graph.places.items()}


@pytest.mark.parametrize("name", GRAPHS)
def test_every_weight_is_found(name):
    variant, folded, expected = GRAPHS[name]
    contents = read(name)
    assert (contents.graph.variant, contents.graph.batch_norm == "folded") == (variant, folded)
    assert contents.graph.lrn == ""
    arrays = np.load(FIXTURES / f"onnx_{expected}_expected.npz")
    found = ours(contents)
    assert found.keys() == set(arrays.files)
    for path, array in found.items():
        assert array.dtype == (np.float16 if name in HALVES else np.float32), path
        if folded:  # by torch in float32, here in float64
            np.testing.assert_allclose(array, arrays[path], rtol=2e-3 if name in HALVES else 2e-6, atol=1e-5,
                                       err_msg=path)
        else:
            np.testing.assert_array_equal(array, arrays[path].astype(array.dtype), err_msg=path)


@pytest.mark.parametrize("name", GRAPHS)
def test_nothing_but_weights_remains(name):
    contents = read(name)
    assert contents.arrays.keys() == {each.name for each in contents.graph.places.values()}


def test_names_are_the_graphs_own():
    places = read("caffe").graph.places
    assert places["inception_4b/conv_5x5_reduce/weight"].name == "inception_4b/5x5_reduce_w_0"
    assert places["conv1/bias"].name == "conv1/7x7_s2_b_0"
    assert (places["classifier/weight"].name, places["classifier/weight"].layout) == ("loss3/classifier_w_0", "OI")
    assert read("qlinear").graph.places["conv2/weight"].name == "conv2/3x3_w_0_quantized"


@pytest.mark.parametrize(("name", "mean", "std"), [
    ("caffe", 0, 1), ("qlinear", 0, 1), ("qualcomm", 0.5, 0.5), ("channels_last", 127.5, 127.5),
    ("torchvision", (0.5 - IMAGENET_MEAN) / IMAGENET_STD, 0.5 / IMAGENET_STD)])
def test_arithmetic_on_the_input(name, mean, std):
    contents = read(name)
    np.testing.assert_allclose(contents.graph.mean, np.broadcast_to(mean, 3), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(contents.graph.std, np.broadcast_to(std, 3), rtol=1e-6)
    assert contents.graph.swaps_channels is False
    told = [note for note in contents.notes if "which the file does not tell" in note]
    assert len(told) == (not np.allclose(std, 1))


def test_quantisation_is_reported():
    (note,) = read("qlinear").notes
    assert note.startswith("8-bit weights dequantised: a value is off by up to half a step, 0.39% of its layer's "
                           "largest at worst (inception_3b/conv_3x3_reduce), 0.36% on average over 58 layers")
    assert "rounding of activations" in note
    assert "half a step" in read("qdq").notes[0]
    assert read("caffe").notes == ()


@pytest.mark.parametrize("name", ["qlinear", "qdq"])
def test_dequantised_weights_are_near_the_first_ones(name):
    before = np.load(FIXTURES / "onnx_caffe_expected.npz")
    for path, array in ours(read(name)).items():
        if path.endswith("weight"):
            assert np.abs(array - before[path]).max() <= 0.004 * np.abs(before[path]).max(), path


@pytest.mark.parametrize("name", GRAPHS)
def test_our_network_computes_what_onnx_runtime_did(name):
    contents = read(name)
    model = place(contents, name, "").model()
    images = np.random.default_rng(2).normal(0, 60, (1, 3, 224, 224)).astype(np.float32).transpose(0, 2, 3, 1)
    if name == "channels_last":
        images = np.clip(np.rint(images + 120), 0, 255)
    images = (images - contents.graph.mean) / contents.graph.std
    with no_grad():
        found = model(Tensor(images.astype(np.float32))).logits.data
    if name == "qlinear":  # whose logits are integers inside the graph: its probabilities are compared
        found = np.exp(found - found.max()) / np.exp(found - found.max()).sum()
    expected = np.load(FIXTURES / "onnx_logits.npz")[name]
    limit = {"f16": 1e-2, "channels_last": 1e-2, "qlinear": 0.02, "qdq": 0.1}.get(name, 1e-5)
    assert np.abs(found - expected).max() <= limit * np.abs(expected).max()


def test_what_the_file_says_of_itself():
    contents = read("torchvision")
    assert contents.format.startswith("ONNX (opset 20, pytorch 2.")
    assert contents.metadata == {}


def test_the_wheels_inception_v1():
    """A published graph, whose weights are mostly one number repeated."""
    folder = Path(pytest.importorskip("onnx").__file__).parent / "backend/test/data/light"
    path = folder / "light_inception_v1.onnx"
    if not path.exists():
        pytest.skip(f"this onnx has no {path.name}")
    contents = onnx.read(path)
    assert contents.graph.variant == "onnx-inception-v1"
    weights = place(contents, path.name, "")
    assert sum(array.size for array in weights.arrays.values()) == 6_998_552
    assert weights.source.notes == ()
