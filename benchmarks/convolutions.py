"""All convolutions of the network, one after another as it runs them, beside what the machine can do.

Each has arrays of its own, as in the network, where what one leaves in the caches is of little use to the next. All go
forward; then, from the last to the first, each computes its data gradient and its weight gradient. The images want no
gradient: the first layer computes none.

GFLOP/s count two operations for every multiply-add of the equation, whatever the way to compute it: Winograd's does
fewer, and may pass the machine's limit.
"""
from __future__ import annotations

import argparse
import importlib
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import limit
from benchmarks.layers import recorded
from benchmarks.ours import network
from benchmarks.results import Comparison, Report, Row, row
from benchmarks.session import Session
from googlenet.model import GoogLeNet
from minigrad import Tensor, nn, no_grad, set_threads
from minigrad.kernels.windows import Windows, windows

conv2d = importlib.import_module("minigrad.ops.conv2d")  # the module: minigrad.ops has a function of this name

FORWARD, DATA, WEIGHT = DIRECTIONS = "forward", "data gradient", "weight gradient"
ALL = "all three"
DIRECT, WINOGRAD, BEST = "direct", "winograd", "the best way"
COMPARED = 2  # images that errors are measured on
PROMISE = {"float32": 1e-5}  # Winograd's largest error, of the largest value (minigrad/ops/conv2d.py)

Errors = dict[str, float]  # by directions, of the largest value


