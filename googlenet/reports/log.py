"""`log.csv` of a run: the losses, rates and speeds of its steps, the validation of its epochs."""
from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from googlenet.scripts import writing
from googlenet.training import Epoch, Restart, Step
from googlenet.training.records import Crew
from minigrad.errors import InputError
from minigrad.files import write_whole

COLUMNS = ("step", "epoch", "images", "lr", "loss", "loss_main", "loss_aux1", "loss_aux2", "images_per_second",
           "validation_loss", "validation_top1_error", "validation_top5_error", "averaged_loss", "averaged_top1_error",
           "averaged_top5_error", "gradient_norm")
OF_WORKERS = ("staleness_mean", "staleness_max", "restarts", "server_share", "worker_images_per_second")


class Log:
    """`log.csv` of a run: a line every `every` steps; at the end of each epoch one without a rate, with the means of
    its losses and its validation.

    A run that goes on at a step of an epoch, resumed or gone back to it, drops the lines beyond: they are computed
    again. A run by workers (`crew`) has columns of its own behind the others.
    """

    def __init__(self, path: Path, every: int, step: int = 0, epoch: int = 0, *, crew: bool = False):
        self.path, self.every, self.crew = path, every, crew
        self._begin(step, epoch)

    def _begin(self, step: int, epoch: int) -> None:
        """Open the file, with its lines up to a step of an epoch."""
        kept = [row for row in read_log(self.path)
                if int(row["step"]) <= step and (row["lr"] or int(row["epoch"]) < epoch)] if step else []
        by_workers = self.crew or any(OF_WORKERS[0] in row for row in kept[:1])
        columns = (*COLUMNS, *OF_WORKERS) if by_workers else COLUMNS
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows(kept)
        write_whole(self.path, [text.getvalue().encode()])
        with writing(self.path):
            self.file = open(self.path, "a", newline="", encoding="utf-8")  # noqa: SIM115  (open as long as the run)
        self.writer = csv.DictWriter(self.file, columns)

    def step(self, record: Step) -> None:
        """Note a step, if it is its turn."""
        if record.step % self.every == 0:
            self._write(record.step, record.epoch, record.images, record.lr, *record.losses,
                        round(record.images_per_second, 2), gradient_norm=record.gradient_norm,
                        **_crew(record.crew))

    def epoch(self, record: Epoch) -> None:
        """Note the end of an epoch and its validation."""
        scores = (value for found in (record.validation, record.averaged) if found is not None
                  for value in (found.loss, found.top1_error, found.top5_error))
        self._write(record.step, record.epoch, record.images, math.nan, *record.losses, math.nan, *scores)
        self.flush()

    def restart(self, record: Restart) -> None:
        """Drop the lines of steps that are taken again."""
        self.close()
        self._begin(record.step, record.epoch)

    def _write(self, *values: float, **more: float | str) -> None:
        named = dict(zip(COLUMNS, values, strict=False)) | more
        with writing(self.path):
            self.writer.writerow({name: value for name, value in named.items()
                                  if isinstance(value, str) or not math.isnan(value)})

    def flush(self) -> None:
        """Hand all lines to the system."""
        with writing(self.path):
            self.file.flush()

    def close(self) -> None:
        """Write what is left, and end."""
        with writing(self.path):
            self.file.close()


def _crew(crew: Crew | None) -> dict[str, float | str]:
    """Return the columns of a run by workers, whose speeds stand with blanks between them."""
    if crew is None:
        return {}
    return {"staleness_mean": round(crew.staleness, 3), "staleness_max": crew.most, "restarts": crew.restarts,
            "server_share": round(crew.server, 4),
            "worker_images_per_second": " ".join(f"{speed:.2f}" for speed in crew.speeds)}


def read_log(path: Path) -> list[dict[str, str]]:
    """Return the lines of a log.csv, the last one left out if a crash cut it. Raises InputError for another file."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except FileNotFoundError:
        return []
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read ({error}): move it away") from error
    if not set(COLUMNS) <= set(reader.fieldnames or COLUMNS):
        raise InputError(f"{path} is no log of a run: move it away")
    return [row for row in rows if None not in row.values() and row["step"].isdigit()]
