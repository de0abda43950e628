"""Which network a file of another framework holds: variant, classes, heads, width, batch norm, size of its images.

What the file says itself (a graph, or the configuration that our exports carry) comes first; the rest is told by which
arrays there are and by their shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from googlenet.config import ModelConfig, from_json
from googlenet.model import HEADS, VARIANTS, lrn_of, scaled
from googlenet.weights.contents import Contents, Graph, Place
from googlenet.weights.fitting import listed
from googlenet.weights.schemes import BRANCHES, Scheme
from minigrad.errors import InputError

FEATURES = 1024  # of the classifier's input, at full width
MOST_DIGITS = 6  # of a width behind the point
USUAL_SIZE = 224  # pixels, of the input


def configuration(contents: Contents, scheme: Scheme | None, file: str, image_size: int | None) -> ModelConfig:
    """Return the network that a file holds; `scheme` is None where a graph has the arrays' places.

    `image_size` is for files that do not tell it; without it, it is 224. Raises InputError where the file has no
    classifier, contradicts itself, or tells another image size."""
    own = contents.metadata.get("config")
    if own is not None:
        found = _told_config(own, contents.graph, file)
    else:
        found = _config(contents, scheme, file, image_size or USUAL_SIZE)
    require_size(found, image_size, file)
    return found


def require_size(config: ModelConfig, image_size: int | None, file: str) -> None:
    """Raise InputError where a size is asked for, and the file tells another one."""
    if image_size and image_size != config.image_size:
        raise InputError(f"{file} is of a network for images of {config.image_size} pixels, not {image_size}: "
                         "leave out --image-size")


def _config(contents: Contents, scheme: Scheme | None, file: str, image_size: int) -> ModelConfig:
    """Return what the file says of the network: variant, classes, heads, width and batch norm."""
    graph, arrays = contents.graph, contents.arrays
    variant = graph.variant if graph else scheme.variant if scheme else "caffe"

    def there(path: str, shape: tuple[int, ...]) -> Place | None:
        found = graph.places.get(path) if graph and graph.places else scheme and scheme.place(path, shape)
        return found if found and found.name in arrays else None

    bias, weight = there("classifier/bias", (0,)), there("classifier/weight", (0, 0))
    if not bias or not weight or not arrays[bias.name].size or arrays[weight.name].ndim < 2:
        raise InputError(f"{file} has no classifier, so that neither classes nor width are known: give the whole "
                         f"network's weights; it holds {listed([f'{n} {a.shape}' for n, a in arrays.items()])}")
    heads = [head for head in HEADS.values() if there(f"{head}/conv/weight", (0,) * 4)]
    folded = not there("conv1/batch_norm/mean", (0,)) if VARIANTS[variant].batch_norm else False
    classes = arrays[bias.name].size
    features = arrays[weight.name].shape[-1 if weight.layout == "OI" else -2]
    convolutions = {layer: there(f"{layer}/weight", (0,) * 4) for layer in _full_channels(variant)}
    outputs = {layer: arrays[each.name].shape[each.layout.index("O")] for layer, each in convolutions.items()
               if each and arrays[each.name].ndim == 4}
    if graph and graph.image_size:
        image_size = graph.image_size
    return ModelConfig(variant=variant, classes=classes, image_size=image_size,
                       heads="both" if len(heads) == len(HEADS) else "".join(heads) or "none",
                       width=_width(max(features, 1) / FEATURES, outputs, variant), lrn=graph.lrn if graph else "",
                       batch_norm="folded" if folded else "learned", dropout=VARIANTS[variant].dropout)


def _full_channels(variant: str) -> dict[str, int]:
    """Return the output channels of convolutions at full width."""
    channels = {}
    for row in VARIANTS[variant].table:
        if row.type == "convolution":
            channels[row.name] = row.output
        elif row.type == "inception":
            channels |= {f"{row.name}/{branch}": count for branch, count in zip(BRANCHES, row[5:], strict=True)}
    return channels


def _width(usual: float, outputs: Mapping[str, int], variant: str) -> float:
    """Return the width at which the convolutions have these outputs: `usual`, or the number of fewest digits.

    Channels are multiples of 4, so that a range of widths gives the same. Where none does it is `usual`, and placing
    tells what differs."""
    full = _full_channels(variant)
    low = max(((found - 2) / full[layer] for layer, found in outputs.items() if found > 4), default=0.0)
    high = min(((found + 2) / full[layer] for layer, found in outputs.items()), default=0.0)
    shortest = (round((low + high) / 2, digits) for digits in range(1, MOST_DIGITS + 1))
    return next((width for width in (usual, *shortest)
                 if width > 0 and all(scaled(full[layer], width) == found for layer, found in outputs.items())), usual)


def _told_config(text: str, graph: Graph | None, file: str) -> ModelConfig:
    """Return the configuration that a file carries as a text.

    Raises InputError where it is none, or the file's graph computes another."""
    try:
        told = from_json(ModelConfig, text)
        lrn = lrn_of(told)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    if graph:
        found = replace(told, variant=graph.variant, lrn=graph.lrn)
        if (told.variant, lrn) != (found.variant, lrn_of(found)):
            raise InputError(f"{file} says that it is {told.variant} with {lrn}, but its graph computes "
                             f"{found.variant} with {lrn_of(found)}: it was edited; take out its text 'config'")
    return told
