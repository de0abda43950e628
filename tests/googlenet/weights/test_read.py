"""Whole files of every format, written by the frameworks themselves (tests/fixtures): recognised, placed, computed."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.preprocess import PREPROCESSINGS
from googlenet import weights
from googlenet.weights import formats
from googlenet.weights.contents import Contents
from googlenet.weights.placing import place
from minigrad import Tensor, no_grad
from minigrad.errors import InputError
from tests.fixtures.make_tensorflow import sampled

FIXTURES = Path(__file__).parents[2] / "fixtures" / "weights"
FILES = [
    # file                   format                     variant              heads   batch norm images
    ("caffe_v1.caffemodel",  "Caffe model (V1 layers)", "caffe",             "none", "",        "caffe"),
    ("caffe_v2.caffemodel",  "Caffe model (V2 layers)", "caffe",             "both", "",        "caffe"),
    ("caffe_npz.npz",        "NumPy archive",           "caffe",             "both", "",        "caffe"),
    ("chainer.npz",          "NumPy archive",           "caffe",             "both", "",        "caffe"),
    ("torch_legacy.pth",     "torch pickle (legacy)",   "torchvision",       "both", "learned", "torchvision"),
    ("torch_zip.pth",        "torch pickle (zip)",      "torchvision",       "none", "learned", "torchvision"),
    ("torch_half.pth",       "torch pickle (legacy)",   "torchvision",       "both", "learned", "torchvision"),
    ("torch.safetensors",    "safetensors",             "torchvision",       "both", "learned", "torchvision"),
    ("slim_v1.ckpt",         "TensorFlow checkpoint",   "slim",              "none", "learned", "slim"),
    ("slim_v2.ckpt.index",   "TensorFlow checkpoint",   "slim",              "none", "learned", "slim"),
    ("slim_frozen.pb",       "TensorFlow graph",        "slim",              "none", "learned", "slim"),
    ("inception5h_graph.pb", "TensorFlow graph",        "inception5h",       "both", "",        "inception5h"),
    ("onnx_caffe.onnx",      "ONNX",                    "caffe",             "none", "",        "onnx"),
    ("onnx_f16.onnx",        "ONNX",                    "caffe",             "none", "",        "onnx"),
    ("onnx_qlinear.onnx",    "ONNX",                    "caffe",             "none", "",        "onnx"),
    ("onnx_qdq.onnx",        "ONNX",                    "caffe",             "none", "",        "onnx"),
    ("onnx_floor.onnx",      "ONNX",                    "onnx-inception-v1", "none", "",        "onnx"),
    ("onnx_torchvision.onnx", "ONNX",                   "torchvision",       "none", "folded",  "torchvision"),
    ("onnx_qualcomm.onnx",   "ONNX",                    "torchvision",       "none", "folded",  "torchvision"),
    ("onnx_channels_last.onnx", "ONNX",                 "torchvision",       "none", "folded",  "torchvision"),
    ("keras_th.h5",          "Keras",                   "caffe",             "none", "",        "caffe"),
    ("keras_tf.h5",          "Keras",                   "caffe",             "none", "",        "caffe"),
    ("matconvnet.mat",       "MATLAB",                  "caffe",             "both", "",        "matconvnet"),
    ("matconvnet_caffe.mat", "MATLAB",                  "caffe",             "none", "",        "matconvnet"),
]


@pytest.mark.parametrize(("file", "name", "variant", "heads", "batch_norm", "images"), FILES)
def test_every_format_is_known_by_its_content(tmp_path, file, name, variant, heads, batch_norm, images):
    """The file's name tells nothing: all are called `weights` here."""
    path = tmp_path / "weights"
    shutil.copy(FIXTURES / file, path)
    if file.endswith(".index"):  # two files that share a name
        path = tmp_path / "weights.index"
        shutil.copy(FIXTURES / file, path)
        shutil.copy(FIXTURES / "slim_v2.ckpt.data-00000-of-00001", tmp_path / "weights.data-00000-of-00001")
    found = weights.read(path).weights
    assert found.source.format.startswith(name)
    config = found.config
    assert (config.variant, config.heads, config.width, config.classes) == (variant, heads, 1 / 16, 7)
    assert not batch_norm or config.batch_norm == batch_norm
    expected = PREPROCESSINGS[images]
    if images == "matconvnet":  # whose files have a mean of their own
        expected = replace(expected, mean=(122.7, 116.7, 104.0))
    assert found.preprocessing == expected
    assert len(found.source.sha256) == 64
    assert set(found.source.arrays) == set(found.arrays)
    with no_grad():
        assert np.isfinite(found.model()(Tensor(np.ones((1, 224, 224, 3), np.float32))).logits.data).all()


