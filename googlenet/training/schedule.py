"""How the learning rate falls."""
from googlenet.config import TrainingConfig


def learning_rate(config: TrainingConfig, epochs: float) -> float:
    """Return the rate after `epochs` passes, a fraction within one.

    step: lr * decay^floor(epochs / decay_epochs), the paper's 4 % every 8 epochs; poly: lr * (1 - epochs / all epochs)^
    power, with power 0.5 BVLC's quick solver. The warm-up rises linearly from zero.
    """
    rate = config.lr
    if config.schedule == "step":
        rate *= config.decay ** (epochs // config.decay_epochs)
    elif config.schedule == "poly":
        rate *= max(0.0, 1 - epochs / config.epochs) ** config.power
    if epochs < config.warmup_epochs:
        rate *= epochs / config.warmup_epochs
    return rate
