"""Ensembles (paper, section 7): networks that differ in the sampling and the order of images, and so in dropout.

Their initial weights are the same, "due to an oversight", and so is the schedule of their rate. One of the paper's
seven is deeper and wider; its details are withheld, so here the last one is wider by a factor of ours.

    model-1/ model-2/ ...   a run each
    ensemble.json           the settings of all, and for those that have ended the test of their weights
"""
from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from googlenet.config import ModelConfig, TrainingConfig, from_json
from googlenet.series import FREE, Planned
from googlenet.testing import Score
from minigrad.errors import InputError
from minigrad.files import write_whole

NAME = "ensemble.json"
SEEDS = 2**32
SETTINGS = {item.name for config in (TrainingConfig, ModelConfig) for item in fields(config)}


@dataclass
class Ensemble:
    """The members, and by name those that have ended: the score of their weights, None without test images."""

    folder: Path
    members: list[Planned]
    ended: dict[str, Score | None] = field(default_factory=dict)

    def end(self, member: Planned, score: Score | None) -> None:
        """Note that a member is trained and tested."""
        self.ended[member.folder.name] = score
        self.write()

    def grow(self, count: int) -> None:
        """Plan more members, up to `count`; they are as the first. Raises InputError where there are as many."""
        here = len(self.members)
        if count <= here:
            raise InputError(f"{self.folder} has {here} members, so that --ensemble {count} adds none: give more, or "
                             "leave it out")
        self.members += [_member(self.folder, self.members[0], number) for number in range(here, count)]
        self.write()

    def change(self, settings: Mapping[str, Any]) -> None:
        """Change settings of all members, and so of those that are added to them.

        Raises InputError for one that the networks depend on."""
        fixed = sorted(settings.keys() - FREE)
        if fixed:
            raise InputError(f"--{fixed[0].replace('_', '-')} can't change when an ensemble is resumed; leave it out, "
                             "or start a new one")
        self.members = [replace(each, training=replace(each.training, **settings)) for each in self.members]
        self.write()

    def write(self) -> None:
        """Write ensemble.json, whole or not at all."""
        members = [{"name": each.folder.name, "training": asdict(each.training), "network": asdict(each.network),
                    "given": dict(each.given), "ended": each.folder.name in self.ended,
                    "test": _as_json(self.ended.get(each.folder.name))} for each in self.members]
        write_whole(self.folder / NAME, [(json.dumps({"members": members}, indent=2) + "\n").encode()])


def planned(folder: Path, training: TrainingConfig, network: ModelConfig, given: Mapping[str, Any], count: int,
            wider: float) -> Ensemble:
    """Return an ensemble of `count` members, the last one `wider` than the others by this factor, and write its file.

    The first one is what a single run would be, the others count their sampling seeds from its on."""
    given = {name: value for name, value in given.items() if name in SETTINGS}
    first = Planned(folder, training, network, given)
    members = [_member(folder, first, number) for number in range(count)]
    members[-1] = replace(members[-1], network=replace(network, width=network.width * wider))
    made = Ensemble(folder, members)
    made.write()
    return made


def _member(folder: Path, first: Planned, number: int) -> Planned:
    """Return member `number`, from 0 on, of an ensemble."""
    seed = first.training.seed if first.training.sampling_seed < 0 else first.training.sampling_seed
    return replace(first, folder=folder / f"model-{number + 1}",
                   training=replace(first.training, sampling_seed=(seed + number) % SEEDS))


def file_of(path: str) -> Path | None:
    """Return the ensemble.json that a folder, or itself, names; None for what is no ensemble."""
    here = Path(path)
    found = here if here.name == NAME else here / NAME
    return found if found.is_file() else None


def read(path: Path) -> Ensemble:
    """Return what an ensemble.json describes. Raises InputError for one that is damaged."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["members"]
        members = [Planned(path.parent / each["name"], from_json(TrainingConfig, json.dumps(each["training"])),
                           from_json(ModelConfig, json.dumps(each["network"])), each["given"]) for each in entries]
        ended = {each["name"]: Score(**each["test"]) if each["test"] else None for each in entries if each["ended"]}
    except (OSError, ValueError, KeyError, TypeError, InputError) as error:
        raise InputError(f"{path} can't be read ({error}): restore it; each member can be gone on with by itself"
                         ) from error
    return Ensemble(path.parent, members, ended)


def _as_json(score: Score | None) -> dict[str, Any] | None:
    return None if score is None else score._asdict()
