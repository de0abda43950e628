"""How evaluate.py prints errors: percent with their intervals, differences in points, Table 3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from googlenet.commands import text
from googlenet.table3 import CHANCE, HEADS, ONE_MODEL, POINTS, repeated, short

SETTING = ("models", "crops", "pool")
CLASSES = 30  # that are printed whole; of more, the WORST
WORST = 20
NAME = 40  # characters of a class


def told(row: dict[str, Any]) -> list[str]:
    """Return the figures of HEADS with their intervals: "13.45 % (12.80 to 14.13)"; the loss is -log p of the label."""
    return [f"{scale * row[name]:{form}}{unit}{_interval(row['intervals'][name], scale, form)}"
            for name, scale, form, unit in (("top1_error", 100, ".2f", " %"), ("top5_error", 100, ".2f", " %"),
                                            ("loss", 1, ".4f", ""))]


def told_difference(row: dict[str, Any]) -> list[str]:
    """Return differences of these figures, errors in points: "-0.55 (-0.80 to -0.30)"."""
    return [f"{scale * row[name]:{form}}{_interval(row['intervals'][name], scale, form)}"
            for name, scale, form in POINTS]


def classes(result: dict[str, Any]) -> str:
    """Return the errors of each class, worst first, and of all; of many classes those of the worst."""
    rows = sorted(result["classes"].items(), key=lambda item: -item[1]["top1_error"])
    shown = rows if len(rows) <= CLASSES else rows[:WORST]
    printed = text.table([["class", "images", "top-1 error", "top-5 error"],
                          *([_cut(name), f"{part['images']}", f"{part['top1_error']:.2%}", f"{part['top5_error']:.2%}"]
                            for name, part in [*shown, ("all", result)])])
    more = f"\nthe {len(shown)} worst of {len(rows):,} classes: --json and --report have the others"
    return printed + more * (len(shown) < len(rows))


def members(result: dict[str, Any]) -> str:
    """Return what the networks of an ensemble do by themselves, beside what they do together."""
    own = result["members"]
    count = len(own["each"])
    rows = [*([short(each["network"]), *told(each)] for each in own["each"]),
            [f"mean of the {count}", *told(own["mean"])], [f"the {count} together", *told(result)],
            ["together - mean, errors in points", *told_difference(own["difference"])]]
    return text.table([["network", *HEADS], *rows], left=range(4))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return Table 3: the errors of each row, those of each network by itself, then the differences between rows."""
    paper, alone = ([row for row in rows if row["kind"] == kind] for kind in ("paper", "member"))
    base = f"1 crop of {_names(rows[0])}" if alone else "1 crop"
    pairs = [*((row, base, row["difference"]) for row in paper if row["difference"]),
             *((row, each["to"], each) for row in paper for each in row["more_differences"])]
    return "\n".join([
        _errors(paper),
        *(["", "each network by itself:", _errors(alone)] if alone else []),
        "", "differences, image by image, errors in points:",
        text.table([[*SETTING, "to", *HEADS], *([*_setting(row), to, *told_difference(more)]
                                                for row, to, more in pairs)], left=range(3, 7)), "",
        *([ONE_MODEL] if alone else []), CHANCE, *filter(None, [repeated(rows)]),
        "ms/image: the networks' forward passes over distinct crops, without decoding and cutting."])


def _errors(rows: Sequence[dict[str, Any]]) -> str:
    cells = [[*_setting(row), str(row["cost"]), f"{row['ms_per_image']:.2f}", *told(row), _names(row)] for row in rows]
    return text.table([[*SETTING, "cost", "ms/image", *HEADS, "network"], *cells], left=range(5, 9))


def headline(row: dict[str, Any]) -> str:
    """Return the errors of all images in a line, and what they took where that is known."""
    line = ", ".join(f"{name} {value}" for name, value in zip(HEADS, told(row), strict=True))
    if "seconds" not in row:
        return line
    pool = ", maximum over crops" if row["pool"] == "max" else ""
    test = f"{_counted(row['crops'], 'crop')}, {_counted(row['networks'], 'network')}{pool}"
    passes = f"{row['network_ms_per_image']:.1f} ms"
    whole = (f"{row['seconds']:.1f} s, {row['images'] / row['seconds']:.1f} images/s: {row['ms_per_image']:.1f} ms an "
             "image with all that was read and computed")
    took = (f"{test}: {passes} an image in forward passes\nall tests of the table, {whole}" if "table" in row else
            f"{test}, {whole}, {passes} of it in forward passes")
    return f"{line}; intervals of 95 %\n{took}"


def _cut(name: str) -> str:
    return name if len(name) <= NAME else f"{name[:NAME - 1]}…"


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'s' * (count > 1)}"


def _setting(row: dict[str, Any]) -> list[str]:
    return [str(row[name]) for name in SETTING]


def _names(row: dict[str, Any]) -> str:
    return short(row["networks"][0]) if row["models"] == 1 else "all"


def _interval(bounds: Sequence[float] | None, scale: float, form: str) -> str:
    return " ({:{form}} to {:{form}})".format(*(scale * bound for bound in bounds), form=form) if bounds else ""
