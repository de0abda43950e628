"""python -m googlenet compare: two weight files, or one and what another framework recorded."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from data.decode import SUFFIXES, read_image
from googlenet.commands import text
from googlenet.commands.files import WEIGHTS_HELP, add_image_size, path_of
from googlenet.weights.comparison import (
    TOLERANCE,
    ArrayComparison,
    Difference,
    Side,
    StageComparison,
    compare_arrays,
    compare_stages,
    differing_settings,
    open_side,
)
from googlenet.weights.inspection import parameters
from googlenet.weights.recording import INPUT, PROBABILITIES, Recording
from googlenet.weights.weights import Weights
from minigrad.errors import InputError

MOST_ROWS = 20  # arrays in a table that is to be read
DIFFER = 3  # the exit code: 1 is an error, 2 wrong usage
DESCRIPTION = """Compare two networks array by array, and on images stage by stage; or a network and activations that
another framework recorded, an .npz of arrays named as its stages are, with the network's input among them as "input" or
"data". A relative difference is the largest one in parts of the largest value. Images pass through each network's own
preprocessing."""
EPILOG = f"""exit code: 0 where all arrays (and with images all stages that both have) agree within the tolerance,
{DIFFER} where they differ, 1 for an error"""


def add(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the command's parser."""
    made: argparse.ArgumentParser = commands.add_parser(
        "compare", help="two networks array by array and stage by stage", description=DESCRIPTION, epilog=EPILOG)
    made.add_argument("a", metavar="A", help=f"{WEIGHTS_HELP}; or recorded activations (.npz)")
    made.add_argument("b", metavar="B", help="the same")
    made.add_argument("--images", type=Path, metavar="DIR",
                      help="pictures to run both on: a folder, searched through, or one file")
    made.add_argument("--limit", type=int, metavar="N", help="only the first N pictures")
    made.add_argument("--tolerance", type=float, default=TOLERANCE, metavar="T",
                      help="largest difference that agrees, in parts of an array's largest value (default %(default)s)")
    add_image_size(made)
    made.add_argument("--verbose", action="store_true", help=f"list all arrays that differ, also more than {MOST_ROWS}")
    made.add_argument("--raw", action="store_true", help="the raw weights, where a file has averaged ones too")
    made.add_argument("--json", action="store_true", help="print JSON, with all arrays")
    return made


def run(flags: argparse.Namespace) -> int:
    """Compare and print."""
    if flags.limit is not None and flags.limit < 1:
        raise InputError(f"--limit {flags.limit}: give at least 1")
    if not flags.tolerance >= 0:
        raise InputError(f"--tolerance {flags.tolerance}: give a number from 0 on")
    a, b = (open_side(path_of(each), raw=flags.raw, image_size=flags.image_size) for each in (flags.a, flags.b))
    arrays = compare_arrays(a, b) if isinstance(a, Weights) and isinstance(b, Weights) else None
    stages = _stages(a, b, flags) if arrays is None or flags.images else None
    agree = all(part.agree(flags.tolerance) for part in (arrays, stages) if part)
    if flags.json:
        print(text.as_json(as_json(flags, (a, b), arrays, stages, agree)))
    else:
        print(as_text(flags, (a, b), arrays, stages, agree))
    return 0 if agree else DIFFER


def _stages(a: Side, b: Side, flags: argparse.Namespace) -> StageComparison:
    a, b = (side.first(flags.limit) if isinstance(side, Recording) else side for side in (a, b))
    recorded = [side for side in (a, b) if isinstance(side, Recording)]
    fed = len(recorded) == 2 or any(INPUT in side.stages for side in recorded)
    if fed and flags.images:
        raise InputError(f"{recorded[0].file} is compared on the input that was recorded: leave --images out")
    if not fed and not flags.images:
        raise InputError(f"{recorded[0].file} holds no input to run the network on: give by --images the pictures that "
                         "were recorded, in their order")
    if fed:
        return compare_stages(a, b)
    names = recorded[0].files if recorded else ()
    paths = [flags.images / name for name in names] if names else _pictures(flags.images)
    with tqdm(paths[:flags.limit], unit="image") as bar:
        return compare_stages(a, b, map(read_image, bar))


