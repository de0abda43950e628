"""Runs by different numbers of workers, side by side: how stale their pushes were, and what they learned."""
from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from googlenet.reports.curves import smoothed
from googlenet.reports.log import read_log
from googlenet.scripts import writing
from googlenet.training import configuration
from googlenet.weights import load_model

COLOURS = ("#1f77b4", "#d95f02", "#1b9e77", "#7570b3", "#666666")
POINTS = 60  # of a smoothed line, looked back over


@dataclass(frozen=True)
class CrewRun:
    """What a run's folder tells."""

    folder: Path
    workers: int
    on_ray: bool
    seed: int
    staleness: Counter[int]  # pushes to shards, by their staleness; empty of one without workers
    rows: list[dict[str, str]]  # of its log

    @property
    def last(self) -> dict[str, str] | None:
        """The line of the last epoch with a validation."""
        return next((row for row in reversed(self.rows) if row["validation_loss"]), None)

    @property
    def kind(self) -> tuple[int, bool, int]:
        """What runs that are alike have in common: their workers, whether these are Ray's, the epochs."""
        return self.workers, self.on_ray, int(self.last["epoch"]) if self.last else -1

    @property
    def images_per_second(self) -> float:
        """The median over the logged steps, 0 without any."""
        speeds = sorted(float(row["images_per_second"]) for row in self.rows if row["images_per_second"])
        return speeds[len(speeds) // 2] if speeds else 0.0

    @property
    def mean_staleness(self) -> float:
        """The mean over all pushes."""
        count = sum(self.staleness.values())
        return sum(tau * pushes for tau, pushes in self.staleness.items()) / count if count else 0.0


def read_run(folder: Path) -> CrewRun:
    """Return what a run's folder tells. Raises InputError where it is none."""
    loaded = load_model(folder / "last.h5", raw=True)
    config = configuration(loaded, folder / "last.h5")
    told = json.loads(str(loaded.attributes.get("workers", "{}")))
    staleness = Counter({int(tau): pushes for tau, pushes in told.get("staleness", {}).items()})
    return CrewRun(folder, config.workers, bool(config.cluster), config.seed, staleness, read_log(folder / "log.csv"))


def picture(runs: Sequence[CrewRun], path: Path) -> None:
    """Draw the staleness of the pushes, and the losses against the images, a colour for each number of workers."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    counts = sorted({run.workers for run in runs})
    for number, workers in enumerate(counts):
        same = [run for run in runs if run.workers == workers]
        colour, label = COLOURS[number % len(COLOURS)], f"{workers} worker{'s' * (workers > 1)}"
        _staleness(left, same, colour, label, number, len(counts))
        _losses(right, same, colour, label)
    left.set(xlabel="updates between a fetch and its push", ylabel="part of the pushes", title="Staleness")
    left.xaxis.get_major_locator().set_params(integer=True)
    right.set(xlabel="training images seen, over all workers", ylabel="cross-entropy of the classifier", title="Loss")
    right.set_yscale("log")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    with writing(path):
        figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _staleness(axes, runs: Sequence[CrewRun], colour: str, label: str, number: int, of: int) -> None:
    total = sum((run.staleness for run in runs), Counter[int]())
    pushes = sum(total.values())
    if not pushes:
        return
    width = 0.8 / of
    places = [tau + (number - (of - 1) / 2) * width for tau in sorted(total)]
    axes.bar(places, [total[tau] / pushes for tau in sorted(total)], width, color=colour, label=label)


def _losses(axes, runs: Sequence[CrewRun], colour: str, label: str) -> None:
    for number, run in enumerate(runs):
        steps = [(int(row["images"]), float(row["loss_main"])) for row in run.rows if row["lr"] and row["loss_main"]]
        if steps:
            images, losses = zip(*steps, strict=True)
            axes.plot(images, smoothed(losses, POINTS), color=colour, alpha=0.35, linewidth=0.8)
        ends = [(int(row["images"]), float(row["validation_loss"])) for row in run.rows if row["validation_loss"]]
        if ends:
            axes.plot(*zip(*ends, strict=True), ".--", color=colour, label=None if number else f"{label}, validation")
