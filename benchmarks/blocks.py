"""Into how many pieces the kernels of a training step are cut on many cores, and whether that gives all the same.

The cores need not be there. A step runs while everybody who asks how many threads there are is told that number, and so
cuts the work as it would be cut there: the figures are what the kernels were called with. Only fewer helpers come.

Threads take a piece after the other. Where all items of a kernel count alike, the last of them to finish has
max / mean times as much to do as one has on average: on so many cores the kernel takes that much longer than it could.
"""
from __future__ import annotations

import argparse
import heapq
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from benchmarks import layers
from benchmarks.ours import Trainee, network
from benchmarks.peers import OURS
from benchmarks.results import Comparison, Row
from benchmarks.session import Session
from minigrad import runtime, set_threads
from minigrad.errors import InputError
from minigrad.kernels.parallel import Kernel
from minigrad.kernels.team import team

STEP = 32, 224  # batch, size
GOAL = 1.1  # max / mean of every kernel that matters
MATTERS = 0.02  # of the time of a layer's kernels, forward or backward
CONVOLUTIONS = ("Direct", "Winograd", "Im2col", "Pointwise")


@dataclass(frozen=True)
class Call:
    """A call of a kernel: how many items, cut into how many pieces, for how many threads (1: too little to share).

    Its seconds are those on the threads that the machine has."""

    kernel: str
    items: int
    pieces: int
    threads: int
    seconds: float

    def imbalance(self, cores: int) -> float:
        """Return the most that a core has to do over the mean of all."""
        return most_of(self.items, self.pieces, self.threads) * cores / self.items


