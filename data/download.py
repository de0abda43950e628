"""Files that others publish, downloaded from their official addresses and checked.

What has come is kept beside the file as `.part`, so that the next download goes on where this one ended. A file gets
its name only when its digests are right. One process at a time downloads a file; others wait for it.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import re
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from data.errors import DataError
from data.locks import locked, unlock

__all__ = ["Progress", "Published", "alone", "download", "writing"]

log = logging.getLogger(__name__)

Progress = Callable[[int, int | None], None]  # bytes here so far, bytes in all where that is known

TIMEOUT = 30.0  # seconds that a server may be silent
ATTEMPTS = 5  # at one address, each going on where the one before was cut
PAUSE = 0.5  # seconds before the second attempt, twice as long before each further one
BLOCK = 2**16  # bytes
MOST = 2**30  # bytes of a file whose size nobody knows
PASSING = (408, 429, 500, 502, 503, 504)  # answers that may be others a moment later
POLL = 0.2  # seconds
STRONG_TAG = re.compile(r'"[\x21\x23-\x7e]*"')  # a weak one begins with W/


@dataclass(frozen=True)
class Published:
    """A file that others publish. `digests` are those that can be found; at least one."""

    urls: tuple[str, ...]  # the official address, then others of the same publisher
    file: str  # the name it is kept under
    digests: tuple[str, ...]  # "sha256:..." in hexadecimal; where only its beginning is published, the beginning
    licence: str
    size: int | None = None  # bytes


class _RefusedError(Exception):
    """An address does not give the file, and will not on another attempt."""


class _BrokenError(Exception):
    """The network failed, and may not on another attempt; its argument is the cause."""


def download(name: str, published: Published, folder: Path, progress: Progress | None = None) -> Path:
    """Return the path of a published file in `folder`, downloaded where it isn't there yet; messages call it `name`.

    Another file of that name is told of in the log and replaced once the right one has come. `progress` is called with
    the bytes so far and the bytes in all as they come. Raises DataError where no address gives the file, or it can't be
    written."""
    target = folder / published.file
    if _is_good(target, published):
        return target
    with writing(target), alone(target, lambda: _show(progress, _Part(target).size(), published.size)):
        if not _is_good(target, published):  # another process may have downloaded it meanwhile
            if target.is_file():
                log.warning("%s is another file than the published one: it will be replaced", target)
            _download(name, published, target, progress)
    return target


def _is_good(path: Path, published: Published) -> bool:
    try:
        return path.is_file() and not _fault(path, published)
    except OSError:  # it can't be read
        return False


def _fault(path: Path, published: Published) -> str:
    """Return what is wrong with a file, in words; "" for the right one."""
    for digest in published.digests:
        algorithm, expected = digest.split(":")
        new = partial(hashlib.new, algorithm, usedforsecurity=False)  # systems that keep to FIPS bar MD5 from security
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, new).hexdigest()
        if not found.startswith(expected):
            return f"{algorithm} {found}, expected {expected}"
    return ""


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn what the disk refuses into a DataError. (What the network refuses does not get here.)"""
    try:
        yield
    except OSError as error:
        raise DataError(f"can't write {target}: {error.strerror or error}; free space or choose another folder; "
                        "the next fetch goes on where this one ended") from error


