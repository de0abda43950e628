"""Training that goes wrong: losses that are no number, classifiers that learn nothing; and the way back.

A rate that is too high shows in two ways. The loss overflows; or a classifier stays at ln(classes), the loss of a
guess, as BVLC's upper two once did for 2.4 million steps (Caffe, pull request 1598). What helped those who met it was
to halve the rate and to start again. With `--on-divergence halve` the trainer does so: until the end of the first epoch
at the full rate it goes back to the beginning, as weights of a bad start are no good start; after that to the end of
the last epoch. The rates are halved from there on, up to five times.

When a run is saved does not matter to where it goes back to: a checkpoint has that state beside its own, so that a run
which is stopped anywhere and resumed goes back to the same weights as one that was not.
"""
from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from data.loader import Batch
from googlenet.training.checkpoints import State, put_back, with_weights
from googlenet.training.records import DivergedError, Restart, mean
from minigrad import Tensor, no_grad, ops

if TYPE_CHECKING:
    from googlenet.training.trainer import Trainer

STUCK = 0.02  # a head whose loss stays this close to ln(classes) has learned nothing
MOST_HALVINGS = 5


class Guard:
    """What watches over a trainer; `halvings` are those of its rate, `good` the state that it would go back to."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self.halving = trainer.config.on_divergence == "halve"
        self.judged = int(trainer.config.warmup_epochs)  # the first epoch that ends at the full rate
        self.halvings = 0
        self.good: State | None = None
        self.sound_at = 0  # the step whose weights were last found sound
        self.found: DivergedError | None = None  # by a save, since the last record

    @property
    def rate_factor(self) -> float:
        """The factor on every rate."""
        return 0.5 ** self.halvings

    def begin(self) -> None:
        """Keep the state that training begins with, or goes on with, to go back to."""
        if self.halving and self.good is None:
            self.good = with_weights(self.trainer)

    def epoch_ended(self) -> None:
        """Keep the state at the end of an epoch, unless the way back is to the beginning."""
        if self.halving and not self._early:
            self.good = with_weights(self.trainer)

    def beside(self) -> State | None:
        """Return the state to go back to, None where a checkpoint's own is the same."""
        return self.good if self.trainer.batch or self._early else None

    def sound(self) -> bool:
        """Return whether the weights are good to be saved; where they are not, the next record is a Restart.

        Raises DivergedError where there is no way back."""
        try:
            self.require_sound()
        except DivergedError as error:
            self.note(error)
        return self.found is None

    def note(self, error: DivergedError) -> None:
        """Let the next record be a Restart for this reason. Raises DivergedError where there is no way back."""
        if not self.halving:
            raise self._final(error) from None
        self.found = error

    def check(self) -> None:
        """Raise what a save has found since the last record."""
        if self.found:
            raise self.found

    def require_sound(self) -> None:
        """Raise DivergedError where the latest step ruined the weights; its own loss is of the weights before it."""
        t = self.trainer
        if self.sound_at == t.step:
            return
        loss = 0.0 if t.replica.latest is None else self._loss(t.replica.latest)
        if not math.isfinite(loss) or not np.isfinite(t.flat.data).all() or not np.isfinite(t.optimiser.memory).all():
            raise DivergedError(f"after step {t.step} the loss is {loss}, or a weight is no number")
        self.sound_at = t.step

    def _loss(self, batch: Batch) -> float:
        """Return the loss of a batch with the weights as they are."""
        t = self.trainer
        training = t.model.training
        x = Tensor(batch.images.astype(t.model.config.dtype, copy=False))
        with no_grad():
            loss = ops.cross_entropy(t.model.eval()(x).logits, batch.labels).item()
        if training:
            t.replica.to_training()
        return loss

    def stuck_heads(self) -> tuple[str, ...]:
        """Return a warning for each classifier that guessed all through the second half of the epoch that is judged.

        Raises DivergedError for them where training would go back."""
        t = self.trainer
        if t.epoch != self.judged:
            return ()
        classes, rate = t.model.config.classes, t.config.lr * self.rate_factor
        late = mean(t.losses[len(t.losses) // 2:])._asdict()
        found = [f"{head} has learned nothing: its loss is {late[head]:.3f}, that of a guess ln({classes}) = "
                 f"{math.log(classes):.3f}"
                 for head in ("main", "aux1", "aux2") if abs(late[head] - math.log(classes)) < STUCK]
        if found and self.halving:
            raise DivergedError(", and ".join(found))
        return tuple(f"{each}; start again with a lower rate, --lr {rate / 2:g}{self._or_other_weights}"
                     for each in found)

    def go_back(self, error: DivergedError) -> Restart:
        """Put the trainer back into the last good state, at half the rate.

        Raises DivergedError where it is to stop, or has gone back too often."""
        t = self.trainer
        if not self.halving or self.halvings == MOST_HALVINGS or self.good is None:
            raise self._final(error) from None
        at = t.step
        put_back(t, self.good)
        self.halvings += 1
        self.sound_at, self.found, t.replica.latest = t.step, None, None
        return Restart(str(error), at, t.step, t.epoch, self.rate_factor)

    @property
    def _early(self) -> bool:
        return self.trainer.epoch <= self.judged

    @property
    def _or_other_weights(self) -> str:
        """What else to advise, unless it is how the run began."""
        config = self.trainer.config
        if config.init == "he" and config.bias_init == 0 and config.standardise:
            return ""
        return ", or start again with --init he --bias-init 0 --standardise"

    def _final(self, error: DivergedError) -> DivergedError:
        """Return the error with what to do about it."""
        lr = self.trainer.config.lr
        if self.halvings:
            return DivergedError(f"{error}, at 1/{2 ** self.halvings} of the rate {lr:g}; it is not the rate alone: "
                                 f"look at the images and their labels{self._or_other_weights}")
        return DivergedError(f"{error}; a lower rate than {lr:g} is needed, such as --lr {lr / 2:g}")