def _pictures(place: Path) -> list[Path]:
    """Return the pictures below a folder in the order of their paths, or the one that is named."""
    if place.is_file():
        return [place]
    found = sorted(path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise InputError(f"{place}: no pictures there: give a folder of {', '.join(sorted(SUFFIXES))} files")
    return found


def as_text(flags: argparse.Namespace, sides: tuple[Side, Side], arrays: ArrayComparison | None,
            stages: StageComparison | None, agree: bool) -> str:
    """Return the summary, then all stages, then the arrays that differ, the worst alone where they are many."""
    parts = [text.table(_summary(flags, sides, arrays, stages, agree), left=(0, 1))]
    if stages:
        parts.append(_table("stage", stages.both, flags.tolerance))
    if arrays:
        rows = [each for each in arrays.both if not each.within(flags.tolerance)]
        if rows and (flags.verbose or len(rows) <= MOST_ROWS):
            parts.append(_table("array", rows, flags.tolerance))
        elif rows:
            worst = sorted(rows, key=lambda each: -(math.inf if each.relative is None else each.relative))[:MOST_ROWS]
            parts.append(_table("array", worst, flags.tolerance)
                         + f"\nthese are the worst of {len(rows)}; --verbose lists all")
    return "\n\n".join(parts)


def _summary(flags: argparse.Namespace, sides: tuple[Side, Side], arrays: ArrayComparison | None,
             stages: StageComparison | None, agree: bool) -> list[tuple[str, str]]:
    lines = [("result", f"they {'agree' if agree else 'differ'} (tolerance {flags.tolerance:g} of the largest value)")]
    for letter, name, side in zip("AB", (flags.a, flags.b), sides, strict=True):
        lines.append((letter, f"{name}: {_side(side)}"))
    a, b = sides
    if isinstance(a, Weights) and isinstance(b, Weights):
        settings = differing_settings(a, b)
        for name, (one, other) in settings.items():
            lines += [(name, f"A: {one}"), ("", f"B: {other}")]
        if "preprocessing" not in settings:
            lines.append(("preprocessing", f"the same: {a.preprocessing}"))
    for part, what in ((arrays, "arrays"), (stages, "stages")):
        if part:
            close = sum(each.within(flags.tolerance) for each in part.both)
            lines.append((what, f"{close} of {len(part.both)} agree"))
            lines += [(f"only in {letter}", f"{what}: {', '.join(names)}")
                      for letter, names in (("A", part.only_a), ("B", part.only_b)) if names]
            lines += [("note", note) for note in part.notes]
    return lines + (_on_images(stages, flags.tolerance) if stages else [])


def _on_images(stages: StageComparison, tolerance: float) -> list[tuple[str, str]]:
    """Return what the images showed."""
    lines = [("images", str(stages.images)), ("first to part", stages.parted(tolerance) or "none")]
    if stages.top1 is not None and stages.top5 is not None:
        lines += [("top-1", f"the same for {stages.top1:.2%} of the images"),
                  ("top-5", f"{stages.top5:.2%} of the five best classes in common")]
    for each in stages.both:
        if each.name == PROBABILITIES and each.largest is not None:
            lines.append((PROBABILITIES, f"differ by {each.largest:.2e} at most"))
    return lines


def _side(side: Side) -> str:
    if isinstance(side, Weights):
        return text.network(side)
    return f"activations of {side}"


def _table(kind: str, rows: list[Difference], tolerance: float) -> str:
    header = (kind, "shape", "largest difference", "relative", "mean", "correlation", "")
    return text.table([header, *(_row(each, tolerance) for each in rows)], left=(0, 1, 6))


def _row(each: Difference, tolerance: float) -> tuple[str, ...]:
    one, other = (text.shape(axes) for axes in each.shapes)
    mark = "" if each.within(tolerance) else "differs"
    if each.relative is None:
        return (each.name, f"{one} / {other}", *[""] * 4, mark)
    correlation = "-" if each.correlation is None else f"{each.correlation:.6f}"
    return (each.name, one, f"{each.largest:.2e}", f"{each.relative:.2e}", f"{each.mean:.2e}", correlation, mark)


def as_json(flags: argparse.Namespace, sides: tuple[Side, Side], arrays: ArrayComparison | None,
            stages: StageComparison | None, agree: bool) -> dict[str, object]:
    """Return everything, fit for JSON."""
    a, b = sides
    return {
        "agree": agree, "tolerance": flags.tolerance,
        "a": _side_as_json(flags.a, a), "b": _side_as_json(flags.b, b),
        "settings": differing_settings(a, b) if isinstance(a, Weights) and isinstance(b, Weights) else None,
        "arrays": _part_as_json(arrays, flags.tolerance) if arrays else None,
        "stages": _part_as_json(stages, flags.tolerance) if stages else None,
        "first_to_part": stages.parted(flags.tolerance) if stages else None,
    }


def _side_as_json(name: str, side: Side) -> dict[str, object]:
    if isinstance(side, Weights):
        trunk, whole = parameters(side)
        return {"file": name, "variant": side.config.variant, "parameters": trunk, "parameters_with_heads": whole,
                "classes": side.config.classes, "preprocessing": str(side.preprocessing)}
    return {"file": name, "recorded_by": side.framework, "images": side.images, "channels": side.channels,
            "unknown": side.unknown}


def _part_as_json(part: ArrayComparison | StageComparison, tolerance: float) -> dict[str, object]:
    return {**asdict(part), "both": [{**each._asdict(), "agrees": each.within(tolerance)} for each in part.both]}
