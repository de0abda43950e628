"""Table 3 of the paper: how errors fall with models and crops. And what a table of errors needs to be read rightly.

The paper's rows are one model, that with the lowest top-1 error, and all of them, each with 1, 10 and 144 crops; its
last column is the difference to one model with one crop. Here every figure has its interval of 95 %, and differences
are taken image by image (googlenet/intervals.py). All are fit for JSON: intervals are [low, high], or None where one
image leaves them open.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.crops import COUNTS
from googlenet.intervals import Interval, of_bounded_mean, of_mean, of_paired_errors, wilson
from googlenet.ledger import Ledger, Trial
from googlenet.testing import Spent
from minigrad.errors import InputError

ERRORS = {"top1_error": 1, "top5_error": 5}  # the label is not among so many best
FIGURES = (*ERRORS, "loss")
HEADS = ("top-1 error", "top-5 error", "loss")  # of their columns
POINTS = (("top1_error", 100, "+.2f"), ("top5_error", 100, "+.2f"), ("loss", 1, "+.4f"))  # of differences
ONE_MODEL = "One model is that with the lowest top-1 error of one crop on these images, as in the paper."
CHANCE = "Intervals hold 95 %, each by itself: a difference whose interval holds 0 may be chance."
Row = dict[str, Any]


def measures(ranks: np.ndarray, losses: np.ndarray) -> Row:
    """Return the errors and the mean loss of (n,) images, and under "intervals" how sure they are.

    Raises InputError where there are none."""
    n = len(ranks)
    if not n:
        raise InputError("no image could be classified: check the data set")
    wrong = {name: int(np.sum(ranks >= most)) for name, most in ERRORS.items()}
    return {"images": n, **{name: count / n for name, count in wrong.items()}, "loss": float(np.mean(losses)),
            "intervals": {**{name: _pair(wilson(count, n)) for name, count in wrong.items()},
                          "loss": _pair(of_mean(losses))}}


def of_trial(ledger: Ledger, trial: Trial) -> Row:
    """Return the `measures` of a trial."""
    return measures(ledger.column(trial, "rank"), ledger.column(trial, "loss"))


def by_class(ledger: Ledger, trial: Trial, classes: Sequence[str]) -> dict[str, Row]:
    """Return the `measures` of the images of each class that has any, by its name."""
    labels, ranks, losses = ledger.labels(), ledger.column(trial, "rank"), ledger.column(trial, "loss")
    return {classes[label]: measures(ranks[labels == label], losses[labels == label])
            for label in np.unique(labels).tolist()}


def difference(ledger: Ledger, trial: Trial, base: Trial) -> Row:
    """Return what `trial` has more than `base`, image by image: errors, loss and their "intervals"."""
    found = _means(ledger, [trial], [base])
    ours, theirs = (ledger.column(each, "rank") for each in (trial, base))
    found["intervals"] |= {name: _pair(of_paired_errors(theirs >= most, ours >= most)) for name, most in ERRORS.items()}
    return found


def members(ledger: Ledger, trial: Trial) -> Row:
    """Return what an ensemble's networks do by themselves ("each"), their "mean", and the "difference": what the
    ensemble has more than their mean.

    On one image the mean error of several networks is a fraction: these intervals are all those of a mean, of errors
    of a bounded one."""
    alone = [Trial((network,), trial.crops, trial.pool) for network in trial.networks]
    return {"each": [{"network": ledger.names[one.networks[0]], **of_trial(ledger, one)} for one in alone],
            "mean": _means(ledger, alone), "difference": _means(ledger, [trial], alone)}


def short(path: str) -> str:
    """Return the end of a path that usually tells networks apart, as runs' files all have one name: folder and file."""
    return "/".join(Path(path).parts[-2:])


def trials(networks: int, crops: int, pool: str, table: bool) -> list[Trial]:
    """Return what is to be tried: the networks together, at last; before, where there are several, each by itself. With
    `table`, all of Table 3; where `pool` is not the mean, both pools."""
    together = tuple(range(networks))
    groups = [*((each,) for each in together if networks > 1), together]
    tests = dict.fromkeys([*((count, each) for each in ("mean", pool) for count in COUNTS if table), (crops, pool)])
    return [Trial(group, *test) for group in groups for test in tests]


