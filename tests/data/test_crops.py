import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.crops import COUNTS, SCALES, crops, scales, shared_crops, sheet
from data.errors import DataError
from data.preprocess import CAFFE, PREPROCESSINGS, Preprocessing, fit
from data.resize import resize
from tests.data.files import pixels

NEAREST = Preprocessing(size=8, resize=8, interpolation="nearest")


def coordinates(height, width):
    """An image whose pixels say where they are: (row, column, 0)."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.zeros_like(rows)], axis=2).astype(np.uint8)


def corner(crop):
    """(row, column) of a crop's first pixel, and whether it is mirrored."""
    first, second = crop[0, 0, :2].tolist(), crop[0, 1, :2].tolist()
    return first[0], min(first[1], crop[0, -1, 1]), second[1] < first[1]


def test_one_crop_is_the_centre():
    preprocessing = Preprocessing(size=8, resize=10)  # the picture is 10 x 13 already: nothing is interpolated
    crop = crops(coordinates(10, 13), 1, preprocessing)
    assert crop.shape == (1, 8, 8, 3)
    assert corner(crop[0]) == (1, 2, False)


def test_ten_crops_are_corners_and_centre_then_their_mirrors():
    ten = crops(coordinates(13, 10), 10, Preprocessing(size=8, resize=10))
    assert ten.shape == (10, 8, 8, 3)
    places = [(0, 0), (0, 2), (5, 0), (5, 2), (2, 1)]
    assert [corner(crop) for crop in ten] == [(*place, False) for place in places] + [
        (*place, True) for place in places
    ]
    np.testing.assert_array_equal(ten[5:], ten[:5, :, ::-1])


def test_ten_crops_of_a_warped_picture():
    image = pixels(100, 150, 3)
    ten = crops(image, 10, CAFFE)
    warped = resize(image, 256, 256, "bilinear")
    np.testing.assert_array_equal(ten[4], warped[16:240, 16:240])
    np.testing.assert_array_equal(ten[3], warped[32:, 32:])
    np.testing.assert_array_equal(crops(image, 1, CAFFE)[0], ten[4])


@pytest.mark.parametrize("name", ["slim", "onnx", "inception5h"])
def test_ten_crops_find_room_where_the_picture_is_warped_to_the_networks_size(name):
    """The whole picture is then warped to 256 x 256, of which slim's central 87.5 % are the middle 224."""
    image, preprocessing = pixels(64, 96, 3), PREPROCESSINGS[name].at(28)
    ten = crops(image, 10, preprocessing)
    warped = resize(image, 32, 32, preprocessing.interpolation)
    for crop, (top, left) in zip(ten, [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)], strict=False):
        np.testing.assert_array_equal(crop, warped[top : top + 28, left : left + 28])
    np.testing.assert_array_equal(ten[5:], ten[:5, :, ::-1])
    if name == "slim":
        np.testing.assert_allclose(ten[4], crops(image, 1, preprocessing)[0], rtol=0, atol=1e-3)


def test_ten_crops_of_a_shorter_side_keep_what_room_there_is():
    narrow = Preprocessing(size=8, resize=8, interpolation="nearest")
    ten = crops(coordinates(8, 12), 10, narrow)
    assert [corner(crop)[:2] for crop in ten[:5]] == [(0, 0), (0, 4), (0, 0), (0, 4), (0, 2)]


# The paper's scales for a 300 x 400 picture: shorter side -> (longer side, starts of the three squares along it).
LANDSCAPE = {
    256: (341, (0, 42, 85)),  # 400 * 256 / 300 = 341.3; 341 - 256 = 85
    288: (384, (0, 48, 96)),
    320: (427, (0, 53, 107)),  # 426.7
    352: (469, (0, 58, 117)),  # 469.3
}


@pytest.mark.parametrize("portrait", [False, True])
def test_144_crops_against_literal_arithmetic(portrait):
    image = pixels(400, 300, 3) if portrait else pixels(300, 400, 3)
    expected = []
    for side, (longer, starts) in LANDSCAPE.items():
        scaled = resize(image, *((longer, side) if portrait else (side, longer)), "bilinear")
        far, middle = side - 224, (side - 224) // 2
        for start in starts:
            square = scaled[start : start + side] if portrait else scaled[:, start : start + side]
            assert square.shape == (side, side, 3)
            views = [
                square[:224, :224],
                square[:224, far:],
                square[far:, :224],
                square[far:, far:],
                square[middle : middle + 224, middle : middle + 224],
                resize(square, 224, 224, "bilinear"),
            ]
            expected += views + [np.fliplr(view) for view in views]
    found = crops(image, 144, Preprocessing())
    assert found.shape == (144, 224, 224, 3)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.stack(expected))


def test_144_crops_are_of_the_shorter_side_even_where_the_picture_is_warped():
    image = pixels(30, 40, 3)
    small = Preprocessing(size=28, resize=32)
    warped = Preprocessing(size=28, resize=32, fit="warp")
    np.testing.assert_array_equal(crops(image, 144, warped), crops(image, 144, small))


@pytest.mark.parametrize("count", [1, 10, 144])
@pytest.mark.parametrize("name", list(PREPROCESSINGS))
def test_every_preprocessing_has_every_count_of_crops(name, count):
    preprocessing = PREPROCESSINGS[name].at(28)
    found = crops(pixels(37, 50, 3), count, preprocessing)
    assert found.shape == (count, 28, 28, 3)
    assert found.dtype == (np.float32 if name in ("slim", "inception5h") else np.uint8)


