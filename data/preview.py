"""A sheet of training samples: `python -m data.preview SOURCE --output OUT.png`.

A row is a picture: first the whole of it with its crops outlined, then the samples made of it, each under the colour of
its outline, with what was drawn for it. A column is an epoch: samples depend on (seed, epoch, place in the data set),
as in training.
"""

from __future__ import annotations

import argparse
import sys
from bisect import bisect
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from data.base import Dataset
from data.datasets import SPLITS, open_dataset
from data.errors import DataError
from data.resize import resize
from data.sampling import Draw, Sampling, sample_generator

__all__ = ["SAMPLES", "Row", "main", "rows", "sheet"]

SAMPLES = 6  # of each picture
MOST = 100  # pictures on a sheet
ENDINGS = (".png", ".jpg", ".jpeg")

# The sheet, in pixels.
MARGIN, GAP, HEADER, ROW_GAP = 28, 14, 108, 26
PICTURE, CELL = 288, 168  # the sides of the pictures' column and of a sample
TAG = (13, 15)  # width and height of an outline's number
BAR, LINE = 5, 16  # the coloured bar above a sample, and a line of text
TALL = BAR + CELL + 3 * LINE + 6  # a row
INK, FAINT, PAPER = "#1f2933", "#667380", "#ffffff"
COLOURS = ("#2b6cb0", "#dd6b20", "#2f855a", "#b83280", "#a16207", "#6b46c1")  # of the samples, in their order


class Row(NamedTuple):
    """A picture and the samples made of it."""

    picture: NDArray[np.uint8]  # (H, W, 3)
    name: str
    label: str
    draws: list[Draw]
    samples: list[NDArray[np.uint8]]  # each (S, S, 3)


def rows(dataset: Dataset, sampling: Sampling, size: int, count: int, seed: int) -> list[Row]:
    """Return `count` pictures at even distances, each with its samples of the first epochs.

    Damaged pictures are passed over. Raises DataError where that leaves none."""
    made = []
    for index in np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int).tolist():
        try:
            picture = dataset.image(index)
        except DataError:
            continue
        height, width, _ = picture.shape
        draws = [sampling.draw(height, width, sample_generator(seed, epoch, index)) for epoch in range(SAMPLES)]
        samples = [sampling.apply(picture, size, draw) for draw in draws]
        made.append(Row(picture, dataset.names[index], dataset.classes[dataset.labels[index]], draws, samples))
    if not made:
        raise DataError(f"{dataset.origin}: none of the pictures for the sheet can be read")
    return made


def sheet(made: Sequence[Row], title: str, subtitle: str) -> Image.Image:
    """Draw the sheet."""
    width = _column(SAMPLES) - GAP + MARGIN
    page = Image.new("RGB", (width, HEADER + len(made) * (TALL + ROW_GAP) - ROW_GAP + MARGIN), PAPER)
    draw = ImageDraw.Draw(page)
    _text(draw, (MARGIN, 26), title, INK, 22, width - 2 * MARGIN)
    _text(draw, (MARGIN, 58), subtitle, FAINT, 13, width - 2 * MARGIN)
    for number in range(SAMPLES):
        _text(draw, (_column(number), HEADER - 20), f"epoch {number}", COLOURS[number], 13, CELL)
    for number, row in enumerate(made):
        _draw_row(page, row, HEADER + number * (TALL + ROW_GAP))
    return page


def _column(number: int) -> int:
    """Return the left edge of a column of samples."""
    return MARGIN + PICTURE + 2 * GAP + number * (CELL + GAP)


def _draw_row(page: Image.Image, row: Row, top: int) -> None:
    draw = ImageDraw.Draw(page)
    _draw_picture(page, row, top)
    _text(draw, (MARGIN, top + TALL - 2 * LINE), row.label, INK, 13, PICTURE)
    _text(draw, (MARGIN, top + TALL - LINE), row.name, FAINT, 11, PICTURE)
    area = row.picture.shape[0] * row.picture.shape[1]
    for number, (drawn, sample) in enumerate(zip(row.draws, row.samples, strict=True)):
        left = _column(number)
        draw.rectangle((left, top, left + CELL - 1, top + BAR - 1), fill=COLOURS[number])
        page.paste(_scaled(sample, CELL, CELL), (left, top + BAR))
        for line, (text, ink) in enumerate(_notes(drawn, area)):
            _text(draw, (left, top + BAR + CELL + 6 + line * LINE), text, ink, 11, CELL)


