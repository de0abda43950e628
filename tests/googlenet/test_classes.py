"""Which of a network's classes a data set means."""

import pytest

from googlenet.classes import columns, same


@pytest.mark.parametrize(("own", "wanted", "expected"), [
    ("abc", "abc", [0, 1, 2]),
    ("abc", "012", [0, 1, 2]),  # nobody named the data's
    ("012", "abc", [0, 1, 2]),  # nor the network's
    (["background", "a", "b"], "ab", [1, 2]),
    (["background", "0", "1"], "ab", [1, 2]),
    (["background", "a", "b"], ["background", "a", "b"], [0, 1, 2]),
    ("abcd", "db", [3, 1]),
    ("ab", "ba", [1, 0]),
    ("abcd", "bx", None),
    ("abc", "abcd", None),
    ("aabc", "ab", None),  # which of the two?
    ("abc", "aab", None),
    ("0123", "012", None),  # numbers are no names
    ("abcd", "01", None),
    (["other", "a", "b"], ["x", "y"], None),
    ([], "a", None),
])
def test_columns(own, wanted, expected):
    assert columns(list(own), list(wanted)) == expected


def test_a_number_stands_for_any_name():
    assert same("a", "a")
    assert same("7", "a")
    assert same("a", "7")
    assert not same("a", "b")
