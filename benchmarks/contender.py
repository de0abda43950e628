"""A contender's process: python -m benchmarks.contender JOB.

It gets ready, says what its network answered to the images that all share, and then runs a round of work for each line
"go" that it reads and says how long it took; after "end", or when nobody is there to ask any more, it stops. Answers
are lines of JSON.
"""
from __future__ import annotations

import importlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from benchmarks.job import CHUNK, Job, Network
from benchmarks.peers import OURS, PEERS

ROUND = 0.3  # seconds: what is shorter is repeated, so that waking up and cold caches weigh little
COMPARED = 8  # images whose logits are told

Outputs = dict[str, np.ndarray]
Run = Callable[[], object]


def ready(job: Job) -> tuple[Outputs, Run]:
    """Return what the contender's network computed, and what runs its work once."""
    module, options = _module(job.contender)
    if job.work == "prepare":
        return {}, partial(getattr(module, "prepare", lambda job: None), job)
    if job.work == "first_step":
        return {}, module.first_step(job)
    if job.work == "training":
        training = module.training(job, **options)
        return training.outputs(), training.step
    if job.work == "crops":
        run = module.crops(job) if hasattr(module, "crops") else partial(photo, job, module.inference(job, **options))
        return {"probabilities": run()}, run
    network = module.inference(job, **options)
    x = network.place(job.images()[0])
    return {"logits": network.infer(x)}, partial(network.infer, x)


def photo(job: Job, network: Network) -> np.ndarray:
    """Return the mean probabilities of photo.jpg's 144 crops by a peer's network; decoded and cut as ours are."""
    from data.crops import crops
    from data.decode import read_image
    from data.preprocess import Preprocessing

    preprocessing = Preprocessing(size=job.size, fit="warp", order="BGR", mean=(104.0, 117.0, 123.0))
    views = crops(read_image(job.file("photo.jpg")), 144, preprocessing)
    logits = [network.infer(network.place(preprocessing.normalise(views[start:start + CHUNK])))
              for start in range(0, len(views), CHUNK)]
    return softmax(np.concatenate(logits)).mean(axis=0)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities (N, classes)."""
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _module(contender: str) -> tuple[Any, Mapping[str, Any]]:
    if contender == OURS:
        return importlib.import_module("benchmarks.ours"), {}
    peer = PEERS[contender]
    return importlib.import_module(f"benchmarks.peers.{peer.module}"), peer.options


def seconds(run: Run) -> float:
    """Run once and return how long it took."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def round_of(run: Run, repeats: int) -> float:
    """Return the seconds of one run, the mean of `repeats`; short runs get one to find the caches again."""
    if repeats > 1:
        run()
    began = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - began) / repeats


def peak_mib() -> float:
    """Return the most memory this process has held, in MiB; fails where the system does not tell (Windows).

    Not by getrusage on Linux: there a child begins with the peak of the process that started it."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 2**10
    except (OSError, StopIteration):
        pass
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def answering() -> Callable[[dict[str, Any]], None]:
    """Return what writes answers; whatever else prints in this process goes to standard error from now on."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(told: dict[str, Any]) -> None:
        answers.write(json.dumps(told) + "\n")
        answers.flush()

    return answer


def told(error: BaseException) -> str:
    """Return an error as one line that says what is missing."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    if lines and isinstance(error, ImportError):
        return lines[0].strip()
    return f"{type(error).__name__}: {' '.join(lines)}"


def main() -> None:
    job, answer = Job.from_json(sys.argv[1]), answering()
    try:
        outputs, run = ready(job)
        if job.work in ("prepare", "first_step"):
            run()
            answer({"outputs": {}})
            return
        run()
        repeats = max(1, math.ceil(ROUND / seconds(run)))
    except Exception as error:
        answer({"failed": told(error)[:500]})
        raise
    answer({"outputs": {name: values[:COMPARED].tolist() for name, values in outputs.items()}})
    while sys.stdin.readline().strip() == "go":
        answer({"seconds": round_of(run, repeats)})
    answer({"peak_mib": peak_mib()})


if __name__ == "__main__":
    main()
