"""Shared by the tests of training and of the commands: small sets of real pictures, small networks, running a script.

`script` calls a script's `main` in this process, which is quick; `process` starts it as a user does.
"""

import contextlib
import csv
import importlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
from PIL import Image

import minigrad
from data.datasets import open_dataset
from googlenet import scripts
from googlenet.config import ModelConfig
from googlenet.model import GoogLeNet, preprocessing_of
from googlenet.reports.log import Log
from googlenet.training import Epoch, Step
from googlenet.weights import save_weights
from minigrad import hdf5, init

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ("ankle boot", "bag", "coat", "dress")
TINY = ("--width", "0.05", "--image-size", "32", "--threads", "1")
SUFFIXES = (".png", ".jpg")
# Of bars, of moving between two of them, of matplotlib's first time, of the mean, of what is tested.
PROGRESS = ("%|", "\x1b[A", "compiling ", "font", " minus (", "left out ", " --split ")


class Done(NamedTuple):
    """How a script ended and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line that tells of the error: nothing else is on stderr, but for what tells of progress."""
        lines = [
            line
            for line in self.err.replace("\r", "\n").splitlines()
            if line.strip() and not any(progress in line for progress in PROGRESS)
        ]
        assert "Traceback" not in self.err, self.err
        assert len(lines) == 1, f"expected one line on stderr, got {lines}"
        return lines[0]


def computing_alone() -> Iterator[None]:
    """A fixture: one thread, since networks as small as these are done before a second one has woken up."""
    before = minigrad.get_threads()
    minigrad.set_threads(1)
    yield
    minigrad.set_threads(before)


def process(program: str, *arguments: object, cwd: Path | None = None, **options: object) -> Done:
    """Run a script in a process of its own, in another folder than the project's."""
    done = subprocess.run(
        command(program, *arguments), cwd=cwd or ROOT, capture_output=True, text=True, timeout=300, **options
    )
    return Done(done.returncode, done.stdout, done.stderr)


def command(program: str, *arguments: object) -> list[str]:
    """The words of a command line; `program` is train.py, evaluate.py or googlenet."""
    start = [str(ROOT / program)] if program.endswith(".py") else ["-m", program]
    return [sys.executable, *start, *map(str, arguments)]


def script(program: str, *arguments: object) -> Done:
    """Run a script's `main` in this process as its last lines do."""
    name = program.removesuffix(".py") if program.endswith(".py") else f"{program}.__main__"
    out, err = io.StringIO(), io.StringIO()
    threads, root = minigrad.get_threads(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    try:
        with (
            mock.patch.object(sys, "argv", [program, *map(str, arguments)]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            scripts.run(importlib.import_module(name).main, program)
    except SystemExit as end:
        told = isinstance(end.code, str)
        return Done(1 if told else end.code or 0, out.getvalue(), err.getvalue() + (f"{end.code}\n" if told else ""))
    finally:
        minigrad.set_threads(threads)
        logging.captureWarnings(False)
        root.handlers[:] = handlers
        root.setLevel(level)
    raise AssertionError("the script came back without an exit code")


@cache
def _pictures(split: str, count: int) -> tuple[np.ndarray, ...]:
    """Embedded pictures of the first classes, `count` of each."""
    embedded = open_dataset("embedded", split)
    return tuple(
        embedded.image(i)
        for label in range(len(CLASSES))
        for i in np.flatnonzero(embedded.labels == label)[:count].tolist()
    )


def pictures(split: str, count: int) -> list[tuple[np.ndarray, int]]:
    """(picture, label) of `count` embedded pictures of each of the first classes."""
    return [(image, i // count) for i, image in enumerate(_pictures(split, count))]


def write_set(folder: Path, train: int = 9, test: int = 3, classes: Sequence[str] = CLASSES) -> Path:
    """A set of class folders, PNG and JPEG by turns; a split of no pictures is left out."""
    for split, count in (("train", train), ("test", test)):
        for i, (image, label) in enumerate(pictures(split, count)):
            path = folder / split / classes[label] / f"{i % count:03}{SUFFIXES[i % 2]}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return folder


def network(seed: int = 0, **config: object) -> GoogLeNet:
    """A tiny network with weights that tell pictures apart somehow."""
    model = GoogLeNet(ModelConfig(**{"classes": len(CLASSES), "image_size": 32, "width": 0.05, **config}))
    init.initialise(model, seed, weight="xavier", bias=0.1)
    return model


def write_weights(path: Path, seed: int = 0, classes: Sequence[str] = CLASSES, **config: object) -> Path:
    """A weight file of such a network."""
    model = network(seed, classes=len(classes), **config)
    save_weights(path, model, preprocessing=preprocessing_of(model.config), classes=classes)
    return path


def run_folder(output: Path) -> Path:
    """The only run below a folder."""
    folders = list(output.iterdir())
    assert len(folders) == 1, folders
    return folders[0]


def read_rows(folder: Path) -> list[dict[str, str]]:
    """The lines of a run's log, without their speed, which no two runs share."""
    with open(folder / "log.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        speed = row.pop("images_per_second")
        assert float(speed) > 0 if row["lr"] else not speed, row
    return rows


class Killed(BaseException):
    """The end of a process at some place, as far as files can tell."""


def kill() -> None:
    """End this process so."""
    raise Killed


def interrupt(number: int = signal.SIGINT) -> None:
    """Send this process a signal."""
    os.kill(os.getpid(), number)


def on_records(
    monkeypatch: pytest.MonkeyPatch, place: Callable[[Step | Epoch], Hashable]
) -> Callable[[Hashable, Callable[[], None]], None]:
    """Return during(at, action), which has `action` called once, when a record is logged whose `place` is `at`."""
    actions: dict[Hashable, Callable[[], None]] = {}
    for name in ("step", "epoch"):
        original = getattr(Log, name)

        def spy(log: Log, record: Step | Epoch, original: Callable = original) -> None:
            original(log, record)
            actions.pop(place(record), lambda: None)()

        monkeypatch.setattr(Log, name, spy)
    return actions.__setitem__


def assert_same_run(one: Path, other: Path) -> None:
    """Same log apart from the speed, same weights, velocity and place in the data, same settings: but for the folder,
    how often it was saved, and whether the sampling's seed is told by itself."""
    assert read_rows(one) == read_rows(other)
    for name in ("last.h5", "best.h5"):
        (arrays, attributes), (others, more) = hdf5.load(one / name), hdf5.load(other / name)
        assert arrays.keys() == others.keys()
        for path in arrays:
            np.testing.assert_array_equal(arrays[path], others[path], err_msg=f"{name} {path}")
        alike = {"output": "", "sampling_seed": 0, "save_every": 0.0}
        settings = [json.loads(each.pop("training", "{}")) | alike for each in (attributes, more)]
        assert settings[0] == settings[1]
        assert attributes == more, name
