"""How cost grows: images a second against the batch and against the images' size; and how work is cut for many cores.

Every point is measured beside the reference point, in turns, so that points which were measured minutes apart can be
compared: what counts is cost per pixel relative to the reference's in the same minute.
"""
from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.blocks import Blocks, blocks
from benchmarks.peers import OURS
from benchmarks.results import Comparison, Report, Row, rates, row
from benchmarks.session import Session

BATCHES = (8, 16, 32, 64)
SIZES = (160, 192, 224, 288, 352, 448)
REFERENCE = 16, 224  # batch, size


def scaling(session: Session, flags: argparse.Namespace) -> Report:
    """Measure every table of this kind, or the one that is wanted."""
    tables = [measure(session, flags) for name, measure in TABLES.items() if flags.only in (None, name)]
    extra: dict[str, Any] = {"cost_per_pixel": {t.title: t.costs for t in tables if isinstance(t, Table)}}
    for table in tables:
        if isinstance(table, Blocks):
            extra["blocks"] = table.told()
    return Report([table.comparison for table in tables], extra, "\n\n".join(map(str, tables)))


def against_batch(session: Session, flags: argparse.Namespace) -> Table:
    """Measure the reference's size at other batches."""
    size = REFERENCE[1]
    return _table(f"{flags.of}, {size}x{size}, against the batch", session, flags, [(each, size) for each in BATCHES])


def against_size(session: Session, flags: argparse.Namespace) -> Table:
    """Measure the reference's batch at other sizes."""
    batch = REFERENCE[0]
    return _table(f"{flags.of}, batch {batch}, against the size", session, flags, [(batch, each) for each in SIZES])


@dataclass(frozen=True)
class Table:
    """Rows of all points, contender by contender, and by their names the cost of a pixel, the reference's being 1."""

    title: str
    rows: list[Row]
    costs: dict[str, float]

    @property
    def comparison(self) -> Comparison:
        """The rows; the first point of each contender is compared, the others stand beside it."""
        first = {each.name.partition(":")[0]: each for each in reversed(self.rows)}
        compared = sorted(first.values(), key=self.rows.index)
        return Comparison(self.title, compared, others=[each for each in self.rows if each not in compared])

    def __str__(self) -> str:
        width = max(len(each.name) for each in self.rows)
        lines = [self.title, f"{'':{width}}  {'images/s':>9} {'min':>9} {'max':>9}  cost of a pixel"]
        for each in self.rows:
            figures = " ".join(f"{figure:9.4g}" for figure in (each.value, each.min, each.max))
            lines.append(f"{each.name:{width}}  {figures}  {self.costs[each.name]:.2f}")
        return "\n".join(lines)


def _table(title: str, session: Session, flags: argparse.Namespace, points: list[tuple[int, int]]) -> Table:
    found = [each for point in points for each in _point(session, flags, *point)]
    found.sort(key=lambda each: (each[0] != OURS, each[0]))  # contender by contender, each in the order of points
    return Table(title, [each for _, each, _ in found], {each.name: cost for _, each, cost in found})


def _point(session: Session, flags: argparse.Namespace, batch: int, size: int) -> list[tuple[str, Row, float]]:
    """Return each contender, its row, and its cost of a pixel relative to the reference's."""
    beside = {job.contender: child for child, job in session.line_up(flags.of, *REFERENCE, flags.threads)}
    here = beside
    if (batch, size) != REFERENCE:
        here = {job.contender: child for child, job in session.line_up(flags.of, batch, size, flags.threads)}
    children = list(dict.fromkeys([*beside.values(), *here.values()]))
    session.rounds(children, flags.rounds, flags.threads)
    found = []
    for name, child in here.items():
        if name not in session.left_out:
            cost = _cost(child.seconds, batch, size) / _cost(beside[name].seconds, *REFERENCE)
            title = f"{name}: {flags.of}, batch {batch}, {size}x{size}"
            found.append((name, row(title, rates(child.seconds, batch), "images/s"), cost))
    session.end(*children)
    return found


def _cost(seconds: list[float], batch: int, size: int) -> float:
    return statistics.median(seconds) / (batch * size * size)


# One of workers belongs into this list.
TABLES: dict[str, Callable[[Session, argparse.Namespace], Table | Blocks]] = {
    "batch": against_batch, "size": against_size, "blocks": blocks,
}
