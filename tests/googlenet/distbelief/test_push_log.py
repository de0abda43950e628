"""The log of pushes: what it replays to, what a crash leaves of it."""

import os
import signal
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest

from googlenet.distbelief.push_log import replay, written
from googlenet.training import Step
from minigrad import InputError
from tests.googlenet.distbelief.cases import config_of, descendants, nothing_left, trainer_of
from tests.runs import TINY, command, computing_alone, run_folder, script, write_set

one_thread = pytest.fixture(computing_alone, scope="module", autouse=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("data"), train=9)


def logged(config, folder, fault=None, at=0, **model):
    """A trainer after its run, whose pushes are in a log; `fault` is called after step `at`."""
    trainer = trainer_of(config, **model)
    trainer.write_to(folder / "last.h5", folder / "pushes.log")
    with nothing_left(), closing(trainer.records()) as records:
        for record in records:
            if fault and isinstance(record, Step) and record.step == at:
                fault(trainer)
                fault = None
    trainer.save(folder / "last.h5")
    return trainer


@pytest.mark.parametrize(("settings", "model"), [
    ({}, {}), ({"averaging": "ema", "staleness_lr": True}, {"variant": "torchvision"}), ({"sync": True}, {}),
    ({"optimiser": "adagrad", "freeze": "conv1", "schedule": "poly"}, {"dtype": "float64"})], ids=str)
def test_a_replay_comes_to_the_same_weights_bit_for_bit(settings, model, data, tmp_path):
    trainer = logged(config_of(data, workers=2, push_log=True, **settings), tmp_path, **model)
    *_, state = replay(tmp_path / "pushes.log")
    assert state.version == trainer.step
    np.testing.assert_array_equal(state.weights, trainer.flat.data)
    buffers = [buffer.data.reshape(-1) for _, buffer in trainer.model.named_buffers()]
    assert bool(buffers) == (model.get("variant") == "torchvision")
    if buffers:
        np.testing.assert_array_equal(state.statistics, np.concatenate(buffers))


def test_the_command_compares_with_the_checkpoint(data, tmp_path):
    done = script("train.py", "--data", data, *TINY, "--workers", "2", "--batch-size", "4", "--epochs", "1",
                  "--push-log", "--output", tmp_path)
    assert done.code == 0, done.err
    folder = run_folder(tmp_path)
    done = script("googlenet", "replay", folder)
    assert done.code == 0, done.err
    assert "the weights are those of" in done.out
    heads = [record.head for record in written(folder / "pushes.log")]
    assert [head["kind"] for head in heads[:6]] == ["state", "push", "push", "push", "push", "assign"]
    content = bytearray((folder / "pushes.log").read_bytes())
    (folder / "pushes.log").write_bytes(b"".join(_without_one_push(folder / "pushes.log")))
    done = script("googlenet", "replay", folder)
    assert done.code == 1
    assert "has other weights than the pushes make: " in done.complaint
    content[-100] ^= 1
    (folder / "pushes.log").write_bytes(content)
    assert "is damaged" in script("googlenet", "replay", folder).complaint
    (folder / "pushes.log").unlink()
    assert "train with --workers N --push-log" in script("googlenet", "replay", folder).complaint


def _without_one_push(path):
    """The lines and contents of a log whose third push to the first shard is another's."""
    lines, at, content = [], 0, path.read_bytes()
    for number, (head, own) in enumerate(written(path)):
        end = content.index(b"\n", at) + 1 + head["bytes"]
        lines.append(content[at:end] if number != 11 else lines[1])
        at = end
        assert own == content[end - head["bytes"]:end]
    return lines


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_what_a_killed_server_left_half_written_is_cut_off(data, tmp_path):
    path = tmp_path / "pushes.log"

    def kill(trainer):
        trainer.fleet.process.kill()
        trainer.fleet.process.join()
        with open(path, "ab") as file:
            file.write(b'{"kind": "push", "bytes": 100000, "crc": 1}\nonly some of them')

    trainer = logged(config_of(data, workers=2, push_log=True), tmp_path, kill, at=5)
    kinds = [record.head["kind"] for record in written(path)]
    assert kinds.count("state") == 2
    *_, state = replay(path)
    np.testing.assert_array_equal(state.weights, trainer.flat.data)


def test_another_file_is_no_log(tmp_path):
    (tmp_path / "a").write_bytes(b"hello\n")
    with pytest.raises(InputError, match="is no log of pushes"):
        list(replay(tmp_path / "a"))
    (tmp_path / "b").write_bytes(b'{"kind": "assign", "bytes": 0, "crc": 0}\n')
    with pytest.raises(InputError, match="does not begin with a state"):
        list(replay(tmp_path / "b"))


STEPS, WORKERS, EVERY = 1000, 8, 3.0  # seconds between kills


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes as Linux has them")
def test_a_thousand_steps_under_random_kills(data, tmp_path):
    """Workers die every few seconds; the run ends, and its log replays to its weights."""
    epochs = -(-STEPS // 14)
    memory = set(os.listdir("/dev/shm"))
    process = subprocess.Popen(
        command("train.py", "--data", data, *TINY, "--workers", WORKERS, "--batch-size", "2", "--epochs", epochs,
                "--lr", "0.0005", "--init", "he", "--validation-fraction", "0.25", "--max-restarts", "1000",
                "--push-log", "--shards", "3", "--output", tmp_path),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")  # shown where it fails
    rng, kills = np.random.default_rng(seed), 0
    while True:
        try:
            out, err = process.communicate(timeout=float(rng.uniform(0.5, 1.5)) * EVERY)
            break
        except subprocess.TimeoutExpired:
            workers = [each for server in descendants(process.pid)[:1] for each in descendants(server)]
            if workers:
                os.kill(int(rng.choice(workers)), signal.SIGKILL)
                kills += 1
    assert process.returncode == 0, err
    assert kills >= 2, f"too few kills to tell: {kills}"
    assert kills - 1 <= out.count("was ended by SIGKILL; started again") <= kills, "the last may come after the end"
    assert "Traceback" not in err
    assert not descendants(process.pid)
    assert set(os.listdir("/dev/shm")) <= memory
    folder = run_folder(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [".lock", "best.h5", "config.json", "curves.png", "last.h5", "log.csv", "pushes.log", "test.json"])
    done = script("googlenet", "replay", folder)
    assert done.code == 0, done.err
    heads = [record.head for record in written(folder / "pushes.log")]
    pushes = [(head["shard"], head["worker"], head["step"]) for head in heads if head["kind"] == "push"]
    assert len(set(pushes)) == len(pushes), "no push is applied twice"
    updates = sum(head["kind"] == "assign" for head in heads)
    assert updates >= STEPS
    assert f"at step {updates:,} the weights are those of" in done.out
