"""Every reader takes some damaged files well, and the fuzzer that says so would say otherwise."""

from pathlib import Path

import numpy as np
import pytest

from minigrad.errors import InputError
from tests import fuzz

FAULTS = {
    "key": ("raised", "KeyError", "raise KeyError('x')"),
    "recursion": ("raised", "RecursionError", "f = lambda: f(); f()"),
    "hang": ("hang", "no answer", "while True: pass"),
    "slow": ("slow", " s (error", "time.sleep(0.2); raise InputError(str(path))"),
    "crash": ("crash", "process ended", "os.kill(os.getpid(), 9) if hasattr(os, 'kill') else os._exit(9)"),
    "exit": ("crash", "process ended", "os._exit(3)"),
    "memory": ("memory", "MB for a file", "x = b'x' * (600 * 2**20); raise InputError(str(path))"),
    "allocation": ("raised", "MemoryError", "np.empty(2**44)"),
    "other values": ("wrong", "in spite of checksums: a", "return Contents('', {'a': np.ones(3)})"),
    "an array less": ("wrong", "in spite of checksums: a", "return Contents('', {})"),
    "objects": ("malformed", "'a' is ndarray object", "return Contents('', {'a': np.array([{}])})"),
    "byte order": ("malformed", ">f8", "return Contents('', {'a': np.zeros(3, '>f8')})"),
    "anonymous": ("unclear", "does not name the file", "raise InputError('something is wrong')"),
    "lines": ("unclear", "several lines", "raise InputError(f'{path} is\\nbad')"),
}
MODULE = """
import os, time
import numpy as np
from googlenet.weights.contents import Contents
from minigrad.errors import InputError

def recognise(start, path):
    return path.name == "a.npz"

def read(path):
    if path.read_bytes() == b"PK whole":
        return Contents("", {{"a": np.zeros(3)}})
    {fault}
"""


@pytest.fixture(scope="module")
def worker():
    with fuzz.Worker() as worker:
        yield worker


@pytest.mark.parametrize("name", fuzz.READERS)
def test_the_reader_takes_damaged_files_well(worker, name):
    summary = fuzz.fuzz(worker, name, range(100))
    assert summary.failures == []
    assert sum(summary.counts.values()) == 100, "no fixture of it"
    assert summary.counts["error"] > 20


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """A worker that knows a module for each fault."""
    folder = tmp_path_factory.mktemp("faulty")
    for fault, (_, _, code) in FAULTS.items():
        (folder / f"faulty_{fault.replace(' ', '_')}.py").write_text(MODULE.format(fault=code))
    (folder / "fixtures").mkdir()
    (folder / "fixtures" / "a.npz").write_bytes(b"PK whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        with fuzz.Worker(folder / "fixtures") as worker:
            yield worker


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(faulty, monkeypatch, fault):
    outcome, told, _ = FAULTS[fault]
    if fault == "memory" and not Path("/proc/self/clear_refs").exists():
        pytest.skip("memory is measured where /proc tells it")
    monkeypatch.setattr(faulty, "seconds", 0.1 if fault == "slow" else 2.0)
    monkeypatch.setattr(faulty, "patience", 1.0 if fault == "hang" else 10.0)
    summary = fuzz.fuzz(faulty, fault, [2], module=f"faulty_{fault.replace(' ', '_')}")  # the half of the file
    assert [(failure.outcome, failure.number) for failure in summary.failures] == [(outcome, 2)]
    assert told in summary.failures[0].told
    assert (faulty.process is None) is (outcome in ("hang", "crash", "memory"))  # the next one begins anew


def test_a_whole_file_that_is_refused_is_found(tmp_path):
    class Form:
        def damaged(self, number: int, seed: int, folder: Path) -> tuple[fuzz.Case, Path]:
            return fuzz.Case(folder / "a", folder / "a", ()), folder / "a"

        def expected(self, case: fuzz.Case) -> dict[str, np.ndarray]:
            raise InputError("a is damaged")

    result = fuzz._attempt(Form(), 5, 0, tmp_path, 2.0)
    assert (result.number, result.outcome, result.told) == (5, "refused", "the whole file: a is damaged")
    assert result.outcome not in fuzz.GOOD


def test_a_fault_ends_no_run(faulty):
    """The mutations behind a crash are read by another worker."""
    assert fuzz.fuzz(faulty, "exit", [2, 3], module="faulty_exit").counts == {"crash": 2}
    assert fuzz.fuzz(faulty, "key", [2, 3], module="faulty_key").counts == {"raised": 2}


def test_without_checksums_other_arrays_pass(worker):
    arrays, others = {"a": np.zeros(3)}, {"a": np.ones(3)}
    assert fuzz.judge(arrays, arrays, checked=True)[0] == "equal"
    assert fuzz.judge(others, arrays, checked=False)[0] == "different"
    assert fuzz.judge({}, arrays, checked=False)[0] == "different"
    assert fuzz.judge({"a": np.zeros(4)}, arrays, checked=True)[0] == "wrong"
    assert fuzz.judge({"a": np.zeros(3, np.float32)}, arrays, checked=True)[0] == "wrong"


def test_a_number_makes_one_mutation():
    content, foreign = bytes(range(256)) * 20, [b"foreign" * 40]

    def made(number: int, seed: int = 0) -> bytes:
        return fuzz.mutate(content, number, np.random.default_rng([seed, number]), foreign)

    assert [made(number) for number in range(200)] == [made(number) for number in range(200)]
    assert len({made(number) for number in range(200)}) > 190
    assert made(50) != made(50, seed=1)
    assert content not in {made(number) for number in range(50)}


@pytest.mark.parametrize("kind", fuzz.DRAWN)
def test_every_kind_of_damage_changes_something(kind):
    content = bytes(np.random.default_rng(1).integers(256, size=5000, dtype=np.uint8))
    changed = [fuzz.DRAWN[kind](content, np.random.default_rng(i), [b"abc" * 99]) for i in range(40)]
    assert sum(each != content for each in changed) > 30
    assert fuzz.DRAWN[kind](b"", np.random.default_rng(0), []) is not None


def test_checkpoints_of_two_files_are_damaged_in_either(tmp_path):
    for name in ("a.index", "a.data-00000-of-00001", "b.npz", "a_expected.npz"):
        (tmp_path / name).write_bytes(b"x")
    paths = sorted(tmp_path.iterdir())
    cases = list(fuzz._cases(lambda start, path: path.suffix != ".npz", paths))
    index, shard = tmp_path / "a.index", tmp_path / "a.data-00000-of-00001"
    assert [(case.damaged, case.read) for case in cases] == [(index, index), (shard, index)]
    assert all(case.files == {index, shard} for case in cases)


def test_the_command_tells_and_fails(capsys, monkeypatch):
    monkeypatch.setattr(fuzz, "fuzz", lambda *_, **__: fuzz.Summary("npz"))
    assert fuzz.main(["npz", "--mutations", "1"]) == 0
    bad = fuzz.Summary("npz")
    bad.add(fuzz.Result(5, "raised", "KeyError: 'x'", 0.5, 3.0))
    monkeypatch.setattr(fuzz, "fuzz", lambda *_, **__: bad)
    assert fuzz.main(["npz", "--seed", "3"]) == 1
    told = capsys.readouterr().out
    assert "1 failed" in told
    assert "raised KeyError: 'x'" in told
    assert "python -m tests.fuzz npz --seed 3 --only 5" in told
