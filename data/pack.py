"""Pack a data set: `python -m data.pack SRC OUT.h5 [--split train] [--resume]`.

Writes the pictures' own bytes, their labels, names and sizes into one HDF5 file, which is read by large pieces: a
million small files wear out a disk and its patience. SRC is whatever `open_dataset` opens: a folder of classes,
ImageNet's original tar files, CIFAR-10, MNIST. To use the result, put train.h5 and val.h5 into one folder and give that
as the data set. The format and its checks are told in data/packed.py.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data import scripts
from data.base import Dataset
from data.datasets import SPLITS, open_dataset
from data.packed import PackedDataset, open_file
from data.packing import Settings, pack

PROGRAM = "python -m data.pack"


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Pack a data set into one HDF5 file, or verify such a file.",
        epilog=f"examples: {PROGRAM} imagenet/ packed/train.h5;  {PROGRAM} imagenet/ packed/val.h5 --split val;  "
               f"{PROGRAM} --verify packed/train.h5",
    )  # fmt: skip
    parser.add_argument("source", metavar="SRC", help="a data set: folder, tar of ImageNet, 'embedded', fetched one")
    parser.add_argument("output", metavar="OUT.h5", nargs="?", type=Path, help="the file to write")
    parser.add_argument("--split", choices=SPLITS, default="train", help="which images (default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on where a packing was stopped or killed")
    parser.add_argument("--order", choices=("shuffled", "kept"),
                        help="of the images in the file (default: shuffled once for train, so that a block holds all "
                             "classes, which asks for a source that is read fast in any order; kept for the others)")
    parser.add_argument("--check", choices=("decode", "header"), default="decode",
                        help="decode each image to find damaged ones, or look at its header only, which is quicker and "
                             "misses those cut short (default: %(default)s)")
    parser.add_argument("--keep-damaged", action="store_true", help="pack damaged images too (default: leave them out)")
    parser.add_argument("--max-bad", type=int, default=100, metavar="N",
                        help="stop at more damaged images than this (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, metavar="N",
                        help="threads that read and decode (default: all cores, %(default)s)")
    parser.add_argument("--block-mib", type=float, default=16.0, metavar="MIB",
                        help="size of what is read in one go, and of what a crash loses (default: %(default)g)")
    parser.add_argument("--verify", action="store_true", help="check each image of the packed file SRC; write nothing")
    return parser


def main(arguments: list[str]) -> None:
    parser = make_parser()
    flags = parser.parse_args(arguments)
    for name, least in (("threads", 1), ("max_bad", 0)):
        if getattr(flags, name) < least:
            parser.error(f"--{name.replace('_', '-')} {getattr(flags, name)}: give at least {least}")
    if not 2**-10 <= flags.block_mib <= 1024:
        parser.error(f"--block-mib {flags.block_mib}: give 0.001 to 1024")
    if (flags.output is None) != flags.verify:
        parser.error("give OUT.h5, the file to write" if flags.output is None else "--verify takes one file")
    if flags.verify:
        verify(Path(flags.source))
    elif flags.resume and flags.output.exists():
        open_file(flags.output)
        print(f"{flags.output} is finished already")
    else:
        write(open_dataset(flags.source, flags.split), flags)


def write(dataset: Dataset, flags: argparse.Namespace) -> None:
    """Pack under a bar; damaged images are named as they are found."""
    order = flags.order or ("shuffled" if flags.split == "train" else "kept")
    settings = Settings(flags.split, order == "shuffled", flags.check == "decode", flags.keep_damaged,
                        int(flags.block_mib * 2**20))  # fmt: skip
    damaged = 0
    with tqdm(total=len(dataset), unit="image", disable=None) as bar:
        for packed in pack(dataset, flags.output, settings, resume=flags.resume, threads=flags.threads,
                           max_bad=flags.max_bad):  # fmt: skip
            for name, reason in packed.damaged:
                bar.write(f"damaged: {name!a}: {reason}", file=sys.stderr)
            damaged += len(packed.damaged)
            bar.update(packed.done - bar.n)
            bar.set_postfix_str(f"{packed.size / 2**30:.2f} GiB, {damaged} damaged", refresh=False)
    index = open_file(flags.output)
    print(f"{flags.output}: {len(index.labels)} images of {len(index.classes)} classes in {index.blocks[-1] + 1} "
          f"blocks, {flags.output.stat().st_size / 2**20:.1f} MiB; {damaged} damaged images "
          f"{'kept' if flags.keep_damaged else 'left out'}")


def verify(path: Path) -> None:
    """Compare every image with its checksum."""
    dataset = PackedDataset(path, open_file(path))
    for index in tqdm(np.arange(len(dataset)).tolist(), unit="image", disable=None):
        dataset.encoded(index)
    print(f"{path}: all {len(dataset)} images are as they were packed")


def run(arguments: list[str]) -> None:
    """Run `main` and exit: 0, 1 with one line for an error, 130 after Ctrl-C."""
    scripts.run(main, PROGRAM, arguments, "go on with --resume")


if __name__ == "__main__":
    run(sys.argv[1:])
