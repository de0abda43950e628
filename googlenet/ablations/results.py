"""The runs that ablations need, and what they came to.

    results.csv    a line for each run that has ended
    NAME-seed-0/   a run: base-seed-0, naive-seed-1, ...
"""
from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import NamedTuple, get_type_hints

from googlenet.ablations.questions import BASE_ROW, Variation
from googlenet.config import ModelConfig, TrainingConfig, from_json, to_json
from googlenet.intervals import Interval, of_mean
from googlenet.series import Planned
from googlenet.summary import summary
from googlenet.testing import Score
from minigrad.errors import InputError
from minigrad.files import write_whole

Key = tuple[str, int]  # of a run: its name and its seed


def planned(folder: Path, training: TrainingConfig, network: ModelConfig, variations: Sequence[Variation],
            seeds: int) -> dict[Key, Planned]:
    """Return the runs that variations of a base need, by name and seed; each is there once."""
    made: dict[Key, Planned] = {}
    for seed in range(seeds):
        for run, changes in {each.run: each.changes for each in (BASE_ROW, *variations)}.items():
            own = {**changes, "width": changes.get("width", 1) * network.width}
            of_training = {name: value for name, value in own.items() if hasattr(training, name)}
            of_network = {name: value for name, value in own.items() if hasattr(network, name)}
            made[run, seed] = Planned(folder / f"{run}-seed-{seed}", replace(training, **of_training, seed=seed),
                                      replace(network, **of_network))
    return made


class Result(NamedTuple):
    """A run that has ended: its errors, the mean of -log p[label], and its cost; the settings as JSON."""

    run: str
    seed: int
    images: int
    top1_error: float
    top5_error: float
    nll: float
    averaged_top1_error: float
    averaged_top5_error: float
    averaged_nll: float
    parameters: int  # without heads, as in testing
    multiply_adds: int  # of an image, without heads
    images_per_second: float  # in training: the median over the logged steps
    network: str
    training: str

    def measured(self, measure: str, averaged: bool) -> float:
        """Return `top1_error`, `top5_error` or `nll`, of the averaged weights or of the last ones."""
        value: float = getattr(self, f"averaged_{measure}" if averaged else measure)
        return value


@dataclass
class Results:
    """results.csv: the runs that have ended, by name and seed."""

    path: Path
    rows: dict[Key, Result] = field(default_factory=dict)

    def add(self, result: Result) -> None:
        """Add a run; the file is written whole or stays as it was."""
        self.rows[result.run, result.seed] = result
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(Result._fields)
        writer.writerows(self.rows.values())
        write_whole(self.path, [text.getvalue().encode()])

    def require_same(self, plan: Mapping[Key, Planned]) -> None:
        """Raise InputError where a run that is planned has ended with other settings."""
        for key in self.rows.keys() & plan.keys():
            row = self.rows[key]
            plan[key].require_same(from_json(TrainingConfig, row.training), from_json(ModelConfig, row.network),
                                   f"{row.run} with seed {row.seed} in {self.path}")


def read(path: Path) -> Results:
    """Return what a results.csv holds, nothing where there is none. Raises InputError for one that is damaged."""
    if not path.exists():
        return Results(path)
    kinds = get_type_hints(Result)
    try:
        with open(path, newline="", encoding="utf-8") as file:
            names, *lines = csv.reader(file)
        if tuple(names) != Result._fields:
            raise ValueError("other columns")
        rows = [Result(*(kinds[name](value) for name, value in zip(names, line, strict=True))) for line in lines]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} can't be read ({error}): restore it, or give another --output") from error
    return Results(path, {(row.run, row.seed): row for row in rows})


def result(name: str, run: Planned, network: ModelConfig, raw: Score, averaged: Score, speed: float) -> Result:
    """Return the line of a run that has ended: `network` with the data's classes, the tests of its last weights and of
    their average, and the images a second."""
    counted = summary(network)
    return Result(name, run.training.seed, raw.images, raw.top1_error, raw.top5_error, raw.loss, averaged.top1_error,
                  averaged.top5_error, averaged.loss, counted["parameters"], counted["multiply_adds"], speed,
                  _in_a_line(to_json(network)), _in_a_line(to_json(run.training)))


def _in_a_line(text: str) -> str:
    return json.dumps(json.loads(text))


class Estimate(NamedTuple):
    """A mean over seeds and its interval of 95 %, by Student's t; that of one seed has no bounds."""

    mean: float
    interval: Interval


class Answer(NamedTuple):
    """What a variation came to: its errors by seed, and estimates of its error, its negative log likelihood, and of
    their differences, seed by seed, to what it is compared with."""

    variation: Variation
    errors: tuple[float, ...]
    error: Estimate
    error_difference: Estimate
    nll: Estimate
    nll_difference: Estimate
    parameters: int
    multiply_adds: int
    images_per_second: float


def answers(results: Results, variations: Sequence[Variation], seeds: int) -> list[Answer]:
    """Return what came out, the base first; all runs must have ended."""
    return [_answer(each, [results.rows[each.run, seed] for seed in range(seeds)],
                    [results.rows[each.against, seed] for seed in range(seeds)]) for each in (BASE_ROW, *variations)]


def _answer(variation: Variation, rows: Sequence[Result], against: Sequence[Result]) -> Answer:
    errors, nlls = ([row.measured(measure, variation.averaged) for row in rows] for measure in ("top1_error", "nll"))
    more = [error - row.top1_error for error, row in zip(errors, against, strict=True)]
    more_nll = [nll - row.nll for nll, row in zip(nlls, against, strict=True)]
    speed = median(row.images_per_second for row in rows)
    return Answer(variation, tuple(errors), _estimate(errors), _estimate(more), _estimate(nlls), _estimate(more_nll),
                  rows[0].parameters, rows[0].multiply_adds, speed)


def _estimate(values: Sequence[float]) -> Estimate:
    return Estimate(sum(values) / len(values), of_mean(values))
