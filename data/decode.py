"""One picture, a file or its bytes -> (H, W, 3) uint8 RGB, whatever a folder of photos may hold.

Real collections hold more than RGB JPEGs: ImageNet has CMYK JPEGs and a PNG named .JPEG, cameras note a quarter turn in
EXIF instead of turning the pixels, scans have 16 bits. All are decoded here as a viewer would show them.
"""

from __future__ import annotations

import io
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.errors import DataError

__all__ = ["FORMATS", "MAX_PIXELS", "SUFFIXES", "decode_image", "measure_image", "read_encoded", "read_image"]

# Pillow knows some forty formats; the others only widen the door to damaged files.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm")
)

# EXIF's tag and its values: how the stored pixels must be turned to stand upright.
ORIENTATION = 0x112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
QUARTERS = frozenset((TURNS[5], TURNS[6], TURNS[7], TURNS[8]))

# What Pillow's messages call the bytes of a picture.
MENTION = re.compile(r"<_io\.BytesIO object at 0x[0-9A-Fa-f]+>")

# Where Pillow begins to warn: a quarter of a gigabyte as RGB, out of a file that may be a few kilobytes.
MAX_PIXELS = 89_478_485


# No picture of so many pixels needs more in any of the formats.
MAX_BYTES = 6 * MAX_PIXELS


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Return the picture at `path`, (H, W, 3) uint8 RGB: upright by its EXIF, on white where transparent, first frame.

    Raises DataError, naming the file, when it is missing, truncated, damaged, too large or not a picture.
    """
    with _named(str(path)):
        _refuse_others(Path(path))
        return _decode(path)


def decode_image(content: bytes, name: str) -> NDArray[np.uint8]:
    """Return the picture that a file's bytes hold, as `read_image` does; messages call it `name`."""
    with _named(name):
        return _decode(io.BytesIO(content))


def measure_image(content: bytes, name: str) -> tuple[int, int]:
    """Return (H, W) of the upright picture as its header tells, without decoding it. Raises DataError as above."""
    with _named(name), Image.open(io.BytesIO(content), formats=FORMATS) as image:
        _refuse_bomb(image)
        if image.format == "TIFF":  # Pillow turns these itself when they are decoded, and their size before that
            image.load()
        turned = _turn(image) in QUARTERS
        return (image.width, image.height) if turned else (image.height, image.width)


def read_encoded(path: str | Path) -> bytes:
    """Return the bytes of a picture file. Raises DataError when it is missing, can't be read or is too large."""
    with _named(str(path)):
        size = _refuse_others(Path(path))
        if size > MAX_BYTES:
            raise DataError(f"{size} bytes, more than a picture of {MAX_PIXELS} pixels needs: remove it")
        return Path(path).read_bytes()


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Make a DataError that names the picture of whatever goes wrong with it."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{name}: no such file") from error
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    # A decoder fed a damaged file fails in many ways (OSError, SyntaxError, struct.error, zlib.error, IndexError ...):
    # for the caller they are one.
    except Exception as error:
        reason = MENTION.sub("the file", str(error).replace(repr(name), "the file")) or type(error).__name__
        reason = reason.replace("cannot identify image file the file", "it is no picture of a known format")
        raise DataError(f"{name}: cannot be decoded ({reason}): replace or remove it") from error


def _refuse_others(path: Path) -> int:
    """Return a file's size; a folder, a device or a pipe, which might never end, is an error."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise DataError("cannot be decoded, for it is no file but a folder, a device or a pipe: remove it")
    return found.st_size


def _decode(file: str | Path | io.BytesIO) -> NDArray[np.uint8]:
    with Image.open(file, formats=FORMATS) as image:
        _refuse_bomb(image)
        image.load()
        return _rgb(_upright(image))


def _refuse_bomb(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS}: scale it down first")


def _upright(image: Image.Image) -> Image.Image:
    """Return the image turned as EXIF says."""
    turn = _turn(image)
    return image if turn is None else image.transpose(turn)


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # a damaged EXIF block spoils no pixel
        return None


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):
        return _sixteen_bits(np.asarray(image))
    if image.mode == "F":
        raise DataError("holds floating-point pixels of unknown range: save it with 8 or 16 bits")
    if image.has_transparency_data:
        pixels = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", pixels.size, "white"), pixels)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))  # convert copies what is RGB already


def _sixteen_bits(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return greyscale (H, W) of 16 bits, which Pillow would clip at 255, by its upper eight."""
    wide = grey.astype(np.int64)
    if wide.min() < 0 or wide.max() > 65535:
        raise DataError(f"greyscale values {wide.min()} to {wide.max()}: expected 8 or 16 bits")
    return np.repeat((wide >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
