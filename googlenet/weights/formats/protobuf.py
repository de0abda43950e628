"""Google's protocol buffers, as Caffe, ONNX and TensorFlow store models: a reader and a writer on NumPy alone.

A message is a row of fields; each begins with a varint, `number << 3 | wire type`, and the type says how it goes on:
0 a varint (seven bits a byte, the lowest first), 1 eight bytes, 2 a length and as many bytes, 5 four bytes. What a
number means stands in a schema, which the file doesn't carry: here a mapping number -> Field. Repeated numbers come one
a field, or packed: many in one field of type 2. All numbers are little endian.

Bytes from outside are not trusted: every length is compared with what is left before anything is made of it, messages
nest at most DEEPEST deep, and a model of more than MOST_FIELDS fields is refused, as each costs time and memory.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np

from googlenet.weights.formats.wording import DAMAGED
from minigrad.errors import InputError

DEEPEST = 64
MOST_FIELDS = 2**17  # a frozen graph of a thousand nodes has some 30,000; values in one run count as one
VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5  # wire types
SIZES = {EIGHT_BYTES: 8, FOUR_BYTES: 4}
SHORT = 64  # bytes of packed varints that a plain loop decodes faster than NumPy

Schema = Mapping[int, "Field"]
Buffer = memoryview | bytes | bytearray


class Field(NamedTuple):
    """A field of a message: its name, how it is coded (a key of WIRE_TYPES), and a message's own schema.

    A schema that contains itself is given by a function."""

    name: str
    kind: str
    schema: Callable[[], Schema] | Schema | None = None


class Span(NamedTuple):
    """A field in a message's bytes: where its content starts and stops, without the key and the length."""

    number: int
    wire: int
    start: int
    stop: int


# The wire types that a kind may have; the last of them is the one that is written.
WIRE_TYPES = {
    "message": (LENGTH,), "string": (LENGTH,), "bytes": (LENGTH,),
    "int": (VARINT,), "ints": (VARINT, LENGTH),
    "float": (FOUR_BYTES,), "double": (EIGHT_BYTES,), "fixed32": (FOUR_BYTES,), "fixed64": (EIGHT_BYTES,),
    "floats": (FOUR_BYTES, LENGTH), "doubles": (EIGHT_BYTES, LENGTH),
}
ONE = {"float": struct.Struct("<f"), "double": struct.Struct("<d"),
       "fixed32": struct.Struct("<I"), "fixed64": struct.Struct("<Q")}
MANY: dict[str, np.dtype[Any]] = {"floats": np.dtype("<f4"), "doubles": np.dtype("<f8")}
NONE = {kind: np.frombuffer(b"", dtype.newbyteorder("=")) for kind, dtype in MANY.items()}


def parse(content: Buffer, schema: Schema, where: str) -> dict[str, Any]:
    """Return every field of a schema by its name: a list of the values in the file's order, empty where it is absent.

    Values are int (signed, 64 bits; "fixed32" and "fixed64" unsigned), float, str, memoryview ("bytes") or dict
    ("message"). "floats" and "doubles" are one array instead of a list, read-only and possibly a view of the content,
    which need not be aligned. Fields that the schema lacks are skipped.

    Raises InputError, beginning with `where`, for whatever is malformed."""
    reader = _Reader(content, where)
    return reader.message(0, len(reader.content), schema, 0)


def last(values: Any, default: Any) -> Any:
    """Return the last value of a field, the one that counts where it can have but one, or what stands for none."""
    return values[-1] if len(values) else default


def spans(content: Buffer, at: int = 0, end: int | None = None) -> tuple[list[Span], bool]:
    """Return the fields of a message up to the first that is malformed, and whether there is none.

    A last field that was cut is returned as far as it goes."""
    reader = _Reader(content, "")
    end = len(reader.content) if end is None else end
    found: list[Span] = []
    try:
        while at < end:
            number, wire, _value, start, at = reader.field(at, end)
            found.append(Span(number, wire, min(start, end), min(at, end)))
    except InputError:
        return found, False
    return found, at == end


