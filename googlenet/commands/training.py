"""Carrying out a run, as train.py and the commands that train several networks do: bars, lines, files, signals.

`carry_out` shows a run as train.py does. `complete` only writes its files, for those that show several runs as one.
"""
from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from data.base import Dataset
from data.datasets import open_dataset
from data.errors import DataError
from googlenet import scripts
from googlenet.config import TrainingConfig
from googlenet.distbelief.job import share
from googlenet.distbelief.trainer import AsynchronousTrainer
from googlenet.inference import load
from googlenet.reports.curves import curves
from googlenet.reports.log import Log, read_log
from googlenet.reports.run import RunPage
from googlenet.reports.tensorboard import Events
from googlenet.runs import Run, alone, keep_epoch, write_settings
from googlenet.testing import Score, score
from googlenet.training import DivergedError, Epoch, Fault, Restart, Step, Trainer
from googlenet.training.records import GivenUpError
from minigrad.errors import InputError
from minigrad.files import write_whole

MOST_SHOWN = 8  # workers whose speeds are in the bar
ENOUGH = 20  # steps that tell how long an epoch takes
STOPPED = 130  # exit code, as of programs that Ctrl-C ends

Record = Step | Epoch | Restart | Fault
Watch = Callable[[Record, float | None], None]  # of a record, and the seconds that are left, once they are known


class Ended(NamedTuple):
    """How training ended: with all epochs `done`, `stopped` by a signal, or both: by one in the last validation."""

    done: bool
    stopped: bool


@dataclass
class Clock:
    """How long epochs take, to tell what is left of a run."""

    began: float  # when this epoch began, or the run
    first: int = 0  # the step it began at
    spent: list[float] = field(default_factory=list)  # seconds of whole epochs, validation included

    def begin(self, step: int) -> None:
        """Begin an epoch, or a part of it, at a step: where training went back, or on from the end of one."""
        self.began, self.first = time.monotonic(), step

    def epoch_ends(self, step: int, steps: int) -> None:
        """Note the end of an epoch of `steps` steps; one that was resumed in its midst is scaled up."""
        self.spent.append((time.monotonic() - self.began) * steps / max(step - self.first, 1))
        self.begin(step)

    def left(self, epochs: float, step: int, steps: int) -> float | None:
        """Return the seconds that so many more epochs of `steps` steps take, by the last three; in the first one by its
        steps up to this one, without validation. None while these are few."""
        recent = self.spent[-3:]
        if not recent and step - self.first < ENOUGH:
            return None
        recent = recent or [(time.monotonic() - self.began) * steps / (step - self.first)]
        return epochs * sum(recent) / len(recent)


def carry_out(run: Run, whole: Path | None = None) -> Ended:
    """Train to the end, telling of it.

    A run that is part of an ensemble is gone on with by the folder of the `whole`."""
    trainer = run.trainer
    describe(run)
    try:
        with shown(trainer) as watch:
            ended = complete(run, watch)
    except GivenUpError as error:
        trainer.save(run.last)
        raise InputError(f"{error}. It is saved at step {trainer.step:,}; go on with: "
                         f"{going_on(whole or run.folder)}") from error
    except DivergedError as error:
        if not run.last.exists():
            raise
        raise InputError(f"{error}; the last good checkpoint is kept: --resume {scripts.shown_path(run.folder)}"
                         ) from error
    if trainer.loader.bad or trainer.bad:
        print(f"left out as damaged: {len(trainer.loader.bad)} training, {len(trainer.bad)} validation images")
    if not ended.done:
        print(f"stopped at step {trainer.step}, saved; go on with: {going_on(whole or run.folder)}")
    return ended


def going_on(folder: Path) -> str:
    """Return the command that goes on with a run, or an ensemble."""
    return f"python train.py --resume {scripts.shown_path(folder)}"


def evaluation(weights: str, data: str) -> str:
    """Return the command that evaluates weights, as `shown_path` shows them, on a data set."""
    source = "" if data == "embedded" else f" --data {scripts.shown_path(data)}"
    return f"python evaluate.py --weights {weights}{source}"


def describe(run: Run) -> None:
    """Print what is trained, on what, and where to."""
    trainer = run.trainer
    for note in run.notes:
        print(note)
    print(f"{trainer.config.data}: {len(trainer.training)} training images"
          + (f", {len(trainer.validation)} for validation" if trainer.validation else "")
          + f", {len(trainer.training.classes)} classes")
    frozen = sum(place.stop - place.start for path, (place, _) in trainer.flat.places.items() if path in trainer.frozen)
    print(f"{trainer.flat.data.size:,} parameters" + (f", {frozen:,} of them frozen" if frozen else "")
          + f"; images: {trainer.preprocessing}")
    if isinstance(trainer, AsynchronousTrainer):
        print(crew_of(trainer.config))
    print(f"run folder: {run.folder}")


