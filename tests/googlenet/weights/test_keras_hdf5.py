"""Keras's HDF5: every version's names, both layouts, and files that are something else."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from googlenet.weights.formats import keras_hdf5
from minigrad import hdf5
from minigrad.errors import InputError
from tests.googlenet.weights.arrays import require_same

FIXTURES = Path(__file__).parents[2] / "fixtures" / "weights"
WEIGHT, BIAS = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4), np.arange(4, dtype=np.float32)


@pytest.fixture(scope="module")
def caffe() -> dict[str, np.ndarray]:
    with np.load(FIXTURES / "caffe_npz.npz") as file:
        return {name: file[name] for name in file.files if not name.startswith(("loss1", "loss2"))}


def test_theanos_kernels_are_turned(caffe):
    contents = keras_hdf5.read(FIXTURES / "keras_th.h5")
    assert contents.format == "Keras weights (HDF5)"
    require_same(contents.arrays, {name: array[:, :, ::-1, ::-1] if array.ndim == 4 else array.T
                                   for name, array in caffe.items()})


def test_what_keras_wrote_comes_back(caffe):
    contents = keras_hdf5.read(FIXTURES / "keras_tf.h5")
    require_same(contents.arrays, {name: array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
                                   for name, array in caffe.items()})
    assert contents.metadata["backend"] == "tensorflow"
    assert contents.metadata["keras_version"].startswith("3.")


@pytest.mark.parametrize(("weight", "bias", "names"), [
    ("param_0", "param_1", ()),
    ("inception_3a/1x1_W", "inception_3a/1x1_b", ("inception_3a/1x1_W", "inception_3a/1x1_b")),
    ("inception_3a/1x1/kernel:0", "inception_3a/1x1/bias:0", ("inception_3a/1x1/kernel:0", "inception_3a/1x1/bias:0")),
    ("layer_1/kernel", "layer_1/bias", ("layer_1/kernel", "layer_1/bias"))])
def test_every_versions_names(tmp_path, weight, bias, names):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"inception_3a/1x1"]
        group = file.create_group("inception_3a/1x1")
        if names:
            group.attrs["weight_names"] = [name.encode() for name in names]
        group[weight], group[bias] = WEIGHT, BIAS
    require_same(keras_hdf5.read(path).arrays, {"inception_3a/1x1/weight": WEIGHT, "inception_3a/1x1/bias": BIAS})


def test_keras_3s_own_format_names_layers_in_an_attribute(tmp_path):
    path = tmp_path / "a.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/conv2d/vars/0"], file["layers/conv2d/vars/1"] = WEIGHT, BIAS
        file["layers/conv2d/vars"].attrs["name"] = "conv1"
        file["layers/dense/vars/0"] = WEIGHT[0, 0]
        file["optimizer/vars/0"] = np.int64(3)
    require_same(keras_hdf5.read(path).arrays, {
        "conv1/weight": WEIGHT, "conv1/bias": BIAS, "layers/dense/weight": WEIGHT[0, 0],
        "optimizer/vars/0": np.array(3, np.int64)})


def test_a_whole_models_optimiser_is_left_out_and_told(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = "{}"
        weights = file.create_group("model_weights")
        weights.attrs.update({"layer_names": [b"fc"], "backend": "theano"})
        weights.create_group("fc").attrs["weight_names"] = [b"fc_W", b"fc_b"]
        weights["fc/fc_W"], weights["fc/fc_b"] = WEIGHT[0, 0], BIAS
        file["optimizer_weights/step"] = np.zeros(1)
    contents = keras_hdf5.read(path)
    require_same(contents.arrays, {"fc/weight": WEIGHT[0, 0], "fc/bias": BIAS})
    assert contents.metadata == {"backend": "theano", "model_config": "{}"}
    assert contents.notes == ("1 arrays outside model_weights, such as the optimiser's, were left out",)


def test_other_arrays_keep_their_paths(tmp_path):
    path = tmp_path / "a.h5"
    arrays = {"norm/gamma:0": BIAS, "norm/kernel": BIAS, "other/b": WEIGHT, "x": WEIGHT}
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
        file["title"] = "a text"
    contents = keras_hdf5.read(path)
    require_same(contents.arrays, arrays)
    assert contents.format == "HDF5 file"
    assert contents.notes == ("title (object) is no array of numbers and was left out",)


def test_two_arrays_of_one_role_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["fc/kernel"], file["fc/fc_W"] = WEIGHT, WEIGHT
    with pytest.raises(InputError, match=r"a.h5 has two arrays for fc/weight"):
        keras_hdf5.read(tmp_path / "a.h5")


def test_files_without_arrays_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("model_weights").attrs["backend"] = "theano"
        file["other"] = 1.0
    with pytest.raises(InputError, match="without arrays of numbers"):
        keras_hdf5.read(tmp_path / "a.h5")


def test_recognised_by_the_signature_alone(tmp_path):
    hdf5.save(tmp_path / "ours.h5", {"x": BIAS}, {})
    with h5py.File(tmp_path / "matlab.mat", "w", userblock_size=512) as file:
        file["x"] = BIAS
    for name, expected in {"ours.h5": False, "matlab.mat": False, FIXTURES / "keras_th.h5": True}.items():
        start = (tmp_path / name).read_bytes()[:4096]
        assert keras_hdf5.recognise(start, tmp_path / name) is expected
        assert not keras_hdf5.recognise(start[1:], tmp_path / name)
    assert not keras_hdf5.recognise(b"", tmp_path)