def varint(content: memoryview, at: int, end: int) -> tuple[int, int]:
    """Return an unsigned number of up to 64 bits, and where it stops; ValueError, which says why, where there is none.

    It has seven bits a byte, the lowest first; all its bytes but the last have the eighth bit set."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise ValueError("a number is cut short")
        byte = content[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            break
    else:
        raise ValueError("a number is more than 10 bytes long")
    if value >= 2**64:
        raise ValueError("a number has more than 64 bits")
    return value, at


class _Reader:
    """Decodes one file; `at`, `start`, `stop` and `end` are places in its content."""

    def __init__(self, content: Buffer, where: str):
        self.content = memoryview(content).cast("B")
        self.where = where
        self.fields = 0

    def message(self, at: int, end: int, schema: Schema, depth: int) -> dict[str, Any]:
        if depth > DEEPEST:
            self.fail(at, f"messages nest more than {DEEPEST} deep")
        found: dict[str, Any] = {field.name: [] for field in schema.values()}
        while at < end:
            tag = at
            number, wire, value, start, at = self.field(at, end)
            if at > end:
                self.fail(tag, f"field {number} is {at - start} bytes long, where {end - start} are left")
            known = schema.get(number)
            if known is None:
                continue
            if wire not in WIRE_TYPES[known.kind]:
                self.fail(tag, f"field {known.name} ({number}) has wire type {wire}, not {WIRE_TYPES[known.kind][-1]}")
            if known.kind == "message":
                inner = known.schema() if callable(known.schema) else known.schema
                assert inner is not None, f"{known.name} has no schema"
                found[known.name].append(self.message(start, at, inner, depth + 1))
            elif known.kind in MANY:
                if wire != LENGTH:
                    at = self.run(tag, start, at, end)
                found[known.name].append(self.array(MANY[known.kind], wire, tag, start, at))
            elif known.kind == "ints" and wire == LENGTH:
                found[known.name] += self.varints(start, at)
            else:
                found[known.name].append(self.value(known, value, start, at))
        for field in schema.values():
            if field.kind in MANY:
                found[field.name] = _joined(found[field.name], field.kind)
        return found

    def field(self, at: int, end: int) -> tuple[int, int, int, int, int]:
        """Return number, wire type, a varint's value, and where the field's content starts and stops.

        The stop is what the file says, and may be past the end."""
        self.fields += 1
        if self.fields > MOST_FIELDS:
            self.fail(at, f"there are more than {MOST_FIELDS} fields")
        tag = at
        key, at = self.varint(at, end)
        number, wire = key >> 3, key & 7
        if not 0 < number < 2**29:
            self.fail(tag, f"there is no field {number}")
        if wire == VARINT:
            value, stop = self.varint(at, end)
            return number, wire, value, at, stop
        if wire == LENGTH:
            size, at = self.varint(at, end)
        elif wire in SIZES:
            size = SIZES[wire]
        else:
            self.fail(tag, f"field {number} has wire type {wire}, which no model uses")
        return number, wire, 0, at, at + size

    def varint(self, at: int, end: int) -> tuple[int, int]:
        try:
            return varint(self.content, at, end)
        except ValueError as error:
            self.fail(at, str(error))

    def varints(self, start: int, stop: int) -> list[int]:
        """Return packed varints."""
        if stop - start <= SHORT:
            values = []
            while start < stop:
                value, start = self.varint(start, stop)
                values.append(_signed(value))
            return values
        digits = np.frombuffer(self.content, np.uint8, stop - start, start)
        ends = np.flatnonzero(digits < 128) + 1
        starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
        sizes = ends - starts
        if digits[-1] >= 128 or sizes.max() > 10 or (digits[starts[sizes == 10] + 9] > 1).any():
            self.fail(start, "a number is cut short or has more than 64 bits")
        numbers = np.zeros(len(starts), np.uint64)
        for place in range(sizes.max()):
            longer = np.flatnonzero(sizes > place)
            digit = (digits[starts[longer] + place] & 127).astype(np.uint64)
            numbers[longer] |= digit << np.uint64(7 * place)
        return numbers.view(np.int64).tolist()

    def run(self, tag: int, start: int, stop: int, end: int) -> int:
        """Return where fields stop that repeat the one from `tag` to `stop`, other values aside."""
        key, stride = self.content[tag:start], stop - tag
        block = 16  # fields that are compared at once; more and more while they are alike
        while self.content[stop:stop + len(key)] == key and (count := min(block, (end - stop) // stride)):
            rows = np.frombuffer(self.content, np.uint8, count * stride, stop).reshape(count, stride)
            alike = (rows[:, :len(key)] == np.frombuffer(key, np.uint8)).all(1)
            if not alike.all():
                return stop + int(alike.argmin()) * stride
            stop += count * stride
            block *= 4
        return stop

    def array(self, dtype: np.dtype, wire: int, tag: int, start: int, stop: int) -> np.ndarray:
        """Return packed values, or a run of fields from `tag` to `stop` whose first value starts at `start`."""
        if wire == LENGTH:
            if (stop - start) % dtype.itemsize:
                self.fail(tag, f"{stop - start} bytes are no whole number of {8 * dtype.itemsize}-bit values")
            return np.frombuffer(self.content[start:stop], dtype)
        stride = start - tag + dtype.itemsize
        rows = np.frombuffer(self.content[tag:stop], np.uint8).reshape(-1, stride)
        return rows[:, start - tag:].copy().view(dtype)[:, 0]

    def value(self, field: Field, value: int, start: int, stop: int) -> Any:
        if field.kind in ONE:
            return ONE[field.kind].unpack_from(self.content, start)[0]
        if field.kind == "bytes":
            return self.content[start:stop]
        if field.kind != "string":
            return _signed(value)
        try:
            return str(self.content[start:stop], "utf-8")
        except UnicodeDecodeError:
            self.fail(start, f"{field.name} is no text")

    def fail(self, at: int, what: str) -> NoReturn:
        raise InputError(f"{self.where} is damaged at byte {at}: {what}; {DAMAGED}")


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _joined(parts: list[np.ndarray], kind: str) -> np.ndarray:
    """Return one array of the parts in the machine's byte order: the only part itself where it can be."""
    joined = np.concatenate(parts) if len(parts) > 1 else parts[0] if parts else NONE[kind]
    return joined.astype(NONE[kind].dtype, copy=False)


