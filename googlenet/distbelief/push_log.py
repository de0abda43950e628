"""`pushes.log`: every gradient that the server applied, in its order, from which `replay` computes the weights again.

A file of records, each a line of JSON and so many bytes behind it:

    state    all that the pushes after it begin from: weights, memory, average, and the settings
    push     a slice of a gradient, with the rate and the scale it was applied with
    assign   the running statistics of batch norms, as a worker has them

A state is written whenever a server begins. A record that a killed server left half written is cut off before the next
one. At full width a push has 28 MB, so this is for small networks, or for a short look at a large one.
"""
from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from os import PathLike
from typing import Any, NamedTuple

import numpy as np

from googlenet.config import TrainingConfig, from_json, to_json
from googlenet.distbelief.server import Counts, Server, Shard, State, Weights, server_of
from minigrad.errors import InputError
from minigrad.flat import Places


class Written(NamedTuple):
    """A record: its head, and the bytes behind it."""

    head: dict[str, Any]
    content: bytes


class PushLog:
    """The log that a server writes."""

    def __init__(self, path: str | PathLike[str]):
        self.path = path
        try:
            self.file = open(path, "ab")  # noqa: SIM115  (open as long as the server)
            if self.file.tell() and next(_skimmed(path), ("", 0))[0] != "state":
                raise InputError(f"{path} is no log of pushes: move it away")
            self.file.truncate(_sound_length(path))
            self.file.seek(0, 2)
        except OSError as error:
            raise self._full(error) from error

    def state(self, server: Server, config: TrainingConfig, epoch_batches: int, state: State,
              factor: float) -> None:
        """Write what the next pushes begin from."""
        places = {path: [place.start, place.stop, *shape] for path, (place, shape) in state.weights.places.items()}
        head = {
            "kind": "state", "config": json.loads(to_json(config)), "epoch_batches": epoch_batches, "factor": factor,
            "places": places,
            "own_rates": server.shards[0].optimiser.own_rates, "average": dict(state.average),
            "counts": [asdict(shard.counts) for shard in server.shards], "statistics": state.statistics.size,
            "dtype": state.weights.data.dtype.str}
        kept = [] if state.kept is None else [state.kept]
        self._write(head, state.weights.data, state.statistics, state.memory, *kept)

    def push(self, shard: int, worker: int, step: int, gradient: np.ndarray, scale: float, lr: float) -> None:
        """Write what a shard is updated by."""
        self._write({"kind": "push", "shard": shard, "worker": worker, "step": step, "scale": scale, "lr": lr},
                    gradient)

    def assign(self, statistics: np.ndarray) -> None:
        """Write the statistics that came with a push, which all shards have taken: the update is whole."""
        self._write({"kind": "assign"}, statistics)

    def _write(self, head: dict[str, Any], *arrays: np.ndarray) -> None:
        content = [np.ascontiguousarray(array).data.cast("B") for array in arrays if array.size]
        crc = 0
        for part in content:
            crc = zlib.crc32(part, crc)
        told = head | {"bytes": sum(len(part) for part in content), "crc": crc}
        try:
            self.file.write(json.dumps(told).encode() + b"\n")
            for part in content:
                self.file.write(part)
            self.file.flush()
        except OSError as error:
            raise self._full(error) from error

    def _full(self, error: OSError) -> InputError:
        return InputError(f"can't write {self.path}: {error.strerror or error}; free space, or go on without "
                          "--push-log")


class Replayed(NamedTuple):
    """The state after an update: `weights` (P,) and `statistics` are the replay's own, and change with the next one."""

    version: int
    weights: np.ndarray
    statistics: np.ndarray
    places: Places
    workers: int


def replay(path: str | PathLike[str]) -> Iterator[Replayed]:
    """Apply all pushes of a log again; yield what the weights are at each state and after each update.

    Raises InputError for a file that is no such log, or is damaged."""
    server: Server | None = None
    for head, content in written(path):
        if head["kind"] == "state":
            server, state, workers = _begun(head, content)
        elif server is None:
            raise InputError(f"{path} does not begin with a state: it is no log of pushes, or its beginning is gone")
        elif head["kind"] == "push":
            _apply(server.shards[head["shard"]], head, content)
            continue
        else:
            state.statistics[:] = np.frombuffer(content, state.statistics.dtype)
        yield Replayed(server.shards[0].counts.version, state.weights.data, state.statistics, state.weights.places,
                       workers)


def written(path: str | PathLike[str]) -> Iterator[Written]:
    """Yield the records of a log; what a killed server left half written at its end is no record.

    Raises InputError for a damaged one."""
    try:
        with open(path, "rb") as file:
            while (line := file.readline()).endswith(b"\n"):
                head = json.loads(line)
                content = file.read(head["bytes"])
                if len(content) < head["bytes"]:
                    return
                if zlib.crc32(content) != head["crc"]:
                    raise InputError(f"{path} is damaged {file.tell():,} bytes from its beginning: restore it")
                yield Written(head, content)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no log of pushes ({error})") from error


def states(path: str | PathLike[str]) -> int:
    """Return how many states `replay` yields, without reading what is pushed."""
    return sum(kind != "push" for kind, _ in _skimmed(path))


def _sound_length(path: str | PathLike[str]) -> int:
    """Return how many bytes of a log are whole records."""
    return max((end for _, end in _skimmed(path)), default=0)


def _skimmed(path: str | PathLike[str]) -> Iterator[tuple[str, int]]:
    """Yield the kind of each whole record, and where it ends."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        while (line := file.readline()).endswith(b"\n"):
            try:
                head = json.loads(line)
                kind, end = head["kind"], file.tell() + head["bytes"]
            except (ValueError, KeyError, TypeError):
                return
            if end > size:
                return
            yield kind, file.seek(end)


def _begun(head: Mapping[str, Any], content: bytes) -> tuple[Server, State, int]:
    """Return the server that a state describes, over arrays of its own."""
    config = from_json(TrainingConfig, json.dumps(head["config"]))
    places = {path: (slice(begin, end), tuple(shape)) for path, (begin, end, *shape) in head["places"].items()}
    P, B, dtype = max(place.stop for place, _ in places.values()), head["statistics"], np.dtype(head["dtype"])
    vector = np.frombuffer(content, dtype, 2 * P + B)
    kept = np.frombuffer(content, np.float64, offset=vector.nbytes)
    state = State(Weights(vector[:P].copy(), places), vector[P + B:].copy(), kept.copy() if kept.size else None,
                  head["average"], vector[P:P + B].copy())
    counts = [Counts(each["version"], each["batches"]) for each in head["counts"]]
    server = server_of(state, config, head["epoch_batches"], counts, own_rates=head["own_rates"], factor=head["factor"])
    return server, state, config.workers


def _apply(shard: Shard, head: Mapping[str, Any], content: bytes) -> None:
    shard.descend(np.frombuffer(content, shard.part.data.dtype), head["lr"], head["scale"])
