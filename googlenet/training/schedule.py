"""How the learning rate falls.

Rates are told in epochs. BVLC's solvers count iterations of 32 images instead, of which ImageNet's 1,281,167 make
40,037 an epoch:

| file | iterations | epochs | here |
|---|---|---|---|
| solver.prototxt | step: gamma 0.96, stepsize 320,000 | 7.99 | step: decay 0.96, decay_epochs 8 |
| | max_iter 10,000,000 | 249.8 | epochs 250 |
| quick_solver.prototxt | poly: power 0.5, max_iter 2,400,000 | 59.9 | poly: power 0.5, epochs 60 |

Both begin at 0.01. The step policy is the paper's: "decreasing the learning rate by 4% every 8 epochs".
"""
from googlenet.config import TrainingConfig


def learning_rate(config: TrainingConfig, epochs: float) -> float:
    """Return the rate after `epochs` passes, a fraction within one.

    step: lr * decay^floor(epochs / decay_epochs); poly: lr * (1 - epochs / all epochs)^power. The warm-up rises
    linearly from zero.
    """
    rate = config.lr
    if config.schedule == "step":
        rate *= config.decay ** (epochs // config.decay_epochs)
    elif config.schedule == "poly":
        rate *= max(0.0, 1 - epochs / config.epochs) ** config.power
    if epochs < config.warmup_epochs:
        rate *= epochs / config.warmup_epochs
    return rate