# Writing.

def encode(schema: Schema, values: Mapping[str, Any]) -> bytes:
    """Return a message of values by field name, in the order of the fields' numbers.

    A value is one of its kind, or a list of them for a repeated field; "ints", "floats" and "doubles" are sequences or
    arrays and are packed. KeyError for a name that the schema lacks."""
    fields = {field.name: (number, field) for number, field in schema.items()}
    chosen = sorted(((*fields[name], value) for name, value in values.items()), key=lambda entry: entry[0])
    return b"".join(part for number, field, value in chosen for part in _encoded(number, field, value))


def _encoded(number: int, field: Field, value: Any) -> Iterator[bytes]:
    """Yield a field's parts: its key, its length, its content, for each of its values."""
    wire = WIRE_TYPES[field.kind][-1]
    packed = field.kind in MANY or field.kind == "ints"
    for one in [value] if packed or not isinstance(value, list | tuple) else value:
        content = _content(field, one)
        if packed and not content:
            continue
        yield _varint(number << 3 | wire)
        if wire == LENGTH:
            yield _varint(len(content))
        yield content


def _content(field: Field, value: Any) -> bytes:
    if field.kind == "message":
        inner = field.schema() if callable(field.schema) else field.schema
        assert inner is not None, f"{field.name} has no schema"
        return encode(inner, value)
    if field.kind in MANY:
        return np.asarray(value, MANY[field.kind]).tobytes()
    if field.kind in ONE:
        return ONE[field.kind].pack(value)
    if field.kind == "ints":
        return b"".join(map(_varint, value))
    if field.kind == "int":
        return _varint(value)
    return value.encode() if field.kind == "string" else bytes(value)


def _varint(value: int) -> bytes:
    """Return the bytes of a signed or unsigned number of 64 bits."""
    value = int(value) % 2**64
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    digits.append(value)
    return bytes(digits)
