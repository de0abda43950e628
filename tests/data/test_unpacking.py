import errno
import os
import tarfile

import pytest

from data import unpacking
from data.errors import DataError
from data.unpacking import unpack, write
from tests.data.publishing import tar_of


def link(name, target, kind=tarfile.SYMTYPE):
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, str(target)
    return made


def everything_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.fixture
def place(tmp_path):
    """place(contents) -> (archive, folder to unpack it into, which is empty)."""

    def make(contents, mode="w:gz"):
        (tmp_path / "a.tar").write_bytes(tar_of(contents, mode))
        return tmp_path / "a.tar", tmp_path / "out"

    return make


@pytest.mark.parametrize("mode", ["w:gz", "w", "w:bz2"])
@pytest.mark.parametrize("prefix", ["", "./"])
def test_the_wanted_files_are_written_and_no_others(place, mode, prefix):
    archive, out = place({f"{prefix}x/a.txt": b"first", f"{prefix}x/b.txt": b"second", "x/c.txt": b"third"}, mode)
    unpack(archive, {"x/a.txt": out / "deep" / "one", "x/b.txt": out / "two"}, 100)
    assert (out / "deep" / "one").read_bytes() == b"first"
    assert (out / "two").read_bytes() == b"second"
    assert everything_below(out) == ["deep", "deep/one", "two"]


def test_nothing_of_an_archive_leads_elsewhere(place, tmp_path):
    """Names that climb, absolute ones, links to write through, hard links, devices: all beside the one wanted file."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.txt").write_bytes(b"untouched")
    archive, out = place({
        "../outside/evil": b"evil", f"{outside}/evil": b"evil", "x/../../outside/evil": b"evil",
        "x": link("x", outside), "y": link("y", outside / "a.txt", tarfile.LNKTYPE), "x/a.txt": b"wanted",
        "null": link("null", "", tarfile.CHRTYPE), "pipe": link("pipe", "", tarfile.FIFOTYPE),
    })  # fmt: skip
    unpack(archive, {"x/a.txt": out / "a.txt"}, 100)
    assert everything_below(tmp_path) == ["a.tar", "out", "out/a.txt", "outside", "outside/a.txt"]
    assert (out / "a.txt").read_bytes() == b"wanted"
    assert (outside / "a.txt").read_bytes() == b"untouched"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_a_link_in_place_of_a_wanted_file_is_none(place, tmp_path, kind):
    (tmp_path / "secret").write_bytes(b"secret")
    archive, out = place({"a.txt": link("a.txt", tmp_path / "secret", kind)})
    with pytest.raises(DataError, match=r"a.tar: lacks a.txt \(1 such files\): remove it and fetch it again"):
        unpack(archive, {"a.txt": out / "a.txt"}, 100)
    assert not out.exists()


def test_what_is_missing_is_named(place):
    archive, out = place({"b.txt": b"b"})
    with pytest.raises(DataError, match=r"a.tar: lacks a.txt \(2 such files\)"):
        unpack(archive, {name: out / name for name in ("c.txt", "b.txt", "a.txt")}, 100)


def test_a_file_that_is_too_large_is_not_written(place):
    archive, out = place({"a.txt": bytes(101)})
    with pytest.raises(DataError, match=r"a.tar: a.txt has 101 bytes, more than 100"):
        unpack(archive, {"a.txt": out / "a.txt"}, 100)
    assert not out.exists()
    unpack(archive, {"a.txt": out / "a.txt"}, 101)


@pytest.mark.parametrize("damage", [
    lambda content: content[: len(content) // 2], lambda content: b"<html>" + content, lambda content: b"",
    lambda content: content[:-200] + bytes(200),
])  # fmt: skip
@pytest.mark.parametrize("mode", ["w:gz", "w"])
def test_a_damaged_archive_is_named(place, damage, mode):
    archive, out = place({f"{i}.txt": os.urandom(3000) for i in range(9)}, mode)
    archive.write_bytes(damage(archive.read_bytes()[: -9000 if mode == "w" else None]))
    with pytest.raises(DataError, match=r"a.tar: (can't be unpacked|lacks)"):
        unpack(archive, {f"{i}.txt": out / f"{i}.txt" for i in range(9)}, 5000)


def test_a_full_disk(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(unpacking.os, "fsync", full)
    with pytest.raises(DataError, match=r"can't write .*file: No space left on device; free space"):
        write(tmp_path / "file", b"content")
