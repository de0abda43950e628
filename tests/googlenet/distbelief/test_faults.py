"""Processes that die, hang, fail or crawl in the midst of training."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from data.errors import DataError
from googlenet.training import Epoch, Fault, Restart, Step
from googlenet.weights import load_model
from minigrad import InputError
from tests.googlenet.distbelief.cases import (
    alive,
    config_of,
    descendants,
    nothing_left,
    state_of,
    trained,
    trainer_of,
)
from tests.runs import TINY, command, computing_alone, read_rows, run_folder, write_set

resource = pytest.importorskip("resource", reason="not on Windows")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds and stops processes as Linux has them")
one_thread = pytest.fixture(computing_alone, scope="module", autouse=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("data"), train=18)


def workers_of(trainer) -> list[int]:
    """Their processes, in the order they were started."""
    return descendants(trainer.fleet.process.pid)


def run_with(trainer, at: int, fault) -> list:
    """All records of a run; `fault` is called after step `at`."""
    found = []
    with closing(trainer.records()) as records:
        for record in records:
            found.append(record)
            if isinstance(record, Step) and record.step == at:
                fault()
    return found


def assert_whole(trainer, found) -> None:
    """Each step was taken once, and each epoch is as long as it would have been."""
    steps = [each.step for each in found if isinstance(each, Step)]
    assert steps == list(range(1, trainer.config.epochs * trainer.loader.batches + 1))
    assert [each.step for each in found if isinstance(each, Epoch)] == [
        trainer.loader.batches * epoch for epoch in range(1, trainer.config.epochs + 1)]
    assert all(np.isfinite(array).all() for array in state_of(trainer).values())


@pytest.mark.parametrize("settings", [{}, {"overlap": True}, {"sync": True}, {"push_every": 2}], ids=str)
def test_a_worker_that_is_killed_is_replaced(settings, data):
    with nothing_left():
        trainer = trainer_of(config_of(data, workers=2, epochs=20, **settings))
        found = run_with(trainer, 3, lambda: os.kill(workers_of(trainer)[1], signal.SIGKILL))
    (fault,) = (each for each in found if isinstance(each, Fault))
    assert re.fullmatch(r"worker [12] was ended by SIGKILL; started again", fault.reason)
    assert fault.restarts == 1
    if not settings:
        assert_whole(trainer, found)
    steps = [each for each in found if isinstance(each, Step)]
    assert steps[-1].crew.restarts == 1
    after = found.index(fault)
    assert any(min(each.crew.speeds) > 0 for each in found[after:] if isinstance(each, Step)), "the new one works"
    assert len([each for each in found if isinstance(each, Epoch)]) == 20


def test_every_worker_may_be_killed_at_once(data):
    def kill():
        for pid in workers_of(trainer):
            os.kill(pid, signal.SIGKILL)

    with nothing_left():
        trainer = trainer_of(config_of(data, workers=3, epochs=2))
        found = run_with(trainer, 4, kill)
    assert len([each for each in found if isinstance(each, Fault)]) == 3
    assert_whole(trainer, found)


def test_a_worker_that_hangs_is_replaced(data):
    with nothing_left():
        trainer = trainer_of(config_of(data, workers=2, epochs=30, hang_timeout=2.0))
        found = run_with(trainer, 3, lambda: os.kill(workers_of(trainer)[0], signal.SIGSTOP))
    (fault,) = (each for each in found if isinstance(each, Fault))
    assert fault.reason == "worker 1 gave no sign of life for 2 s; started again"
    assert_whole(trainer, found)


def test_a_server_that_hangs_is_replaced(data):
    with nothing_left():
        trainer = trainer_of(config_of(data, workers=2, epochs=3, hang_timeout=2.0))
        found = run_with(trainer, 3, lambda: os.kill(trainer.fleet.process.pid, signal.SIGSTOP))
    (fault,) = (each for each in found if isinstance(each, Fault))
    assert fault.reason.startswith("the server's process gave no sign of life for 2 s; started again")
    assert_whole(trainer, found)


def test_what_a_worker_found_while_nobody_asked_is_still_told(tmp_path):
    """During a validation, say: the server has said why it ends, and has ended."""
    folder = write_set(tmp_path / "data", train=9)
    config = config_of(folder, workers=2, epochs=4, validation_fraction=0.0, max_bad=0)
    trainer = trainer_of(config)
    with nothing_left(), closing(trainer.records()) as records:
        next(records)
        for path in (folder / "train").rglob("*.*"):
            path.write_bytes(b"no picture")
        server = trainer.fleet.process
        time.sleep(3.0)
        with pytest.raises(InputError, match="cannot be used, more than the 0 allowed"):
            list(records)
        assert not server.is_alive()


def test_a_slow_worker_holds_up_nobody(data):
    """One that takes ten times as long: the other does its share of the images."""
    slow = subprocess.Popen([sys.executable, "-c", SLOWER], stdin=subprocess.PIPE, text=True)

    def begin():
        slow.stdin.write(f"{workers_of(trainer)[1]}\n")
        slow.stdin.flush()

    try:
        trainer = trainer_of(config_of(data, workers=2, epochs=12))
        found = run_with(trainer, 5, begin)
        assert descendants(os.getpid()) == [slow.pid]
    finally:
        slow.kill()
        slow.wait()
        slow.stdin.close()
    assert not any(isinstance(each, Fault) for each in found)
    assert_whole(trainer, found)
    steps = {worker: place.step for worker, place in trainer.places.items()}
    assert steps[0] > 2 * steps[1], steps


SLOWER = """
import os, signal, sys, time
pid = int(sys.stdin.readline())
while True:
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.09)
    os.kill(pid, signal.SIGCONT)
    time.sleep(0.01)
