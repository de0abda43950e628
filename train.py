"""Train GoogLeNet: `python train.py` on the embedded images, `python train.py --data DIR` on your own.

A run writes a folder of its own: last.h5 (to go on from), best.h5 (the lowest validation error), log.csv, curves.png
and config.json. Ctrl-C finishes the step, saves and says how to go on.
"""
from __future__ import annotations

import argparse
from shlex import quote
from typing import Any

from googlenet import presets, runs, scripts
from googlenet.commands import training
from googlenet.commands.files import path_of
from googlenet.config import ModelConfig, TrainingConfig, add_flags, from_flags
from googlenet.model import VARIANTS
from googlenet.presets import PRESETS
from googlenet.weights.fetch import PUBLISHED

OF_THE_SCRIPT = {"resume", "debug"}  # flags that are no settings of a run


def make_parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="train.py", description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    recipes = made.add_argument_group("recipes")
    recipes.add_argument("--preset", choices=PRESETS, help="settings by name; flags that are given win (default: "
                         "embedded for --data embedded, otherwise none)")
    recipes.add_argument("--presets", action="store_true", help="print what each preset sets, with sources, and end")
    add_flags(made.add_argument_group("training"), TrainingConfig)
    add_flags(made.add_argument_group("network"), ModelConfig, skip=("classes",))
    changeable = ", ".join("--" + name.replace("_", "-") for name in sorted(runs.CHANGEABLE))
    made.add_argument("--resume", metavar="RUN", help="go on with this run: its folder, or its last.h5; of the other "
                      f"flags only {changeable} may change")
    made.add_argument("--debug", action="store_true", help="show where an error comes from")
    return made


def read_flags(arguments: list[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Return all flags with their defaults, and {name: value} of those that were given."""
    parser = make_parser()
    flags = parser.parse_args(arguments)
    scripts.check_threads(parser, flags.threads)
    parser.set_defaults(**dict.fromkeys(vars(flags)))
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    preset = flags.preset or ("embedded" if flags.data == "embedded" else None)
    if preset:
        presets.apply(preset, vars(flags), given)
    if "dropout" not in given:
        flags.dropout = VARIANTS[flags.variant].dropout
    return flags, given


def main(arguments: list[str]) -> int:
    flags, given = read_flags(arguments)
    if flags.presets:
        print(presets.described())
        return 0
    if flags.resume:
        run = runs.resumed(flags.resume, {name: given[name] for name in given.keys() - OF_THE_SCRIPT})
    else:
        run = begun(flags, given)
    code = training.carry_out(run)
    return code or tested(run)


def begun(flags: argparse.Namespace, given: dict[str, Any]) -> runs.Run:
    """Begin a run in a folder of its own."""
    config = from_flags(TrainingConfig, flags)
    if config.init in PUBLISHED:
        path_of(config.init)  # fetched under a bar
    return runs.started(config, from_flags(ModelConfig, flags), given)


def tested(run: runs.Run) -> int:
    """Test the best weights, and name what can be done next."""
    data = run.trainer.config.data
    images = training.open_test(data)
    if images is not None:
        training.test(run, images)
    print(f"curves: {run.folder / 'curves.png'}")
    source = "" if data == "embedded" else f" --data {quote(data)}"
    print(f"evaluate with: python evaluate.py --weights {quote(str(run.best))}{source} --crops 144")
    return 0


if __name__ == "__main__":
    scripts.run(main, "train.py")
