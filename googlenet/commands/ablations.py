"""python -m googlenet ablations: the paper's own questions, as a table and a picture."""
from __future__ import annotations

import argparse
from pathlib import Path

from googlenet.ablations.questions import EPOCHS, QUESTIONS, SEEDS, SIZE, WIDTH
from googlenet.commands.files import check_picture
from minigrad.errors import InputError


def add(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the command's parser."""
    questions = "; ".join(f"{name}: {question.title} ({question.source})" for name, question in QUESTIONS.items())
    made: argparse.ArgumentParser = commands.add_parser(
        "ablations", help="what the paper's choices are worth: a table of trained variations", description=(
            "Train a small base network, and networks that differ from it in one thing, from several seeds each; print "
            "a table of their test errors with intervals, and draw it. The runs that have ended are lines of "
            "results.csv; after Ctrl-C or a crash the same command goes on. The recipe is that of train.py --preset "
            f"embedded, with nothing held out. {questions}"))
    made.add_argument("--data", default="embedded", help="data set: 'embedded', or a path (default %(default)s)")
    made.add_argument("--seeds", type=int, default=SEEDS, help="runs of each variation (default %(default)s)")
    made.add_argument("--only", nargs="+", choices=QUESTIONS, metavar="QUESTION", default=list(QUESTIONS),
                      help=f"some of the questions: {', '.join(QUESTIONS)}")
    made.add_argument("--output", type=Path, default=Path("runs/ablations"), help="folder (default %(default)s)")
    made.add_argument("--plot", type=Path, metavar="FILE", help="the picture (default ablations.png in the folder)")
    base = made.add_argument_group("base")
    base.add_argument("--width", type=float, default=WIDTH, help="its width (default %(default)s)")
    base.add_argument("--image-size", type=int, default=SIZE, help="side of its input, pixels (default %(default)s)")
    base.add_argument("--epochs", type=int, default=EPOCHS, help="of every run (default %(default)s)")
    base.add_argument("--batch-size", "-b", type=int, help="images in a step (default: as --preset embedded)")
    base.add_argument("--lr", type=float, help="first learning rate (default: as --preset embedded)")
    made.add_argument("--threads", type=int, default=0, help="threads that compute; 0: one a core")
    made.add_argument("--loader-threads", type=int, default=1, help="threads that decode images (default %(default)s)")
    return made


def run(flags: argparse.Namespace) -> int:
    """Train what has not been trained; print and write what came out."""
    from googlenet.commands import variations  # here, as other commands need nothing of training

    if flags.seeds < 1:
        raise InputError(f"--seeds {flags.seeds}: give at least 1; intervals need 2")
    if flags.plot:
        check_picture(flags.plot)
    return variations.run(flags)
