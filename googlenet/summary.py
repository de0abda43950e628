"""Table 1 recounted from the built network, beside what the paper prints.

Each weight of a convolution multiplies once at every position of its row's output, so that multiply-adds = weights x
output positions. The paper counts weights without biases in K = 1024, multiply-adds in M = 10^6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from googlenet.config import ModelConfig
from googlenet.model import CAFFE_LRN, TABLE_1, VARIANTS, GoogLeNet, Row, lrn_of, preprocessing_of
from minigrad import nn

UNITS = {"K": 2**10, "M": 10**6}

PRINTED = {
    #               params   ops
    "conv1":        ("2.7K", "34M"),
    "conv2":        ("112K", "360M"),
    "inception_3a": ("159K", "128M"),
    "inception_3b": ("380K", "304M"),
    "inception_4a": ("364K", "73M"),
    "inception_4b": ("437K", "88M"),
    "inception_4c": ("463K", "100M"),
    "inception_4d": ("580K", "119M"),
    "inception_4e": ("840K", "170M"),
    "inception_5a": ("1072K", "54M"),
    "inception_5b": ("1388K", "71M"),
    "classifier":   ("1000K", "1M"),
}

COLUMNS = {
    "conv_1x1": "1x1", "conv_3x3_reduce": "3x3_reduce", "conv2_reduce": "3x3_reduce", "conv_3x3": "3x3",
    "conv2": "3x3", "conv_5x5_reduce": "5x5_reduce", "conv_5x5": "5x5", "pool_proj": "pool_proj",
}  # the column of Table 1 that a layer's output channels stand in

Shapes = dict[str, tuple[int, ...]]


def summary(config: ModelConfig | None = None) -> dict[str, Any]:
    """Build the network and count it: `rows` as in Table 1, `heads`, and totals.

    `parameters` are the trunk's weights and biases, and gamma and beta where the variant has batch norm,
    `parameters_with_heads` those of the heads too, `multiply_adds` the trunk's for one image; `notes` say what the
    table's columns hide. `weights_differ` and `multiply_adds_differ` of a row say that the recount is further than one
    unit of the last printed digit from the paper's number."""
    model = GoogLeNet(config)
    shapes = {path: parameter.shape for path, parameter in model.named_parameters()}
    rows = [_row(model, row, shapes) for row in TABLE_1]
    heads = [_head(model, stage, head, shapes) for stage, head in model.heads.items()]
    totals = {count: sum(row[count] for row in rows) for count in ("weights", "biases", "norms", "multiply_adds")}
    trunk = totals["weights"] + totals["biases"] + totals["norms"]
    extra = sum(head["parameters"] for head in heads)
    return {"rows": rows, "heads": heads, **totals, "parameters": trunk, "parameters_with_heads": trunk + extra,
            "notes": _notes(model.config, totals["norms"])}


