"""Training (paper, section 6), as a generator of records: see trainer.py."""
from googlenet.training.records import DivergedError, Epoch, Losses, Step, mean
from googlenet.training.schedule import learning_rate
from googlenet.training.trainer import Trainer, configuration

__all__ = ["DivergedError", "Epoch", "Losses", "Step", "Trainer", "configuration", "learning_rate", "mean"]
