"""HDF5: what was saved comes back; nothing that befalls a file passes for data; a save that fails loses nothing."""

import hashlib
import os
import random
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from minigrad import InputError, hdf5
from tests.minigrad.checks import ROOT, run_python


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "conv1/weight": rng.standard_normal((7, 7, 3, 64), np.float32),
        "conv1/bias": np.zeros(64, np.float32),
        "inception_3a/conv_5x5_reduce/weight": rng.standard_normal((1, 1, 192, 16)),
        "step": np.array(12345, np.int64),
        "empty": np.zeros((0, 3), np.float32),
        "slice": rng.standard_normal((8, 8))[::2, 1:5],
    }


ATTRIBUTES = {"variant": "paper", "classes": '["Blume", "Käfer"]', "step": 7, "loss": 0.25, "large": "x" * 100_000}


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_saved_comes_back(tmp_path, arrays):
    path = tmp_path / "a.h5"
    hdf5.save(path, arrays, ATTRIBUTES)
    loaded, attributes = hdf5.load(path)
    assert list(loaded) == list(arrays) or sorted(loaded) == sorted(arrays)
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype, name
        np.testing.assert_array_equal(loaded[name], array, err_msg=name)
    assert attributes == ATTRIBUTES
    assert {name: type(value) for name, value in attributes.items()} == {
        name: type(v) for name, v in ATTRIBUTES.items()
    }
    assert files(tmp_path) == ["a.h5"]


def test_the_loaded_arrays_are_the_callers_to_write(tmp_path, arrays):
    hdf5.save(tmp_path / "a.h5", arrays, {})
    loaded, _ = hdf5.load(tmp_path / "a.h5")
    for name, array in loaded.items():
        array += 1
        np.testing.assert_array_equal(array, arrays[name] + 1)


def test_paths_are_groups_that_any_hdf5_tool_reads(tmp_path, arrays):
    hdf5.save(tmp_path / "a.h5", arrays, ATTRIBUTES)
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["conv1"]["weight"][()], arrays["conv1/weight"])
        assert file.attrs["variant"] == "paper"


def test_a_path_may_be_a_string_and_is_overwritten(tmp_path):
    path = str(tmp_path / "a.h5")
    for step in (1, 2):
        hdf5.save(path, {"x": np.full(3, step)}, {"step": step})
    loaded, attributes = hdf5.load(path)
    assert attributes["step"] == 2
    assert loaded["x"][0] == 2


def test_the_same_content_gives_the_same_file(tmp_path, arrays):
    """Two runs of one seed can be compared by their files."""
    for name in ("a.h5", "b.h5"):
        hdf5.save(tmp_path / name, arrays, ATTRIBUTES)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


# What befalls a file.


@pytest.fixture
def saved(tmp_path, arrays) -> Path:
    hdf5.save(tmp_path / "a.h5", arrays, ATTRIBUTES)
    return tmp_path / "a.h5"


@pytest.mark.parametrize("part", [0, 1e-4, 0.01, 0.3, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused_by_name(saved, part):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(part * len(content))])
    with pytest.raises(InputError, match=r"a\.h5"):
        hdf5.load(saved)


def test_one_byte_less_or_more_is_refused(saved):
    content = saved.read_bytes()
    for changed in (content[:-1], content + b"\0"):
        saved.write_bytes(changed)
        with pytest.raises(InputError):
            hdf5.load(saved)


def test_any_flipped_bit_is_refused(saved):
    """At 200 places: among them digest, superblock, headers, chunks and checksums."""
    content = saved.read_bytes()
    rng = random.Random(0)
    places = {rng.randrange(len(content)) for _ in range(120)} | {rng.randrange(4096) for _ in range(40)}
    places |= {len(content) - 1 - rng.randrange(1024) for _ in range(40)}
    for place in sorted(places):
        mutated = bytearray(content)
        mutated[place] ^= 1 << rng.randrange(8)
        if place < hdf5.USER_BLOCK and content[place] == 0:
            continue  # behind the digest the user block is blank: nothing reads it
        saved.write_bytes(mutated)
        with pytest.raises(InputError, match=r"a\.h5"):
            hdf5.load(saved)


def test_zeroed_blocks_are_refused(saved):
    content = saved.read_bytes()
    for start in range(0, len(content) - 512, len(content) // 20):
        saved.write_bytes(content[:start] + bytes(512) + content[start + 512 :])
        if saved.read_bytes() != content:
            with pytest.raises(InputError):
                hdf5.load(saved)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04" + bytes(100), bytes(4096)])
def test_what_is_no_hdf5_is_refused_by_name(tmp_path, content):
    path = tmp_path / "note.h5"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"note\.h5"):
        hdf5.load(path)


def test_a_foreign_hdf5_file_is_refused(tmp_path):
    path = tmp_path / "keras.h5"
    with h5py.File(path, "w") as file:
        file["layer/kernel"] = np.zeros((3, 3))
    with pytest.raises(InputError, match=r"keras\.h5"):
        hdf5.load(path)


def sealed(path: Path, write: Callable[[h5py.File], None]) -> Path:
    """A file of foul content with a valid digest, so that only what is in it can be refused."""
    with h5py.File(path, "w", libver="latest", userblock_size=hdf5.USER_BLOCK) as file:
        write(file)
    body = path.read_bytes()[hdf5.USER_BLOCK :]
    head = hdf5.MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n"
    path.write_bytes(head.ljust(hdf5.USER_BLOCK, b"\0") + body)
    return path


def test_a_sealed_file_is_read(tmp_path):
    path = sealed(tmp_path / "a.h5", lambda file: file.create_dataset("x", data=np.arange(3.0)))
    np.testing.assert_array_equal(hdf5.load(path)[0]["x"], [0, 1, 2])


