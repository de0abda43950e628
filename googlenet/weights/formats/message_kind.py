"""Which framework's message a file of protocol buffers holds: they have no magic number, so their fields must tell."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping

from googlenet.weights.formats.protobuf import Buffer, Span, spans

# The wire types of the fields that each message has; others may be there, as forks of the frameworks add some.
NET_PARAMETER = {1: (2,), 2: (2,), 3: (2,), 4: (0, 2), 5: (0,), 6: (2,), 7: (0,), 8: (2,), 100: (2,)}
BLOB_PROTO = {1: (0,), 2: (0,), 3: (0,), 4: (0,), 5: (2, 5), 6: (2, 5), 7: (2,), 8: (1, 2), 9: (1, 2)}
MODEL_PROTO = {1: (0,), 2: (2,), 3: (2,), 4: (2,), 5: (0,), 6: (2,), 7: (2,), 8: (2,), 14: (2,)}
GRAPH_DEF = {1: (2,), 2: (2,), 3: (0,), 4: (2,)}
LAYER = {1: (2,), 2: (2,), 7: (2,)}  # of Caffe: name, type, blobs
V1_LAYER = {1: (2,), 2: (2,), 4: (2,), 5: (0,), 6: (2,)}  # V0's layer, bottom, name, type, blobs
BLOB_SHAPE = {1: (0, 2)}
NODE_DEF = {1: (2,), 2: (2,), 3: (2,), 4: (2,), 5: (2,)}
GRAPH_PROTO = {1: (2,), 2: (2,), 5: (2,), 10: (2,), 11: (2,), 12: (2,), 13: (2,)}


def kind_of(source: str | os.PathLike[str] | Buffer) -> str | None:
    """Return which message a file, or its bytes, holds: "caffe", "caffe mean", "onnx", "graphdef"; None for no such.

    It reads the outermost fields and a layer's, not the values. A file that was cut, or is damaged further on, is still
    told by its fields before that, so that its reader can say what is wrong. Nothing is raised."""
    if isinstance(source, memoryview | bytes | bytearray):
        return _kind(source)
    try:
        with open(source, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, \
                memoryview(mapped) as content:
            return _kind(content)
    except (OSError, ValueError):  # missing, a folder, empty
        return None


def _kind(content: Buffer) -> str | None:
    fields, _whole = spans(content)
    have = {field.number for field in fields}
    if _fits(fields, GRAPH_DEF) and _has(content, fields, 1, NODE_DEF, {1, 2}):
        return "graphdef"
    if _fits(fields, MODEL_PROTO) and 1 in have and _has(content, fields, 7, GRAPH_PROTO, {1}):
        return "onnx"
    if _fits(fields, BLOB_PROTO) and have & {5, 8} and (have >= {1, 2, 3, 4} or
                                                        _has(content, fields, 7, BLOB_SHAPE, {1})):
        return "caffe mean"
    if _fits(fields, NET_PARAMETER) and (_has(content, fields, 100, LAYER, {1}) or
                                         _has(content, fields, 2, V1_LAYER, {4}) or
                                         _has(content, fields, 2, V1_LAYER, {1})):
        return "caffe"
    return None


def _fits(fields: list[Span], known: Mapping[int, tuple[int, ...]]) -> bool:
    return all(field.wire in known.get(field.number, (field.wire,)) for field in fields)


def _has(content: Buffer, fields: list[Span], number: int, known: Mapping[int, tuple[int, ...]],
         needed: set[int]) -> bool:
    """Return whether the first message of that number is of the known fields, with all that are needed."""
    first = next((field for field in fields if field.number == number), None)
    if first is None:
        return False
    inner, _whole = spans(content, first.start, first.stop)
    return _fits(inner, known) and {field.number for field in inner} >= needed
