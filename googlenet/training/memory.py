"""How much memory a training run takes, before it takes it.

    program        Python, its libraries and the compiled kernels, and what those lay out anew of the largest layer
    weights        the weights and everything of their size: gradient, velocity, averages, the state to go back to
    activations    what the forward pass keeps for the backward pass, for every image of a batch
    batches        images that are decoded, ahead of the step and in it
    checkpoint     the file, which is composed in memory, with the state to go back to
    data           images that the data set holds in memory

What is kept for an image is not computed but seen: a forward pass of a few images of zeros, by the same kernels, on
weights that are zero and so take no memory; then the arrays behind its graph are summed up. Below frozen layers nothing
is kept, and what two neighbouring stages hold counts instead. The rest is counted, as if no memory were used twice.

Of workers each has its own program, activations, batches and data, and its slot of shared memory.

The sum is within 25 % of the peaks that Linux tells, mostly within 15 % (tests/googlenet/training/test_memory.py), but
for the first run of a new version: compiling takes some 200 MiB, which activations then take over. A run is refused
only where 85 % of the sum are not free.
"""
from __future__ import annotations

import gc
import math
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.base import Dataset
from googlenet.config import ModelConfig
from googlenet.model import GoogLeNet, has_batch_norm
from googlenet.training import freezing
from googlenet.training.trainer import Trainer
from minigrad import Tensor, nn, ops
from minigrad.errors import InputError
from minigrad.tensor import topological_order

PROGRAM = 155 * 2**20  # bytes, measured with CPython 3.11, NumPy 2.4 and Numba 0.68
LEFT_BEHIND = 50 * 2**20  # bytes that loading kernels leaves free, for activations to take
WORKSPACE = 4  # times the largest layer's weights: Winograd's are four times the weights
ERROR = 0.15  # of the estimate
TRIED = 4  # images of the forward pass that is looked at
CGROUPS = Path("/sys/fs/cgroup")


class Memory(NamedTuple):
    """Bytes of a run, by what takes them: see above."""

    program: int
    weights: int
    activations: int
    batches: int
    checkpoint: int
    data: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {gib(part)}" for name, part in self._asdict().items() if part >= 2**20)
        return f"{gib(self.total)} GiB ({parts})"


def estimate(trainer: Trainer) -> Memory:
    """Return about what training takes at its busiest moment; of workers on a cluster, what this process takes."""
    config, model = trainer.config, trainer.model
    N, S, item = config.batch_size, model.config.image_size, np.dtype(model.config.dtype).itemsize
    P = trainer.flat.data.size
    average = 8 * P if trainer.average else 0  # float64
    state = 2 * item * P + average  # with the velocity
    copies = 2 if trainer.guard.halving else 1
    tested = 2 * item * P if trainer.average else 0  # the average rounded, and the network that it is tested in
    tried = min(N, TRIED)
    kept = _kept(model.config, trainer.frozen, tried) * N // tried
    passing = N * item * _widest(model) if trainer.frozen else 0
    largest = max(place.stop - place.start for place, _ in trainer.flat.places.values())
    batch = N * S * S * 3
    ahead = config.loader_threads + 1  # and as many pictures apart as there are threads that put them together
    replicas, others = config.workers, 2 if config.workers > 1 else 0  # the server's process and the trainer's
    if config.cluster:
        replicas, others = 0, 1
    buffers = 3 + config.overlap + (config.push_every > 1) + (config.fetch_every > 1)  # of weights and gradients
    slots = buffers * item * P * replicas if others else 0
    return Memory(
        program=(replicas + others) * PROGRAM + replicas * WORKSPACE * item * largest,
        weights=copies * state + item * P + tested + slots,
        activations=max(replicas, 1) * max(kept * bool(replicas), passing, LEFT_BEHIND),
        batches=replicas * batch * (4 * (ahead + config.loader_threads) + item + 4),
        checkpoint=copies * state + item * P * bool(average),
        data=(replicas + bool(others)) * _in_memory(trainer.training))


def require_memory(trainer: Trainer) -> Memory:
    """Return the estimate of a run that is about to begin.

    Raises InputError, with the batch size that fits, where it needs more than is free, whatever the estimate's error.
    Where what is free is not known, as on Windows, nothing is refused."""
    gc.collect()  # trainers of runs before this one, whose parts refer to each other
    needed, free = estimate(trainer), free_memory()
    if free is None or (1 - ERROR) * needed.total - _resident() <= free:
        return needed
    found = f"training needs about {needed}, {gib(free)} GiB are free"
    fitting = _largest_batch(trainer, needed, free + _resident())
    if not fitting:
        fewer = "fewer --workers, or a " if trainer.config.workers > 1 else "a "
        raise InputError(f"{found}, and one image at a time does not fit either: close other programs, or take {fewer}"
                         "smaller --image-size or --width")
    images = trainer.config.batch_size * trainer.config.accumulate
    size = next(size for size in range(fitting, 0, -1) if images % size == 0)
    but = ", but for batch norm" if has_batch_norm(trainer.model.config) else ""
    raise InputError(f"{found}: at most {fitting} images at a time fit; --batch-size {size} "
                     f"--accumulate {images // size} is the same step{but}")


