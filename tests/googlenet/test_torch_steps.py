"""Steps of training follow a PyTorch implementation of BVLC's network, from its real weights, on four photos each.

The suite takes STEPS steps; `python -m tests.googlenet.test_torch_steps --steps 50` takes as many as are wanted, and
prints the losses. The weights and the photos are not part of the project; without them, or without torch, these tests
skip.
"""

import argparse
import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from data.base import FileDataset
from googlenet import weights
from googlenet.config import ModelConfig, TrainingConfig
from googlenet.model import GoogLeNet
from googlenet.training import Step, Trainer
from googlenet.weights.contents import Contents
from googlenet.weights.placing import place

torch = pytest.importorskip("torch", reason="torch is not installed")
networks = pytest.importorskip("tests.googlenet.caffe_network")

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference"
WEIGHTS, PHOTOS = REFERENCE / "weights" / "bvlc_googlenet.npz", REFERENCE / "photos"
pytestmark = pytest.mark.skipif(not WEIGHTS.exists(), reason=f"no reference weights at {WEIGHTS}")

STEPS = {"float64": 5, "float32": 5}
CLOSE = {"float64": 1e-9, "float32": 1e-4}  # of the loss that is trained, the sum
# Of a head's own. In float32 rounding lets a few ReLUs flip, which shows where a loss is small: after five steps
# torch's own main loss is some 1e-4 from its float64.
CLOSE_ALONE = {"float64": 1e-9, "float32": 1e-3}
SAME_WAY = {"float64": 1e-9, "float32": 0.1}  # of the length of the way that the weights of an array have gone
BATCH, RATE, MOMENTUM, DECAY = 4, 1e-3, 0.9, 2e-4
OURS = {"total": "total", "loss3": "main", "loss1": "aux1", "loss2": "aux2"}


class Both(NamedTuple):
    """The losses of a step, by our names, on both sides."""

    ours: dict[str, float]
    theirs: dict[str, float]

    def errors(self) -> dict[str, float]:
        """The difference of each loss, as a part of it."""
        return {name: abs(self.ours[name] - loss) / loss for name, loss in self.theirs.items()}


def photos() -> FileDataset:
    """All 200 photos, fifty batches of four."""
    with open(PHOTOS / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    labels = [int(row["class_index"]) for row in rows]
    return FileDataset(PHOTOS, labels, [row["file"] for row in rows], tuple(map(str, range(1000))))


class Race:
    """Our trainer and their network, from the same weights and with the same photos in each step."""

    def __init__(self, dtype: str):
        with np.load(WEIGHTS) as file:
            arrays = {**file, **networks.head_arrays(seed=1)}
        self.begin = place(Contents("Caffe", arrays), "the weights", "")
        self.theirs = networks.CaffeNetwork(arrays, getattr(torch, dtype))
        config = TrainingConfig(batch_size=BATCH, lr=RATE, momentum=MOMENTUM, weight_decay=DECAY, schedule="constant",
                                bias_rate=2.0, bias_decay=0.0, aux_weight=0.3, augment="none")
        model = GoogLeNet(ModelConfig(variant="caffe", dropout=0.0, aux_dropout=0.0, dtype=dtype))
        self.trainer = Trainer(model, config, photos(), None, self.begin.preprocessing)
        weights.apply(model, self.begin.arrays)

    def run(self, steps: int) -> Iterator[Both]:
        """Take so many steps on both sides; theirs sees the batch that the trainer has just seen."""
        records = (record for record in self.trainer.records() if isinstance(record, Step))
        for record in islice(records, steps):
            batch = self.trainer.replica.latest
            assert batch is not None
            x = torch.from_numpy(batch.images.transpose(0, 3, 1, 2).copy())  # (N, H, W, C) -> (N, C, H, W)
            losses = self.theirs.step(x, torch.from_numpy(batch.labels), RATE, MOMENTUM, DECAY)
            yield Both(record.losses._asdict(), {OURS[name]: loss for name, loss in losses.items()})

    def apart(self) -> dict[str, float]:
        """For each array, how far our weights are from theirs, as a part of the way that theirs have gone."""
        arrays = {name: array.detach().numpy() for name, array in self.theirs.arrays.items()}
        theirs, ours = place(Contents("Caffe", arrays), "", "").arrays, self.trainer.model.state()
        return {path: float(np.linalg.norm(ours[path] - end) / np.linalg.norm(end - self.begin.arrays[path]))
                for path, end in theirs.items()}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_losses_and_weights_follow(dtype):
    """All three losses and their sum at each step, and every array of weights after the last."""
    race = Race(dtype)
    records = list(race.run(STEPS[dtype]))
    assert len(records) == STEPS[dtype]
    for number, record in enumerate(records):
        errors = record.errors()
        assert errors.keys() == {"total", "main", "aux1", "aux2"}
        assert errors["total"] <= CLOSE[dtype], f"step {number + 1}: {record}"
        assert max(errors.values()) <= CLOSE_ALONE[dtype], f"step {number + 1}: {record}"
    apart = race.apart()
    assert len(apart) == 128
    worst = max(apart, key=lambda path: apart[path])
    assert apart[worst] <= SAME_WAY[dtype], f"{worst} is {apart[worst]:.1e} of its way from theirs"


def main() -> None:
    """Print every step's losses, ours above theirs."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--dtype", choices=CLOSE, default="float64")
    flags = parser.parse_args()
    race, worst = Race(flags.dtype), dict.fromkeys(OURS.values(), 0.0)
    for number, record in enumerate(race.run(flags.steps), 1):
        worst = {name: max(worst[name], error) for name, error in record.errors().items()}
        for side, losses in record._asdict().items():
            print(f"{number:3d} {side:6}", *(f"{name} {losses[name]:.15f}" for name in worst), flush=True)
    apart = race.apart()
    path = max(apart, key=lambda path: apart[path])
    print(f"{flags.dtype}, {flags.steps} steps; largest difference of a loss, as a part of it:",
          *(f"{name} {error:.1e}" for name, error in worst.items()))
    print(f"weights: at most {apart[path]:.1e} of the way that they have gone ({path})")


if __name__ == "__main__":
    main()
