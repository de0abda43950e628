"""Train GoogLeNet: `python train.py` on the embedded images, `python train.py --data DIR` on your own.

A run writes a folder of its own: last.h5 (to go on from), best.h5 (the lowest validation error), log.csv, curves.png
and config.json. Ctrl-C finishes the step, saves and says how to go on. --ensemble N makes a folder of N such runs.
"""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from googlenet import ensembles, presets, runs, scripts
from googlenet.commands import members, training
from googlenet.commands.files import path_of
from googlenet.config import ModelConfig, TrainingConfig, add_flags, from_flags
from googlenet.model import VARIANTS
from googlenet.presets import FINETUNE, FOR_IMAGENET, PRESETS
from googlenet.reports import tensorboard
from googlenet.scripts import shown_path
from googlenet.weights.fetch import PUBLISHED
from minigrad import init
from minigrad.errors import InputError

WIDER = 1.25
OF_THE_SCRIPT = {"resume", "debug"}  # flags that are no settings of a run
NEEDS = {  # flags that do something only where another one has one of these values
    "power": ("schedule", ("poly",)), "decay": ("schedule", ("step",)), "decay_epochs": ("schedule", ("step",)),
    "averaging_start": ("averaging", ("tail",)), "ema_decay": ("averaging", ("ema",)),
    "tested": ("averaging", ("tail", "ema")), "aspect_law": ("augment", ("paper",)),
    "distortion": ("augment", ("paper",)), "lighting": ("augment", ("paper",)),
    "aux_weight": ("heads", ("both", "aux1", "aux2")), "aux_dropout": ("heads", ("both", "aux1", "aux2")),
}  # fmt: skip


def make_parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="train.py", description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    recipes = made.add_argument_group("recipes")
    recipes.add_argument("--preset", choices=PRESETS, help="settings by name; flags that are given win (default: "
                         "embedded for --data embedded, otherwise none)")
    recipes.add_argument("--presets", action="store_true", help="print what each preset sets, with sources, and end")
    add_flags(made.add_argument_group("training"), TrainingConfig, skip=("preset",))
    add_flags(made.add_argument_group("network"), ModelConfig, skip=("classes",))
    several = made.add_argument_group("ensembles")
    several.add_argument("--ensemble", type=int, metavar="N", help="train so many networks, one after the other: of "
                         "the same initial weights and held-out images, but other order, crops and dropout; with "
                         "--resume RUN: add networks until there are so many (paper, section 7: 7)")
    several.add_argument("--wider", type=float, metavar="FACTOR", help="width of the last of them by that of the "
                         f"others; 1: the same (default {WIDER}; ours: one of the paper's is deeper and wider, and "
                         "how much is withheld)")
    changeable = ", ".join("--" + name.replace("_", "-") for name in sorted(runs.CHANGEABLE))
    made.add_argument("--resume", metavar="RUN", help="go on with this run: its folder, or its last.h5, or an "
                      "ensemble's folder; of the other "
                      f"flags only {changeable} may change (of an ensemble: not --epochs, --lr and --conv)")
    made.add_argument("--debug", action="store_true", help="show where an error comes from")
    return made


