"""Training the variations of ablations one after the other under one bar, and telling what came out."""
from __future__ import annotations

import argparse
from collections.abc import Mapping
from statistics import median

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from data.base import Dataset
from data.datasets import open_dataset
from googlenet import runs, scripts
from googlenet.ablations.questions import VARIATIONS, base
from googlenet.ablations.results import Key, Result, Results, answers, planned, read, result
from googlenet.commands import training
from googlenet.commands.training import Watch
from googlenet.inference import load
from googlenet.reports import ablations as report
from googlenet.reports.log import read_log
from googlenet.series import Planned
from googlenet.summary import summary
from googlenet.testing import score
from googlenet.training import DivergedError, Epoch, Step, Trainer
from minigrad.errors import InputError

OVERHEAD = 16e6  # multiply-adds that take as long as all else that an image needs, at 48 pixels: for the bar
BAR = "{percentage:3.0f}%|{bar}| {elapsed}, about {remaining} left{postfix}"
AGAIN = "go on with the same command"
OF_THE_BASE = ("data", "width", "image_size", "epochs", "batch_size", "lr", "threads", "loader_threads")


def run(flags: argparse.Namespace) -> int:
    """Train what has not been trained; print and write what came out."""
    own = {name: getattr(flags, name) for name in OF_THE_BASE}
    config, network = base({name: value for name, value in own.items() if value is not None})
    variations = [each for each in VARIATIONS if each.question in flags.only]
    plan = planned(flags.output, config, network, variations, flags.seeds)
    results = read(flags.output / "results.csv")
    results.require_same(plan)
    runs.prepare_kernels(config)
    train, test = (open_dataset(config.data, split) for split in ("train", "test"))
    try:
        if not carry_out(plan, results, test):
            print(f"stopped; {AGAIN}")
            return training.STOPPED
    except KeyboardInterrupt:
        print(AGAIN)
        raise
    found = answers(results, variations, flags.seeds)
    document = report.document(found, config, network, len(train), len(test))
    written, drawn = flags.output / "ablations.md", flags.plot or flags.output / "ablations.png"
    with scripts.writing(written):
        written.write_text(document, encoding="utf-8")
    report.picture(found, drawn)
    print(f"{document}\n{written}, {drawn}")
    return 0


def carry_out(plan: Mapping[Key, Planned], results: Results, images: Dataset) -> bool:
    """Train and test the runs that are not among the results; return whether all are now."""
    todo = {key: each for key, each in plan.items() if key not in results.rows}
    costs = {name: summary(each.network)["multiply_adds"] + OVERHEAD for (name, _), each in todo.items()}
    work = sum(costs[name] for name, _ in todo)
    with logging_redirect_tqdm(), tqdm(total=work, disable=not todo, smoothing=0, bar_format=BAR) as bar:
        for number, ((name, seed), each) in enumerate(todo.items(), len(plan) - len(todo) + 1):
            bar.set_postfix_str(f"{name}, seed {seed}, {number} of {len(plan)}")
            if not trained(each, bar, costs[name]):
                return False
            results.add(tested(name, each, images))
            each.last.unlink(missing_ok=True)  # several times as large as the weights, which stay
            tqdm.write(line(number, len(plan), results.rows[name, seed]))
    return True


def trained(each: Planned, bar: tqdm, cost: float) -> bool:
    """Train a run, or what is left of it; return whether the next one may begin."""
    kept = each.kept()
    if kept:
        each.require_same(kept.training, kept.network, str(each.folder))
    run = each.begun()
    try:
        return not training.complete(run, counted(run.trainer, bar, cost, each.folder.name)).stopped
    except DivergedError as error:
        raise InputError(f"{each.folder.name}: {error}, and another --output; or leave its question out: --only"
                         ) from error


def counted(trainer: Trainer, bar: tqdm, cost: float, name: str) -> Watch:
    """Return what moves the bar by `cost` over a run; what a resumed one has behind it is taken off its total."""
    steps = trainer.epoch_steps * trainer.config.epochs
    bar.total -= cost * trainer.step / steps
    start = bar.n - cost * trainer.step / steps

    def watch(record: training.Record, left: float | None) -> None:
        if isinstance(record, Step):
            bar.update(start + cost * record.step / steps - bar.n)
        elif isinstance(record, Epoch):
            for warning in record.warnings:
                tqdm.write(f"warning: {name}: {warning}")

    return watch


def tested(name: str, each: Planned, images: Dataset) -> Result:
    """Test the weights of the last step, and their average."""
    config = each.training
    networks = [load(each.best, raw=True), load(each.best)]
    raw, averaged = (score([network], images, 1, threads=config.loader_threads, max_bad=config.max_bad)
                     for network in networks)
    speeds = [float(row["images_per_second"]) for row in read_log(each.log) if row["lr"]]
    return result(name, each, networks[0].model.config, raw, averaged, median(speeds))


def line(number: int, count: int, ended: Result) -> str:
    """Return what is told of a run that has ended."""
    return (f"{number} of {count}: {ended.run}, seed {ended.seed}: top-1 error {ended.top1_error:.2%}, negative log "
            f"likelihood {ended.nll:.4f}, {ended.images_per_second:.0f} images/s")
