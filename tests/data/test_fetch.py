"""python -m data.fetch as a user runs it."""

import signal
import subprocess
import sys
import threading
from pathlib import Path
from unittest import mock

import pytest

from data import download as downloading
from data.fetch import bar, run
from data.published import SETS
from tests.data.publishing import MAKERS, republished
from tests.data.web import files, ranged, serving, undisturbed

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def published(monkeypatch, tmp_path):
    """Oxford's flowers in small, behind a server; the caches in a folder of the test's."""
    undisturbed(monkeypatch, downloading)
    monkeypatch.setenv("GOOGLENET_CACHE", str(tmp_path / "cache"))
    contents = MAKERS["flowers17"](tmp_path)
    with serving(files(contents)) as server:
        monkeypatch.setitem(SETS, "flowers17", republished("flowers17", contents, server.url))
        yield server


def test_it_tells_where_the_set_is_and_how_to_go_on(published, tmp_path, capsys):
    for _ in range(2):
        run(["flowers17"])
        told = capsys.readouterr().out.splitlines()
        assert told[0] == str(tmp_path / "cache" / "flowers17")
        assert told[1].startswith("licence: ")
        assert told[2].startswith("cite: Maria-Elena Nilsback")
        assert told[3] == "go on with: python train.py --data flowers17"
    run(["flowers17", "--folder", str(tmp_path / "my sets")])
    told = capsys.readouterr().out.splitlines()
    assert told[3] == f'go on with: python train.py --data "{tmp_path / "my sets" / "flowers17"}"'
    assert (tmp_path / "my sets" / "flowers17" / "test").is_dir()


def test_bytes_move_a_bar():
    with mock.patch("data.fetch.tqdm") as made:
        shown = made.return_value
        shown.n = 5
        with bar("bvlc") as progress:
            assert not made.called, "nothing is shown where nothing is fetched"
            progress(5, 100)
            progress(25, 100)
    assert made.call_args.kwargs["total"] == 100
    assert [call.args[0] for call in shown.update.call_args_list] == [0, 20]
    assert shown.close.called


def test_bars_are_on_stderr(published, capsys):
    run(["flowers17"])
    shown = capsys.readouterr()
    assert "17flowers.tgz: 100%" in shown.err
    assert "datasplits.mat: 100%" in shown.err
    assert "%|" not in shown.out


def test_nothing_is_shown_where_nothing_is_fetched(capsys):
    with bar("a.tgz"):
        pass
    assert capsys.readouterr().err == ""


def test_an_error_is_one_line(published, tmp_path, capsys):
    (tmp_path / "cache").write_bytes(b"")
    with pytest.raises(SystemExit) as end:
        run(["flowers17"])
    assert str(end.value).startswith("python -m data.fetch: error: can't write ")
    assert "\n" not in str(end.value)


@pytest.mark.parametrize("arguments", [[], ["mnist"], ["cifar10", "more"], ["cifar10", "--folder"]])
def test_arguments_that_make_no_sense(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        run(arguments)
    assert end.value.code == 2
    assert "python -m data.fetch" in capsys.readouterr().err


# A process of its own, which asks the server of this one.
PROGRAM = """
import sys
from data.fetch import run
from data.published import SETS
from tests.data.publishing import MAKERS, republished
from pathlib import Path
SETS["cifar10"] = republished("cifar10", {"cifar-10-binary.tar.gz": Path(sys.argv[1]).read_bytes()}, sys.argv[2])
run(["cifar10", "--folder", sys.argv[3]])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_ctrl_c_in_the_middle_and_on_from_there(published, tmp_path):
    content = MAKERS["cifar10"](tmp_path)["cifar-10-binary.tar.gz"]
    (tmp_path / "archive").write_bytes(content)
    half, stalled, freed = len(content) // 2, threading.Event(), threading.Event()

    def stall(handler):
        handler.answer(200, content[:half], **{"Content-Length": len(content), "ETag": '"first"'})
        handler.wfile.flush()
        stalled.set()
        freed.wait(60)

    with serving(stall, ranged(content)) as server:
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "archive"), server.url, str(tmp_path / "sets")]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        part = tmp_path / "sets" / ".cifar10.download" / "cifar-10-binary.tar.gz.part"
        assert stalled.wait(60)
        for _ in range(600):
            if part.exists() and part.stat().st_size:
                break
            threading.Event().wait(0.05)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
        freed.set()
        assert process.returncode == 130
        assert "python -m data.fetch: stopped; what has come is kept" in told
        assert "Traceback" not in told
        came = part.stat().st_size
        assert 0 < came <= half
        assert not (tmp_path / "sets" / "cifar10").exists()
        again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert again.returncode == 0, again.stderr
        assert server.asked[1][1]["Range"] == f"bytes={came}-"
    assert (tmp_path / "sets" / "cifar10" / "data_batch_5.bin").stat().st_size == 5 * 3073
