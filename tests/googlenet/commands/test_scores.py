"""How errors are printed: what is cut where there is much."""

import pytest

from googlenet.commands import scores


def result(names: list[str]) -> dict:
    """Classes of which each is worse than the one before."""
    rows = {name: {"images": 5, "top1_error": number / len(names), "top5_error": 0.0}
            for number, name in enumerate(names)}
    return {"images": 5 * len(names), "top1_error": 0.5, "top5_error": 0.0, "classes": rows}


@pytest.mark.parametrize("count", [1, 30])
def test_all_of_few_classes(count):
    printed = scores.classes(result([f"class {number}" for number in range(count)])).splitlines()
    assert len(printed) == count + 2
    assert printed[-1].startswith("all ")


def test_the_worst_of_many_classes():
    _, *rows, every, more = scores.classes(result([f"class {number}" for number in range(1000)])).splitlines()
    assert [row.split()[1] for row in rows] == [str(number) for number in range(999, 979, -1)]
    assert every.split()[:2] == ["all", "5000"]
    assert more == "the 20 worst of 1,000 classes: --json and --report have the others"


def test_long_names_are_cut():
    printed = scores.classes(result(["b" * 40, "a" * 41])).splitlines()
    assert [line.split()[0] for line in printed[1:3]] == ["a" * 39 + "…", "b" * 40]
