"""A picture of the first layer: one look tells edges and colours from noise."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from googlenet.weights.inspection import DEAD
from googlenet.weights.weights import Weights
from minigrad.errors import InputError

# In pixels.
CELL, GAP, MARGIN, HEADER = 56, 6, 16, 64
INK, FAINT, PAPER = "#1f2933", "#7b8794", "#ffffff"


def first_filters(weights: Weights) -> np.ndarray:
    """Return conv1's filters, batch norm folded in, in red, green and blue: (O, KH, KW, 3).

    A separable stem's two layers are multiplied to the one convolution that they compute."""
    arrays = weights.folded().arrays
    if "conv1/weight" in arrays:
        filters = arrays["conv1/weight"].astype(np.float64)
    elif "conv1/depthwise/weight" in arrays:
        depthwise = arrays["conv1/depthwise/weight"].astype(np.float64)
        pointwise = arrays["conv1/pointwise/weight"].reshape(*depthwise.shape[2:], -1)
        filters = np.einsum("hwcm,cmo->hwco", depthwise, pointwise)
    else:
        raise InputError("the network has no first layer to draw: give the weights of a whole GoogLeNet")
    coloured = filters[:, :, ::-1] if weights.preprocessing.order == "BGR" else filters
    return coloured.transpose(3, 0, 1, 2)


def draw_filters(weights: Weights, title: str) -> Image.Image:
    """Draw conv1's filters as a grid, from left to right and down.

    Each has its own scale, so that weak ones show their shape as well: grey is zero, and the largest |weight| of a
    filter is full colour or black. Dead ones are crossed out."""
    filters = first_filters(weights)
    peaks = np.nan_to_num(np.abs(filters)).max(axis=(1, 2, 3))
    large, small = ImageFont.load_default(18), ImageFont.load_default(12)
    told = f"{len(filters)} filters of {'x'.join(map(str, filters.shape[1:]))}, each on its own scale; grey is zero"
    across = math.ceil(math.sqrt(len(filters)))
    down = math.ceil(len(filters) / across)
    width = max(across * (CELL + GAP) - GAP, math.ceil(large.getlength(title)), math.ceil(small.getlength(told)))
    page = Image.new("RGB", (2 * MARGIN + width, HEADER + down * (CELL + GAP) - GAP + MARGIN), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, 26), title, INK, large, anchor="ls")
    draw.text((MARGIN, 48), told, FAINT, small, anchor="ls")
    for number, (one, peak) in enumerate(zip(filters, peaks, strict=True)):
        left, top = MARGIN + number % across * (CELL + GAP), HEADER + number // across * (CELL + GAP)
        _draw_one(page, one, float(peak), left, top)
        if peak <= DEAD * peaks.max():
            draw.line((left, top, left + CELL - 1, top + CELL - 1), INK)
            draw.line((left, top + CELL - 1, left + CELL - 1, top), INK)
    return page


def _draw_one(page: Image.Image, one: np.ndarray, peak: float, left: int, top: int) -> None:
    """Draw a filter (KH, KW, 3), a square a weight."""
    scaled = np.nan_to_num(one / (peak or 1.0), posinf=1.0, neginf=-1.0)
    pixels = np.rint(127.5 + 127.5 * np.clip(scaled, -1, 1)).astype(np.uint8)
    page.paste(Image.fromarray(pixels).resize((CELL, CELL), Image.Resampling.NEAREST), (left, top))
