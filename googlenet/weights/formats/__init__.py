"""The containers that weights come in, one a file: `recognise` by content, `read` -> Contents; nothing of networks."""

from __future__ import annotations

from pathlib import Path

from googlenet.weights.contents import Contents
from googlenet.weights.formats import (
    caffemodel,
    graphdef,
    keras_hdf5,
    matlab,
    npz,
    onnx,
    safetensors,
    tensorflow_checkpoint,
    torch_pickle,
)
from googlenet.weights.formats.wording import DAMAGED
from minigrad.errors import InputError

START = 4096  # bytes that a format is recognised by
OTHERS = {  # what is often taken for weights
    b"version https://git-lfs": "is a pointer of Git LFS, not the file itself: run git lfs pull",
    b"<": "is a web page, or another text: the download failed; fetch the file itself",
    b"model_checkpoint_path": "names TensorFlow's checkpoints and holds none: give the .index file of one",
    b"name:": "is a .prototxt, which describes a network and has no weights: give the .caffemodel",
    b"\xff\xd8\xff": "is a picture (JPEG): give a weight file",
    b"\x89PNG": "is a picture (PNG): give a weight file",
}
FORMATS = (torch_pickle, npz, keras_hdf5, matlab, safetensors, tensorflow_checkpoint, onnx, graphdef, caffemodel)


def read(path: Path) -> Contents:
    """Return what a file holds, of whichever format it is by its content.

    Raises InputError for a file that is missing, damaged or of none of the formats."""
    start = b""
    if path.is_file() or not tensorflow_checkpoint.recognise(b"", path):  # whose files share the prefix that is given
        try:
            with open(path, "rb") as file:
                start = file.read(START)
        except OSError as error:
            reason = "it is a folder" if path.is_dir() else error.strerror
            raise InputError(f"{path} can't be read ({reason}): give the path of a weight file") from error
    for each in FORMATS:
        if each.recognise(start, path):
            return each.read(path)
    told = next((told for begin, told in OTHERS.items() if start.startswith(begin)), "")
    if told:
        raise InputError(f"{path} {told}")
    what = "is empty" if not start and path.is_file() else f"begins with {start[:16]!r}"
    raise InputError(f"{path} {what}: it is no weight file of a known format (HDF5 of this program or Keras, Caffe, "
                     "PyTorch, safetensors, TensorFlow, ONNX, NumPy, MATLAB), or its beginning is damaged: "
                     f"{DAMAGED}")
