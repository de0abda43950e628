"""Weight files: ours there and back, Caffe's archives, and everything that does not fit."""

import json

import numpy as np
import pytest

from data.preprocess import Preprocessing
from googlenet import weights
from googlenet.config import ModelConfig
from googlenet.model import GoogLeNet, preprocessing_of
from googlenet.weights import caffe_npz, names, store
from minigrad import Tensor, hdf5, init
from minigrad.errors import InputError

CONFIG = ModelConfig(classes=3, image_size=32, width=0.125, heads="aux1", variant="caffe", dropout=0.1)
CLASSES = ("tench", "goldfish", "été")


def network(config: ModelConfig = CONFIG, seed: int = 1) -> GoogLeNet:
    model = GoogLeNet(config)
    init.initialise(model, seed, weight="he", bias=0.2)
    return model


def saved(folder, model: GoogLeNet | None = None, **more):
    model = model or network()
    path = folder / "weights.h5"
    weights.save_weights(path, model, preprocessing=preprocessing_of(model.config), classes=CLASSES, **more)
    return path


def test_network_comes_back_whole(tmp_path):
    model = network()
    path = saved(tmp_path, model, arrays={"optimiser/velocity": np.arange(4.0)}, attributes={"step": 7})
    loaded = weights.load_model(path)
    assert loaded.model.config == CONFIG
    assert loaded.classes == CLASSES
    assert loaded.preprocessing == preprocessing_of(CONFIG)
    assert loaded.preprocessing.order == "BGR"
    assert not loaded.model.training
    for (path, before), (again, after) in zip(model.named_parameters(), loaded.model.named_parameters(), strict=True):
        assert path == again
        np.testing.assert_array_equal(before.data, after.data)
    np.testing.assert_array_equal(loaded.arrays["optimiser/velocity"], np.arange(4.0))
    assert loaded.attributes == {"step": 7}


def test_weights_lie_where_the_attributes_do(tmp_path):
    model = network()
    arrays, attributes = hdf5.load(saved(tmp_path, model))
    np.testing.assert_array_equal(arrays["weights/inception_3a/conv_5x5_reduce/weight"],
                                  model.inception_3a.conv_5x5_reduce.weight.data)
    assert attributes["variant"] == "caffe"
    assert json.loads(attributes["classes"]) == list(CLASSES)


def test_many_long_class_names_travel(tmp_path):
    """More text than HDF5 keeps in an attribute of the compact kind (64 KiB)."""
    model = network(ModelConfig(classes=3000, image_size=32, width=0.0625, heads="none"))
    classes = tuple(f"n{i:08}: " + "a long name " * 4 for i in range(3000))
    path = tmp_path / "long.h5"
    weights.save_weights(path, model, preprocessing=Preprocessing(size=32), classes=classes)
    assert weights.load_model(path).classes == classes


def test_as_many_names_as_classes(tmp_path):
    with pytest.raises(InputError, match="2 class names for a network of 3 classes"):
        weights.save_weights(tmp_path / "x.h5", network(), preprocessing=Preprocessing(size=32), classes=("a", "b"))
    assert not (tmp_path / "x.h5").exists()


@pytest.mark.parametrize("more", [{"arrays": {"weights/extra": np.zeros(1)}}, {"attributes": {"variant": "x"}}])
def test_own_names_are_not_given_away(tmp_path, more):
    with pytest.raises(InputError, match=r"weights/extra|variant"):
        saved(tmp_path, **more)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere.h5 can't be read \(No such file"):
        weights.load_model(tmp_path / "nowhere.h5")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 cut short"])
def test_foreign_files_are_refused(tmp_path, content):
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(InputError, match="foreign"):
        weights.load_model(path)


def test_files_of_other_content_are_refused(tmp_path):
    hdf5.save(tmp_path / "other.h5", {"x": np.zeros(3)}, {"title": "none"})
    with pytest.raises(InputError, match="no model, variant, classes, preprocessing"):
        weights.load_model(tmp_path / "other.h5")


