"""MATLAB's .mat files, as MatConvNet's `imagenet-googlenet-dag.mat` is one: versions 5 (what -v6 and -v7 save) and 7.3.

Version 5 is a chain of elements, each a type, a size and its bytes; a matrix is an element made of elements, and a
compressed one (-v7) unpacks to a matrix. Version 7.3 is HDF5 with the axes in reverse, read in a child process.
https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf

Arrays are named as MatConvNet names them, with MATLAB's axes, (H, W, I, O) for filters:
    DagNN     params(i).name, which its importer makes of the layer's: conv1_filter, conv1_bias
    SimpleNN  layers{i}.name and _filter or _bias for layers{i}.weights{1} or {2} (before 2015 .filters, .biases)
    others    the variable's name
MATLAB has no arrays of one axis: 1 x N and N x 1 are returned as (N,). Its importer turns conv1's channels to RGB.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from googlenet.weights.contents import Contents
from googlenet.weights.files import read_whole
from googlenet.weights.formats import isolated
from googlenet.weights.formats.elements import MOST_AXES, Order, shape_of
from googlenet.weights.formats.wording import DAMAGED, quoted, shown
from minigrad.errors import InputError

HEADER = 128  # bytes: a text, then the version and the byte order
ORDERS: dict[bytes, Order] = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}
BEYOND = 200 * 2**20  # bytes that may be unpacked beyond the file's size, and again that arrays may take
MOST = 200_000  # elements; a GoogLeNet has some ten thousand
DEPTH = 16  # structs and cells inside each other
STORAGE = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 6: "utf-32", 18: "utf-32"}
INT8, INT32, UINT32, MATRIX, COMPRESSED = 1, 5, 6, 14, 15
CELL, STRUCT, OBJECT, CHAR, DOUBLE = 1, 2, 3, 4, 6
NUMBERS = {DOUBLE: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
COMPLEX = 0x800

# A MATLAB value: numbers an array, characters a str, a cell a list, a struct {field: [its value in each element]}.
Value = Any


def recognise(start: bytes, path: Path) -> bool:
    """Return whether a file has the header of MATLAB 5 or 7.3."""
    return len(start) >= HEADER and (start[124:128] in ORDERS or start.startswith(b"MATLAB 7.3 MAT-file"))


def read(path: Path) -> Contents:
    """Return the arrays of all variables; raises InputError for a file that is damaged or has none."""
    content = read_whole(path)
    newer = bytes(content[:10]) == b"MATLAB 7.3"
    variables = _of_hdf5(path) if newer else _Reader(content, str(path)).variables()
    arrays: dict[str, np.ndarray] = {}
    left: list[str] = []
    for name, array in _arrays(variables, left):
        if not name or name in arrays:
            raise InputError(f"{path} has two arrays named {quoted(name)}, or one without a name: save it again")
        arrays[name] = array.reshape(-1) if array.ndim == 2 and 1 in array.shape else array
    if not arrays:
        raise InputError(f"{path} has no arrays of numbers in its variables {shown(', '.join(variables))}: give a "
                         "network of MatConvNet (params or layers), or variables that are arrays")
    notes = (f"{', '.join(map(shown, left))}: no weights, left out",) if left else ()
    return Contents(f"MATLAB {'7.3' if newer else '5'}", arrays, notes, metadata=_metadata(variables))


def _arrays(variables: dict[str, Value], left: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every array under its name; the names of variables that are none are added to `left`."""
    for name, value in variables.items():
        if isinstance(value, np.ndarray):
            if value.size:
                yield name, value
        elif name == "net" and isinstance(value, dict):
            yield from _arrays({field: values[0] for field, values in value.items() if values}, left)
        elif name == "params" and isinstance(value, dict) and {"name", "value"} <= set(value):
            yield from ((param, array) for param, array in zip(value["name"], value["value"], strict=True)
                        if isinstance(param, str) and isinstance(array, np.ndarray))
        elif name == "layers" and isinstance(value, list):
            for layer in value:
                yield from _simplenn(layer)
        else:
            left.append(name)


