"""Several runs, carried out one after the other: the members of an ensemble, the variations of an ablation.

All are planned before the first begins. One that was stopped or killed goes on from its last.h5; one that was killed
before it had written any begins again. Both compute what they would have computed in one go, on as many threads.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from googlenet import runs
from googlenet.config import ModelConfig, TrainingConfig
from googlenet.runs import Files, Run
from googlenet.scripts import writing
from googlenet.training import configuration
from googlenet.weights import load_model
from minigrad.errors import InputError

# Settings that no result depends on, by more than rounding: they may change from run to run.
FREE = runs.CHANGEABLE - runs.OF_WORKERS - {"epochs", "lr", "conv", "workers", "cluster"}


class Kept(NamedTuple):
    """What a run's checkpoint says of it."""

    training: TrainingConfig
    network: ModelConfig


@dataclass(frozen=True)
class Planned(Files):
    """A run that is to be: its folder and its settings; `given` are those that were chosen, as in `runs.started`."""

    folder: Path
    training: TrainingConfig
    network: ModelConfig
    given: Mapping[str, Any] = field(default_factory=dict)

    def kept(self) -> Kept | None:
        """Return what the checkpoint says, None before the first."""
        if not self.last.exists():
            return None
        loaded = load_model(self.last, raw=True)
        return Kept(configuration(loaded, self.last), loaded.model.config)

    def begun(self) -> Run:
        """Begin the run, or take it up where it stopped."""
        if self.last.exists():
            return runs.resumed(str(self.folder), {name: getattr(self.training, name) for name in FREE})
        run = runs.started(self.training, self.network, self.given, self.folder)
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        return run

    def require_same(self, training: TrainingConfig, network: ModelConfig, where: str) -> None:
        """Raise InputError, which names `where`, unless the run was made with these settings.

        Those of FREE may differ, but for the data; so may the number of classes, which is the data's."""
        own = asdict(self.training) | asdict(self.network)
        found = asdict(training) | asdict(network)
        free = FREE - {"data"} | {"output", "classes"}
        for name in own.keys() - free:
            if own[name] != found[name]:
                raise InputError(f"{where} was trained with {name} {found[name]}, not {own[name]}: give the settings "
                                 "of before, or another folder as --output")
