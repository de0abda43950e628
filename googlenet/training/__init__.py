"""Training (paper, section 6), as a generator of records: see trainer.py."""
from googlenet.training.checkpoints import configuration
from googlenet.training.records import DivergedError, Epoch, Fault, Losses, Restart, Step, mean
from googlenet.training.schedule import learning_rate
from googlenet.training.trainer import Trainer

__all__ = ["DivergedError", "Epoch", "Fault", "Losses", "Restart", "Step", "Trainer", "configuration", "learning_rate",
           "mean"]
