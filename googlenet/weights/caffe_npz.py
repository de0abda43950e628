"""Reads a NumPy archive of Caffe's bvlc_googlenet: its names (`inception_3a/5x5_reduce/weight`) and its layouts.

Caffe lays convolutions out as (O, C, KH, KW) and fully connected layers as (O, features), where features were
flattened from (C, H, W). The first layer's channels are blue, green, red, as the `caffe` variant feeds them.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from os import PathLike

import numpy as np

from googlenet.model import GoogLeNet
from googlenet.weights.fitting import config_of, require_same
from googlenet.weights.names import from_caffe, to_caffe
from minigrad.errors import InputError


def read(path: str | PathLike[str]) -> tuple[str, dict[str, np.ndarray]]:
    """Return the variant ("caffe") and the arrays by canonical name, in our layouts.

    Heads may be absent. Raises InputError for a file that can't be read, and for any name or shape that is missing,
    unknown or wrong."""
    blobs = _blobs(path)
    model = GoogLeNet(config_of("caffe", {from_caffe(name): blob for name, blob in blobs.items()}))
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    require_same({to_caffe(name): _caffe_shape(shape) for name, shape in shapes.items()},
                 {name: blob.shape for name, blob in blobs.items()}, str(path),
                 "Expected Caffe's bvlc_googlenet: blobs named layer/weight and layer/bias.")
    channels = {f"{head}/fc/weight": getattr(model, head).conv.bias.shape[0] for head in model.heads.values()}
    return "caffe", {name: _ours(blobs[to_caffe(name)], channels.get(name)) for name in shapes}


def _blobs(path: str | PathLike[str]) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is not a readable .npz archive ({error}): copy or convert it again") from error


def _caffe_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return Caffe's shape of ours: (KH, KW, C, O) -> (O, C, KH, KW); (C, O) -> (O, C)."""
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape[::-1]


def _ours(blob: np.ndarray, channels: int | None) -> np.ndarray:
    """Return a blob in our layout; `channels` are those that a fully connected layer's input was flattened from."""
    if blob.ndim == 4:
        blob = blob.transpose(2, 3, 1, 0)
    elif channels:
        outputs, features = blob.shape
        side = math.isqrt(features // channels)
        blob = blob.reshape(outputs, channels, side, side).transpose(2, 3, 1, 0).reshape(features, outputs)
    elif blob.ndim == 2:
        blob = blob.T
    return np.ascontiguousarray(blob)
