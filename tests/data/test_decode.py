import io
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data import decode
from data.datasets import open_dataset
from data.decode import FORMATS, decode_image, measure_image, read_encoded, read_image
from data.errors import DataError
from data.loader import Loader
from tests.data.files import pixels, truncate, write_picture
from tests.data.odd import huge, write_odd_folder

COLUMNS, ROWS = np.meshgrid(np.arange(0, 240, 10), np.arange(0, 160, 10))
SMOOTH = np.stack([COLUMNS, ROWS, np.full_like(ROWS, 99)], axis=2).astype(np.uint8)  # (16, 24, 3)


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tiff", "webp"])
def test_lossless_formats(tmp_path, suffix):
    path = write_picture(tmp_path / f"a.{suffix}", SMOOTH, **({"lossless": True} if suffix == "webp" else {}))
    np.testing.assert_array_equal(read_image(path), SMOOTH)


def test_jpeg_is_what_pillow_decodes(tmp_path):
    path = write_picture(tmp_path / "a.jpg", SMOOTH)
    np.testing.assert_array_equal(read_image(path), np.asarray(Image.open(path)))


def test_a_png_named_jpeg(tmp_path):
    path = tmp_path / "a.JPEG"
    Image.fromarray(SMOOTH).save(path, format="PNG")
    np.testing.assert_array_equal(read_image(path), SMOOTH)


def test_what_is_rgb_is_not_converted(tmp_path, monkeypatch):
    """To convert would be to copy it, in a place where each training image passes."""
    path = write_picture(tmp_path / "a.jpg", SMOOTH)
    expected = np.asarray(Image.open(path).convert("RGB"))
    monkeypatch.setattr(Image.Image, "convert", lambda self, mode: pytest.fail("converted"))
    np.testing.assert_array_equal(read_image(path), expected)


def test_a_transparent_colour_of_rgb_is_white(tmp_path):
    image = Image.new("RGB", (2, 1))
    image.putdata([(10, 20, 30), (40, 50, 60)])
    image.save(tmp_path / "a.png", transparency=(10, 20, 30))
    assert read_image(tmp_path / "a.png").tolist() == [[[255] * 3, [40, 50, 60]]]


def test_grey_is_repeated(tmp_path):
    grey = pixels(5, 7)
    np.testing.assert_array_equal(read_image(write_picture(tmp_path / "a.png", grey)), np.stack([grey] * 3, axis=2))


def test_two_levels(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[True, False]])).save(path)
    assert read_image(path).tolist() == [[[255] * 3, [0] * 3]]


def test_palette(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([1, 0])
    image.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").tolist() == [[[40, 50, 60], [10, 20, 30]]]


def test_cmyk(tmp_path):
    """Photographs in CMYK: no ink is white, full magenta and yellow are red."""
    path = tmp_path / "a.jpg"
    cmyk = np.zeros((16, 32, 4), np.uint8)
    cmyk[:, 16:, 1:3] = 255
    Image.fromarray(cmyk, "CMYK").save(path, quality=100)
    image = read_image(path).astype(int)
    assert image.shape == (16, 32, 3)
    assert np.abs(image[4, 4] - [255, 255, 255]).max() < 6
    assert np.abs(image[4, 28] - [255, 0, 0]).max() < 6


def test_sixteen_bits_keep_the_upper_eight(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[0, 255, 256, 0x8000, 0xFFFF]], np.uint16)).save(path)
    assert read_image(path)[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    assert read_image(path).shape == (1, 5, 3)
    assert read_image(path).dtype == np.uint8


def test_wider_pixels_are_refused(tmp_path):
    Image.fromarray(np.array([[0, 65536]], np.int32)).save(tmp_path / "a.tiff")
    with pytest.raises(DataError, match=r"a.tiff: greyscale values 0 to 65536: expected 8 or 16 bits"):
        read_image(tmp_path / "a.tiff")
    Image.fromarray(np.array([[0, 0.5]], np.float32)).save(tmp_path / "b.tiff")
    with pytest.raises(DataError, match=r"b.tiff: holds floating-point pixels"):
        read_image(tmp_path / "b.tiff")


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_is_white(tmp_path, mode):
    """Not the colour that lies hidden under full transparency; half of black on white is grey."""
    colours = [(0, 0, 0, 0), (0, 0, 0, 255), (0, 0, 0, 128)]
    image = Image.new("RGBA", (3, 1))
    image.putdata(colours)
    image.convert(mode).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0, :, 0].tolist() == [255, 0, 127]


def test_transparent_colour_of_a_palette_is_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    image.save(tmp_path / "a.gif", transparency=0)
    assert read_image(tmp_path / "a.gif").tolist() == [[[255] * 3, [40, 50, 60]]]


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "a.gif")[0, 0].tolist() == [255, 0, 0]


