"""The house rules that can be read off the source: which way imports point, who prints, what must be installed."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("minigrad", "data", "googlenet")
SCRIPTS = sorted(path.name for path in ROOT.glob("*.py"))
MODULES = sorted(path.relative_to(ROOT).as_posix() for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
SOURCES = SCRIPTS + MODULES

# Floors of the house: a file imports from its own floor and from those below. The first pattern that fits decides.
HOUSE = [
    ("scripts", r"[^/]+\.py|googlenet/__main__\.py|googlenet/commands/\w+\.py"),
    ("data's scripts", r"data/(fetch|pack|preview|scripts)\.py"),
    ("googlenet", r"googlenet/.*"),
    ("data", r"data/.*"),
    ("minigrad", r"minigrad/.*"),
]
MAY_IMPORT = {
    "scripts": {"googlenet", "data", "minigrad"},
    "googlenet": {"googlenet", "data", "minigrad"},
    "data's scripts": {"data"},
    "data": {"data"},
    "minigrad": {"minigrad"},
}

# Floors of minigrad: the engine knows no op, kernels know neither.
ENGINE = [
    r"minigrad/(errors|runtime)",
    r"minigrad/kernels/\w+",
    r"minigrad/(op|tensor|device)",
    r"minigrad/ops/\w+",
    r"minigrad/\w+",
]
DEFERRED = {("minigrad/tensor.py", "minigrad.ops.arithmetic")}  # Tensor's + and *: imported when called

PRINTING = "|".join(pattern for _, pattern in HOUSE[:2])
NOT_IMPORTED = {"tests", "benchmarks", *(script.removesuffix(".py") for script in SCRIPTS)}

# Libraries with a place of their own.
ONLY_IN = {
    "h5py": r"minigrad/hdf5\.py|googlenet/weights/formats/hdf5_child\.py|data/pack(ed|ing)\.py",
    "matplotlib": r"googlenet/reports/\w+\.py",
    "tqdm": r"[^/]+\.py|googlenet/(__main__|commands/\w+)\.py|data/(fetch|pack|scripts)\.py",
    "ray": r"googlenet/distbelief/ray_cluster\.py",
    "tensorboardX": r"googlenet/reports/tensorboard\.py",
}
# By which extra it is installed; imported by who needs it, not before.
OPTIONAL = {"tensorboardX": "tensorboard", "ray": "ray"}
NEEDED_BY = {  # beyond NumPy and Pillow, by what is no plain picture
    "data/packed.py": {"h5py"}, "data/packing.py": {"h5py"}, "data/pack.py": {"tqdm"}, "data/fetch.py": {"tqdm"},
    "data/scripts.py": {"tqdm"},
    "data/imagenet_labels.py": {"scipy"}, "data/flowers.py": {"scipy"},  # the devkit's meta.mat, Oxford's splits
}  # fmt: skip
MODULES_OF = {"pillow": "PIL", "scikit-image": "skimage"}  # where a distribution's name is not its module's


def tree(source: str) -> ast.Module:
    return ast.parse((ROOT / source).read_text(encoding="utf-8"), source)


def imports(source: str) -> Iterator[str]:
    """The dotted names of all modules that a file imports, in functions as well."""
    for node in ast.walk(tree(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{source}:{node.lineno}: relative import; write the whole path"
            yield from (submodule(node.module or "", alias.name) for alias in node.names)


def submodule(package: str, name: str) -> str:
    """`from package import name` imports the module package.name where there is one."""
    path = ROOT.joinpath(*package.split("."), name)
    return f"{package}.{name}" if path.is_dir() or path.with_suffix(".py").exists() else package


def floor(patterns: list[str], path: str) -> int:
    return next(i for i, pattern in enumerate(patterns) if re.fullmatch(pattern, path))


@pytest.mark.parametrize("source", SOURCES)
def test_imports_point_downward(source):
    place = next(name for name, pattern in HOUSE if re.fullmatch(pattern, source))
    for name in imports(source):
        top = name.split(".")[0]
        assert top not in NOT_IMPORTED, f"{source} imports {name}"
        assert top not in PACKAGES or top in MAY_IMPORT[place], f"{source} imports {name}"
        assert place == "scripts" or not name.startswith("googlenet.commands"), f"{source} imports {name} from above"


@pytest.mark.parametrize("source", [s for s in SOURCES if s.startswith("minigrad/")])
def test_minigrads_floors(source):
    here = floor(ENGINE, source.removesuffix(".py"))
    for name in imports(source):
        if name.startswith("minigrad.") and (source, name) not in DEFERRED:
            assert floor(ENGINE, name.replace(".", "/")) <= here, f"{source} imports {name} from above"


@pytest.mark.parametrize("source", SOURCES)
def test_libraries_stay_in_their_place(source):
    for name in imports(source):
        top = name.split(".")[0]
        assert top not in ONLY_IN or re.fullmatch(ONLY_IN[top], source), f"{source} imports {name}"


@pytest.mark.parametrize("source", [s for s in SOURCES if s.startswith("data/")])
def test_data_is_numpy_in_numpy_out(source):
    allowed = {"numpy", "PIL", "data", *sys.stdlib_module_names, *NEEDED_BY.get(source, ())}
    assert {name.split(".")[0] for name in imports(source)} <= allowed


@pytest.mark.parametrize("source", [s for s in SOURCES if not re.fullmatch(PRINTING, s)])
def test_only_scripts_print(source):
    for node in ast.walk(tree(source)):
        printing = isinstance(node, ast.Name) and node.id == "print"
        assert not printing, f"{source}:{getattr(node, 'lineno', 0)} prints"


def test_what_is_imported_is_declared():
    """A fresh virtual environment has the dependencies of pyproject.toml and nothing else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [re.match(r"[\w-]+", line).group().lower() for line in project["dependencies"]]
    declared = {MODULES_OF.get(name, name) for name in names}
    for source in SOURCES:
        used = {name.split(".")[0] for name in imports(source)} - {*PACKAGES, *sys.stdlib_module_names}
        missing = used - declared - {"llvmlite", *OPTIONAL}  # what Numba is made of comes with it
        assert not missing, f"{source} imports {missing}; declared: {sorted(declared)}"


@pytest.mark.parametrize(("library", "extra"), OPTIONAL.items())
def test_what_is_optional_is_an_extra(library, extra):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert any(re.match(r"[\w-]+", line).group() == library for line in project["optional-dependencies"].get(extra, ()))
    for source in SOURCES:
        for node in tree(source).body:  # what runs when the file is imported
            if not isinstance(node, ast.FunctionDef | ast.ClassDef):
                assert f"import {library}" not in ast.unparse(node), f"{source} imports {library} at once"
                assert f"from {library}" not in ast.unparse(node), f"{source} imports {library} at once"


def test_every_op_has_its_file_and_its_test():
    ops = {path.stem for path in (ROOT / "minigrad/ops").glob("*.py")} - {"__init__"}
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests/minigrad/ops").glob("test_*.py")}
    assert ops <= tests, f"no test for {sorted(ops - tests)}"
