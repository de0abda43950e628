"""Carrying out a run, as train.py and the commands that train several networks do: bars, lines, files, signals."""
from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from shlex import quote

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from data.base import Dataset
from data.datasets import open_dataset
from data.errors import DataError
from googlenet.inference import load
from googlenet.reports.curves import curves
from googlenet.reports.log import Log, read_log
from googlenet.runs import Run, keep_epoch, write_settings
from googlenet.testing import Score, score
from googlenet.training import DivergedError, Epoch, Step, Trainer
from minigrad.errors import InputError

STOPPED = 130  # exit code, as of programs that Ctrl-C ends


@dataclass
class Clock:
    """How long epochs take, to tell what is left of a run."""

    began: float = field(default_factory=time.monotonic)  # this epoch, or the run
    first: int = 0  # step at which it began
    spent: list[float] = field(default_factory=list)  # seconds of whole epochs, validation included

    def epoch_ends(self, step: int, steps: int) -> None:
        """Note the end of an epoch of `steps` steps; one that was resumed in its midst is scaled up."""
        now = time.monotonic()
        self.spent.append((now - self.began) * steps / max(step - self.first, 1))
        self.began, self.first = now, step

    def left(self, epochs: int) -> float:
        """Return the seconds that so many more epochs take, by the last three."""
        recent = self.spent[-3:]
        return epochs * sum(recent) / len(recent)


def carry_out(run: Run) -> int:
    """Train to the end and test, telling of it; return the exit code: 0, or 130 where a signal stopped it."""
    trainer, config = run.trainer, run.trainer.config
    describe(run)
    write_settings(run)
    log = Log(run.log, config.log_every, trainer.step, trainer.epoch)
    try:
        finished = train(run, log)
    except BaseException as error:
        with suppress(InputError):  # what stopped the run is the news
            close(run, log)
        if isinstance(error, DivergedError):
            remedy = (f"the last good checkpoint is kept: --resume {quote(str(run.folder))}" if run.last.exists()
                      else "start again")
            raise InputError(f"{error}; {remedy}") from error
        raise
    close(run, log)
    if trainer.loader.bad or trainer.bad:
        print(f"left out as damaged: {len(trainer.loader.bad)} training, {len(trainer.bad)} validation images")
    if not finished:
        print(f"stopped at step {trainer.step}, saved; go on with: python train.py --resume {quote(str(run.folder))}")
        return STOPPED
    return 0


def describe(run: Run) -> None:
    """Print what is trained, on what, and where to."""
    trainer = run.trainer
    for note in run.notes:
        print(note)
    print(f"{trainer.config.data}: {len(trainer.training)} training images"
          + (f", {len(trainer.validation)} for validation" if trainer.validation else "")
          + f", {len(trainer.training.classes)} classes")
    print(f"{trainer.flat.data.size:,} parameters; images: {trainer.preprocessing}")
    print(f"run folder: {run.folder}")


def close(run: Run, log: Log) -> None:
    """End the log and draw its curves."""
    log.close()
    curves(read_log(run.log), run.folder / "curves.png")


@contextmanager
def stop_on_signal() -> Iterator[list[int]]:
    """Note the first Ctrl-C (or termination) in the list, so that the step can end; the second one interrupts."""
    caught: list[int] = []

    def note(number: int, frame: object) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)
        os.write(2, b"\nstopping after this step; once more stops at once, without saving\n")  # print may be in use

    before = {each: signal.signal(each, note) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def train(run: Run, log: Log) -> bool:
    """Train to the end, or until a signal, saving last.h5 and best.h5; return whether all epochs are done."""
    trainer, config = run.trainer, run.trainer.config
    saved, clock, steps = time.monotonic(), Clock(first=trainer.step), trainer.loader.batches
    with ExitStack() as stack:
        stack.enter_context(logging_redirect_tqdm())
        stop = stack.enter_context(stop_on_signal())
        bar = stack.enter_context(tqdm(total=steps * config.epochs, initial=steps * trainer.epoch + trainer.batch,
                                       unit="step"))
        for record in trainer.records():
            if isinstance(record, Step):
                log.step(record)
                bar.update(steps * record.epoch + trainer.batch - bar.n)
                bar.set_postfix_str(progress(record), refresh=False)
            else:
                log.epoch(record)
                clock.epoch_ends(record.step, steps)
                announce(record, trainer, clock.left(config.epochs - trainer.epoch))
                if record.best:
                    trainer.save_weights(run.best)
            if stop or isinstance(record, Epoch) or time.monotonic() - saved > 60 * config.save_every:
                log.flush()
                trainer.save(run.last)
                saved = time.monotonic()
            if isinstance(record, Epoch):
                keep_epoch(run)
            if stop:
                return trainer.epoch >= config.epochs
    return True


def progress(record: Step) -> str:
    """Return the bar's text: the three losses, the rate, the speed."""
    names = {"main": record.losses.main, "aux1": record.losses.aux1, "aux2": record.losses.aux2}
    losses = " ".join(f"{name} {loss:.3f}" for name, loss in names.items() if not math.isnan(loss))
    return f"{losses} lr {record.lr:.4g} {record.images_per_second:.0f} images/s"


def announce(record: Epoch, trainer: Trainer, left: float) -> None:
    """Print a line for an epoch, with the seconds left, and its warnings."""
    line = f"epoch {record.epoch + 1}/{trainer.config.epochs}  loss {record.losses.main:.4f}"
    if record.validation is not None:
        line += (f"  validation: loss {record.validation.loss:.4f}, top-1 error {record.validation.top1_error:.2%}, "
                 f"top-5 error {record.validation.top5_error:.2%}")
    if record.averaged is not None:
        line += f"; averaged weights: loss {record.averaged.loss:.4f}, top-1 error {record.averaged.top1_error:.2%}"
    line += "  (best so far)" if record.best and record.validation is not None else ""
    tqdm.write(line + (f"  about {duration(left)} left" if left else ""))
    for warning in record.warnings:
        tqdm.write(f"warning: {warning}")


def duration(seconds: float) -> str:
    """Return a time in words of two units: 3 d 4 h, 2 h 5 min, 3 min 20 s, 40 s."""
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    whole = round(seconds)
    first = next((i for i, (_, length) in enumerate(units) if whole >= length), len(units) - 1)
    parts = []
    for name, length in units[first:first + 2]:
        count, whole = divmod(whole, length)
        parts.append(f"{count} {name}")
    return " ".join(part for part in parts if not part.startswith("0 ")) or "0 s"


def open_test(data: str) -> Dataset | None:
    """Return the test images of a data set; None, and a line that says why, where it has none."""
    try:
        return open_dataset(data, "test")
    except DataError as error:
        print(f"no test images: {error}")
        return None


def test(run: Run, images: Dataset) -> Score:
    """Score the best weights on the test images, which nothing has looked at until now."""
    trainer, config = run.trainer, run.trainer.config
    if trainer.average:
        print("the averaged weights are tested, here and by evaluate.py and predict, where --raw takes the others")
    result = score([load(run.best)], images, 1, threads=config.loader_threads, max_bad=config.max_bad)
    print(f"test: top-1 error {result.top1_error:.2%}, top-5 error {result.top5_error:.2%} "
          f"({result.images} images, centre crop)")
    return result
