"""What decoding costs a training run: its images/s from JPEG files, beside those from the same images in memory.

    python benchmarks/feeding.py                    # pictures made here: 500 x 375, as large in bytes as ImageNet's
    python benchmarks/feeding.py --pictures DIR     # the JPEG files of a folder

The run is the one of `train.py --augment paper`: samples drawn anew for each step in a thread of their own, three
heads, batch 32 at 224 x 224. "files" opens and decodes each picture in every epoch, "memory" has them decoded, "ready"
trains on one finished batch. They train in turns, a block of steps each; the first steps of a block, whose samples were
made ahead during another's turn, do not count. Told are the medians of the blocks.
"""
from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from a checkout that isn't installed

import minigrad
from benchmarks.sampling import write_pictures
from data.base import Dataset, FileDataset
from data.errors import DataError
from data.loader import Batch
from googlenet.config import ModelConfig, TrainingConfig
from googlenet.model import GoogLeNet, preprocessing_of
from googlenet.training import Step, Trainer

SKIPPED = 4  # steps of a block: more than are read ahead


class InMemory(Dataset):
    """The pictures of a data set, decoded."""

    def __init__(self, files: Dataset):
        super().__init__(files.labels, files.names, files.classes, "memory")
        self.pictures = [files.image(index) for index in range(len(files))]

    def image(self, index: int) -> np.ndarray:
        return self.pictures[index]


class Ready:
    """A loader whose every batch is the same."""

    def __init__(self, batch: Batch, batches: int):
        self.batch, self.batches = batch, batches

    def epoch(self, number: int, start_batch: int = 0) -> Iterator[Batch]:
        for place in range(start_batch, self.batches):
            yield self.batch._replace(number=place)


def opened(folder: Path, count: int) -> Dataset:
    """Return the first JPEG files below a folder, of ten classes by turns."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))[:count]
    names = [path.relative_to(folder).as_posix() for path in paths]
    return FileDataset(folder, np.arange(len(names)) % 10, names, [str(number) for number in range(10)])


def trainer(pictures: Dataset, batch: int, size: int) -> Trainer:
    """Return a run that does not end while it is measured."""
    config = TrainingConfig(batch_size=batch, epochs=10**6, augment="paper")
    network = ModelConfig(classes=len(pictures.classes), image_size=size)
    made = Trainer(GoogLeNet(network), config, pictures, None, preprocessing_of(network))
    made.initialise()
    return made


def steps(run: Trainer) -> Iterator[Step]:
    return (record for record in run.records() if isinstance(record, Step))


def measure(pictures: Dataset, batch: int, size: int, rounds: int, block: int) -> dict[str, float]:
    """Return the images/s of each contender: medians of the rounds."""
    runs = {"files": trainer(pictures, batch, size), "memory": trainer(InMemory(pictures), batch, size),
            "ready": trainer(pictures, batch, size)}
    ready = runs["ready"].replica
    with_one = next(iter(ready.loader.epoch(0)))
    ready.loader = Ready(with_one, ready.loader.batches)  # type: ignore[assignment]
    going = {name: steps(run) for name, run in runs.items()}
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, records in going.items():
            for _ in itertools.islice(records, SKIPPED):
                pass
            began, images = time.perf_counter(), runs[name].images
            for _ in itertools.islice(records, block):
                pass
            if number:  # the first round warms up
                speeds[name].append((runs[name].images - images) / (time.perf_counter() - began))
    return {name: statistics.median(each) for name, each in speeds.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Compare training from JPEG files with training from memory.")
    parser.add_argument("--pictures", type=Path, help="a folder of JPEG files, instead of made ones")
    parser.add_argument("--count", type=int, default=320, help="pictures (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="images of a step (default: %(default)s)")
    parser.add_argument("--size", type=int, default=224, help="side of the network's input (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads that compute (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="blocks of each contender (default: %(default)s)")
    parser.add_argument("--block", type=int, default=16, help="steps of a block that count (default: %(default)s)")
    flags = parser.parse_args(arguments)
    minigrad.set_threads(flags.threads)
    with tempfile.TemporaryDirectory() as folder:
        if flags.pictures is None:
            write_pictures(Path(folder), flags.count)
        try:
            pictures = opened(flags.pictures or Path(folder), flags.count)
            if len(pictures) < flags.batch:
                parser.error(f"{len(pictures)} pictures do not fill a batch of {flags.batch}: give more or a lower "
                             "--batch")
            told = measure(pictures, flags.batch, flags.size, flags.rounds, flags.block)
        except DataError as error:  # no pictures, or damaged ones
            parser.error(str(error))
    kept = told["files"] / told["memory"]
    for name, speed in told.items():
        print(f"{name:<7} {speed:6.1f} images/s")
    print(f"from files {kept:.1%} of the speed from memory")
    return 0


if __name__ == "__main__":
    sys.exit(main())
