"""A worker's process on one machine."""
from __future__ import annotations

import logging
import os
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection

import numpy as np

import minigrad
from data.errors import DataError
from googlenet.distbelief.job import SLOTS, Job, Slots, share
from googlenet.distbelief.messages import Failed, Fetch, Fetched, Free, Join, Joined, Place, Pushed
from googlenet.distbelief.processes import end_with_parent, give_signs_of_life
from googlenet.distbelief.worker import Found, Worker
from googlenet.model import GoogLeNet
from googlenet.training.images import open_data
from googlenet.training.records import DivergedError
from googlenet.training.replica import Part, Replica
from minigrad.errors import InputError


class ServerGoneError(Exception):
    """The line to the server has ended."""


class LocalLink:
    """A worker's end of its line, and its buffers."""

    def __init__(self, replica: Replica, slots: Slots, line: Connection, worker: int):
        self.replica, self.slots, self.line, self.worker = replica, slots, line, worker
        self.P = replica.flat.data.size
        self.statistics = [buffer for _, buffer in replica.model.named_buffers()]
        self.versions: tuple[int, ...] = ()
        self.buffer = 0  # of gradients, that is written
        self.taken: set[int] = set()  # that the server has not read yet
        self.has = 0  # the buffer of the weights that are used
        self.arrived: Fetched | None = None
        self.told: set[str] = set()  # damaged images

    @property
    def gradient(self) -> np.ndarray:
        """Where the next gradient (P,) is to stand."""
        while self.buffer in self.taken:
            self._hear()
        return self.slots.gradient(self.worker, self.buffer)[:self.P]

    def join(self) -> tuple[Place, float]:
        """Fetch the first weights; return where to begin, and the rate."""
        self._say(Join())
        joined = self._listen()
        assert isinstance(joined, Joined)
        rate = self._take_weights()
        if self.replica.config.overlap:
            self._say(Fetch((self.has + 1) % SLOTS))
        return joined.place, rate

    def push(self, found: Found) -> None:
        """Push what stands in `gradient`."""
        vector = self.slots.gradient(self.worker, self.buffer)
        if self.statistics:
            np.concatenate([buffer.data.reshape(-1) for buffer in self.statistics], out=vector[self.P:])
        bad = {name: reason for name, reason in self.replica.loader.bad.items() if name not in self.told}
        self.told.update(bad)
        self.taken.add(self.buffer)
        self._say(Pushed(self.worker, self.buffer, found.place, found.versions, found.batches, sum(found.images),
                         found.scale, found.loss, found.norm, found.seconds, bad, self.has))
        self.buffer = (self.buffer + 1) % SLOTS

    def fetch(self) -> float:
        """Fetch the weights, after the pushes of before; where transfer overlaps, those of a step before."""
        if not self.replica.config.overlap:
            self._say(Fetch(0))
            return self._take_weights()
        rate = self._take_weights()
        self._say(Fetch((self.has + 1) % SLOTS))
        return rate

    def _take_weights(self) -> float:
        """Wait for the weights that were asked for, and let the replica have them."""
        while self.arrived is None:
            self._hear()
        arrived, self.arrived = self.arrived, None
        self.versions, self.has = arrived.versions, arrived.buffer
        vector = self.slots.weights(self.worker, self.has)
        self.replica.flat.use(data=vector[:self.P])
        at = self.P
        for buffer in self.statistics:
            buffer.data[...] = vector[at:at + buffer.data.size].reshape(buffer.shape)
            at += buffer.data.size
        return arrived.lr

    def _hear(self) -> None:
        told = self._listen()
        if isinstance(told, Free):
            self.taken.discard(told.buffer)
        else:
            assert isinstance(told, Fetched)
            self.arrived = told

    def _say(self, message: object) -> None:
        try:
            self.line.send(message)
        except OSError as error:
            raise ServerGoneError from error

    def _listen(self) -> object:
        try:
            return self.line.recv()
        except (EOFError, OSError) as error:
            raise ServerGoneError from error


def labour(job: Job, worker: int, line: Connection) -> None:
    """Be a worker's process."""
    end_with_parent()
    give_signs_of_life(job.slots.life(worker))
    logging.getLogger("data.damaged").disabled = True  # the trainer tells of them
    if not worker:  # says what is being compiled
        logging.basicConfig(format="%(message)s", level=logging.INFO)
    config = job.config
    minigrad.set_threads(share(config))
    minigrad.set_convolution(config.conv)
    try:
        training, _ = open_data(config)
        replica = Replica(GoogLeNet(job.model), config, training, job.preprocessing, Part(worker, config.workers))
        Worker(replica, LocalLink(replica, job.slots, line, worker), job.own_rates).run()
    except ServerGoneError:
        return
    except DivergedError as error:
        said = Failed("diverged", str(error))
    except (InputError, DataError) as error:
        said = Failed("input", str(error))
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        said = Failed("error", f"{type(error).__name__}: {error} ({os.path.basename(place.filename)}:{place.lineno})")
    with suppress(OSError):
        line.send(said)