def _simplenn(layer: Value) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays of a layer of SimpleNN."""
    if not isinstance(layer, dict):
        return
    name, weights, filters, biases = (_first(layer, field) for field in ("name", "weights", "filters", "biases"))
    found = weights if isinstance(weights, list) else [filters, biases]
    for array, role in zip(found, ("filter", "bias"), strict=False):
        if isinstance(name, str) and isinstance(array, np.ndarray) and array.size:
            yield f"{name}_{role}", array


def _metadata(variables: dict[str, Value]) -> dict[str, str]:
    """Return what MatConvNet tells of the images: the mean to subtract, of red, green and blue."""
    net = variables.get("net", variables)
    meta = _first(net, "meta") or net
    average = _first(_first(meta, "normalization"), "averageImage")
    if not isinstance(average, np.ndarray) or average.size < 3 or average.size % 3:
        return {}
    channels = average.reshape(-1, 3).astype(np.float64).mean(axis=0)
    return {"average_image": " ".join(f"{value:.3f}" for value in channels)}


def _first(value: Value, field: str) -> Value:
    """Return a field of a struct's first element, None where there is none."""
    found = value.get(field) if isinstance(value, dict) else None
    return found[0] if isinstance(found, list) and found else found if isinstance(found, dict) else None


class _Reader:
    """Reads version 5. Every size is compared with what is left before it is used."""

    def __init__(self, content: memoryview, where: str):
        self.content, self.where = content, where
        order = ORDERS.get(bytes(content[124:HEADER]))
        if order is None:
            raise InputError(f"{where} does not begin as a MATLAB file of version 5 or 7.3: {DAMAGED}, or save "
                             "it with -v7")
        self.order, self.elements = order, 0
        self.unpacked = self.numbers = len(content) + BEYOND  # bytes left

    def variables(self) -> dict[str, Value]:
        variables: dict[str, Value] = {}
        position = HEADER
        while position < len(self.content):
            kind, data, position = self._element(self.content, position)
            if kind == COMPRESSED:
                kind, data, _ = self._element(self._unpacked(data), 0)
            if kind != MATRIX:
                raise self._damaged(f"a variable is of type {kind}")
            name, value = self._matrix(data, 0)
            if name in variables:
                raise self._damaged(f"two variables are named {quoted(name)}")
            variables[name] = value
        return variables

    def _element(self, content: memoryview, position: int) -> tuple[int, memoryview, int]:
        """Return an element's type and bytes, and where the next one begins."""
        self.elements += 1
        if self.elements > MOST:
            raise self._damaged(f"it has more than {MOST:,} elements")
        if position + 8 > len(content):
            raise self._damaged("it ends within an element")
        kind, size = struct.unpack_from(f"{self.order}II", content, position)
        if kind >> 16:  # up to four bytes stand in the size's place
            size, kind = kind >> 16, kind & 0xFFFF
            if size > 4:
                raise self._damaged(f"a short element has {size} bytes")
            return kind, content[position + 4:position + 4 + size], position + 8
        begin = position + 8
        if begin + size > len(content):
            raise self._damaged(f"an element has {size:,} bytes, and {len(content) - begin:,} are left")
        following = begin + size if kind == COMPRESSED else begin + (size + 7) // 8 * 8
        return kind, content[begin:begin + size], following

    def _unpacked(self, data: memoryview) -> memoryview:
        inflater = zlib.decompressobj()
        try:
            content = memoryview(inflater.decompress(data, self.unpacked + 1))
        except zlib.error as error:
            raise self._damaged(f"it does not unpack ({error})") from error
        self.unpacked -= len(content)
        if self.unpacked < 0:
            raise InputError(f"{self.where} would unpack to more than its own size and {BEYOND:,} bytes: save it with "
                             "-v6 if it is to be trusted")
        if not inflater.eof:
            raise self._damaged("a compressed variable has no end")
        return content

    def _matrix(self, content: memoryview, depth: int) -> tuple[str, Value]:
        """Return a matrix's name and value; nothing at all stands for an empty one."""
        if not content:
            return "", np.zeros((0, 0))
        if depth > DEPTH:
            raise self._damaged(f"more than {DEPTH} structs and cells stand inside each other")
        flags, position = self._integers(content, 0, UINT32)
        shape, position = self._integers(content, position, INT32)
        kind, data, position = self._element(content, position)
        name = bytes(data).decode("latin-1")
        if not flags or not 2 <= len(shape) <= MOST_AXES or min(shape) < 0 or kind != INT8:
            raise self._damaged("a matrix has no proper shape or name")
        of, rest = flags[0] & 0xFF, content[position:]
        if of in NUMBERS:
            return name, self._numbers(rest, of, shape, name, bool(flags[0] & COMPLEX))
        if of == CHAR:
            return name, self._text(rest)
        count = math.prod(shape)
        if of == CELL:
            return name, self._values(rest, count, depth)
        if of in (STRUCT, OBJECT):
            return name, self._struct(rest, of, count, depth)
        return name, None  # sparse matrices, functions, objects of newer classes

    def _integers(self, content: memoryview, position: int, expected: int) -> tuple[list[int], int]:
        kind, data, position = self._element(content, position)
        if kind != expected or len(data) % 4:
            raise self._damaged(f"integers are of type {kind}")
        return np.frombuffer(data, f"{self.order}{STORAGE[kind]}").tolist(), position

    def _numbers(self, content: memoryview, of: int, shape: Sequence[int], name: str, is_complex: bool) -> np.ndarray:
        kind, data, _ = self._element(content, 0)
        stored = STORAGE.get(kind)
        if stored is None or is_complex:
            raise self._damaged(f"{quoted(name)} is complex, or stored as type {kind}")
        count = math.prod(shape)
        if count * np.dtype(stored).itemsize != len(data) or shape_of(shape) is None:
            raise self._damaged(f"{quoted(name)} is {tuple(shape)}, but {len(data):,} bytes of {stored} are there")
        self.numbers -= count * np.dtype(NUMBERS[of]).itemsize
        if self.numbers < 0:
            raise InputError(f"{self.where} has more numbers than its size and {BEYOND:,} bytes: save it with -v6")
        array = np.ndarray(tuple(shape), f"{self.order}{stored}", data, order="F")
        return array.astype(NUMBERS[of], order="F", copy=not array.flags.aligned)

    def _text(self, content: memoryview) -> str:
        kind, data, _ = self._element(content, 0)
        if kind not in TEXTS:
            raise self._damaged(f"characters are of type {kind}")
        code = TEXTS[kind] + ({"<": "-le", ">": "-be"}[self.order] if kind not in (1, 2, 16) else "")
        return bytes(data).decode(code, errors="replace")

    def _values(self, content: memoryview, count: int, depth: int) -> list[Value]:
        """Return so many unnamed matrices that stand one behind the other."""
        if count * 8 > len(content):
            raise self._damaged(f"a cell or struct has {count:,} values in {len(content):,} bytes")
        values, position = [], 0
        for _ in range(count):
            kind, data, position = self._element(content, position)
            if kind != MATRIX:
                raise self._damaged(f"a cell or struct holds type {kind}")
            values.append(self._matrix(data, depth + 1)[1])
        return values

    def _struct(self, content: memoryview, of: int, count: int, depth: int) -> dict[str, list[Value]]:
        position = self._element(content, 0)[2] if of == OBJECT else 0  # the class's name
        length, position = self._integers(content, position, INT32)
        kind, data, position = self._element(content, position)
        if len(length) != 1 or length[0] < 1 or len(data) % length[0] or kind != INT8:
            raise self._damaged("a struct's fields have no names")
        names = [bytes(data[i:i + length[0]]).split(b"\0")[0].decode("latin-1") for i in range(0, len(data), length[0])]
        if len(set(names)) != len(names):
            raise self._damaged("two fields of a struct have one name")
        values = self._values(content[position:], count * len(names), depth)
        return {name: values[i::len(names)] for i, name in enumerate(names)}

    def _damaged(self, what: str) -> InputError:
        return InputError(f"{self.where} is damaged: {what}: {DAMAGED}")


