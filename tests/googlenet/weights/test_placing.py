"""From other frameworks' names and layouts to ours, and back."""

import numpy as np
import pytest

from data.preprocess import PREPROCESSINGS
from googlenet.config import ModelConfig, to_json
from googlenet.model import GoogLeNet, preprocessing_of
from googlenet.weights.contents import Contents, Graph, Place
from googlenet.weights.layouts import LAYOUTS, shape_there, to_ours, to_theirs
from googlenet.weights.placing import foreign, place, texts
from googlenet.weights.schemes import SCHEMES
from googlenet.weights.weights import Weights
from minigrad import init
from minigrad.errors import InputError

WIDTH = 1 / 16
# Of each scheme: some of our paths, and the names that the framework's own source gives.
NAMED = [
    ("caffe", "conv1/weight", "conv1/7x7_s2/weight"),
    ("caffe", "inception_4c/conv_5x5_reduce/bias", "inception_4c/5x5_reduce/bias"),
    ("caffe", "aux2/fc/weight", "loss2/fc/weight"),
    ("caffe", "classifier/bias", "loss3/classifier/bias"),
    ("torchvision", "conv2/weight", "conv3.conv.weight"),
    ("torchvision", "conv1/batch_norm/variance", "conv1.bn.running_var"),
    ("torchvision", "inception_3a/conv_5x5/batch_norm/gamma", "inception3a.branch3.1.bn.weight"),
    ("torchvision", "inception_3a/pool_proj/weight", "inception3a.branch4.1.conv.weight"),
    ("torchvision", "aux1/fc/weight", "aux1.fc1.weight"),
    ("torchvision", "aux1/conv/batch_norm/beta", "aux1.conv.bn.bias"),
    ("torchvision", "classifier/bias", "fc.bias"),
    ("slim", "conv2_reduce/weight", "InceptionV1/Conv2d_2b_1x1/weights"),
    ("slim", "inception_4e/conv_3x3/batch_norm/mean",
     "InceptionV1/Mixed_4f/Branch_1/Conv2d_0b_3x3/BatchNorm/moving_mean"),
    ("slim", "inception_5a/conv_5x5/weight", "InceptionV1/Mixed_5b/Branch_2/Conv2d_0a_3x3/weights"),
    ("slim", "classifier/weight", "InceptionV1/Logits/Conv2d_0c_1x1/weights"),
    ("inception5h", "conv2/bias", "conv2d2_b"),
    ("inception5h", "inception_5b/pool_proj/weight", "mixed5b_pool_reduce_w"),
    ("inception5h", "aux2/conv/weight", "head1_bottleneck_w"),
    ("inception5h", "aux1/fc/bias", "nn0_b"),
    ("inception5h", "classifier/weight", "softmax2_w"),
    ("chainer", "inception_3b/conv_3x3_reduce/weight", "inc3b/proj3/W"),
    ("chainer", "aux1/fc/bias", "loss1_fc1/b"),
    ("chainer", "classifier/weight", "loss3_fc/W"),
    ("keras", "inception_5b/conv_1x1/weight", "inception_5b/1x1/weight"),
    ("matconvnet (Princeton)", "inception_3a/conv_1x1/weight", "icp1_out0_filter"),
    ("matconvnet (Princeton)", "conv2_reduce/bias", "reduction2_bias"),
    ("matconvnet (Princeton)", "inception_5b/conv_5x5_reduce/weight", "icp9_reduction2_filter"),
    ("matconvnet (Princeton)", "aux2/conv/weight", "cls2_reduction_filter"),
]


def weights_of(key: str, **config) -> Weights:
    """Random weights of the scheme's network, narrow, with statistics that are no identity."""
    scheme = SCHEMES[key]
    made = ModelConfig(variant=scheme.variant,
                       **{"width": WIDTH, "classes": 7, "heads": "none" if key == "slim" else "both", **config})
    model = GoogLeNet(made)
    init.initialise(model, 3, weight="he", bias=0.1)
    rng = np.random.default_rng(0)
    arrays = {path: array if array.ndim > 1 else rng.uniform(0.5, 2, array.shape).astype(np.float32)
              for path, array in model.state().items()}
    return Weights(made, arrays, tuple("0123456"), preprocessing_of(made))


