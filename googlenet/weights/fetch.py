"""Published weights, fetched from their official addresses into a folder of the user's (data/download.py)."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from data.caches import cache_folder
from data.download import Progress, Published, download
from data.errors import DataError
from minigrad.errors import InputError

__all__ = ["PUBLISHED", "Progress", "Published", "fetch", "resolve"]

PUBLISHED = {
    # SHA-1: the model's readme in BVLC/caffe. SHA-256 and size: Open Model Zoo's googlenet-v1.
    "bvlc": Published(
        ("http://dl.caffe.berkeleyvision.org/bvlc_googlenet.caffemodel",),
        "bvlc_googlenet.caffemodel",
        ("sha1:405fc5acd08a3bb12de8ee5e23a96bec22f08204",
         "sha256:6f7101e3a2183738a7125a0c5021ba82a1feb4228c5ca0924d991b6daf6f6fad"),
        "unrestricted use (BVLC, Sergio Guadarrama)",
        size=53533754,
    ),
    # The name holds the beginning of the SHA-256, as torch.hub checks it; no more is published.
    "torchvision": Published(
        ("https://download.pytorch.org/models/googlenet-1378be20.pth",),
        "googlenet-1378be20.pth",
        ("sha256:1378be20",),
        "BSD-3-Clause (torchvision; the weights were converted from TensorFlow's)",
    ),
    # The authors publish no digest; SHA-256 and size are Open Model Zoo's, of googlenet-v1-tf.
    "slim": Published(
        ("http://download.tensorflow.org/models/inception_v1_2016_08_28.tar.gz",),
        "inception_v1_2016_08_28.tar.gz",
        ("sha256:7a620c430fcaba8f8f716241f5148c4c47c035cce4e49ef02cfbe6cd1adf96a6",),
        "Apache-2.0 (TensorFlow models)",
        size=24642554,
    ),
    # SHA-256 and size: the zoo's ONNX_HUB_MANIFEST.json.
    "onnx": Published(
        ("https://github.com/onnx/models/raw/main/validated/vision/classification/inception_and_googlenet/googlenet/"
         "model/googlenet-12.onnx",
         "https://huggingface.co/onnxmodelzoo/googlenet-12/resolve/main/googlenet-12.onnx"),
        "googlenet-12.onnx",
        ("sha256:c99c507058eaf41de8723408fdda7db8325cb57f0a89f2ee07a716d6e963e14e",),
        "BSD-3-Clause (Facebook, Microsoft)",
        size=28021836,
    ),
}


def resolve(text: str | PathLike[str], progress: Progress | None = None) -> Path:
    """Return the path of a weight file: `text` itself, or the fetched file where it is a name of PUBLISHED.

    A file of that name comes first. Raises InputError as `fetch` does; a path is not looked at."""
    path = Path(text)
    return fetch(str(text), progress=progress) if str(text) in PUBLISHED and not path.is_file() else path


def fetch(name: str, folder: str | PathLike[str] | None = None, progress: Progress | None = None) -> Path:
    """Return the path of a published weight file in `folder` (`cache_folder()`), fetched where it isn't there yet.

    `progress` is called with the bytes so far and the bytes in all as they come. Raises InputError for an unknown name,
    where no address gives the file, or it can't be written."""
    if name not in PUBLISHED:
        raise InputError(f"no published weights {name!r}: choose one of {', '.join(PUBLISHED)}, or give a path")
    try:
        return download(name, PUBLISHED[name], cache_folder() if folder is None else Path(folder), progress)
    except DataError as error:
        raise InputError(str(error)) from error
