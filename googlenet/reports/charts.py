"""Line charts as inline SVG: lines in the page's colours, which follow its light and its dark dress.

Only lines are drawn in SVG, stretched to the width there is; all text around them is HTML, which stays readable on a
phone. Lines differ by their dashes too, not by colour alone.
"""
from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from googlenet.reports.page import Html, element

MOST = 1000  # points of a line
WIDTH, HEIGHT = 1000.0, 300.0  # of the SVG's own coordinates

Point = tuple[float, float]


class Line(NamedTuple):
    """A line of a chart; `kind` is one of the dresses of page.css, `faint` one in the background without a name."""

    label: str
    kind: str
    points: Sequence[Point]
    marked: bool = False  # a dot at each point
    faint: bool = False


class Thinned:
    """Points as they come, thinned to at most `most`, an even number: each is the mean of `span` neighbours.

    Points that are not finite are left out."""

    def __init__(self, most: int = MOST) -> None:
        self.most, self.span = most, 1
        self._means: list[Point] = []
        self._rest: list[Point] = []  # fewer than `span`

    def add(self, x: float, y: float) -> None:
        """Add a point."""
        if not (math.isfinite(x) and math.isfinite(y)):
            return
        self._rest.append((x, y))
        if len(self._rest) == self.span:
            self._means.append(_mean(self._rest))
            self._rest.clear()
        if len(self._means) == self.most:
            self._means = [_mean(pair) for pair in zip(self._means[::2], self._means[1::2], strict=True)]
            self.span *= 2

    @property
    def points(self) -> list[Point]:
        """The points; the last one may be the mean of fewer."""
        return [*self._means, _mean(self._rest)] if self._rest else list(self._means)


def _mean(points: Sequence[Point]) -> Point:
    return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)


def ticks(high: float, most: int = 6, *, beyond: bool = False) -> list[float]:
    """Return some `most` round numbers from 0 to `high`, or to the first one `beyond` it: multiples of 1, 2 or 5 times
    a power of ten."""
    step = 10.0 ** math.floor(math.log10(high / most))
    step *= next(factor for factor in (1, 2, 5, 10, 20) if high / (factor * step) < most)
    last = math.ceil(high / step - 1e-9) if beyond else math.floor(high / step + 1e-9)
    return [number * step for number in range(last + 1)]


def chart(title: str, lines: Iterable[Line], x_label: str, y_label: str, *, percent: bool = False) -> Html:
    """Draw lines in one box, from zero upward; what is not finite is left out, and so are lines without points."""
    finite = [line._replace(points=[point for point in line.points if all(map(math.isfinite, point))])
              for line in lines]
    drawn = [line for line in finite if line.points]
    named = [line for line in drawn if not line.faint]
    if not named:
        return Html("")
    right = max(x for line in named for x, _ in line.points) or 1.0
    up = ticks(max(y for line in named for _, y in line.points) or 1.0, beyond=True)
    box = element("div", _axis(up, percent), element("div", _plot(drawn, up, right), class_="plot"),
                  element("div", *(element("span", _number(x), style=f"left:{100 * x / right:.2f}%")
                                   for x in ticks(right)), class_="across"),
                  class_="chart", role="img", aria_label=_told(title, named, percent))
    legend = element("ul", *(element("li", _sample(line), line.label) for line in named), class_="legend")
    caption = element("figcaption", element("strong", title), element("span", f"{y_label}, over {x_label}"))
    return element("figure", caption, legend, box, class_="curves")


def _axis(up: Sequence[float], percent: bool) -> Html:
    return element("div", *(element("span", _number(y, percent), style=f"top:{100 * (1 - y / up[-1]):.2f}%")
                            for y in up), class_="up")


def _plot(lines: Iterable[Line], up: Sequence[float], right: float) -> Html:
    top = up[-1]
    grid = (element("path", d=f"M0 {_y(y, top)}H{WIDTH:g}", class_="grid") for y in up)
    return element("svg", *grid, *(_drawn(line, right, top) for line in lines), viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}",
                   preserveAspectRatio="none", aria_hidden="true", focusable="false")


def _told(title: str, lines: Iterable[Line], percent: bool) -> str:
    """Return in words what is seen, for those who do not see it."""
    ends = ((line.label, *(_number(line.points[place][1], percent) for place in (0, -1))) for line in lines)
    return f"{title}. " + "; ".join(f"{label}: {first} at first, {last} at last" for label, first, last in ends)


def _drawn(line: Line, right: float, top: float) -> Html:
    places = [(f"{WIDTH * x / right:.1f}", _y(min(y, top), top)) for x, y in line.points]
    path = element("path", d="M" + "L".join(f"{x} {y}" for x, y in places),
                   class_=f"line {line.kind}" + " faint" * line.faint)
    if not line.marked and len(places) > 1:
        return path
    # A dot is a line of no length with a round end: circles would be stretched with the box.
    dots = element("path", d="".join(f"M{x} {y}h0" for x, y in places), class_=f"dots {line.kind}")
    return Html(path + dots)


def _y(y: float, top: float) -> str:
    return f"{HEIGHT * (1 - y / top):.1f}"


def _sample(line: Line) -> Html:
    path = element("path", d="M0 5H34", class_=f"line {line.kind}")
    dot = element("path", d="M17 5h0", class_=f"dots {line.kind}") if line.marked else ""
    return element("svg", path, dot, viewBox="0 0 34 10", width="34", height="10", aria_hidden="true",
                   focusable="false")


def _number(value: float, percent: bool = False) -> str:
    """Return a number as it stands at an axis."""
    if percent:
        return f"{100 * value:.3g}%"
    for unit, name in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= unit:
            return f"{value / unit:.4g} {name}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
