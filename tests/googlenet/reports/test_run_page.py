"""The page of a run: written while it trains, harmless where it can't be, at rest when the run has ended."""

import re
from dataclasses import replace

import numpy as np
import pytest

from data.base import ArrayDataset
from data.crops import crops
from googlenet.config import TrainingConfig
from googlenet.reports import run
from googlenet.reports.log import Log
from googlenet.reports.run import RunPage
from googlenet.training import Epoch, Losses, Restart, Step, Trainer
from tests import runs
from tests.googlenet.reports.browser import Browser, needs_browser
from tests.googlenet.reports.structure import checked, words

LOSSES = Losses(1.0, 1.0, 1.0, 1.0)


@pytest.fixture(autouse=True)
def _alone():
    yield from runs.computing_alone()


def trainer(variant="paper", classes=runs.CLASSES, **config):
    images, labels = zip(*runs.pictures("train", 4), strict=True)
    data = ArrayDataset(np.stack(images), labels, [f"{i}.png" for i in range(16)], classes, "pictures")
    model = runs.network(variant=variant)
    made = Trainer(model, TrainingConfig(batch_size=4, epochs=2, lr=0.01, **config), data, data,
                   runs.preprocessing_of(model.config))
    made.initialise()
    return made


def train(page, t, log, steps=99):
    """Train some steps on, telling the log and the page."""
    for record in t.records():
        (log.step if isinstance(record, Step) else log.epoch)(record)
        page.update(record, 3725.0)
        steps -= isinstance(record, Step)
        if steps == 0:
            break


def told(folder):
    return words(checked((folder / "report.html").read_bytes()))


@pytest.mark.parametrize("variant", ["paper", "torchvision"])
def test_the_page_tells_of_the_run(tmp_path, monkeypatch, variant):
    monkeypatch.setattr(run, "EVERY", 0.0)
    monkeypatch.setattr(run, "MOST_OF_TIME", 1e9)
    t, log = trainer(variant, averaging="tail", preset="paper"), Log(tmp_path / "log.csv", 1)
    page = RunPage(tmp_path, t)
    train(page, t, log, steps=6)
    found = told(tmp_path)
    for text in ("Status training", "Epoch 2 of 2", "Step 6 of 8", "24 seen", "Time left 1 h 2 min", "Losses",
                 "auxiliary head at 4a", "Validation", "top-1, averaged weights", "First layer now", "ankle boot",
                 "averaging tail ", "paper, section 6: Polyak averaging; its window is not told",
                 "batch_size 4 images in memory at a time chosen; 32 is the default (BVLC)",
                 f"variant {variant}", "weight_decay 0.0002 pull of every weight towards zero BVLC, solver.prototxt"):
        assert text in found, text
    assert 'value="6" max="8"' in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Warnings" not in found


def test_a_resized_image_that_is_all_of_the_input_is_the_presets(tmp_path):
    t = trainer(preset="embedded", resize=32)
    RunPage(tmp_path, t).end("finished")
    assert "ours: the images fill their frame" in told(tmp_path)
    t = trainer(preset="embedded", resize=36)
    RunPage(tmp_path, t).end("finished")
    assert "ours: the images fill their frame" not in told(tmp_path)
    assert re.search("resize 36 pixels .{,99} chosen; 0 is the default", told(tmp_path))


def test_only_a_running_page_loads_itself_again(tmp_path):
    t, log = trainer(), Log(tmp_path / "log.csv", 1)
    page = RunPage(tmp_path, t)
    train(page, t, log, steps=1)
    running = (tmp_path / "report.html").read_bytes()
    assert b'<meta http-equiv="refresh" content="10">' in running
    assert b"<button" in running
    train(page, t, log)
    page.end("finished")
    ended = (tmp_path / "report.html").read_bytes()
    assert b'http-equiv="refresh"' not in ended
    assert b"data-reload=" not in ended
    assert b"<button" not in ended
    assert "Status finished" in told(tmp_path)
    assert "Time left" not in told(tmp_path)
    assert "Step 8 of 8" in told(tmp_path)


def test_it_is_written_seldom(tmp_path, monkeypatch):
    clock, taken, written = [0.0], [0.02], []
    monkeypatch.setattr(run.time, "monotonic", lambda: clock[0])
    page = RunPage(tmp_path, trainer())

    def write(status, running):
        written.append(clock[0])
        clock[0] += taken[0]

    page._write = write
    for second in range(100):
        clock[0] = max(clock[0], float(second))
        page.update(Step(second, 0, 8, 0.1, LOSSES, 10.0))
    assert written == pytest.approx([0, 11, 22, 33, 44, 55, 66, 77, 88, 99])  # ten seconds after each has ended
    taken[0], clock[0] = 3.0, 200.0
    page.update(Step(1, 0, 8, 0.1, LOSSES, 10.0))
    clock[0] = 400.0
    page.update(Step(1, 0, 8, 0.1, LOSSES, 10.0))
    assert written[-1] == 200.0  # three seconds are one part in a hundred of five minutes
    clock[0] = 504.0
    page.update(Step(1, 0, 8, 0.1, LOSSES, 10.0))
    assert written[-1] == 504.0


