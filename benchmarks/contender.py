"""One contender of compare.py: says its logits, then runs a round for each line it reads and says how long it took."""
from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

CLASSES = 1000
Round = Callable[[], object]


def images(batch: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The same images, on the scale of a photo minus its mean, and labels for every contender."""
    rng = np.random.default_rng(0)
    return rng.normal(0, 60, (batch, size, size, 3)).astype(np.float32), rng.integers(0, CLASSES, batch)


def network(size: int):
    from googlenet.config import ModelConfig
    from googlenet.model import GoogLeNet
    from minigrad import init

    model = GoogLeNet(ModelConfig(variant="caffe", image_size=size, classes=CLASSES))
    init.initialise(model, 0, weight="he")
    return model


def googlenet(work: str, x: np.ndarray, labels: np.ndarray, threads: int) -> tuple[np.ndarray, Round]:
    import minigrad
    from minigrad import Tensor, nn, no_grad, ops
    from minigrad.flat import FlatParameters
    from minigrad.optim import SGD

    minigrad.set_threads(threads)
    model = network(x.shape[1]).eval()
    with no_grad():
        logits = model(Tensor(x)).logits.data
    if work == "inference":
        def forward() -> None:
            with no_grad():
                model(Tensor(x))
        return logits, forward
    model.train()
    flat = FlatParameters(model)
    sgd = SGD(flat, momentum=0.9, weight_decay=2e-4)

    def step() -> None:
        nn.seed_dropout(model, 0, 0)
        flat.zero_gradient()
        y = model(Tensor(x))
        main, aux1, aux2 = (ops.cross_entropy(logits, labels) for logits in y)
        (main + 0.3 * aux1 + 0.3 * aux2).backward()
        sgd.step(1e-6)
    return logits, step


def torch(work: str, x: np.ndarray, labels: np.ndarray, threads: int, fused_lrn: bool) -> tuple[np.ndarray, Round]:
    import torch as pytorch
    from torch_googlenet import TorchGoogLeNet

    pytorch.set_num_threads(threads)
    model = TorchGoogLeNet(CLASSES, fused_lrn)
    model.load(network(x.shape[1]).parameters())
    model = model.to(memory_format=pytorch.channels_last).eval()
    images = pytorch.from_numpy(x.transpose(0, 3, 1, 2)).contiguous(memory_format=pytorch.channels_last)
    with pytorch.inference_mode():
        logits = model(images)[0].numpy()
    if work == "inference":
        def forward() -> None:
            with pytorch.inference_mode():
                model(images)
        return logits, forward
    model.train()
    targets = pytorch.from_numpy(labels)
    sgd = pytorch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9, weight_decay=2e-4)

    def step() -> None:
        sgd.zero_grad()
        main, aux1, aux2 = (pytorch.nn.functional.cross_entropy(y, targets) for y in model(images))
        (main + 0.3 * aux1 + 0.3 * aux2).backward()
        sgd.step()
    return logits, step


def main() -> None:
    name, work, batch, size, threads = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
    x, labels = images(batch, size)
    if name == "googlenet":
        logits, run = googlenet(work, x, labels, threads)
    else:
        logits, run = torch(work, x, labels, threads, fused_lrn=name.endswith("fused-lrn"))
    for _ in range(2):
        run()
    say({"logits": logits.tolist()})
    while sys.stdin.readline().strip() == "go":
        began = time.perf_counter()
        run()
        say({"seconds": time.perf_counter() - began})
    say({"peak_mib": peak_mib()})


def peak_mib() -> int:
    """The most memory this process has held; 0 where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return 0
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit


def say(answer: dict) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
