import math
import platform

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data.resize import INTERPOLATIONS, resize
from tests.data.files import pixels

# Input and output sides: odd, portrait and landscape, tiny, thin; shrunk, enlarged, halved, kept along an axis or both.
SIZES = [
    ((375, 500), (256, 256)),
    ((500, 333), (224, 224)),
    ((1201, 801), (224, 224)),
    ((100, 81), (224, 225)),
    ((448, 448), (224, 224)),
    ((224, 500), (224, 224)),
    ((500, 224), (300, 224)),
    ((224, 224), (224, 224)),
    ((1, 1), (7, 9)),
    ((2, 3), (5, 9)),
    ((1, 700), (224, 224)),
    ((700, 2), (224, 224)),
    ((5, 7), (1, 1)),
    ((37, 53), (100, 3)),
]


def opencv_pixel(image, row, column, height, width):
    """One pixel of cv2.resize(INTER_LINEAR), three channels, in Python's whole numbers."""
    old_height, old_width = image.shape[:2]

    def place(index, old, new):
        exact = np.float32((index + 0.5) * (1 / (new / old)) - 0.5)
        whole = math.floor(exact)
        return whole, exact - np.float32(whole)

    y, down = place(row, old_height, height)
    x, right = place(column, old_width, width)
    if x < 0:
        x, right = 0, np.float32(0)
    if x >= old_width - 1:
        x, right = old_width - 1, np.float32(0)
    a0, a1, b0, b1 = (round(float(w) * 2048) for w in (np.float32(1) - right, right, np.float32(1) - down, down))
    found = []
    for channel in range(3):
        sums = []
        for number in (y, y + 1):
            line = image[min(max(number, 0), old_height - 1), :, channel]
            sums.append(int(line[x]) * a0 + int(line[min(x + 1, old_width - 1)]) * a1)
        found.append((((b0 * (sums[0] >> 4)) >> 16) + ((b1 * (sums[1] >> 4)) >> 16) + 2) >> 2)
    return found


def tensorflow_pixel(image, row, column, height, width):
    """One pixel of resize_bilinear(align_corners=False), three channels, in float64."""
    old_height, old_width = image.shape[:2]
    y, x = row * old_height / height, column * old_width / width
    above, before = math.floor(y), math.floor(x)
    below, behind = min(above + 1, old_height - 1), min(before + 1, old_width - 1)
    corners = image.astype(np.float64)
    upper = corners[above, before] * (1 - x + before) + corners[above, behind] * (x - before)
    lower = corners[below, before] * (1 - x + before) + corners[below, behind] * (x - before)
    return upper * (1 - y + above) + lower * (y - above)


def every_pixel(function, image, height, width):
    return np.array([[function(image, y, x, height, width) for x in range(width)] for y in range(height)])


sides = st.integers(1, 23)


@given(sides, sides, sides, sides)
def test_opencv_is_the_loop(old_height, old_width, height, width):
    image = pixels(old_height, old_width, 3)
    found = resize(image, height, width, "opencv")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, every_pixel(opencv_pixel, image, height, width))


@given(sides, sides, sides, sides)
def test_tensorflow_is_the_loop(old_height, old_width, height, width):
    image = pixels(old_height, old_width, 3)
    found = resize(image, height, width, "tensorflow")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, every_pixel(tensorflow_pixel, image, height, width), rtol=0, atol=2e-3)


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_opencv_is_opencvs(old, new):
    cv2 = pytest.importorskip("cv2", reason="needs opencv-python-headless")
    image = pixels(*old, 3)
    expected = cv2.resize(image, new[::-1], interpolation=cv2.INTER_LINEAR)
    # Elsewhere its builds have loops of their own, which round differently.
    most = 0 if platform.machine().lower() in ("x86_64", "amd64") else 1
    assert np.abs(resize(image, *new, "opencv").astype(int) - expected).max() <= most


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_tensorflow_is_tensorflows(old, new):
    tensorflow = pytest.importorskip("tensorflow", reason="needs TensorFlow")
    image = pixels(*old, 3)
    expected = tensorflow.compat.v1.image.resize_bilinear(image[None], new, align_corners=False)[0].numpy()
    np.testing.assert_allclose(resize(image, *new, "tensorflow"), expected, rtol=0, atol=1e-4)


def test_resize_by_hand():
    """Halved: bilinear widens its triangle to 3 3 1, cubic its curve; area is the mean of two, nearest one of them;
    OpenCV takes the mean of the two around the centre, TensorFlow the first of them."""
    row = np.array([0, 80, 160, 240], np.uint8)
    halved = resize(np.stack([row] * 3, axis=1)[None], 1, 2, "area")
    assert halved.shape == (1, 2, 3)
    weights = {  # of the first output pixel, whose centre lies between the first two
        "bilinear": [0.75, 0.75, 0.25, 0],
        "cubic": [0.8671875, 0.8671875, 0.2265625, -0.0703125],  # 1.5 t^3 - 2.5 t^2 + 1; -0.5 t^3 + 2.5 t^2 - 4 t + 2
        "area": [1, 1, 0, 0],
        "nearest": [0, 1, 0, 0],
        "opencv": [1, 1, 0, 0],
        "tensorflow": [1, 0, 0, 0],
    }
    assert set(weights) == set(INTERPOLATIONS)
    for name, weight in weights.items():
        found = resize(np.stack([row] * 3, axis=1)[None], 1, 2, name)[0, 0]
        assert found.tolist() == [round(np.dot(weight, row) / sum(weight))] * 3, name


@pytest.mark.parametrize("name", list(INTERPOLATIONS))
def test_the_same_size_is_the_same_picture(name):
    image = pixels(13, 17, 3)
    np.testing.assert_array_equal(resize(image, 13, 17, name), image)
    dtype = np.float32 if name == "tensorflow" else np.uint8
    assert resize(image, 13, 17, name).dtype == resize(image, 5, 6, name).dtype == dtype


def test_pillows_are_pillows():
    image = pixels(31, 47, 3)
    resamples = {"bilinear": "BILINEAR", "area": "BOX", "nearest": "NEAREST", "cubic": "BICUBIC"}
    for name, resample in resamples.items():
        expected = Image.fromarray(image).resize((20, 24), Image.Resampling[resample])
        np.testing.assert_array_equal(resize(image, 24, 20, name), expected)


def test_a_float_picture_is_resized_again_without_rounding():
    """Of the 144 crops some are squares of what was resized before."""
    image = pixels(9, 9, 3)
    twice = resize(resize(image, 7, 7, "tensorflow"), 5, 5, "tensorflow")
    exact = every_pixel(tensorflow_pixel, every_pixel(tensorflow_pixel, image, 7, 7), 5, 5)
    np.testing.assert_allclose(twice, exact, rtol=0, atol=1e-3)
