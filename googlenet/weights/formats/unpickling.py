"""Pickles of plain data, read by an interpreter that can't run code.

A pickle is a program for a stack machine, whose opcodes push numbers, texts and containers, and call what they name:
Python's own machine imports and runs whatever that is. This one knows the opcodes that data needs (of protocols 2 to
5), imports nothing, and takes names from the table that its caller gives it; any other opcode or name is refused.

What it can cost is bounded too. Every opcode makes at most one object, of the bytes behind it or of what it takes off
the stack; there are at most MOST_STEPS of them in at most LONGEST bytes. Keys of dicts are texts and integers of 64
bits, so that hashing neither recurses nor meets chosen collisions; nothing walks down nested containers.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from googlenet.weights.formats.wording import DAMAGED, shown
from minigrad.errors import InputError

LONGEST = 2**24  # bytes of one pickle; a GoogLeNet's with its optimiser's state has 100,000
MOST_STEPS = 2**17  # a GoogLeNet's has some 15,000
LONGEST_NAME = 1000  # bytes of a global's name


@dataclass(frozen=True)
class Global:
    """What a name in a pickle stands for: a function of a tuple of arguments where it can be called, else a value."""

    name: str
    value: object


def load(content: memoryview, position: int, known: Mapping[str, object],
         persistent: Callable[[object], object]) -> tuple[object, int]:
    """Return the object whose pickle begins at a position, and the position behind its end.

    `known` maps names ("torch.FloatStorage") to what stands for them; what the pickle calls are its callables, with one
    tuple. `persistent` is given each persistent id. Raises InputError for a pickle that is malformed, too large, or
    wants an opcode or a name that isn't known."""
    machine = _Machine(content[position:position + LONGEST], known, persistent)
    return machine.run(), position + machine.position


