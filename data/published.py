"""Published data sets: where they come from, and how they become folders that `open_dataset` opens by their names.

A set appears as a whole or not at all: its files are downloaded into a hidden folder beside its place, unpacked into
another one, and that is renamed. To add a set, add it to SETS and its name to datasets.NAMED.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from data import cifar, flowers, idx
from data.caches import cache_folder
from data.download import Progress, Published, alone, download, writing
from data.errors import DataError
from data.unpacking import unpack, write

__all__ = ["SETS", "PublishedSet", "Show", "fetch"]

log = logging.getLogger(__name__)

Show = Callable[[str], AbstractContextManager[Progress]]  # name of a file -> what shows how much of it has come

ABOUT = "SOURCE.txt"  # lies in each fetched set: where it is from; the mark that all of it is there


@dataclass(frozen=True)
class PublishedSet:
    """A data set that others publish."""

    files: tuple[Published, ...]
    lay_out: Callable[[Path, Path], None]  # (folder of the files, new folder of the set)
    cite: str

    @property
    def licence(self) -> str:
        """That of its files."""
        return self.files[0].licence


def _copy_fashion(downloads: Path, home: Path) -> None:
    for file in SETS["fashion-mnist"].files:
        write(home / file.file, (downloads / file.file).read_bytes())
    write(home / "classes.txt", "".join(f"{name}\n" for name in idx.FASHION).encode())


def _unpack_cifar10(downloads: Path, home: Path) -> None:
    names = ["batches.meta.txt", *(f"{stem}.bin" for split in ("train", "test") for stem in cifar.STEMS[split])]
    unpack(downloads / CIFAR10, {f"cifar-10-batches-bin/{name}": home / name for name in names}, 10_000 * cifar.RECORD)


def _fashion(file: str, md5: str, sha256: str, size: int) -> Published:
    # MD5: the readme of zalandoresearch/fashion-mnist. SHA-256 and size: TensorFlow Datasets' checksums,
    # tensorflow_datasets/url_checksums/fashion_mnist.txt.
    return Published((f"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/{file}",
                      f"https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/{file}"),
                     file, (f"md5:{md5}", f"sha256:{sha256}"), "MIT (Zalando SE)", size)


CIFAR10 = "cifar-10-binary.tar.gz"
OXFORD = "https://www.robots.ox.ac.uk/~vgg/data/flowers/17/"
OXFORD_LICENCE = "none is stated; the pictures are from the web and the authors' own, published for research"

SETS = {
    "fashion-mnist": PublishedSet(
        (_fashion("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                  "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", 26421880),
         _fashion("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe",
                  "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", 29515),
         _fashion("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79",
                  "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", 4422102),
         _fashion("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310",
                  "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", 5148)),
        _copy_fashion,
        "Han Xiao, Kashif Rasul, Roland Vollgraf. Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine "
        "Learning Algorithms. arXiv:1708.07747, 2017.",
    ),
    # MD5: the authors' page, https://www.cs.toronto.edu/~kriz/cifar.html. SHA-256 and size: TensorFlow Datasets'
    # checksums, tensorflow_datasets/url_checksums/cifar10.txt.
    "cifar10": PublishedSet(
        (Published((f"https://www.cs.toronto.edu/~kriz/{CIFAR10}",), CIFAR10,
                   ("md5:c32a1d4ab5d03f1284b67883e8d87530",
                    "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"),
                   "none is stated; the authors ask to cite their report", 170052171),),
        _unpack_cifar10,
        "Alex Krizhevsky. Learning Multiple Layers of Features from Tiny Images. Technical report, 2009.",
    ),
    # The authors publish no digests. MD5: google-deepmind/dm_nevis, datasets_storage/handlers/oxford_flowers_17.py.
    # SHA-256 of the pictures: intel/dffml, examples/flower17/dataset.sh. Sizes, and a SHA-256 of the splits, are
    # published nowhere that could be found.
    "flowers17": PublishedSet(
        (Published((f"{OXFORD}{flowers.SPLITS}",), flowers.SPLITS,
                   ("md5:4828cddfd0d803c5abbdebcb1e148a1e",), OXFORD_LICENCE),
         Published((f"{OXFORD}{flowers.PICTURES}",), flowers.PICTURES,
                   ("md5:b59a65d8d1a99cd66944d474e1289eab",
                    "sha256:fe38a60f8b4a95e657551247d3e7d799a3fafcdbc595be504b12839967823d70"), OXFORD_LICENCE)),
        flowers.lay_out,
        "Maria-Elena Nilsback, Andrew Zisserman. A Visual Vocabulary for Flower Classification. CVPR 2006.",
    ),
}  # fmt: skip


@contextmanager
def _silently(_: str) -> Iterator[Progress]:
    yield lambda here, total: None


def fetch(name: str, folder: Path | None = None, show: Show = _silently) -> Path:
    """Return the folder of a published set, `name` in `folder` (`cache_folder()`), fetched where it isn't there yet.

    `show` shows the downloads. Raises DataError for an unknown name, where no address gives a file, where something
    else bears that name, or the set can't be written."""
    if name not in SETS:
        raise DataError(f"no published data set {name!r}: choose one of {', '.join(SETS)}")
    home = (cache_folder() if folder is None else folder) / name
    if (home / ABOUT).is_file():
        return home
    with writing(home), alone(home, lambda: None):
        if not (home / ABOUT).is_file():  # another process may have fetched it meanwhile
            if home.exists():
                raise DataError(f"{home} is there already and was not fetched, for it has no {ABOUT}: move it away, or "
                                "choose another folder")
            _fetch(name, home, show)
    return home


def _fetch(name: str, home: Path, show: Show) -> None:
    downloads, unpacked = (home.with_name(f".{name}.{what}") for what in ("download", "unpacked"))
    for file in SETS[name].files:
        with show(file.file) as progress:
            download(name, file, downloads, progress)
    log.info("unpacking %s", name)
    shutil.rmtree(unpacked, ignore_errors=True)  # of a process that was killed
    try:
        SETS[name].lay_out(downloads, unpacked)
        write(unpacked / ABOUT, _about(name).encode())
        unpacked.rename(home)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    shutil.rmtree(downloads, ignore_errors=True)


def _about(name: str) -> str:
    made = SETS[name]
    files = [f"{file.file}\n    from {file.urls[0]}\n    {'; '.join(file.digests)}" for file in made.files]
    return "\n".join([f"The data set {name}, made of", *files, f"Licence: {made.licence}", f"Cite: {made.cite}", ""])
