"""Model parallelism (DistBelief, section 3): one Inception module over two processes.

A network is cut into parts, a machine for each. Where an edge crosses a border, the machine of its source sends what
the other one needs, once; and back comes the gradient. The paper's network ran so on up to two machines. Here it is a
demonstration: the other process has the branch of 1x1 -> 3x3, by far the largest, this one the other three.

    this process    x ──┬── 1x1, 1x1 -> 5x5, pool -> 1x1 ──┬── y
                        │ x                             y │
    the other           └──────── 1x1 -> 3x3 ─────────────┘

Two ops stand for the border, one on each side of the branch that is away. `Leave` sends x and goes on; `Return` waits
for what came of it. Backward the same from the other end: `Return` sends dy and goes on, `Leave` waits for dx. What is
computed between the two runs at the same time as the branch.

`arithmetic` counts what that can bring. A part is as fast as its machine, and the whole as slow as its largest part.
"""
from __future__ import annotations

from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

import minigrad
from googlenet.config import ModelConfig
from googlenet.distbelief.processes import end_with_parent, undisturbed
from googlenet.distbelief.shared import SharedArray, context
from googlenet.model import TABLE_1, InceptionModule, Row
from minigrad import Tensor, nn, ops
from minigrad.errors import InputError
from minigrad.op import Op


class Branch(nn.Module):
    """1x1 -> 3x3: the part of a module that is away."""

    def __init__(self, module: InceptionModule):
        self.conv_3x3_reduce, self.conv_3x3 = module.conv_3x3_reduce, module.conv_3x3

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_3x3(self.conv_3x3_reduce(x))


class Border:
    """The line to the other process, and the memory for what crosses it: (N, H, W, C) there, (N, H, W, O) back."""

    def __init__(self, module: InceptionModule, there: tuple[int, ...], back: tuple[int, ...], threads: int):
        self.there, self.back = there, back
        dtype = module.conv_3x3.weight.dtype
        self.sent, self.returned = (SharedArray(int(np.prod(shape)), dtype) for shape in (there, back))
        self.line, theirs = context.Pipe()
        with undisturbed():
            self.process: Any = context.Process(target=away, args=(Branch(module), self.sent, self.returned, there,
                                                                   back, threads, theirs))
            self.process.start()
        theirs.close()

    def send(self, what: str, array: np.ndarray) -> None:
        """Let the other process compute `what` of an array, and go on."""
        kept, shape = (self.sent, self.there) if what == "forward" else (self.returned, self.back)
        if array.shape != shape:
            raise InputError(f"a module that is split for {shape} got {array.shape}: split it anew")
        kept.array.reshape(shape)[...] = array
        self.line.send(what)

    def receive(self, what: str) -> np.ndarray:
        """Wait for what came of it."""
        try:
            self.line.recv()
        except (EOFError, OSError):
            raise InputError("the process with the other part of the module has ended: split it anew") from None
        kept, shape = (self.returned, self.back) if what == "forward" else (self.sent, self.there)
        return kept.array.reshape(shape).copy()

    def parameters(self) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
        """Return {path: (array, gradient)} of the branch, as it is there."""
        self.line.send("parameters")
        found: dict[str, tuple[np.ndarray, np.ndarray | None]] = self.line.recv()
        return found

    def close(self) -> None:
        """End the other process."""
        self.line.close()
        self.process.join(5)
        self.process.kill()
        self.process.join()


