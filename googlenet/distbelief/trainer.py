"""Training by workers, as the trainer that the rest of the house knows: records of steps and epochs, checkpoints.

The weights, the optimiser's memory and the average stand in memory that the server changes; between two records it
stands still. An epoch is as many batches as the images make, whoever computed them; what the workers computed beyond
its end counts for the next one.

A checkpoint also holds where every worker was. A run that is gone on with by another number of workers begins a new
order of the images for them; what is left of the epoch is counted, but is of that order.
"""
from __future__ import annotations

import json
import sys
import time
from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping
from os import PathLike, fspath
from pathlib import Path

import numpy as np

from data.base import Dataset
from data.preprocess import Preprocessing
from googlenet.config import TrainingConfig
from googlenet.distbelief.job import Job, Slots
from googlenet.distbelief.local import Fleet, ServerLostError
from googlenet.distbelief.messages import Lost, Place, Update
from googlenet.distbelief.ray_cluster import RayFleet, require_ray
from googlenet.distbelief.server import Counts, epoch_updates
from googlenet.distbelief.shared import SharedArray
from googlenet.model import GoogLeNet
from googlenet.training.records import Crew, DivergedError, Epoch, Fault, GivenUpError, Restart, Step, weighted
from googlenet.training.trainer import Trainer
from googlenet.weights import load_model
from googlenet.weights.store import Attribute
from minigrad.errors import InputError

WINDOWS_MOST = 60  # of 63 handles that are waited for at once
RECENT = 100  # updates that the staleness and the speed are told of


