"""The package's common name: an installed copy must work wherever it is used from."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import data

PACKAGE = Path(data.__file__).resolve().parent
PROGRAM = (
    "import data.datasets, data.errors; print(data.datasets.__file__); "
    "print(len(data.datasets.open_dataset('embedded', 'test')))"
)


@pytest.fixture
def installed(tmp_path):
    """A copy of the package where only the environment's path leads."""
    site = tmp_path / "site"
    shutil.copytree(PACKAGE, site / "data", ignore=shutil.ignore_patterns("__pycache__"))
    return site


def run(site, folder, *options):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [sys.executable, *options, "-c", PROGRAM]
    return subprocess.run(
        command, cwd=folder, env={**environment, "PYTHONPATH": str(site)}, capture_output=True, text=True, check=False
    )


def assert_works(ended, site):
    assert ended.returncode == 0, ended.stderr
    file, images = ended.stdout.split("\n")[:2]
    assert Path(file).samefile(site / "data" / "datasets.py")
    assert images == "2000"


def test_from_a_folder_with_images_in_data(tmp_path, installed):
    folder = tmp_path / "work"
    (folder / "data" / "train" / "cat").mkdir(parents=True)
    (folder / "data" / "datasets.py").write_text("raise SystemExit('the wrong one')")
    (folder / "data" / "embedded").mkdir()
    assert_works(run(installed, folder), installed)


@pytest.mark.parametrize("rival", ["data.py", "data/__init__.py"])
def test_a_package_of_that_name_does_not_hide_it_from_safe_paths(tmp_path, installed, rival):
    folder = tmp_path / "work"
    (folder / rival).parent.mkdir(parents=True)
    (folder / rival).write_text("")
    assert_works(run(installed, folder, "-P"), installed)


def test_the_copy_holds_all_that_is_needed(installed):
    names = {path.name for path in (installed / "data" / "embedded").iterdir()}
    assert {"LICENSE", "README.md", "classes.txt", "make.py"} <= names
