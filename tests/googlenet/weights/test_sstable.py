"""Sorted string tables and their checksum: pairs come back, and whatever is malformed is said."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from googlenet.weights.formats import sstable
from googlenet.weights.formats.crc32c import POLYNOMIAL, crc32c, masked
from minigrad.errors import InputError

VECTORS = {  # RFC 3720, B.4, and the usual check value
    b"": 0, b"123456789": 0xE3069283, bytes(32): 0x8A9136AA, b"\xff" * 32: 0x62A8AB43, bytes(range(32)): 0x46DD794E,
}


def bit_by_bit(content: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in content:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (POLYNOMIAL if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def varint(number: int) -> bytes:
    digits = [number >> shift & 127 for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes(digit | 128 for digit in digits[:-1]) + bytes(digits[-1:])


def block(pairs: list[tuple[bytes, bytes]], restarts: int = 1) -> bytes:
    """A block's content; keys share what they can with the one before."""
    content, last = b"", b""
    for key, value in pairs:
        shared = next((i for i, (a, b) in enumerate(zip(last, key, strict=False)) if a != b), min(len(last), len(key)))
        content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return content + bytes(4 * restarts) + struct.pack("<I", restarts)


def with_trailer(content: bytes, compression: int = 0) -> bytes:
    return content + bytes([compression]) + struct.pack("<I", masked(content + bytes([compression])))


def footer(index: tuple[int, int]) -> bytes:
    handles = varint(0) + varint(0) + varint(index[0]) + varint(index[1])
    return handles.ljust(40, b"\0") + sstable.MAGIC


def table(*blocks: list[tuple[bytes, bytes]], compression: int = 0) -> bytes:
    """A whole file of one or more blocks of pairs."""
    content, handles = b"", []
    for pairs in blocks:
        stored = block(pairs)
        handles.append((pairs[-1][0], varint(len(content)) + varint(len(stored))))
        content += with_trailer(stored, compression)
    index = block(handles)
    return content + with_trailer(index) + footer((len(content), len(index)))


def entries(content: bytes) -> dict[bytes, bytes]:
    return {key: bytes(value) for key, value in sstable.read(memoryview(content), "model.ckpt").items()}


PAIRS = [(b"", b"header"), (b"conv1/biases", b"\0" * 300), (b"conv1/weights", b"\1\2\3"), (b"conv2", b"")]


@pytest.mark.parametrize(("content", "crc"), VECTORS.items(), ids=["empty", "digits", "zeros", "ones", "rising"])
def test_checksums_are_the_published_ones(content, crc):
    assert crc32c(content) == crc


@given(st.binary(max_size=300))
def test_checksum_is_that_of_its_definition(content):
    assert crc32c(content) == bit_by_bit(content)
    assert crc32c(memoryview(content)) == bit_by_bit(content)


def test_checksum_of_all_short_lengths():
    content = bytes(i * 37 % 256 for i in range(70))
    for size in range(70):
        assert crc32c(content[:size]) == bit_by_bit(content[:size]), size


def test_masked_checksum_is_leveldbs():
    """Of an empty block, as it stands in every file that TensorFlow writes: one restart and no entry."""
    assert masked(bytes([0, 0, 0, 0, 1, 0, 0, 0, 0])) == 0xB0A1F2C0


def test_pairs_come_back():
    assert entries(table(PAIRS)) == dict(PAIRS)
    assert list(entries(table(PAIRS[:2], PAIRS[2:]))) == [key for key, _value in PAIRS]


@given(st.dictionaries(st.binary(max_size=20), st.binary(max_size=200), min_size=1))
def test_any_pairs_come_back(pairs):
    assert entries(table(sorted(pairs.items()))) == pairs


def test_values_are_views_of_the_file():
    content = bytearray(table(PAIRS))
    values = sstable.read(memoryview(content), "x")
    at = content.index(b"header")
    content[at:at + 1] = b"H"
    assert values[b""] == b"Header"


def test_every_changed_byte_is_noticed_or_does_not_matter():
    """All bytes but the footer's zeros and the unused handle are under a checksum."""
    content = table(PAIRS[:2], PAIRS[2:])
    for at in range(len(content)):
        for flip in (1, 0x80):
            changed = bytearray(content)
            changed[at] ^= flip
            try:
                assert entries(bytes(changed)) == dict(PAIRS), at
            except InputError as error:
                assert str(error).startswith("model.ckpt"), at  # noqa: PT017
            else:
                assert at >= len(content) - sstable.FOOTER, at


@pytest.mark.parametrize("size", [0, 1, 47, 48, 60, 200, -1])
def test_cut_files(size):
    with pytest.raises(InputError, match="damaged"):
        entries(table(PAIRS)[:size])


def damaged(pairs: bytes, message: str) -> None:
    """A file whose only block is these bytes, with a right checksum, is refused for the reason given."""
    index = block([(b"z", varint(0) + varint(len(pairs)))])
    content = with_trailer(pairs)
    with pytest.raises(InputError, match=message):
        entries(content + with_trailer(index) + footer((len(content), len(index))))


def test_malformed_blocks():
    end = bytes(4) + struct.pack("<I", 1)
    damaged(b"", "no room for its restarts")
    damaged(struct.pack("<I", 0), "no room for its restarts")
    damaged(bytes(4) + struct.pack("<I", 2**31), "no room for its restarts")
    damaged(varint(1) + varint(1) + varint(0) + b"a" + end, "goes past its block's end")  # shares with nothing
    damaged(varint(0) + varint(2**40) + varint(0) + b"a" + end, "goes past its block's end")
    damaged(varint(0) + varint(1) + varint(2**40) + b"a" + end, "goes past its block's end")
    damaged(b"\0\0\x80" + end, "number is cut short")
    damaged(b"\xff" * 11 + end, "more than 10 bytes")
    damaged(block([(b"b", b""), (b"a", b"")]), "keys are out of order")
    damaged(block([(b"a", b""), (b"a", b"")]), "keys are out of order")


def test_blocks_that_overlap_are_refused():
    """Else a small file could name one block a million times, each to be checked."""
    stored = block(PAIRS)
    handle = varint(0) + varint(len(stored))
    index = block([(b"x", handle), (b"y", handle)])
    content = with_trailer(stored)
    with pytest.raises(InputError, match="blocks overlap"):
        entries(content + with_trailer(index) + footer((len(content), len(index))))


def test_keys_that_would_fill_the_memory_are_refused(monkeypatch):
    """Each key is the one before and a byte more, so that n of them stand for n^2 / 2 bytes."""
    pairs = [(b"a" * length, b"") for length in range(1, 200)]
    assert len(entries(table(pairs))) == 199
    monkeypatch.setattr(sstable, "MOST_KEYS", 10_000)
    with pytest.raises(InputError, match="10000 bytes of keys"):
        entries(table(pairs))


def test_entries_are_counted(monkeypatch):
    monkeypatch.setattr(sstable, "MOST_ENTRIES", len(PAIRS))
    assert entries(table(PAIRS)) == dict(PAIRS)
    with pytest.raises(InputError, match="more than 4 entries"):
        entries(table([*PAIRS, (b"d", b"")]))


def test_blocks_past_the_end():
    content = table(PAIRS)[:-sstable.FOOTER]
    for index in ((0, 2**40), (2**40, 8), (len(content), 48)):
        with pytest.raises(InputError, match="goes past its end"):
            entries(content + footer(index))


def test_compressed_blocks_are_named():
    with pytest.raises(InputError, match="Snappy"):
        entries(table(PAIRS, compression=1))
    with pytest.raises(InputError, match="number 7"):
        entries(table(PAIRS, compression=7))