@contextmanager
def alone(target: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Make the folder of `target` and wait until no other process works on it, calling `waiting` now and then.

    The lock's file stays: removed, two others could each have one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.with_name(f".{target.name}.lock"), "ab") as file:
        if not locked(file.fileno()):
            log.info("%s: another process is fetching it: waiting", target)
            while not locked(file.fileno()):
                waiting()
                time.sleep(POLL)
        try:
            yield
        finally:
            unlock(file.fileno())


def _show(progress: Progress | None, here: int, total: int | None) -> None:
    if progress is not None:
        progress(here, total)


class _Part:
    """What has come of a file, and beside it the server's tag, by which it says whether its own is still the same."""

    def __init__(self, target: Path):
        self.path = target.with_name(f"{target.name}.part")
        self.tag_path = target.with_name(f"{target.name}.part.tag")
        self.in_one_piece = False  # known to have come by one connection

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def tag(self, url: str) -> str:
        """Return the tag that this address gave, "" where it gave none that stands for the very bytes."""
        try:
            address, _, tag = self.tag_path.read_text(encoding="utf-8").partition("\n")
        except (OSError, ValueError):
            return ""
        return tag if address == url and STRONG_TAG.fullmatch(tag) else ""

    def begin(self, url: str, tag: str) -> None:
        self.path.write_bytes(b"")
        self.tag_path.write_text(f"{url}\n{tag}", encoding="utf-8")
        self.in_one_piece = True

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.tag_path.unlink(missing_ok=True)


def _download(name: str, published: Published, target: Path, progress: Progress | None) -> None:
    part = _Part(target)
    refused = []
    for url in published.urls:
        try:
            _fetch_good(url, published, part, progress)
        except _RefusedError as reason:
            refused.append(str(reason))
            continue
        os.replace(part.path, target)
        part.discard()
        return
    raise DataError(f"can't fetch {name}: {'; '.join(refused)}; check the network and try again, "
                    f"or get {published.file} elsewhere and put it into {target.parent}")


def _fetch_good(url: str, published: Published, part: _Part, progress: Progress | None) -> None:
    """Leave the right bytes in `part`, or raise _RefusedError."""
    _fetch_whole(url, published.size, part, progress)
    fault = _fault(part.path, published)
    if fault and not part.in_one_piece:  # the pieces may be of different files
        part.discard()
        _fetch_whole(url, published.size, part, progress)
        fault = _fault(part.path, published)
    if fault:
        part.discard()
        raise _RefusedError(f"{url} gives another file ({fault})")


def _fetch_whole(url: str, size: int | None, part: _Part, progress: Progress | None) -> None:
    """Go on with `part` until all is there, however often the connection breaks, up to ATTEMPTS."""
    if size is not None and part.size() == size:
        return
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE * 2 ** (attempt - 1))
        try:
            if _fetch_more(url, size, part, progress):
                return
            problem = "the connection was cut"
        except HTTPError as error:
            with error:
                if error.code == 416 and _has_all(error, part):
                    return
                if error.code == 416:  # the file has become shorter
                    part.discard()
                elif error.code not in PASSING:
                    raise _RefusedError(f"{url} answers {error.code} {error.reason}") from error
                problem = f"it answers {error.code} {error.reason}"
        except _BrokenError as error:
            problem = str(error) or type(error.args[0]).__name__
            if isinstance(error.args[0], ssl.SSLCertVerificationError):
                raise _RefusedError(f"{url}: {problem}") from error
    raise _RefusedError(f"{url}: {problem} ({ATTEMPTS} attempts; what came is kept, the next fetch goes on from it)")


def _fetch_more(url: str, size: int | None, part: _Part, progress: Progress | None) -> bool:
    """Add to `part` what one connection gives; return whether that is all."""
    have = part.size()
    with _network():
        response = _open(url, have, part.tag(url))
    with response:
        start, total = _extent(response)
        if size is not None and total is not None and total != size:
            raise _RefusedError(f"{url} gives another file ({total} bytes, expected {size})")
        if start == 0:  # also where the server can't go on in the middle, or has another file by now
            part.begin(url, response.headers.get("ETag", ""))
        elif start == have:
            part.in_one_piece = False
        else:
            raise _BrokenError(f"it sends from byte {start}, not from {have}")
        done = start
        with open(part.path, "ab") as file:
            _show(progress, done, total)
            for block in _blocks(response):
                done += len(block)
                if done > (size or MOST):
                    raise _RefusedError(f"{url} gives another file (more than {size or MOST} bytes)")
                file.write(block)
                _show(progress, done, total)
            file.flush()
            os.fsync(file.fileno())
    return done == (total if total is not None else size or done)


def _open(url: str, have: int, tag: str) -> Any:
    """Return the server's answer to a request for what lies behind `have` bytes."""
    request = Request(url, headers={"User-Agent": "googlenet", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if tag:
            request.add_header("If-Range", tag)
    return build_opener(_WebRedirects).open(request, timeout=TIMEOUT)


class _WebRedirects(HTTPRedirectHandler):
    """Follows redirections to http and https only."""

    def redirect_request(self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any,
                         newurl: str) -> Request | None:
        if not newurl.lower().startswith(("http://", "https://")):
            raise HTTPError(req.full_url, code, f"a redirection to {newurl}", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextmanager
def _network() -> Iterator[None]:
    """Turn failures of the network into _BrokenError, but for the server's own answers."""
    try:
        yield
    except HTTPError:
        raise
    except URLError as error:
        raise _BrokenError(error.reason) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _BrokenError(error) from error


def _blocks(response: Any) -> Iterator[bytes]:
    """Yield what comes, as it comes."""
    while True:
        with _network():
            block = response.read1(BLOCK)
        if not block:
            return
        yield block


def _extent(response: Any) -> tuple[int, int | None]:
    """Return the first byte of what a server sends, and how many the whole file has, where it says so."""
    content_range = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", response.headers.get("Content-Range", ""))
    start = int(content_range[1]) if content_range else 0
    if start and content_range and content_range[2] != "*":
        return start, int(content_range[2])
    return start, start + response.length if response.length is not None else None


def _has_all(answer: HTTPError, part: _Part) -> bool:
    """Return whether a server that has nothing behind our last byte has the whole file ending there."""
    return answer.headers.get("Content-Range") == f"bytes */{part.size()}"
