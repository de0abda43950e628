"""python -m googlenet inspect: what a weight file holds, and which network it is."""

from __future__ import annotations

import argparse
from pathlib import Path

from googlenet import scripts
from googlenet.commands import text
from googlenet.commands.files import WEIGHTS_HELP, add_image_size, check_output, path_of
from googlenet.weights.inspection import DEAD, Inspection, Statistics, inspect, parameters
from minigrad.errors import InputError

LONGEST = 100  # characters of a text that the file carries


def add(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the command's parser."""
    made: argparse.ArgumentParser = commands.add_parser(
        "inspect", help="every array of a weight file in numbers, and which network it is", description=(
            "Print every array of a file in the file's own names: shape, type, statistics of its finite values, and "
            "how many are not finite or zero; then which network they are, or why they are none. Mean images and "
            "recorded activations are read as well. dead: output channels whose largest |weight| is at most "
            f"{DEAD:g} of the layer's, batch norm folded in."))
    made.add_argument("file", metavar="FILE", help=WEIGHTS_HELP)
    made.add_argument("--filters", type=Path, metavar="OUT.png", help="draw the first layer's filters")
    add_image_size(made)
    made.add_argument("--force", action="store_true", help="overwrite OUT.png")
    made.add_argument("--json", action="store_true", help="print JSON")
    return made


def run(flags: argparse.Namespace) -> int:
    """Print what was found; draw the filters."""
    path = path_of(flags.file)
    if flags.filters:
        check_output(flags.filters, (".png",), path, flags.force)
    found = inspect(path, image_size=flags.image_size)
    print(text.as_json(as_json(found)) if flags.json else as_text(found))
    if flags.filters:
        draw(found, flags.filters)
    return 0


def draw(found: Inspection, out: Path) -> None:
    """Write a picture of the first layer."""
    from googlenet.weights.picture import draw_filters  # here, as only --filters needs it

    if found.weights is None:
        raise InputError(f"no filters to draw: {found.reason}")
    with scripts.writing(out):
        draw_filters(found.weights, f"conv1 of {found.file}").save(out)


def as_text(found: Inspection) -> str:
    """Return the file, its arrays, and the network."""
    head = [("file", found.file), ("format", found.format), ("SHA-256", found.sha256)]
    head += [("in it", f"{name}: {_shortened(value)}") for name, value in found.metadata.items()]
    header = ("array", "shape", "type", "least", "most", "mean", "deviation", "not finite", "zero", "dead")
    rows = [header, *map(_row, found.arrays)]
    tail = [("note", note) for note in found.notes]
    if found.weights:
        tail = [*text.described(found.weights), ("note", "; ".join(_sums(found))), *tail]
    else:
        tail.append(("network", f"none: {found.reason}"))
    return "\n\n".join([text.table(head, left=(0, 1)), text.table(rows, left=(0, 1, 2)), text.table(tail, left=(0, 1))])


def _row(each: Statistics) -> tuple[str, ...]:
    numbers = map(text.number, (each.least, each.most, each.mean, each.deviation))
    dead = "" if each.dead is None else str(each.dead)
    return (each.name, text.shape(each.shape), each.dtype, *numbers, str(each.not_finite), str(each.zeros), dead)


def _sums(found: Inspection) -> list[str]:
    bad = sum(each.not_finite for each in found.arrays)
    dead = {each.name: each.dead for each in found.arrays if each.dead}
    return [f"{bad:,} values are not finite" if bad else "all values are finite",
            f"{sum(dead.values())} dead filters in {', '.join(dead)}" if dead else "no dead filters"]


def _shortened(value: str) -> str:
    line = " ".join(value.split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}... ({len(value):,} characters)"


def as_json(found: Inspection) -> dict[str, object]:
    """Return everything, fit for JSON."""
    made: dict[str, object] = {"file": found.file, "format": found.format, "sha256": found.sha256,
                               "metadata": found.metadata, "notes": found.notes,
                               "arrays": [each._asdict() for each in found.arrays]}
    weights = found.weights
    if weights is None:
        return {**made, "network": None, "reason": found.reason}
    trunk, whole = parameters(weights)
    return {**made, "network": {"variant": weights.config.variant, "image_size": weights.config.image_size,
                                "parameters": trunk, "parameters_with_heads": whole, "classes": weights.classes,
                                "preprocessing": str(weights.preprocessing)}}