"""


def test_a_worker_that_raises_is_replaced_and_told_of(data, monkeypatch, tmp_path):
    """A fault of the program's own, in a worker only, once."""
    marker = tmp_path / "raised"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(breaking(tmp_path, marker, once=True)), os.getcwd()]))
    with nothing_left():
        trainer = trainer_of(config_of(data, workers=2, epochs=2))
        found = trained(trainer)
    (fault,) = (each for each in found if isinstance(each, Fault))
    assert re.fullmatch(r"worker [12] failed: ZeroDivisionError: made to fail \(sitecustomize\.py:\d+\); started again",
                        fault.reason)
    assert_whole(trainer, found)


def test_workers_that_fail_again_and_again_end_the_run(data, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(breaking(tmp_path, tmp_path / "no", once=False)),
                                                      os.getcwd()]))
    with nothing_left():
        trainer = trainer_of(config_of(data, workers=2, epochs=2, max_restarts=2))
        with pytest.raises(InputError, match=r"worker [12] failed: ZeroDivisionError: .*, after 2 restarts: "
                                             r"look for the cause.*--max-restarts"):
            trained(trainer)


def breaking(folder, marker, once: bool):
    """A folder that lets every process which is started with it fail at its third gradient."""
    (folder / "sitecustomize.py").write_text(f"""
import os, sys
if "spawn_main" in " ".join(sys.orig_argv):
    import builtins
    own = builtins.__build_class__
    def build(function, name, *bases, **more):
        made = own(function, name, *bases, **more)
        if name == "Replica":
            gradient, calls = made.gradient, []
            def failing(self, group, step):
                calls.append(step)
                if len(calls) == 3 and not ({once} and os.path.exists({str(marker)!r})):
                    open({str(marker)!r}, "w").close()
                    raise ZeroDivisionError("made to fail")
                return gradient(self, group, step)
            made.gradient = failing
        return made
    builtins.__build_class__ = build
""")
    return folder


@pytest.mark.parametrize("saved", [True, False])
def test_a_server_that_is_killed_between_updates_is_started_again(saved, data, tmp_path):
    """While the trainer has a record in hand, nothing changes: nothing is lost."""
    with nothing_left():
        trainer = trainer_of(config_of(data, workers=2, epochs=2))

        def kill():
            if saved:
                trainer.save(tmp_path / "last.h5")
            trainer.fleet.process.kill()
            trainer.fleet.process.join()

        found = run_with(trainer, 5, kill)
    (fault,) = (each for each in found if isinstance(each, Fault))
    assert fault.reason.startswith("the server's process was ended by SIGKILL; started again")
    assert_whole(trainer, found)


def test_a_server_that_is_killed_in_an_update_goes_back_to_the_checkpoint(data, tmp_path):
    """The weights are half changed: they are the checkpoint's again, and the pushes since then are counted."""
    with nothing_left():
        trainer = trainer_of(config_of(data, workers=2, epochs=2))
        kept = []

        def kill():
            trainer.job.begun.array[0] += 1  # as the server does before it changes anything
            trainer.fleet.process.kill()
            trainer.fleet.process.join()
            trainer.flat.data[:10] = np.nan

        found = []
        with closing(trainer.records()) as records:
            for record in records:
                found.append(record)
                if isinstance(record, Step) and record.step == 4 and not kept:
                    trainer.save(tmp_path / "last.h5")
                    kept.append(state_of(trainer))
                if isinstance(record, Step) and record.step == 7 and len(kept) == 1:
                    kept.append({})
                    kill()
    (restart,) = (each for each in found if isinstance(each, Restart))
    assert restart.reason == ("the server's process was ended by SIGKILL in the midst of an update; 3 updates since "
                              "the last checkpoint are lost")
    assert (restart.from_step, restart.step, restart.rate_factor) == (7, 4, 1.0)
    steps = [each.step for each in found if isinstance(each, Step)]
    assert steps == [1, 2, 3, 4, 5, 6, 7, *range(5, 2 * trainer.loader.batches + 1)]
    assert all(np.isfinite(array).all() for array in state_of(trainer).values())