@pytest.mark.parametrize("name", list(PREPROCESSINGS))
def test_144_crops_by_each_interpolation(name):
    """At each scale, of the first square, the first view and the whole."""
    image, preprocessing = pixels(37, 50, 3), PREPROCESSINGS[name].at(28)
    found = crops(image, 144, preprocessing).reshape(4, 3, 12, 28, 28, 3)
    for number, (side, longer) in enumerate([(32, 43), (36, 49), (40, 54), (44, 59)]):
        scaled = resize(image, side, longer, preprocessing.interpolation)
        np.testing.assert_array_equal(found[number, 0, 0], scaled[:28, :28])
        whole = resize(scaled[:, :side], 28, 28, preprocessing.interpolation)
        np.testing.assert_array_equal(found[number, 0, 5], whole)


def test_one_crop_of_the_networks_size_is_what_was_fitted():
    image = pixels(37, 50, 3)
    for name in ("slim", "onnx", "inception5h"):
        preprocessing = PREPROCESSINGS[name].at(28)
        np.testing.assert_array_equal(crops(image, 1, preprocessing)[0], fit(image, preprocessing))


def test_a_square_picture_has_48_distinct_crops():
    image = pixels(40, 40, 3)
    found = crops(image, 144, Preprocessing(size=28))
    assert found.shape == (48, 28, 28, 3)
    assert len({crop.tobytes() for crop in found}) == 48


@pytest.mark.parametrize("shape", [(320, 319, 3), (319, 320, 3)])
def test_an_almost_square_picture_keeps_144(shape):
    """At some scales its squares coincide, at others not: left out, they would no longer count three times."""
    assert len(crops(pixels(*shape), 144, Preprocessing())) == 144


def test_scales_for_other_input_sizes():
    assert scales(224) == SCALES == (256, 288, 320, 352)
    assert scales(64) == (73, 82, 91, 101)  # 73.1, 82.3, 91.4, 100.6
    assert scales(448) == (512, 576, 640, 704)


@given(st.integers(8, 60), st.integers(8, 60), st.sampled_from([1, 10, 144]), st.integers(1, 12))
def test_any_picture_gives_whole_crops(height, width, count, size):
    image = coordinates(height, width) + np.uint8(1)  # no black: padding would show
    found = crops(image, count, Preprocessing(size=size, interpolation="nearest"))
    assert found.shape == (48 if count == 144 and height == width else count, size, size, 3)
    assert found[..., 0].min() >= 1
    assert found[..., 1].min() >= 1


@pytest.mark.parametrize("count", [0, 2, 48, 145])
def test_other_counts_are_refused(count):
    with pytest.raises(DataError, match=f"^{count} crops: expected 1, 10, 144"):
        crops(pixels(10, 10, 3), count, NEAREST)


@pytest.mark.parametrize("shape", [(30, 47), (47, 30), (30, 30)])
def test_a_row_of_the_sheet_is_a_square_and_a_column_a_view(shape):
    image, preprocessing = pixels(*shape, 3), Preprocessing(size=24)
    page = np.asarray(sheet(image, preprocessing))
    squares = 1 if shape[0] == shape[1] else 3
    for number, crop in enumerate(crops(image, 144, preprocessing)):
        row, column = divmod(number, 12)
        y = 64 + row * 76 + row // squares * 14
        x = 16 + 180 + 58 + column * 76 + column // 6 * 14
        np.testing.assert_array_equal(page[y : y + 72, x : x + 72], resize(crop, 72, 72, "bilinear"))


def test_the_sheet_of_a_square_has_a_third_of_the_rows():
    landscape, square = (sheet(pixels(*shape, 3), NEAREST) for shape in ((20, 30), (20, 20)))
    assert landscape.width == square.width
    assert landscape.height - square.height == 8 * 76


def test_the_sheet_rounds_fractions():
    image = pixels(30, 47, 3)
    preprocessing = Preprocessing(size=24, interpolation="tensorflow")
    page = np.asarray(sheet(image, preprocessing))
    first = np.rint(crops(image, 144, preprocessing)[0]).astype(np.uint8)
    x = 16 + 180 + 58
    np.testing.assert_array_equal(page[64 : 64 + 72, x : x + 72], resize(first, 72, 72, "bilinear"))


@pytest.mark.parametrize("shape", [(20, 30), (30, 20), (20, 20), (5, 400), (400, 5)])
def test_the_sheet_takes_any_shape(shape):
    page = np.asarray(sheet(pixels(*shape, 3), Preprocessing(size=16)))
    assert (page[-8:] == 255).all(), "the margin stays free"
    assert (page[:, -8:] == 255).all(), "the margin stays free"


# Of several tests at once.

@pytest.mark.parametrize("shape", [(40, 60), (50, 50), (60, 41)])
@pytest.mark.parametrize("name", ["paper", "slim", "torchvision"])
def test_shared_crops_are_those_of_each_test(shape, name):
    image, preprocessing = pixels(*shape, 3), PREPROCESSINGS[name].at(28)
    shared = shared_crops(image, COUNTS, preprocessing)
    for count in COUNTS:
        expected = crops(image, count, preprocessing)
        assert shared.views.dtype == expected.dtype
        np.testing.assert_array_equal(shared.views[shared.places[count]], expected)
    assert len({view.tobytes() for view in shared.views}) == len(shared.views)


def test_crops_of_a_single_colour_are_one():
    shared = shared_crops(np.full((40, 60, 3), 7, np.uint8), COUNTS, Preprocessing(size=28))
    assert shared.views.shape == (1, 28, 28, 3)
    assert [len(places) for places in shared.places.values()] == [1, 10, 144]
