"""The crops of testing, and a picture of them.

144 crops (section 7 of the paper): the picture's shorter side is resized to 256, 288, 320 and 352; at each scale three
squares are taken (left, centre and right; of a portrait top, centre and bottom); of each square the four corners and
the centre at 224 x 224, and the whole square resized to 224 x 224; each of these six also mirrored: 4 x 3 x 6 x 2.

The paper does not say what its tests with 1 and 10 crops were: here the centre, and the corners and the centre with
their mirror images, of the picture resized once. (AlexNet's ten are those of the middle 256 x 256, not of the whole
picture. A picture that is warped to the crop's own size is warped to more, so that there are corners:
`Preprocessing.with_room`. One whose shorter side is resized to the crop's stays whole, as it was in training: of a
square one the five views are one.) Nor does it say how pictures were interpolated; `Preprocessing.interpolation` does.
For a network of another input size S the scales are S / 224 of the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from data.errors import DataError
from data.preprocess import Preprocessing, fit, resize_shorter_side
from data.resize import Pixels, resize

__all__ = ["COUNTS", "SCALES", "VIEWS", "SharedCrops", "crops", "scales", "shared_crops", "sheet"]

COUNTS = (1, 10, 144)
SCALES = (256, 288, 320, 352)  # of the shorter side, for an input of 224
VIEWS = ("top left", "top right", "bottom left", "bottom right", "centre", "whole")


def crops(image: NDArray[np.uint8], count: int, preprocessing: Preprocessing) -> Pixels:
    """Return the 1, 10 or 144 crops of a picture, channels still RGB, 0..255: (H, W, 3) -> (K, S, S, 3).

    They are uint8, or float32 where the interpolation does not round ("tensorflow"). K is `count`, but 48 for the 144
    of a square picture: its three squares are identical, and the mean over the 48 is the mean over the 144. Order: 10
    is five views, then the five mirrored; 144 is scale by scale, in it square by square, in it six VIEWS and the six
    mirrored. Raises DataError for another count or a picture too thin to resize.
    """
    if count not in COUNTS:
        raise DataError(f"{count} crops: expected {', '.join(map(str, COUNTS))}")
    if count == 144:
        squares = _squares(image, preprocessing)
        return np.concatenate([_with_mirrors(_views(square, preprocessing)) for square in squares])
    if count == 1:
        return np.stack(_corners_and_centre(fit(image, preprocessing), preprocessing)[4:])
    return _with_mirrors(_corners_and_centre(fit(image, preprocessing.with_room()), preprocessing))


class SharedCrops(NamedTuple):
    """The crops of several tests of a picture: those of the test with `count` crops are `views[places[count]]`."""

    views: Pixels  # (D, S, S, 3), no two alike
    places: dict[int, NDArray[np.intp]]  # count -> (K,), in the order of `crops`


def shared_crops(image: NDArray[np.uint8], counts: Sequence[int], preprocessing: Preprocessing) -> SharedCrops:
    """Return the crops of several tests, each distinct one once.

    The centre is one of the ten, and at the paper's sizes the ten are among the 144. Crops are compared byte by byte,
    so that nothing is assumed of how they were cut. Raises DataError as `crops` does.
    """
    numbers: dict[bytes, int] = {}
    views: list[Pixels] = []
    places = {}
    for count in counts:
        chosen = []
        for view in crops(image, count, preprocessing):
            number = numbers.setdefault(view.tobytes(), len(numbers))
            if number == len(views):
                views.append(view)
            chosen.append(number)
        places[count] = np.array(chosen, np.intp)
    return SharedCrops(np.stack(views), places)


def scales(size: int) -> tuple[int, ...]:
    """Return the four shorter sides for a network whose input is size x size: the paper's, times size / 224."""
    return tuple(round(scale * size / 224) for scale in SCALES)


def _squares(image: NDArray[np.uint8], preprocessing: Preprocessing) -> list[Pixels]:
    """Return the twelve squares, scale by scale; of a square picture the four that are distinct."""
    resized = [resize_shorter_side(image, side, preprocessing.interpolation) for side in scales(preprocessing.size)]
    distinct = len(_square_names(image))
    return [
        scaled[top : top + side, left : left + side]
        for scaled in resized
        for top, left, side in _square_boxes(*scaled.shape[:2])[:distinct]
    ]


def _square_names(image: NDArray[np.uint8]) -> tuple[str, ...]:
    height, width = image.shape[:2]
    if height == width:
        return ("all",)
    return ("top", "centre", "bottom") if height > width else ("left", "centre", "right")


