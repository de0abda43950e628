import json
import platform
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data.base import ArrayDataset, FileDataset
from data.crops import crops
from data.errors import DataError
from data.preprocess import CAFFE, PREPROCESSINGS, Preprocessing, channel_statistics, fit, resize_shorter_side
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
        fit=st.sampled_from(["short", "torchvision", "warp"]),
        interpolation=st.sampled_from(["bilinear", "area", "nearest", "cubic", "opencv", "tensorflow"]),
        order=st.sampled_from(["RGB", "BGR"]),
        mean=st.tuples(numbers, numbers, numbers),
        std=st.tuples(*[st.floats(1e-3, 1e3)] * 3),
        central=st.floats(0.01, 1),
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
        ({"fit": "long"}, "fit 'long': expected one of short, torchvision, warp"),
        ({"fit": ["short"]}, "fit .*: expected one of"),
        ({"interpolation": "sinc"}, "interpolation 'sinc': expected one of bilinear, area, nearest, cubic, opencv"),
        ({"order": "GBR"}, "order 'GBR': expected one of RGB, BGR"),
        ({"mean": (1, 2)}, r"mean \(1, 2\): expected three numbers"),
        ({"mean": 5}, "mean 5: expected three numbers"),
        ({"mean": (1, 2, float("nan"))}, "expected three finite numbers"),
        ({"std": (1, 0, 1)}, r"std \(1.0, 0.0, 1.0\): expected three positive numbers"),
        ({"central": 0}, "central 0: expected a part of the picture, 0.01 to 1"),
        ({"central": 1.5}, "central 1.5: expected a part"),
        ({"central": float("nan")}, "central nan: expected a part"),
        ({"central": True}, "central True: expected a part"),
        ({"central": "0.5"}, "central '0.5': expected a part"),
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
    with pytest.raises(DataError, match="beyond all floats"):
        Preprocessing.from_json(json.dumps({**fields, "mean": [10**400, 1, 2]}))
    with pytest.raises(DataError, match="the fields central, fit, interpolation, mean, order, resize, size, std"):
        Preprocessing.from_json(json.dumps({**fields, "colour": "RGB"}))


def test_files_from_before_a_field_was_added_are_read():
    old = (
        '{"size": 224, "resize": 256, "fit": "warp", "interpolation": "bilinear", "order": "BGR", '
        '"mean": [104.0, 117.0, 123.0], "std": [1.0, 1.0, 1.0]}'
    )
    assert Preprocessing.from_json(old) == CAFFE
    fields = json.loads(old)
    for name in fields:
        with pytest.raises(DataError, match="expected the fields"):
            Preprocessing.from_json(json.dumps({key: value for key, value in fields.items() if key != name}))


@pytest.mark.parametrize("text", ["", "[]", "{}", "{size: 3}", None, '{"size": 224}', "12", "[" * 100_000])
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


# Height and width of pictures: odd, portrait and landscape, tiny, thin, already of the size with an odd margin.
SHAPES = [(375, 500), (500, 375), (301, 301), (333, 500), (1023, 769), (256, 387), (389, 256), (1, 1), (2, 3), (5, 400)]


def network_input(image, name):
    return PREPROCESSINGS[name].normalise(crops(image, 1, PREPROCESSINGS[name]))[0]


@pytest.mark.parametrize("shape", SHAPES)
def test_torchvisions(shape):
    """Its Resize(256), CenterCrop(224), ToTensor and Normalize, then its network's transform_input, written out."""
    image = pixels(*shape, 3)
    height, width = shape
    shorter, longer = (width, height) if width <= height else (height, width)
    new_long = int(256 * longer / shorter)
    new_width, new_height = (256, new_long) if width <= height else (new_long, 256)
    resized = np.asarray(Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR))
    top, left = round((new_height - 224) / 2.0), round((new_width - 224) / 2.0)
    x = resized[top : top + 224, left : left + 224].astype(np.float32) / 255
    x = (x - np.array([0.485, 0.456, 0.406], np.float32)) / np.array([0.229, 0.224, 0.225], np.float32)
    x = x * (np.array([0.229, 0.224, 0.225]) / 0.5) + (np.array([0.485, 0.456, 0.406]) - 0.5) / 0.5
    np.testing.assert_array_equal(crops(image, 1, PREPROCESSINGS["torchvision"])[0], resized[top:, left:][:224, :224])
    np.testing.assert_allclose(network_input(image, "torchvision"), x, rtol=0, atol=2e-6)


def test_torchvision_rounds_otherwise_than_we_do():
    ours, theirs = Preprocessing(), Preprocessing(fit="torchvision")
    wide, tall = pixels(320, 427, 3), pixels(427, 320, 3)  # 427 * 256 / 320 = 341.6
    assert [fit(picture, ours).shape for picture in (wide, tall)] == [(256, 342, 3), (342, 256, 3)]
    assert [fit(picture, theirs).shape for picture in (wide, tall)] == [(256, 341, 3), (341, 256, 3)]
    odd = pixels(256, 387, 3)  # 163 pixels beside the crop: 81.5 to even is 82
    np.testing.assert_array_equal(crops(odd, 1, ours)[0], odd[16:240, 81:305])
    np.testing.assert_array_equal(crops(odd, 1, theirs)[0], odd[16:240, 82:306])


def test_torchvision_refuses_a_thread_of_a_picture_too():
    with pytest.raises(DataError, match="4 x 401 pixels is too thin"):
        fit(np.zeros((401, 4, 3), np.uint8), PREPROCESSINGS["torchvision"])


