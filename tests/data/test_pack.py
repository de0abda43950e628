"""`python -m data.pack`, above all what is left when it is killed."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data import packing
from data.datasets import open_dataset
from data.errors import DataError
from data.packed import open_file, part_of
from data.packing import Settings, pack
from tests.data.files import pixels, truncate, write_class_folders, write_picture

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = Settings("train", shuffled=True, decode=True, keep_damaged=False, block=1000)
needs_kill = pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")


def command(*arguments):
    return [sys.executable, "-m", "data.pack", *map(str, arguments)]


def run(*arguments):
    environment = {**os.environ, "COLUMNS": "120"}
    return subprocess.run(
        command(*arguments), cwd=ROOT, capture_output=True, text=True, check=False, timeout=120, env=environment
    )


def finish(dataset, path, settings=SETTINGS, **options):
    return list(pack(dataset, path, settings, **options))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folder")
    write_class_folders(folder, count=30)
    truncate(folder / "train/cat/7.png")
    (folder / "train/dog/3.png").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def dataset(folder):
    return open_dataset(folder, "train")


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory):
    """The bytes of a file that was packed without interruption."""
    path = tmp_path_factory.mktemp("whole") / "train.h5"
    finish(dataset, path)
    return path.read_bytes()


def test_the_command(folder, tmp_path):
    ended = run(folder, tmp_path / "train.h5", "--block-mib", 0.002)
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"train.h5: 58 images of 2 classes in \d+ blocks, .* MiB; 2 damaged images left out", ended.stdout)
    assert "damaged: 'cat/7.png': cat/7.png: cannot be decoded" in ended.stderr
    assert "damaged: 'dog/3.png': dog/3.png: cannot be decoded" in ended.stderr
    again = run(folder, tmp_path / "train.h5")
    assert again.returncode == 1
    assert "train.h5: exists already: remove it, or choose another name" in again.stderr
    assert "is finished already" in run(folder, tmp_path / "train.h5", "--resume").stdout
    assert "all 58 images are as they were packed" in run("--verify", tmp_path / "train.h5").stdout
    content = bytearray((tmp_path / "train.h5").read_bytes())
    content[-1] ^= 1
    (tmp_path / "train.h5").write_bytes(content)
    changed = run("--verify", tmp_path / "train.h5")
    assert changed.returncode == 1
    assert "its index has changed since it was packed" in changed.stderr


def test_the_command_packs_test_images_in_their_order(folder, tmp_path):
    assert run(folder, tmp_path / "test.h5", "--split", "test").returncode == 0
    assert list(open_dataset(tmp_path, "test").names) == list(open_dataset(folder, "test").names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "out.h5"], "error: nowhere: no such folder"),
        (["embedded"], "give OUT.h5, the file to write"),
        (["embedded", "out.h5", "--verify"], "--verify takes one file"),
        (["embedded", "out.h5", "--threads", "0"], "--threads 0: give at least 1"),
        (["embedded", "out.h5", "--block-mib", "0"], "--block-mib 0.0: give 0.001 to 1024"),
        (["embedded", "no/such/folder/out.h5"], "out.h5: cannot be written (No such file or directory)"),
        (["nowhere.h5", "--verify"], "nowhere.h5: no such file"),
    ],
)
def test_wrong_arguments(arguments, message):
    ended = run(*arguments)
    assert ended.returncode != 0
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


def test_training_images_are_shuffled_once(dataset, whole, tmp_path):
    (tmp_path / "train.h5").write_bytes(whole)
    packed = open_dataset(tmp_path, "train")
    assert set(packed.names) == set(dataset.names) - {"cat/7.png", "dog/3.png"}
    assert list(packed.names) != sorted(packed.names)
    assert 5 < packed.labels[:29].sum() < 24
    for i, name in enumerate(packed.names):
        place = list(dataset.names).index(name)
        assert packed.labels[i] == dataset.labels[place]
        np.testing.assert_array_equal(packed.image(i), dataset.image(place))


def test_same_content_gives_the_same_file(dataset, whole, tmp_path):
    time.sleep(1.1)  # a time noted in the file would differ
    finish(dataset, tmp_path / "b.h5", threads=4)
    assert (tmp_path / "b.h5").read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["b.h5"]


@needs_kill
def test_killed_at_random_moments_and_resumed(tmp_path):
    """Real processes, real SIGKILL: whatever the moments, the file is the one of an uninterrupted packing."""
    write_class_folders(tmp_path / "folder", splits=("train",), count=0)
    for i in range(400):
        write_picture(tmp_path / f"folder/train/{'ab'[i % 2]}/{i}.png", pixels(40, 40, 3))
    arguments = (tmp_path / "folder", tmp_path / "out" / "train.h5", "--block-mib", 0.01, "--threads", 1)
    (tmp_path / "out").mkdir()
    assert run(*arguments).returncode == 0
    target = tmp_path / "out" / "train.h5"
    expected = target.read_bytes()
    target.unlink()

    part, rng, kills = part_of(target), np.random.default_rng(0), 0
    journal = part.with_name(f"{part.name}.journal")
    while not target.exists():
        process = subprocess.Popen(command(*arguments, "--resume"), cwd=ROOT, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)  # fmt: skip
        enough = length(journal) + rng.integers(4000)  # bytes, some dozen blocks
        while process.poll() is None and length(journal) < enough:
            time.sleep(0.0005)
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        if part.exists():
            with pytest.raises(DataError, match=r"is not finished: .* --resume"):
                open_dataset(target, "train")
    assert run(*arguments, "--resume").returncode == 0
    assert kills >= 3
    assert target.read_bytes() == expected
    assert os.listdir(tmp_path / "out") == ["train.h5"]


def length(path):
    return path.stat().st_size if path.exists() else 0


class Crash(BaseException):
    """Stands for a loss of power: nothing in the program catches it."""


def crashing(monkeypatch, name, count):
    """Let the program's call number `count` of a function of `os` be its last."""
    true, calls = getattr(os, name), []

    def replaced(*arguments):
        calls.append(arguments)
        if len(calls) == count:
            raise Crash
        return true(*arguments)

    monkeypatch.setattr(packing.os, name, replaced)


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_crash_at_each_step(dataset, whole, tmp_path, monkeypatch, name):
    """At every flush and at the renaming; before each, what was written last may be lost or half there."""
    crashes = 0
    for count in range(1, 200):
        path = tmp_path / f"{count}.h5"
        with monkeypatch.context() as patch:
            crashing(patch, name, count)
            try:
                finish(dataset, path)
            except Crash:
                crashes += 1
            else:
                break
        part = part_of(path)
        journal = part.with_name(f"{part.name}.journal")
        if part.exists():
            with pytest.raises(DataError, match="--resume"):
                open_file(path)
            if journal.exists() and count % 2:
                journal.write_bytes(journal.read_bytes()[:-5])  # a line half written
            finish(dataset, path, resume=True)
        assert path.read_bytes() == whole, count
        assert not part.exists()
    assert crashes >= {"fsync": 15, "replace": 1}[name]


