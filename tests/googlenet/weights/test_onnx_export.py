"""Our networks as ONNX files: valid, computed by ONNX Runtime as by us, and read back exactly."""

import json
import os

import numpy as np
import pytest

from googlenet.config import ModelConfig
from googlenet.model import VARIANTS, GoogLeNet
from googlenet.weights.formats import onnx as container
from googlenet.weights.formats.onnx import export
from googlenet.weights.layouts import to_ours
from minigrad import Tensor, nn, no_grad
from minigrad.errors import InputError

NETWORKS = {
    **{name: {"variant": name} for name in VARIANTS},
    **{f"{name}, folded": {"variant": name, "batch_norm": "folded"} for name in ("torchvision", "slim")},
    "other LRN": {"variant": "caffe", "lrn": "3 0.5 0.6 2"},
    "heads": {"variant": "caffe", "heads": "both"},
}
UNREAD = {"separable": {"stem": "separable"}, "naive": {"module": "naive"},
          "fully connected": {"classifier": "fully_connected"}}


def network(seed: int = 0, **config) -> GoogLeNet:
    """A narrow network of random weights, whose norms are no identities."""
    model = GoogLeNet(ModelConfig(**{"width": 1 / 16, "classes": 7, "image_size": 64, "heads": "none", **config}))
    rng = np.random.default_rng(seed)
    for path, array in model.state().items():
        if "batch_norm" in path and not path.endswith(("beta", "mean")):
            array[...] = rng.uniform(0.5, 1.5, array.shape)
        else:
            array[...] = rng.normal(0, (2 / max(np.prod(array.shape[:-1]), 20)) ** 0.5, array.shape)
    return model.eval()


def images(model: GoogLeNet, batch: int = 3) -> np.ndarray:
    S = model.config.image_size
    return np.random.default_rng(1).normal(0, 60, (batch, S, S, 3)).astype(np.float32)


@pytest.mark.parametrize("name", NETWORKS | UNREAD)
@pytest.mark.parametrize("size", [64, 96])
def test_onnx_runtime_computes_the_same(name, size, tmp_path):
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    model = network(image_size=size, **(NETWORKS | UNREAD)[name])
    path = tmp_path / "x.onnx"
    export.write(path, model)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    x = images(model)
    (found,) = runtime.InferenceSession(str(path)).run(None, {"images": np.ascontiguousarray(x.transpose(0, 3, 1, 2))})
    with no_grad():
        expected = model(Tensor(x)).logits.data
    assert found.shape == (3, 7)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_read_back_exactly(name, tmp_path):
    model = network(image_size=224, **NETWORKS[name])
    export.write(tmp_path / "x.onnx", model, {"classes": "a\nb"})
    contents = container.read(tmp_path / "x.onnx")
    config = model.config
    assert contents.graph.variant == config.variant
    assert contents.graph.lrn == config.lrn
    assert (contents.graph.batch_norm == "folded") == (config.batch_norm == "folded")
    assert contents.metadata == {"classes": "a\nb"}
    assert contents.notes == ()
    arrays = {path: array for path, array in model.state().items() if not path.startswith("aux")}
    assert contents.graph.places.keys() == arrays.keys()
    for path, place in contents.graph.places.items():
        assert place.name == path
        np.testing.assert_array_equal(to_ours(contents.arrays[place.name], place), arrays[path], err_msg=path)


@pytest.mark.parametrize(("name", "message"), [
    ("separable", "3 groups"), ("naive", "Concat"), ("fully connected", "order")])
def test_networks_that_no_port_has_are_not_taken_for_one(name, message, tmp_path):
    export.write(tmp_path / "x.onnx", network(**UNREAD[name]))
    with pytest.raises(InputError, match=rf"x\.onnx: .*{message}"):
        container.read(tmp_path / "x.onnx")


def test_it_says_what_enters_and_what_leaves(tmp_path):
    onnx = pytest.importorskip("onnx")
    export.write(tmp_path / "x.onnx", network(image_size=96), {"preprocessing": json.dumps({"size": 96})})
    model = onnx.load(tmp_path / "x.onnx")
    shapes = {each.name: [axis.dim_param or axis.dim_value for axis in each.type.tensor_type.shape.dim]
              for each in (*model.graph.input, *model.graph.output)}
    assert shapes == {"images": ["N", 3, 96, 96], "logits": ["N", 7]}
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 13)]
    assert {each.key: each.value for each in model.metadata_props} == {"preprocessing": '{"size": 96}'}


def test_float64_is_written_as_float32(tmp_path):
    model = network(dtype="float64", variant="caffe", image_size=224)
    export.write(tmp_path / "x.onnx", model)
    contents = container.read(tmp_path / "x.onnx")
    assert contents.arrays["conv1/weight"].dtype == np.float32
    np.testing.assert_array_equal(contents.arrays["conv1/bias"], model.conv1.bias.data.astype(np.float32))


def test_the_same_network_is_the_same_file(tmp_path):
    for name in "ab":
        export.write(tmp_path / name, network(3))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_other_modules_are_refused(tmp_path):
    model = network()
    model.pool5 = nn.Module()
    with pytest.raises(InputError, match=r"pool5 \(Module\) has no ONNX operator"):
        export.write(tmp_path / "x.onnx", model)
    assert not os.listdir(tmp_path)


def test_a_folder_that_is_missing(tmp_path):
    with pytest.raises(InputError, match="can't write"):
        export.write(tmp_path / "none" / "x.onnx", network())
