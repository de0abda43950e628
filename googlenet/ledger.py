"""What is kept of an evaluation: of every image its label and, for each trial, a few numbers; a file to go on from.

Probabilities of 50,000 images, 1000 classes, seven networks and three tests would fill 4 GB. Errors, intervals, tables
and pages need the rank of the label, its loss and the five best classes: some sixty bytes an image and trial.

The file is written whole, under a temporary name, and renamed (minigrad/hdf5.py), so that a crash loses no more than
what came after the last time.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.damaged import Damaged
from googlenet.testing import Answer, Judged, Prediction, Spent, judge
from minigrad import hdf5
from minigrad.errors import InputError

log = logging.getLogger(__name__)

KIND = "evaluation"
LISTS = ("weights", "preprocessing", "classes", "images")  # settings too long to print
LEAST_WAIT = 60.0  # seconds between two saves
MOST_OF_TIME = 0.02  # that saving may take


class Trial(NamedTuple):
    """One way to test: which networks, by their places, how many crops of an image, and how crops are pooled."""

    networks: tuple[int, ...]
    crops: int
    pool: str = "mean"

    @property
    def cost(self) -> int:
        """Forward passes an image, as the paper counts them."""
        return len(self.networks) * self.crops

    def prediction(self, answer: Answer) -> Prediction:
        """Return what the networks say together: the mean of their probabilities."""
        own = answer.probabilities[self.crops, self.pool][list(self.networks)]
        return Prediction(answer.image, answer.label, own.mean(axis=0))


class Ledger:
    """The images so far, judged in every trial; all probabilities of the trial `whole`, where one is given."""

    def __init__(self, trials: Sequence[Trial], names: Sequence[str], classes: int, whole: Trial | None = None):
        self.trials = list(dict.fromkeys(trials))
        self.names = names  # of the networks, for messages
        self.whole = whole
        self.kind = np.dtype([("rank", np.int32), ("loss", np.float64), ("classes", np.int32, (min(5, classes),)),
                              ("probabilities", np.float32, (min(5, classes),))])
        self._wrong = dict.fromkeys(self.trials, 0)
        self._rows: list[tuple[int, int, np.ndarray, np.ndarray | None]] = []  # image, label, by trial, probabilities

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def following(self) -> int:
        """The place of the image after the last one."""
        return self._rows[-1][0] + 1 if self._rows else 0

    def add(self, answer: Answer) -> None:
        """Judge an image in every trial. Raises InputError where probabilities are not numbers."""
        judged = [judge(trial.prediction(answer)) for trial in self.trials]
        for trial, each in zip(self.trials, judged, strict=True):
            if not math.isfinite(each.loss):
                own = ", ".join(self.names[n] for n in trial.networks)
                raise InputError(f"{own}: probabilities are not numbers; take an earlier checkpoint")
        row = np.array([(j.rank, j.loss, j.classes, j.probabilities) for j in judged], self.kind)
        whole = self.whole.prediction(answer).probabilities.astype(np.float32) if self.whole else None
        self._rows.append((answer.image, answer.label, row, whole))  # all of an image or nothing, whenever Ctrl-C comes
        for trial, each in zip(self.trials, judged, strict=True):
            self._wrong[trial] += each.rank > 0

    def top1_error(self, trial: Trial) -> float:
        """Return the top-1 error so far."""
        return self._wrong[trial] / len(self)

    def images(self) -> np.ndarray:
        """Return the images' places in the data set, (n,)."""
        return np.array([row[0] for row in self._rows], np.int64)

    def labels(self) -> np.ndarray:
        """Return their labels, (n,)."""
        return np.array([row[1] for row in self._rows], np.int64)

    def column(self, trial: Trial, field: str) -> np.ndarray:
        """Return a field of Judged for all images: "rank" or "loss" (n,), "classes" or "probabilities" (n, 5)."""
        place = self.trials.index(trial)
        return np.array([row[2][field][place] for row in self._rows])

    def judged(self, trial: Trial) -> list[Judged]:
        """Return the images as a trial judged them."""
        place = self.trials.index(trial)
        return [Judged(image, label, *(row[place][field].tolist() for field in ("rank", "loss")),
                       *(tuple(row[place][field].tolist()) for field in ("classes", "probabilities")))
                for image, label, row, _ in self._rows]

    def probabilities(self) -> np.ndarray:
        """Return all probabilities of the trial `whole`, (n, classes) in float32."""
        return np.array([row[3] for row in self._rows])

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything, by name: (n,), (n, trials), (n, trials, 5)."""
        rows = np.array([row[2] for row in self._rows])
        found = {"image": self.images(), "label": self.labels(), **{name: rows[name] for name in self.kind.names or ()}}
        return {**found, "whole": self.probabilities()} if self.whole else found

    def take(self, arrays: dict[str, np.ndarray]) -> None:
        """Take up what `arrays` of a ledger of the same trials gave."""
        rows = np.empty(arrays["rank"].shape, self.kind)
        for name in self.kind.names or ():
            rows[name] = arrays[name]
        whole = arrays["whole"] if self.whole else [None] * len(rows)
        self._rows = list(zip(arrays["image"].tolist(), arrays["label"].tolist(), rows, whole, strict=True))
        self._wrong = dict(zip(self.trials, np.sum(arrays["rank"] > 0, axis=0).tolist(), strict=True))


class Progress:
    """An evaluation under way: its ledger, damaged images and time, and the file that keeps them, if any.

    `settings` say what is evaluated; a file of other settings is not taken up."""

    def __init__(self, path: Path | None, settings: dict[str, object], ledger: Ledger, damaged: Damaged, spent: Spent):
        self.path, self.settings, self.ledger, self.damaged, self.spent = path, settings, ledger, damaged, spent
        self.seconds = 0.0  # of the evaluation, also before it was taken up
        self._since = self._due = time.monotonic()
        self._failed = False  # the latest save
        if path and path.exists():
            self._take_up(path)
        self._wait(0.0)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.save()  # also after an error, or Ctrl-C

    def add(self, answer: Answer) -> None:
        """Judge an image, and save when it is time; where that fails, warn, and try again when it is next time."""
        self.ledger.add(answer)
        if time.monotonic() < self._due:
            return
        try:
            self.save()
            self._failed = False
        except InputError as error:
            if not self._failed:
                log.warning("%s; the evaluation goes on, and is kept when it can be", error)
            self._failed = True
            self._wait(0.0)

    def save(self) -> None:
        """Write the file, if there is one. Raises InputError where it can't be written."""
        now = time.monotonic()
        self.seconds, self._since = self.seconds + now - self._since, now
        if not self.path or not len(self.ledger):
            return
        told = {"settings": self.settings, "damaged": self.damaged.found, "seconds": self.seconds,
                "spent": vars(self.spent)}
        hdf5.save(self.path, self.ledger.arrays(), {"kind": KIND, **{key: json.dumps(told[key]) for key in told}})
        self._wait(time.monotonic() - now)

    def _wait(self, took: float) -> None:
        """Wait at least a minute, and longer where saving takes long."""
        self._due = time.monotonic() + max(LEAST_WAIT, took / MOST_OF_TIME)

    def _take_up(self, path: str | os.PathLike[str]) -> None:
        arrays, attributes = hdf5.load(path)
        if attributes.get("kind") != KIND:
            raise InputError(f"{path} holds no evaluation: name another file to keep this one in")
        told = {key: json.loads(str(value)) for key, value in attributes.items() if key != "kind"}
        for key, value in json.loads(json.dumps(self.settings)).items():
            if told["settings"].get(key) != value:
                raise InputError(f"{path} was begun {_change(key, told['settings'].get(key), value)}: give the same "
                                 "flags, or another file")
        self.ledger.take(arrays)
        self.damaged.found.update(told["damaged"])
        self.seconds = told["seconds"]
        vars(self.spent).update(told["spent"])


def _change(name: str, then: object, now: object) -> str:
    """Return how a setting has changed, as it is typed: "without --limit, now it is with --limit 30"."""
    if name in LISTS:
        return f"with other {name}"
    return f"{_typed(name, then)}, now it is {_typed(name, now)}"


def _typed(name: str, value: object) -> str:
    if value is None or value is False:
        return f"without --{name}"
    return f"with --{name}" if value is True else f"with --{name} {value}"