@pytest.mark.parametrize("shape", SHAPES)
def test_slims(shape):
    """slim's preprocess_for_eval, by TensorFlow."""
    tensorflow = pytest.importorskip("tensorflow", reason="needs TensorFlow")
    image = pixels(*shape, 3)
    x = tensorflow.image.convert_image_dtype(image, tensorflow.float32)
    x = tensorflow.image.central_crop(x, central_fraction=0.875)
    x = tensorflow.compat.v1.image.resize_bilinear(x[None], [224, 224], align_corners=False)[0]
    np.testing.assert_allclose(network_input(image, "slim"), (x.numpy() - 0.5) * 2, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("part", [0.875, 0.5, 0.333, 0.01, 1.0])
def test_central_part_is_tensorflows(shape, part):
    tensorflow = pytest.importorskip("tensorflow", reason="needs TensorFlow")
    image = pixels(*shape, 3)
    expected = tensorflow.image.central_crop(image, central_fraction=part).numpy()
    side = max(expected.shape[:2])
    found = fit(image, Preprocessing(size=1, resize=side, fit="warp", interpolation="nearest", central=part))
    np.testing.assert_array_equal(found, Image.fromarray(expected).resize((side, side), Image.Resampling.NEAREST))


@pytest.mark.parametrize(
    ("shape", "top", "left"),
    # Half of what 12.5 % leave out, rounded down: 375 / 16 = 23.4, 500 / 16 = 31.25, 15 / 16 and 16 / 16.
    [((375, 500), 23, 31), ((500, 375), 31, 23), ((15, 16), 0, 1), ((1, 33), 0, 2)],
)
def test_slims_rim(shape, top, left):
    image = pixels(*shape, 3)
    inner = image[top : shape[0] - top, left : shape[1] - left]
    whole = replace(PREPROCESSINGS["slim"], central=1.0)
    np.testing.assert_array_equal(crops(image, 1, PREPROCESSINGS["slim"]), crops(inner, 1, whole))


@pytest.mark.parametrize("shape", SHAPES)
def test_caffes_by_opencv(shape):
    cv2 = pytest.importorskip("cv2", reason="needs opencv-python-headless")
    image = pixels(*shape, 3)
    bgr = cv2.resize(np.ascontiguousarray(image[..., ::-1]), (256, 256))
    expected = bgr[16:240, 16:240] - np.array([104, 117, 123], np.float32)
    most = 0 if platform.machine().lower() in ("x86_64", "amd64") else 1
    assert np.abs(network_input(image, "caffe-opencv") - expected).max() <= most


@pytest.mark.parametrize("shape", SHAPES)
def test_the_onnx_zoos(shape):
    """What its readme says: Pillow's resize with its default, the means off, the channels turned round."""
    image = pixels(*shape, 3)
    expected = np.array(Image.fromarray(image).resize((224, 224))).astype(np.float32)
    expected -= np.array([123.68, 116.779, 103.939], np.float32)
    np.testing.assert_array_equal(network_input(image, "onnx"), expected[..., ::-1])


@pytest.mark.parametrize("shape", SHAPES)
def test_inception5hs(shape):
    tensorflow = pytest.importorskip("tensorflow", reason="needs TensorFlow")
    image = pixels(*shape, 3)
    expected = tensorflow.compat.v1.image.resize_bilinear(image[None], [224, 224])[0].numpy() - 117
    np.testing.assert_allclose(network_input(image, "inception5h"), expected, rtol=0, atol=1e-4)


def test_published_preprocessings_in_words():
    assert {name: str(preprocessing) for name, preprocessing in PREPROCESSINGS.items()} == {
        "paper": "shorter side to 256 (bilinear), 224x224, RGB minus (123, 117, 104)",
        "caffe": "warped to 256x256 (bilinear), 224x224, BGR minus (104, 117, 123)",
        "caffe-opencv": "warped to 256x256 (opencv), 224x224, BGR minus (104, 117, 123)",
        "torchvision": "shorter side to 256 as in torchvision (bilinear), 224x224, RGB minus (127.5, 127.5, 127.5) "
        "over (127.5, 127.5, 127.5)",
        "slim": "central 0.875 of each side, warped to 224x224 (tensorflow), RGB minus (127.5, 127.5, 127.5) "
        "over (127.5, 127.5, 127.5)",
        "onnx": "warped to 224x224 (cubic), BGR minus (103.939, 116.779, 123.68)",
        "inception5h": "warped to 224x224 (tensorflow), RGB minus (117, 117, 117)",
        "matconvnet": "warped to 224x224 (cubic), RGB minus (123.68, 116.779, 103.939)",
    }
    for preprocessing in PREPROCESSINGS.values():
        assert Preprocessing.from_json(preprocessing.to_json()) == preprocessing


def test_for_a_network_of_another_size():
    assert CAFFE.at(64) == replace(CAFFE, size=64, resize=73)  # 73.1
    assert PREPROCESSINGS["slim"].at(32) == replace(PREPROCESSINGS["slim"], size=32, resize=32)
    for preprocessing in PREPROCESSINGS.values():
        assert preprocessing.at(224) == preprocessing
        assert crops(pixels(30, 40, 3), 1, preprocessing.at(32)).shape == (1, 32, 32, 3)


def test_normalise_takes_fractions():
    images = pixels(2, 3, 4, 3).astype(np.float32) + np.float32(0.25)
    preprocessing = Preprocessing(order="BGR", mean=(10.5, 20.25, 30.0), std=(2.0, 4.0, 8.0))
    expected = (images[..., ::-1] - np.array([10.5, 20.25, 30])) / [2, 4, 8]
    found = preprocessing.normalise(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


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