def test_a_page_that_fails_ends_no_run(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(run, "EVERY", 0.0)
    monkeypatch.setattr(run, "MOST_OF_TIME", 1e9)
    t, log = trainer(), Log(tmp_path / "log.csv", 1)
    page = RunPage(tmp_path, t)
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    train(page, t, log)
    page.end("finished")
    assert t.epoch == 2
    assert len(caplog.records) == 1
    assert "No space left on device" in caplog.text
    assert "the run goes on without it" in caplog.text


@pytest.mark.parametrize("method", ["_filters", "_samples", "_settings"])
def test_no_fault_of_the_page_ends_a_run(tmp_path, monkeypatch, caplog, method):
    t = trainer()
    page = RunPage(tmp_path, t)
    monkeypatch.setattr(page, method, lambda: 1 / 0)
    train(page, t, Log(tmp_path / "log.csv", 1), steps=1)
    assert "division by zero" in caplog.text


def test_warnings_and_restarts_are_told(tmp_path, monkeypatch):
    t, log = trainer(), Log(tmp_path / "log.csv", 1)
    page = RunPage(tmp_path, t)
    train(page, t, log, steps=5)
    page.update(Epoch(0, 4, 16, LOSSES, None, True, ("aux1 has <learned> nothing",)))
    before = page.learning.losses["main"].points
    restart = Restart("the loss is nan at step 6", 5, 4, 1, 0.5)
    log.restart(restart)
    page.update(restart)
    assert page.learning.losses["main"].points == before[:4]  # of the steps that are not taken again
    page.end("stopped")
    assert ("5 the loss is nan at step 6; went back to step 4, all rates times 0.5 4 aux1 has <learned> nothing"
            in told(tmp_path))


def test_a_resumed_run_goes_on_with_its_curves(tmp_path):
    t, log = trainer(), Log(tmp_path / "log.csv", 1)
    whole = RunPage(tmp_path, t)
    train(whole, t, log, steps=5)
    t.step = 4
    log = Log(tmp_path / "log.csv", 1, 4, 1)
    page = RunPage(tmp_path, t)
    assert page.learning.losses["main"].points == whole.learning.losses["main"].points[:4]
    assert page.learning._errors() == whole.learning._errors()
    assert len(page.learning.epochs) == 1
    page.end("stopped")
    assert "4 The run was taken up here." in told(tmp_path)


@pytest.mark.parametrize("ways", [{}, {"order": "BGR", "mean": (104, 117, 123), "std": (50, 60, 70)}])
def test_samples_are_what_the_network_was_given(tmp_path, ways):
    t = trainer(augment="none")
    t.preprocessing = replace(t.preprocessing, **ways)
    next(iter(t.records()))
    image, label = runs.pictures("train", 4)[int(t.replica.latest.indices[0])]
    image = image * np.array([1, 0.5, 0.2])  # no longer grey
    t.replica.latest.images[0] = t.preprocessing.normalise(crops(image.astype(np.uint8), 1, t.preprocessing)[0])
    shown = run.seen(t.replica.latest.images, t.preprocessing)
    assert np.array_equal(shown[0], crops(image.astype(np.uint8), 1, t.preprocessing)[0])
    html = RunPage(tmp_path, t)._samples()
    assert re.search(rf'alt="{runs.CLASSES[label]}"', html)
    assert html.count("<img") == 4


def test_names_of_classes_are_never_markup(tmp_path):
    t = trainer(classes=["<script>alert(1)</script>", "x" * 9000, "\udcff", "&"])
    page = RunPage(tmp_path, t)
    train(page, t, Log(tmp_path / "log.csv", 1), steps=1)
    made = (tmp_path / "report.html").read_bytes()
    checked(made)
    assert b"<script>alert" not in made
    assert len(made) < 100_000


@pytest.fixture
def browser():
    opened = Browser()
    yield opened
    opened.close()


CONTROLS = "document.querySelector('.controls"


def stays(browser):
    """Whether the page is still the same after what is more than twice the time to load again."""
    browser.run("window.same = true")
    browser.ask("Runtime.evaluate", expression="new Promise((done) => setTimeout(done, 2500))", awaitPromise=True)
    return browser.run("window.same === true")


@needs_browser
def test_a_browser_follows_the_run(tmp_path, monkeypatch, browser):
    """It loads the page again at the same place, until the run has ended; pausing it stays so."""
    monkeypatch.setattr(run, "EVERY", 1.0)
    t, log = trainer(), Log(tmp_path / "log.csv", 1)
    page = RunPage(tmp_path, t)
    page._due = float("inf")
    train(page, t, log, steps=5)
    page._write("training", running=True)
    path = tmp_path / "report.html"
    browser.open(path, 360)
    assert browser.run("document.documentElement.scrollWidth") <= 360
    browser.run("document.querySelector('details').open = true, scrollTo(0, 700)")
    for loads in (2, 3):
        browser.wait(lambda loads=loads: browser.loads >= loads + 1)
    browser.wait(lambda: browser.run("scrollY") == 700)
    assert browser.run("document.querySelector('details').open")
    page._write("still training", running=True)
    browser.wait(lambda: browser.run("document.querySelector('.figures strong')?.textContent") == "still training")
    assert browser.run(f"{CONTROLS} button').click(), {CONTROLS}').textContent") == "Pausepaused"
    assert stays(browser)
    browser.run(f"{CONTROLS} button').click()")
    page.end("finished")
    browser.wait(lambda: browser.run("document.querySelector('.figures strong')?.textContent") == "finished")
    assert stays(browser)
    assert browser.complaints == []


@needs_browser
def test_a_page_that_nobody_writes_any_more_says_so(tmp_path, browser):
    """The run may have been killed, which nobody could write down."""
    t = trainer()
    RunPage(tmp_path, t)._write("training", running=True)
    path = tmp_path / "report.html"
    browser.open(path)
    assert browser.run("document.querySelector('.news').textContent") == ""
    text = re.sub(r'datetime="\d{4}', 'datetime="2020', path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")
    browser.open(path)
    assert "the run may have been ended" in browser.run("document.querySelector('.news').textContent")