class Leave(Op):
    """x -> x, for what stays, and a token of what has left."""

    def __init__(self, border: Border):
        self.border = border

    def forward(self, *arrays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.border.send("forward", arrays[0])
        return arrays[0], np.zeros(1, arrays[0].dtype)

    def backward(self, *dys: Any) -> tuple[np.ndarray]:
        dx = self.border.receive("backward")
        return (dx if dys[0] is None else dx + dys[0],)


class Return(Op):
    """The token -> y of the branch (N, H, W, O)."""

    def __init__(self, border: Border):
        self.border = border

    def forward(self, *arrays: np.ndarray) -> np.ndarray:
        return self.border.receive("forward")

    def backward(self, *dys: Any) -> tuple[np.ndarray]:
        self.border.send("backward", dys[0])
        return (np.zeros(1, dys[0].dtype),)


class SplitModule:
    """An Inception module whose 3x3 branch is another process's; for inputs (N, H, W, C) of one shape.

    The branch's weights are there, from when it is split; `close` ends the process."""

    def __init__(self, module: InceptionModule, shape: tuple[int, ...], *, threads: int = 1):
        self.module = module
        self.border = Border(module, shape, (*shape[:3], module.conv_3x3.weight.shape[-1]), threads)

    def __call__(self, x: Tensor) -> Tensor:
        """Compute the module, and record it."""
        m = self.module
        stays, token = Leave(self.border)(x)
        y_1x1 = m.conv_1x1(stays)
        y_5x5 = m.conv_5x5(m.conv_5x5_reduce(stays))
        y_pool = m.pool_proj(ops.max_pool2d(stays, 3, stride=1, padding=1))
        return ops.concat([y_1x1, Return(self.border)(token), y_5x5, y_pool])

    def gradients(self) -> dict[str, np.ndarray | None]:
        """Return the gradient of every parameter by its path, wherever it is."""
        here = {path: parameter.grad for path, parameter in self.module.named_parameters()}
        return here | {path: gradient for path, (_, gradient) in self.border.parameters().items()}

    def close(self) -> None:
        """End the other process."""
        self.border.close()


def away(branch: Branch, sent: SharedArray, returned: SharedArray, there: tuple[int, ...], back: tuple[int, ...],
         threads: int, line: Connection) -> None:
    """Be the other process."""
    end_with_parent()
    minigrad.set_threads(threads)
    y: Tensor | None = None
    x: Tensor | None = None
    while True:
        try:
            what = line.recv()
        except (EOFError, OSError):
            return
        if what == "forward":
            x = Tensor(sent.array.reshape(there).copy(), requires_grad=True)
            y = branch(x)
            returned.array.reshape(back)[...] = y.data
            line.send(what)
        elif what == "backward":
            assert x is not None
            assert y is not None
            y.backward(returned.array.reshape(back).copy())
            assert x.grad is not None
            sent.array.reshape(there)[...] = x.grad
            line.send(what)
        else:
            line.send({path: (parameter.data, parameter.grad) for path, parameter in branch.named_parameters()})


class Cut(NamedTuple):
    """What a module's split costs and can bring, for an image."""

    name: str
    total: int  # multiply-adds
    largest: int  # of the larger part
    sent: int  # bytes over the border, forward; backward the same the other way
    returned: int

    @property
    def best(self) -> float:
        """How many times faster two machines can be, if what they send took no time."""
        return self.total / self.largest

    def speedup(self, flops: float, line: float) -> float:
        """Return the same with a line of so many bytes a second between machines of `flops` multiply-adds a second."""
        return self.total / flops / (self.largest / flops + (self.sent + self.returned) / line)


def arithmetic(config: ModelConfig | None = None) -> Iterator[Cut]:
    """Yield what the split brings for each module of Table 1, in its order."""
    from googlenet.model import GoogLeNet

    model = GoogLeNet(config or ModelConfig())
    H, W, C = 0, 0, 0
    rows = {row.name: row for row in TABLE_1}
    for name, shape in model.stage_shapes.items():
        if name in rows and rows[name].type == "inception":
            yield _cut(rows[name], H, W, C)
        if len(shape) == 3:
            H, W, C = shape


def _cut(row: Row, H: int, W: int, C: int) -> Cut:
    away = C * row.n3x3_reduce + 9 * row.n3x3_reduce * row.n3x3
    stays = C * row.n1x1 + C * row.n5x5_reduce + 25 * row.n5x5_reduce * row.n5x5 + C * row.pool_proj
    pixels, size = H * W, 4
    return Cut(row.name, pixels * (away + stays), pixels * max(away, stays), size * pixels * C,
               size * pixels * row.n3x3)