def read_flags(arguments: list[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Return all flags with their defaults, and {name: value} of those that were given."""
    parser = make_parser()
    flags = parser.parse_args(arguments)
    if not flags.cluster:  # whose machines have other cores
        scripts.check_threads(parser, flags.threads)
    check_ensemble(parser, flags)
    parser.set_defaults(**dict.fromkeys(vars(flags)))
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    flags.preset = flags.preset or ("embedded" if flags.data == "embedded" else "")
    if flags.preset:
        presets.apply(flags.preset, vars(flags), given)
    if not flags.resume:
        check_preset(parser, flags)
        check_effects(parser, flags, given)
    if "dropout" not in given:
        flags.dropout = VARIANTS[flags.variant].dropout
    return flags, given


def check_preset(parser: argparse.ArgumentParser, flags: argparse.Namespace) -> None:
    """End with a usage error where a preset lacks the data or the weights that it is made for."""
    if flags.preset == FINETUNE and flags.init in init.SCHEMES:
        parser.error(f"argument --preset: {FINETUNE} goes on from trained weights: give --init FILE, or, to download "
                     f"them, --init {', '.join(PUBLISHED)}; or another preset")
    if flags.preset in FOR_IMAGENET and flags.data == "embedded":
        parser.error(f"argument --preset: {flags.preset} is made for ImageNet: give --data DIR")


def check_effects(parser: argparse.ArgumentParser, flags: argparse.Namespace, given: dict[str, Any]) -> None:
    """End with a usage error for a flag that was given but does nothing beside the others."""
    for name, (other, values) in NEEDS.items():
        if name in given and getattr(flags, other) not in values:
            own, its = ("--" + each.replace("_", "-") for each in (name, other))
            parser.error(f"argument {own}: it does nothing with {its} {getattr(flags, other)}; leave it out, or give "
                         f"{its} {' or '.join(values)}")
    for name in sorted(runs.OF_WORKERS & given.keys()):
        if flags.workers == 1 and not flags.cluster:
            parser.error(f"argument --{name.replace('_', '-')}: it is of several workers: give --workers 2 or more")
    if "fresh_rate" in given and flags.init in init.SCHEMES:
        parser.error("argument --fresh-rate: it is of layers that trained weights leave to chance: give --init FILE")


def check_ensemble(parser: argparse.ArgumentParser, flags: argparse.Namespace) -> None:
    """End with a usage error where the flags of ensembles make none."""
    if flags.ensemble is not None and flags.ensemble < 2:
        parser.error(f"argument --ensemble: {flags.ensemble}: give at least 2; without the flag one network is trained")
    if flags.wider is not None and not 1 <= flags.wider < float("inf"):
        parser.error(f"argument --wider: {flags.wider:g}: give a factor from 1 on")
    if flags.wider is not None and not flags.ensemble:
        parser.error("argument --wider: it is of the last network of an ensemble: give --ensemble N too, or --width")


def main(arguments: list[str]) -> int:
    flags, given = read_flags(arguments)
    if flags.presets:
        print(presets.described())
        return 0
    if flags.tensorboard:
        tensorboard.require()
    ensemble = ensembles.file_of(flags.resume) if flags.resume else None
    if ensemble:
        return members.carry_out(again(ensemble, given))
    if flags.ensemble and not flags.resume:
        return members.carry_out(several(flags, given))
    if flags.resume:
        run = runs.resumed(flags.resume, {name: given[name] for name in given.keys() - OF_THE_SCRIPT})
        if run.ended:
            print(f"all {run.trainer.config.epochs} epochs are behind it: its weights are tested; to train it for "
                  "longer give more --epochs")
    else:
        run = begun(flags, given)
    return tested(run) if training.carry_out(run).done else training.STOPPED


def begun(flags: argparse.Namespace, given: dict[str, Any], folder: Path | None = None) -> runs.Run:
    """Begin a run in a folder of its own, or in `folder`, which is not made."""
    config = from_flags(TrainingConfig, flags)
    if config.init in PUBLISHED:
        path_of(config.init)  # fetched under a bar
    return runs.started(config, from_flags(ModelConfig, flags), given, folder)


def several(flags: argparse.Namespace, given: dict[str, Any]) -> ensembles.Ensemble:
    """Plan an ensemble in a folder of its own, made when its first network can be trained."""
    config, wider = from_flags(TrainingConfig, flags), given.get("wider", WIDER)
    begun(flags, given, Path(config.output))
    if config.init not in init.SCHEMES and wider != 1:
        if "wider" in given:
            raise InputError(f"--wider {wider:g} beside --init {config.init}, whose width every network has; leave it "
                             "out, or start with --init xavier")
        print(f"no wider network: all have the width of {config.init}")
        wider = 1
    return ensembles.planned(runs.new_folder(Path(config.output)), config, from_flags(ModelConfig, flags), given,
                             flags.ensemble, wider)


def again(path: Path, given: dict[str, Any]) -> ensembles.Ensemble:
    """Take up an ensemble, with changed settings and more networks where flags ask for them."""
    ensemble = ensembles.read(path)
    ensemble.change({name: given[name] for name in given.keys() - OF_THE_SCRIPT - {"ensemble"}})
    if "ensemble" in given:
        ensemble.grow(given["ensemble"])
    return ensemble


def tested(run: runs.Run) -> int:
    """Test the best weights, and name what can be done next."""
    data = run.trainer.config.data
    images = training.open_test(data)
    if images is not None:
        training.test(run.best, run.trainer.config, images)
    print(f"curves: {run.curves}")
    print(f"evaluate with: {training.evaluation(shown_path(run.best), data)} --crops 144")
    return 0


if __name__ == "__main__":
    scripts.run(main, "train.py")
