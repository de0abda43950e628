"""python -m googlenet replay: compute the weights of a run by workers again, from the log of its pushes."""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

from googlenet.commands.files import check_run
from googlenet.distbelief.push_log import Replayed, replay, states
from googlenet.weights import load_model
from minigrad.errors import InputError


def add(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the command's parser."""
    made: argparse.ArgumentParser = commands.add_parser(
        "replay", help="compute the weights of a run again from its log of pushes", description=(
            "Apply all gradients of RUN/pushes.log, which train.py --workers N --push-log writes, in the order in "
            "which the server did, and compare the weights with those of RUN/last.h5: they are the same, bit for bit."))
    made.add_argument("folder", type=Path, metavar="RUN", help="the run's folder")
    return made


def run(flags: argparse.Namespace) -> int:
    """Replay and compare. Raises InputError where the weights are others, or the log does not come to them."""
    check_run(flags.folder)
    last = flags.folder / "last.h5"
    loaded = load_model(last, raw=True)
    log, step = flags.folder / "pushes.log", int(loaded.attributes["step"])
    if not log.exists():
        raise InputError(f"{log}: there is no such file: train with --workers N --push-log")
    count = states(log)
    others: list[str] | None = None
    for state in tqdm(replay(log), total=count, unit="update"):
        if state.version == step:  # which it comes to twice, where training went back
            others = differences(state, loaded.model.state())
            if not others:
                workers = state.workers
                break
    if others is None:
        raise InputError(f"{log} does not come to step {step:,}, at which {last} was saved")
    if others:
        raise InputError(f"{last} has other weights than the pushes make: {', '.join(others[:3])}"
                         + (f" and {len(others) - 3} more" if len(others) > 3 else ""))
    print(f"{count:,} states, first ones and those after a push, of {workers} workers: at step {step:,} the weights "
          f"are those of {last}, bit for bit")
    return 0


def differences(replayed: Replayed, state: dict[str, np.ndarray]) -> list[str]:
    """Return the paths of the arrays of a checkpoint that are not the replayed ones."""
    own = {path: replayed.weights[place].reshape(shape) for path, (place, shape) in replayed.places.items()}
    different = [path for path, array in own.items() if not np.array_equal(array, state[path])]
    statistics = [array.reshape(-1) for path, array in state.items() if path not in own]
    if statistics and not np.array_equal(np.concatenate(statistics), replayed.statistics):
        different.append("the running statistics")
    return different
