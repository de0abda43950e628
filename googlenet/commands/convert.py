"""python -m googlenet convert: weights of another framework as a file of ours."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from data.preprocess import PREPROCESSINGS, Preprocessing
from googlenet.commands import text
from googlenet.commands.files import (
    PREPROCESS_HELP,
    WEIGHTS_HELP,
    add_classes,
    add_image_size,
    check_output,
    class_names,
    named_preprocessing,
    path_of,
)
from googlenet.weights import read, save
from googlenet.weights.files import sha256
from googlenet.weights.inspection import origin
from googlenet.weights.schemes import split
from googlenet.weights.weights import Weights
from minigrad.errors import InputError

ENDINGS = (".h5", ".hdf5")


def add(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the command's parser."""
    made: argparse.ArgumentParser = commands.add_parser(
        "convert", help="weights of another framework as a file of this program", description=(
            "Write weights of another framework as a file of this program, with class names, preprocessing and origin. "
            "Every array is placed by its name and its shape, or the file is refused."))
    made.add_argument("file", metavar="FILE", help=WEIGHTS_HELP)
    made.add_argument("out", type=Path, metavar="OUT.h5", help="the file to write")
    add_classes(made)
    made.add_argument("--preprocess", choices=PREPROCESSINGS, help=PREPROCESS_HELP)
    made.add_argument("--mean", type=Path, metavar="MEAN.binaryproto",
                      help="Caffe's mean image; its mean colour is subtracted instead")
    add_image_size(made)
    made.add_argument("--force", action="store_true", help="overwrite OUT.h5")
    made.add_argument("--verbose", action="store_true", help="list which array came from where")
    return made


def run(flags: argparse.Namespace) -> int:
    """Convert, and print what was found."""
    source = path_of(flags.file)
    check_output(flags.out, ENDINGS, source, flags.force)
    stored = read(source, image_size=flags.image_size)
    weights = stored.weights
    if flags.classes:
        weights = replace(weights, classes=class_names(flags.classes, weights))
    weights = replace(weights, preprocessing=_preprocessing(flags, weights))
    save(flags.out, weights, averaged=stored.averaged, tested=stored.for_testing)
    print(_told(source, flags.out, weights, left=[*stored.arrays, *stored.attributes]))
    if flags.verbose:
        print(_mapped(weights))
    return 0


def _told(source: Path, out: Path, weights: Weights, left: list[str]) -> str:
    """Return what was converted, a line each."""
    origin_ = weights.source
    layers = {split(name)[0] for name in weights.arrays}
    lines = [("read", f"{source}, {origin_.format if origin_ else 'a file of this program'}"),
             ("", f"SHA-256 {sha256(source)}"), *text.described(weights),
             ("mapped", f"{len(weights.arrays)} arrays of {len(layers)} layers")]
    lines += [("note", note) for note in (origin_.notes if origin_ else ())]
    bad = sum(int(np.count_nonzero(~np.isfinite(array))) for array in weights.arrays.values())
    if bad:
        lines.append(("note", f"{bad:,} values are not finite numbers, so that it can't be run: inspect shows where"))
    if left:
        lines.append(("note", f"left out, as it is only for going on with training: {', '.join(sorted(left))}"))
    lines += [("wrote", str(out)), ("", f"SHA-256 {sha256(out)}")]
    return text.table(lines, left=(0, 1))


def _mapped(weights: Weights) -> str:
    """Return a table of all arrays and where they came from."""
    rows = [(name, text.shape(array.shape), str(array.dtype), *origin(name, weights))
            for name, array in weights.arrays.items()]
    return "\n" + text.table([("array", "shape", "dtype", "from", "laid out there"), *rows], left=(0, 1, 2, 3, 4))


def _preprocessing(flags: argparse.Namespace, weights: Weights) -> Preprocessing:
    """Return the preprocessing that the flags choose."""
    chosen = weights.preprocessing
    if flags.preprocess:
        chosen = named_preprocessing(flags.preprocess, weights.config)
    if not flags.mean:
        return chosen
    from googlenet.weights.formats import caffemodel  # here, as only few need it

    with open(flags.mean, "rb") as file:
        if not caffemodel.recognise_mean(file.read(4096), flags.mean):
            raise InputError(f"{flags.mean} is no Caffe mean image (.binaryproto): give one, or leave out --mean")
    colour = caffemodel.read_mean(flags.mean).tolist()  # blue, green, red
    return replace(chosen, mean=tuple(colour if chosen.order == "BGR" else colour[::-1]))
