"""NumPy archives (.npz): weights under Caffe's or Chainer's names, or another framework's recorded activations.

A zip archive of .npy files, each a header (`{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4)}`) and the values.
Pickled objects are refused; arrays of text become metadata.
https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import ast
import io
import math
import re
import struct
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from googlenet.weights.contents import Contents
from googlenet.weights.files import read_whole, write_whole
from googlenet.weights.formats import zipped
from googlenet.weights.formats.elements import shape_of
from googlenet.weights.formats.wording import quoted, shown
from minigrad.errors import InputError

FORMAT = "NumPy archive"
BEYOND = 400 * 2**20  # bytes that the arrays may have more than the archive: one of zeros is a thousandth of its arrays
LONGEST_HEADER = 1000  # characters; an array of 64 axes has some 700
NUMBERS = re.compile(r"[<>=|]?([fiu][1248]|b1)")
TEXTS = re.compile(r"[<>=|]?[US][1-9]\d{0,5}")


def recognise(start: bytes, path: Path) -> bool:
    """Return whether a file is a zip archive whose first member is a .npy file, or an empty one."""
    return start.startswith(zipped.END_MARK) or zipped.first_name(start).endswith(".npy")


def read(path: Path) -> Contents:
    """Return an archive's arrays; raises InputError for one that is damaged, holds pickles, or unpacks to too much."""
    arrays: dict[str, np.ndarray] = {}
    texts: dict[str, str] = {}
    for member in zipped.members(read_whole(path), str(path), BEYOND):
        name, where = member.name.removesuffix(".npy"), f"{path}: {shown(member.name)}"
        if name == member.name or not name:
            raise InputError(f"{where} is no .npy array: give an archive that numpy.savez wrote")
        array = _array(zipped.unpack(member, str(path)), where)
        if array.dtype.kind in "US":
            texts[name] = _text(array, where)
        else:
            arrays[name] = array
    if not arrays:
        raise InputError(f"{path} holds no arrays of numbers: give an archive of weights or activations")
    return Contents(FORMAT, arrays, metadata=texts)


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an archive that numpy.load reads, uncompressed, whole or not at all; the same arrays make the same file."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():  # all of 1980, ZipInfo's default
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
    write_whole(path, [memory.getbuffer()])


def _array(content: memoryview, where: str) -> np.ndarray:
    """Return the array of a .npy file, in native byte order and aligned; a view of the bytes where it can be."""
    descr, fortran, shape, begin = _header(content, where)
    kind = re.sub("^[=|]", "", descr)  # both say: as this machine has it
    size = np.dtype(kind).itemsize * math.prod(shape)
    if size != len(content) - begin:
        raise InputError(f"{where} is {shape} of {descr}, {size:,} bytes, but holds {len(content) - begin:,}: "
                         "write it again")
    array = np.ndarray(shape, kind, content, begin, order="F" if fortran else "C")
    return array.astype(array.dtype.newbyteorder("="), copy=not array.flags.aligned)


def _header(content: memoryview, where: str) -> tuple[str, bool, tuple[int, ...], int]:
    """Return the type, whether the first axis varies fastest, the shape, and where the values begin."""
    start = bytes(content[:12])
    if start[:6] != b"\x93NUMPY" or len(start) < 12 or start[6] not in (1, 2, 3):
        raise InputError(f"{where} does not begin as a .npy file of version 1 to 3: write it with numpy.save")
    begin = 10 if start[6] == 1 else 12
    length = struct.unpack_from("<H" if begin == 10 else "<L", start, 8)[0]
    if begin + length > len(content) or length > LONGEST_HEADER:
        raise InputError(f"{where} has a header of {length:,} characters, at most {LONGEST_HEADER:,} are read: write "
                         "it again")
    fields = _literal(bytes(content[begin:begin + length]), where)
    descr, fortran, shape = fields["descr"], fields["fortran_order"], fields["shape"]
    if descr == "|O":
        raise InputError(f"{where} is pickled objects, which could run code and are not read: save arrays of numbers")
    if not isinstance(descr, str) or not (NUMBERS.fullmatch(descr) or TEXTS.fullmatch(descr)):
        raise InputError(f"{where} is of type {quoted(str(descr))}, which is not read: save it as float32")
    if not isinstance(fortran, bool) or not isinstance(shape, tuple) or shape_of(shape) is None:
        raise InputError(f"{where} has a header that describes no array: write it again")
    return descr, fortran, shape, begin + length


def _literal(header: bytes, where: str) -> dict:
    """Return the header's dictionary. literal_eval runs no code; deep nesting ends in one of these errors."""
    try:
        fields = ast.literal_eval(re.sub(r"(\d)L\b", r"\1", header.decode("utf-8")).strip())  # Python 2 wrote 64L
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise InputError(f"{where} has a header that can't be read: write it again") from error
    if not isinstance(fields, dict) or set(fields) != {"descr", "fortran_order", "shape"}:
        raise InputError(f"{where} has a header that describes no array: write it again")
    return fields


def _text(array: np.ndarray, where: str) -> str:
    """Return an array of texts, a line each."""
    array = np.ascontiguousarray(array).reshape(-1)
    if array.dtype.kind == "U" and array.size and array.view(np.uint32).max() > sys.maxunicode:
        raise InputError(f"{where} holds characters that Unicode has not: write it again")  # NumPy raises SystemError
    return "\n".join(text.decode(errors="replace") if isinstance(text, bytes) else text for text in array.tolist())