# What EXIF says of a picture stored as it came from the sensor -> how to show it (EXIF 2.3, tag 0x112).
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],  # a quarter turn clockwise
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("orientation", TURNS)
def test_exif_turns(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    path = write_picture(tmp_path / "a.png", SMOOTH, exif=exif)
    np.testing.assert_array_equal(read_image(path), TURNS[orientation](SMOOTH))


def exif():
    """A block of the least that EXIF may hold: a quarter turn and the camera's name."""
    block = Image.Exif()
    block[0x112], block[0x10F] = 6, "camera"
    return block.tobytes()


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(st.integers(0, len(exif()) - 1), st.integers(0, 255), st.integers(0, len(exif())))
def test_damaged_exif_spoils_no_pixel(tmp_path_factory, place, value, kept):
    block = bytearray(exif())
    block[place] = value
    path = tmp_path_factory.mktemp("exif") / "a.png"
    Image.fromarray(SMOOTH).save(path, exif=bytes(block[:kept]))
    assert sorted(read_image(path)[..., 0].ravel()) == sorted(SMOOTH[..., 0].ravel())


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tiff", "webp", "ppm"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.7])
def test_a_truncated_picture_is_named(tmp_path, suffix, keep):
    path = write_picture(tmp_path / f"a.{suffix}", pixels(40, 40, 3))
    truncate(path, keep)
    with pytest.raises(DataError, match=rf"a.{suffix}: cannot be decoded"):
        read_image(path)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(st.data())
def test_damage_is_never_another_error(tmp_path_factory, data):
    """Whatever is done to a picture's bytes, it decodes or it raises DataError."""
    picture = io.BytesIO()
    form = data.draw(st.sampled_from(["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM"]))
    Image.fromarray(SMOOTH).save(picture, form)
    content = bytearray(picture.getvalue())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "a"
    path.write_bytes(content)
    try:
        image = read_image(path)
    except DataError:
        return
    assert image.dtype == np.uint8
    assert image.shape[2:] == (3,)


@pytest.mark.parametrize("side", [9460, 15000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch, side):
    """A header that promises side x side pixels: Pillow alone warns of the first and raises for the second."""
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    path = tmp_path / "bomb.png"
    path.write_bytes(huge(side))
    with pytest.raises(DataError, match=r"bomb.png.*pixels"):
        read_image(path)
    assert side * side > decode.MAX_PIXELS


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match=r"a.png: no such file"):
        read_image(tmp_path / "a.png")
    with pytest.raises(DataError, match="cannot be decoded"):
        read_image(tmp_path)


def test_other_formats_stay_shut(tmp_path):
    """Pillow would open these."""
    assert "EPS" not in FORMATS
    Image.fromarray(SMOOTH).save(tmp_path / "a.jpg", format="EPS")
    with pytest.raises(DataError, match=r"a.jpg: cannot be decoded \(it is no picture of a known format\)"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", TURNS)
def test_a_picture_is_turned_once_and_measured_so(tmp_path, suffix, orientation):
    """Whichever of Pillow's readers turn by themselves."""
    exif = Image.Exif()
    exif[0x112] = orientation
    plain, turned = (write_picture(tmp_path / f"{name}.{suffix}", SMOOTH, **options)
                     for name, options in (("plain", {}), ("turned", {"exif": exif})))  # fmt: skip
    expected = TURNS[orientation](read_image(plain))
    np.testing.assert_array_equal(read_image(turned), expected)
    assert measure_image(turned.read_bytes(), "turned") == expected.shape[:2]


def test_bytes_are_decoded_as_the_file_is(tmp_path):
    path = write_picture(tmp_path / "a.jpg", SMOOTH)
    content = read_encoded(path)
    assert content == path.read_bytes()
    np.testing.assert_array_equal(decode_image(content, "a picture"), read_image(path))
    assert measure_image(content, "a picture") == (16, 24)
    for read in (decode_image, measure_image):
        with pytest.raises(DataError, match=r"^a picture: cannot be decoded \(it is no picture of a known format\)"):
            read(b"no picture", "a picture")
    with pytest.raises(DataError, match=r"b.jpg: no such file"):
        read_encoded(tmp_path / "b.jpg")


def test_a_file_larger_than_any_picture_is_not_read(tmp_path):
    path = tmp_path / "a.jpg"
    with open(path, "wb") as file:
        file.truncate(decode.MAX_BYTES + 1)
    with pytest.raises(DataError, match=r"a.jpg: \d+ bytes, more than a picture of \d+ pixels needs"):
        read_encoded(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    for read in (read_image, read_encoded):
        with pytest.raises(DataError, match=r"a.jpg: cannot be decoded, for it is no file but a folder, a device or"):
            read(tmp_path / "a.jpg")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(os.name != "posix", reason="names and links that only POSIX has")
def test_a_folder_of_odd_files(tmp_path, caplog):
    """Fifty files, 33 of them right: the 15 that can't be decoded are named by the loader, and two by the listing."""
    good, bad = write_odd_folder(tmp_path / "train" / "odd")
    (tmp_path / "train" / "loop").symlink_to("loop")

    dataset = open_dataset(tmp_path, "train")
    assert dataset.classes == ("odd",)
    listing = [record.getMessage() for record in caplog.records]
    assert len(listing) == 3
    assert all(any(str(tmp_path / "train" / name) in line for line in listing)
               for name in ("loop: ", "odd/folder.jpg: ", "odd/loop.jpg: "))  # fmt: skip

    loader = Loader(dataset, lambda image, rng: image[:1, :1].astype(np.float32), 8, seed=0, shuffle=True, threads=3,
                    max_bad=20)  # fmt: skip
    decoded = {dataset.names[i] for batch in loader.epoch(0) for i in batch.indices}
    assert decoded == {f"odd/{name}" for name in good}
    assert set(loader.bad) == {f"odd/{name}" for name in bad}
    assert len(decoded) == 33
    assert len(loader.bad) == 15
    for name, reason in loader.bad.items():
        assert name in reason
