"""TensorBoard's events of a run, `train.py --tensorboard`: losses, rate and validation as curves, the first layer.

tensorboardX writes the records, at once and in this thread: its own queue would wait for ever where the disk is full.
"""
from __future__ import annotations

import io
import logging
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from googlenet.reports.pictures import filters
from googlenet.scripts import writing
from googlenet.training import Epoch, Restart, Step, Trainer
from minigrad.errors import InputError

log = logging.getLogger(__name__)

FLUSHED = 30.0  # seconds after which events are handed to the disk


def require() -> None:
    """Raise InputError where tensorboardX is missing."""
    try:
        import tensorboardX  # noqa: F401
    except ImportError as error:
        raise InputError("--tensorboard needs tensorboardX, which is not installed: pip install -e "
                         '".[tensorboard]"') from error


class Events:
    """The events of a run, in a folder of their own; a step's every `every` steps, as in log.csv.

    A run that is taken up, or goes back, tells TensorBoard to drop what was written beyond its step. Raises InputError
    where tensorboardX is missing or the folder can't be made. What goes wrong later is logged once: no run ends for its
    events."""

    def __init__(self, folder: Path, trainer: Trainer, every: int = 1):
        require()
        from tensorboardX import event_file_writer

        self.folder, self.trainer, self.every = folder, trainer, every
        self._flushed, self._failed = time.monotonic(), False
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            # The name has the time in seconds; a second file of the same one must not replace the first.
            earlier = len(list(folder.iterdir()))
            suffix = f".{earlier:04d}.{os.getpid()}"
            self.file = event_file_writer.EventsWriter(str(folder / "events"), suffix)
        if earlier:  # also at step 0: a run that was killed before its first checkpoint
            self._purge(trainer.step)

    def step(self, record: Step) -> None:
        """Note a step, if it is its turn."""
        if record.step % self.every == 0:
            losses = {f"loss/{name}": value for name, value in record.losses._asdict().items()}
            self._scalars(record.step, {**losses, "rate": record.lr, "images_per_second": record.images_per_second,
                                        "gradient_norm": record.gradient_norm})

    def epoch(self, record: Epoch) -> None:
        """Note the end of an epoch: its validation, and the first layer as a picture."""
        scores = {f"{kind}/{name}": getattr(score, name)
                  for kind, score in (("validation", record.validation), ("averaged", record.averaged)) if score
                  for name in ("loss", "top1_error", "top5_error")}
        self._scalars(record.step, {"epoch": record.epoch + 1, **scores})
        self._picture(record.step)
        self._flush()

    def restart(self, record: Restart) -> None:
        """Drop what steps have told that are taken again."""
        self._purge(record.step)

    def close(self) -> None:
        """Write what is left, and end."""
        self._flush()
        self._try(self.file.close)

    def _purge(self, step: int) -> None:
        """Tell TensorBoard that only what is up to `step` is true.

        At the last step of an epoch that has not ended yet, its end is told again: then the step itself goes too, as
        TensorBoard can't drop the one without the other."""
        again = self.trainer.batch == self.trainer.loader.batches
        self._write(step if again else step + 1, session_log={"status": "START"})

    def _scalars(self, step: int, values: dict[str, float]) -> None:
        known = [{"tag": name, "simple_value": value} for name, value in values.items() if not math.isnan(value)]
        self._write(step, summary={"value": known})
        if time.monotonic() - self._flushed > FLUSHED:
            self._flush()

    def _picture(self, step: int) -> None:
        drawn = filters(self.trainer.model, self.trainer.preprocessing, "conv1")
        file = io.BytesIO()
        drawn.save(file, "PNG")
        image = {"height": drawn.height, "width": drawn.width, "colorspace": 3, "encoded_image_string": file.getvalue()}
        self._write(step, summary={"value": [{"tag": "conv1", "image": image}]})

    def _write(self, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._try(self.file.write_event, Event(wall_time=time.time(), step=step, **content))

    def _flush(self) -> None:
        self._try(self.file.flush)
        self._flushed = time.monotonic()

    def _try(self, write: Callable[..., object], *content: object) -> None:
        """Write, unless that has failed before: behind half a record nothing would be read."""
        if self._failed:
            return
        try:
            write(*content)
        except OSError as error:
            self._failed = True
            log.warning("%s: events can't be written (%s); the run goes on without them", self.folder, error)
