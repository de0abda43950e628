"""The members of a zip archive, as NumPy's and torch's files are: found, checked against their CRCs, unpacked.

An archive says most things twice, in front of each member and in the directory at its end. Here both must agree to the
byte, and the directory must be as long and have as many entries as the end says, so that a changed byte is an error and
never a member less. Archives past 4 GB, encrypted ones and those of other methods than deflate are refused.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from typing import NamedTuple

from googlenet.weights.formats.wording import DAMAGED, quoted
from minigrad.errors import InputError

MEMBER_MARK, ENTRY_MARK, END_MARK = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"  # each begins with its own
END = struct.Struct("<4s4H2LH")
END_64 = 56 + 20  # bytes of what torch writes in front of the end, though archives past 4 GB alone need it
ENTRY = struct.Struct("<4s6H3L5H2L")
LOCAL = struct.Struct("<4s5H3L2H")
LONGEST_COMMENT = 65535
ENCRYPTED, UTF8 = 0x1, 0x800  # bits of an entry's flags
STORED, DEFLATED = 0, 8
DEFLATE_RATIO = 1032  # at most so many bytes come out of one


class Member(NamedTuple):
    """A file in the archive: its name, its bytes as they are stored, and its size once unpacked."""

    name: str
    packed: memoryview
    size: int
    crc: int
    method: int


def members(content: memoryview, where: str, beyond: int) -> list[Member]:
    """Return the members of an archive, whose sizes together are at most the archive's and `beyond` bytes.

    Raises InputError, beginning with `where`, for an archive that is damaged or asks for more memory."""
    end, start, count = _directory(content, where)
    entries, position = [], start
    for _ in range(count):
        entry, position = _entry(content, position, start, end, where)
        entries.append(entry)
    if position != end:
        raise InputError(f"{where} is damaged: its directory is longer than its {count} entries: {DAMAGED}")
    names = [entry.name for entry in entries]
    if len(set(names)) != count:
        double = Counter(names).most_common(1)[0][0]
        raise InputError(f"{where} has two members named {quoted(double)}: write it again")
    total = sum(entry.size for entry in entries)
    if total > len(content) + beyond or sum(len(entry.packed) for entry in entries) > len(content):
        raise InputError(f"{where} would unpack to {total:,} bytes, more than its own {len(content):,} and "
                         f"{beyond:,}: unpack it and write it uncompressed if it is to be trusted")
    return entries


def unpack(member: Member, where: str) -> memoryview:
    """Return a member's bytes. Raises InputError where they are not those that its CRC was made of."""
    content = member.packed
    if member.method == DEFLATED:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            content = memoryview(inflater.decompress(content, member.size + 1))
        except zlib.error as error:
            raise InputError(f"{where}: {quoted(member.name)} is damaged ({error}): {DAMAGED}") from error
        if not inflater.eof or inflater.unused_data:
            raise InputError(f"{where}: {quoted(member.name)} is damaged: it does not unpack to its "
                             f"{member.size} bytes: {DAMAGED}")
    if len(content) != member.size or zlib.crc32(content) != member.crc:
        raise InputError(f"{where}: {quoted(member.name)} is damaged: its CRC differs: {DAMAGED}")
    return content


def first_name(start: bytes) -> str:
    """Return the name of an archive's first member, "" where these are not the first bytes of one; never raises."""
    if len(start) < LOCAL.size or not start.startswith(MEMBER_MARK):
        return ""
    length = LOCAL.unpack_from(start)[9]
    return start[LOCAL.size:LOCAL.size + length].decode(errors="replace")


def _directory(content: memoryview, where: str) -> tuple[int, int, int]:
    """Return where the directory ends and starts, and its number of entries."""
    tail = bytes(content[-END.size - LONGEST_COMMENT:])
    found = tail.rfind(END_MARK)
    if found < 0 or found + END.size > len(tail):
        raise InputError(f"{where} is no whole zip archive: its end is missing: {DAMAGED}")
    _, disk, first_disk, here, count, size, start, comment = END.unpack_from(tail, found)
    end = len(content) - len(tail) + found
    if 0xFFFFFFFF in (size, start) or count == 0xFFFF:
        raise InputError(f"{where} is a zip archive past 4 GB, which is not read: write its arrays to several files")
    if bytes(content[max(end - 20, 0):end][:4]) == b"PK\x06\x07":
        end -= END_64
    if disk or first_disk or here != count or start + size != end or found + END.size + comment != len(tail):
        raise InputError(f"{where} is damaged: the end of the zip archive contradicts itself: {DAMAGED}")
    return end, start, count


def _entry(content: memoryview, position: int, start: int, end: int, where: str) -> tuple[Member, int]:
    """Return the directory's entry at a position, checked against what precedes the member, and the next position."""
    if position + ENTRY.size > end:
        raise InputError(f"{where} is damaged: its directory has fewer entries than its end says: {DAMAGED}")
    (signature, _, _, flags, method, _, _, crc, packed, size, name_length, extra, comment, disk, _, _,
     offset) = ENTRY.unpack_from(content, position)
    position += ENTRY.size
    raw = bytes(content[position:position + name_length])
    position += name_length + extra + comment
    told = quoted(raw.decode(errors="replace"))
    if signature != ENTRY_MARK or position > end or disk or offset + LOCAL.size > start:
        raise InputError(f"{where} is damaged: an entry of its directory is not whole: {DAMAGED}")
    if flags & ENCRYPTED or method not in (STORED, DEFLATED):
        raise InputError(f"{where}: {told} is encrypted or packed by method {method}: only stored and deflated "
                         "members are read; write it again")
    first, _, flags_again, method_again, _, _, _, _, _, length, extra = LOCAL.unpack_from(content, offset)
    data = offset + LOCAL.size + length + extra
    again = bytes(content[offset + LOCAL.size:offset + LOCAL.size + length])
    if (first, flags_again, method_again, again) != (MEMBER_MARK, flags, method, raw):
        raise InputError(f"{where} is damaged: {told} is not where its directory says: {DAMAGED}")
    if size > DEFLATE_RATIO * (packed + 1) if method == DEFLATED else size != packed:
        raise InputError(f"{where} is damaged: {told} can't be {size:,} bytes out of {packed:,}: {DAMAGED}")
    try:
        name = raw.decode("utf-8" if flags & UTF8 else "cp437")
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is damaged: the name {told} is no text: {DAMAGED}") from error
    return Member(name, content[data:data + packed], size, crc, method), position