class AsynchronousTrainer(Trainer):
    """A trainer whose steps are computed by `config.workers` processes.

    Raises InputError where there are fewer batches than workers, or settings contradict each other."""

    def __init__(self, model: GoogLeNet, config: TrainingConfig, training: Dataset, validation: Dataset | None,
                 preprocessing: Preprocessing):
        require_sense(config)
        super().__init__(model, config, training, validation, preprocessing)
        if self.loader.batches < config.workers:
            raise InputError(f"--workers {config.workers}: an epoch has batches of {config.batch_size} images for "
                             f"{self.loader.batches} only: give fewer workers, or a smaller --batch-size")
        if config.warm_start >= config.epochs * self.epoch_steps:
            raise InputError(f"--warm-start {config.warm_start} of a run of about {config.epochs * self.epoch_steps} "
                             "updates: the other workers would never begin; give fewer")
        self.job = self._shared()
        self.fleet: Fleet | RayFleet | None = None
        self.queued: deque[Step | Fault] = deque()  # counted in, but not told yet
        self.places: dict[int, Place] = {}
        self.counts: list[Counts] = [Counts() for _ in range(config.shards)]
        self.restarts = 0
        self.checkpoint: str | None = None  # the latest, to go back to where the server dies in the midst of an update
        self.histogram: Counter[int] = Counter()  # pushes by their staleness
        self.recent: deque[tuple[float, Update]] = deque(maxlen=RECENT)

    def _shared(self) -> Job:
        """Move what the server changes into shared memory."""
        P, dtype = self.flat.data.size, self.flat.data.dtype
        buffers = [buffer for _, buffer in self.model.named_buffers()]
        size = P + sum(buffer.data.size for buffer in buffers)
        weights, memory = SharedArray(size, dtype), SharedArray(P, dtype)
        weights.array[:P] = self.flat.data
        memory.array[:] = self.optimiser.memory
        self.flat.use(data=weights.array[:P])
        self.optimiser.memory = memory.array
        at = P
        for buffer in buffers:
            own = weights.array[at:at + buffer.data.size].reshape(buffer.shape)
            own[...] = buffer.data
            buffer.data, at = own, at + own.size
        kept = None
        if self.average:
            kept = SharedArray(P, np.float64)
            kept.array[:] = self.average.kept
            self.average.kept = kept.array
        slots = Slots(0 if self.config.cluster else self.config.workers, size, dtype)
        return Job(config=self.config, model=self.model.config, preprocessing=self.preprocessing,
                   places_of=self.flat.places, epoch_batches=self.loader.batches, weights=weights, memory=memory,
                   kept=kept, begun=SharedArray(1, np.int64), life=SharedArray(2, np.int64), slots=slots)

    @property
    def epoch_steps(self) -> int:
        """About how many updates an epoch has."""
        return epoch_updates(self.config, self.loader.batches)

    @property
    def covered(self) -> int:
        """The batches that all updates have covered."""
        return self.epoch * self.loader.batches + self.batch

    def records(self) -> Generator[Step | Epoch | Restart | Fault]:
        """Train until the last epoch ends, and end the workers, however it ends. Raises as `Trainer.records` does."""
        try:
            yield from super().records()
        finally:
            self.stand_still()

    def _end_epoch(self) -> Epoch:
        record = super()._end_epoch()
        self.recent.clear()  # of what is told next, nothing is to span the validation
        return record

    def stand_still(self) -> None:
        """End the workers and their server."""
        if self.fleet:
            self.fleet.close()
        self.fleet = None
        self.queued.clear()

    def _steps(self) -> Iterator[Step | Restart | Fault]:
        while self.queued or self.batch < self.loader.batches:
            try:
                yield self.queued.popleft() if self.queued else self._told(self._working().next())
            except ServerLostError as error:
                yield self._recover(error)
            self.guard.check()
            if self.batch >= self.loader.batches:  # what is under way is of this epoch too
                self._settle()

    def _told(self, found: Update | Lost) -> Step | Fault:
        """Count in what has happened."""
        if isinstance(found, Update):
            return self._take(found)
        self.restarts = found.restarts
        who = f"worker {found.worker + 1} " if found.worker >= 0 else ""
        return Fault(f"{who}{found.reason}; started again", found.restarts)

    def _settle(self) -> None:
        """Let the weights, and all that is counted, be of one moment."""
        if self.fleet:
            self.queued.extend(map(self._told, self.fleet.settle()))

    def _working(self) -> Fleet | RayFleet:
        """Return the workers, started where there are none."""
        if self.fleet is None:
            job = self.job
            for count in self.counts:
                count.version, count.batches = self.step, self.covered
            job.counts, job.places, job.own_rates = self.counts, self.places, self.optimiser.own_rates
            job.factor, job.restarts = self.guard.rate_factor, self.restarts
            if self.average:
                self.average.steps = self.step
                job.average = self.average.settings()
            self.recent.clear()
            self.fleet = (RayFleet(job, self.step, self.covered, self.fingerprint) if self.config.cluster
                          else Fleet(job))
        return self.fleet

    def _take(self, update: Update) -> Step:
        """Count an update in."""
        for push in (*update.late, *update.pushes):  # late ones are older
            self.places[push.worker] = push.place
            for name, reason in push.bad.items():
                self.loader.damaged.note(name, reason)
        for count in self.counts:
            count.seen = dict(update.seen) or count.seen
        self.step, self.batch = update.version, update.batches - self.epoch * self.loader.batches
        if self.average:
            self.average.steps = self.step
        images = [push.images for push in update.pushes]
        self.images += sum(images)
        losses = weighted([push.losses for push in update.pushes], images)
        self.losses.append(losses)
        self.histogram.update(update.staleness)
        self.recent.append((time.perf_counter(), update))
        crew, speed = self._crew()
        return Step(self.step, self.epoch, self.images, update.lr, losses, speed, update.pushes[0].norm, crew)

    def _crew(self) -> tuple[Crew, float]:
        """Return how the workers do over the latest updates, and the images a second of all."""
        updates = [update for _, update in self.recent]
        pushes = [push for update in updates for push in update.pushes]
        speeds = []
        for worker in range(self.config.workers):
            own = [push for push in pushes if push.worker == worker]
            speeds.append(sum(push.images for push in own) / sum(push.seconds for push in own) if own else 0.0)
        staleness = [each for update in updates for each in update.staleness]
        passed = self.recent[-1][0] - self.recent[0][0]
        busy = sum(update.busy for update in updates[1:]) / passed if passed else 0.0
        later = sum(push.images for update in updates[1:] for push in update.pushes)
        crew = Crew(tuple(speeds), sum(staleness) / len(staleness), max(staleness), self.restarts, busy)
        return crew, later / passed if later else sum(speeds)

    def _recover(self, error: ServerLostError) -> Restart | Fault:
        """Take up work without the server that was lost.

        Raises GivenUpError where that has happened too often, InputError where its weights are half changed too."""
        self.fleet = None
        self.restarts += 1
        if self.restarts > self.config.max_restarts:
            kind = InputError if error.torn else GivenUpError
            raise kind(f"{error}, after {self.config.max_restarts} restarts: look for the cause, such as too "
                             "little memory, or allow more with --max-restarts")
        if not error.torn:
            return Fault(f"{error}; started again, nothing but the steps under way is lost", self.restarts)
        if self.checkpoint is None:
            raise InputError(f"{error} in the midst of an update, before the first checkpoint: begin again")
        at = self.step
        loaded = load_model(self.checkpoint, raw=True)
        saved = loaded.model.state()
        for path, own in self.model.state().items():
            own[...] = saved[path]
        halvings = self.guard.halvings
        self.restore(loaded)
        self.guard.halvings = max(halvings, self.guard.halvings)  # some may be younger than the checkpoint
        self.guard.sound_at = self.step
        return Restart(f"{error} in the midst of an update; {at - self.step} updates since the last checkpoint are "
                       "lost", at, self.step, self.epoch, self.guard.rate_factor)

    def save(self, path: str | PathLike[str]) -> bool:
        """Write a checkpoint, as `Trainer.save` does."""
        try:
            self._settle()
        except DivergedError as error:
            self.guard.note(error)
        saved = super().save(path)
        if saved:
            self.checkpoint = fspath(path)
        return saved

    def write_to(self, checkpoint: Path, pushes: Path) -> None:
        """Say which files the run has, and write a checkpoint: from the beginning there is one to go back to."""
        self.job.push_log = str(pushes) if self.config.push_log else ""
        self.save(checkpoint)

    def own_state(self) -> dict[str, Attribute]:
        """Return where the workers are, and what was counted of them."""
        return {"workers": json.dumps({"count": self.config.workers, "places": self.places,
                                       "seen": [count.seen for count in self.counts],
                                       "staleness": self.histogram})}

    def take_over(self, numbers: Mapping[str, Attribute]) -> None:
        """Take over what `own_state` returned, or begin where a run with other workers has stopped."""
        kept = json.loads(str(numbers.get("workers", "{}")))
        self.histogram = Counter({int(tau): count for tau, count in kept.get("staleness", {}).items()})
        places = {int(worker): Place(*place) for worker, place in kept.get("places", {}).items()}
        self.counts = [Counts() for _ in range(self.config.shards)]
        if kept.get("count") == self.config.workers:
            self.places = places
            seen = [{int(worker): step for worker, step in each.items()} for each in kept["seen"]]
            if len(seen) != self.config.shards:  # a push that one shard had seen is not applied to another
                latest = {worker: max(each.get(worker, 0) for each in seen) for worker in set().union(*seen)}
                seen = [dict(latest) for _ in self.counts]
            for count, own in zip(self.counts, seen, strict=True):
                count.seen = own
        elif self.config.workers == 1 and not kept:
            self.places = {0: Place(self.step, self.epoch, self.batch)}
        else:
            epoch = max([self.epoch + bool(self.batch), *(place.epoch + 1 for place in places.values())])
            steps = max([self.step, *(place.step for place in places.values())])
            self.places = {worker: Place(steps, epoch) for worker in range(self.config.workers)}


