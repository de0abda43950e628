"""A server in this process that drops, lies and stalls as the tests say."""

import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

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


def files(contents):
    """A server of several files, each as `ranged` gives it, by the last part of their addresses."""

    def answer(handler):
        content = contents.get(handler.path.rpartition("/")[2])
        (status(404) if content is None else ranged(content))(handler)

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


@contextmanager
def serving(*answers):
    """A started server."""
    server = Server(*answers)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def undisturbed(monkeypatch, downloading):
    """No proxy of the environment, no pauses."""
    monkeypatch.setattr(downloading, "PAUSE", 0)
    monkeypatch.setattr(downloading, "TIMEOUT", 5)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
