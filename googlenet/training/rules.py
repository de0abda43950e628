"""The rules that change weights, as the configuration has them: the optimiser and the average."""
from __future__ import annotations

from googlenet.config import TrainingConfig
from minigrad.averaging import Average, TailMean, WarmedEma
from minigrad.flat import Vector
from minigrad.optim import SGD, Adagrad, Optimiser


def optimiser_of(parameters: Vector, config: TrainingConfig) -> Optimiser:
    """Return what updates a vector of weights, or a part of it."""
    rules = {"weight_decay": config.weight_decay, "bias_rate": config.bias_rate, "bias_decay": config.bias_decay}
    if config.optimiser == "adagrad":
        return Adagrad(parameters, **rules)
    return SGD(parameters, momentum=config.momentum, **rules)


def average_of(parameters: Vector, config: TrainingConfig, epoch_steps: int) -> Average | None:
    """Return the average of a vector of weights, or of a part of it, that is kept, None where none is."""
    if config.averaging == "tail":
        return TailMean(parameters, start=int(config.averaging_start * config.epochs * epoch_steps))
    return WarmedEma(parameters, config.ema_decay) if config.averaging == "ema" else None
