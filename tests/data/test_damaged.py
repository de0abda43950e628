import logging

import pytest

from data.damaged import Damaged
from data.errors import DataError


def test_each_is_named_once(caplog):
    damaged = Damaged("photos", 2)
    with caplog.at_level(logging.WARNING, "data"):
        for name in ("a.jpg", "b.jpg", "a.jpg", "b.jpg", "a.jpg"):
            damaged.note(name, f"{name}: cannot be decoded")
    assert [record.getMessage() for record in caplog.records] == [
        "left out a.jpg: a.jpg: cannot be decoded", "left out b.jpg: b.jpg: cannot be decoded",
    ]  # fmt: skip
    assert damaged.found == {"a.jpg": "a.jpg: cannot be decoded", "b.jpg": "b.jpg: cannot be decoded"}


@pytest.mark.parametrize("most", [0, 2])
def test_one_more_than_the_limit_ends_it(most, caplog):
    damaged = Damaged("photos", most)
    for number in range(most):
        damaged.note(f"{number}.jpg", "cut")
    with pytest.raises(DataError, match=rf"^photos: {most + 1} images cannot be used, more than the {most} allowed; "
                                        r"the last is last.jpg: too small$"):
        damaged.note("last.jpg", "too small")
    assert "left out last.jpg: too small" in caplog.text


def test_beyond_the_limit_one_noted_before_ends_it_too():
    """As when an evaluation is taken up that such an image had ended."""
    damaged = Damaged("photos", 1)
    damaged.found = {"a.jpg": "cut", "b.jpg": "cut"}
    with pytest.raises(DataError, match="2 images cannot be used"):
        damaged.note("b.jpg", "cut")