def _notes(drawn: Draw, area: int) -> list[tuple[str, str]]:
    """Return what was drawn, line by line, with its ink; distortions in their order."""
    part = drawn.crop.height * drawn.crop.width / area
    (first, a), (second, b), (third, c) = drawn.distortions
    shift = "/".join(f"{round(level):+d}" for level in drawn.shift)
    return [(f"{part:.0%}, {drawn.interpolation}{', mirrored' * drawn.mirrored}", INK),
            (f"{first} {a:.2f}, {second} {b:.2f}", FAINT),
            (f"{third} {c:.2f}, light {shift}", FAINT)]


def _draw_picture(page: Image.Image, row: Row, top: int) -> None:
    """Draw the whole picture as large as there is room for, its crops outlined and numbered by their epochs."""
    height, width = row.picture.shape[:2]
    room = TALL - 2 * LINE - 8
    scale = min(PICTURE / width, room / height)
    picture = _scaled(row.picture, max(round(height * scale), 1), max(round(width * scale), 1))
    page.paste(picture, (MARGIN, top))
    draw = ImageDraw.Draw(page)
    for number, drawn in enumerate(row.draws):
        y, x, h, w = drawn.crop
        near = (MARGIN + round(x * scale), top + round(y * scale))
        far = (max(MARGIN + round((x + w) * scale) - 1, near[0]), max(top + round((y + h) * scale) - 1, near[1]))
        draw.rectangle((*near, *far), outline=COLOURS[number], width=2)
    corners = [(MARGIN + round(drawn.crop.left * scale), top + round(drawn.crop.top * scale)) for drawn in row.draws]
    for number, (x, y) in enumerate(_apart(corners)):  # above all outlines
        draw.rectangle((x, y, x + TAG[0] - 1, y + TAG[1] - 1), fill=COLOURS[number])
        draw.text((x + TAG[0] // 2, y + TAG[1] // 2), str(number), PAPER, _font(11), anchor="mm")


def _apart(corners: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return where tags stand that cover none of the others: at their corners, or further right."""
    placed: list[tuple[int, int]] = []
    for x, y in corners:
        while any(abs(x - left) < TAG[0] and abs(y - top) < TAG[1] for left, top in placed):
            x += 1
        placed.append((x, y))
    return placed


def _scaled(image: NDArray[np.uint8], height: int, width: int) -> Image.Image:
    """Return the picture at a size for the eye: pixels stay squares where it grows."""
    grows = height > image.shape[0]
    return Image.fromarray(np.ascontiguousarray(resize(image, height, width, "nearest" if grows else "cubic")))


def _text(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, ink: str, size: int, room: int) -> None:
    """Write one line, its end left out where there is no room for it."""
    font = _font(size)
    text = text.replace("\n", " ")
    if draw.textlength(text, font) > room:
        fits = bisect(range(len(text)), room, key=lambda end: ceil(draw.textlength(f"{text[:end]} ...", font))) - 1
        text = f"{text[:max(fits, 0)]} ..."
    draw.text(place, text, ink, font, anchor="lt")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw a sheet as the arguments say; return 0, or 1 with a message for what the user can mend."""
    parser = _parser()
    flags = parser.parse_args(arguments)
    if flags.count > MOST:
        parser.error(f"argument --count: {flags.count}: a sheet has up to {MOST} pictures")
    if flags.output.suffix.lower() not in ENDINGS:
        parser.error(f"argument --output: {flags.output}: give a file that ends in {' or '.join(ENDINGS)}")
    sampling = Sampling()
    try:
        dataset = open_dataset(flags.source, flags.split)
        made = rows(dataset, sampling, flags.size, flags.count, flags.seed)
        subtitle = f"{flags.size} x {flags.size} from {sampling}; seed {flags.seed}"
        sheet(made, f"Training samples of {flags.source}, {flags.split}", subtitle).save(flags.output)
    except (DataError, OSError) as error:
        told = f"can't write {flags.output}: {error.strerror or error}" if isinstance(error, OSError) else error
        print(f"python -m data.preview: error: {told}", file=sys.stderr)
        return 1
    print(f"{len(made)} of {len(dataset)} pictures, {SAMPLES} samples each: {flags.output}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data.preview", description="Draw a sheet of training samples.")
    parser.add_argument("source", help="a folder with a data set, 'embedded', or the name of a fetched one")
    parser.add_argument("--split", choices=SPLITS, default="train", help="which pictures (default: train)")
    parser.add_argument("--count", type=_positive, default=6, help=f"how many pictures, up to {MOST} (default: 6)")
    parser.add_argument("--size", type=_positive, default=224, help="side of a sample in pixels (default: 224)")
    parser.add_argument("--seed", type=_natural, default=0, help="of what is drawn (default: 0)")
    parser.add_argument("--output", type=Path, default=Path("preview.png"), help="the file to write, .png or .jpg "
                        "(default: %(default)s)")
    return parser


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, at least 0")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
