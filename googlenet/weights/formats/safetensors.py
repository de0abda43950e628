"""safetensors: eight bytes with the length of a header, the header in JSON, and the arrays' bytes one behind another.

    {"__metadata__": {"format": "pt"}, "fc.bias": {"dtype": "F32", "shape": [7], "data_offsets": [0, 28]}}

Arrays are C-ordered and little endian; offsets count from the header's end, and leave no gaps.
https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from googlenet.weights.contents import Contents
from googlenet.weights.files import read_whole, write_whole
from googlenet.weights.formats.elements import BFLOAT16, decode, item_size, shape_of, told_widened
from googlenet.weights.formats.wording import DAMAGED, quoted
from minigrad.errors import InputError

# The format allows a header of 10**8 bytes, whose JSON could fill 3 GB. A GoogLeNet's has 40,000, and 1,100 brackets.
MOST_ALLOWED = 10**8
LONGEST = 2**23  # bytes that are read
MOST_BRACKETS = 2**17  # opening ones: each makes a container
METADATA = "__metadata__"
# In the order in which the library stores arrays, wide values first, so that all are aligned.
DTYPES = {"U64": "uint64", "I64": "int64", "F64": "float64", "F32": "float32", "U32": "uint32", "I32": "int32",
          "BF16": BFLOAT16, "F16": "float16", "U16": "uint16", "I16": "int16", "I8": "int8", "U8": "uint8",
          "BOOL": "bool"}
CODES = {dtype: code for code, dtype in DTYPES.items()}


class Entry(NamedTuple):
    """What the header says of an array; `begin` and `end` count bytes from the header's end."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def recognise(start: bytes, path: Path) -> bool:
    """Return whether a file begins with a length and a JSON object."""
    return len(start) > 9 and 2 <= struct.unpack_from("<Q", start)[0] <= MOST_ALLOWED and start[8:10] in (b'{"', b"{}")


def read(path: Path) -> Contents:
    """Return the file's arrays, views of its bytes where they can be.

    Raises InputError for a header that is malformed, or doesn't describe every byte of the file once."""
    content = read_whole(path)
    try:
        size = struct.unpack_from("<Q", content)[0] if len(content) >= 8 else 0
        if not 2 <= size <= len(content) - 8 or size > LONGEST:
            raise InputError(f"its header is {size} bytes, expected 2 to {min(LONGEST, max(len(content) - 8, 2))}: "
                             f"{DAMAGED}")
        header = _json(content[8:8 + size])
        metadata = header.pop(METADATA, {})
        if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
            raise InputError(f"its {METADATA} is no object of texts: {DAMAGED}")
        _check_texts([*header, *metadata, *metadata.values()])
        entries = {name: _entry(name, described) for name, described in header.items()}
        values = content[8 + size:]
        _check_order(entries, len(values))
        arrays = {name: decode(values[entry.begin:entry.end], entry.dtype).reshape(entry.shape)
                  for name, entry in entries.items()}
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    notes = told_widened([name for name, entry in entries.items() if entry.dtype == BFLOAT16])
    return Contents("safetensors", arrays, notes, metadata=metadata)


def write(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays as the safetensors library does: by type of values, wide ones first, then by name.

    Raises InputError for a type of values that the format lacks, and where the file can't be written."""
    for name, array in arrays.items():
        if array.dtype.name not in CODES or name == METADATA:
            raise InputError(f"{path}: {name} ({array.dtype}) can't be stored: expected numbers in one of "
                             f"{', '.join(CODES)}, under another name than {METADATA}")
    header: dict[str, object] = {METADATA: dict(metadata)} if metadata else {}
    position, order = 0, list(CODES)
    names = sorted(arrays, key=lambda name: (order.index(arrays[name].dtype.name), name))
    for name in names:
        array = arrays[name]
        header[name] = {"dtype": CODES[array.dtype.name], "shape": list(array.shape),
                        "data_offsets": [position, position + array.nbytes]}
        position += array.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(-len(text) // 8 * -8)  # spaces, so that the values begin at a multiple of 8
    write_whole(path, _chunks(text, [arrays[name] for name in names]))


def _chunks(header: bytes, arrays: list[np.ndarray]) -> Iterator[bytes]:
    yield struct.pack("<Q", len(header)) + header
    for array in arrays:
        yield array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _json(content: memoryview) -> dict[str, object]:
    text = bytes(content)
    if text.count(b"{") + text.count(b"[") > MOST_BRACKETS:
        raise InputError(f"its header describes more than {MOST_BRACKETS // 3} arrays: save nothing but the weights")
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_once)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"its header is not JSON ({type(error).__name__}): {DAMAGED}") from error
    if not isinstance(header, dict):
        raise InputError(f"its header is {type(header).__name__}, expected a JSON object: {DAMAGED}")
    return header


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        (twice, _), = Counter(name for name, _ in pairs).most_common(1)
        raise InputError(f"its header has {quoted(twice)} twice: {DAMAGED}")
    return found


def _check_texts(texts: list[str]) -> None:
    """JSON can spell half of a surrogate pair, which can be neither printed nor stored."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"its header has a name or text that isn't Unicode: {DAMAGED}") from error


def _entry(name: str, described: object) -> Entry:
    """Return what the header says of one array, whose offsets fit its shape."""
    fields = described if isinstance(described, dict) else {}
    told, dtype, offsets = quoted(name), fields.get("dtype"), fields.get("data_offsets")
    if set(fields) != {"dtype", "shape", "data_offsets"} or not isinstance(dtype, str):
        raise InputError(f"its header has of {told} no dtype, shape and data_offsets: {DAMAGED}")
    if dtype not in DTYPES:
        raise InputError(f"its array {told} is {quoted(dtype)}, expected one of {', '.join(DTYPES)}: convert it")
    shape = shape_of(fields["shape"])
    if shape is None:
        raise InputError(f"its array {told} has a shape that no array can have: {DAMAGED}")
    begin, end = offsets if isinstance(offsets, list) and len(offsets) == 2 else (None, None)
    size = math.prod(shape) * item_size(DTYPES[dtype])
    if type(begin) is not int or type(end) is not int or begin < 0 or end - begin != size:
        raise InputError(f"its array {told} {shape} of {dtype} is {size} bytes, which its data_offsets are not: "
                         f"{DAMAGED}")
    return Entry(DTYPES[dtype], shape, begin, end)


def _check_order(entries: Mapping[str, Entry], size: int) -> None:
    """Raise InputError unless the arrays cover all bytes behind the header, each once."""
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != position:
            raise InputError(f"its array {quoted(name)} begins at byte {entry.begin}, expected {position}: {DAMAGED}")
        position = entry.end
    if position != size:
        raise InputError(f"its arrays end at byte {position} of {size}: {DAMAGED}")
