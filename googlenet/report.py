"""What the scripts share: how they fail, the log of a run, and its curves. Only scripts import this."""
from __future__ import annotations

import argparse
import csv
import io
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import minigrad
from data.errors import DataError
from googlenet.training import Epoch, Step
from minigrad.errors import InputError

COLUMNS = ("step", "epoch", "images", "lr", "loss", "loss_main", "loss_aux1", "loss_aux2", "images_per_second",
           "validation_loss", "validation_top1_error", "validation_top5_error", "averaged_loss", "averaged_top1_error",
           "averaged_top5_error")


def run(main: Callable[[list[str]], int | None], program: str) -> None:
    """Run a script's `main` and exit: 0, 1 with one line for an error, 130 after Ctrl-C; --debug shows where from.

    Where nobody reads on (`... | head`), it ends as programs do whom the system ends for that: in silence, with 141."""
    arguments = sys.argv[1:]
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    logging.captureWarnings(True)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a class name may not exist in the console's encoding
    try:
        code = main(arguments)
        sys.stdout.flush()
        sys.exit(code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what is flushed at the end
        sys.exit(141)
    except (InputError, DataError, OSError) as error:
        if "--debug" in arguments:
            raise
        told = str(error)
        if isinstance(error, OSError):
            told = f"{error.filename or 'a file'}: {error.strerror or error}; check the path, the rights and the disk"
        sys.exit(f"{program}: error: {' '.join(told.split())}")
    except MemoryError as error:
        sys.exit(f"{program}: error: out of memory ({error}); use smaller images or batches")
    except KeyboardInterrupt:
        sys.stderr.write(f"\n{program}: stopped\n")
        sys.exit(130)


def check_threads(parser: argparse.ArgumentParser, threads: int) -> None:
    """End with a usage error where --threads asks for more than the machine has."""
    most = minigrad.available_threads()
    if threads > most:
        parser.error(f"argument --threads: {threads}: this process may use 1 to {most}; 0 means all of them")


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Say which file it was, and what helps, when the disk is full or the folder missing."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"can't write {path}: {reason}; free space or choose another folder") from error


class Log:
    """`log.csv` of a run: a line every `every` steps; at the end of each epoch one without a rate, with the means of
    its losses and its validation.

    A run that goes on at a step of an epoch drops the lines beyond: they are computed again.
    """

    def __init__(self, path: Path, every: int, step: int = 0, epoch: int = 0):
        self.path, self.every = path, every
        kept = [row for row in read_log(path)
                if int(row["step"]) <= step and (row["lr"] or int(row["epoch"]) < epoch)] if step else []
        temporary = path.with_name(f".{path.name}.part")
        with writing(path):
            with open(temporary, "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, COLUMNS)
                writer.writeheader()
                writer.writerows(kept)
            os.replace(temporary, path)
            self.file = open(path, "a", newline="", encoding="utf-8")  # noqa: SIM115  (open as long as the run)
        self.writer = csv.DictWriter(self.file, COLUMNS)

    def step(self, record: Step) -> None:
        """Note a step, if it is its turn."""
        if record.step % self.every == 0:
            self._write(record.step, record.epoch, record.images, record.lr, *record.losses,
                        round(record.images_per_second, 2))

    def epoch(self, record: Epoch) -> None:
        """Note the end of an epoch and its validation."""
        scores = (value for found in (record.validation, record.averaged) if found is not None
                  for value in (found.loss, found.top1_error, found.top5_error))
        self._write(record.step, record.epoch, record.images, math.nan, *record.losses, math.nan, *scores)
        self.flush()

    def _write(self, *values: float) -> None:
        known = {name: value for name, value in zip(COLUMNS, values, strict=False) if not math.isnan(value)}
        with writing(self.path):
            self.writer.writerow(known)

    def flush(self) -> None:
        """Hand all lines to the system."""
        with writing(self.path):
            self.file.flush()

    def close(self) -> None:
        """Write what is left, and end."""
        with writing(self.path):
            self.file.close()


def read_log(path: Path) -> list[dict[str, str]]:
    """Return the lines of a log.csv, the last one left out if a crash cut it."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return []
    return [row for row in rows if None not in row.values() and row["step"].isdigit()]


def curves(rows: list[dict[str, str]], path: Path) -> None:
    """Draw a log as a PNG: the losses of all classifiers and the validation errors, over the images seen."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import PercentFormatter

    ends = [row for row in rows if row["validation_top1_error"]]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    for column, label, colour in (("loss_aux1", "auxiliary head at 4a", "#ff7f0e"),
                                  ("loss_aux2", "auxiliary head at 4d", "#2ca02c"),
                                  ("loss_main", "classifier", "#1f77b4")):
        points = [(int(row["images"]), float(row[column])) for row in rows if row["lr"] and row[column]]
        if points:
            images, losses = zip(*points, strict=True)
            left.plot(images, losses, color=colour, alpha=0.2, linewidth=0.8)
            left.plot(images, smoothed(losses), color=colour, label=f"{label} (smoothed)")
    if ends:
        left.plot([int(row["images"]) for row in ends], [float(row["validation_loss"]) for row in ends], "k.--",
                  label="classifier, validation")
    left.set(xlabel="training images seen", ylabel="cross-entropy", title="Losses")
    for name, label in (("validation_top1_error", "top-1"), ("validation_top5_error", "top-5")):
        right.plot([int(row["images"]) for row in ends], [float(row[name]) for row in ends], ".-", label=label)
    averages = [row for row in ends if row.get("averaged_top1_error")]
    if averages:
        right.plot([int(row["images"]) for row in averages], [float(row["averaged_top1_error"]) for row in averages],
                   ".:", color="#1f77b4", label="top-1, averaged weights")
    right.set(xlabel="training images seen", ylabel="error", title="Validation")
    right.yaxis.set_major_formatter(PercentFormatter(1))
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    with writing(path):
        figure.savefig(path, dpi=100)
    pyplot.close(figure)


def smoothed(values: tuple[float, ...], span: int = 20) -> list[float]:
    """Return the mean of each value and up to `span` - 1 before it."""
    return [sum(values[max(0, i - span + 1):i + 1]) / min(i + 1, span) for i in range(len(values))]