def free_memory() -> int | None:
    """Return how many bytes this process may still take: of the machine, and of the control groups that it is in.

    None where the system does not tell; the whole memory of the machine where it tells no more than that."""
    try:
        return min([_machine(), *_groups()])
    except (OSError, ValueError, KeyError):  # no Linux, or an old one
        pass
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def gib(count: int) -> str:
    """Return a number of bytes in GiB, as text."""
    return f"{count / 2**30:.2f}"


def _kept(config: ModelConfig, frozen: frozenset[str], images: int) -> int:
    """Return the bytes that a forward pass of so many images keeps for the backward pass."""
    model = GoogLeNet(config)
    freezing.freeze(model, frozen)
    freezing.train(model, frozen)
    nn.seed_dropout(model, 0, 0)
    outputs = model(Tensor(np.zeros((images, config.image_size, config.image_size, 3), config.dtype)))
    heads = [ops.cross_entropy(x, np.zeros(images, np.int64)) for x in outputs if x is not None]
    own = {id(_owner(parameter.data)) for _, parameter in model.named_parameters()}
    kept = {id(owner): owner.nbytes for owner in map(_owner, _behind(sum(heads[1:], start=heads[0])))}
    return sum(size for key, size in kept.items() if key not in own)


def _behind(loss: Tensor) -> Iterator[np.ndarray]:
    """Yield the arrays that are kept for the gradient of a tensor."""
    assert loss.op is not None
    for op in topological_order(loss.op):
        yield from (tensor.data for tensor in op.inputs or ())
        yield from _arrays(list(vars(op).values()))


def _arrays(values: Any) -> Iterator[np.ndarray]:
    if isinstance(values, np.ndarray):
        yield values
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _arrays(value)


def _owner(array: np.ndarray) -> np.ndarray:
    """Return the array whose memory it is; what stands between, of `as_strided`, is no array."""
    while getattr(array, "base", None) is not None:
        array = array.base  # type: ignore[assignment]
    return array


def _widest(model: GoogLeNet) -> int:
    """Return the values of an image that two neighbouring stages hold at most."""
    sizes = [3 * model.config.image_size**2, *(int(np.prod(shape)) for shape in model.stage_shapes.values())]
    return max(one + other for one, other in pairwise(sizes))


def _in_memory(dataset: Dataset) -> int:
    """Return the bytes of the arrays that a data set holds, and those that it is a part of."""
    values = vars(dataset).values()
    return sum(value.nbytes for value in values if isinstance(value, np.ndarray)) + sum(
        _in_memory(value) for value in values if isinstance(value, Dataset))


def _largest_batch(trainer: Trainer, needed: Memory, limit: int) -> int:
    """Return how many images a batch may have within `limit` bytes."""
    growing = (needed.activations + needed.batches) / trainer.config.batch_size  # bytes of an image
    return max(0, math.floor((limit - needed.total) / growing) + trainer.config.batch_size)


def _resident() -> int:
    """Return the bytes that this process has taken already, 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def _machine() -> int:
    """Return the bytes that Linux can give to programs without swapping."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


def _groups() -> Iterator[int]:
    """Yield what the limit of each control group leaves: of this process's own, and of those above it."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, kinds, own = line.split(":", 2)
        limit, usage, root = "memory.max", "memory.current", CGROUPS
        given_back = ["inactive_file", "active_file", "slab_reclaimable"]
        if kinds:  # version 1
            limit, usage, root = "memory.limit_in_bytes", "memory.usage_in_bytes", CGROUPS / "memory"
            given_back = ["total_inactive_file", "total_active_file"]
        if not kinds or "memory" in kinds.split(","):
            for group in (Path(own), *Path(own).parents):
                yield from _left(root / str(group).lstrip("/"), limit, usage, given_back)


def _left(group: Path, limit: str, usage: str, given_back: list[str]) -> Iterator[int]:
    """Yield the bytes that are left of a control group's limit, or nothing; what the system gives back before it ends a
    program, such as files that are only cached, is not taken."""
    try:
        most, taken = (group / limit).read_text().strip(), int((group / usage).read_text())
        counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        if most != "max":
            yield max(0, int(most) - taken + sum(int(counts.get(name, 0)) for name in given_back))
    except (OSError, ValueError):  # no such group here, as in a container that sees only its own
        return