def test_no_more_than_a_block_is_done_again(dataset, tmp_path):
    packed = pack(dataset, tmp_path / "a.h5", SETTINGS)
    before = [next(packed) for _ in range(5)][-1]
    packed.close()
    after = next(pack(dataset, tmp_path / "a.h5", SETTINGS, resume=True))
    assert (after.done, after.size) == (before.done, before.size)
    assert before.size >= 4 * SETTINGS.block


def test_a_line_half_written_costs_its_own_block_only(dataset, tmp_path):
    """Also at the second crash: what is written behind such a line must be found again."""
    packed = pack(dataset, tmp_path / "a.h5", SETTINGS)
    for _ in range(4):
        next(packed)
    packed.close()
    with open(tmp_path / "a.h5.part.journal", "ab") as file:
        file.write(b"12345678 [[1,2")
    packed = pack(dataset, tmp_path / "a.h5", SETTINGS, resume=True)
    before = [next(packed) for _ in range(4)][-1]
    packed.close()
    assert next(pack(dataset, tmp_path / "a.h5", SETTINGS, resume=True)).done == before.done


def test_what_is_behind_the_journal_is_cut_off(dataset, whole, tmp_path):
    packed = pack(dataset, tmp_path / "a.h5", SETTINGS)
    for _ in range(4):
        next(packed)
    packed.close()
    with open(part_of(tmp_path / "a.h5"), "ab") as file:
        file.write(b"half a block" * 10_000)
    finish(dataset, tmp_path / "a.h5", resume=True)
    assert (tmp_path / "a.h5").read_bytes() == whole


@pytest.fixture
def begun(dataset, tmp_path):
    packed = pack(dataset, tmp_path / "a.h5", SETTINGS)
    for _ in range(4):
        next(packed)
    packed.close()
    return tmp_path / "a.h5"


