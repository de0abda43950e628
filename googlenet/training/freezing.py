"""Layers that do not learn.

They are named by their paths, several with commas between them: `conv1`, `inception_3a` with all that is in it,
`inception_3a/conv_1x1`, `aux1`. `conv1..inception_4e` stands for every layer of the trunk from the one to the other, in
the order of Table 1; the auxiliary heads, which branch off, are not among them.

What is frozen keeps its weights as they are, and a batch norm its running statistics, by which it then normalises as in
testing. Below the lowest layer that learns nothing is kept for a gradient and none is computed. Dropout has no weights
and goes on.
"""
from __future__ import annotations

from googlenet.model import GoogLeNet
from minigrad import nn
from minigrad.errors import InputError

RANGE = ".."


def frozen_parameters(model: GoogLeNet, layers: str) -> frozenset[str]:
    """Return the paths of the parameters of these layers.

    Raises InputError, which lists the layers, for one that is not among them, or where nothing is left to learn."""
    paths = [path for path, _ in model.named_parameters()]
    named = [layer for name in filter(None, map(str.strip, layers.split(","))) for layer in _layers(model, paths, name)]
    found = frozenset(path for path in paths if path.startswith(tuple(f"{layer}/" for layer in named)))
    if len(found) == len(paths):
        raise InputError(f"freeze {layers!r}: this is all of the network: leave a layer to learn, such as classifier")
    return found


def freeze(model: GoogLeNet, frozen: frozenset[str]) -> None:
    """Let the engine compute no gradient of these parameters, and of all others one."""
    for path, parameter in model.named_parameters():
        parameter.requires_grad = path not in frozen


def train(model: GoogLeNet, frozen: frozenset[str]) -> None:
    """Switch the network to training, but for the batch norms that are frozen."""
    model.train()
    for path, module in model.named_modules():
        if isinstance(module, nn.BatchNorm) and f"{path}/beta" in frozen:
            module.training = False


def _layers(model: GoogLeNet, paths: list[str], name: str) -> list[str]:
    """Return the layers that a name stands for: itself, or those of a range."""
    stages = list(model.stage_shapes)
    first, dots, last = name.partition(RANGE)
    if dots and first in stages and last in stages[stages.index(first):]:
        return stages[stages.index(first):stages.index(last) + 1]
    if not dots and any(path.startswith(f"{name}/") for path in paths):
        return [name]
    if dots and first in stages and last in stages:
        raise InputError(f"freeze {name!r}: {last} comes before {first}: write {last}{RANGE}{first}")
    known = dict.fromkeys(path.partition("/")[0] for path in paths)
    raise InputError(f"freeze {name!r}: no such layer; choose of {', '.join(known)}, a layer within them such as "
                     f"inception_3a/conv_1x1, or FIRST{RANGE}LAST for all between two of the trunk")
