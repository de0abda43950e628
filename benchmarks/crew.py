"""Serial training beside workers that share their gradients: images/s from batches in memory and from JPEG files.

All train the same network on the same images, in turns, a block of steps each. A worker waits when its push is not
asked for, so that the others have the machine; what it had computed before is in the first steps of a block, which do
not count. Beside them stand processes that share nothing, as the limit of what so many can do on this machine.
"""
from __future__ import annotations

import argparse
import itertools
import statistics
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np

import minigrad
from benchmarks.peers import OURS
from benchmarks.results import Comparison, Report, rates, row
from benchmarks.sampling import write_pictures
from benchmarks.session import Child, Session
from data.decode import read_image
from googlenet.config import ModelConfig, TrainingConfig
from googlenet.distbelief.local import Fleet
from googlenet.distbelief.trainer import AsynchronousTrainer, made
from googlenet.model import GoogLeNet, preprocessing_of
from googlenet.training import Step, Trainer
from googlenet.training.images import open_data

CLASSES = 10
COUNT = 1024  # images: an epoch is long beside what is read ahead
PICTURES = 320  # JPEG files that they are copies of
BLOCK = 8  # steps that count, of each contender in a round


@dataclass
class Contender:
    """A run that goes on when it is its turn."""

    name: str
    trainer: Trainer
    threads: int
    block: int
    speeds: list[float] = field(default_factory=list)
    server: list[float] = field(default_factory=list)  # part of the time that the server works

    def __post_init__(self) -> None:
        self.records = (record for record in self.trainer.records() if isinstance(record, Step))
        self.skipped = 2 * self.trainer.config.workers + self.trainer.config.loader_threads + 1

    def turn(self) -> None:
        """Train a block of steps."""
        minigrad.set_threads(self.threads)
        for _ in itertools.islice(self.records, self.skipped):
            pass
        began, images, busy = perf_counter(), self.trainer.images, 0.0
        for step in itertools.islice(self.records, self.block):
            busy = step.crew.server if step.crew else 0.0
        self.speeds.append((self.trainer.images - images) / (perf_counter() - began))
        self.server.append(busy)


def workers(session: Session, flags: argparse.Namespace) -> Report:
    """Measure `--threads` workers of one thread each beside serial training."""
    folders = {"memory": write_arrays(session.folder / "memory", flags.size),
               "JPEG files": write_files(session.folder / "files")}
    contenders = [contender for source, folder in folders.items()
                  for contender in lined_up(source, folder, flags.threads, flags.batch, flags.size)]
    bare = [session.contender(session.job(OURS, "training", flags.batch, flags.size, 1))[0]
            for _ in range(flags.threads)]
    try:
        for number in session.turns(range(flags.rounds + 1), flags.threads):
            for contender in contenders:
                contender.turn()
                session.own |= pids(contender.trainer)
            together(bare)
            if not number:  # warms up
                for each in contenders:
                    each.speeds.clear()
                    each.server.clear()
                for child in bare:
                    child.seconds.clear()
    finally:
        for contender in contenders:
            contender.records.close()
            contender.trainer.stand_still()
    limit = [sum(each) for each in zip(*(rates(child.seconds, flags.batch) for child in bare), strict=True)]
    return report(contenders, limit, flags)


def report(contenders: list[Contender], limit: list[float], flags: argparse.Namespace) -> Report:
    """Return the workers' speed beside that of one thread, and what the server's share was."""
    comparisons, extra, lines = [], {}, []
    for source in ("memory", "JPEG files"):
        rows = [row(each.name, each.speeds, "images/s") for each in contenders if each.name.endswith(source)]
        crew, one, all_threads = rows
        others = [all_threads]
        if source == "memory":
            others.append(row(f"{flags.threads} processes that share nothing", limit, "images/s"))
        comparison = Comparison(f"training from {source}, batch {flags.batch}, {flags.size}x{flags.size}", [crew, one],
                                others=others)
        comparisons.append(comparison)
        busy = statistics.median(next(each.server for each in contenders if each.name == crew.name))
        share = busy / flags.threads  # as many steps are under way at any time
        extra[f"server_share_{source.split()[0].lower()}"] = share
        lines.append(f"{comparison.text()}\nthe server works {busy:.1%} of the time: {share:.1%} of a step")
    return Report(comparisons, extra, "\n\n".join(lines))


def lined_up(source: str, folder: Path, count: int, batch: int, size: int) -> Iterator[Contender]:
    """Yield the contenders: workers of one thread each, serial training with one thread, and with all."""
    for name, workers, threads in ((f"{count} workers of one thread", count, 1), ("serial, one thread", 1, 1),
                                   (f"serial, {count} threads", 1, count)):
        config = TrainingConfig(data=str(folder), batch_size=batch, epochs=10**6, workers=workers, threads=threads,
                                augment="crop" if source != "memory" else "none", validation_fraction=0.0,
                                lr=1e-6)  # what is learned does not matter, but that it stays finite
        network = ModelConfig(classes=CLASSES, image_size=size)
        training, _ = open_data(config)
        trainer = made(GoogLeNet(network), config, training, None, preprocessing_of(network))
        trainer.initialise()
        yield Contender(f"{name}, {source}", trainer, threads, BLOCK * workers)


def together(children: list[Child]) -> None:
    """Let processes work a round at the same time."""
    threads = [threading.Thread(target=child.round) for child in children]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def pids(trainer: Trainer) -> set[int]:
    """Return the processes that compute for a trainer."""
    fleet = trainer.fleet if isinstance(trainer, AsynchronousTrainer) else None
    return fleet.pids() if isinstance(fleet, Fleet) else set()


def write_arrays(folder: Path, size: int) -> Path:
    """Write images of the network's size as arrays."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (COUNT, 8, 8, 3), np.uint8)
    repeats = -(-size // 8)
    images = coarse.repeat(repeats, axis=1).repeat(repeats, axis=2)[:, :size, :size]
    np.savez(folder / "train.npz", images=images, labels=np.arange(COUNT) % CLASSES)
    return folder


def write_files(folder: Path) -> Path:
    """Write JPEG files as large as ImageNet's, in folders of classes; some under several names."""
    made_in = folder / "made"
    made_in.mkdir(parents=True)
    paths = write_pictures(made_in, PICTURES)
    assert read_image(paths[0]).shape == (375, 500, 3)
    for number in range(COUNT):
        place = folder / "train" / str(number % CLASSES) / f"{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(paths[number % PICTURES].read_bytes())
    return folder
