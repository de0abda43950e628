"""Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").

A counter-based generator: four random words are a function of a counter (four words) and a key (two), so that any
thread can compute any number of the stream, and a run that is resumed gets the numbers it would have had.
"""
import numpy as np
from numba import njit

M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
W0, W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
WORD, LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


@njit(nogil=True)
def philox(c0, c1, c2, c3, k0, k1):
    """Return four random words (uint64 below 2**32) for a counter c and a key k of uint64 words below 2**32."""
    for _ in range(10):
        p0, p1 = M0 * c0, M1 * c2
        c0, c1, c2, c3 = (p1 >> WORD) ^ c1 ^ k0, p1 & LOW, (p0 >> WORD) ^ c3 ^ k1, p0 & LOW
        k0, k1 = (k0 + W0) & LOW, (k1 + W1) & LOW
    return c0, c1, c2, c3
