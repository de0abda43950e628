"""Charts: thinned points, round numbers at the axes, lines that are told apart without colour."""

import math
import re
from pathlib import Path

import pytest

from googlenet.reports import charts
from googlenet.reports.charts import Line, Thinned, chart, ticks


@pytest.mark.parametrize("count", [1, 7, 8, 9, 1000, 12345])
def test_thinned_points_are_few_and_their_mean_is_that_of_all(count):
    thinned = Thinned(8)
    for number in range(count):
        thinned.add(number, number**2)
    points = thinned.points
    assert len(points) <= 8
    assert len(points) > 3 or count < 8
    whole = points[:-1] if count % thinned.span else points
    rest = count % thinned.span
    assert sum(x for x, _ in whole) * thinned.span + rest * points[-1][0] * bool(rest) == pytest.approx(
        sum(range(count)))
    assert sum(y for _, y in whole) * thinned.span + rest * points[-1][1] * bool(rest) == pytest.approx(
        sum(n**2 for n in range(count)))
    assert points == sorted(points)


def test_few_points_stay_as_they_are():
    thinned = Thinned(8)
    for x in range(7):
        thinned.add(x, -x)
    assert thinned.points == [(x, -x) for x in range(7)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_left_out(value):
    thinned = Thinned()
    thinned.add(1, value)
    thinned.add(2, 3)
    assert thinned.points == [(2, 3)]
    assert "nan" not in chart("t", [Line("a", "main", [(0, 1.0), (1, value)])], "x", "y")
    assert chart("t", [Line("a", "main", [(0, value)])], "x", "y") == ""


@pytest.mark.parametrize(("high", "expected"), [
    (2.3, [0, 0.5, 1, 1.5, 2]), (100, [0, 20, 40, 60, 80, 100]), (38000, [0, 10000, 20000, 30000]), (1, None),
    (1e-9, None), (7e12, None)])
def test_ticks_are_few_round_numbers(high, expected):
    found = ticks(high)
    assert expected is None or found == pytest.approx(expected)
    assert 3 <= len(found) <= 7
    assert 0.6 * high <= found[-1] <= high * (1 + 1e-9)
    beyond = ticks(high, beyond=True)
    assert high * (1 - 1e-9) <= beyond[-1] < 1.6 * high


def test_lines_lie_in_their_box():
    made = chart("Losses", [Line("a", "main", [(0, 1.0), (50, 2.3), (100, 0.0)]), Line("raw", "main", [(10, 99.0)] * 2,
                 faint=True)], "images", "loss")
    places = [tuple(map(float, pair)) for path in re.findall(r'd="M([\d.L -]+)" class="line', made)
              for pair in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path)]
    assert places[:3] == [(0, 180.0), (500, pytest.approx(300 * (1 - 2.3 / 2.5))), (1000, 300)]
    assert all(0 <= y <= 300 for _, y in places)  # the faint one is cut at the top
    assert 'aria-label="Losses. a: 1 at first, 0 at last"' in made


def test_points_of_a_marked_line_are_seen_and_so_is_a_single_one():
    single = chart("t", [Line("a", "main", [(3, 0.5)])], "x", "y", percent=True)
    assert 'class="dots main"' in single
    assert "50%" in single
    assert chart("t", [Line("a", "main", [(0, 1), (1, 1)])], "x", "y").count("dots") == 0
    assert chart("t", [Line("a", "main", [(0, 1), (1, 1)], marked=True)], "x", "y").count("dots") == 2  # and its sample


def test_lines_of_a_chart_differ_by_more_than_colour():
    css = Path(charts.__file__).with_name("page.css").read_text(encoding="utf-8")
    for kinds in (("main", "aux1", "aux2"), ("top1", "top5", "averaged")):
        dresses = [re.search(rf"\.{kind} {{ stroke: [^;]*;(.*?)}}", css)[1].strip() for kind in kinds]
        assert len(set(dresses)) == 3, dresses


def test_numbers_at_axes_are_short():
    assert [charts._number(x) for x in (0, 0.25, 2.30001, 1500, 30000, 2.5e6, 7e9)] == [
        "0", "0.25", "2.3", "1,500", "30,000", "2.5 M", "7 G"]
    assert charts._number(0.125, True) == "12.5%"
