"""Our weight files, there and back, and everything that does not fit."""

import json

import numpy as np
import pytest

from data.preprocess import Preprocessing
from googlenet import weights
from googlenet.config import ModelConfig
from googlenet.model import GoogLeNet, preprocessing_of
from googlenet.weights import Source, Weights, store
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
    ("preprocessing", "{}", "preprocessing"), ("model", '{"width": -1}', "width"),
    ("source", "{}", "weights.h5: 'notes'")])
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


def test_loaded_network_computes_the_same(tmp_path):
    model = network().eval()
    x = Tensor(np.random.default_rng(0).normal(0, 60, (2, 32, 32, 3)).astype(np.float32))
    again = weights.load_model(saved(tmp_path, model)).model
    np.testing.assert_array_equal(model(x).logits.data, again(x).logits.data)


BATCH_NORM = ModelConfig(variant="torchvision", classes=3, image_size=64, width=0.0625, heads="none")


def test_running_statistics_travel(tmp_path):
    model = network(BATCH_NORM)
    model.conv1.batch_norm.mean.data[...] = 3
    path = tmp_path / "norm.h5"
    weights.save_weights(path, model, preprocessing=preprocessing_of(BATCH_NORM), classes=CLASSES)
    loaded = weights.load_model(path).model
    assert set(loaded.state()) == set(model.state())
    np.testing.assert_array_equal(loaded.conv1.batch_norm.mean.data, 3)


def converted(dtype=np.float32) -> Weights:
    model = network()
    arrays = {name: array.astype(dtype) for name, array in model.state().items()}
    source = Source("some.caffemodel", "Caffe model", "ab" * 32, {"conv1/weight": "conv1/7x7_s2/weight OIHW"},
                    ("a note",))
    return Weights(CONFIG, arrays, CLASSES, preprocessing_of(CONFIG), source)


def test_where_weights_came_from_travels(tmp_path):
    before = converted()
    store.save(tmp_path / "x.h5", before)
    assert store.read(tmp_path / "x.h5").weights.source == before.source


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_weights_keep_the_precision_they_were_trained_in(tmp_path, dtype):
    before = converted(dtype)
    store.save(tmp_path / "x.h5", before)
    again = store.read(tmp_path / "x.h5").weights
    for name, array in before.arrays.items():
        assert again.arrays[name].dtype == dtype
        np.testing.assert_array_equal(again.arrays[name], array)
    assert weights.load_model(tmp_path / "x.h5").model.conv1.weight.dtype == np.float32, "computing is the config's"


def test_a_file_may_say_that_its_raw_weights_are_for_testing(tmp_path):
    before = store.read(saved(tmp_path)).weights
    averaged = {name: array / 2 for name, array in before.arrays.items()}
    store.save(tmp_path / "x.h5", before, averaged=averaged, tested="raw")
    for raw in (False, True):
        np.testing.assert_array_equal(store.read(tmp_path / "x.h5").tested(raw).arrays["conv1/weight"],
                                      before.arrays["conv1/weight"])
    stored = store.read(tmp_path / "x.h5")
    assert (stored.for_testing, stored.attributes) == ("raw", {})
    np.testing.assert_array_equal(stored.averaged["conv1/weight"], averaged["conv1/weight"])


def test_averaged_weights_are_what_is_tested(tmp_path):
    before = converted()
    averaged = {name: array / 2 for name, array in before.arrays.items()}
    store.save(tmp_path / "x.h5", before, averaged=averaged)
    tested, raw = weights.load_model(tmp_path / "x.h5"), weights.load_model(tmp_path / "x.h5", raw=True)
    np.testing.assert_array_equal(tested.model.conv1.weight.data, averaged["conv1/weight"])
    np.testing.assert_array_equal(raw.model.conv1.weight.data, before.arrays["conv1/weight"])
    assert not tested.arrays, "they are no foreign arrays"