def contents_of(key: str, **config) -> tuple[Weights, Contents]:
    before = weights_of(key, **config)
    return before, Contents("Keras" if "keras" in key else "archive", foreign_arrays(before, key))


def foreign_arrays(weights: Weights, key: str) -> dict[str, np.ndarray]:
    return foreign(weights, key)


@pytest.mark.parametrize(("key", "ours", "theirs"), NAMED)
def test_names_are_the_frameworks_own(key, ours, theirs):
    found = SCHEMES[key].place(ours, weights_of(key).arrays[ours].shape, 8)
    assert found is not None
    assert found.name == theirs


@pytest.mark.parametrize("key", SCHEMES)
def test_every_array_has_a_place_of_its_own(key):
    before = weights_of(key)
    assert len(foreign_arrays(before, key)) == len(before.arrays)


@pytest.mark.parametrize("key", SCHEMES)
def test_there_and_back(key):
    before, contents = contents_of(key)
    after = place(contents, "some.file", "")
    assert after.config.variant == SCHEMES[key].variant
    assert (after.config.classes, after.config.heads, after.config.width) == (7, before.config.heads, WIDTH)
    assert set(after.arrays) == set(before.arrays)
    for path, array in before.arrays.items():
        np.testing.assert_array_equal(after.arrays[path], array, err_msg=path)


def test_layouts_element_by_element():
    """What each framework calls element (kh, kw, c, o) of a kernel, (c, o) of a product."""
    rng = np.random.default_rng(1)
    kernel, dense = rng.random((5, 5, 16, 32)), rng.random((48, 7))
    there = {name: to_theirs(kernel, Place("", name)) for name in ("OIHW", "OIHW turned", "HWIO")}
    assert there["OIHW"][30, 7, 4, 1] == kernel[4, 1, 7, 30]
    assert there["OIHW turned"][30, 7, 0, 3] == kernel[4, 1, 7, 30]
    assert there["HWIO"][4, 1, 7, 30] == kernel[4, 1, 7, 30]
    assert to_theirs(dense, Place("", "OI"))[6, 40] == dense[40, 6]
    assert to_theirs(dense, Place("", "11IO"))[0, 0, 40, 6] == dense[40, 6]


