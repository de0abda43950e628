"""How commands print: aligned tables, and a network in words."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from googlenet.weights.inspection import parameters
from googlenet.weights.weights import Weights

SHOWN = 3  # class names


def table(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """Return rows as aligned columns, those in `left` to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ([cell.ljust(width) if i in left else cell.rjust(width)
              for i, (cell, width) in enumerate(zip(row, widths, strict=True))] for row in rows)
    return "\n".join("  ".join(line).rstrip() for line in lines)


def described(weights: Weights) -> list[tuple[str, str]]:
    """Return what a network is, a line each: name and text."""
    return [("network", network(weights)), ("classes", classes(weights)), ("preprocessing", str(weights.preprocessing))]


def network(weights: Weights) -> str:
    """Return variant, input and size in words."""
    config, (trunk, whole) = weights.config, parameters(weights)
    heads = f" ({whole:,} with heads)" if whole > trunk else ", no heads"
    width = f", width {config.width:g}" if config.width != 1 else ""
    folded = ", batch norm folded" if config.batch_norm == "folded" else ""
    lrn = f", LRN {config.lrn}" if config.lrn else ""
    side = config.image_size
    return f"{config.variant}, input {side}x{side}, {trunk:,} parameters{heads}{width}{folded}{lrn}"


def classes(weights: Weights) -> str:
    """Return how many classes there are, and the first names."""
    names = [name for name in weights.classes if not name.isdigit()]
    if len(names) <= 1:
        rest = f", but for {names[0]!r}" if names else ""
        return f"{len(weights.classes)}, not named{rest}"
    return f"{len(names)}: {'; '.join(names[:SHOWN])}{'; ...' if len(names) > SHOWN else ''}"


def shape(axes: Sequence[int]) -> str:
    """Return a shape as 7x7x3x64."""
    return "x".join(map(str, axes)) or "one value"


def number(value: float | None) -> str:
    """Return a number in four digits, a dash for none."""
    return "-" if value is None else f"{value:.4g}"


def as_json(value: Any) -> str:
    """Return JSON; numbers that are not finite, which JSON has not, become null."""
    return json.dumps(_plain(value), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
