"""Whole files in and out: what can't be read, and what a write that fails leaves behind."""

import os
import sys

import pytest

from googlenet.weights.files import read_whole, write_whole
from minigrad.errors import InputError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_bytes_come_back(tmp_path):
    path = tmp_path / "model"
    write_whole(path, [b"one ", bytearray(b"two "), memoryview(b"three")])
    content = read_whole(path)
    assert content == b"one two three"
    assert content.readonly
    assert names(tmp_path) == ["model"]


def test_an_empty_file_is_read(tmp_path):
    write_whole(tmp_path / "empty", [])
    assert read_whole(str(tmp_path / "empty")) == b""


@pytest.mark.parametrize(("place", "told"), [("nowhere", "No such file"), ("folder", "it is a folder"),
                                             ("folder/a/b", "No such file")])
def test_what_cannot_be_read_is_named(tmp_path, place, told):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=told) as error:
        read_whole(tmp_path / place)
    assert str(tmp_path / place) in str(error.value)


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(os, "geteuid") or os.geteuid() == 0,
                    reason="POSIX permissions, which the administrator ignores")
def test_a_file_of_others_is_named(tmp_path):
    path = tmp_path / "secret"
    path.touch(mode=0)
    with pytest.raises(InputError, match=r"secret.*ermission"):
        read_whole(path)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call):
    path = tmp_path / "model"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(InputError, match=r"model.*No space left"):
        write_whole(path, [b"new"])
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["model"]


def test_content_that_fails_on_the_way_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(b"old")

    def chunks():
        yield b"new"
        raise InputError("a blob has no values")

    with pytest.raises(InputError, match="no values"):
        write_whole(path, chunks())
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["model"]


def test_the_new_file_is_on_the_disk_before_it_takes_the_old_ones_name(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("fsync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append("replace"), replace(*paths)))
    write_whole(tmp_path / "model", [b"new"])
    assert calls == (["fsync", "replace", "fsync"] if os.name == "posix" else ["fsync", "replace"])


@pytest.mark.parametrize("place", ["missing/model", "folder", "."])
def test_what_cannot_be_written_is_named(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=f"can't write {place}"):
        write_whole(place, [b"new"])
    assert names(tmp_path) == ["folder"]
