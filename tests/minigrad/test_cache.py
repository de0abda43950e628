"""Compiled kernels are kept where they can be, and never outlive the sources that they were made of."""

import os
import pickle
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.minigrad.checks import ROOT

PROGRAM = """
import logging
logging.basicConfig(level=logging.INFO, format="%(message)s")
import numpy as np
from minigrad import Tensor, ops
y = ops.dropout(Tensor(np.ones(64)), 0.5, seed=1, step=2, stream=3)
print("".join("01"[int(v > 0)] for v in y.data))
"""

FULL_DISK = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
"""


@pytest.fixture
def copy(tmp_path) -> Path:
    """A folder with minigrad in it and no compiled kernels."""
    shutil.copytree(ROOT / "minigrad", tmp_path / "house" / "minigrad", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "house"


def run(folder: Path, program: str = PROGRAM, **environment: str) -> tuple[str, str]:
    """Run the program on the minigrad of a folder: what it computed, and what it logged."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "PYTHONPATH")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_an_edit_in_a_callee_in_another_file_is_seen(copy):
    """Numba's own cache looks at the kernel's file alone and would return the old answer."""
    first, log = run(copy)
    assert "compiling" in log
    again, log = run(copy)
    assert again == first
    assert "compiling" not in log, "the compiled kernel was not kept"

    callee = copy / "minigrad" / "kernels" / "philox.py"
    source = callee.read_text(encoding="utf-8")
    assert source.count("range(10)") == 1
    callee.write_text(source.replace("range(10)", "range(9)"), encoding="utf-8")
    edited, log = run(copy)
    assert "compiling" in log
    assert edited != first

    callee.write_text(source, encoding="utf-8")
    assert run(copy)[0] == first


def test_where_no_folder_can_be_written_kernels_are_compiled_each_time(copy):
    """Files stand where the folders would be: that stops root too, whom permissions do not."""
    for folder in [copy / "minigrad", *(p for p in (copy / "minigrad").iterdir() if p.is_dir())]:
        (folder / "__pycache__").touch()
    nowhere = copy / "a_file"
    nowhere.touch()
    home = {"HOME": str(nowhere), "XDG_CACHE_HOME": str(nowhere), "LOCALAPPDATA": str(nowhere)}
    first, log = run(copy, **home)
    assert set(first.strip()) == {"0", "1"}
    assert "NUMBA_CACHE_DIR" in log, "the user is not told that kernels are not kept, nor the remedy"
    assert log.count("NUMBA_CACHE_DIR") == 1, "told once, not once a kernel"

    (copy / "kept").mkdir()
    assert run(copy, NUMBA_CACHE_DIR=str(copy / "kept"), **home)[0] == first
    assert "compiling" not in run(copy, NUMBA_CACHE_DIR=str(copy / "kept"), **home)[1]


def test_a_cache_folder_that_cannot_be_written_is_no_reason_to_fail(copy):
    (copy / "a_file").touch()
    assert run(copy, NUMBA_CACHE_DIR=str(copy / "a_file"))[0] == run(copy)[0]


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE")
def test_a_full_disk_is_no_reason_to_fail(copy):
    """Kernels that can't be stored still run: a limit on the size of files stands in for the full disk.

    Python itself keeps the half of a module that it could write, and so writes none here."""
    assert run(copy, FULL_DISK + PROGRAM, PYTHONDONTWRITEBYTECODE="1")[0] == run(copy)[0]


def test_a_damaged_cache_is_compiled_anew(copy):
    first, _ = run(copy)
    stored = list(copy.rglob("*.nb[ci]"))
    assert stored
    for path in stored:
        path.write_bytes(path.read_bytes()[:50])
    assert run(copy)[0] == first


CONVOLUTIONS = """
import re, sys
from pathlib import Path
import numpy as np
from minigrad import Tensor, ops, set_convolution
set_convolution("winograd")
x = Tensor(np.ones((1, 12, 12, 32), np.float32), requires_grad=True)
w = Tensor(np.ones((3, 3, 32, 32), np.float32), requires_grad=True)
ops.sum_all(ops.conv2d(x, w, padding=1)).backward()
"""


def test_no_two_kernels_call_different_code_by_one_name(copy):
    """Names of machine code, without the number that each process counts for itself: what one process compiled must
    not be taken for what another one did."""
    run(copy, CONVOLUTIONS)
    callers: dict[str, set[str]] = {}
    for path in (copy / "minigrad").rglob("*.nbc"):
        for name in re.findall(rb"_ZN8minigrad[0-9A-Za-z_]+", path.read_bytes()):
            plain = re.sub(rb"B\d+v\d+.*", b"", name).decode()
            if "map_by" in plain:
                callers.setdefault(plain, set()).add(path.name.split("-")[0])
    assert len(callers) == 5, "the maps of Winograd's filtering"
    assert all(len(kernels) == 1 for kernels in callers.values()), callers


SIGNATURES = """
import sys, time
import numpy as np
from numba import njit
from minigrad.kernels import compile
def twice(x):
    return x + x
function = compile.cached(njit(twice))
value = np.dtype(sys.argv[1]).type(3)
while time.time() < float(sys.argv[2]): pass
print(function(value))
"""


def test_signatures_that_processes_compile_at_once_are_kept_apart(copy):
    """Each file is what its index says, whoever wrote last."""
    (copy / "signatures.py").write_text(SIGNATURES)
    dtypes = ["int8", "int32", "float32", "float64", "complex64", "complex128"]
    for _ in range(2):
        moment = str(time.time() + 4)
        processes = [subprocess.Popen([sys.executable, "signatures.py", dtype, moment], cwd=copy, text=True,
                                      stdout=subprocess.PIPE) for dtype in dtypes]
        told = [process.communicate(timeout=100)[0].strip() for process in processes]
        assert told == ["6", "6", "6.0", "6.0", "(6+0j)", "(6+0j)"]
    for index in copy.rglob("signatures*.nbi"):
        with open(index, "rb") as file:
            pickle.load(file)
            _, overloads = pickle.loads(file.read())
        assert len(set(overloads.values())) == len(overloads)


def test_files_of_sources_that_are_no_more_are_removed(copy):
    run(copy)
    old = sorted((copy / "minigrad").rglob("*.nbc"))
    for path in old:
        os.utime(path, (0, 0))
    with open(copy / "minigrad" / "errors.py", "a", encoding="utf-8") as file:
        file.write("# another version\n")
    run(copy)
    new = sorted((copy / "minigrad").rglob("*.nbc"))
    assert len(new) == len(old)
    assert not set(new) & set(old)
