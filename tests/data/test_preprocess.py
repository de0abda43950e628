import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data.base import ArrayDataset, FileDataset
from data.errors import DataError
from data.preprocess import CAFFE, Preprocessing, channel_statistics, fit, resize, resize_shorter_side
from tests.data.files import pixels, truncate, write_picture

sides = st.integers(1, 600)
numbers = st.floats(-1e3, 1e3)


@pytest.mark.parametrize(("size", "side"), [(224, 256), (64, 73), (32, 37), (96, 110), (448, 512)])
def test_what_is_resized_to_follows_from_the_size(size, side):
    assert Preprocessing(size=size).resize == side


def test_caffes():
    assert (CAFFE.size, CAFFE.resize, CAFFE.fit, CAFFE.order, CAFFE.mean) == (224, 256, "warp", "BGR", (104, 117, 123))
    assert str(CAFFE) == "warped to 256x256 (bilinear), 224x224, BGR minus (104, 117, 123)"
    red = np.array([[255, 1, 2]], np.uint8)
    assert CAFFE.normalise(red).tolist() == [[2 - 104, 1 - 117, 255 - 123]]


def test_normalise_is_the_formula():
    images = pixels(2, 3, 4, 3)
    preprocessing = Preprocessing(order="RGB", mean=(10.5, 20.25, 30.0), std=(2.0, 4.0, 8.0))
    normalised = preprocessing.normalise(images)
    assert normalised.dtype == np.float32
    assert normalised.flags.c_contiguous
    for channel in range(3):
        expected = (images[..., channel] - np.float64(preprocessing.mean[channel])) / preprocessing.std[channel]
        np.testing.assert_allclose(normalised[..., channel], expected, rtol=1e-6)


@given(
    st.builds(
        Preprocessing,
        size=st.integers(1, 300),
        resize=st.one_of(st.just(0), st.integers(300, 400)),
        fit=st.sampled_from(["short", "warp"]),
        interpolation=st.sampled_from(["bilinear", "area", "nearest", "cubic"]),
        order=st.sampled_from(["RGB", "BGR"]),
        mean=st.tuples(numbers, numbers, numbers),
        std=st.tuples(*[st.floats(1e-3, 1e3)] * 3),
    )
)
def test_json_gives_back_an_equal_object(preprocessing):
    assert Preprocessing.from_json(preprocessing.to_json()) == preprocessing


def test_float32_means_survive_json():
    preprocessing = Preprocessing(mean=np.array([0.1, 0.2, 0.3], np.float32))
    assert preprocessing == Preprocessing.from_json(preprocessing.to_json())
    assert isinstance(preprocessing.mean[0], float)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0}, "size 0: expected a whole number of pixels, at least 1"),
        ({"size": 224.0}, "size 224.0: expected a whole number"),
        ({"size": True}, "size True: expected a whole number"),
        ({"resize": 200}, "resize 200: expected a whole number of pixels, at least 224"),
        ({"fit": "long"}, "fit 'long': expected one of short, warp"),
        ({"fit": ["short"]}, "fit .*: expected one of"),
        ({"interpolation": "sinc"}, "interpolation 'sinc': expected one of bilinear, area, nearest, cubic"),
        ({"order": "GBR"}, "order 'GBR': expected one of RGB, BGR"),
        ({"mean": (1, 2)}, r"mean \(1, 2\): expected three numbers"),
        ({"mean": 5}, "mean 5: expected three numbers"),
        ({"mean": (1, 2, float("nan"))}, "expected three finite numbers"),
        ({"std": (1, 0, 1)}, r"std \(1.0, 0.0, 1.0\): expected three positive numbers"),
    ],
)
def test_what_makes_no_sense_is_refused(change, message):
    with pytest.raises(DataError, match=message):
        replace(Preprocessing(resize=256), **change)


def test_what_makes_no_sense_is_refused_from_json_too():
    fields = json.loads(Preprocessing().to_json())
    with pytest.raises(DataError, match=r"mean \['a', 1, 2\]: expected three numbers"):
        Preprocessing.from_json(json.dumps({**fields, "mean": ["a", 1, 2]}))
    with pytest.raises(DataError, match="size '224': expected a whole number"):
        Preprocessing.from_json(json.dumps({**fields, "size": "224"}))
    with pytest.raises(DataError, match="expected the fields fit, interpolation, mean, order, resize, size, std"):
        Preprocessing.from_json(json.dumps({**fields, "colour": "RGB"}))


