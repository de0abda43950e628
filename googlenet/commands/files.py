"""The files that commands are given: weights by path or by the name they are published under, and what is written."""

from __future__ import annotations

import argparse
import glob
import logging
import os
from pathlib import Path

from data.fetch import bar
from data.names import read_list
from data.preprocess import PREPROCESSINGS, Preprocessing
from googlenet import ensembles
from googlenet.classes import BACKGROUND
from googlenet.config import ModelConfig
from googlenet.scripts import shown_path
from googlenet.weights import fetch
from googlenet.weights.files import file_of
from googlenet.weights.weights import Weights
from minigrad.errors import InputError

log = logging.getLogger(__name__)

WEIGHTS_HELP = f"weights of any format that is read, or {', '.join(fetch.PUBLISHED)}: published ones, which are fetched"
PICTURES = (".png", ".svg", ".pdf")
PREPROCESS_HELP = "how images become the network's input, instead of what belongs to the weights"


def add_image_size(parser: argparse.ArgumentParser) -> None:
    """Add --image-size."""
    parser.add_argument("--image-size", type=int, metavar="S",
                        help="side of the network's input, where the file does not tell it (without this flag 224)")


def add_classes(parser: argparse.ArgumentParser) -> None:
    """Add --classes."""
    parser.add_argument("--classes", type=Path, metavar="NAMES.txt",
                        help="class names, one a line in order, such as ImageNet's synset_words.txt; for TF-slim's "
                        "1001 classes, 1000 names will do")


def path_of(text: str) -> Path:
    """Return the path of weights: `text` itself, or of the published ones of this name, fetched under a bar."""
    with bar(text) as progress:
        return fetch.resolve(text, progress)


def weights_of(text: str) -> list[str]:
    """Return the weights that `text` names: best.h5 of a run's folder, those of an ensemble's members that have ended,
    all that fit a pattern with *, which not every shell expands; otherwise `text` itself.

    Raises InputError where there are none."""
    if "*" not in text or os.path.lexists(text):
        return _weights_at(text)
    found = sorted(glob.glob(glob.escape(text).replace("[*]", "*")))
    if not found:
        raise InputError(f"{text}: no file or folder is called so: check the path")
    return [weights for each in found for weights in _weights_at(each)]


def _weights_at(text: str) -> list[str]:
    if text in fetch.PUBLISHED:
        return [text]
    ensemble = ensembles.file_of(text)
    if ensemble:
        return _members(ensemble)
    if not file_of(text).is_dir():
        return [text]
    best = Path(text) / "best.h5"
    if not best.is_file():
        raise InputError(f"{text} is a folder without best.h5, which a run writes after its first epoch: give the "
                         "folder of a run or an ensemble, or a weight file")
    return [str(best)]


def _members(path: Path) -> list[str]:
    """Return the weights of an ensemble's members that have ended, and say how many they are."""
    ensemble = ensembles.read(path)
    found = [str(each.best) for each in ensemble.members if each.folder.name in ensemble.ended and each.best.is_file()]
    if not found:
        raise InputError(f"{path.parent} is an ensemble of which no member has ended: give the folder of one, or go on "
                         f"with: python train.py --resume {shown_path(path.parent)}")
    log.info("%s: an ensemble, %d of its %d members have ended", path.parent, len(found), len(ensemble.members))
    return found


def check_output(out: Path, endings: tuple[str, ...], source: Path, force: bool) -> None:
    """Raise InputError where `out` has none of the endings, is the source, has no folder, or is there already."""
    if out.suffix.lower() not in endings:
        raise InputError(f"{out}: the file to write must end in {' or '.join(endings)}")
    check_place(out)
    if out.exists() and source.exists() and out.samefile(source):
        raise InputError(f"{out} is the file that is read: give another name for what is written")
    if out.exists() and not force:
        raise InputError(f"{out} is there already: give another name, or --force to overwrite it")


def check_run(folder: Path) -> None:
    """Raise InputError where this is no run's folder."""
    if not (folder / "last.h5").is_file():
        raise InputError(f"{folder}: there is no run's folder, which has a last.h5 in it; give its path, such as "
                         "runs/20261120-093000")


def check_place(out: Path) -> None:
    """Raise InputError where a file can't be written because there is no such folder, or it is one itself."""
    if not out.parent.is_dir():
        raise InputError(f"can't write {out}: there is no folder {out.parent}; make it first")
    if out.is_dir():
        raise InputError(f"can't write {out}: it is a folder; give the name of a file in it")


def check_picture(out: Path) -> None:
    """Raise InputError where a picture can't be written under this name."""
    check_place(out)
    if out.suffix.lower() not in PICTURES:
        raise InputError(f"--plot {out}: the picture's name must end in {', '.join(PICTURES)}")


def named_preprocessing(name: str, config: ModelConfig) -> Preprocessing:
    """Return one of PREPROCESSINGS at the size of a network's input."""
    return PREPROCESSINGS[name].at(config.image_size)


def class_names(path: Path, weights: Weights) -> tuple[str, ...]:
    """Return the network's classes by a list of their names, one a line, as they are beside a data set.

    Raises InputError where they are not as many as the network's, DataError where the list can't be read or repeats a
    name."""
    names = read_list(path)
    count = weights.config.classes
    if len(names) == count - 1 and weights.classes[0] == BACKGROUND:
        return (BACKGROUND, *names)
    if len(names) != count:
        raise InputError(f"{path} has {len(names)} names for a network of {count} classes: give one for each, in order")
    return names
