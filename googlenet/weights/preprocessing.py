"""What images become before they enter a network that came from another framework."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from data.errors import DataError
from data.preprocess import PREPROCESSINGS, Preprocessing
from googlenet.config import ModelConfig
from googlenet.model import preprocessing_of
from googlenet.weights.contents import Contents, Graph
from googlenet.weights.schemes import SCHEMES, Scheme
from minigrad.errors import InputError

# How pixels 0..255 may come to a graph that does the rest itself: (mean, std) of RGB.
ARRIVING = {
    "pixels 0..255": ((0.0,) * 3, (1.0,) * 3),
    "pixels 0..1": ((0.0,) * 3, (255.0,) * 3),
    "pixels normalised as in torchvision": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
}
MATCONVNET = (SCHEMES["matconvnet"], SCHEMES["matconvnet (Princeton)"])


def preprocessing_for(contents: Contents, config: ModelConfig, scheme: Scheme | None,
                      file: str) -> tuple[Preprocessing, tuple[str, ...]]:
    """Return the preprocessing that belongs to a file's network, the graph's own arithmetic included, and notes of what
    was taken for granted. Raises InputError for a text of the file that is no preprocessing."""
    if "preprocessing" in contents.metadata:
        try:
            return Preprocessing.from_json(contents.metadata["preprocessing"]), ()
        except DataError as error:
            raise InputError(f"{file}: {error}") from error
    usual = preprocessing_of(config)
    if scheme in MATCONVNET:
        usual = _with_average(PREPROCESSINGS["matconvnet"].at(config.image_size), contents)
    elif contents.graph and config.variant == "caffe":  # of ONNX's model zoo
        usual = PREPROCESSINGS["onnx"].at(config.image_size)
    return (usual, ()) if contents.graph is None else _with_arithmetic(usual, contents.graph)


def _with_average(usual: Preprocessing, contents: Contents) -> Preprocessing:
    """Return MatConvNet's preprocessing with the file's own mean colour, RGB, where it has one."""
    mean = contents.metadata.get("average_image", "").split()
    if len(mean) != 3:
        return usual
    red, green, blue = map(float, mean)
    return replace(usual, mean=(red, green, blue))


def _with_arithmetic(usual: Preprocessing, graph: Graph) -> tuple[Preprocessing, tuple[str, ...]]:
    """Join what the graph does on its input to what comes before.

    A graph does not say on what scale its input is: it is taken to be the one with which the network gets what its
    variant is used to, else pixels as they are."""
    if (graph.mean, graph.std) == (Graph.mean, Graph.std):
        return usual, ()
    for name, (mean, std) in ARRIVING.items():
        joint_mean, joint_std = _composed(mean, std, graph)
        if np.allclose(joint_mean, usual.mean, atol=0.5) and np.allclose(joint_std, usual.std, rtol=0.01):
            return usual, (f"the graph's input is taken to be {name}",)
    mean, std = _composed(*ARRIVING["pixels 0..255"], graph)
    return replace(usual, mean=mean, std=std), ("the graph's input is taken to be pixels 0..255",)


def _composed(mean: tuple[float, ...], std: tuple[float, ...], graph: Graph) -> tuple[tuple, tuple]:
    """((x - mean) / std - graph.mean) / graph.std as one mean and deviation."""
    return (tuple(m + s * inner for m, s, inner in zip(mean, std, graph.mean, strict=True)),
            tuple(s * inner for s, inner in zip(std, graph.std, strict=True)))
