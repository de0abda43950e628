"""How scripts end: exit codes and messages."""

import logging
import os
import shlex
import sys

import pytest

from data.errors import DataError
from googlenet import scripts
from googlenet.training import DivergedError
from minigrad.errors import InputError


@pytest.fixture(autouse=True)
def unchanged_logging():
    yield
    logging.captureWarnings(False)


def exit_of(main, monkeypatch, *arguments):
    """What `run` ends a program with: its code, or the line that Python prints before it exits with 1."""
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    with pytest.raises(SystemExit) as end:
        scripts.run(main, "train.py")
    return end.value.code


def raising(error):
    def main(arguments):
        raise error
    return main


@pytest.mark.parametrize("code", [None, 0, 130])
def test_a_script_ends_with_what_main_returns(monkeypatch, code):
    given = []
    assert exit_of(lambda arguments: given.append(arguments) or code, monkeypatch, "--epochs", "3") == code
    assert given == [["--epochs", "3"]]


@pytest.mark.parametrize(("error", "told"), [
    (InputError("a.h5 is damaged: use a copy"), "a.h5 is damaged: use a copy"),
    (DataError("two\n  lines"), "two lines"),
    (DivergedError("the loss is nan"), "the loss is nan"),
    (OSError(28, "No space left on device", "runs/log.csv"),
     "runs/log.csv: No space left on device; check the path, the rights and the disk"),
])
def test_an_error_is_one_line(monkeypatch, error, told):
    assert exit_of(raising(error), monkeypatch) == f"train.py: error: {told}"


def test_an_error_without_a_file_says_what_it_is(monkeypatch):
    assert "No space left" in exit_of(raising(OSError(28, "No space left on device")), monkeypatch)
    assert "image cannot be written" in exit_of(raising(OSError("image cannot be written")), monkeypatch)


def test_out_of_memory_has_a_remedy(monkeypatch):
    told = exit_of(raising(MemoryError("Unable to allocate 36.4 TiB")), monkeypatch)
    assert told.startswith("train.py: error: out of memory")
    assert "use smaller images or batches" in told


def test_ctrl_c_is_130(monkeypatch, capsys):
    assert exit_of(raising(KeyboardInterrupt()), monkeypatch) == 130
    assert capsys.readouterr().err.strip() == "train.py: stopped"


@pytest.mark.parametrize("error", [InputError("x"), DataError("x"), OSError(2, "x", "y")])
def test_debug_shows_where_from(monkeypatch, error):
    monkeypatch.setattr(sys, "argv", ["train.py", "--debug"])
    with pytest.raises(type(error)):
        scripts.run(raising(error), "train.py")


def test_a_fault_of_the_program_is_not_hidden(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(ZeroDivisionError):
        scripts.run(raising(ZeroDivisionError()), "train.py")


@pytest.mark.parametrize(("seconds", "words"), [
    (0, "0 s"), (0.4, "0 s"), (59.4, "59 s"), (60, "1 min"), (200, "3 min 20 s"), (3599.7, "1 h"), (7500, "2 h 5 min"),
    (86400, "1 d"), (100000, "1 d 3 h"), (30 * 86400, "30 d")])
def test_durations_have_two_units(seconds, words):
    assert scripts.duration(seconds) == words


@pytest.mark.skipif(os.name != "posix", reason="as shells of POSIX read it")
@pytest.mark.parametrize("path", ["runs/one", "my runs/it's one", "runs/$HOME"])
def test_a_path_is_shown_as_a_shell_reads_it(path):
    assert shlex.split(scripts.shown_path(path)) == [path]


@pytest.mark.parametrize(("path", "shown"), [(r"runs\one", "runs/one"), (r"C:\my runs\one", '"C:/my runs/one"'),
                                             ("a&b", '"a&b"'), ("fashion-mnist", "fashion-mnist")])
def test_on_windows_quotes_are_double(monkeypatch, path, shown):
    with monkeypatch.context() as windows:
        windows.setattr(scripts.os, "name", "nt")
        found = scripts.shown_path(path)
    assert found == shown
