"""The random generator gives the published numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad.kernels.philox import philox
from tests import reference

ONES = 0xFFFFFFFF
PI = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((0,) * 6, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES,) * 6, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (PI, (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
    ],
)
def test_known_answers_of_random123(words, expected):
    """The vectors of philox4x32-10 in Random123's kat_vectors: counter, then key."""
    assert tuple(map(int, philox(*map(np.uint64, words)))) == expected
    assert reference.philox(words[:4], words[4:]) == expected


@given(words=st.tuples(*[st.integers(0, 2**32 - 1)] * 6))
def test_equals_the_definition(words):
    assert tuple(map(int, philox(*map(np.uint64, words)))) == reference.philox(words[:4], words[4:])
