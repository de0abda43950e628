"""Published data sets in small: files of their true layout, for a server in this process to give."""

import hashlib
import io
import tarfile
from dataclasses import replace

import numpy as np
import scipy.io
from PIL import Image

from data import flowers
from data.cifar import RECORD
from data.idx import write_idx
from data.published import CIFAR10, SETS
from tests.data.files import pixels

CIFAR_FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
CIFAR_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FLOWERS_OF_A_CLASS = 4  # of 80: the first two to train, the third to validate, the fourth to test


def tar_of(contents, mode="w:gz"):
    """The bytes of a tar of files, name -> bytes, or of whole members, name -> TarInfo."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode, **({"compresslevel": 1} if mode == "w:gz" else {})) as tar:
        for name, content in contents.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return made.getvalue()


def fashion(folder):
    """Its four files."""
    made = {}
    for prefix, count in (("train", 20), ("t10k", 10)):
        for kind, values in (("images-idx3", pixels(count, 28, 28)), ("labels-idx1", np.arange(count) % 10)):
            path = folder / f"{prefix}-{kind}-ubyte.gz"
            write_idx(path, values.astype(np.uint8))
            made[path.name] = path.read_bytes()
    return made


def cifar_records(count, seed):
    """(count, 3073) bytes: a label, and pixels that repeat, as these archives are to be made quickly."""
    rng = np.random.default_rng(seed)
    records = np.resize(rng.integers(0, 256, RECORD - 1, dtype=np.uint8), (count, RECORD))
    records[:, 0] = rng.integers(0, 10, count)
    return records


def cifar10(folder, count=5):
    """Its archive; the order and the names are the real one's, the blank line at the end of the class names too."""
    members = {"cifar-10-batches-bin/batches.meta.txt": "".join(f"{name}\n" for name in (*CIFAR_NAMES, "")).encode()}
    for seed, name in enumerate(CIFAR_FILES):
        members[f"cifar-10-batches-bin/{name}"] = cifar_records(count, seed).tobytes()
    members["cifar-10-batches-bin/readme.html"] = b"<html></html>"
    return {CIFAR10: tar_of(members)}


def flower(number):
    """A picture whose colour tells its number."""
    made = io.BytesIO()
    Image.new("RGB", (8, 8), (number // 256 * 40, number % 256, 0)).save(made, "PNG")
    return made.getvalue()


def flower_numbers(*places):
    return np.array([[80 * label + place for label in range(17) for place in places]], np.uint16)


def flowers17(folder):
    """Its archive and its splits; the second and the third split are others."""
    splits = io.BytesIO()
    first = {"trn1": flower_numbers(1, 2), "val1": flower_numbers(3), "tst1": flower_numbers(4)}
    scipy.io.savemat(splits, {**first, "trn2": flower_numbers(4), "val2": flower_numbers(2), "tst2": flower_numbers(1)})
    members = {f"jpg/image_{n:04d}.jpg": flower(n) for n in flower_numbers(*range(1, FLOWERS_OF_A_CLASS + 1))[0]}
    members["jpg/files.txt"] = b"image_0001.jpg\n"
    return {flowers.SPLITS: splits.getvalue(), flowers.PICTURES: tar_of(members)}


MAKERS = {"fashion-mnist": fashion, "cifar10": cifar10, "flowers17": flowers17}


def republished(name, contents, url):
    """The set `name` with other files at another address, and their own digests and sizes."""
    return replace(SETS[name], files=tuple(
        replace(file, urls=(f"{url}/{file.file}",), size=len(contents[file.file]), digests=(
            f"md5:{hashlib.md5(contents[file.file]).hexdigest()}",
            f"sha256:{hashlib.sha256(contents[file.file]).hexdigest()}"))
        for file in SETS[name].files))  # fmt: skip
