"""GoogLeNet's images/s beside PyTorch's, in turns: python benchmarks/compare.py training | inference."""
from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent


class Contender:
    """A process that runs one round of work each time it is asked."""

    def __init__(self, name: str, flags: argparse.Namespace):
        self.name, self.seconds = name, []
        command = [sys.executable, str(HERE / "contender.py"), name, flags.work, str(flags.batch), str(flags.size),
                   str(flags.threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.first = self.answer()  # its outputs on the images that all share

    def answer(self) -> dict:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended with code {self.process.wait()}")
        return json.loads(line)

    def round(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        self.seconds.append(self.answer()["seconds"])

    def end(self) -> int:
        """Close the process; returns its peak memory in MiB."""
        assert self.process.stdin is not None
        self.process.stdin.write("end\n")
        self.process.stdin.flush()
        peak = self.answer()["peak_mib"]
        self.process.wait()
        return peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", choices=("training", "inference"))
    parser.add_argument("--batch", type=int, default=None, help="images at a time (default: 32 in training, else 16)")
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of each contender (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds of each (default %(default)s)")
    parser.add_argument("--peers", nargs="*", choices=("torch", "torch-fused-lrn"), default=None,
                        help="default: both where PyTorch is installed")
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    flags = parser.parse_args()
    flags.batch = flags.batch or (32 if flags.work == "training" else 16)
    if flags.peers is None:
        flags.peers = ["torch", "torch-fused-lrn"] if importlib.util.find_spec("torch") else []

    contenders = [Contender(name, flags) for name in ("googlenet", *flags.peers)]
    ours = np.array(contenders[0].first["logits"])
    for peer in contenders[1:]:
        difference = float(np.abs(np.array(peer.first["logits"]) - ours).max() / np.abs(ours).max())
        print(f"{peer.name}: largest difference of logits {difference:.1e} of the largest")
        if difference > 1e-3:
            sys.exit("these are not the same network")
    for _ in range(flags.rounds):
        for contender in contenders:
            contender.round()
    rows = []
    for contender in contenders:
        median = statistics.median(contender.seconds)
        rows.append({"name": contender.name, "images_per_second": flags.batch / median, "median_seconds": median,
                     "fastest_seconds": min(contender.seconds), "peak_mib": contender.end()})
    print(f"{flags.work}, batch {flags.batch}, {flags.size}x{flags.size}, {flags.threads} threads, "
          f"{flags.rounds} rounds in turn")
    for row in rows:
        ratio = row["median_seconds"] / rows[0]["median_seconds"]
        print(f"{row['name']:16s} {row['images_per_second']:7.1f} images/s  peak {row['peak_mib']:5d} MiB  "
              f"time / ours {ratio:.2f}")
    if flags.json:
        Path(flags.json).write_text(json.dumps({"settings": vars(flags), "results": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
