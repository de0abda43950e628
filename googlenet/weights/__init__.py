"""Weight files: ours (`store`), and one reader for each other format -> (variant, {canonical name: array})."""

from __future__ import annotations

from os import PathLike

from googlenet.model import GoogLeNet, preprocessing_of
from googlenet.weights import caffe_npz, store
from googlenet.weights.fitting import apply, config_of
from googlenet.weights.store import LoadedModel, save_weights
from minigrad.errors import InputError

__all__ = ["LoadedModel", "apply", "load_model", "save_weights"]

ZIP = b"PK"  # how an .npz archive begins


def load_model(path: str | PathLike[str]) -> LoadedModel:
    """Return a network from a file of ours (.h5) or from an archive of Caffe's weights (.npz), in evaluation mode.

    Caffe's archive has no class names: they are the classes' numbers. Raises InputError for a file that is missing,
    damaged or foreign."""
    try:
        with open(path, "rb") as file:
            begin = file.read(len(ZIP))
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}): give the path of a weight file") from error
    return _load_caffe(path) if begin == ZIP else store.load_model(path)


def _load_caffe(path: str | PathLike[str]) -> LoadedModel:
    variant, arrays = caffe_npz.read(path)
    model = GoogLeNet(config_of(variant, arrays))
    apply(model, arrays, str(path))
    model.eval()
    return LoadedModel(model, tuple(map(str, range(model.config.classes))), preprocessing_of(model.config))
