"""Foreign HDF5 in a child process: what it may hold, what it is refused for, and what happens to the child."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from googlenet.weights.formats import isolated
from minigrad.errors import InputError

posix = pytest.mark.skipif(os.name != "posix", reason="signals and limits are POSIX's")


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "foreign.h5"


@pytest.fixture
def sound(tmp_path) -> Path:
    with h5py.File(tmp_path / "sound.h5", "w") as file:
        file["x"] = np.arange(3.0)
    return tmp_path / "sound.h5"


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_arrays_texts_and_references_come_back(path):
    arrays = {"a/b/weight": np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4), "a/half": np.float16([1, 2]),
              "scalar": np.array(3, np.int64), "empty": np.zeros((0, 3)), "bytes": np.arange(4, dtype=np.uint8),
              "big": np.arange(3, dtype=">f4")}
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
        file.create_dataset("packed", data=np.arange(5000.0), chunks=True, compression="gzip", shuffle=True,
                            fletcher32=True)
        file.attrs.update({"backend": b"theano", "version": "été", "names": np.array([b"a", b"bb"]), "number": 3})
        file["a"].attrs["empty"] = np.zeros(0, "S1")
        file["references"] = np.array([[file["a/half"].ref], [file["a"].ref]], dtype=h5py.ref_dtype)
        file["text"] = "hello"
        file["null"] = h5py.Empty("f4")
    tree = isolated.read_tree(path)
    arrays["packed"] = np.arange(5000.0)
    assert set(tree.arrays) == set(arrays)
    for name, array in arrays.items():
        assert tree.arrays[name].dtype.isnative
        np.testing.assert_array_equal(tree.arrays[name], array, err_msg=name)
        assert tree.arrays[name].shape == array.shape
    assert tree.attributes[""] == {"backend": ["theano"], "version": ["été"], "names": ["a", "bb"]}
    assert tree.references == {"references": ["/a/half", "/a"]}
    assert tree.notes == ["text (object) is no array of numbers and was left out"]


def test_sixty_megabytes_are_in_time(path):
    values = np.random.default_rng(0).standard_normal(15 * 2**20, np.float32)
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=values, chunks=(2**18,), shuffle=True, fletcher32=True)
    np.testing.assert_array_equal(isolated.read_tree(path).arrays["x"], values)


def external(file: h5py.File) -> None:
    file["x"] = h5py.ExternalLink("/etc/passwd", "/x")


def soft(file: h5py.File) -> None:
    file["x"] = h5py.SoftLink("/nowhere")


def outside(file: h5py.File) -> None:
    file.create_dataset("x", (4,), "u1", external=[("/etc/passwd", 0, 4)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (4,))
    file.create_virtual_dataset("x", layout)


def cycle(file: h5py.File) -> None:
    group = file.create_group("a/b")
    group["x"] = file["a"]


def deep(file: h5py.File) -> None:
    file.create_group("/".join("a" * 40))["x"] = 1.0


def unallocated(file: h5py.File) -> None:
    file.create_dataset("x", (2**40,), "f4", chunks=(2**20,))


def bomb(file: h5py.File) -> None:
    file.create_dataset("x", (2**26,), "f4", chunks=(2**20,), compression="gzip")[:2**22] = 0


def crowd(file: h5py.File) -> None:
    for i in range(300):
        file.attrs[f"a{i}"] = "x"


@pytest.mark.parametrize(("make", "told"), [
    (external, "x is a link to another place"), (soft, "x is a link to another place"),
    (outside, "x keeps its values in another file"), (virtual, "x keeps its values in another file"),
    (cycle, "a/b/x is a group that was there before"), (deep, "more than 32 groups deep"),
    (unallocated, "larger than the file could hold"),
    (bomb, "larger than the file could hold"), (crowd, "more than 200 attributes")])
def test_what_is_refused(path, make, told):
    with h5py.File(path, "w", track_order=make is crowd) as file:
        make(file)
    with pytest.raises(InputError, match=told) as error:
        isolated.read_tree(path)
    assert str(error.value).startswith(str(path))


def test_too_many_objects_are_refused(path):
    with h5py.File(path, "w", libver="latest") as file:
        for i in range(20_001):
            file.create_group(f"g{i}")
    with pytest.raises(InputError, match="more than 20,000 groups and arrays"):
        isolated.read_tree(path)


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(5000), b"x" * 3000])
def test_damaged_files_are_told_in_one_line(path, content):
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"can't be read: .*; copy or download it again") as error:
        isolated.read_tree(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(path):
    with pytest.raises(InputError, match=r"foreign.h5 can't be read \(No such file"):
        isolated.read_tree(path)


def behaving(monkeypatch, tmp_path, body: str) -> None:
    """Let the child do something else than read, once it has its file."""
    script = tmp_path / "hdf5_child.py"
    script.write_text("import os, sys, json, struct, time, signal\n"
                      "def send(header, extra=b''):\n"
                      "    text = header if isinstance(header, bytes) else json.dumps(header).encode()\n"
                      "    out.write(struct.pack('<I', len(text)) + text + extra); out.flush()\n"
                      "out = sys.stdout.buffer\n"
                      "out.write(bytes(4)); out.flush()\n"
                      "size, most = struct.unpack('<QQ', sys.stdin.buffer.read(16))\n" + body)
    monkeypatch.setattr(isolated, "__file__", str(tmp_path / "isolated.py"))


@posix
def test_a_crash_is_an_error(monkeypatch, tmp_path, sound):
    behaving(monkeypatch, tmp_path, "os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(InputError, match=r"sound.h5 can't be read: HDF5 crashed on it \(SIGSEGV\): it is damaged"):
        isolated.read_tree(sound)


@pytest.mark.parametrize("body", ["while True: pass", "sys.stdin.buffer.read(); time.sleep(60)",
                                  "send({'array': 'x', 'type': '<f4', 'shape': [9]}, b'12'); time.sleep(60)"])
def test_a_hang_is_an_error_within_two_seconds(monkeypatch, tmp_path, sound, body):
    """Wherever the child stops: before it took the file, in between, within an array."""
    behaving(monkeypatch, tmp_path, body)
    with isolated.Child() as child:
        child._started("x")
        pid = child.process.pid
        start = time.perf_counter()
        with pytest.raises(InputError, match="HDF5 did not come to an end on it"):
            child.read(memoryview(bytes(10**6)), "x")
        assert time.perf_counter() - start < 2
    if os.name == "posix":
        assert not alive(pid)


@pytest.mark.parametrize("body", [
    "send(b'{')", "send(b'[]')", "send(b'{}')", "send({'what': 1})", "send({'array': 'x'})",
    "send({'array': 'x', 'type': 'O', 'shape': [1]}, bytes(8))",
    "send({'array': 'x', 'type': '<c8', 'shape': [1]}, bytes(8)); send({'end': 1})",
    "send({'array': 'x', 'type': '<f4', 'shape': [-1]})",
    "send({'array': 'x', 'type': '<f4', 'shape': ['a']})", "send({'array': 'x', 'type': '<f4', 'shape': [2**40]})",
    "send({'attributes': 'x', 'texts': 3})", "send({'references': 'x', 'to': 1})", "out.write(b'\\xff' * 4)",
    "send({'array': 'x', 'type': '<f4', 'shape': [2]}, b'123')", "pass"])
def test_the_child_is_not_trusted(monkeypatch, tmp_path, sound, body):
    """A crash can be preceded by anything."""
    behaving(monkeypatch, tmp_path, body)
    with pytest.raises(InputError, match=r"HDF5 crashed on it \(exit \d\): it is damaged"):
        isolated.read_tree(sound)


def test_a_child_that_does_not_start_is_told(monkeypatch, tmp_path, sound):
    monkeypatch.setattr(isolated, "__file__", str(tmp_path / "isolated.py"))
    with pytest.raises(InputError, match="did not start"):
        isolated.read_tree(sound)


def test_one_child_serves_many_and_is_replaced(tmp_path, sound, path):
    path.write_bytes(b"nonsense")
    with isolated.kept_child():
        isolated.read_tree(sound)
        first = isolated._kept.process.pid
        isolated.read_tree(sound)
        assert isolated._kept.process.pid == first
        with pytest.raises(InputError):
            isolated.read_tree(path)
        assert isolated._kept.process.pid == first
        isolated._kept.process.kill()
        isolated._kept.process.wait()
        np.testing.assert_array_equal(isolated.read_tree(sound).arrays["x"], np.arange(3.0))
        last = isolated._kept.process.pid
    assert isolated._kept is None
    if os.name == "posix":
        assert not alive(first)
        assert not alive(last)


@posix
def test_an_interrupt_leaves_no_child(monkeypatch, tmp_path, sound):
    behaving(monkeypatch, tmp_path, "time.sleep(60)")
    monkeypatch.setattr(isolated, "PATIENCE", 30)
    with isolated.Child() as child:
        child._started("x")
        pid = child.process.pid
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            child.read(memoryview(b"x"), "x")
        assert not alive(pid)


@posix
def test_the_childs_time_is_limited():
    """A child whose parent was killed stops by itself."""
    code = ("from googlenet.weights.formats import hdf5_child\n"
            "with hdf5_child._limited(2**26, 1):\n"
            "    while True: pass")
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert done.returncode == -signal.SIGXCPU


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps a process to an address space")
def test_the_childs_memory_is_limited():
    code = ("from googlenet.weights.formats import hdf5_child\n"
            "with hdf5_child._limited(2**26, 60):\n"
            "    try: bytearray(2**28)\n"
            "    except MemoryError: print('limited')\n"
            "bytearray(2**28); print('free')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["limited", "free"]


def test_the_child_imports_nothing_of_the_package(sound):
    """It must start in a fifth of a second."""
    script = Path(isolated.__file__).with_name("hdf5_child.py")
    code = ("import runpy, sys\n"
            f"runpy.run_path({str(script)!r})\n"
            "print([name for name in sys.modules if name.split('.')[0] in ('googlenet', 'minigrad', 'data', 'numba')])")
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
