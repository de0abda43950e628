"""Where a training step's time goes: every op's forward and backward, timed while the whole network runs.

The clock hangs on `Op.forward` and `Op.backward` while a profile is taken, and nowhere else. A layer gets its name from
its weights, or, having none, from the module that called it. A weight of a convolution multiplies once at every
position of its output, and as often again for each of the two gradients. GFLOP/s count these multiply-adds, twice,
whatever the algorithm: Winograd's does fewer, and may pass the machine's limit.
"""
from __future__ import annotations

import argparse
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.ours import Trainee, network
from benchmarks.peers import OURS
from benchmarks.results import Comparison, Report, row
from benchmarks.session import Session
from minigrad import Tensor, nn, set_threads
from minigrad.op import Op

WARM = 2  # steps before the first that counts

Address = tuple[int, tuple[int, ...]]  # where an array begins, and its shape: two views of one weight are the same


@dataclass
class Layer:
    """One op of the network, with the seconds of every step; multiply-adds are those of one step."""

    name: str
    kind: str
    multiply_adds: int = 0
    gradient_multiply_adds: int = 0
    forward: list[float] = field(default_factory=list)
    backward: list[float] = field(default_factory=list)


class Recorder:
    """Collects layers in the order in which the network calls them."""

    def __init__(self, model: nn.Module):
        self.weights = {_address(p.data): path.removesuffix("/weight") for path, p in model.named_parameters()
                        if p.data.ndim > 1}
        self.modules = {id(module): path for path, module in model.named_modules()}
        self.layers: dict[tuple[str, str, int], Layer] = {}
        self.seen: Counter[tuple[str, str]] = Counter()
        self.inputs: dict[str, tuple[int, ...]] = {}  # a weight's layer -> the shape of what it is applied to
        self.inside: list[str] = []  # the modules that are running, outermost first
        self.running: tuple[Layer, str] | None = None  # a layer, and "forward" or "backward"

    def next_step(self) -> None:
        """Begin with the first layer again."""
        self.seen.clear()

    def layer(self, name: str, kind: str) -> Layer:
        """Return the layer that is called now: the n-th of this name and kind in this step."""
        self.seen[name, kind] += 1
        return self.layers.setdefault((name, kind, self.seen[name, kind]), Layer(name, kind))

    def forward(self, op: Op, function: Callable, arrays: tuple[np.ndarray, ...]) -> Any:
        """Run an op's forward; an op that calls another one counts as one."""
        if self.running:
            return function(op, *arrays)
        paths = [self.weights.get(_address(array)) for array in arrays]
        self.inputs.update((path, arrays[0].shape) for path in paths if path)
        layer = self.layer(_common(list(filter(None, paths))) or (self.inside[-1] if self.inside else ""),
                           type(op).__name__)
        y = self._timed(layer, "forward", function, op, *arrays)
        counts = [multiply_adds(array, arrays[0], y) if path else 0
                  for array, path in zip(arrays, paths, strict=True)]
        layer.multiply_adds = sum(counts)
        op._profiled = layer, counts  # type: ignore[attr-defined]  # the op drops it with all else after backward
        return y

    def backward(self, op: Op, function: Callable, arguments: tuple[Any, ...]) -> Any:
        """Run an op's backward."""
        if self.running:
            return function(op, *arguments)
        layer, counts = getattr(op, "_profiled", None) or (self.layer("", type(op).__name__), [])
        needs = op.needs
        gradients = self._timed(layer, "backward", function, op, *arguments)
        layer.gradient_multiply_adds = sum(  # an input's gradient takes every weight, a weight's takes its own
            count * (need + needs[0]) for count, need in zip(counts, needs, strict=False))
        return gradients

    def _timed(self, layer: Layer, way: str, function: Callable, *arguments: Any) -> Any:
        self.running = layer, way
        try:
            began = time.perf_counter()
            result = function(*arguments)
            getattr(layer, way).append(time.perf_counter() - began)
            return result
        finally:
            self.running = None


@contextmanager
def recorded(model: nn.Module) -> Iterator[Recorder]:
    """Record every op of `model` inside."""
    recorder = Recorder(model)

    def forward(function: Callable) -> Callable:
        return lambda op, *arrays: recorder.forward(op, function, arrays)

    def backward(function: Callable) -> Callable:
        return lambda op, *arguments: recorder.backward(op, function, arguments)

    def call(function: Callable) -> Callable:
        def named(module: nn.Module, *inputs: Any, **options: Any) -> Any:
            recorder.inside.append(recorder.modules.get(id(module), ""))
            try:
                return function(module, *inputs, **options)
            finally:
                recorder.inside.pop()
        return named

    with ExitStack() as patches:
        def replace(owner: type, name: str, wrap: Callable) -> None:
            if name in vars(owner):
                patches.enter_context(mock.patch.object(owner, name, wrap(vars(owner)[name])))

        replace(nn.Module, "__call__", call)
        for kind in _subclasses(Op):
            replace(kind, "forward", forward)
            replace(kind, "backward", backward)
        yield recorder


def multiply_adds(weight: np.ndarray, x: np.ndarray, y: Any) -> int:
    """Return how often a weight's values multiply in one call: each once at every position of its output.

    Of several outputs the one with the weight's channels counts; without any, x's positions do."""
    outputs = [array for array in (y if isinstance(y, tuple | list) else (y,)) if isinstance(array, np.ndarray)]
    own = [array for array in outputs if array.shape[-1] == weight.shape[-1]]
    output = next(iter(own or outputs or [x]))
    return math.prod(output.shape[:-1]) * weight.size


