"""Downloads from a server in this process, which drops, lies and stalls as the tests say."""

import errno
import hashlib
import os
import re
import ssl
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import URLError

import numpy as np
import pytest

from googlenet.weights import fetch as fetching
from googlenet.weights.fetch import PUBLISHED, Published, cache_folder, fetch, resolve
from minigrad.errors import InputError

CONTENT = np.random.default_rng(0).bytes(300_000)
TAG = '"first"'


class Server(ThreadingHTTPServer):
    """Answers each request by the next of `answers`, by the last one when they run out; `asked` is what came."""

    daemon_threads = True

    def __init__(self, *answers):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.asked, self.lock = answers, [], threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """Broken pipes are what these tests are about."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.close_connection = True
        with self.server.lock:
            self.server.asked.append((self.path, dict(self.headers)))
            number = min(len(self.server.asked), len(self.server.answers)) - 1
        self.server.answers[number](self)

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)


def whole(content=CONTENT, **headers):
    return lambda handler: handler.answer(200, content, **headers)


def ranged(content=CONTENT, tag=TAG):
    """A server as it should be: goes on where it is asked to, unless the file has another tag by now."""

    def answer(handler):
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        if not asked or handler.headers.get("If-Range", tag) != tag:
            handler.answer(200, content, ETag=tag)
        elif int(asked[1]) >= len(content):
            handler.answer(416, Content_Range=f"bytes */{len(content)}")
        else:
            start = int(asked[1])
            where = f"bytes {start}-{len(content) - 1}/{len(content)}"
            handler.answer(206, content[start:], Content_Range=where, ETag=tag)

    return answer


def cut(after, content=CONTENT, start=0, tag=TAG):
    """Promises the rest of the file and closes the connection early."""

    def answer(handler):
        where = {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        handler.answer(206 if start else 200, content[start : start + after],
                       **{"Content-Length": len(content) - start, "ETag": tag, **where})

    return answer


def status(code):
    return lambda handler: handler.answer(code, b"sorry")


def redirect(where):
    return lambda handler: handler.answer(302, Location=where)


def published(*servers, content=CONTENT, **changes):
    sha256 = hashlib.sha256(content).hexdigest()
    made = Published(tuple(f"{server.url}/w.bin" for server in servers), "w.bin", (f"sha256:{sha256}",), "none",
                     size=len(content))
    return replace(made, **changes)


@pytest.fixture
def serve(monkeypatch):
    """serve(answers, ...) -> server; its file is published as "w", after the addresses of those before."""
    servers = []
    monkeypatch.setattr(fetching, "PAUSE", 0)
    monkeypatch.setattr(fetching, "TIMEOUT", 5)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def start(*answers, **changes):
        server = Server(*answers)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        monkeypatch.setitem(PUBLISHED, "w", published(*servers, **changes))
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def names(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_file_is_fetched_once(serve, tmp_path):
    server = serve(ranged())
    steps = []
    path = fetch("w", tmp_path / "new" / "folder", lambda done, total: steps.append((done, total)))
    assert path == tmp_path / "new" / "folder" / "w.bin"
    assert path.read_bytes() == CONTENT
    assert fetch("w", path.parent) == path
    assert len(server.asked) == 1
    assert names(path.parent) == ["w.bin"]
    assert steps[0] == (0, len(CONTENT))
    assert steps[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert len(steps) > 3, "the bar moves"
    assert server.asked[0][1]["User-Agent"] == "googlenet"
    assert "Range" not in server.asked[0][1]


def test_a_damaged_file_is_fetched_again(serve, tmp_path):
    server = serve(ranged())
    for content in (CONTENT[:-1], CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])):
        (tmp_path / "w.bin").write_bytes(content)
        assert fetch("w", tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_a_cut_connection_is_resumed(serve, tmp_path):
    server = serve(cut(100_000), cut(50_000, start=100_000), ranged())
    steps = []
    assert fetch("w", tmp_path, lambda done, total: steps.append(done)).read_bytes() == CONTENT
    ranges = [headers.get("Range") for _, headers in server.asked]
    assert ranges == [None, "bytes=100000-", "bytes=150000-"]
    assert [headers.get("If-Range") for _, headers in server.asked] == [None, TAG, TAG]
    assert steps == sorted(steps), "the bar does not go back"


def test_a_later_fetch_resumes(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "ATTEMPTS", 1)
    server = serve(cut(100_000), ranged())
    with pytest.raises(InputError, match=r"connection was cut .*what came is kept"):
        fetch("w", tmp_path)
    assert (tmp_path / "w.bin.part").read_bytes() == CONTENT[:100_000]
    assert fetch("w", tmp_path).read_bytes() == CONTENT
    assert server.asked[1][1]["Range"] == "bytes=100000-"
    assert server.asked[1][1]["If-Range"] == TAG
    assert names(tmp_path) == ["w.bin"]


def test_an_interrupted_fetch_resumes(serve, tmp_path):
    server = serve(ranged())

    def interrupt(done, total):
        if done > 100_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch("w", tmp_path, interrupt)
    came = (tmp_path / "w.bin.part").stat().st_size
    assert 100_000 < came < len(CONTENT)
    assert fetch("w", tmp_path).read_bytes() == CONTENT
    assert server.asked[1][1]["Range"] == f"bytes={came}-"


def test_a_server_that_cannot_go_on_starts_again(serve, tmp_path):
    server = serve(cut(100_000), whole())
    assert fetch("w", tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_a_file_changed_meanwhile_starts_again(serve, tmp_path):
    old = bytes(len(CONTENT))
    server = serve(cut(100_000, content=old, tag='"old"'), ranged())
    assert fetch("w", tmp_path).read_bytes() == CONTENT
    assert server.asked[1][1]["If-Range"] == '"old"'
    assert len(server.asked) == 2


@pytest.mark.parametrize("tag", ['W/"weak"', None])
def test_pieces_of_different_files_are_noticed_and_fetched_again(serve, tmp_path, tag):
    """Without a tag for the bytes the server can't tell that the beginning is another file's; the digest can."""
    server = serve(cut(100_000, content=bytes(len(CONTENT)), tag=tag), ranged())
    assert fetch("w", tmp_path).read_bytes() == CONTENT
    assert [headers.get("Range") for _, headers in server.asked] == [None, "bytes=100000-", None]
    assert "If-Range" not in server.asked[1][1]


def test_what_lies_there_already_may_be_all(serve, tmp_path):
    """Killed between the last byte and the renaming."""
    server = serve(ranged())
    (tmp_path / "w.bin.part").write_bytes(CONTENT)
    assert fetch("w", tmp_path).read_bytes() == CONTENT
    assert not server.asked


def test_what_lies_there_already_may_be_all_where_the_size_is_not_published(serve, tmp_path):
    server = serve(ranged(), size=None)
    (tmp_path / "w.bin.part").write_bytes(CONTENT)
    assert fetch("w", tmp_path).read_bytes() == CONTENT
    assert [headers.get("Range") for _, headers in server.asked] == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("extra", [0, 1000])
@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_what_lies_there_may_be_too_long_or_wrong(serve, tmp_path, extra, size):
    serve(ranged(), size=size)
    (tmp_path / "w.bin.part").write_bytes(bytes(len(CONTENT) + extra))
    assert fetch("w", tmp_path).read_bytes() == CONTENT


def test_a_range_from_elsewhere_is_not_believed(serve, tmp_path):
    server = serve(cut(100_000), cut(1000, start=99_000), ranged())
    assert fetch("w", tmp_path).read_bytes() == CONTENT
    assert [headers.get("Range") for _, headers in server.asked] == [None, "bytes=100000-", "bytes=100000-"]


def test_a_range_may_stop_early(serve, tmp_path):
    """A server may send less than it was asked for."""

    def some(handler):
        start = int(handler.headers["Range"][6:-1])
        body = CONTENT[start : start + 70_000]
        handler.answer(206, body, Content_Range=f"bytes {start}-{start + len(body) - 1}/{len(CONTENT)}")

    serve(cut(100_000), some)
    assert fetch("w", tmp_path).read_bytes() == CONTENT


def test_another_file_is_refused(serve, tmp_path):
    changed = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    server = serve(ranged(changed))
    expected = hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(InputError, match=rf"gives another file \(sha256 [0-9a-f]+, expected {expected}\)"):
        fetch("w", tmp_path)
    assert names(tmp_path) == [], "nothing of it is kept"
    assert len(server.asked) == 1, "it came in one piece: no doubt about it"


def test_every_digest_counts(serve, tmp_path):
    sha1 = hashlib.sha1(CONTENT).hexdigest()
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    serve(ranged(), digests=(f"sha1:{sha1}", f"sha256:{sha256[:8]}"))
    fetch("w", tmp_path / "good")
    other = sha1[:-1] + ("0" if sha1[-1] != "0" else "1")
    serve(ranged(), digests=(f"sha256:{sha256}", f"sha1:{other}"))
    with pytest.raises(InputError, match=f"sha1 {sha1}, expected {other}"):
        fetch("w", tmp_path / "bad")


def test_a_page_instead_of_the_file_is_refused_before_it_is_fetched(serve, tmp_path):
    serve(whole(b"<html>please log in</html>"))
    with pytest.raises(InputError, match=r"gives another file \(26 bytes, expected 300000\)"):
        fetch("w", tmp_path)


def chunked(content, end=True):
    def answer(handler):
        handler.answer(200, **{"Content-Length": None, "Transfer-Encoding": "chunked"})
        for start in range(0, len(content), 10_000):
            block = content[start : start + 10_000]
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(block), block))
        if end:
            handler.wfile.write(b"0\r\n\r\n")

    return answer


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_a_server_that_does_not_say_how_much_it_sends(serve, tmp_path, size):
    serve(chunked(CONTENT), size=size)
    totals = []
    assert fetch("w", tmp_path, lambda done, total: totals.append(total)).read_bytes() == CONTENT
    assert set(totals) == {None}


def test_chunks_that_break_off(serve, tmp_path):
    serve(chunked(CONTENT[:100_000], end=False), ranged(), size=None)
    assert fetch("w", tmp_path).read_bytes() == CONTENT


def test_an_endless_file_is_refused(serve, tmp_path, monkeypatch):
    serve(chunked(CONTENT + b"more"))
    with pytest.raises(InputError, match="more than 300000 bytes"):
        fetch("w", tmp_path)
    monkeypatch.setattr(fetching, "MOST", 200_000)
    serve(chunked(CONTENT), size=None)
    with pytest.raises(InputError, match="more than 200000 bytes"):
        fetch("w", tmp_path)


@pytest.mark.parametrize("code", [400, 403, 404, 410])
def test_a_refusal_is_final(serve, tmp_path, code):
    server = serve(status(code))
    with pytest.raises(InputError, match=rf"can't fetch w: {server.url}/w.bin answers {code} .*give its path"):
        fetch("w", tmp_path)
    assert len(server.asked) == 1


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_busy_server_is_asked_again_a_few_times(serve, tmp_path, code):
    server = serve(status(code), status(code), ranged())
    assert fetch("w", tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 3


def test_a_server_that_stays_busy(serve, tmp_path):
    server = serve(status(503))
    with pytest.raises(InputError, match=r"it answers 503 .*5 attempts"):
        fetch("w", tmp_path)
    assert len(server.asked) == 5


def test_a_server_that_never_gets_far(serve, tmp_path):
    server = serve(cut(0))
    with pytest.raises(InputError, match="5 attempts"):
        fetch("w", tmp_path)
    assert len(server.asked) == 5


def test_a_server_that_hangs_up_or_talks_nonsense(serve, tmp_path):
    serve(lambda handler: None, lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n"), ranged())
    assert fetch("w", tmp_path).read_bytes() == CONTENT


def test_a_server_that_falls_silent(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "TIMEOUT", 0.3)
    silence = threading.Event()

    def stall(handler):
        cut(100_000)(handler)
        handler.wfile.flush()
        silence.wait(20)

    server = serve(stall, ranged())
    begin = time.monotonic()
    try:
        assert fetch("w", tmp_path).read_bytes() == CONTENT
        assert time.monotonic() - begin < 5
        assert server.asked[1][1]["Range"] == "bytes=100000-"
    finally:
        silence.set()


def test_nobody_there(serve, tmp_path):
    server = serve(ranged())
    server.shutdown()
    server.server_close()
    with pytest.raises(InputError, match=r"refused.*5 attempts"):
        fetch("w", tmp_path)


def test_a_certificate_that_is_not_trusted_is_not_tried_again(serve, tmp_path, monkeypatch):
    asked = []

    def untrusted(url, *_):
        asked.append(url)
        raise URLError(ssl.SSLCertVerificationError("self-signed certificate"))

    serve(ranged())
    monkeypatch.setattr(fetching, "_open", untrusted)
    with pytest.raises(InputError, match="self-signed certificate"):
        fetch("w", tmp_path)
    assert len(asked) == 1


def test_pauses_grow(serve, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(fetching, "PAUSE", 0.5)
    monkeypatch.setattr(fetching.time, "sleep", pauses.append)
    serve(status(500))
    with pytest.raises(InputError):
        fetch("w", tmp_path)
    assert pauses == [0.5, 1, 2, 4]


def test_another_address_is_tried(serve, tmp_path):
    first, second = serve(status(404)), serve(ranged())
    assert fetch("w", tmp_path).read_bytes() == CONTENT
    assert len(first.asked) == len(second.asked) == 1


def test_every_refusal_is_told(serve, tmp_path):
    first, second = serve(status(404)), serve(whole(b"x"))
    with pytest.raises(InputError, match=rf"{first.url}/w.bin answers 404 .*; {second.url}/w.bin gives another file"):
        fetch("w", tmp_path)


def test_a_tag_is_for_the_address_that_gave_it(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "ATTEMPTS", 1)
    serve(cut(100_000))
    second = serve(ranged(tag='"elsewhere"'))
    assert fetch("w", tmp_path).read_bytes() == CONTENT
    assert second.asked[0][1]["Range"] == "bytes=100000-"
    assert "If-Range" not in second.asked[0][1]


def test_redirections_are_followed(serve, tmp_path):
    server = serve(redirect("/elsewhere"), cut(100_000), redirect("/elsewhere"), ranged())
    assert fetch("w", tmp_path).read_bytes() == CONTENT
    assert [path for path, _ in server.asked] == ["/w.bin", "/elsewhere"] * 2
    assert server.asked[3][1]["Range"] == "bytes=100000-"


@pytest.mark.parametrize("where", ["file:///etc/hosts", "ftp://127.0.0.1/w.bin", "data:,abc"])
def test_redirections_off_the_web_are_not(serve, tmp_path, where):
    server = serve(redirect(where))
    with pytest.raises(InputError, match="302"):
        fetch("w", tmp_path)
    assert len(server.asked) == 1


def test_redirections_in_a_circle_end(serve, tmp_path):
    server = serve(redirect("/w.bin"))
    with pytest.raises(InputError, match="302"):
        fetch("w", tmp_path)
    assert len(server.asked) < 20


def test_a_proxy_of_the_environment_is_used(serve, tmp_path, monkeypatch):
    proxy = serve(ranged())
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setitem(PUBLISHED, "w", published(urls=("http://weights.invalid/w.bin",)))
    assert fetch("w", tmp_path).read_bytes() == CONTENT
    assert [path for path, _ in proxy.asked] == ["http://weights.invalid/w.bin"]


def test_a_full_disk(serve, tmp_path, monkeypatch):
    serve(ranged())

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetching.os, "fsync", full)
    with pytest.raises(InputError, match=r"can't write .*w.bin: No space left on device; free space"):
        fetch("w", tmp_path)
    monkeypatch.undo()
    assert (tmp_path / "w.bin.part").exists()


def test_a_folder_that_is_a_file(serve, tmp_path):
    serve(ranged())
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=r"can't write .*choose another folder"):
        fetch("w", tmp_path / "file")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_file_in_a_folder_that_cannot_be_written_serves(serve, tmp_path):
    server = serve(ranged())
    (tmp_path / "w.bin").write_bytes(CONTENT)
    tmp_path.chmod(0o500)
    try:
        assert fetch("w", tmp_path).read_bytes() == CONTENT
        with pytest.raises(InputError, match=r"can't write .*Permission denied"):
            fetch("w", tmp_path / "below")
    finally:
        tmp_path.chmod(0o700)
    assert not server.asked


def test_two_at_once_fetch_once(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "POLL", 0.02)
    started, steps = threading.Event(), []

    def slow(handler):
        started.set()
        for number in range(10):
            if number == 0:
                handler.answer(200, CONTENT[:30_000], **{"Content-Length": len(CONTENT)})
            else:
                handler.wfile.write(CONTENT[number * 30_000 : (number + 1) * 30_000])
            threading.Event().wait(0.02)

    server = serve(slow)
    results = []
    first = threading.Thread(target=lambda: results.append(fetch("w", tmp_path)))
    first.start()
    assert started.wait(5)
    results.append(fetch("w", tmp_path, lambda done, total: steps.append((done, total))))
    first.join(10)
    assert results == [tmp_path / "w.bin"] * 2
    assert (tmp_path / "w.bin").read_bytes() == CONTENT
    assert len(server.asked) == 1
    assert steps, "who waits sees the other's bar"
    assert {total for _, total in steps} == {len(CONTENT)}


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
    monkeypatch.setattr(fetching.sys, "platform", platform)
    if os.name == "nt" and platform != "win32":
        pytest.skip("homes are found otherwise here")
    assert cache_folder().as_posix() == expected


@pytest.mark.parametrize("name", ["bvlc", "torchvision", "slim", "onnx"])
def test_what_is_published(name):
    one = PUBLISHED[name]
    assert all(re.fullmatch(r"https?://[\w./-]+", url) for url in one.urls)
    assert one.urls[0].endswith(f"/{one.file}")
    assert one.digests, "nothing is used unchecked"
    assert all(re.fullmatch("sha1:[0-9a-f]{40}|sha256:([0-9a-f]{8}|[0-9a-f]{64})", digest) for digest in one.digests)
    assert one.licence
