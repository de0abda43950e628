"""ONNX models: the arrays of a GoogLeNet's graph, and which GoogLeNet it is. The package `onnx` is not needed.

`messages` are the file's, `layers` (with `operators` and `quantised`) what its graph computes, `structure` which
GoogLeNet that is; `export` writes our networks.
"""

from __future__ import annotations

from pathlib import Path

from googlenet.weights.contents import Contents
from googlenet.weights.files import read_whole
from googlenet.weights.formats.message_kind import kind_of
from googlenet.weights.formats.onnx.messages import load
from googlenet.weights.formats.onnx.structure import understand
from googlenet.weights.formats.wording import shown
from minigrad.errors import InputError


def recognise(start: bytes, path: Path) -> bool:
    """Return whether a file is an ONNX model; `start` alone does not tell."""
    return kind_of(path) == "onnx"


def read(path: Path) -> Contents:
    """Return the arrays that the graph's layers have, and those that nothing reads; constants that only say how the
    graph computes (shapes, scales) are in the graph's description instead.

    Raises InputError for a file that is damaged, or whose graph is no GoogLeNet known, with the node that differs."""
    model = load(read_whole(path), str(path))
    try:
        found = understand(model)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    told = ", ".join(filter(None, [f"opset {model.opset}", shown(model.producer)]))
    return Contents(f"ONNX ({told})", found.arrays, (*model.notes, *found.notes), found.graph, model.metadata)
