"""Published weights by their names; how a download goes is tested with data/download.py."""

import hashlib
import re
from contextlib import ExitStack

import pytest

from data import download as downloading
from googlenet.weights.fetch import PUBLISHED, Published, fetch, resolve
from minigrad.errors import InputError
from tests.data.web import CONTENT, cut, ranged, serving, status, undisturbed


@pytest.fixture
def serve(monkeypatch):
    """serve(answers, ...) -> server, whose file is published as "w"."""
    undisturbed(monkeypatch, downloading)
    digest = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
    with ExitStack() as running:

        def start(*answers):
            server = running.enter_context(serving(*answers))
            monkeypatch.setitem(PUBLISHED, "w", Published((f"{server.url}/w.bin",), "w.bin", (digest,), "none"))
            return server

        yield start


def test_weights_are_fetched_once_and_checked(serve, tmp_path):
    server = serve(cut(100_000), ranged())
    steps = []
    path = fetch("w", tmp_path / "new", lambda done, total: steps.append((done, total)))
    assert path == tmp_path / "new" / "w.bin"
    assert path.read_bytes() == CONTENT
    assert fetch("w", str(path.parent)) == path
    assert len(server.asked) == 2
    assert steps[-1] == (len(CONTENT), len(CONTENT))


def test_what_fails_is_an_input_error(serve, tmp_path):
    serve(status(404))
    with pytest.raises(InputError, match=r"can't fetch w: .* answers 404 .*get w.bin elsewhere"):
        fetch("w", tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=r"can't write .*choose another folder"):
        fetch("w", tmp_path / "file")


def test_without_a_home(serve, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    for name in ("GOOGLENET_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pathlib.Path.home", homeless)
    serve(ranged())
    with pytest.raises(InputError, match="set GOOGLENET_CACHE"):
        fetch("w")


def test_an_unknown_name(tmp_path):
    with pytest.raises(InputError, match="no published weights 'vgg': choose one of bvlc, torchvision, slim, onnx"):
        fetch("vgg", tmp_path)


def test_a_name_or_a_path(serve, tmp_path, monkeypatch):
    serve(ranged())
    monkeypatch.setenv("GOOGLENET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert resolve("some/file.h5") == resolve(tmp_path.relative_to(tmp_path) / "some" / "file.h5")
    assert not (tmp_path / "cache").exists()
    assert resolve("w") == tmp_path / "cache" / "w.bin"
    (tmp_path / "w").write_bytes(b"mine")
    assert resolve("w").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["bvlc", "torchvision", "slim", "onnx"])
def test_what_is_published(name):
    one = PUBLISHED[name]
    assert all(re.fullmatch(r"https?://[\w./-]+", url) for url in one.urls)
    assert one.urls[0].endswith(f"/{one.file}")
    assert one.digests, "nothing is used unchecked"
    assert all(re.fullmatch("sha1:[0-9a-f]{40}|sha256:([0-9a-f]{8}|[0-9a-f]{64})", digest) for digest in one.digests)
    assert one.licence
