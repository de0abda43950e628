"""Fifty odd or hostile files that a folder of photos may hold."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.files import pixels


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def huge(side):
    """A PNG of a hundred bytes whose header promises side x side pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def encoded(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def odd_pictures():
    """{name: bytes} of pictures that must be decoded, and of those that can't be."""
    rgb = Image.fromarray(pixels(40, 40, 3))
    grey16 = Image.fromarray(pixels(40, 40).astype(np.uint16) * 257)
    turned = Image.Exif()
    turned[0x112] = 6
    frames = [Image.new("P", (9, 9), i) for i in range(3)]
    jpeg, png = encoded(rgb, "JPEG"), encoded(rgb, "PNG")
    good = {
        "cmyk.JPEG": encoded(rgb.convert("CMYK"), "JPEG"),
        "cmyk.tif": encoded(rgb.convert("CMYK"), "TIFF"),
        "grey.jpg": encoded(rgb.convert("L"), "JPEG"),
        "grey.png": encoded(rgb.convert("L"), "PNG"),
        "two levels.png": encoded(rgb.convert("1"), "PNG"),
        "two levels.tif": encoded(rgb.convert("1"), "TIFF", compression="group4"),
        "sixteen bits.png": encoded(grey16, "PNG"),
        "sixteen bits.tif": encoded(grey16, "TIFF"),
        "sixteen bits.pgm": b"P5 40 40 65535\n" + np.asarray(grey16).astype(">u2").tobytes(),
        "alpha.png": encoded(rgb.convert("RGBA"), "PNG"),
        "alpha.webp": encoded(rgb.convert("RGBA"), "WEBP"),
        "grey alpha.png": encoded(rgb.convert("LA"), "PNG"),
        "palette.png": encoded(rgb.convert("P"), "PNG"),
        "palette.gif": encoded(rgb.convert("P"), "GIF"),
        "palette.bmp": encoded(rgb.convert("P"), "BMP"),
        "transparent colour.gif": encoded(rgb.convert("P"), "GIF", transparency=3),
        "animated.gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "animated.webp": encoded(rgb, "WEBP", save_all=True, append_images=[rgb]),
        "pages.tif": encoded(rgb, "TIFF", save_all=True, append_images=[rgb]),
        "turned.jpg": encoded(rgb, "JPEG", exif=turned),
        "turned.png": encoded(rgb, "PNG", exif=turned),
        "png named.JPEG": png,
        "webp named.jpg": encoded(rgb, "WEBP"),
        "gif named.png": encoded(rgb, "GIF"),
        "progressive.jpg": encoded(rgb, "JPEG", progressive=True),
        "one pixel.png": encoded(rgb.crop((0, 0, 1, 1)), "PNG"),
        "junk behind.jpg": jpeg + bytes(5000),
        "junk behind.png": png + b"<html>",
        "größer ☃ 猫.jpg": jpeg,
        f"{'n' * 246}.jpg": jpeg,
        "-rf *.jpg": jpeg,
        "a\nline.jpg": jpeg,
        "LOUD.JPG": jpeg,
    }
    bad = {
        "empty.jpg": b"",
        "zero bytes.jpg": bytes(3000),
        "text.jpg": b"<html>404 not found</html>",
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "truncated.png": png[: len(png) // 2],
        "truncated.gif": encoded(rgb, "GIF")[:900],
        "truncated.webp": encoded(rgb, "WEBP")[:200],
        "truncated.tif": encoded(rgb, "TIFF")[:600],
        "header only.jpg": jpeg[:20],
        "bomb.png": huge(12_000),
        "bomb beyond.png": huge(60_000),
        "bomb.ppm": b"P6 30000 30000 255\n",
        "damaged.png": png[:100] + bytes(60) + png[160:],
        "floating.tif": encoded(Image.fromarray(pixels(9, 9).astype(np.float32)), "TIFF"),
        "postscript.jpg": encoded(rgb, "EPS"),
    }
    return good, bad


def write_odd_folder(folder: Path):
    """Write all of them, and a folder and a link that bear a picture's name; returns the names (good, bad)."""
    good, bad = odd_pictures()
    folder.mkdir(parents=True)
    for name, content in {**good, **bad}.items():
        (folder / name).write_bytes(content)
    (folder / "folder.jpg").mkdir()
    (folder / "loop.jpg").symlink_to("loop.jpg")
    assert len(list(folder.iterdir())) == 50
    return list(good), list(bad)