def most_of(items: int, pieces: int, threads: int) -> int:
    """Return how many items the busiest thread gets, if a free thread takes the next piece and items last alike."""
    done = [0] * threads
    for n in range(pieces):
        heapq.heapreplace(done, done[0] + (n + 1) * items // pieces - n * items // pieces)
    return max(done)


@dataclass(frozen=True)
class Part:
    """A layer's calls on its way forward or backward."""

    layer: layers.Layer
    way: str
    calls: list[Call]
    cores: int

    @property
    def name(self) -> str:
        """The layer, its op, and the way."""
        return " ".join(filter(None, [self.layer.name, self.layer.kind, self.way]))

    @property
    def convolves(self) -> bool:
        """Whether it belongs to a convolution."""
        return self.layer.kind in CONVOLUTIONS

    @property
    def seconds(self) -> float:
        """The time of all its kernels."""
        return sum(call.seconds for call in self.calls)

    @property
    def shared(self) -> list[Call]:
        """The calls that all threads share."""
        return [call for call in self.calls if call.threads > 1]

    @property
    def important(self) -> list[Call]:
        """Those of them that take so long that the goal is theirs."""
        return [call for call in self.shared if call.seconds >= MATTERS * self.seconds]

    @property
    def alone(self) -> float:
        """The share of the seconds in calls that are too small to be shared, or have one item only."""
        return sum(call.seconds for call in self.calls if call.threads == 1) / self.seconds

    @property
    def worst(self) -> Call | None:
        """The call that costs most: by how much it is out of balance, and how long it takes."""
        return max(self.shared, key=lambda call: call.seconds * (call.imbalance(self.cores) - 1), default=None)

    @property
    def imbalance(self) -> float:
        """The mean of all shared calls, weighed by their seconds; 1 where there are none."""
        total = sum(call.seconds for call in self.shared)
        return sum(call.seconds * call.imbalance(self.cores) for call in self.shared) / total if total else 1.0


@contextmanager
def cut_for(cores: int, recorder: layers.Recorder) -> Iterator[list[tuple[tuple[layers.Layer, str] | None, Call]]]:
    """Inside, kernels are cut for so many cores; yields a list of their calls, each with the layer that runs."""
    helpers, wake, plain = runtime.get_threads() - 1, team.wake, Kernel.__call__
    calls: list[tuple[tuple[layers.Layer, str] | None, Call]] = []

    def call(kernel: Kernel, count: int, *arguments: Any) -> None:
        launch: Any = kernel.launch

        def noting(count: int, pieces: int, wanted: int, *rest: Any) -> int:
            began = time.perf_counter()
            failed = launch(count, pieces, min(wanted, helpers), *rest)
            seconds = time.perf_counter() - began
            calls.append((recorder.running, Call(kernel.__name__, count, pieces, wanted + 1, seconds)))
            return failed

        kernel.launch = noting
        try:
            plain(kernel, count, *arguments)
        finally:
            kernel.launch = launch

    with (mock.patch.object(Kernel, "__call__", call), mock.patch.object(runtime, "get_threads", return_value=cores),
          mock.patch.object(team, "wake", lambda count: wake(min(count, helpers)))):
        yield calls


def parts_of(trainee: Trainee, cores: int) -> list[Part]:
    """Return what the layers of one training step run, in order; what runs between the ops is a part of its own."""
    if runtime.jit_disabled():
        raise InputError("the table blocks shows how compiled kernels are cut: unset NUMBA_DISABLE_JIT")
    between = layers.Layer("", "between the ops"), ""
    found: dict[tuple[int, str], Part] = {}
    with layers.recorded(trainee.model) as recorder, cut_for(cores, recorder) as calls:
        for _ in range(2):  # the first compiles
            calls.clear()
            recorder.layers.clear()
            recorder.next_step()
            trainee.step()
    for running, call in calls:
        layer, way = running or between
        found.setdefault((id(layer), way), Part(layer, way, [], cores)).calls.append(call)
    return list(found.values())


def blocks(session: Session, flags: argparse.Namespace) -> Blocks:
    """Cut the kernels of a training step for many cores."""
    set_threads(flags.threads)
    batch, size = STEP
    trainee = Trainee(network(size), session.job(OURS, "training", batch, size, flags.threads))
    return Blocks(f"blocks of each layer at {flags.cores} threads, a training step, batch {batch}, {size}x{size}",
                  parts_of(trainee, flags.cores), flags.cores)


@dataclass(frozen=True)
class Blocks:
    """The parts of a step; the worst kernel of the convolutions speaks for all."""

    title: str
    parts: Sequence[Part]
    cores: int

    @property
    def important(self) -> list[Call]:
        """The calls in convolutions that the goal is for."""
        return [call for part in self.parts if part.convolves for call in part.important]

    @property
    def comparison(self) -> Comparison:
        """The calls of convolutions, the largest imbalance standing for all, and beside them each part's own."""
        every = [call.imbalance(self.cores) for call in self.important]
        rows = []
        for number, part in enumerate(self.parts):
            if part.shared:
                own = [call.imbalance(self.cores) for call in part.shared]
                rows.append(Row(f"{number} {part.name}", part.imbalance, "max/mean", min(own), max(own)))
        return Comparison(self.title, [Row("convolutions", max(every), "max/mean", min(every), max(every))],
                          others=rows)

    def told(self) -> dict[str, Any]:
        """Return what the JSON says: every part with its calls."""
        return {"cores": self.cores, "goal": GOAL, "parts": [
            {"name": part.name, "ms": 1e3 * part.seconds, "max_over_mean": part.imbalance, "alone": part.alone,
             "calls": [{"kernel": call.kernel, "items": call.items, "pieces": call.pieces, "threads": call.threads,
                        "ms": 1e3 * call.seconds, "max_over_mean": call.imbalance(self.cores)}
                       for call in part.calls]} for part in self.parts]}

    def __str__(self) -> str:
        width = max(len(part.name) for part in self.parts)
        lines = [self.title, f"{'':{width}} {'ms':>6} {'max/mean':>9} {'alone':>6}  the kernel that costs most by it"]
        lines += [self._line(part, width) for part in self.parts]
        return "\n".join([*lines, "", *self.above(), "", *self.summary()])

    def _line(self, part: Part, width: int) -> str:
        line = f"{part.name:{width}} {1e3 * part.seconds:6.1f} {part.imbalance:9.3f} {part.alone:6.1%}"
        if not part.worst:
            return line
        call = part.worst
        return (f"{line}  {call.kernel}: {call.items} items in {call.pieces} pieces, "
                f"max/mean {call.imbalance(self.cores):.3f}")

    def above(self) -> list[str]:
        """Return the calls of convolutions that miss the goal, those first that cost most; equal ones in one line."""
        seconds, found = sum(call.seconds for call in self.important), defaultdict(list)
        for call in self.important:
            if call.imbalance(self.cores) > GOAL:
                found[call.kernel, call.items, call.pieces, call.imbalance(self.cores)].append(call.seconds / seconds)
        lines = [f"above {GOAL} in convolutions      items  pieces  max/mean  calls  of their time  costs"]
        for key, shares in sorted(found.items(), key=lambda each: (1 - each[0][3]) * sum(each[1])):
            kernel, items, pieces, imbalance = key
            lines.append(f"{kernel:28} {items:7} {pieces:7} {imbalance:9.3f} {len(shares):6} {sum(shares):14.1%} "
                         f"{(imbalance - 1) * sum(shares):6.2%}")
        return lines if found else []

    def summary(self) -> list[str]:
        """Return the largest imbalance of convolutions and what all of them cost."""
        seconds = sum(call.seconds for call in self.important)
        mean = sum(call.seconds * call.imbalance(self.cores) for call in self.important) / seconds
        worst = max(self.important, key=lambda call: call.imbalance(self.cores))
        return [f"kernels of convolutions: the largest max/mean is {worst.imbalance(self.cores):.3f} ({worst.kernel}, "
                f"{worst.items} items), the goal {GOAL}; weighed by time it is {mean:.3f}"]
