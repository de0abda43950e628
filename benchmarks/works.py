"""The works that are compared. Each takes a session and the flags and returns a report."""
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np

from benchmarks.job import CHUNK, CLASSES
from benchmarks.peers import OURS, PEERS
from benchmarks.results import Comparison, Report, rates, row
from benchmarks.session import ROOT, Child, ContenderError, Session, require_agreement
from googlenet.config import ModelConfig
from googlenet.summary import summary

HAND_TUNED = frozenset(name for name, peer in PEERS.items() if peer.hand_tuned)
MEMORY = (("training", 16), ("inference", 1))  # work, batch
FIRST_STEP_BATCH = 32


def throughput(session: Session, flags: argparse.Namespace) -> Report:
    """Measure images a second of training or inference."""
    children = _measured(session, flags, flags.work, flags.batch)
    rows = [row(child.name, rates(child.seconds, flags.batch), "images/s") for child in children]
    what = "a training step, three heads" if flags.work == "training" else "inference"
    title = f"{what}, batch {flags.batch}, {flags.size}x{flags.size}, {_threads(flags.threads)}"
    comparison = Comparison(title, rows, HAND_TUNED)
    most = session.limit()["gflops"] * 1e9 / (2 * multiply_adds(flags.work, flags.size))
    told = f"the machine's limit, unless multiplications are saved: {most:.4g} images/s"
    return Report([comparison], {"limit_images_per_second": most}, f"{comparison.text()}\n{told}")


def multiply_adds(work: str, size: int) -> int:
    """Return those of an image: in training three times those of testing and of the heads, but for the first layer,
    whose input wants no gradient."""
    counted = summary(ModelConfig(variant="caffe", image_size=size))
    if work == "inference":
        return counted["multiply_adds"]
    heads = sum(head["multiply_adds"] for head in counted["heads"])
    return 3 * (counted["multiply_adds"] + heads) - counted["rows"][0]["multiply_adds"]


def _measured(session: Session, flags: argparse.Namespace, work: str, batch: int) -> list[Child]:
    """Return ours and its peers with the seconds of their rounds."""
    children = [child for child, _ in session.line_up(work, batch, flags.size, flags.threads)]
    return session.rounds(children, flags.rounds, flags.threads)


def crops(session: Session, flags: argparse.Namespace) -> Report:
    """Measure the seconds that 144 crops of a photo take, from the file to the probabilities."""
    rows = [row(child.name, child.seconds, "s") for child in _measured(session, flags, "crops", CHUNK)]
    title = f"144 crops of one photo of 500x375, decoding included, {_threads(flags.threads)}"
    return Report([Comparison(title, rows, HAND_TUNED)])


def memory(session: Session, flags: argparse.Namespace) -> Report:
    """Measure the peak memory of processes that train, and of processes that infer."""
    return Report([_memory(session, flags, work, batch) for work, batch in MEMORY])


def _memory(session: Session, flags: argparse.Namespace, work: str, batch: int) -> Comparison:
    """Of each contender one process at a time; the first of all fills caches and is compared, not counted."""
    contenders = []
    for child, job in session.line_up(work, batch, flags.size, flags.threads):
        session.end(child)
        contenders.append(job)
    peaks: dict[str, list[float]] = {job.contender: [] for job in contenders}
    for _ in session.turns(range(flags.rounds), flags.threads):
        for job in contenders:
            with session.leaving_out(job.contender):
                child = session.start(job)
                child.answer()
                child.round()
                peaks[job.contender].append(child.ask("end")["peak_mib"])
                session.end(child)
    rows = [row(f"{name}: {work}", values, "MiB") for name, values in peaks.items() if name not in session.left_out]
    tuned = frozenset(f"{name}: {work}" for name in HAND_TUNED)
    return Comparison(f"peak memory of a process, {work}, batch {batch}, {flags.size}x{flags.size}", rows, tuned)


def startup(session: Session, flags: argparse.Namespace) -> Report:
    """Measure the first run ever until its first training step ends, and predicting one photo as a whole process."""
    return Report([_first_step(session, flags), _predict(session, flags)])


def _first_step(session: Session, flags: argparse.Namespace) -> Comparison:
    """Compile all kernels that a training step takes, into an empty folder each time."""
    job = session.job(OURS, "first_step", FIRST_STEP_BATCH, flags.size, flags.threads)
    taken = []
    for number in session.turns(range(max(1, flags.rounds // 3)), flags.threads):
        cache = session.folder / f"cache_{number}"
        cache.mkdir()
        began = time.perf_counter()
        child = session.start(job, {"NUMBA_CACHE_DIR": str(cache)})
        child.answer()
        taken.append(time.perf_counter() - began)
        session.end(child)
    return Comparison(f"first run ever, kernels uncompiled: a process until its first training step ends, "
                      f"batch {FIRST_STEP_BATCH}", [row(f"{OURS}: first step", taken, "s")])


def _predict(session: Session, flags: argparse.Namespace) -> Comparison:
    """Time `python -m googlenet predict` and a script of PyTorch's that does the same."""
    job = session.job(OURS, "predict", 1, flags.size, flags.threads)
    photo = str(job.file("photo.jpg"))
    commands = {OURS: ["-m", "googlenet", "predict", photo, "--weights", str(job.file("weights.h5")), "--json"]}
    expected = _answer(commands[OURS], flags.threads)[1]
    for name in session.peers_for("predict"):
        words = ["-m", "benchmarks.peers.torch_predict", photo, str(job.file("network.pt")), str(flags.size)]
        with session.leaving_out(name):
            session.prepare(replace(job, contender=name))
            require_agreement(expected, _answer(words, flags.threads)[1])
            commands[name] = words
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in session.turns(range(flags.rounds), flags.threads):
        for name, words in commands.items():
            with session.leaving_out(name):
                taken[name].append(_answer(words, flags.threads)[0])
    rows = [row(f"{name}: predict", seconds, "s") for name, seconds in taken.items() if name not in session.left_out]
    return Comparison("predicting one photo, a whole process, caches warm", rows)


def _answer(words: list[str], threads: int) -> tuple[float, dict[str, np.ndarray]]:
    """Run a command that prints what `predict --json` prints; return its seconds, and the five best probabilities
    at their places among all classes."""
    environment = {**os.environ, "NUMBA_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["nothing on standard error"]
        raise ContenderError(f"{words[1]} ended with code {done.returncode}: {lines[-1]}")
    probabilities = np.zeros(CLASSES)
    for guess in json.loads(done.stdout)[0]["top5"]:
        probabilities[guess["index"]] = guess["probability"]
    return seconds, {"probabilities": probabilities}


def busy(session: Session, flags: argparse.Namespace) -> Report:
    """Measure one thread and all threads of ours while a process of somebody else's keeps one core busy."""
    children: list[Child] = []
    for threads in (flags.threads, 1):
        job = session.job(OURS, flags.of, flags.batch, flags.size, threads)
        child, _ = session.contender(job)
        child.name = f"{OURS}, {_threads(threads)}"
        children.append(child)
    session.spin()
    session.rounds(children, flags.rounds, flags.threads)
    rows = [row(child.name, rates(child.seconds, flags.batch), "images/s") for child in children]
    title = f"{flags.of} beside a busy process, batch {flags.batch}, {flags.size}x{flags.size}"
    return Report([Comparison(title, rows)])


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"
