"""Small data sets on disk, in every format, for the tests to read."""

import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from data.idx import write_idx

RNG = np.random.default_rng(0)


def pixels(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def write_idx_set(folder: Path, train=12, test=6, classes=3, shape=(5, 4)):
    """Four gzipped idx files; returns {prefix: (images, labels)}."""
    made = {}
    for prefix, count in (("train", train), ("t10k", test)):
        images, labels = pixels(count, *shape), np.arange(count, dtype=np.uint8) % classes
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", labels)
        made[prefix] = images, labels
    return made


def write_cifar(folder: Path, per_file=4):
    """Six binary batches; returns {file name: (images (n, 32, 32, 3), labels)}."""
    made = {}
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        images, labels = pixels(per_file, 32, 32, 3), RNG.integers(0, 10, per_file, dtype=np.uint8)
        with open(folder / name, "wb") as file:
            for image, label in zip(images, labels, strict=True):
                file.write(bytes([label]))
                for channel in range(3):
                    file.write(image[:, :, channel].tobytes())
        made[name] = images, labels
    return made


def write_picture(path: Path, array=None, **options):
    """Save a picture, by default a random 6 x 8 one, in the format that the path's suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(6, 8, 3) if array is None else array).save(path, **options)
    return path


def write_class_folders(folder: Path, splits=("train", "test"), classes=("cat", "dog"), count=3):
    for split in splits:
        for name in classes:
            for i in range(count):
                write_picture(folder / split / name / f"{i}.png")


def truncate(path: Path, keep=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


def flip_byte(path: Path, place: float):
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 0xFF
    path.write_bytes(content)


def flip_member(path: Path, name: str):
    """Flip a byte in the middle of a stored member of a zip file."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(name)
    content = bytearray(path.read_bytes())
    content[info.header_offset + 30 + info.file_size // 2 + len(name)] ^= 0xFF
    path.write_bytes(content)
