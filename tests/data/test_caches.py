import os
import sys

import pytest

from data import caches
from data.caches import cache_folder
from data.errors import DataError


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the folder of Linux")
def test_the_default_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("GOOGLENET_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "googlenet"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert cache_folder() == tmp_path / "caches" / "googlenet"
    monkeypatch.setenv("GOOGLENET_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [("win32", {"LOCALAPPDATA": "/users/me/local"}, "/users/me/local/googlenet"),
     ("darwin", {}, "/users/me/Library/Caches/googlenet")],
)
def test_the_default_folder_elsewhere(monkeypatch, platform, environment, expected):
    for name, value in {"GOOGLENET_CACHE": "", "HOME": "/users/me", **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(caches.sys, "platform", platform)
    if os.name == "nt" and platform != "win32":
        pytest.skip("homes are found otherwise here")
    assert cache_folder().as_posix() == expected


def test_without_a_home(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    for name in ("GOOGLENET_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(caches.Path, "home", homeless)
    with pytest.raises(DataError, match="no home folder to keep fetched files in: set GOOGLENET_CACHE"):
        cache_folder()