def test_a_begun_packing_is_neither_forgotten_nor_mixed(dataset, begun, tmp_path):
    with pytest.raises(DataError, match=r"a packing was begun here: go on with --resume, or remove this file"):
        next(pack(dataset, begun, SETTINGS))
    other = Settings("train", shuffled=True, decode=False, keep_damaged=False, block=1000)
    with pytest.raises(DataError, match="begun with decode True, now False: resume it with the same"):
        next(pack(dataset, begun, other, resume=True))
    write_class_folders(tmp_path, count=31)
    with pytest.raises(DataError, match="begun with other images: resume it with the same"):
        next(pack(open_dataset(tmp_path, "train"), begun, SETTINGS, resume=True))


def test_another_version_of_h5py_may_place_the_images_elsewhere(dataset, begun, monkeypatch):
    monkeypatch.setattr(packing, "_begin_of_images", lambda: 8192)
    with pytest.raises(DataError, match="begun with another version of h5py"):
        next(pack(dataset, begun, SETTINGS, resume=True))


def test_a_part_that_lost_its_end_is_refused(dataset, begun):
    truncate(part_of(begun), 0.9)
    with pytest.raises(DataError, match="is shorter than its journal says: remove both and begin again"):
        next(pack(dataset, begun, SETTINGS, resume=True))


@needs_kill
def test_two_processes_do_not_pack_one_file(dataset, tmp_path):
    first = pack(dataset, tmp_path / "a.h5", SETTINGS)
    next(first)
    with pytest.raises(DataError, match="another process is packing it"):
        next(pack(dataset, tmp_path / "a.h5", SETTINGS, resume=True))
    first.close()
    finish(dataset, tmp_path / "a.h5", resume=True)


def test_a_full_disk_is_told_and_resumed(dataset, whole, tmp_path, monkeypatch):
    calls = []
    true = packing._sync

    def full(file):
        calls.append(file)
        if len(calls) == 9:
            raise OSError(28, "No space left on device")
        true(file)

    monkeypatch.setattr(packing, "_sync", full)
    with pytest.raises(DataError, match=r"a.h5: cannot be written \(No space left on device\): free space"):
        finish(dataset, tmp_path / "a.h5")
    finish(dataset, tmp_path / "a.h5", resume=True)
    assert (tmp_path / "a.h5").read_bytes() == whole


def test_damaged_images_are_kept_when_asked(dataset, folder, tmp_path):
    settings = Settings("train", shuffled=False, decode=True, keep_damaged=True)
    told = [name for report in finish(dataset, tmp_path / "train.h5", settings) for name, _ in report.damaged]
    assert told == ["cat/7.png", "dog/3.png"]
    packed = open_dataset(tmp_path, "train")
    assert list(packed.names) == list(dataset.names)
    place = list(packed.names).index("cat/7.png")
    assert packed.encoded(place) == (folder / "train/cat/7.png").read_bytes()
    assert packed.sizes[place].tolist() == [0, 0]
    with pytest.raises(DataError, match=r"train.h5: cat/7.png: cannot be decoded"):
        packed.image(place)


def test_a_look_at_the_header_misses_what_was_cut_off(dataset, tmp_path):
    settings = Settings("train", shuffled=False, decode=False, keep_damaged=False)
    finish(dataset, tmp_path / "train.h5", settings)
    packed = open_dataset(tmp_path, "train")
    assert set(dataset.names) - set(packed.names) == {"dog/3.png"}
    assert packed.sizes.tolist() == [[6, 8]] * 59


def test_too_many_damaged_images_end_it(dataset, tmp_path):
    with pytest.raises(DataError, match=r"2 images are damaged, more than the 1 allowed; the last is .*--max-bad"):
        finish(dataset, tmp_path / "a.h5", max_bad=1)
    finish(dataset, tmp_path / "a.h5", resume=True, max_bad=2)


def test_nothing_but_damaged_images(tmp_path):
    write_class_folders(tmp_path, count=1)
    for path in (tmp_path / "train").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="holds no image that can be used: there is nothing to pack"):
        finish(open_dataset(tmp_path, "train"), tmp_path / "a.h5")


def test_a_block_at_a_time_is_held(tmp_path, monkeypatch):
    """Not the data set: of 200 images of 100 kB, few are alive at once."""
    alive = []
    true = packing._prepare

    class Counted(bytes):
        def __new__(cls, content):
            alive.append(1)
            return super().__new__(cls, content)

        def __del__(self):
            alive.pop()

    most = []

    def counting(dataset, settings, index):
        entry = true(dataset, settings, index)
        most.append(len(alive))
        return entry._replace(content=Counted(entry.content))

    monkeypatch.setattr(packing, "_prepare", counting)
    finish(open_dataset("embedded", "test"), tmp_path / "a.h5", threads=2)
    assert len(most) == 2000
    assert max(most) < 40