def crew_of(config: TrainingConfig) -> str:
    """Return how many workers train, and what is known to help so many."""
    of_each = share(config)
    told = f"{config.workers} worker{'s' * (config.workers > 1)} "
    told += "on a cluster" if config.cluster else f"of {of_each} thread{'s' * (of_each > 1)} each"
    if config.sync:
        backup = f", {config.backup_workers} of them as backup" if config.backup_workers else ""
        return f"{told}, synchronous{backup}"
    missing = [flag for flag, given in (("--look-ahead", config.look_ahead), ("--warm-start", config.warm_start))
               if not given]
    if config.optimiser == "momentum" and config.momentum and config.workers > 1 and missing:
        told += (f"; a gradient of theirs comes {config.workers - 1} update{'s' * (config.workers > 2)} late: "
                 f"{' and '.join(missing)} make{'s' * (len(missing) == 1)} up for it (googlenet/distbelief/README.md)")
    return told


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


class Records:
    """The files that tell of a run: log.csv and its curves and, where they are wanted, a page and TensorBoard's events.

    A run that is gone on with goes on with its files."""

    def __init__(self, run: Run):
        trainer, config = run.trainer, run.trainer.config
        self.run = run
        self.log = Log(run.log, config.log_every, trainer.step, trainer.epoch,
                       crew=isinstance(trainer, AsynchronousTrainer))
        self.page = RunPage(run.folder, trainer) if config.report else None  # reads the log
        self.events = Events(run.folder / "events", trainer, config.log_every) if config.tensorboard else None

    def note(self, record: Record, left: float | None) -> None:
        """Write down a record."""
        for each in (self.log, self.events):
            if isinstance(record, Step) and each:
                each.step(record)
            elif isinstance(record, Epoch) and each:
                each.epoch(record)
            elif isinstance(record, Restart) and each:
                each.restart(record)
        if self.page:
            self.page.update(record, left)

    def close(self, status: str, reason: str = "") -> None:
        """End all of them; `status` says how the run has ended, `reason` why it failed."""
        self.log.close()
        if self.page:
            self.page.end(status, reason)
        if self.events:
            self.events.close()
        curves(read_log(self.run.log), self.run.curves)


def complete(run: Run, watch: Watch) -> Ended:
    """Train to the end, or until a signal, and write the run's files; `watch` is called with each record.

    Of a run that has ended already, the files are finished. Raises InputError where another process trains it."""
    with alone(run.folder):
        write_settings(run)
        records = Records(run)
        try:
            with stop_on_signal() as stop:
                ended = train(run, records, watch, stop)
        except BaseException as error:
            with suppress(InputError):  # what stopped the run is the news
                records.close("failed" if str(error) else "interrupted", str(error))
            raise
        records.close("finished" if ended.done else f"stopped at step {run.trainer.step:,}")
    return ended


def train(run: Run, records: Records, watch: Watch, stop: list[int]) -> Ended:
    """Train until something is in `stop`, saving last.h5 and best.h5."""
    trainer, config = run.trainer, run.trainer.config
    if isinstance(trainer, AsynchronousTrainer):
        trainer.write_to(run.last, run.pushes)
    clock, saved_at = Clock(time.monotonic(), trainer.step), time.monotonic()
    with closing(trainer.records()) as found:
        for record in found:
            if isinstance(record, Epoch):
                clock.epoch_ends(record.step, trainer.epoch_steps)
            elif isinstance(record, Restart):
                clock.begin(record.step)
            left = clock.left(config.epochs - trainer.epoch - trainer.batch / trainer.loader.batches, trainer.step,
                              trainer.epoch_steps)
            records.note(record, left)
            watch(record, left)
            if isinstance(record, Epoch) and record.best:
                trainer.save_weights(run.best)
            if stop or isinstance(record, Epoch) or time.monotonic() - saved_at > 60 * config.save_every:
                records.log.flush()
                saved, saved_at = trainer.save(run.last), time.monotonic()
                if saved and isinstance(record, Epoch):
                    keep_epoch(run)
                if saved and stop:  # where it is not saved, training goes back first: that is the next record
                    break
    if run.ended and not run.best.exists():  # taken up in another folder, with nothing left to train
        trainer.save_weights(run.best)
    return Ended(run.ended, bool(stop))


