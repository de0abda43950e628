"""What was measured: rows, comparisons of ours with the best peer, and both as text and as JSON."""
from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

MORE_IS_BETTER = {"images/s": True, "GFLOP/s": True, "s": False, "ms": False, "MiB": False, "max/mean": False}


class Row(NamedTuple):
    """A median with the smallest and the largest of what was measured."""

    name: str
    value: float
    unit: str
    min: float
    max: float


def row(name: str, values: Sequence[float], unit: str) -> Row:
    """Return the row of several measurements."""
    return Row(name, statistics.median(values), unit, min(values), max(values))


def rates(seconds: Sequence[float], batch: int) -> list[float]:
    """Return images a second, for each time that a batch took."""
    return [batch / s for s in seconds]


def speedup(ours: float, peer: float, unit: str) -> float:
    """Return how many times better ours is, over 1 where it is, whether the unit counts work done or what it cost.

    Raises KeyError for a unit of which that isn't known."""
    return ours / peer if MORE_IS_BETTER[unit] else peer / ours


@dataclass(frozen=True)
class Comparison:
    """The rows of one work: ours first, then those of the peers. `hand_tuned` names the peers that are no part of
    `speedup`, being more than a user of theirs gets as it comes; `others` are rows that are beside the comparison."""

    title: str
    rows: list[Row]
    hand_tuned: frozenset[str] = frozenset()
    others: list[Row] = field(default_factory=list)

    @property
    def ours(self) -> Row:
        """Our row."""
        return self.rows[0]

    @property
    def best_peer(self) -> Row | None:
        """The best of the peers as they come, None where there is none."""
        return self._best(lambda peer: peer.name not in self.hand_tuned)

    @property
    def best_hand_tuned(self) -> Row | None:
        """The best of the peers that were tuned by hand."""
        return self._best(lambda peer: peer.name in self.hand_tuned)

    @property
    def speedup(self) -> float | None:
        """How many times better ours is than the best peer as it comes."""
        return self._over(self.best_peer)

    @property
    def speedup_over_hand_tuned(self) -> float | None:
        """How many times better ours is than the best peer that was tuned by hand."""
        return self._over(self.best_hand_tuned)

    def _best(self, fits: Callable[[Row], bool]) -> Row | None:
        peers = [peer for peer in self.rows[1:] if fits(peer)]
        return max(peers, key=lambda peer: speedup(peer.value, self.ours.value, peer.unit), default=None)

    def _over(self, peer: Row | None) -> float | None:
        return None if peer is None else speedup(self.ours.value, peer.value, peer.unit)

    def summary(self) -> dict[str, Any]:
        """Return what the JSON says of it, the rows apart."""
        told: dict[str, Any] = {"ours": self.ours.name, "best_peer": self.best_peer and self.best_peer.name,
                                "speedup": self.speedup}
        if self.best_hand_tuned:
            told["best_hand_tuned"] = self.best_hand_tuned.name
            told["speedup_over_hand_tuned"] = self.speedup_over_hand_tuned
        return told

    def text(self) -> str:
        """Return the table, and under it the ratios."""
        rows = [*self.rows, *self.others]
        width = max(len(each.name) for each in rows)
        lines = [self.title, f"{'':{width}}  {'median':>9} {'min':>9} {'max':>9}"]
        for each in rows:
            figures = " ".join(f"{figure:9.4g}" for figure in (each.value, each.min, each.max))
            ratio = f"{'ours is':>13} {self._over(each):.2f}x" if each in self.rows[1:] else ""
            tuned = ", tuned by hand" if each.name in self.hand_tuned else ""
            lines.append(f"{each.name:{width}}  {figures} {each.unit:8}{ratio}{tuned}".rstrip())
        for peer, kind in ((self.best_peer, "as it comes"), (self.best_hand_tuned, "tuned by hand")):
            if peer:
                lines.append(f"ours is {self._over(peer):.2f} times as good as the best peer {kind}, {peer.name}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Report:
    """What a work found. `extra` goes into the JSON; `text` is printed in place of the comparisons, if there is any."""

    comparisons: list[Comparison]
    extra: dict[str, Any] = field(default_factory=dict)
    text: str = ""

    def __str__(self) -> str:
        return self.text or "\n\n".join(comparison.text() for comparison in self.comparisons)

    def as_json(self, work: str) -> dict[str, Any]:
        """Return what is written with --json; of several comparisons the one that is worst for ours speaks for all."""
        rows = [each._asdict() for comparison in self.comparisons for each in (*comparison.rows, *comparison.others)]
        told = {"work": work, "rows": rows, **worst(self.comparisons).summary()}
        if len(self.comparisons) > 1:
            told["parts"] = [{"title": each.title, **each.summary()} for each in self.comparisons]
        return {**told, **self.extra}


def worst(comparisons: Sequence[Comparison]) -> Comparison:
    """Return the comparison in which ours stands worst; the first where nothing is compared."""
    return min(comparisons, key=lambda each: math.inf if each.speedup is None else each.speedup)

