"""Downloads from a server in this process, which drops, lies and stalls as the tests say."""

import errno
import hashlib
import os
import ssl
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from urllib.error import URLError

import pytest

from data import download as downloading
from data.download import Published, download
from data.errors import DataError
from tests.data.web import CONTENT, TAG, cut, ranged, redirect, serving, status, undisturbed, whole

PUBLISHED = {}


def published(*servers, content=CONTENT, **changes):
    sha256 = hashlib.sha256(content).hexdigest()
    made = Published(tuple(f"{server.url}/w.bin" for server in servers), "w.bin", (f"sha256:{sha256}",), "none",
                     size=len(content))
    return replace(made, **changes)


@pytest.fixture
def serve(monkeypatch):
    """serve(answers, ...) -> server; its file is what `fetch` fetches, after the addresses of those before."""
    servers = []
    undisturbed(monkeypatch, downloading)
    with ExitStack() as running:

        def start(*answers, **changes):
            servers.append(running.enter_context(serving(*answers)))
            PUBLISHED["w"] = published(*servers, **changes)
            return servers[-1]

        yield start


def fetch(folder, progress=None):
    return download("w", PUBLISHED["w"], folder, progress)


def names(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_file_is_fetched_once(serve, tmp_path):
    server = serve(ranged())
    steps = []
    path = fetch(tmp_path / "new" / "folder", lambda done, total: steps.append((done, total)))
    assert path == tmp_path / "new" / "folder" / "w.bin"
    assert path.read_bytes() == CONTENT
    assert fetch(path.parent) == path
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
        assert fetch(tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_md5_where_it_is_barred_from_security(serve, tmp_path, monkeypatch):
    """As on systems that keep to FIPS."""
    new = hashlib.new

    def strict(name, data=b"", *, usedforsecurity=True):
        if name == "md5" and usedforsecurity:
            raise ValueError("[digital envelope routines] unsupported")
        return new(name, data, usedforsecurity=usedforsecurity)

    monkeypatch.setattr(hashlib, "new", strict)
    serve(ranged(), digests=(f"md5:{hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()}",))
    assert fetch(tmp_path).read_bytes() == CONTENT


def test_another_file_of_that_name_is_told_of_and_replaced(serve, tmp_path, caplog):
    serve(status(404), ranged())
    (tmp_path / "w.bin").write_bytes(b"an older one")
    with pytest.raises(DataError, match="404"):
        fetch(tmp_path)
    assert (tmp_path / "w.bin").read_bytes() == b"an older one", "not before the right one has come"
    assert caplog.messages == [f"{tmp_path / 'w.bin'} is another file than the published one: it will be replaced"]
    assert fetch(tmp_path).read_bytes() == CONTENT
    caplog.clear()
    fetch(tmp_path)
    assert not caplog.messages


def test_a_cut_connection_is_resumed(serve, tmp_path):
    server = serve(cut(100_000), cut(50_000, start=100_000), ranged())
    steps = []
    assert fetch(tmp_path, lambda done, total: steps.append(done)).read_bytes() == CONTENT
    ranges = [headers.get("Range") for _, headers in server.asked]
    assert ranges == [None, "bytes=100000-", "bytes=150000-"]
    assert [headers.get("If-Range") for _, headers in server.asked] == [None, TAG, TAG]
    assert steps == sorted(steps), "the bar does not go back"


def test_a_later_fetch_resumes(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(downloading, "ATTEMPTS", 1)
    server = serve(cut(100_000), ranged())
    with pytest.raises(DataError, match=r"connection was cut .*what came is kept"):
        fetch(tmp_path)
    assert (tmp_path / "w.bin.part").read_bytes() == CONTENT[:100_000]
    assert fetch(tmp_path).read_bytes() == CONTENT
    assert server.asked[1][1]["Range"] == "bytes=100000-"
    assert server.asked[1][1]["If-Range"] == TAG
    assert names(tmp_path) == ["w.bin"]


def test_an_interrupted_fetch_resumes(serve, tmp_path):
    server = serve(ranged())

    def interrupt(done, total):
        if done > 100_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(tmp_path, interrupt)
    came = (tmp_path / "w.bin.part").stat().st_size
    assert 100_000 < came < len(CONTENT)
    assert fetch(tmp_path).read_bytes() == CONTENT
    assert server.asked[1][1]["Range"] == f"bytes={came}-"


def test_a_server_that_cannot_go_on_starts_again(serve, tmp_path):
    server = serve(cut(100_000), whole())
    assert fetch(tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_a_file_changed_meanwhile_starts_again(serve, tmp_path):
    old = bytes(len(CONTENT))
    server = serve(cut(100_000, content=old, tag='"old"'), ranged())
    assert fetch(tmp_path).read_bytes() == CONTENT
    assert server.asked[1][1]["If-Range"] == '"old"'
    assert len(server.asked) == 2


@pytest.mark.parametrize("tag", ['W/"weak"', None])
def test_pieces_of_different_files_are_noticed_and_fetched_again(serve, tmp_path, tag):
    """Without a tag for the bytes the server can't tell that the beginning is another file's; the digest can."""
    server = serve(cut(100_000, content=bytes(len(CONTENT)), tag=tag), ranged())
    assert fetch(tmp_path).read_bytes() == CONTENT
    assert [headers.get("Range") for _, headers in server.asked] == [None, "bytes=100000-", None]
    assert "If-Range" not in server.asked[1][1]


def test_what_lies_there_already_may_be_all(serve, tmp_path):
    """Killed between the last byte and the renaming."""
    server = serve(ranged())
    (tmp_path / "w.bin.part").write_bytes(CONTENT)
    assert fetch(tmp_path).read_bytes() == CONTENT
    assert not server.asked


def test_what_lies_there_already_may_be_all_where_the_size_is_not_published(serve, tmp_path):
    server = serve(ranged(), size=None)
    (tmp_path / "w.bin.part").write_bytes(CONTENT)
    assert fetch(tmp_path).read_bytes() == CONTENT
    assert [headers.get("Range") for _, headers in server.asked] == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("extra", [0, 1000])
@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_what_lies_there_may_be_too_long_or_wrong(serve, tmp_path, extra, size):
    serve(ranged(), size=size)
    (tmp_path / "w.bin.part").write_bytes(bytes(len(CONTENT) + extra))
    assert fetch(tmp_path).read_bytes() == CONTENT


def test_a_range_from_elsewhere_is_not_believed(serve, tmp_path):
    server = serve(cut(100_000), cut(1000, start=99_000), ranged())
    assert fetch(tmp_path).read_bytes() == CONTENT
    assert [headers.get("Range") for _, headers in server.asked] == [None, "bytes=100000-", "bytes=100000-"]


def test_a_range_may_stop_early(serve, tmp_path):
    """A server may send less than it was asked for."""

    def some(handler):
        start = int(handler.headers["Range"][6:-1])
        body = CONTENT[start : start + 70_000]
        handler.answer(206, body, Content_Range=f"bytes {start}-{start + len(body) - 1}/{len(CONTENT)}")

    serve(cut(100_000), some)
    assert fetch(tmp_path).read_bytes() == CONTENT


def test_another_file_is_refused(serve, tmp_path):
    changed = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    server = serve(ranged(changed))
    expected = hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(DataError, match=rf"gives another file \(sha256 [0-9a-f]+, expected {expected}\)"):
        fetch(tmp_path)
    assert names(tmp_path) == [], "nothing of it is kept"
    assert len(server.asked) == 1, "it came in one piece: no doubt about it"


def test_every_digest_counts(serve, tmp_path):
    sha1 = hashlib.sha1(CONTENT).hexdigest()
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    serve(ranged(), digests=(f"sha1:{sha1}", f"sha256:{sha256[:8]}"))
    fetch(tmp_path / "good")
    other = sha1[:-1] + ("0" if sha1[-1] != "0" else "1")
    serve(ranged(), digests=(f"sha256:{sha256}", f"sha1:{other}"))
    with pytest.raises(DataError, match=f"sha1 {sha1}, expected {other}"):
        fetch(tmp_path / "bad")


def test_a_page_instead_of_the_file_is_refused_before_it_is_fetched(serve, tmp_path):
    serve(whole(b"<html>please log in</html>"))
    with pytest.raises(DataError, match=r"gives another file \(26 bytes, expected 300000\)"):
        fetch(tmp_path)


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
    assert fetch(tmp_path, lambda done, total: totals.append(total)).read_bytes() == CONTENT
    assert set(totals) == {None}


def test_chunks_that_break_off(serve, tmp_path):
    serve(chunked(CONTENT[:100_000], end=False), ranged(), size=None)
    assert fetch(tmp_path).read_bytes() == CONTENT


def test_an_endless_file_is_refused(serve, tmp_path, monkeypatch):
    serve(chunked(CONTENT + b"more"))
    with pytest.raises(DataError, match="more than 300000 bytes"):
        fetch(tmp_path)
    monkeypatch.setattr(downloading, "MOST", 200_000)
    serve(chunked(CONTENT), size=None)
    with pytest.raises(DataError, match="more than 200000 bytes"):
        fetch(tmp_path)


@pytest.mark.parametrize("code", [400, 403, 404, 410])
def test_a_refusal_is_final(serve, tmp_path, code):
    server = serve(status(code))
    with pytest.raises(DataError, match=rf"can't fetch w: {server.url}/w.bin answers {code} .*put it into"):
        fetch(tmp_path)
    assert len(server.asked) == 1


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_busy_server_is_asked_again_a_few_times(serve, tmp_path, code):
    server = serve(status(code), status(code), ranged())
    assert fetch(tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 3


def test_a_server_that_stays_busy(serve, tmp_path):
    server = serve(status(503))
    with pytest.raises(DataError, match=r"it answers 503 .*5 attempts"):
        fetch(tmp_path)
    assert len(server.asked) == 5


def test_a_server_that_never_gets_far(serve, tmp_path):
    server = serve(cut(0))
    with pytest.raises(DataError, match="5 attempts"):
        fetch(tmp_path)
    assert len(server.asked) == 5


def test_a_server_that_hangs_up_or_talks_nonsense(serve, tmp_path):
    serve(lambda handler: None, lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n"), ranged())
    assert fetch(tmp_path).read_bytes() == CONTENT


def test_a_server_that_falls_silent(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(downloading, "TIMEOUT", 2)
    silence = threading.Event()

    def stall(handler):
        cut(100_000)(handler)
        handler.wfile.flush()
        silence.wait(20)

    server = serve(stall, ranged())
    begin = time.monotonic()
    try:
        assert fetch(tmp_path).read_bytes() == CONTENT
        assert time.monotonic() - begin < 18
        assert server.asked[1][1]["Range"] == "bytes=100000-"
    finally:
        silence.set()


def test_nobody_there(serve, tmp_path):
    server = serve(ranged())
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match=r"refused.*5 attempts"):
        fetch(tmp_path)


def test_a_certificate_that_is_not_trusted_is_not_tried_again(serve, tmp_path, monkeypatch):
    asked = []

    def untrusted(url, *_):
        asked.append(url)
        raise URLError(ssl.SSLCertVerificationError("self-signed certificate"))

    serve(ranged())
    monkeypatch.setattr(downloading, "_open", untrusted)
    with pytest.raises(DataError, match="self-signed certificate"):
        fetch(tmp_path)
    assert len(asked) == 1


def test_pauses_grow(serve, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(downloading, "PAUSE", 0.5)
    monkeypatch.setattr(downloading.time, "sleep", pauses.append)
    serve(status(500))
    with pytest.raises(DataError):
        fetch(tmp_path)
    assert pauses == [0.5, 1, 2, 4]


def test_another_address_is_tried(serve, tmp_path):
    first, second = serve(status(404)), serve(ranged())
    assert fetch(tmp_path).read_bytes() == CONTENT
    assert len(first.asked) == len(second.asked) == 1


def test_every_refusal_is_told(serve, tmp_path):
    first, second = serve(status(404)), serve(whole(b"x"))
    with pytest.raises(DataError, match=rf"{first.url}/w.bin answers 404 .*; {second.url}/w.bin gives another file"):
        fetch(tmp_path)


def test_a_tag_is_for_the_address_that_gave_it(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(downloading, "ATTEMPTS", 1)
    serve(cut(100_000))
    second = serve(ranged(tag='"elsewhere"'))
    assert fetch(tmp_path).read_bytes() == CONTENT
    assert second.asked[0][1]["Range"] == "bytes=100000-"
    assert "If-Range" not in second.asked[0][1]


def test_redirections_are_followed(serve, tmp_path):
    server = serve(redirect("/elsewhere"), cut(100_000), redirect("/elsewhere"), ranged())
    assert fetch(tmp_path).read_bytes() == CONTENT
    assert [path for path, _ in server.asked] == ["/w.bin", "/elsewhere"] * 2
    assert server.asked[3][1]["Range"] == "bytes=100000-"


@pytest.mark.parametrize("where", ["file:///etc/hosts", "ftp://127.0.0.1/w.bin", "data:,abc"])
def test_redirections_off_the_web_are_not(serve, tmp_path, where):
    server = serve(redirect(where))
    with pytest.raises(DataError, match="302"):
        fetch(tmp_path)
    assert len(server.asked) == 1


def test_redirections_in_a_circle_end(serve, tmp_path):
    server = serve(redirect("/w.bin"))
    with pytest.raises(DataError, match="302"):
        fetch(tmp_path)
    assert len(server.asked) < 20


def test_a_proxy_of_the_environment_is_used(serve, tmp_path, monkeypatch):
    proxy = serve(ranged())
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    PUBLISHED["w"] = published(urls=("http://files.invalid/w.bin",))
    assert fetch(tmp_path).read_bytes() == CONTENT
    assert [path for path, _ in proxy.asked] == ["http://files.invalid/w.bin"]


def test_a_full_disk(serve, tmp_path, monkeypatch):
    serve(ranged())

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(downloading.os, "fsync", full)
    with pytest.raises(DataError, match=r"can't write .*w.bin: No space left on device; free space"):
        fetch(tmp_path)
    monkeypatch.undo()
    assert (tmp_path / "w.bin.part").exists()


def test_a_folder_that_is_a_file(serve, tmp_path):
    serve(ranged())
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match=r"can't write .*choose another folder"):
        fetch(tmp_path / "file")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_file_in_a_folder_that_cannot_be_written_serves(serve, tmp_path):
    server = serve(ranged())
    (tmp_path / "w.bin").write_bytes(CONTENT)
    tmp_path.chmod(0o500)
    try:
        assert fetch(tmp_path).read_bytes() == CONTENT
        with pytest.raises(DataError, match=r"can't write .*Permission denied"):
            fetch(tmp_path / "below")
    finally:
        tmp_path.chmod(0o700)
    assert not server.asked


def test_two_at_once_fetch_once(serve, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "data")
    monkeypatch.setattr(downloading, "POLL", 0.02)
    monkeypatch.setattr(downloading, "TIMEOUT", 60)
    started, seen, steps = threading.Event(), threading.Event(), []

    def slow(handler):
        handler.answer(200, CONTENT[:30_000], **{"Content-Length": len(CONTENT)})
        started.set()
        seen.wait(30)
        handler.wfile.write(CONTENT[30_000:])

    def watching(done, total):
        steps.append((done, total))
        seen.set()

    server = serve(slow)
    results = []
    first = threading.Thread(target=lambda: results.append(fetch(tmp_path)))
    first.start()
    assert started.wait(30)
    results.append(fetch(tmp_path, watching))
    first.join(30)
    assert results == [tmp_path / "w.bin"] * 2
    assert (tmp_path / "w.bin").read_bytes() == CONTENT
    assert len(server.asked) == 1
    assert steps, "who waits sees the other's bar"
    assert {total for _, total in steps} == {len(CONTENT)}
    assert caplog.messages == [f"{tmp_path / 'w.bin'}: another process is fetching it: waiting"]
