"""What every op's test does: compare arrays, and compare a backward pass with a derivative taken another way."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from minigrad import Tensor

ROOT = Path(__file__).resolve().parents[2]

# Largest error allowed, as a part of the largest value: sums of up to some thousand terms, each rounded once.
TOLERANCE = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-12}

Function = Callable[..., np.ndarray]


def assert_close(got: np.ndarray, expected: np.ndarray, tolerance: float | None = None, what: str = "value") -> None:
    """`got` has the shape of `expected` and differs by at most `tolerance` of its largest value (or of 1)."""
    assert got.shape == expected.shape, f"{what}: shape {got.shape}, expected {expected.shape}"
    tolerance = TOLERANCE[got.dtype] if tolerance is None else tolerance
    error = np.abs(got - expected)
    scale = max(1.0, np.abs(expected).max(initial=0))
    worst = np.unravel_index(error.argmax(), error.shape) if error.size else ()
    assert np.isfinite(got).all(), f"{what}: not finite"
    assert not error.size or error[worst] <= tolerance * scale, (
        f"{what}: {got[worst]!r} at {tuple(map(int, worst))}, expected {expected[worst]!r}; "
        f"largest value {scale:.3g}, shape {got.shape}, {got.dtype}"
    )


def gradients(op: Callable[..., Tensor], arrays: Sequence[np.ndarray], dy: np.ndarray) -> list[np.ndarray]:
    """The gradient of sum(dy * op(*arrays)) for each of the arrays, by minigrad's backward."""
    tensors = [Tensor(array, requires_grad=True) for array in arrays]
    op(*tensors).backward(dy)
    gradients = [tensor.grad for tensor in tensors if tensor.grad is not None]
    assert [(g.shape, g.dtype) for g in gradients] == [(a.shape, a.dtype) for a in arrays]
    return gradients


def complex_step(f: Function, arrays: Sequence[np.ndarray], which: int, direction: np.ndarray) -> np.ndarray:
    """The derivative of f along a direction of one of its arguments: Im f(x + ih direction) / h, exact to rounding."""
    h = 1e-30
    moved = [a + 1j * h * direction if i == which else a for i, a in enumerate(arrays)]
    return f(*moved).imag / h


def central_difference(f: Function, arrays: Sequence[np.ndarray], which: int, direction: np.ndarray) -> np.ndarray:
    """The same by (f(x + h d) - f(x - h d)) / 2h: exact for a piecewise linear f whose kinks lie further than h |d|."""
    h = 0.125
    plus, minus = ([a + s * h * direction if i == which else a for i, a in enumerate(arrays)] for s in (1, -1))
    return (f(*plus) - f(*minus)) / (2 * h)


# Rounding, as a part of what is summed; central differences subtract values that are much larger than their difference.
EXACTNESS: dict[Callable[..., np.ndarray], float] = {complex_step: 1e-12, central_difference: 1e-9}


def assert_gradients(
    op: Callable[..., Tensor],
    f: Function,
    arrays: Sequence[np.ndarray],
    rng: np.random.Generator,
    dy: np.ndarray,
    derivative: Callable[..., np.ndarray] = complex_step,
) -> None:
    """Backward of `op` in float64 agrees with `derivative` of `f` along a random direction of each argument."""
    for i, gradient in enumerate(gradients(op, arrays, dy)):
        direction = rng.uniform(-1, 1, gradient.shape)
        got = float((gradient * direction).sum())
        slope = dy * derivative(f, arrays, i, direction)
        scale = float(np.abs(slope).sum() + np.abs(gradient * direction).sum())
        assert abs(got - slope.sum()) <= EXACTNESS[derivative] * scale, (
            f"argument {i}: gradient along a random direction is {got!r} by backward, {float(slope.sum())!r} by "
            f"{derivative.__name__}; shapes {[a.shape for a in arrays]} -> {dy.shape}"
        )


def spaced(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Values in random order, at least 1 apart from each other and 1/2 from zero: no kink within a step of 1/8."""
    size = int(np.prod(shape))
    return (rng.permutation(size) - size // 2 + 0.5).reshape(shape)


def run_python(code: str, *arguments: str, timeout: float = 300, **environment: str) -> str:
    """Run a program in a fresh interpreter at the project's root; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
