"""Memory that processes share: the same in all of them, without a name, on systems with and without memory files."""

import gc
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from googlenet.distbelief.processes import Pulse, how_ended
from googlenet.distbelief.shared import SharedArray, context


def add_one(array, again):
    """What a child does, and a child of it."""
    array.array[:] += 1
    if again:
        process = context.Process(target=add_one, args=(array, False))
        process.start()
        process.join()


@pytest.mark.parametrize("files", [True, False], ids=["memory file", "array of multiprocessing"])
def test_children_and_theirs_write_into_the_same_memory(files, monkeypatch):
    if files and not hasattr(os, "memfd_create"):
        pytest.skip("no memory files on this system")
    if not files:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    array = SharedArray(1000, np.float64)
    assert not array.array.any()
    array.array[:] = np.arange(1000)
    process = context.Process(target=add_one, args=(array, True))
    process.start()
    process.join()
    assert process.exitcode == 0
    np.testing.assert_array_equal(array.array, np.arange(1000) + 2)


def test_there_may_be_nothing_in_it():
    assert SharedArray(0, np.float32).array.size == 0


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files as Linux shows them")
def test_it_is_given_back():
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        SharedArray(10, np.float32)
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_pulse_is_missed_only_after_it_has_begun(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("googlenet.distbelief.processes.time.monotonic", lambda: now[0])
    life = np.zeros(2, np.int64)
    pulse = Pulse(life)
    now[0] += 50
    assert pulse.silence() == 0, "it may take its time to begin"
    life[0] += 1
    assert pulse.silence() == 0
    now[0] += 7
    assert pulse.silence() == 7
    life[0] += 1
    assert pulse.silence() == 0
    now[0] += 9
    pulse.forgive()
    now[0] += 2
    assert pulse.silence() == 2


@pytest.mark.parametrize(("code", "told"), [(0, "ended with code 0"), (3, "ended with code 3"),
                                            (-9, "was ended by SIGKILL"), (-99, "was ended by signal 99")])
def test_how_processes_end_is_told_in_words(code, told):
    if code == -9 and sys.platform == "win32":
        pytest.skip("no SIGKILL")
    assert how_ended(code) == told
