"""The learning curves of a run for its pages: the losses of all classifiers, the validation errors."""
from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from googlenet.reports.charts import Line, Point, Thinned, chart
from googlenet.reports.curves import smoothed
from googlenet.reports.log import read_log
from googlenet.reports.page import Html, details, element, table
from googlenet.testing import Score
from googlenet.training import Epoch, Step

LOSSES = {"main": "classifier", "aux1": "auxiliary head at 4a", "aux2": "auxiliary head at 4d"}
ROWS = 200  # of the table of epochs; of a longer run the latest


class Learning:
    """What a run has learned so far, told by its log or by its records; thinned where it is long."""

    def __init__(self) -> None:
        self.losses = {name: Thinned() for name in LOSSES}
        self.epochs: list[tuple[int, int, float, Score | None, Score | None]] = []

    def step(self, record: Step) -> None:
        """Add a step."""
        for name, line in self.losses.items():
            line.add(record.images, getattr(record.losses, name))

    def epoch(self, record: Epoch) -> None:
        """Add the end of an epoch."""
        self.epochs.append((record.epoch, record.images, record.losses.main, record.validation, record.averaged))

    def row(self, row: Mapping[str, str]) -> None:
        """Add a line of log.csv."""
        images = int(row["images"])
        if row["lr"]:
            for name, line in self.losses.items():
                line.add(images, float(row[f"loss_{name}"] or "nan"))
        else:
            self.epochs.append((int(row["epoch"]), images, float(row["loss_main"] or "nan"),
                                _score(row, "validation"), _score(row, "averaged")))

    def html(self) -> Html:
        """Draw it: two charts and a table of the epochs; nothing where there is nothing yet."""
        charts = [self._losses(), self._errors()]
        shown = [each for each in charts if each]
        return Html(element("div", *shown, class_="pair") + self._table()) if shown else Html("")

    def _losses(self) -> Html:
        lines: list[Line] = []
        for name, label in LOSSES.items():
            points = self.losses[name].points
            images, losses = zip(*points, strict=True) if points else ((), ())
            smooth = list(zip(images, smoothed(losses), strict=True))
            lines += [Line(label, name, points, faint=True), Line(label, name, smooth)]
        scored = [(images, score.loss) for _, images, _, score, _ in self.epochs if score]
        lines += [Line("classifier, validation", "validation", scored, marked=True),
                  Line("the same, averaged weights", "averaged", self._averaged("loss"), marked=True)]
        return chart("Losses", lines, "training images seen", "cross-entropy, smoothed")

    def _errors(self) -> Html:
        found = {name: [(images, getattr(score, name)) for _, images, _, score, _ in self.epochs if score]
                 for name in ("top1_error", "top5_error")}
        lines = [Line("top-1", "top1", found["top1_error"], marked=True),
                 Line("top-5", "top5", found["top5_error"], marked=True),
                 Line("top-1, averaged weights", "averaged", self._averaged("top1_error"), marked=True)]
        return chart("Validation", lines, "training images seen", "errors", percent=True)

    def _averaged(self, name: str) -> list[Point]:
        return [(images, getattr(score, name)) for *_, images, _, _, score in self.epochs if score]

    def _table(self) -> Html:
        if not self.epochs:
            return Html("")
        averaged = any(score for *_, score in self.epochs)
        head = ["epoch", "images seen", "training loss", "validation loss", "top-1 error", "top-5 error",
                *(["averaged: loss", "top-1 error", "top-5 error"] if averaged else [])]
        rows = [[epoch + 1, f"{images:,}", f"{loss:.4f}", *_told(score), *(_told(mean) if averaged else [])]
                for epoch, images, loss, score, mean in self.epochs[-ROWS:]]
        cut = f"; the latest {ROWS} of {len(self.epochs):,}" if len(self.epochs) > ROWS else ""
        return details("The figures of each epoch", table(f"Losses and validation of each epoch{cut}", head, rows,
                                                          numbers=range(len(head)), tall=True))


def learning_of(path: Path) -> Learning:
    """Return what a log.csv tells, nothing where there is none, or one of another program."""
    found = Learning()
    try:
        for row in read_log(path):
            found.row(row)
    except (OSError, KeyError, ValueError, csv.Error):
        return Learning()
    return found


def _score(row: Mapping[str, str], kind: str) -> Score | None:
    values = [row.get(f"{kind}_{name}") for name in ("top1_error", "top5_error", "loss")]
    return Score(0, *map(float, filter(None, values))) if all(values) else None


def _told(score: Score | None) -> list[str]:
    return [f"{score.loss:.4f}", f"{score.top1_error:.2%}", f"{score.top5_error:.2%}"] if score else [""] * 3
