"""python -m googlenet export: weights for another framework."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from googlenet.commands import text
from googlenet.commands.files import WEIGHTS_HELP, add_image_size, check_output, path_of
from googlenet.weights import read, save
from googlenet.weights.placing import foreign, texts
from googlenet.weights.weights import Weights

UNNAMED = "class names and preprocessing, which the format has no place for: keep {source} beside it"
PADDED = ("padding and rounding of windows, which Caffe's prototxt has: BVLC's pads conv1 by 3 and rounds pools up, "
          "{variant} does not, so that activations will differ there")
FOREIGN = ("what {variant} and torchvision differ in: the names are torchvision's, but only this program builds the "
           "network from them")


def add(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the command's parser."""
    made: argparse.ArgumentParser = commands.add_parser(
        "export", help="weights for another framework", description=(
            "Write weights in the format that OUT's ending names: .caffemodel and .npz in Caffe's names, .safetensors "
            "in torchvision's, .onnx with the network's graph, .h5 for this program. Where the file has averaged "
            "weights, they are written."))
    made.add_argument("file", metavar="FILE", help=WEIGHTS_HELP)
    made.add_argument("out", type=Path, metavar="OUT", help=f"the file to write: {', '.join(WRITERS)}")
    made.add_argument("--raw", action="store_true", help="the raw weights, where the file has averaged ones too")
    add_image_size(made)
    made.add_argument("--force", action="store_true", help="overwrite OUT")
    return made


def run(flags: argparse.Namespace) -> int:
    """Export, and print what the other format can't hold."""
    source, out = path_of(flags.file), flags.out
    check_output(out, tuple(WRITERS), source, flags.force)
    weights = read(source, image_size=flags.image_size).tested(flags.raw)
    lost = WRITERS[out.suffix.lower()](out, weights)
    lines = [("read", str(source)), *text.described(weights), ("wrote", str(out)),
             *(("left out", each.format(source=source, variant=weights.config.variant)) for each in lost)]
    print(text.table(lines, left=(0, 1)))
    return 0


def _caffemodel(out: Path, weights: Weights) -> list[str]:
    from googlenet.weights.formats import caffemodel

    caffemodel.write(out, foreign(weights, "caffe"))
    return _lost_in_caffe(weights)


def _npz(out: Path, weights: Weights) -> list[str]:
    from googlenet.weights.formats import npz

    npz.write(out, foreign(weights, "caffe"))
    return _lost_in_caffe(weights)


def _lost_in_caffe(weights: Weights) -> list[str]:
    return [UNNAMED] + [PADDED] * (weights.config.variant != "caffe")


def _safetensors(out: Path, weights: Weights) -> list[str]:
    from googlenet.weights.formats import safetensors

    safetensors.write(out, foreign(weights, "torchvision"), texts(weights))
    return [FOREIGN] * (weights.config.variant != "torchvision" or weights.config.batch_norm == "folded")


def _onnx(out: Path, weights: Weights) -> list[str]:
    from googlenet.weights.formats.onnx import export

    whole = weights.config
    # What the graph does not have can't be promised beside it.
    config = replace(whole, heads="none", dtype="float32")
    export.write(out, weights.model(), texts(replace(weights, config=config)))
    return ["the auxiliary heads, which testing does not use"] * (whole.heads != "none")


def _h5(out: Path, weights: Weights) -> list[str]:
    save(out, weights)
    return []


WRITERS: dict[str, Callable[[Path, Weights], list[str]]] = {
    ".caffemodel": _caffemodel, ".safetensors": _safetensors, ".onnx": _onnx, ".npz": _npz, ".h5": _h5}
