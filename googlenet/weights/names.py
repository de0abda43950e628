"""What other frameworks call our layers.

    ours                            Caffe's bvlc_googlenet
    conv1                           conv1/7x7_s2
    conv2_reduce                    conv2/3x3_reduce
    conv2                           conv2/3x3
    inception_3a/conv_5x5_reduce    inception_3a/5x5_reduce
    inception_3a/pool_proj          inception_3a/pool_proj
    aux1/fc                         loss1/fc
    classifier                      loss3/classifier
"""

from googlenet.model import HEADS, TABLE_1

_MODULES = [row.name for row in TABLE_1 if row.type == "inception"]
_BRANCHES = {"conv_1x1": "1x1", "conv_3x3_reduce": "3x3_reduce", "conv_3x3": "3x3", "conv_5x5_reduce": "5x5_reduce",
             "conv_5x5": "5x5", "pool_proj": "pool_proj"}
_LOSSES = dict(zip(HEADS.values(), ("loss1", "loss2"), strict=True))
_HEAD_LAYERS = ("conv", "fc", "classifier")

CAFFE_LAYERS = {
    "conv1": "conv1/7x7_s2",
    "conv2_reduce": "conv2/3x3_reduce",
    "conv2": "conv2/3x3",
    **{f"{module}/{ours}": f"{module}/{caffe}" for module in _MODULES for ours, caffe in _BRANCHES.items()},
    **{f"{head}/{layer}": f"{loss}/{layer}" for head, loss in _LOSSES.items() for layer in _HEAD_LAYERS},
    "classifier": "loss3/classifier",
}
_OURS = {caffe: ours for ours, caffe in CAFFE_LAYERS.items()}


def to_caffe(path: str) -> str:
    """Return Caffe's name of a weight or bias: inception_3a/conv_1x1/weight -> inception_3a/1x1/weight."""
    layer, _, blob = path.rpartition("/")
    return f"{CAFFE_LAYERS[layer]}/{blob}"


def from_caffe(name: str) -> str:
    """Return our name of one of Caffe's blobs; a name that is none of them is returned as it is."""
    layer, _, blob = name.rpartition("/")
    return f"{_OURS[layer]}/{blob}" if layer in _OURS else name