@pytest.mark.parametrize("link", [h5py.ExternalLink("secret.h5", "key"), h5py.SoftLink("/x")], ids=["external", "soft"])
def test_links_are_refused(tmp_path, link):
    """A link could name any file that the reader may read, the digest notwithstanding."""
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["key"] = np.arange(4.0)

    def write(file):
        file["x"] = np.zeros(3)
        file["group/linked"] = link

    with pytest.raises(InputError, match=r"a\.h5.*group/linked.*link"):
        hdf5.load(sealed(tmp_path / "a.h5", write))


def test_values_kept_in_another_file_are_refused(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(range(32)))
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["key"] = np.arange(4.0)

    def external(file):
        file.create_dataset("x", (4,), np.float64, external=[(tmp_path / "secret", 0, 32)])

    def virtual(file):
        layout = h5py.VirtualLayout((4,), np.float64)
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "key", (4,))
        file.create_virtual_dataset("x", layout)

    for write in (external, virtual):
        with pytest.raises(InputError, match=r"a\.h5.*another file"):
            hdf5.load(sealed(tmp_path / "a.h5", write))


def test_a_group_that_contains_itself_is_refused(tmp_path):
    def write(file):
        file["a/b"] = np.zeros(3)
        file["a/itself"] = file["a"]

    with pytest.raises(InputError, match=r"a\.h5"):
        hdf5.load(sealed(tmp_path / "a.h5", write))


@pytest.mark.parametrize("kind", ["missing", "folder", "in a folder that is missing"])
def test_a_path_that_cannot_be_read_is_named(tmp_path, kind):
    path = {
        "missing": tmp_path / "nowhere.h5",
        "folder": tmp_path,
        "in a folder that is missing": tmp_path / "a" / "b.h5",
    }[kind]
    with pytest.raises(InputError) as error:
        hdf5.load(path)
    assert str(path) in str(error.value)


# What befalls a save.

SAVE_FOREVER = """
import sys
import numpy as np
from minigrad import hdf5
step = int(sys.argv[2])
while True:
    arrays = {f"layer{i}/weight": np.full((64, 1 + i, 300), step, np.float32) for i in range(12)}
    hdf5.save(sys.argv[1], arrays, {"step": step})
    print("saved", flush=True)
    step += 1
"""


def test_killed_at_any_moment_the_file_is_whole_and_of_one_step(tmp_path):
    path = tmp_path / "last.h5"
    rng = random.Random(0)
    step = 0
    for _ in range(10):
        command = [sys.executable, "-c", SAVE_FOREVER, str(path), str(step)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            begun = time.monotonic()
            process.stdout.readline()
            time.sleep(rng.uniform(0, time.monotonic() - begun))  # somewhere in the third save
            process.kill()
        arrays, attributes = hdf5.load(path)
        assert len(arrays) == 12
        assert all((array == attributes["step"]).all() for array in arrays.values())
        assert attributes["step"] > step
        step = attributes["step"]
    assert len(files(tmp_path)) <= 2, "each kill leaves a file behind"
    hdf5.save(path, {}, {})
    assert files(tmp_path) == ["last.h5"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(saved, arrays, monkeypatch, call):
    content = saved.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(InputError, match=r"a\.h5.*No space left"):
        hdf5.save(saved, arrays, {"step": 8})
    monkeypatch.undo()
    assert saved.read_bytes() == content
    assert files(saved.parent) == ["a.h5"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX")
def test_a_folder_that_cannot_be_synced(saved, monkeypatch):
    """Some network file systems sync files but no folders: the save is done all the same."""
    fsync = os.fsync

    def files_only(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(22, "Invalid argument")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", files_only)
    hdf5.save(saved, {}, {"step": 8})
    assert hdf5.load(saved)[1] == {"step": 8}


FULL_DISK = """
import resource, signal, sys
import numpy as np
from minigrad import InputError, hdf5
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    hdf5.save(sys.argv[1], {"w": np.random.default_rng(0).random((1000, 1000))}, {})
except InputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE")
def test_a_full_disk_leaves_the_old_file_and_is_named(saved):
    """The write fails inside the HDF5 library, as on a full disk: a limit on the size of files stands in for it."""
    content = saved.read_bytes()
    told = run_python(FULL_DISK, str(saved))
    assert re.search(r"a\.h5.*too large", told), told
    assert saved.read_bytes() == content
    assert files(saved.parent) == ["a.h5"]


def test_saving_into_a_missing_folder_names_it(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        hdf5.save(tmp_path / "nowhere" / "a.h5", {"x": np.zeros(3)}, {})


def test_saving_over_a_folder_is_refused(tmp_path):
    (tmp_path / "runs").mkdir()
    with pytest.raises(InputError, match="runs"):
        hdf5.save(tmp_path / "runs", {"x": np.zeros(3)}, {})
    assert files(tmp_path) == ["runs"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_a_saved_file_has_the_permissions_of_any_new_file(saved):
    """A temporary file made for its owner alone must not leave a checkpoint that colleagues cannot read."""
    (saved.parent / "plain").touch()
    assert saved.stat().st_mode == (saved.parent / "plain").stat().st_mode


def test_interrupted_saves_leave_no_files(saved, arrays, monkeypatch):
    """Ctrl-C in the middle of a save."""

    def interrupt(*_):
        raise KeyboardInterrupt

    content = saved.read_bytes()
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        hdf5.save(saved, arrays, {})
    assert saved.read_bytes() == content
    assert files(saved.parent) == ["a.h5"]