@pytest.mark.parametrize("text", ["", "[]", "{}", "{size: 3}", None, '{"size": 224}', "12"])
def test_what_is_no_preprocessing_is_refused(text):
    with pytest.raises(DataError, match=r"^preprocessing "):
        Preprocessing.from_json(text)


@given(sides, sides, st.integers(1, 400))
def test_shorter_side(height, width, side):
    if max(height, width) > 100 * min(height, width):
        return
    if side * max(height, width) / min(height, width) > 2000:
        return
    image = np.zeros((height, width, 3), np.uint8)
    new_height, new_width = resize_shorter_side(image, side, "nearest").shape[:2]
    assert min(new_height, new_width) == side
    longer, shorter = max(height, width), min(height, width)
    assert abs(max(new_height, new_width) - longer * side / shorter) <= 0.5
    assert (new_height > new_width) <= (height > width)
    assert (new_height < new_width) <= (height < width)


def test_warp_forgets_the_proportions():
    image = pixels(30, 50, 3)
    warped = fit(image, Preprocessing(size=16, resize=20, fit="warp"))
    np.testing.assert_array_equal(warped, Image.fromarray(image).resize((20, 20), Image.Resampling.BILINEAR))
    assert fit(image, Preprocessing(size=16, resize=20)).shape == (20, 33, 3)


def test_resize_by_hand():
    """Halved: bilinear widens its triangle to 3 3 1, cubic its curve; area is the mean of two, nearest one of them."""
    row = np.array([0, 80, 160, 240], np.uint8)
    halved = resize(np.stack([row] * 3, axis=1)[None], 1, 2, "area")
    assert halved.shape == (1, 2, 3)
    weights = {  # of the first output pixel, whose centre lies between the first two
        "bilinear": [0.75, 0.75, 0.25, 0],
        "cubic": [0.8671875, 0.8671875, 0.2265625, -0.0703125],  # 1.5 t^3 - 2.5 t^2 + 1; -0.5 t^3 + 2.5 t^2 - 4 t + 2
        "area": [1, 1, 0, 0],
        "nearest": [0, 1, 0, 0],
    }
    for name, weight in weights.items():
        found = resize(np.stack([row] * 3, axis=1)[None], 1, 2, name)[0, 0]
        assert found.tolist() == [round(np.dot(weight, row) / sum(weight))] * 3, name


def test_a_thread_of_a_picture_is_refused():
    with pytest.raises(DataError, match="4 x 401 pixels is too thin"):
        resize_shorter_side(np.zeros((401, 4, 3), np.uint8), 256, "bilinear")
    assert resize_shorter_side(np.zeros((400, 4, 3), np.uint8), 8, "bilinear").shape == (800, 8, 3)


def test_mean_counts_each_image_alike(tmp_path):
    """A large black and a small coloured picture: half of the colour."""
    write_picture(tmp_path / "a.png", np.zeros((20, 30, 3), np.uint8))
    write_picture(tmp_path / "b.png", np.full((2, 2, 3), (255, 30, 60), np.uint8))
    dataset = FileDataset(tmp_path, [0, 0], ["a.png", "b.png"], ["c"])
    assert channel_statistics(dataset)[0] == (127.5, 15.0, 30.0)


def test_mean_passes_damaged_images_over(tmp_path):
    write_picture(tmp_path / "a.png")
    write_picture(tmp_path / "b.png", np.full((2, 2, 3), 7, np.uint8))
    truncate(tmp_path / "a.png")
    dataset = FileDataset(tmp_path, [0, 0], ["a.png", "b.png"], ["c"])
    assert channel_statistics(dataset) == ((7.0, 7.0, 7.0), (0.0, 0.0, 0.0))
    with pytest.raises(DataError, match="none of the images can be read"):
        channel_statistics(FileDataset(tmp_path, [0], ["a.png"], ["c"]))


def test_mean_of_many_reads_a_few_at_even_distances():
    images = np.arange(100, dtype=np.uint8).reshape(-1, 1, 1)
    dataset = ArrayDataset(images, [0] * 100, [""] * 100, ["c"], "set")
    few = np.array([0, 33, 66, 99])
    (mean, _, _), (deviation, _, _) = channel_statistics(dataset, limit=4)
    assert mean == few.mean()
    assert deviation == pytest.approx(few.std(), rel=1e-12)
    assert channel_statistics(dataset, limit=1000)[0][0] == 49.5