def table(ledger: Ledger, networks: int, spent: Spent) -> list[Row]:
    """Return the rows of Table 3 ("paper"), the base first; below, where there are several networks, each ("member").

    A row has `networks`, `models`, `crops`, `pool`, `cost`, `distinct_crops` (of an image, in the mean), its
    `measures`, `ms_per_image`, the `difference` to the base (None for the base itself) and `more_differences`: `to` ten
    crops, and of an ensemble `to` its mean member."""
    chosen, together = best(ledger, networks), tuple(range(networks))
    base = Trial((chosen,), 1)
    pools = sorted({trial.pool for trial in ledger.trials}, reverse=True)  # the mean first
    rows = [("paper", Trial(group, count, pool)) for group in dict.fromkeys([(chosen,), together]) for pool in pools
            for count in COUNTS if pool == "mean" or count > 1]
    rows += [("member", Trial((each,), count)) for each in together if networks > 1 for count in COUNTS]
    return [_row(ledger, trial, base, spent, kind) for kind, trial in rows]


def repeated(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return how many of the crops are distinct where some are not, nothing otherwise."""
    counts = {row["crops"]: row["distinct_crops"] for row in rows if row["crops"] - row["distinct_crops"] >= 0.05}
    of = ", ".join(f"of {crops} crops {round(distinct, 1):g}" for crops, distinct in sorted(counts.items()))
    return f"Distinct are {of}: a square picture's squares are one, and one without room has no corners." if of else ""


def best(ledger: Ledger, networks: int) -> int:
    """Return the network with the lowest top-1 error of one crop; of equals that with the lower loss."""
    def found(network: int) -> tuple[float, float]:
        own = of_trial(ledger, Trial((network,), 1))
        return own["top1_error"], own["loss"]
    return min(range(networks), key=found)


def _row(ledger: Ledger, trial: Trial, base: Trial, spent: Spent, kind: str) -> Row:
    return {"kind": kind, "networks": [ledger.names[n] for n in trial.networks], "models": len(trial.networks),
            "crops": trial.crops, "pool": trial.pool, "cost": trial.cost,
            "distinct_crops": spent.distinct_crops(trial.networks, trial.crops), **of_trial(ledger, trial),
            "ms_per_image": 1000 * spent.an_image(trial.networks, trial.crops),
            "difference": None if trial == base else difference(ledger, trial, base),
            "more_differences": _more_differences(ledger, trial)}


def _more_differences(ledger: Ledger, trial: Trial) -> list[Row]:
    found = []
    if trial.crops > 10:
        found.append({"to": "10 crops", **difference(ledger, trial, trial._replace(crops=10))})
    if len(trial.networks) > 1:
        found.append({"to": "its mean member", **members(ledger, trial)["difference"]})
    return found


def _means(ledger: Ledger, trials: Sequence[Trial], less: Sequence[Trial] = ()) -> Row:
    """Return the figures' means over trials, less those over others, with intervals from image to image."""
    found: Row = {"intervals": {}}
    for name in FIGURES:
        values = np.mean([_values(ledger, trial, name) for trial in trials], axis=0)
        if less:
            values = values - np.mean([_values(ledger, trial, name) for trial in less], axis=0)
        found[name] = float(values.mean())
        lowest = -1.0 if less else 0.0
        found["intervals"][name] = _pair(of_mean(values) if name == "loss" else of_bounded_mean(values, lowest, 1.0))
    return found


def _values(ledger: Ledger, trial: Trial, name: str) -> np.ndarray:
    """Return what a figure is the mean of, (n,)."""
    if name == "loss":
        return ledger.column(trial, "loss")
    return (ledger.column(trial, "rank") >= ERRORS[name]).astype(np.float64)


def _pair(interval: Interval) -> list[float] | None:
    return list(interval) if all(map(math.isfinite, interval)) else None
