"""What `python -m googlenet predict` does, as a script that uses PyTorch: PHOTO NETWORK SIZE -> JSON."""
from __future__ import annotations

import json
import sys

import torch

from data.crops import crops
from data.decode import read_image
from data.preprocess import Preprocessing


def main() -> None:
    photo, network, size = sys.argv[1:]
    preprocessing = Preprocessing(size=int(size), fit="warp", order="BGR", mean=(104.0, 117.0, 123.0))
    model = torch.load(network, mmap=True, weights_only=False)
    x = torch.from_numpy(preprocessing.normalise(crops(read_image(photo), 1, preprocessing))).permute(0, 3, 1, 2)
    with torch.inference_mode():
        best = torch.softmax(model(x)[0][0], 0).topk(5)
    top5 = [{"class": str(i), "index": i, "probability": p}
            for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]
    print(json.dumps([{"file": photo, "top5": top5}]))


if __name__ == "__main__":
    main()
