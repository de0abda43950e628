"""How readers tell what is wrong: the remedy for damage, and what a file says made fit to be shown."""

from __future__ import annotations

from collections.abc import Sequence

DAMAGED = "copy or download it again"
LONGEST = 100  # characters
MOST_SHOWN = 32  # axes


def shown(text: object) -> str:
    """Return a text out of a file as one short, printable line; of any other object, the name of its type."""
    line = ascii(text[:LONGEST])[1:-1] if isinstance(text, str) else type(text).__name__
    return line if len(line) <= LONGEST else f"{line[:LONGEST - 3]}..."


def quoted(text: object) -> str:
    """Return `shown` in quotes, for a text that may be empty or look like the words around it."""
    return f"'{shown(text)}'"


def shown_shape(shape: Sequence[int]) -> str:
    """Return a shape out of a file, which may have any number of axes, as a short text."""
    return str(tuple(shape)) if len(shape) <= MOST_SHOWN else f"of {len(shape)} axes"
