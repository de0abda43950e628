"""Runs by different numbers of workers, side by side: how stale their pushes were, and what they learned."""
from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from googlenet.reports.curves import smoothed
from googlenet.reports.log import read_log
from googlenet.scripts import writing
from googlenet.training import configuration
from googlenet.weights import load_model

COLOURS = ("#1f77b4", "#d95f02", "#1b9e77", "#7570b3", "#666666")
POINTS = 60  # of a smoothed line, looked back over
WITHOUT_EFFECT = frozenset({  # on what is learned, but for the seeds, over which means are taken
    "seed", "sampling_seed", "output", "threads", "loader_threads", "log_every", "save_every", "keep", "report",
    "tensorboard", "max_restarts", "hang_timeout", "max_bad", "push_log"})


@dataclass(frozen=True)
class CrewRun:
    """What a run's folder tells."""

    folder: Path
    seed: int
    settings: Mapping[str, Any]  # of training and of the network, that results depend on
    staleness: Counter[int]  # pushes to shards, by their staleness; empty of one without workers
    rows: list[dict[str, str]]  # of its log

    @property
    def workers(self) -> int:
        """How many."""
        return int(self.settings["workers"])

    @property
    def last(self) -> dict[str, str] | None:
        """The line of the last epoch with a validation."""
        return next((row for row in reversed(self.rows) if row["validation_loss"]), None)

    @property
    def validation(self) -> tuple[float, float] | None:
        """The last validation's loss and top-1 error, of the weights that are tested; None without any."""
        if not self.last:
            return None
        averaged = self.settings["averaging"] != "none" and self.settings["tested"] == "averaged"
        kind = "averaged" if averaged else "validation"
        return float(self.last[f"{kind}_loss"]), float(self.last[f"{kind}_top1_error"])

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
    settings = {name: value for name, value in (asdict(loaded.model.config) | asdict(config)).items()
                if name not in WITHOUT_EFFECT}
    return CrewRun(folder, config.seed, settings | {"cluster": bool(config.cluster)}, staleness,
                   read_log(folder / "log.csv"))


def in_groups(runs: Sequence[CrewRun]) -> dict[str, list[CrewRun]]:
    """Return runs of the same settings together, named by their workers and by the flags in which they differ from the
    others."""
    varied = [name for name in runs[0].settings if name != "workers" and len({run.settings[name] for run in runs}) > 1]
    found: dict[str, list[CrewRun]] = {}
    for run in sorted(runs, key=lambda run: (run.workers, *(str(run.settings[name]) for name in varied), run.seed)):
        own = [_flag(name, run.settings[name]) for name in varied if run.settings[name] is not False]
        found.setdefault(" ".join([f"{run.workers} worker{'s' * (run.workers > 1)}", *own]), []).append(run)
    return found


def _flag(name: str, value: Any) -> str:
    return f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")


def picture(runs: Sequence[CrewRun], path: Path) -> None:
    """Draw the staleness of the pushes, and the losses against the images, a colour for each group of runs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    groups = in_groups(runs)
    for number, (label, same) in enumerate(groups.items()):
        colour = COLOURS[number % len(COLOURS)]
        _staleness(left, same, colour, label, number, len(groups))
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