@dataclass(frozen=True)
class Convolution:
    """A convolution of the network, by the path of its weights, and the shape (N, H, W, C) that it is applied to."""

    path: str
    layer: nn.Conv2d
    shape: tuple[int, ...]
    first: bool

    def over(self, batch: int) -> Windows:
        """Return the windows over a batch."""
        KH, KW = self.layer.weight.shape[:2]
        return windows((batch, *self.shape[1:]), (KH, KW), self.layer.stride, self.layer.padding)

    @property
    def multiply_adds(self) -> int:
        """How often its weights multiply for one image: each once at every position of the output."""
        over = self.over(1)
        return over.OH * over.OW * self.layer.weight.data.size

    @property
    def directions(self) -> tuple[str, ...]:
        """What a training step computes."""
        return (FORWARD, WEIGHT) if self.first else DIRECTIONS

    @property
    def ways(self) -> tuple[str, ...]:
        """The ways that can compute it."""
        over = self.over(1)
        return (DIRECT, WINOGRAD) if (over.KH, over.KW, over.SH, over.SW) == (3, 3, 1, 1) else (DIRECT,)

    def arrays(self, batch: int, dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return x, w, b and dy: x what a ReLU lets through, but for images, w so that y is on x's scale."""
        rng, over, (KH, KW, C, O) = np.random.default_rng(0), self.over(batch), self.layer.weight.shape
        kind: Any = np.dtype(dtype)
        x = rng.standard_normal((batch, *self.shape[1:]), kind)
        if not self.first:
            np.maximum(x, 0, out=x)
        w = rng.standard_normal((KH, KW, C, O)) * math.sqrt(2 / (KH * KW * C))
        dy = rng.standard_normal((batch, over.OH, over.OW, O), kind)
        return x, w.astype(kind), np.zeros(O, kind), dy


def convolutions_of(model: GoogLeNet) -> list[Convolution]:
    """Return the convolutions that a training step of a network runs, in its order."""
    nn.seed_dropout(model, 0, 0)
    side = model.config.image_size
    with recorded(model.train()) as recorder, no_grad():
        model(Tensor(np.zeros((1, side, side, 3), np.float32)))
    modules = dict(model.named_modules())
    found = [(path, modules[path], shape) for path, shape in recorder.inputs.items()]
    return [Convolution(path, layer, shape, path == found[0][0]) for path, layer, shape in found
            if isinstance(layer, nn.Conv2d)]


class Case:
    """A convolution with arrays of its own, and the seconds that each way took for each direction in every round."""

    def __init__(self, convolution: Convolution, batch: int, dtype: str):
        self.convolution, self.operations = convolution, 2 * batch * convolution.multiply_adds
        *self.inputs, self.dy = convolution.arrays(batch, dtype)
        y, over, relu = np.empty_like(self.dy), convolution.over(batch), convolution.layer.relu
        self.ops = {way: _op(way)(over, relu, y) for way in convolution.ways}
        self.seconds: dict[tuple[str, str], list[float]] = {}
        self.gradients: dict[str, np.ndarray | None] = {}  # kept, so that the next layer gets other memory

    def run(self, way: str, direction: str) -> None:
        """Compute one direction; where a way can't, directly, and no time is noted."""
        op = self.ops.get(way, self.ops[DIRECT])
        self.gradients[direction] = None  # its memory takes the new one
        began = time.perf_counter()
        self.gradients[direction] = _compute(op, direction, self.inputs, self.dy)
        if way in self.ops:
            self.seconds.setdefault((way, direction), []).append(time.perf_counter() - began)

    def rates(self, way: str, direction: str) -> list[float]:
        """Return the GFLOP/s of every round."""
        return [self.operations / s / 1e9 for s in self.seconds[way, direction]]

    def best(self, direction: str) -> str:
        """Return the fastest way."""
        return min(self.ops, key=lambda way: statistics.median(self.seconds[way, direction]))

    def speedup(self, direction: str) -> float:
        """Return how many times faster Winograd's way is than the direct one."""
        direct, winograd = (statistics.median(self.seconds[way, direction]) for way in (DIRECT, WINOGRAD))
        return direct / winograd


def _op(way: str) -> Callable[..., Any]:
    return {DIRECT: conv2d.Direct, WINOGRAD: conv2d.Winograd}[way]


def _compute(op: Any, direction: str, inputs: Sequence[np.ndarray], dy: np.ndarray) -> np.ndarray | None:
    """Return the gradient, or None of `forward`, whose output is the op's own; a gradient wants it to have run."""
    if direction == FORWARD:
        op.forward(*inputs)
        return None
    return op.data_gradient(dy) if direction == DATA else op.weight_gradient(dy)


def errors(convolution: Convolution, way: str, dtype: str, batch: int = COMPARED) -> Errors:
    """Return the largest error of each direction, as a part of the largest value, against `im2col` in float64.

    Without ReLU: what it cuts off would be wrong unseen."""
    x, w, b, dy = convolution.arrays(batch, dtype)
    op, plain = _op(way)(convolution.over(batch), False, None), conv2d.Im2col(convolution.over(batch), False, None)
    plain.needs = True, True, True
    found = op.forward(x, w, b), op.data_gradient(dy), op.weight_gradient(dy)
    exact = plain.forward(*(each.astype(np.float64) for each in (x, w, b))), *plain.backward(dy.astype(np.float64))[:2]
    return {direction: float(np.abs(ours - theirs).max() / np.abs(theirs).max())
            for direction, ours, theirs in zip(DIRECTIONS, found, exact, strict=True)
            if direction in convolution.directions}


def run_in_sequence(cases: Sequence[Case], way: str) -> None:
    """Run all once as a training step does: forward, and the gradients from the last to the first."""
    for case in cases:
        case.run(way, FORWARD)
    for case in reversed(cases):
        for direction in case.convolution.directions[1:]:
            case.run(way, direction)


def convolutions(session: Session, flags: argparse.Namespace) -> Report:
    """Measure all convolutions."""
    set_threads(flags.threads)
    found = convolutions_of(network(flags.size))
    wrong = {each.path: errors(each, WINOGRAD, flags.dtype) for each in found if WINOGRAD in each.ways}
    cases = [Case(each, flags.batch, flags.dtype) for each in found]
    for way in (DIRECT, WINOGRAD):  # compiles, and takes all memory
        run_in_sequence(cases, way)
    for case in cases:
        case.seconds.clear()
    alone = []
    for _ in session.turns(range(flags.rounds), flags.threads, flags.dtype):
        alone.append(limit.gflops(1, flags.dtype))
        for way in (DIRECT, WINOGRAD):
            run_in_sequence(cases, way)
    figures = Figures(cases, wrong, flags.batch, flags.dtype, session.limit()["gflops"],
                      row("the limit, one thread", alone, "GFLOP/s"))
    title = (f"all convolutions, batch {flags.batch}, {flags.size}x{flags.size}, {flags.dtype}, "
             f"{flags.threads} thread{'s' * (flags.threads > 1)}")
    return figures.report(title)


@dataclass(frozen=True)
class Figures:
    """What was measured; `limit` is the machine's on all threads, in GFLOP/s."""

    cases: Sequence[Case]
    errors: dict[str, Errors]  # Winograd's, by paths
    batch: int
    dtype: str
    limit: float
    one_thread: Row

    def report(self, title: str) -> Report:
        """Return the rows, the direct sum of all first, and the tables."""
        rows = [self.total(way, direction) for way in (DIRECT, BEST) for direction in (ALL, *DIRECTIONS)]
        rows += [row(f"{case.convolution.path} {way} {direction}", case.rates(way, direction), "GFLOP/s")
                 for case in self.cases for way in case.ops for direction in case.convolution.directions]
        extra = {"layers": [self.told(case) for case in self.cases], "totals": self.totals(),
                 "error": self.largest_error(), "limit_of_one_thread": self.one_thread._asdict()}
        tables = [[title], self.direct_table(), self.winograd_table(), self.totals_table(), self.remarks()]
        return Report([Comparison(title, rows[:1], others=[*rows[1:], self.one_thread])], extra,
                      "\n\n".join("\n".join(table) for table in tables if table))

    def parts(self, way: str, direction: str) -> Iterator[tuple[Case, str, str]]:
        """Yield what a total consists of: each layer with its way and direction; the best way's are the fastest."""
        for case in self.cases:
            for each in case.convolution.directions:
                if direction in (ALL, each):
                    yield case, case.best(each) if way == BEST else way, each

    def seconds(self, way: str, direction: str) -> list[float]:
        """Return the seconds of all layers in every round."""
        return [sum(each) for each in zip(*(case.seconds[how, what] for case, how, what in
                                            self.parts(way, direction)), strict=True)]

    def total(self, way: str, direction: str) -> Row:
        """Return the GFLOP/s of all layers."""
        operations = sum(case.operations for case, *_ in self.parts(way, direction))
        return row(f"all {way} {direction}", [operations / s / 1e9 for s in self.seconds(way, direction)], "GFLOP/s")

    def totals(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return by way and direction what all layers take."""
        return {way: {direction: self._cost(way, direction) for direction in (*DIRECTIONS, ALL)}
                for way in (DIRECT, BEST)}

    def _cost(self, way: str, direction: str) -> dict[str, float]:
        rate = self.total(way, direction).value
        return {"ms_an_image": 1e3 * statistics.median(self.seconds(way, direction)) / self.batch, "gflops": rate,
                "of_limit": rate / self.limit}

    def told(self, case: Case) -> dict[str, Any]:
        """Return what the JSON says of a layer."""
        each = case.convolution
        ways: dict[str, Any] = {way: {direction: self._rate(case, way, direction) for direction in each.directions}
                                for way in case.ops}
        for direction, error in self.errors.get(each.path, {}).items():
            ways[WINOGRAD][direction] |= {"over_direct": case.speedup(direction), "error": error}
        return {"name": each.path, "input": each.shape[1:], "weight": each.layer.weight.shape,
                "stride": each.over(1).SH, "multiply_adds": each.multiply_adds, **ways}

    def _rate(self, case: Case, way: str, direction: str) -> dict[str, float]:
        seconds, rate = case.seconds[way, direction], statistics.median(case.rates(way, direction))
        return {"ms": 1e3 * statistics.median(seconds), "gflops": rate, "of_limit": rate / self.limit}

    def largest_error(self) -> dict[str, Any]:
        """Return Winograd's largest error over all layers, where it is, and whether it keeps the promise."""
        error, layer, direction = max(((error, path, direction) for path, each in self.errors.items()
                                       for direction, error in each.items()), default=(0.0, "", ""))
        promise = PROMISE.get(self.dtype)
        return {"largest": error, "layer": layer, "direction": direction, "promise": promise,
                "kept": None if promise is None else error <= promise}

    def direct_table(self) -> list[str]:
        """Return all layers, computed directly."""
        lines = [f"{DIRECT:28} {'output':>8}  {'kernel':>11} " + "".join(f"{each:>18}" for each in DIRECTIONS),
                 " " * 51 + 3 * f"{'GFLOP/s':>10} {'limit':>7}"]
        for case in self.cases:
            over, (KH, KW, C, O) = case.convolution.over(1), case.convolution.layer.weight.shape
            found = [self._rate(case, DIRECT, direction) for direction in case.convolution.directions]
            cells = [f"{each['gflops']:10.0f} {each['of_limit']:7.0%}" for each in found]
            if case.convolution.first:
                cells.insert(1, f"{'-':>10} {'-':>7}")
            lines.append(f"{case.convolution.path:28} {over.OH:4}x{over.OW:<3}  {KH}x{KW} {C:3}->{O:<3} "
                         + "".join(cells))
        return lines

    def winograd_table(self) -> list[str]:
        """Return the layers that Winograd's way can compute."""
        lines = [f"{WINOGRAD:23}" + "".join(f"{each:>29}" for each in DIRECTIONS),
                 f"{'':23}" + 3 * f"{'GFLOP/s':>10} {'direct':>8} {'error':>9}"]
        for case in self.cases:
            if WINOGRAD in case.ops:
                wrong, path = self.errors[case.convolution.path], case.convolution.path
                lines.append(f"{path:23}" + "".join(
                    f"{statistics.median(case.rates(WINOGRAD, direction)):10.0f} {case.speedup(direction):7.2f}x "
                    f"{wrong[direction]:9.1e}" for direction in wrong))
        return lines

    def totals_table(self) -> list[str]:
        """Return what all layers take together."""
        directions = (*DIRECTIONS, ALL)
        lines = [f"{'all layers':14}" + "".join(f"{each:>20}" for each in directions),
                 f"{'':14}" + len(directions) * f"{'ms an image':>12} {'limit':>7}"]
        for way, costs in self.totals().items():
            lines.append(f"{way:14}" + "".join(f"{cost['ms_an_image']:12.3f} {cost['of_limit']:7.1%}"
                                               for cost in costs.values()))
        return lines

    def remarks(self) -> list[str]:
        """Return the largest error with what is promised, and the limit of one thread."""
        found = self.largest_error()
        told = (f"Winograd's largest error: {found['largest']:.1e} of the largest value ({found['layer']}, "
                f"{found['direction']})")
        if found["promise"]:
            told += f"; the promise is {found['promise']:.0e}: {'kept' if found['kept'] else 'BROKEN'}"
        return [told, f"the machine's limit on one thread: {self.one_thread.value:.0f} GFLOP/s"]
