"""How many training samples one thread makes in a second, from JPEG files of 500 x 375: decoded, cut, recoloured.

    python benchmarks/sampling.py                   # of pictures made here, about as large in bytes as ImageNet's
    python benchmarks/sampling.py --pictures DIR    # of the JPEG files in a folder, whatever their sizes

Each stage is timed by itself on the thread's own clock, which does not run while others have the core. Told are the
medians of the rounds and the images/s of all stages up to each.
"""
from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from a checkout that isn't installed

from data.decode import read_image
from data.preprocess import CAFFE
from data.sampling import Sampling, sample_generator

SIZE = 224
WIDTH, HEIGHT = 500, 375
STAGES = ("decoding", "crop and resizing", "colour and light", "normalising")


def write_pictures(folder: Path, count: int) -> list[Path]:
    """Write JPEG files of smooth shapes and fine grain: about 110 kB each, as ImageNet's are."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((WIDTH, HEIGHT))
        grain = Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
        picture = Image.blend(coarse, grain.filter(ImageFilter.GaussianBlur(0.7)), 0.4)
        paths.append(folder / f"{number}.jpg")
        picture.save(paths[-1], quality=90)
    return paths


def measure(paths: Sequence[Path], rounds: int) -> dict[str, float]:
    """Return the seconds that each stage takes for a picture: the median of the rounds' means."""
    plain, full = Sampling(distortion=0, lighting=0), Sampling()
    seconds: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for number in range(rounds + 1):
        total = dict.fromkeys(STAGES, 0.0)
        for index, path in enumerate(paths):
            times = [time.thread_time()]
            image = read_image(path)
            times.append(time.thread_time())
            plain.sample(image, SIZE, sample_generator(0, number, index))
            times.append(time.thread_time())
            sample = full.sample(image, SIZE, sample_generator(0, number, index))  # of the same crop
            times.append(time.thread_time())
            CAFFE.normalise(sample)
            times.append(time.thread_time())
            decoding, cropping, sampling, normalising = np.diff(times)
            for stage, spent in zip(STAGES, (decoding, cropping, sampling - cropping, normalising), strict=True):
                total[stage] += spent / len(paths)
        for stage in STAGES if number else ():  # the first round warms up
            seconds[stage].append(total[stage])
    return {stage: statistics.median(each) for stage, each in seconds.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time the making of training samples.")
    parser.add_argument("--pictures", type=Path, help="a folder of JPEG files, instead of made ones")
    parser.add_argument("--count", type=int, default=50, help="pictures (default: 50)")
    parser.add_argument("--rounds", type=int, default=9, help="passes over them (default: 9)")
    flags = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        if flags.pictures is None:
            paths = write_pictures(Path(folder), flags.count)
        else:
            files = sorted(flags.pictures.rglob("*"))
            paths = [path for path in files if path.suffix.lower() in (".jpg", ".jpeg")][: flags.count]
        if not paths:
            parser.error(f"{flags.pictures}: holds no JPEG files")
        kilobytes = sum(path.stat().st_size for path in paths) / len(paths) / 1000
        told = measure(paths, flags.rounds)
    print(f"{len(paths)} pictures of {kilobytes:.0f} kB, samples of {SIZE} x {SIZE}, one thread")
    spent = 0.0
    for stage, seconds in told.items():
        spent += seconds
        print(f"{stage:<18}{1000 * seconds:6.2f} ms    up to here {1 / spent:5.0f} images/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