def test_the_files_are_all_there():
    """A fixture that no line names is not tested."""
    named = {file for file, *_ in FILES} | {"caffe_mean.binaryproto", "matconvnet_73.mat", "onnx_logits.npz",
                                            "slim_v2.ckpt.data-00000-of-00001"}
    assert {path.name for path in FIXTURES.iterdir() if "expected" not in path.name} == named


@pytest.mark.parametrize("name", ["slim_v2.ckpt", "slim_v2.ckpt.index", "slim_v2.ckpt.data-00000-of-00001"])
def test_a_checkpoint_in_several_files_goes_by_each_of_their_names(name):
    expected = weights.read(FIXTURES / "slim_v1.ckpt").weights.arrays
    for path, array in weights.read(FIXTURES / name).weights.arrays.items():
        np.testing.assert_array_equal(array, expected[path])


@pytest.mark.parametrize(("files", "expected", "prefix"), [
    (("caffe_v1.caffemodel", "caffe_v2.caffemodel"), "caffe_expected.npz", ""),
    (("torch_legacy.pth", "torch_zip.pth", "torch.safetensors"), "torch_expected.npz", ""),
    (("slim_v1.ckpt", "slim_v2.ckpt"), "slim_expected.npz", "array/"),
])
def test_the_same_network_from_every_file_of_a_framework(files, expected, prefix):
    stored = np.load(FIXTURES / expected)
    named = {name.removeprefix(prefix): stored[name] for name in stored.files
             if name.startswith(prefix) and name != "mean"}
    arrays = place(Contents("expected", named), expected, "").arrays
    for file in files:
        found = weights.read(FIXTURES / file).weights.arrays
        assert found.keys() <= arrays.keys()
        for path, array in found.items():
            np.testing.assert_array_equal(array, arrays[path], err_msg=f"{file}: {path}")


@pytest.mark.parametrize(("file", "expected"), [
    ("slim_v1.ckpt", "slim_expected.npz"), ("inception5h_graph.pb", "inception5h_expected.npz")])
def test_stages_are_those_that_tensorflow_stored(file, expected):
    """From the picture on, which needs no resizing."""
    stored = np.load(FIXTURES / expected)
    found = weights.read(FIXTURES / file).weights
    x = found.preprocessing.normalise(stored["image"][None])
    model = found.model()
    with no_grad():
        stages = {name: y.data for name, y in model.stages(Tensor(x))}
        stages |= {head: model.head(head)(Tensor(stages[stage])).data for stage, head in model.heads.items()}
    names = [name for name in stored.files if name.startswith("stage/")]
    assert len(names) >= 18
    for name in names:
        got, wanted = sampled(stages[name.removeprefix("stage/")]), stored[name]
        assert np.abs(got - wanted).max() <= 1e-4 * np.abs(wanted).max(), name


@pytest.mark.parametrize(("content", "told"), [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "Git LFS.* git lfs pull"),
    (b"<!DOCTYPE html><html>", "web page"),
    (b'name: "GoogleNet"\nlayer {', "prototxt.* give the .caffemodel"),
    (b'model_checkpoint_path: "model.ckpt-1"', "give the .index file"),
    (b"\xff\xd8\xff\xe0\x00\x10JFIF", "picture"),
    (b"\x89PNG\r\n\x1a\n", "picture"),
])
def test_what_is_often_taken_for_weights_is_named(tmp_path, content, told):
    path = tmp_path / "mistaken"
    path.write_bytes(content)
    with pytest.raises(InputError, match=told):
        weights.read(path)


def test_a_size_that_the_file_contradicts_is_refused(tmp_path):
    path = tmp_path / "ours.h5"
    weights.save(path, weights.read(FIXTURES / "caffe_v1.caffemodel", image_size=96).weights)
    assert weights.read(path, image_size=96).weights.config.image_size == 96
    for file, size in ((path, 96), (FIXTURES / "onnx_caffe.onnx", 224)):
        with pytest.raises(InputError, match=f"for images of {size} pixels, not 320: leave out --image-size"):
            weights.read(file, image_size=320)


@pytest.mark.parametrize("content", [b"", b"hello, this is no weight file", bytes(5000)])
def test_what_no_format_knows_is_refused(tmp_path, content):
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"foreign (is empty|begins with).*no weight file of a known format"):
        weights.read(path)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(InputError, match="it is a folder"):
        formats.read(tmp_path)
