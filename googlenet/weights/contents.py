"""What a weight file holds, before anything is said of which network it is: what every reader in `formats/` returns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Place:
    """Where an array of ours stands in a file: the name there, and the layout (a key of layouts.LAYOUTS).

    `channels` are those of the grid that a fully connected layer's input was flattened from, where layouts need it."""

    name: str
    layout: str
    channels: int = 0


@dataclass(frozen=True)
class Graph:
    """What a format that holds a graph, not only arrays, says of the network.

    `places` finds our arrays, by canonical name, among the file's. `mean` and `std` are the arithmetic that the graph
    itself does on its input before the first layer, (x - mean) / std."""

    variant: str
    batch_norm: str = "learned"  # or "folded" into weights and biases
    places: dict[str, Place] = field(default_factory=dict)
    lrn: str = ""  # "size alpha beta k" where the graph's differ from the variant's
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    swaps_channels: bool = False  # whether the graph turns RGB into BGR or back
    image_size: int = 0  # pixels, where the graph says it


@dataclass(frozen=True)
class Contents:
    """A file's arrays under its own names, in its own layouts and precision."""

    format: str  # for people: "Caffe model (V1 layers)"
    arrays: dict[str, np.ndarray]
    notes: tuple[str, ...] = ()  # what reading did that its user should know, such as a quantisation's error
    graph: Graph | None = None
    metadata: dict[str, str] = field(default_factory=dict)  # texts that the file carries