@pytest.mark.parametrize(("attribute", "value", "told"), [
    ("model", "{", "not JSON"), ("classes", "7", "weights.h5"), ("classes", '["a"]', "names 1 classes"),
    ("preprocessing", "{}", "preprocessing"), ("model", '{"width": -1}', "width")])
def test_files_at_odds_with_themselves_are_refused(tmp_path, attribute, value, told):
    path = saved(tmp_path)
    arrays, attributes = hdf5.load(path)
    hdf5.save(path, arrays, {**attributes, attribute: value})
    with pytest.raises(InputError, match=told) as error:
        weights.load_model(path)
    assert "weights.h5" in str(error.value)


def test_one_error_tells_both_sides():
    model = network()
    arrays = {path: parameter.data.copy() for path, parameter in model.named_parameters()}
    arrays["stranger"] = np.zeros((2, 2), np.float32)
    arrays["conv1/weight"] = np.zeros((7, 7, 3, 9), np.float32)
    del arrays["inception_3a/pool_proj/bias"]
    with pytest.raises(InputError) as error:
        weights.apply(network(seed=2), arrays, "some.npz")
    for told in ("some.npz", "stranger (2, 2)", "conv1/weight (7, 7, 3, 9) where the network has (7, 7, 3, 8)",
                 "inception_3a/pool_proj/bias (4,)"):
        assert told in str(error.value)


def test_nothing_is_changed_by_what_does_not_fit():
    model = network()
    before = model.conv1.weight.data.copy()
    arrays = {path: parameter.data + 1 for path, parameter in model.named_parameters()}
    arrays["classifier/bias"][0] = np.nan
    with pytest.raises(InputError, match=r"classifier/bias .*finite"):
        weights.apply(model, arrays)
    np.testing.assert_array_equal(model.conv1.weight.data, before)


def test_wrong_number_of_classes_is_told():
    arrays = network(ModelConfig(classes=5, image_size=32, width=0.125, heads="none")).parameters()
    with pytest.raises(InputError, match="has 5 classes, the network 3: build the network with classes=5"):
        weights.apply(network(), arrays)


def test_weights_change_precision_on_the_way():
    arrays = network().parameters()
    model = GoogLeNet(ModelConfig(**{**vars(CONFIG), "dtype": "float64"}))
    weights.apply(model, arrays)
    assert model.conv1.weight.dtype == np.float64
    np.testing.assert_array_equal(model.conv1.weight.data, arrays["conv1/weight"])


def test_caffe_names():
    assert names.to_caffe("conv1/weight") == "conv1/7x7_s2/weight"
    assert names.to_caffe("inception_4c/conv_5x5_reduce/bias") == "inception_4c/5x5_reduce/bias"
    assert names.to_caffe("aux2/fc/weight") == "loss2/fc/weight"
    assert names.to_caffe("classifier/bias") == "loss3/classifier/bias"
    paths = [path for path, _ in GoogLeNet().named_parameters()]
    assert len({names.to_caffe(path) for path in paths}) == len(paths) == 128
    assert [names.from_caffe(names.to_caffe(path)) for path in paths] == paths


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Random weights of Caffe's network with both heads: the file and its blobs."""
    rng = np.random.default_rng(5)
    blobs = {}
    for path, parameter in GoogLeNet(ModelConfig(variant="caffe", classes=7)).named_parameters():
        shape = parameter.shape
        blob_shape = (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]
        blobs[names.to_caffe(path)] = rng.standard_normal(blob_shape, np.float32)
    path = tmp_path_factory.mktemp("caffe") / "caffe.npz"
    np.savez(path, **blobs)
    return path, blobs


