"""CRC-32C (Castagnoli), the checksum of TensorFlow's files, on whole arrays.

A checksum is the rest of a division of polynomials over two numbers, and so linear: with A what four zero bytes do to
the register, the words w1 ... wn leave A^n w1 + ... + A wn, where + is exclusive or. All pairs of neighbours are joined
at once, A first + second, then all pairs of those with A^2, and so on: 27 MB take 23 rounds, not 27 million steps.
"""

from __future__ import annotations

import functools

import numpy as np

POLYNOMIAL = 0x82F63B78  # the lowest bit is the highest power
ONES = 0xFFFFFFFF
MASK = 0xA282EAD8  # LevelDB's: the checksum of data that holds checksums would be no good one


def crc32c(content: memoryview | bytes) -> int:
    """Return the CRC-32C of bytes: that of b"123456789" is 0xE3069283."""
    data = np.frombuffer(content, np.uint8)
    if len(data) < 4:
        register = ONES
        for byte in data.tolist():
            register = _advanced(register ^ byte, 8)
        return register ^ ONES
    words = np.zeros(-(-len(data) // 4), "<u4")  # zeros in front change nothing
    padded = words.view(np.uint8)[len(words) * 4 - len(data):]
    padded[:] = data
    padded[:4] ^= 0xFF  # as a register of ones does
    return int(_apply(0, _joined(words))[0]) ^ ONES


def masked(content: memoryview | bytes) -> int:
    """Return the checksum as LevelDB and TensorFlow store it: turned by 15 bits, plus a constant."""
    crc = crc32c(content)
    return ((crc >> 15 | crc << 17) + MASK) & ONES


def _joined(words: np.ndarray) -> np.ndarray:
    """Return one word that stands for all, as the last word of the row would: A^(n-1) w1 + ... + wn."""
    doubled = 0
    while len(words) > 1:
        if len(words) % 2:
            words = np.concatenate([np.zeros(1, "<u4"), words])
        words = _apply(doubled, words[::2]) ^ words[1::2]
        doubled += 1
    return words


def _apply(doubled: int, words: np.ndarray) -> np.ndarray:
    """Return A^(2^doubled) of every word."""
    low, high = _tables(doubled)
    halves = words.view("<u2") if words.flags.c_contiguous else np.ascontiguousarray(words).view("<u2")
    return low[halves[::2]] ^ high[halves[1::2]]


@functools.cache
def _tables(doubled: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what A^(2^doubled) makes of every lower and of every upper half of a word."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    if doubled == 0:
        images = np.array([_advanced(bit, 32) for bit in bits.tolist()], "<u4")
    else:
        images = _apply(doubled - 1, _apply(doubled - 1, bits.astype("<u4")))
    return _sums(images[:16]), _sums(images[16:])


def _sums(images: np.ndarray) -> np.ndarray:
    """Return the image of every number whose bits have the given images."""
    table = np.zeros(2**len(images), "<u4")
    for bit, image in enumerate(images):
        table[2**bit:2**(bit + 1)] = table[:2**bit] ^ image
    return table


def _advanced(register: int, bits: int) -> int:
    """Return the register after so many zero bits."""
    for _ in range(bits):
        register = register >> 1 ^ (POLYNOMIAL if register & 1 else 0)
    return register
