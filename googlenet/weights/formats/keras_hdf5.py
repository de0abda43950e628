"""Keras's weights in HDF5 (`save_weights("x.h5")`, whole models too), as the community's googlenet_weights.h5 is.

A group a layer, named in the attribute `layer_names` of the root (of `model_weights` in a whole model), and in it the
arrays that the group's `weight_names` lists. A layer `inception_3a/1x1` holds, by the version that wrote it,

    inception_3a/1x1/param_0                   Keras 0
    inception_3a/1x1/inception_3a/1x1_W        Keras 1
    inception_3a/1x1/inception_3a/1x1/kernel:0 Keras 2, without :0 in 3
    layers/conv2d/vars/0                       Keras 3's .weights.h5, the layer's name is an attribute of vars

All are returned as `inception_3a/1x1/weight`, and the bias beside it as `.../bias`: by those last words, and only where
a weight has two axes or more and a bias one. Any other array keeps its path in the file. Layouts are the file's:
Theano's kernels are (O, I, H, W) and turned by 180 degrees, TensorFlow's (H, W, I, O); `backend` is in the metadata,
where the file says it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from googlenet.weights.contents import Contents
from googlenet.weights.formats import isolated
from googlenet.weights.formats.wording import shown
from minigrad.errors import InputError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
WEIGHT = re.compile(r"(kernel|weights?|W|.*_W|param_0)(:0)?|vars/0")
BIAS = re.compile(r"(bias|b|.*_b|param_1)(:0)?|vars/1")
WHOLE_MODEL = "model_weights"
LISTS = re.compile(r"(layer|weight)_names\d*")  # numbered where they are too long for one attribute


def recognise(start: bytes, path: Path) -> bool:
    """Return whether a file begins as HDF5; ours and MATLAB's begin with a block of their own."""
    return start.startswith(SIGNATURE)


def read(path: Path) -> Contents:
    """Return the layers' arrays; raises InputError for a file that is damaged or has none."""
    tree = isolated.read_tree(path)
    root = WHOLE_MODEL if WHOLE_MODEL in tree.attributes else ""
    inside = {_below(root, name): array for name, array in tree.arrays.items()
              if not root or name.startswith(f"{root}/")}
    if not inside:
        raise InputError(f"{path} is HDF5 without arrays of numbers: give a file that Keras's save_weights wrote")
    layers = _layers(tree, root)
    arrays: dict[str, np.ndarray] = {}
    for name, array in inside.items():
        ours = _name(name, array, layers)
        if ours in arrays:
            raise InputError(f"{path} has two arrays for {shown(ours)}, one of them {shown(name)}: write it again")
        arrays[ours] = array
    outside = len(tree.arrays) - len(inside)
    notes = [f"{outside} arrays outside {WHOLE_MODEL}, such as the optimiser's, were left out"] if outside else []
    texts = {**tree.attributes.get("", {}), **tree.attributes.get(root, {})}
    metadata = {name: text[0] for name, text in texts.items() if len(text) == 1 and not LISTS.fullmatch(name)}
    return Contents("Keras weights (HDF5)" if layers else "HDF5 file", arrays, (*tree.notes, *notes),
                    metadata=metadata)


def _below(root: str, name: str) -> str:
    return name.removeprefix(root).lstrip("/")


def _layers(tree: isolated.Tree, root: str) -> dict[str, str]:
    """Return the layers' names by their groups, which below `root` bear them but in .weights.h5."""
    named = {_below(root, name) for name, texts in tree.attributes.items() if any(map(LISTS.fullmatch, texts))}
    vars_ = {name.removesuffix("/vars"): texts["name"][0] for name, texts in tree.attributes.items()
             if name.endswith("/vars") and len(texts.get("name", [])) == 1}
    return {name: name for name in named} | vars_


def _name(path: str, array: np.ndarray, layers: Mapping[str, str]) -> str:
    """Return `layer/weight` or `layer/bias` where the path says it, else the path; `layers` are groups' names."""
    parts = path.split("/")
    leaf = "/".join(parts[-2:]) if parts[-2:-1] == ["vars"] else parts[-1]
    groups = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
    group = next((group for group in groups if group in layers), path.removesuffix(leaf).rstrip("/"))
    if array.ndim >= 2 and WEIGHT.fullmatch(leaf):
        return f"{layers.get(group, group)}/weight"
    if array.ndim == 1 and BIAS.fullmatch(leaf):
        return f"{layers.get(group, group)}/bias"
    return path