class _Machine:
    """The stack machine. A mark sets the stack aside and begins an empty one, so that no opcode reaches below it."""

    def __init__(self, content: memoryview, known: Mapping[str, object], persistent: Callable[[object], object]):
        self.content, self.position, self.steps = content, 0, 0
        self.known = {"collections.OrderedDict": self._ordered_dict, **known}
        self.resolve = persistent
        self.stack: list[object] = []
        self.below: list[list[object]] = []  # the stacks under the marks
        self.memo: dict[int, object] = {}

    def run(self) -> object:
        while True:
            self._count(1)
            code = self.take(1)[0]
            if code == STOP:
                return self.pop()
            operation = OPERATIONS.get(code)
            if operation is None:
                name = NAMES.get(code, f"{code:#04x}")
                raise InputError(f"its pickle has the opcode {name} at byte {self.position - 1}, which tensors don't "
                                 "need and which may run code: save the network's state_dict() instead")
            operation(self)

    def _count(self, steps: int) -> None:
        self.steps += steps
        if self.steps > MOST_STEPS:
            raise InputError(f"its pickle has more than {MOST_STEPS} steps: save nothing but the network's "
                             "state_dict()")

    def take(self, size: int) -> memoryview:
        """Return the next bytes of the pickle."""
        if size < 0 or size > len(self.content) - self.position:
            raise InputError(f"its pickle wants {size} bytes where {len(self.content) - self.position} are left: "
                             f"{DAMAGED}")
        self.position += size
        return self.content[self.position - size:self.position]

    def number(self, coded: str) -> int:
        return struct.unpack(coded, self.take(struct.calcsize(coded)))[0]

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self) -> object:
        if not self.stack:
            raise InputError(f"its pickle takes from an empty stack: {DAMAGED}")
        return self.stack.pop()

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[object]:
        """Return all that was pushed since the last mark."""
        if not self.below:
            raise InputError(f"its pickle returns to a mark that isn't there: {DAMAGED}")
        items, self.stack = self.stack, self.below.pop()
        return items

    def text(self, size: int) -> None:
        try:
            self.push(str(self.take(size), "utf-8"))
        except UnicodeDecodeError:
            raise InputError(f"its pickle has a text that isn't UTF-8 before byte {self.position}: {DAMAGED}") from None

    def tuple_of(self, size: int) -> None:
        self.push(tuple([self.pop() for _ in range(size)][::-1]))

    def put(self, place: int) -> None:
        value = self.pop()
        self.memo[place] = value
        self.push(value)

    def get(self, place: int) -> None:
        if place not in self.memo:
            raise InputError(f"its pickle takes up object {place}, which isn't there: {DAMAGED}")
        self.push(self.memo[place])

    def append(self, items: list[object]) -> None:
        target = self.pop()
        if not isinstance(target, list):
            raise InputError(f"its pickle appends to {type(target).__name__}, expected a list: {DAMAGED}")
        target.extend(items)
        self.push(target)

    def set_items(self, items: list[object]) -> None:
        target = self.pop()
        if not isinstance(target, dict) or len(items) % 2:
            raise InputError(f"its pickle fills {type(target).__name__} with {len(items)} keys and values, expected "
                             f"a dict and pairs: {DAMAGED}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str) and not (isinstance(key, int) and -2**63 <= key < 2**63):
                raise InputError(f"its pickle has a dict with a key of type {type(key).__name__}, expected texts and "
                                 "integers: save nothing but the network's state_dict()")
            if key in target:
                raise InputError(f"its pickle stores {shown(str(key))} twice: {DAMAGED}")
            target[key] = value
        self.push(target)

    def global_in_lines(self) -> None:
        lines = bytes(self.content[self.position:self.position + LONGEST_NAME]).split(b"\n", 2)
        if len(lines) < 3:
            raise InputError(f"its pickle has a name without an end at byte {self.position}: {DAMAGED}")
        self.position += len(lines[0]) + len(lines[1]) + 2
        self.find(*(line.decode("utf-8", "replace") for line in lines[:2]))

    def global_from_stack(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(module, str) or not isinstance(name, str) or len(module) + len(name) > LONGEST_NAME:
            raise InputError(f"its pickle has a name that is no short text before byte {self.position}: {DAMAGED}")
        self.find(module, name)

    def find(self, module: str, name: str) -> None:
        path = f"{module}.{name}"
        if path not in self.known:
            raise InputError(f"it wants {shown(path)}, which is not part of a plain tensor: a pickle can run code, so "
                             "only tensors are read; save the network's state_dict() instead of the network or more")
        self.push(Global(path, self.known[path]))

    def reduce(self) -> None:
        """Call what is known; the only opcode that does."""
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Global) or not callable(function.value) or not isinstance(arguments, tuple):
            raise InputError(f"its pickle calls {_told(function)} with {_told(arguments)}, expected a function for "
                             f"tensors and a tuple: {DAMAGED}")
        self.push(function.value(arguments))

    def _ordered_dict(self, arguments: tuple[object, ...]) -> dict[object, object]:
        """Python 3 gives no argument and fills the dict later; Python 2 gives a list of pairs, [[key, value], ...]."""
        pairs = arguments[0] if len(arguments) == 1 else []
        if len(arguments) > 1 or not isinstance(pairs, list):
            raise InputError(f"its pickle makes an OrderedDict of something else than a list of pairs: {DAMAGED}")
        self._count(len(pairs))  # the memo can give the same list again and again
        target: dict[object, object] = {}
        for pair in pairs:
            if not isinstance(pair, list) or len(pair) != 2:
                raise InputError(f"its pickle makes an OrderedDict of {_told(pair)}, expected a pair: {DAMAGED}")
            self.push(target)
            self.set_items(pair)
            self.pop()
        return target

    def build(self) -> None:
        """A state dict carries versions of its modules as an attribute, which say nothing of the tensors."""
        self.pop()
        target = self.pop()
        if not isinstance(target, dict):
            raise InputError(f"its pickle sets attributes of {_told(target)}, expected a dict: {DAMAGED}")
        self.push(target)

    def persistent(self) -> None:
        self.push(self.resolve(self.pop()))


def _told(value: object) -> str:
    return shown(value.name) if isinstance(value, Global) else type(value).__name__


NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
STOP = ord(".")
_BY_NAME: dict[str, Callable[[_Machine], object]] = {
    "PROTO": lambda machine: machine.take(1),
    "FRAME": lambda machine: machine.take(8),
    "NONE": lambda machine: machine.push(None),
    "NEWTRUE": lambda machine: machine.push(True),
    "NEWFALSE": lambda machine: machine.push(False),
    "BININT": lambda machine: machine.push(machine.number("<i")),
    "BININT1": lambda machine: machine.push(machine.number("<B")),
    "BININT2": lambda machine: machine.push(machine.number("<H")),
    "LONG1": lambda machine: machine.push(int.from_bytes(machine.take(machine.number("<B")), "little", signed=True)),
    "BINFLOAT": lambda machine: machine.push(machine.number(">d")),
    "SHORT_BINUNICODE": lambda machine: machine.text(machine.number("<B")),
    "BINUNICODE": lambda machine: machine.text(machine.number("<I")),
    "BINUNICODE8": lambda machine: machine.text(machine.number("<Q")),
    "SHORT_BINSTRING": lambda machine: machine.text(machine.number("<B")),  # a text of Python 2
    "BINSTRING": lambda machine: machine.text(machine.number("<i")),
    "EMPTY_TUPLE": lambda machine: machine.push(()),
    "TUPLE1": lambda machine: machine.tuple_of(1),
    "TUPLE2": lambda machine: machine.tuple_of(2),
    "TUPLE3": lambda machine: machine.tuple_of(3),
    "TUPLE": lambda machine: machine.push(tuple(machine.pop_mark())),
    "EMPTY_LIST": lambda machine: machine.push([]),
    "APPEND": lambda machine: machine.append([machine.pop()]),
    "APPENDS": lambda machine: machine.append(machine.pop_mark()),
    "EMPTY_DICT": lambda machine: machine.push({}),
    "SETITEM": lambda machine: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine: machine.set_items(machine.pop_mark()),
    "MARK": _Machine.mark,
    "BINPUT": lambda machine: machine.put(machine.number("<B")),
    "LONG_BINPUT": lambda machine: machine.put(machine.number("<I")),
    "MEMOIZE": lambda machine: machine.put(len(machine.memo)),
    "BINGET": lambda machine: machine.get(machine.number("<B")),
    "LONG_BINGET": lambda machine: machine.get(machine.number("<I")),
    "GLOBAL": _Machine.global_in_lines,
    "STACK_GLOBAL": _Machine.global_from_stack,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
}
OPERATIONS = {code: _BY_NAME[name] for code, name in NAMES.items() if name in _BY_NAME}