def test_damaged_images_that_the_workers_meet_are_counted(tmp_path):
    folder = write_set(tmp_path / "data", train=9)
    spoilt = sorted((folder / "train").rglob("*.png"))[:4]
    for path in spoilt:
        path.write_bytes(b"no picture")
    config = config_of(folder, workers=2, epochs=2, validation_fraction=0.0)
    with nothing_left():
        trainer = trainer_of(config)
        trained(trainer)
    assert len(trainer.loader.bad) == 4
    with nothing_left(), pytest.raises((InputError, DataError), match="3 images cannot be used, more than the 2"):
        trained(trainer_of(config_of(folder, workers=2, epochs=2, validation_fraction=0.0, max_bad=2)))


# As a user does.

def started(data, output, *more) -> subprocess.Popen:
    output.mkdir()
    return subprocess.Popen(command("train.py", "--data", data, *TINY, "--workers", "2", "--batch-size", "4",
                                    "--validation-fraction", "0.25", "--log-every", "1", "--output", output, *more),
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until_it_trains(process, output, patience=120.0) -> list[int]:
    """Wait for the first lines of the log; return all processes of the run."""
    given_up = time.monotonic() + patience
    while time.monotonic() < given_up:
        logs = list(output.glob("*/log.csv"))
        processes = [process.pid, *descendants(process.pid)]
        if logs and len(processes) == 4 and next(iter(logs)).stat().st_size >= 0 and worked(processes):
            return processes
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("it never began to train")


def worked(processes) -> bool:
    """Whether the workers have computed for a moment."""
    ticks = os.sysconf("SC_CLK_TCK")
    return all(sum(map(int, open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[11:13])) / ticks > 1.5
               for pid in processes[2:])


def all_end(processes, patience=20.0) -> bool:
    given_up = time.monotonic() + patience
    while any(map(alive, processes)) and time.monotonic() < given_up:
        time.sleep(0.05)
    return not any(map(alive, processes))


@pytest.mark.parametrize("stopped", [False, True], ids=["", "a worker stopped"])
def test_nothing_is_left_after_kill_9_of_the_parent(stopped, data, tmp_path):
    memory = set(os.listdir("/dev/shm"))
    process = started(data, tmp_path / "runs", "--epochs", "1000")
    processes = until_it_trains(process, tmp_path / "runs")
    names = [Path(f"/proc/{pid}/comm").read_text().strip() for pid in processes]
    assert names[1:] == ["server", "worker 1", "worker 2"]
    if stopped:
        os.kill(processes[2], signal.SIGSTOP)
    process.kill()
    process.communicate()
    assert all_end(processes)
    assert set(os.listdir("/dev/shm")) <= memory


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_of_them_finishes_the_step_and_saves(number, data, tmp_path):
    """Ctrl-C reaches every process of the terminal."""
    process = started(data, tmp_path / "runs", "--epochs", "1000")
    processes = until_it_trains(process, tmp_path / "runs")
    for pid in processes:
        os.kill(pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    step = int(re.search(r"stopped at step (\d+), saved", out)[1])
    assert all_end(processes)
    done = subprocess.run(command("train.py", "--resume", run_folder(tmp_path / "runs"), "--epochs", "1"), text=True,
                          capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert f"step {step:,}" in done.stdout or "behind it" in done.stdout


def test_the_log_tells_of_the_workers(data, tmp_path):
    process = started(data, tmp_path / "runs", "--epochs", "2")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "2 workers of 1 thread each" in out
    assert re.search(r"images/s \(\d+ \d+\) staleness \d\.\d, at most \d", err)
    rows = [row for row in read_rows(run_folder(tmp_path / "runs")) if row["lr"]]
    assert {len(row["worker_images_per_second"].split()) for row in rows} == {2}
    assert {row["restarts"] for row in rows} == {"0"}
    assert float(rows[-1]["staleness_mean"]) > 0


def test_a_run_that_is_given_up_is_saved(data, tmp_path):
    """After too many lost workers, as at Ctrl-C: what was learned until then is kept."""
    process = started(data, tmp_path / "runs", "--epochs", "1000", "--max-restarts", "0")
    processes = until_it_trains(process, tmp_path / "runs")
    os.kill(processes[2], signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    where = run_folder(tmp_path / "runs")
    told = re.search(r"SIGKILL, after 0 restarts: .*It is saved at step ([\d,]+); go on with: .* --resume (\S+)", err)
    assert told[2] == str(where)
    assert load_model(where / "last.h5", raw=True).attributes["step"] == int(told[1].replace(",", "")) > 0
    assert all_end(processes)


def test_a_full_disk_at_a_checkpoint_ends_the_run_and_keeps_the_last_one(data, tmp_path):
    """A limit on the size of files stands in for it, from some moment on; what was saved before is as it was."""
    process = started(data, tmp_path / "runs", "--epochs", "1000")
    processes = until_it_trains(process, tmp_path / "runs")
    last = run_folder(tmp_path / "runs") / "last.h5"
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (last.stat().st_size * 2 // 3, resource.RLIM_INFINITY))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert re.search(r"train.py: error: can't write .*last\.h5.*free space", err)
    assert "Traceback" not in err
    assert load_model(last, raw=True).attributes["epoch"] >= 0
    assert not list(last.parent.glob(".*.part"))
    assert all_end(processes)