def steps_left(trainer: Trainer) -> int:
    """Return how many steps the run has yet; those behind it may have been of other workers, and as many others."""
    batches = trainer.loader.batches
    left = (trainer.config.epochs - trainer.epoch) * batches - trainer.batch
    return max(0, -(-left * trainer.epoch_steps // batches))


@contextmanager
def shown(trainer: Trainer) -> Iterator[Watch]:
    """Show a bar of steps, and a line for each epoch; the block gets what to call with each record."""
    with (logging_redirect_tqdm(), tqdm(total=trainer.step + steps_left(trainer), initial=trainer.step, unit="step")
          as bar, validation_shown(trainer)):

        def watch(record: Record, left: float | None) -> None:
            if isinstance(record, Step):
                bar.update(record.step - bar.n)
                bar.set_postfix_str(progress(record), refresh=False)
            elif isinstance(record, Epoch):
                announce(record, trainer, left)
            elif isinstance(record, Restart):
                rate = f", at {record.rate_factor:g} of the rate" if record.rate_factor < 1 else ""
                tqdm.write(f"warning: {record.reason}; back to step {record.step}{rate}")
            else:
                tqdm.write(f"warning: {record.reason} ({record.restarts} so far)")

        yield watch


@contextmanager
def validation_shown(trainer: Trainer) -> Iterator[None]:
    """Show a bar of images while the trainer validates, which goes with the last of them."""
    bars: list[tqdm] = []

    def watch(done: int) -> None:
        assert trainer.validation is not None
        if not bars:
            bars.append(tqdm(total=len(trainer.validation), unit="image", desc="validation", leave=False))
        bars[0].update(done - bars[0].n)
        if done + len(trainer.bad) >= len(trainer.validation):
            bars.pop().close()

    trainer.watch_validation = watch
    try:
        yield
    finally:
        for bar in bars:
            bar.close()


def progress(record: Step) -> str:
    """Return the bar's text: the three losses, the rate, the speed; of workers each one's, and how stale they are."""
    names = {"main": record.losses.main, "aux1": record.losses.aux1, "aux2": record.losses.aux2}
    losses = " ".join(f"{name} {loss:.3f}" for name, loss in names.items() if not math.isnan(loss))
    told = f"{losses} lr {record.lr:.4g} {record.images_per_second:.0f} images/s"
    crew = record.crew
    if crew is None:
        return told
    speeds = " ".join(f"{speed:.0f}" for speed in crew.speeds[:MOST_SHOWN]) + " ..." * (len(crew.speeds) > MOST_SHOWN)
    restarts = f" {crew.restarts} restart{'s' * (crew.restarts > 1)}" if crew.restarts else ""
    return f"{told} ({speeds}) staleness {crew.staleness:.1f}, at most {crew.most}{restarts}"


def announce(record: Epoch, trainer: Trainer, left: float | None) -> None:
    """Print a line for an epoch, with the seconds that are left, and its warnings."""
    line = f"epoch {record.epoch + 1}/{trainer.config.epochs}  loss {record.losses.main:.4f}"
    if record.validation is not None:
        line += (f"  validation: loss {record.validation.loss:.4f}, top-1 error {record.validation.top1_error:.2%}, "
                 f"top-5 error {record.validation.top5_error:.2%}")
    if record.averaged is not None:
        line += f"; averaged weights: loss {record.averaged.loss:.4f}, top-1 error {record.averaged.top1_error:.2%}"
    line += "  (best so far)" if record.best and record.validation is not None else ""
    tqdm.write(line + (f"  about {scripts.duration(left)} left" if left else ""))
    for warning in record.warnings:
        tqdm.write(f"warning: {warning}")


def open_test(data: str) -> Dataset | None:
    """Return the test images of a data set; None, and a line that says why, where it has none."""
    try:
        return open_dataset(data, "test")
    except DataError as error:
        print(f"no test images: {error}")
        return None


def test(best: Path, config: TrainingConfig, images: Dataset) -> Score:
    """Score a run's best weights on the test images, which nothing has looked at until now."""
    if config.averaging != "none" and config.tested == "averaged":
        print("the averaged weights are tested, here and by evaluate.py and predict, where --raw takes the others")
    result = score([load(best)], images, 1, threads=config.loader_threads, max_bad=config.max_bad)
    print(f"test: top-1 error {result.top1_error:.2%}, top-5 error {result.top5_error:.2%} "
          f"({result.images} images, centre crop)")
    told = {"weights": best.name, "data": config.data, "crops": 1, **result._asdict()}
    write_whole(best.with_name("test.json"), [(json.dumps(told, indent=2) + "\n").encode()])
    return result