def _square_boxes(height: int, width: int) -> list[tuple[int, int, int]]:
    """Return (top, left, side) of the squares at the start, the middle and the end of the longer side."""
    side, spare = min(height, width), abs(height - width)
    starts = (0, spare // 2, spare)
    return [(start, 0, side) if height > width else (0, start, side) for start in starts]


def _views(square: Pixels, preprocessing: Preprocessing) -> list[Pixels]:
    """Return the six VIEWS of a square, each (S, S, 3)."""
    size = preprocessing.size
    return [*_corners_and_centre(square, preprocessing), resize(square, size, size, preprocessing.interpolation)]


def _corners_and_centre(image: Pixels, preprocessing: Preprocessing) -> list[Pixels]:
    size = preprocessing.size
    bottom, right = image.shape[0] - size, image.shape[1] - size
    rounded = round if preprocessing.fit == "torchvision" else int
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (rounded(bottom / 2), rounded(right / 2))]
    return [image[top : top + size, left : left + size] for top, left in corners]


def _with_mirrors(views: list[Pixels]) -> Pixels:
    """Return views and their mirror images: (V, S, S, 3) -> (2V, S, S, 3)."""
    return np.stack(views + [view[:, ::-1] for view in views])


# The sheet, in pixels.
CELL, GAP, SCALE_GAP = 72, 4, 14
HEADER, MARGIN, NOTE = 64, 16, 16
PICTURE, LABEL = 180, 58  # the columns left of the crops
INK, FAINT, PAPER = "#1f2933", "#7b8794", "#ffffff"
SQUARE_COLOURS = ("#2b6cb0", "#dd6b20", "#2f855a")


def sheet(image: NDArray[np.uint8], preprocessing: Preprocessing) -> Image.Image:
    """Draw all the crops of the 144 test on one page: a row is a square, a column is a view.

    Beside the rows of each scale stands the whole picture, at its relative size, with the squares outlined in the
    colours of their rows. Raises DataError for a picture too thin to resize.
    """
    names, sides = _square_names(image), scales(preprocessing.size)
    rows = crops(image, 144, preprocessing).reshape(len(sides), len(names), 12, *(preprocessing.size,) * 2, 3)
    block = len(names) * (CELL + GAP) + SCALE_GAP
    page = Image.new("RGB", (_column(12) + MARGIN, HEADER + len(sides) * block + MARGIN), PAPER)
    draw = ImageDraw.Draw(page)
    _draw_header(draw, len(names))
    for number, side in enumerate(sides):
        top = HEADER + number * block
        draw.text((MARGIN, top), f"shorter side {side}", INK, _font(12), anchor="lt")
        _draw_picture(page, image, top + NOTE, block - SCALE_GAP - GAP - NOTE, side / sides[-1])
        for row, name in enumerate(names):
            y = top + row * (CELL + GAP)
            draw.text((_column(0) - 10, y + CELL // 2), name, SQUARE_COLOURS[row], _font(13), anchor="rm")
            for column, crop in enumerate(rows[number, row]):
                drawn = np.rint(crop).astype(np.uint8)  # crops of some interpolations are fractions
                page.paste(Image.fromarray(resize(drawn, CELL, CELL, "bilinear")), (_column(column), y))
    return page


def _column(number: int) -> int:
    """Return the left edge of a column of crops; the mirrored half stands a little apart."""
    return MARGIN + PICTURE + LABEL + number * (CELL + GAP) + (SCALE_GAP if number >= len(VIEWS) else 0)


def _draw_header(draw: ImageDraw.ImageDraw, squares: int) -> None:
    total = len(SCALES) * squares * len(VIEWS) * 2
    times = f"{len(SCALES)} scales x {squares} square{'s' * (squares > 1)} x {len(VIEWS)} views x 2"
    draw.text((MARGIN, 28), f"{total} crops", INK, _font(20), anchor="ls")
    draw.text((MARGIN, 52), times, FAINT, _font(12), anchor="ls")
    for half, title in enumerate(("as it is", "mirrored")):
        middle = (_column(6 * half) + _column(6 * half + 5) + CELL) // 2
        draw.text((middle, 28), title, INK, _font(15), anchor="ms")
        for view, name in enumerate(VIEWS):
            draw.text((_column(6 * half + view) + CELL // 2, 52), name, FAINT, _font(12), anchor="ms")


def _draw_picture(page: Image.Image, image: NDArray[np.uint8], top: int, room: int, scale: float) -> None:
    """Draw the whole picture at `scale` of the size that fits into PICTURE x room, its squares outlined."""
    height, width = image.shape[:2]
    factor = min((PICTURE - 10) / width, room / height) * scale
    height, width = max(round(height * factor), 1), max(round(width * factor), 1)
    page.paste(Image.fromarray(resize(image, height, width, "bilinear")), (MARGIN, top))
    distinct = len(_square_names(image))
    for number, (y, x, side) in enumerate(_square_boxes(height, width)[:distinct]):
        inset = min(2 * number, side // 4)  # so that no outline covers another
        near, far = inset, side - 1 - inset
        box = (MARGIN + x + near, top + y + near, MARGIN + x + far, top + y + far)
        ImageDraw.Draw(page).rectangle(box, outline=SQUARE_COLOURS[number], width=2)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
