"""kill -9 at any moment of a run with frequent checkpoints: what is resumed ends with the same weights, bit for bit."""

import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from googlenet.reports.log import read_log
from googlenet.weights import load_model
from tests.runs import TINY, command, run_folder, script, write_set

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")

KILLS = 20
EPOCHS = 60
# All that a checkpoint must hold: groups of batches, samples, an average, a rate that falls, clipped gradients.
RUN = (*TINY, "--epochs", EPOCHS, "--batch-size", "3", "--accumulate", "2", "--lr", "0.002", "--schedule", "poly",
       "--augment", "paper", "--averaging", "ema", "--clip-norm", "1", "--init", "he", "--standardise",
       "--validation-fraction", "0.25", "--save-every", "0.001", "--log-every", "1")
PATIENCE = 60.0  # seconds for a process to write its first checkpoint


def state(path: Path) -> dict[str, np.ndarray]:
    """All that a checkpoint holds of weights, averages and velocity."""
    loaded = load_model(path, raw=True)
    return loaded.model.state() | {name: array for name, array in loaded.arrays.items() if name != "losses"}


def changed(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def kill_at_some_moment(process: subprocess.Popen, last: Path, delay: float) -> bool:
    """Kill a process `delay` seconds after it wrote its first checkpoint; False where it had ended by then."""
    before, given_up = changed(last), time.monotonic() + PATIENCE
    while changed(last) == before and process.poll() is None and time.monotonic() < given_up:
        time.sleep(0.002)
    time.sleep(delay)
    process.kill()
    return process.wait() == -signal.SIGKILL


def test_killed_twenty_times_a_run_ends_as_one_that_never_was(tmp_path):
    data = write_set(tmp_path / "data", train=8, test=2)
    for output in ("whole", "killed"):
        (tmp_path / output).mkdir()
    done = script("train.py", "--data", data, *RUN, "--output", tmp_path / "whole")
    assert done.code == 0, done.err
    whole = run_folder(tmp_path / "whole")

    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")  # shown where it fails
    rng = np.random.default_rng(seed)
    arguments: tuple[object, ...] = ("--data", data, *RUN, "--output", tmp_path / "killed")
    folder, kills = tmp_path / "killed", 0
    while kills < KILLS:
        process = subprocess.Popen(command("train.py", *arguments), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        while folder == tmp_path / "killed" and process.poll() is None:
            folder = next(iter((tmp_path / "killed").iterdir()), folder)
            time.sleep(0.01)
        assert kill_at_some_moment(process, folder / "last.h5", rng.uniform(0, 0.15)), f"it ended after {kills} kills"
        kills += 1
        load_model(folder / "last.h5")  # whole, whenever it was that the process died
        arguments = ("--resume", folder)
    done = script("train.py", *arguments)
    assert done.code == 0, done.err

    expected, found = state(whole / "last.h5"), state(folder / "last.h5")
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    best, again = (load_model(run / "best.h5").model.state() for run in (whole, folder))
    assert all(np.array_equal(best[name], again[name]) for name in best)
    steps = [[(row["step"], row["loss"], row["validation_loss"]) for row in read_log(run / "log.csv")]
             for run in (whole, folder)]
    assert steps[0] == steps[1]