def render(summary: dict[str, Any]) -> str:
    """Return the summary as aligned text, with `*` where it differs from the paper."""
    header = ("", "patch", "output", "depth", "#1x1", "#3x3r", "#3x3", "#5x5r", "#5x5", "proj",
              "weights", "paper", "multiply-adds", "paper", "biases")
    total = ("sum", *[""] * 9, f"{summary['weights']:,}", "", _millions(summary["multiply_adds"]), "",
             f"{summary['biases']:,}")
    lines: list[Sequence[str]] = [header, *map(_cells, summary["rows"]), total]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    heads = [f"{head['name']} on {head['stage']}, in training only: {head['parameters']:,} parameters, "
             f"{_millions(head['multiply_adds'])} multiply-adds" for head in summary["heads"]]
    return "\n".join([
        *("  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines),
        "* further from the paper's number than one unit of its last digit; weights without biases, K = 1024, M = 10^6",
        "",
        f"parameters {summary['parameters']:,}, with heads {summary['parameters_with_heads']:,}; "
        f"multiply-adds for an image {summary['multiply_adds']:,}",
        *heads,
        *summary["notes"],
    ])


def _notes(config: ModelConfig, norms: int) -> list[str]:
    """Return what a variant has that the table does not show."""
    variant = VARIANTS[config.variant]
    pads = "as TensorFlow's SAME" if variant.conv1_padding == "same" else f"{variant.conv1_padding} on each side"
    pools = "SAME" if variant.pool_padding == "same" else f"rounded {'up' if variant.pool_ceil else 'down'}"
    told = [f"{config.variant}: conv1 is padded {pads}, pools {pools}; images: {preprocessing_of(config)}"]
    if variant.kernel_5x5 != 5:
        told.append(f"{config.variant}: the kernels of the 5x5 branch are 3x3")
    if norms:
        told.append(f"{config.variant}: no biases but batch norm, {norms:,} parameters in the trunk (counted above)")
    if variant.lrn is None:
        told.append(f"{config.variant}: no local response normalisation")
    lrn = lrn_of(config)
    if lrn and lrn != CAFFE_LRN:
        told.append(f"{config.variant}: local response normalisation over {lrn.size} channels, alpha {lrn.alpha:g}, "
                    f"beta {lrn.beta:g}, k {lrn.k:g}")
    return told


def _row(model: GoogLeNet, row: Row, shapes: Shapes) -> dict[str, Any]:
    stages = model.rows[row.name]
    output = model.stage_shapes[stages[-1]]
    own = {path: shape for path, shape in shapes.items() if path.split("/")[0] in stages}
    channels = {COLUMNS[layer]: shape[-1] for layer, shape in _layers(own).items() if layer in COLUMNS}
    counts = _count(own, positions=math.prod(output[:-1]))
    weights, multiply_adds = PRINTED.get(row.name, ("", ""))
    return {
        "name": row.name,
        "type": "fully connected" if "fc" in stages else row.type,
        "patch": _patch(getattr(model, row.name, None)),
        "output": list(output),
        "depth": _depth(own),
        **{column: channels.get(column, 0) for column in COLUMNS.values()},
        **counts,
        "paper_weights": weights,
        "weights_differ": differs(counts["weights"], weights),
        "paper_multiply_adds": multiply_adds,
        "multiply_adds_differ": differs(counts["multiply_adds"], multiply_adds),
    }


def _head(model: GoogLeNet, stage: str, head: str, shapes: Shapes) -> dict[str, Any]:
    own = {path: shape for path, shape in shapes.items() if path.startswith(f"{head}/")}
    convolution = {path: shape for path, shape in own.items() if path.startswith(f"{head}/conv/")}
    positions = getattr(model, head).size ** 2
    more = _count(convolution, positions - 1)["multiply_adds"]  # the fully connected layers have one position
    counts = _count(own, positions=1)
    return {"name": head, "stage": stage, **counts, "multiply_adds": counts["multiply_adds"] + more,
            "parameters": counts["weights"] + counts["biases"] + counts["norms"]}


def _count(shapes: Shapes, positions: int) -> dict[str, int]:
    weights = sum(math.prod(shape) for path, shape in shapes.items() if path.endswith("/weight"))
    biases = sum(math.prod(shape) for path, shape in shapes.items() if path.endswith("/bias"))
    norms = sum(math.prod(shape) for path, shape in shapes.items() if "/batch_norm/" in path)
    return {"weights": weights, "biases": biases, "norms": norms, "multiply_adds": weights * positions}


def _layers(shapes: Shapes) -> Shapes:
    """Return the shape of the weight of each layer, by the layer's own name."""
    return {path.split("/")[-2]: shape for path, shape in shapes.items() if path.endswith("/weight")}


def _depth(shapes: Shapes) -> int:
    """Count the layers with weights on the longest way through: a module's branches are side by side."""
    layers = _layers(shapes)
    if "conv_1x1" in layers:
        return 2 if "conv_3x3_reduce" in layers else 1
    return len(layers)


def _patch(module: nn.Module | None) -> str:
    """Return window and stride, as 3x3/2, of a stage that has one; a module of Fig. 2 has several."""
    kernel = module.weight.shape[0] if isinstance(module, nn.Conv2d) else getattr(module, "kernel", 0)
    return f"{kernel}x{kernel}/{getattr(module, 'stride', 1)}" if kernel else ""


def differs(count: int, printed: str) -> bool:
    """Return whether a recount is further than one unit of its last digit from a printed number such as 2.7K."""
    if not printed:
        return False
    digits, unit = printed[:-1], UNITS[printed[-1]]
    step = 10.0 ** -len(digits.partition(".")[2])
    return abs(count / unit - float(digits)) > step


def _cells(row: dict[str, Any]) -> Sequence[str]:
    """Return a row's texts, in the order of the header."""
    marks = {True: "*", False: " "}
    return (
        row["name"], row["patch"], "x".join(map(str, row["output"])), str(row["depth"] or ""),
        *(str(row[column] or "") for column in dict.fromkeys(COLUMNS.values())),
        f"{row['weights']:,}" if row["weights"] else "", row["paper_weights"] + marks[row["weights_differ"]],
        _millions(row["multiply_adds"]) if row["weights"] else "",
        row["paper_multiply_adds"] + marks[row["multiply_adds_differ"]],
        f"{row['biases']:,}" if row["biases"] else "",
    )


def _millions(count: int) -> str:
    return f"{count / 1e6:,.2f}M"