def _of_hdf5(path: Path) -> dict[str, Value]:
    """Return the variables of version 7.3: arrays stand in reverse, cells and structs' elements below #refs#."""
    tree = isolated.read_tree(path)
    groups: dict[str, list[str]] = {}
    for name in sorted({*tree.arrays, *tree.references, *tree.attributes} - {""}):
        above, _, last = name.rpartition("/")
        groups.setdefault(above, []).append(last)

    found: dict[str, Value] = {}  # each made once: references upon references to one cell would multiply

    def value(name: str, depth: int) -> Value:
        if name not in found:
            found[name] = made(name, depth)
        return found[name]

    def made(name: str, depth: int) -> Value:
        if depth > DEPTH:
            raise InputError(f"{path} is damaged: more than {DEPTH} structs and cells stand inside each other: "
                             f"{DAMAGED}")
        if name in tree.references:
            return [value(re.sub("^/", "", target), depth + 1) for target in tree.references[name]]
        if name not in tree.arrays:
            return {field: elements(f"{name}/{field}", depth) for field in groups.get(name, [])}
        array = tree.arrays[name]
        return array.astype("<u2").tobytes().decode("utf-16-le", "replace") if kind(name) == "char" else array.T

    def kind(name: str) -> str:
        return "".join(tree.attributes.get(name, {}).get("MATLAB_class", []))

    def elements(field: str, depth: int) -> list[Value]:
        """The field's value in each element; a struct of one element has it in place."""
        values = value(field, depth + 1)
        return values if field in tree.references and kind(field) != "cell" else [values]

    return {name: value(name, 0) for name in groups.get("", []) if not name.startswith("#")}
