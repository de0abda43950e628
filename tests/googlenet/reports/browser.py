"""Chromium without a window, by the DevTools protocol over a pipe: enough to look at a page and to press keys."""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PROGRAM = next(filter(None, map(shutil.which, NAMES)), None)
PATIENCE = 60  # seconds

# Chromium reads from descriptor 3 and writes to 4; the two are moved there from whatever numbers they have.
START = """
import fcntl, os, sys
read, write = (fcntl.fcntl(int(each), fcntl.F_DUPFD, 10) for each in sys.argv[1:3])
os.dup2(read, 3)
os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""

needs_browser = pytest.mark.skipif(PROGRAM is None or os.name != "posix", reason="no Chromium or Chrome on the PATH")


class Browser:
    """A page in Chromium, 1280 pixels wide; `complaints` are the console's errors, `asked` all addresses loaded."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_read, self.to = os.pipe()
        self.back, to_write = os.pipe()
        words = [PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                 "--remote-debugging-pipe", f"--user-data-dir={self.folder.name}", "about:blank"]
        self.process = subprocess.Popen([sys.executable, "-c", START, str(to_read), str(to_write), *words],
                                        pass_fds=(to_read, to_write), stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(to_write)
        self.number, self.rest, self.session = 0, b"", None
        self.complaints, self.asked, self.loads = [], [], 0
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method, **parameters):
        """Send a command and return its result; what happens meanwhile is noted."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self.number:
                assert "error" not in found, found
                return found["result"]

    def _next(self):
        while b"\0" not in self.rest:
            assert select.select([self.back], [], [], PATIENCE)[0], "Chromium says nothing"
            piece = os.read(self.back, 1 << 16)
            assert piece, "Chromium has ended"
            self.rest += piece
        line, _, self.rest = self.rest.partition(b"\0")
        found = json.loads(line)
        kind, told = found.get("method"), found.get("params", {})
        if kind == "Page.loadEventFired":
            self.loads += 1
        elif kind == "Network.requestWillBeSent":
            self.asked.append(told["request"]["url"])
        elif (kind == "Runtime.exceptionThrown" or (kind == "Log.entryAdded" and told["entry"]["level"] == "error")
              or (kind == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning"))):
            self.complaints.append(told)
        return found

    def open(self, path: Path, width: int = 1280, dark: bool = False, height: int = 800):
        """Load a file in a window of a width, in light or dark dress."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                 mobile=width < 600)
        self.ask("Emulation.setEmulatedMedia",
                 features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        before = self.loads
        self.ask("Page.navigate", url=path.absolute().as_uri())
        self.wait(lambda: self.loads > before)
        return self

    def wait(self, ready):
        """Wait until something is so."""
        until = time.monotonic() + PATIENCE
        while not ready():
            assert time.monotonic() < until, "it did not come"
            self.run("0")
            time.sleep(0.02)

    def run(self, script):
        """Return what an expression of the page is."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key, code, text=""):
        """Press a key and let it go."""
        same = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.ask("Input.dispatchKeyEvent", type="keyDown", text=text, **same)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **same)

    def picture(self, path: Path):
        """Take a picture of the whole page."""
        found = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def close(self):
        """End it."""
        os.close(self.to)
        os.close(self.back)
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.folder.cleanup()