def test_caffe_layouts(archive):
    """Element by element: w[o, c, kh, kw] of Caffe is w[kh, kw, c, o] here, w[o, c] is w[c, o]."""
    path, blobs = archive
    variant, arrays = caffe_npz.read(path)
    assert variant == "caffe"
    kernel, dense = blobs["inception_3b/5x5/weight"], blobs["loss3/classifier/weight"]
    assert arrays["inception_3b/conv_5x5/weight"][4, 1, 7, 30] == kernel[30, 7, 4, 1]
    assert arrays["classifier/weight"][900, 6] == dense[6, 900]
    assert arrays["conv1/weight"][2, 3, 0, 5] == blobs["conv1/7x7_s2/weight"][5, 0, 2, 3], "blue stays first"


def test_caffe_heads_flatten_channels_first(archive):
    """The fully connected layer sees (128, 4, 4) flattened in Caffe and (4, 4, 128) here: the products agree."""
    path, blobs = archive
    fc = caffe_npz.read(path)[1]["aux1/fc/weight"]
    x = np.random.default_rng(1).standard_normal((128, 4, 4))
    expected = blobs["loss1/fc/weight"] @ x.reshape(-1)
    np.testing.assert_allclose(x.transpose(1, 2, 0).reshape(-1) @ fc, expected, rtol=1e-6)


def test_caffe_archive_becomes_a_network(archive):
    loaded = weights.load_model(archive[0])
    config = loaded.model.config
    assert (config.variant, config.classes, config.heads) == ("caffe", 7, "both")
    assert loaded.classes == tuple("0123456")
    assert loaded.preprocessing.order == "BGR"


def changed(archive, folder, change):
    _path, blobs = archive
    blobs = dict(blobs)
    change(blobs)
    np.savez(folder / "changed.npz", **blobs)
    return folder / "changed.npz"


@pytest.mark.parametrize(("change", "told"), [
    (lambda blobs: blobs.pop("conv2/3x3/bias"), r"it lacks conv2/3x3/bias \(192,\)"),
    (lambda blobs: blobs.pop("loss1/conv/bias"), r"it lacks loss1/conv/bias \(128,\)"),
    (lambda blobs: blobs.update(extra=np.zeros((1, 2))), r"the network lacks extra \(1, 2\)"),
    (lambda blobs: blobs.update({"conv1/7x7_s2/weight": np.zeros((7, 7, 3, 64))}),
     r"conv1/7x7_s2/weight \(7, 7, 3, 64\) where the network has \(64, 3, 7, 7\)"),
    (lambda blobs: blobs.update({"loss3/classifier/bias": np.zeros(8)}), r"loss3/classifier/weight \(7, 1024\)"),
    (lambda blobs: blobs.clear(), r"it lacks conv1/7x7_s2/weight .* and 108 more"),
])
def test_archives_that_do_not_fit_are_refused(archive, tmp_path, change, told):
    with pytest.raises(InputError, match=told) as error:
        weights.load_model(changed(archive, tmp_path, change))
    assert "changed.npz" in str(error.value)


def test_archive_without_heads(archive, tmp_path):
    def behead(blobs):
        for name in [name for name in blobs if name.startswith(("loss1", "loss2"))]:
            del blobs[name]

    assert weights.load_model(changed(archive, tmp_path, behead)).model.config.heads == "none"


def test_archives_are_never_unpickled(archive, tmp_path):
    path = changed(archive, tmp_path, lambda blobs: blobs.update({"conv2/3x3/bias": np.array([{}], dtype=object)}))
    with pytest.raises(InputError, match="not a readable"):
        weights.load_model(path)


def test_damaged_archives_are_refused(archive, tmp_path):
    content = bytearray(archive[0].read_bytes())
    content[len(content) // 2] ^= 0xFF
    for name, data in {"cut": content[:-1000], "changed": content}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match="not a readable"):
            weights.load_model(tmp_path / name)


def test_loaded_network_computes_the_same(tmp_path):
    model = network().eval()
    x = Tensor(np.random.default_rng(0).normal(0, 60, (2, 32, 32, 3)).astype(np.float32))
    again = store.load_model(saved(tmp_path, model)).model
    np.testing.assert_array_equal(model(x).logits.data, again(x).logits.data)