@pytest.mark.parametrize("layout", ["O(CHW)", "(CHW)O", "(HW)CO"])
def test_layers_behind_a_grid_compute_the_same(layout):
    """A grid (4, 4, C) flattened our way, times our weight, is the framework's flattening times its weight."""
    rng = np.random.default_rng(2)
    grid, ours = rng.random((4, 4, 6)), rng.random((96, 5))
    theirs = to_theirs(ours, Place("", layout, 6))
    expected = grid.reshape(-1) @ ours
    flat = grid.transpose(2, 0, 1).reshape(-1)  # channels first
    got = {"O(CHW)": lambda: theirs @ flat, "(CHW)O": lambda: flat @ theirs,
           "(HW)CO": lambda: np.einsum("hwc,hwco->o", grid, theirs)}[layout]()
    np.testing.assert_allclose(got, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_go_both_ways(layout):
    shape = {"O": (7,), "HWIO": (3, 3, 4, 5), "OIHW": (3, 3, 4, 5), "OIHW turned": (3, 3, 4, 5)}.get(layout, (32, 5))
    ours = np.random.default_rng(3).random(shape)
    where = Place("", layout, 8)
    theirs = to_theirs(ours, where)
    assert theirs.shape == shape_there(shape, where)
    np.testing.assert_array_equal(to_ours(theirs, where), ours)


@pytest.mark.parametrize("width", [0.01, 0.05, 0.1, 0.3, 0.37, 0.7, 1.5])
@pytest.mark.parametrize("key", ["caffe", "slim", "inception5h"])
def test_any_width_is_found(key, width):
    """Channels are multiples of 4, so that the last layer's alone do not tell the width that all have."""
    before, contents = contents_of(key, width=width, heads="none")
    after = place(contents, "f", "")
    assert after.config.width == pytest.approx(width, abs=0.02)
    for path, array in before.arrays.items():
        np.testing.assert_array_equal(after.arrays[path], array, err_msg=path)


@pytest.mark.parametrize("heads", ["none", "aux1", "both"])
def test_heads_are_found(heads):
    assert place(contents_of("caffe", heads=heads)[1], "f", "").config.heads == heads


def test_axes_of_one_that_a_format_adds_are_no_matter():
    """Caffe's old blobs have four axes; MATLAB's vectors are matrices."""
    before, contents = contents_of("caffe")
    old = {name: array.reshape((1,) * (4 - array.ndim) + array.shape) for name, array in contents.arrays.items()}
    after = place(Contents("old", old), "f", "")
    np.testing.assert_array_equal(after.arrays["aux1/fc/weight"], before.arrays["aux1/fc/weight"])
    np.testing.assert_array_equal(after.arrays["conv1/bias"], before.arrays["conv1/bias"])


def changed(change, key: str = "caffe") -> Contents:
    contents = contents_of(key)[1]
    change(contents.arrays)
    return contents


@pytest.mark.parametrize(("change", "told"), [
    (lambda arrays: arrays.pop("conv2/3x3/bias"), r"it lacks conv2/3x3/bias \(12,\)"),
    (lambda arrays: arrays.pop("loss1/classifier/bias"), r"it lacks loss1/classifier/bias \(7,\)"),
    (lambda arrays: arrays.update(extra=np.zeros((1, 2))), r"the network lacks extra \(1, 2\)"),
    (lambda arrays: arrays.update({"conv1/7x7_s2/weight": np.zeros((7, 7, 3, 4))}),
     r"conv1/7x7_s2/weight \(7, 7, 3, 4\) where the network has \(4, 3, 7, 7\)"),
    (lambda arrays: arrays.update({"loss3/classifier/bias": np.zeros(8)}), r"loss3/classifier/weight \(7, 64\)"),
    (lambda arrays: arrays.pop("loss3/classifier/bias"), "no classifier"),
    (lambda arrays: arrays.update({"conv1/7x7_s2/bias": np.zeros(4, np.int8)}), r"conv1/7x7_s2/bias \(int8\)"),
    (lambda arrays: arrays.clear(), "no GoogLeNet that is known by its names: no arrays"),
    (lambda arrays: [arrays.pop(name) for name in list(arrays) if "inception" in name],
     r"known by its names: conv1/7x7_s2/weight \(4, 3, 7, 7\)"),
])
def test_what_does_not_fit_is_refused(change, told):
    with pytest.raises(InputError, match=told) as error:
        place(changed(change), "some.file", "")
    assert "some.file" in str(error.value)


def test_what_is_no_network_is_told_what_would_be_one():
    with pytest.raises(InputError, match=r"Chainer, Keras, MatConvNet: give weights of one of these, or let inspect"):
        place(Contents("Caffe mean image", {"mean": np.zeros((3, 8, 8))}), "f", "")


def test_arrays_that_are_no_weights_are_named():
    contents = changed(lambda arrays: arrays.update({"conv1.bn.num_batches_tracked": np.array(5)}), "torchvision")
    assert "conv1.bn.num_batches_tracked" in place(contents, "f", "").source.notes[-1]


def test_the_prefix_of_torchs_data_parallel_is_left_out():
    before, contents = contents_of("torchvision")
    wrapped = {f"module.{name}": array for name, array in contents.arrays.items()}
    after = place(Contents("torch", wrapped), "f", "")
    np.testing.assert_array_equal(after.arrays["conv1/weight"], before.arrays["conv1/weight"])
    assert "module." in after.source.notes[-1]


def test_batch_norm_folded_into_biases_is_seen():
    before = weights_of("torchvision", batch_norm="folded")
    after = place(Contents("archive", foreign(before, "torchvision")), "f", "")
    assert after.config.batch_norm == "folded"
    assert "conv1/bias" in after.arrays


def test_slims_first_class_is_the_background():
    arrays = contents_of("slim", classes=1001)[1].arrays
    classes = place(Contents("checkpoint", arrays), "f", "").classes
    assert classes[:3] == ("background", "0", "1")
    assert len(classes) == 1001


def test_texts_of_our_exports_come_back():
    before, contents = contents_of("torchvision", dropout=0.3, image_size=224)
    before = Weights(before.config, before.arrays, (*"abcdef", "a name\x0bof\u2028parts"), PREPROCESSINGS["slim"])
    after = place(Contents("safetensors", contents.arrays, metadata=texts(before)), "f", "")
    assert (after.config, after.classes, after.preprocessing) == (before.config, before.classes, before.preprocessing)


@pytest.mark.parametrize(("own", "told"), [
    ({"classes": "a\nb"}, "names 2 classes for a network of 7"),
    ({"config": "{"}, "ModelConfig is not JSON"),
    ({"config": "[" * 100_000}, "ModelConfig is not JSON"),
    ({"config": '{"classes": 1%s}' % ("0" * 400)}, "choose a whole number"),
    ({"config": '{"variant": "torchvision", "lrn": "5 1 1 1"}'}, "no local response normalisation"),
    ({"config": '{"width": 1e7, "classes": 7}'}, "a network of width 1e[+]07 for images of 224 pixels, which can't be"),
    ({"preprocessing": "{}"}, "expected the fields"),
])
def test_texts_that_do_not_fit_are_refused(own, told):
    with pytest.raises(InputError, match=f"^some.file.*{told}"):
        place(Contents("archive", contents_of("caffe")[1].arrays, metadata=own), "some.file", "")


@pytest.mark.parametrize("variant", ["torchvision", "slim", "inception5h"])
def test_caffes_names_hold_caffes_network_only(variant):
    with pytest.raises(InputError, match=f"not for the variant {variant}.*safetensors"):
        foreign(weights_of(variant), "caffe")


def test_what_a_graph_says_of_its_input_joins_the_preprocessing():
    """Pixels 0..1 times 2 minus 1 in the graph are what torchvision's weights want anyway; other arithmetic is kept."""
    before = weights_of("torchvision", batch_norm="folded")
    arrays = foreign(before, "torchvision")
    places = {path: SCHEMES["torchvision"].place(path, array.shape, 8 if path.endswith("/fc/weight") else 0)
              for path, array in before.arrays.items()}
    usual = PREPROCESSINGS["torchvision"]
    for mean, std, expected in [
        ((0.5,) * 3, (0.5,) * 3, usual),
        ((0.0,) * 3, (1.0,) * 3, usual),
        ((100.0, 110.0, 120.0), (2.0,) * 3, None),
    ]:
        graph = Graph("torchvision", "folded", places, mean=mean, std=std)
        got = place(Contents("ONNX", arrays, graph=graph), "f", "").preprocessing
        assert (got == usual) == (expected == usual)
        assert expected or (got.mean, got.std) == (mean, std)


@pytest.mark.parametrize("graph", [Graph("slim"), Graph("caffe", lrn="5 0.0002 0.75 1.0")])
def test_a_text_that_its_graph_contradicts_is_refused(graph):
    before, contents = contents_of("caffe")
    edited = Contents("ONNX", contents.arrays, graph=graph, metadata={"config": to_json(before.config)})
    with pytest.raises(InputError, match=r"says that it is caffe .* but its graph computes"):
        place(edited, "f", "")


def test_a_graph_may_tell_the_size_of_its_images():
    contents = contents_of("caffe", heads="none")[1]
    graph = Graph("caffe", image_size=96)
    assert place(Contents("ONNX", contents.arrays, graph=graph), "f", "").config.image_size == 96


def test_the_graphs_own_normalisation_constants_count():
    arrays = foreign(weights_of("inception5h"), "inception5h")
    arrays["input_mean"] = np.zeros(())
    graph = Graph("inception5h", lrn="11 0.0022 0.5 2.0")
    after = place(Contents("GraphDef", arrays, graph=graph), "f", "")
    assert after.model().norm1.alpha == 0.0022
    assert "input_mean" in after.source.notes[-1]
