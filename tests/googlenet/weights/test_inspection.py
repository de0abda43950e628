"""What inspect finds: numbers of arrays, dead filters, the picture of the first layer."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.preprocess import Preprocessing
from googlenet.config import ModelConfig
from googlenet.model import GoogLeNet, preprocessing_of
from googlenet.weights import Weights, save
from googlenet.weights.inspection import OURS, dead_filters, inspect, origin, parameters, statistics
from googlenet.weights.picture import CELL, GAP, HEADER, MARGIN, draw_filters, first_filters
from minigrad import Tensor, hdf5, init
from minigrad.errors import InputError

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "weights"


def weights(**config) -> Weights:
    """Random weights of a tiny network, its running statistics too."""
    model = GoogLeNet(ModelConfig(**{"classes": 3, "image_size": 32, "width": 0.05, "heads": "aux1", **config}))
    init.initialise(model, 1, weight="he", bias=0.1)
    rng = np.random.default_rng(2)
    arrays = {path: rng.uniform(0.5, 2, array.shape).astype(np.float32) if "batch_norm" in path else array
              for path, array in model.state().items()}
    return Weights(model.config, arrays, ("a", "b", "c"), preprocessing_of(model.config))


# Numbers.

def test_statistics_by_hand():
    found = statistics("x", np.array([[-1, 0, 0], [3, np.nan, -np.inf]], np.float32))
    assert found == ("x", (2, 3), "float32", -1, 3, 0.5, 1.5, 2, 2, None)


@pytest.mark.parametrize(("array", "expected"), [
    (np.zeros((0, 3), np.float16), (None, None, None, None, 0, 0)),
    (np.full(2, np.nan), (None, None, None, None, 2, 0)),
    (np.array([1, 2, 3], np.int64), (1, 3, 2, np.std([1, 2, 3]), 0, 0)),
    (np.array(True), (1, 1, 1, 0, 0, 0)),
    (np.full(4, 60000, np.float16), (60000, 60000, 60000, 0, 0, 0)),  # whose sum float16 can't hold
])
def test_statistics_of_odd_arrays(array, expected):
    assert statistics("x", array)[3:9] == expected


@pytest.mark.parametrize(("variant", "classes", "expected"), [
    ("paper", 1000, 6998552), ("torchvision", 1000, 6624904), ("slim", 1001, 6618649)])
def test_parameters_are_those_that_are_learned(variant, classes, expected):
    """The published numbers of the trunk; running statistics are not counted."""
    config = ModelConfig(variant=variant, classes=classes)
    made = Weights(config, GoogLeNet(config).state(), tuple(map(str, range(classes))), preprocessing_of(config))
    trunk, whole = parameters(made)
    assert trunk == expected
    assert whole > trunk


# Dead filters.

def test_dead_filters_are_counted_by_output_channel():
    made = weights()
    conv1, fc = made.arrays["conv1/weight"], made.arrays["aux1/fc/weight"]
    conv1[..., 1] = 0
    conv1[..., 3] *= 1e-8
    fc[:, 5] = 0
    fc[3, :] = 0  # an input that is not used makes no filter dead
    found = dead_filters(made)
    assert (found["conv1/weight"], found["aux1/fc/weight"], found["conv2/weight"]) == (2, 1, 0)
    assert not any(path.endswith("/bias") for path in found)


def test_a_filter_that_batch_norm_scales_away_is_dead():
    made = weights(variant="torchvision", heads="none")
    made.arrays["conv1/batch_norm/gamma"][2] = 0
    assert dead_filters(made)["conv1/weight"] == 1


def test_folding_keeps_the_function_and_values_that_are_not_finite():
    made = weights(variant="torchvision", heads="none")
    x = Tensor(np.random.default_rng(0).standard_normal((2, 32, 32, 3), np.float32))
    plain = made.folded()
    assert not any("batch_norm" in path for path in plain.arrays)
    assert plain.config.batch_norm == "folded"
    np.testing.assert_allclose(plain.model()(x).logits.data, made.model()(x).logits.data, rtol=1e-3, atol=1e-3)
    made.arrays["conv1/weight"][0, 0, 0, 0] = np.nan
    assert np.isnan(made.folded().arrays["conv1/weight"]).sum() == 1
    assert plain.folded() is plain
    with pytest.raises(InputError, match="it lacks conv1/weight"):
        replace(made, arrays={}).folded()


# Files.

def test_our_file_with_averaged_weights(tmp_path):
    made = weights()
    averaged = {path: array.copy() for path, array in made.arrays.items()}
    averaged["conv1/weight"][..., 0] = 0
    save(tmp_path / "run.h5", made, averaged=averaged, arrays={"optimiser/velocity": np.arange(4.0)},
         attributes={"step": 7})
    found = inspect(tmp_path / "run.h5")
    dead = {each.name: each.dead for each in found.arrays}
    assert found.format == OURS
    assert found.metadata == {"step": "7"}
    assert (dead["weights/conv1/weight"], dead["averaged/conv1/weight"]) == (0, 1)
    assert dead["optimiser/velocity"] is None
    assert found.weights.classes == ("a", "b", "c")
    assert found.reason == ""
    assert len(found.sha256) == 64


def test_our_file_that_is_no_network(tmp_path):
    hdf5.save(tmp_path / "other.h5", {"x": np.zeros(3)}, {"title": "none"})
    found = inspect(tmp_path / "other.h5")
    assert found.weights is None
    assert "no model" in found.reason
    assert [each.name for each in found.arrays] == ["x"]


def test_our_file_whose_arrays_do_not_fit(tmp_path):
    save(tmp_path / "x.h5", replace(weights(), arrays={"conv1/weight": np.zeros((7, 7, 3, 5), np.float32)}))
    found = inspect(tmp_path / "x.h5")
    assert found.weights is None
    assert "lacks conv1/bias" in found.reason
    assert [each.name for each in found.arrays] == ["weights/conv1/weight"]


def test_what_was_taken_for_granted_is_told():
    assert "the graph's input is taken to be pixels 0..1" in inspect(FIXTURES / "onnx_qualcomm.onnx").notes


def test_a_foreign_file_keeps_its_own_names(tmp_path):
    found = inspect(FIXTURES / "torch_legacy.pth", image_size=64)
    arrays = {each.name: each for each in found.arrays}
    assert arrays["conv1.conv.weight"].shape == (4, 3, 7, 7)
    assert arrays["conv1.conv.weight"].dead == 0
    assert arrays["conv1.bn.running_mean"].dead is None
    assert found.weights.config.variant == "torchvision"
    assert origin("conv1/weight", found.weights) == ("conv1.conv.weight", "OIHW")


def test_weights_of_no_known_network_are_counted_all_the_same(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.ones((2, 2)), b=np.zeros(3))
    found = inspect(tmp_path / "other.npz")
    assert [(each.name, each.zeros, each.dead) for each in found.arrays] == [("a", 0, None), ("b", 3, None)]
    assert found.weights is None
    assert "holds no GoogLeNet" in found.reason


def test_mean_images_and_recordings_are_named(tmp_path):
    mean = inspect(FIXTURES / "caffe_mean.binaryproto")
    values = mean.arrays[0]
    assert "a mean image" in mean.reason
    assert values.shape == (3, 8, 8)
    np.savez(tmp_path / "r.npz", conv1=np.ones((2, 4, 8, 8)))
    assert "2 images, 1 arrays" in inspect(tmp_path / "r.npz").reason


@pytest.mark.parametrize("content", [None, b"", b"hello"])
def test_files_that_are_none(tmp_path, content):
    if content is not None:
        (tmp_path / "x").write_bytes(content)
    with pytest.raises(InputError, match="x"):
        inspect(tmp_path / "x")


# The picture.

def pixel(image, number: int, row: int, column: int, across: int, kernel: int = 7) -> tuple[int, int, int]:
    """The colour of a filter's weight in the middle of its square."""
    place = [MARGIN + number % across * (CELL + GAP), HEADER + number // across * (CELL + GAP)]
    return image.getpixel((place[0] + (2 * column + 1) * CELL // (2 * kernel),
                           place[1] + (2 * row + 1) * CELL // (2 * kernel)))


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_filters_are_drawn_in_true_colours(order):
    made = weights()
    made.arrays["conv1/weight"][...] = 0
    made.arrays["conv1/weight"][2, 5, 0 if order == "RGB" else 2, 1] = 4.0  # red at row 2, column 5 of filter 1
    made.arrays["conv1/weight"][3, 1, 1, 3] = -0.5  # against green, in filter 3
    image = draw_filters(replace(made, preprocessing=Preprocessing(size=32, order=order)), "conv1")
    assert pixel(image, 1, 2, 5, across=2) == (255, 128, 128)
    assert pixel(image, 1, 0, 3, across=2) == (128, 128, 128)
    assert pixel(image, 3, 3, 1, across=2) == (128, 0, 128)


def test_a_dead_filter_is_crossed_out():
    made = weights()
    made.arrays["conv1/weight"][..., 2] = 0
    image = draw_filters(made, "conv1")
    left, top = MARGIN, HEADER + CELL + GAP
    assert image.getpixel((left, top)) == image.getpixel((left + CELL - 1, top)) == (31, 41, 51)
    assert image.getpixel((left + 5, top)) == (128, 128, 128)


def test_a_separable_stem_is_drawn_as_the_convolution_that_it_is():
    made = weights(stem="separable")
    model = made.model()
    filters = first_filters(replace(made, preprocessing=Preprocessing(size=32)))
    assert filters.shape == (4, 7, 7, 3)
    x = np.zeros((1, 32, 32, 3), np.float32)
    x[0, 15, 16, 1] = 1.0  # the answer to a dot of green is the filters' green, turned round
    model.conv1.pointwise.bias.data[...] = 100.0  # so that ReLU passes all
    y = model.conv1(Tensor(x)).data[0] - 100.0
    np.testing.assert_allclose(y[6:10, 6:10].transpose(2, 0, 1).reshape(4, -1).max(1),
                               [max(f[r, c, 1] for r in range(7) for c in range(7) if seen(r, c)) for f in filters],
                               atol=1e-4)


def seen(row: int, column: int) -> bool:
    """Whether a 7x7/2 window that pads 2 before, of the outputs 6 to 9, has the dot at (15, 16) in this cell."""
    rows, columns = {15 - (2 * i - 2) for i in range(6, 10)}, {16 - (2 * j - 2) for j in range(6, 10)}
    return row in rows and column in columns