def require_sense(config: TrainingConfig) -> None:
    """Raise InputError for settings of workers that contradict each other, or need what is not installed."""
    if config.cluster:
        require_ray()
    if config.sync:
        for name, usual in (("fetch_every", 1), ("push_every", 1), ("overlap", False), ("staleness_lr", False),
                            ("look_ahead", False), ("warm_start", 0)):
            if getattr(config, name) != usual:
                raise InputError(f"--{name.replace('_', '-')} beside --sync, whose workers wait for each other at "
                                 "every step: leave one of the two out")
    if config.look_ahead and (config.optimiser != "momentum" or not config.momentum):
        without = "--momentum 0" if config.optimiser == "momentum" else f"--optimiser {config.optimiser}"
        raise InputError(f"--look-ahead beside {without}: there is no momentum to look along; leave one of the two out")
    if config.backup_workers and not (config.sync and config.backup_workers < config.workers):
        raise InputError(f"--backup-workers {config.backup_workers} of {config.workers} workers: give fewer than there "
                         "are, with --sync")
    if config.overlap and (config.fetch_every, config.push_every) != (1, 1):
        raise InputError("--overlap beside --fetch-every or --push-every: what it overlaps with is the step between "
                         "two fetches; leave one of them out")
    if sys.platform == "win32" and config.workers > WINDOWS_MOST and not config.cluster:
        raise InputError(f"--workers {config.workers}: Windows can wait for {WINDOWS_MOST} processes at most")
    for name in ("sync", "push_log"):
        if config.cluster and getattr(config, name):
            raise InputError(f"--{name.replace('_', '-')} beside --cluster: it is for workers of one machine; leave "
                             "one of the two out")


def made(model: GoogLeNet, config: TrainingConfig, training: Dataset, validation: Dataset | None,
         preprocessing: Preprocessing) -> Trainer:
    """Return the trainer that a configuration asks for: in this process, or by workers."""
    kind = AsynchronousTrainer if config.workers > 1 or config.cluster else Trainer
    return kind(model, config, training, validation, preprocessing)