def profile(trainee: Trainee, steps: int) -> tuple[list[Layer], list[float]]:
    """Return the layers of `steps` training steps in the network's order, the update last, and each step's seconds."""
    for _ in range(WARM):
        trainee.step()
    update, seconds = Layer("", "SGD"), []
    with recorded(trainee.model) as recorder:
        for _ in range(steps):
            recorder.next_step()
            began = time.perf_counter()
            update.forward.append(trainee.step())
            seconds.append(time.perf_counter() - began)
    return [*recorder.layers.values(), update], seconds


def profile_inference(model: nn.Module, images: np.ndarray) -> list[Layer]:
    """Return the layers of one pass in testing."""
    with recorded(model.eval()) as recorder:
        model(Tensor(images))
    return list(recorder.layers.values())


def layers(session: Session, flags: argparse.Namespace) -> Report:
    """Measure where a training step's time goes."""
    set_threads(flags.threads)
    job = session.job(OURS, "training", flags.batch, flags.size, flags.threads)
    trainee = Trainee(network(flags.size), job)
    for way in session.turns(("there", "back"), flags.threads):  # the limit is measured before and after
        if way == "there":
            found, steps = profile(trainee, flags.rounds)
    rows = [row("step", [1e3 * s for s in steps], "ms")]
    for number, layer in enumerate(found):
        for way, seconds in (("forward", layer.forward), ("backward", layer.backward)):
            if seconds:
                rows.append(row(f"{number} {layer.name} {layer.kind} {way}", [1e3 * s for s in seconds], "ms"))
    title = f"a training step layer by layer, batch {flags.batch}, {flags.size}x{flags.size}, {flags.threads} threads"
    top = session.limit()["gflops"]
    return Report([Comparison(title, rows[:1], others=rows[1:])],
                  {"layers": [_told(layer, top) for layer in found], "kinds": _kinds(found)},
                  "\n".join([title, "", *_table(found, top), "", *_summary(found, steps)]))


def _told(layer: Layer, top: float) -> dict[str, Any]:
    forward, backward = _rate(layer.multiply_adds, layer.forward), _rate(layer.gradient_multiply_adds, layer.backward)
    return {"name": layer.name, "kind": layer.kind, "multiply_adds": layer.multiply_adds,
            "forward_ms": _ms(layer.forward), "backward_ms": _ms(layer.backward),
            "forward_gflops": forward, "backward_gflops": backward,
            "forward_of_limit": forward and forward / top, "backward_of_limit": backward and backward / top}


def _table(found: list[Layer], top: float) -> list[str]:
    width = max(len(layer.name) for layer in found)
    lines = [f"{'layer':{width}}  {'op':16} {'forward ms':>10} {'GFLOP/s':>8} {'limit':>6}"
             f" {'backward ms':>12} {'GFLOP/s':>8} {'limit':>6}"]
    for layer in found:
        told = _told(layer, top)
        cells = [f"{told[f'{way}_ms']:{size}.2f} " + (f"{told[f'{way}_gflops']:8.0f} {told[f'{way}_of_limit']:6.0%}"
                 if told[f"{way}_gflops"] else " " * 15) for way, size in (("forward", 10), ("backward", 12))]
        lines.append(f"{layer.name:{width}}  {layer.kind:16} {' '.join(cells)}".rstrip())
    return lines


def _kinds(found: list[Layer]) -> dict[str, dict[str, float]]:
    kinds: dict[str, dict[str, float]] = {}
    for layer in found:
        kind = kinds.setdefault(layer.kind, {"ops": 0, "forward_ms": 0.0, "backward_ms": 0.0})
        kind["ops"] += 1
        kind["forward_ms"] += _ms(layer.forward)
        kind["backward_ms"] += _ms(layer.backward)
    return kinds


def _summary(found: list[Layer], steps: list[float]) -> list[str]:
    """Return the table by kinds of ops; the rest is what no op's clock saw: the engine, sums of gradients, images."""
    step, kinds = _ms(steps), _kinds(found)
    lines = [f"{'':16} {'ops':>4} {'forward ms':>10} {'backward ms':>12} {'of the step':>12}"]
    for name, kind in sorted(kinds.items(), key=lambda item: -item[1]["forward_ms"] - item[1]["backward_ms"]):
        both = kind["forward_ms"] + kind["backward_ms"]
        lines.append(f"{name:16} {kind['ops']:4} {kind['forward_ms']:10.2f} {kind['backward_ms']:12.2f} "
                     f"{both / step:12.1%}")
    rest = step - sum(kind["forward_ms"] + kind["backward_ms"] for kind in kinds.values())
    return [*lines, f"{'the rest':16} {'':4} {'':10} {rest:12.2f} {rest / step:12.1%}",
            f"{'step':16} {'':4} {'':10} {step:12.2f} {1:12.1%}"]


def _ms(seconds: list[float]) -> float:
    return 1e3 * statistics.median(seconds) if seconds else 0.0


def _rate(count: int, seconds: list[float]) -> float | None:
    return 2 * count / statistics.median(seconds) / 1e9 if count and seconds else None


def _address(array: np.ndarray) -> Address:
    return array.__array_interface__["data"][0], array.shape


def _common(paths: list[str]) -> str:
    """Return the name of an op that has these layers' weights: a/{b,c} of a/b and a/c."""
    if len(paths) < 2:
        return "".join(paths)
    parents, names = zip(*(path.rpartition("/")[::2] for path in paths), strict=True)
    return f"{parents[0]}/{{{','.join(names)}}}" if len(set(parents)) == 1 else ",".join(paths)


def _subclasses(kind: type[Op]) -> Iterator[type[Op]]:
    for each in kind.__subclasses__():
        yield each
        yield from _subclasses(each)
