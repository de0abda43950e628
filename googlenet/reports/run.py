"""The page of a run, `train.py --report`: report.html in the run's folder, which loads itself again while it trains."""
from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from googlenet.config import Config
from googlenet.presets import AS_INPUT, PRESETS
from googlenet.reports import page
from googlenet.reports.learning import learning_of
from googlenet.reports.page import Html, element, name, section, table
from googlenet.reports.pictures import filters, seen, thumbnail
from googlenet.scripts import duration
from googlenet.training import Epoch, Fault, Restart, Step, Trainer
from minigrad.files import write_whole

log = logging.getLogger(__name__)

NAME = "report.html"
EVERY = 10.0  # seconds between two writes, at least
MOST_OF_TIME = 0.01  # that writing may take
SAMPLES = 12
RECENT = 20  # steps, over which the speed is taken
EVENTS = 100  # of the latest are shown


class RunPage:
    """The page of a run, made after its log, whose lines it begins with.

    It is written every few seconds, and seldom enough to take no more than MOST_OF_TIME. What goes wrong with it is
    logged once: no run ends for its page."""

    def __init__(self, folder: Path, trainer: Trainer):
        self.folder, self.trainer = folder, trainer
        preset = PRESETS.get(trainer.config.preset)
        self.preset: Mapping[str, tuple[Any, str]] = preset.settings if preset else {}
        self.path = folder / NAME
        self.learning = learning_of(folder / "log.csv")
        self.events: deque[tuple[int, str]] = deque(maxlen=EVENTS)
        if trainer.step:
            self.events.append((trainer.step, "The run was taken up here."))
        self.latest: Step | None = None
        self.left: float | None = None
        self._speeds: deque[float] = deque(maxlen=RECENT)
        self._due = -math.inf
        self._failed = False

    def update(self, record: Step | Epoch | Restart | Fault, left_seconds: float | None = None) -> None:
        """Note a record, with the seconds that are left of the run, and write the page if it is time."""
        self.left = self.left if left_seconds is None else left_seconds
        if isinstance(record, Step):
            self.learning.step(record)
            self.latest = record
            self._speeds.append(record.images_per_second)
        elif isinstance(record, Epoch):
            self.learning.epoch(record)
            self.events.extend((record.step, warning) for warning in record.warnings)
        elif isinstance(record, Fault):
            self.events.append((self.trainer.step, record.reason))
        else:
            self.learning = learning_of(self.folder / "log.csv")  # which has dropped the steps that are taken again
            self.events.append((record.from_step, f"{record.reason}; went back to step {record.step:,}, all rates "
                                f"times {record.rate_factor:g}"))
        began = time.monotonic()
        if began >= self._due:
            self._write("training", running=True)
            now = time.monotonic()
            self._due = now + max(EVERY, (now - began) / MOST_OF_TIME)

    def end(self, status: str, reason: str = "") -> None:
        """Write the page for the last time: `status` says how the run has ended, `reason` why it failed."""
        self.left = None
        if reason:
            self.events.append((self.trainer.step, reason))
        self._write(status, running=False)

    def _write(self, status: str, running: bool) -> None:
        try:
            write_whole(self.path, [self._document(status, running)])
        except Exception as error:
            if not self._failed:
                log.warning("%s: the page can't be written (%s); the run goes on without it", self.path, error)
            self._failed = True

    def _document(self, status: str, running: bool) -> bytes:
        config = self.trainer.config
        about = element("p", "GoogLeNet on ", element("strong", name(config.data)), f": {len(self.trainer.training):,} "
                        f"training images, {len(self.trainer.training.classes):,} classes.", class_="about")
        curves, samples, first = self.learning.html(), self._samples(), self._filters()
        sections = [
            section("status", "Status", *self._status(status, running)),
            *([section("learning", "Learning curves", curves)] if curves else []),
            *([section("events", "Warnings and restarts", self._told())] if self.events else []),
            *([section("samples", "What the network was shown last", samples)] if samples else []),
            *([section("filters", "First layer now", first)] if first else []),
            section("settings", "Settings", *self._settings())]
        return page.document(f"Run {self.folder.resolve().name}", about, sections,
                             reload_seconds=round(EVERY) if running else 0)

    def _status(self, status: str, running: bool) -> Iterator[Html]:
        t = self.trainer
        total = t.config.epochs * t.epoch_steps
        yield element("progress", value=t.step, max=max(total, t.step, 1), aria_label="Steps that are done")
        found: list[tuple[str, object, object]] = [
            ("Status", status, ""), ("Epoch", min(t.epoch + 1, t.config.epochs), f"of {t.config.epochs:,}"),
            ("Step", f"{t.step:,}", f"of {total:,}")]
        if self.latest:
            speed = sum(self._speeds) / len(self._speeds)
            found += [("Images a second", f"{speed:.3g}", f"{self.latest.images:,} seen"),
                      ("Rate", f"{self.latest.lr:.4g}", ""),
                      ("Loss", f"{self.latest.losses.main:.3f}", "of the classifier")]
        if self.left is not None and running:
            found.append(("Time left", duration(self.left), "about"))
        yield page.figures(found)
        yield element("p", class_="news", role="status")
        if running:
            yield element("div", element("button", "Pause", type="button", hidden=True, aria_pressed="false"),
                          element("span", ""), class_="controls")

    def _told(self) -> Html:
        rows = [(f"{step:,}", text) for step, text in reversed(self.events)]
        return table("The latest first; since the run was started or taken up", ["step", "what happened"], rows)

    def _samples(self) -> Html:
        """Show images of the latest step as the network saw them."""
        batch = self.trainer.replica.latest
        if batch is None:
            return Html("")
        classes = self.trainer.training.classes
        shown = []
        for image, label in zip(seen(batch.images[:SAMPLES], self.trainer.preprocessing), batch.labels.tolist(),
                                strict=False):
            drawn = page.picture(thumbnail(image), classes[label][:60], class_="pixels" if len(image) < 100 else None)
            shown.append(element("li", element("figure", drawn, element("figcaption", name(classes[label], 40)))))
        return element("ul", *shown, class_="pictures small")

    def _filters(self) -> Html:
        drawn = filters(self.trainer.model, self.trainer.preprocessing, "conv1")
        return page.picture(drawn, "The filters of the first layer", class_="plate")

    def _settings(self) -> Iterator[Html]:
        yield element("p", "Images: ", str(self.trainer.preprocessing), ".")
        for title, config in (("Training", self.trainer.config), ("Network", self.trainer.model.config)):
            yield table(title, ["setting", "value", "meaning", "source"],
                        (self._setting(config, item) for item in fields(config)))

    def _setting(self, config: Config, item: Field) -> list[object]:
        """Return a row: the setting, its value, what it means, and where it comes from."""
        value, source = getattr(config, item.name), item.metadata["source"]
        unit = f" {item.metadata['unit']}" if item.metadata["unit"] else ""
        shown = element("code", name("none" if value == "" else value), unit)
        chosen, origin = self.preset.get(item.name, (None, ""))
        if value == (self.trainer.model.config.image_size if chosen == AS_INPUT else chosen):
            source = origin
        elif value != item.default:
            shown, source = element("strong", shown), f"chosen; {item.default!s} is the default ({source})"
        return [element("code", item.name), shown, item.metadata["help"], source]
