"""What can be chosen, one field a line with its unit and its source; the command line's flags are made from these.

`source` says where a default comes from: the paper (arXiv 1409.4842), BVLC's Caffe reference model (which the paper
leaves room for), or "ours" where the choice is this project's own. An `interval` is written as in mathematics:
"[32, inf)" holds 32 and everything above.
"""

from __future__ import annotations

import argparse
import json
import numbers
import re
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar, get_type_hints

from minigrad.errors import InputError

C = TypeVar("C", bound="Config")

INTERVAL = re.compile(r"([\[(].+[\])]) ?(.*)")  # "[32, inf) pixels"
KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def option(default: Any, domain: str, meaning: str, source: str, short: str = "") -> Any:
    """Return a dataclass field that knows its meaning, its source, its one-letter flag, and its domain: choices
    ("paper | caffe"), an interval and a unit ("[32, inf) pixels"), or anything ("")."""
    match = INTERVAL.fullmatch(domain)
    interval, unit = match.groups() if match else ("", "")
    choices = tuple(domain.split(" | ")) if " | " in domain else ()
    return field(default=default, metadata={"help": meaning, "source": source, "short": short, "choices": choices,
                                            "interval": interval, "unit": unit})


@dataclass(frozen=True)
class Config:
    """Base of both: every value is checked when a configuration is made, so that nothing later has to."""

    def __post_init__(self) -> None:
        kinds = get_type_hints(type(self))
        for item in fields(self):
            value = getattr(self, item.name)
            problem = _problem(value, kinds[item.name], item.metadata)
            if problem:
                raise InputError(f"{item.name}={value!r}: {problem} ({item.metadata['help']})")
            object.__setattr__(self, item.name, kinds[item.name](value))


@dataclass(frozen=True)
class ModelConfig(Config):
    """Which GoogLeNet is built: the defaults are Table 1 of the paper with both heads."""

    variant: str = option("paper", "paper | caffe | torchvision | slim | inception5h | onnx-inception-v1", "whose "
                          "GoogLeNet: what ports differ in stands in googlenet/model.py", "paper, Fig. 3; its ports")
    classes: int = option(1000, "[1, inf)", "number of classes", "paper, Table 1")
    image_size: int = option(224, "[32, inf) pixels", "side of the square input", "paper, Table 1")
    heads: str = option("both", "both | aux1 | aux2 | none", "auxiliary classifiers, for training", "paper, section 5")
    width: float = option(1.0, "(0, inf)", "factor on every layer's channels: no model of the paper", "ours")
    stem: str = option("dense", "dense | separable", "first layer; separable is what Table 1's count fits", "paper")
    module: str = option("reduced", "reduced | naive", "Inception module: Fig. 2b, or Fig. 2a", "paper, Fig. 2")
    classifier: str = option("average", "average | fully_connected", "layer before the last one", "paper, section 5")
    batch_norm: str = option("learned", "learned | folded", "where the variant has batch norm: layers of their own, or "
                             "folded into the convolutions' weights and biases, for testing", "ours")
    lrn: str = option("", "", "local response normalisation as 'size alpha beta k', alpha divided by size; empty: the "
                      "variant's", "Caffe's lrn_layer")
    dropout: float = option(0.4, "[0, 1)", "fraction dropped before the last layer; train.py takes the "
                            "variant's, 0.2 for torchvision and slim", "paper, Table 1")
    aux_dropout: float = option(0.7, "[0, 1)", "fraction dropped in each auxiliary classifier", "paper, section 5")
    dtype: str = option("float32", "float32 | float64", "precision of weights and arithmetic", "ours")


@dataclass(frozen=True)
class TrainingConfig(Config):
    """How it is trained."""

    preset: str = option("", "", "recipe by name, whose values are taken unless others are given", "ours")
    data: str = option("embedded", "", "data set: 'embedded' (a part of Fashion-MNIST), fashion-mnist, cifar10 or "
                       "flowers17 (python -m data.fetch), or a path", "ours")
    epochs: int = option(3, "[1, inf)", "passes over the training images", "ours")
    batch_size: int = option(32, "[1, inf)", "images in memory at a time", "BVLC", short="-b")
    accumulate: int = option(1, "[1, inf)", "batches whose gradients are added up for an update, which is then of "
                             "batch-size times as many images", "ours")
    lr: float = option(0.01, "(0, inf)", "first learning rate; halve it if a head stays at ln(classes)", "BVLC")
    optimiser: str = option("momentum", "momentum | adagrad", "rule of the update: with momentum, or with rates that "
                            "fall with the squares of the gradients", "paper, section 6; DistBelief")
    momentum: float = option(0.9, "[0, 1)", "fraction of the previous update that is kept", "paper, section 6")
    weight_decay: float = option(2e-4, "[0, inf)", "pull of every weight towards zero", "BVLC")
    bias_rate: float = option(2.0, "(0, inf)", "factor on the rate of biases", "BVLC: lr_mult")
    bias_decay: float = option(0.0, "[0, inf)", "factor on the decay of biases", "BVLC: decay_mult")
    clip_norm: float = option(0.0, "[0, inf)", "norm that the gradient of an update is shortened to where it is "
                              "longer; 0: not", "Pascanu et al. 2013")
    freeze: str = option("", "", "layers that do not learn, such as conv1,inception_3a/conv_1x1,aux1 or "
                         "conv1..inception_4e, all from one to the other", "ours")
    fresh_rate: float = option(1.0, "(0, inf)", "factor on the rate of layers that --init FILE leaves to chance, such "
                               "as a classifier of other classes; Caffe's fine-tuning example has 10", "ours")
    schedule: str = option("step", "step | poly | constant", "how the rate falls: step by step (see decay), or as a "
                           "power of what is left (poly)", "paper, section 6; BVLC")
    decay: float = option(0.96, "(0, 1]", "factor at each step of the step schedule", "paper, section 6")
    decay_epochs: float = option(8.0, "(0, inf) epochs", "length of such a step", "paper, section 6")
    power: float = option(0.5, "(0, inf)", "power of what is left, in the poly schedule", "BVLC")
    warmup_epochs: float = option(0.0, "[0, inf) epochs", "time over which the rate rises from zero", "ours")
    averaging: str = option("none", "none | tail | ema", "average of the weights over steps: their mean over the last "
                            "part of training, or an exponential moving average", "paper, section 6: Polyak's")
    tested: str = option("averaged", "averaged | raw", "weights that best.h5 is chosen by, and that are used where the "
                         "file is: their average, where there is one, or those of the last step", "paper, section 6")
    averaging_start: float = option(0.5, "[0, 1)", "part of training after which the mean of --averaging tail begins",
                                    "ours")
    ema_decay: float = option(0.9999, "[0, 1)", "decay of --averaging ema, once it is warmed up",
                              "TensorFlow's inception_train.py")
    on_divergence: str = option("stop", "stop | halve", "where a loss is no finite number, or a head still guesses "
                                "after the first epoch: stop (warn, of a head), or go back and on at half the rate",
                                "ours")
    aux_weight: float = option(0.3, "[0, inf)", "weight of each auxiliary loss", "paper, section 5")
    init: str = option("xavier", "", "how weights start: xavier, he or truncated_normal; or trained weights: a file "
                       "of any format that is read, or bvlc, torchvision, slim, onnx, which are downloaded", "BVLC")
    bias_init: float = option(0.2, "(-inf, inf)", "how biases start; those of classifiers at 0", "BVLC")
    resize: int = option(0, "[0, inf) pixels", "shorter side before the crop; 0: 256/224 of the input's", "BVLC")
    standardise: bool = option(False, "", "divide images by their deviation too, as He's weights want; LRN's constants "
                               "are made for images on the scale 0 to 255", "ours")
    augment: str = option("crop", "paper | crop | none", "training images: the paper's random crops and colours, "
                          "BVLC's crop and mirror of the resized image, or as in testing", "BVLC")
    aspect_law: str = option("log-uniform", "log-uniform | uniform", "how --augment paper draws a crop's aspect ratio "
                             "from 3/4 to 4/3", "torchvision; slim")
    distortion: float = option(0.5, "[0, 1]", "--augment paper changes contrast, brightness and colour by up to this; "
                               "0: not", "Howard 2013")
    lighting: float = option(0.1, "[0, inf)", "--augment paper adds light along the principal components of colour, "
                             "with this deviation; 0: not", "AlexNet")
    validation_fraction: float = option(0.1, "[0, 1)", "part of the training images kept for validation", "ours")
    max_bad: int = option(10, "[0, inf)", "corrupt images that are skipped before the run is given up", "ours")
    seed: int = option(0, "[0, 4294967295]", "of the initial weights and of what is held out, and of what follows",
                       "ours")
    sampling_seed: int = option(-1, "[-1, 4294967295]", "of order, crops and dropout; -1: as --seed", "paper, section "
                                "7: the only difference between the networks of an ensemble")
    threads: int = option(0, "[0, inf)", "threads that compute; 0: one a core", "ours")
    conv: str = option("auto", "auto | im2col | direct | winograd", "how convolutions are computed", "ours")
    loader_threads: int = option(1, "[1, inf)", "threads that decode images ahead", "ours")
    workers: int = option(1, "[1, 1000]", "model replicas, as in the paper's DistBelief: processes, each with its part "
                          "of the images; not loader processes", "paper, section 6")
    cluster: str = option("", "", "run the workers and the server on a Ray cluster at this address; auto: on the one "
                          "that runs here, or a new one of this machine; needs the extra ray", "ours")
    shards: int = option(4, "[1, 1000]", "slices of the weights, each of which the server updates by itself",
                         "DistBelief, section 4.1")
    fetch_every: int = option(1, "[1, inf) steps", "a worker's steps between fetches of the weights", "DistBelief")
    push_every: int = option(1, "[1, inf) steps", "a worker's steps between pushes of their gradients' sum",
                             "DistBelief")
    overlap: bool = option(False, "", "fetch weights while the next gradient is computed, which makes each push staler "
                           "by one of the same worker", "DistBelief")
    staleness_lr: bool = option(False, "", "divide the rate of a push by the updates since its fetch", "Zhang et al. "
                                "2015")
    look_ahead: bool = option(False, "", "compute gradients where momentum will have taken the weights by the time "
                              "of the push", "after Hakimi et al. 2019")
    warm_start: int = option(0, "[0, inf) steps", "updates by the first worker alone, before the others begin",
                             "DistBelief")
    sync: bool = option(False, "", "all workers' gradients make one update, as a comparison", "Chen et al. 2016")
    backup_workers: int = option(0, "[0, inf)", "of the workers of --sync, how many are not waited for",
                                 "Chen et al. 2016")
    max_restarts: int = option(10, "[0, inf)", "workers, servers and shards that are started again before the run is "
                               "given up", "ours")
    hang_timeout: float = option(60.0, "[2, inf) seconds", "after so long without a sign of life a worker, the server "
                                 "or a shard is ended, and started anew", "ours")
    push_log: bool = option(False, "", "write every applied gradient to pushes.log in the run's folder, from which "
                            "python -m googlenet replay computes the weights again", "ours")
    save_every: float = option(10.0, "(0, inf) minutes", "time between checkpoints, beside each epoch's", "ours")
    report: bool = option(False, "", "keep report.html in the run's folder, a page that loads itself again while it "
                          "trains", "ours")
    tensorboard: bool = option(False, "", "write events for TensorBoard to the run's folder; needs the extra "
                               "tensorboard", "ours")
    keep: int = option(0, "[0, inf)", "checkpoints of the latest epochs that are kept beside last.h5", "ours")
    log_every: int = option(10, "[1, inf) steps", "steps between lines of log.csv", "ours")
    output: str = option("runs", "", "folder in which each run makes its own", "ours")


def add_flags(parser: argparse._ActionsContainer, config: type[Config], *, skip: Collection[str] = ()) -> None:
    """Add a flag for every field: `image_size` becomes --image-size; values out of range are usage errors."""
    kinds = get_type_hints(config)
    for item in fields(config):
        if item.name not in skip:
            _add_flag(parser, item.name, kinds[item.name], item.default, item.metadata)


def from_flags(config: type[C], flags: argparse.Namespace, **chosen: Any) -> C:
    """Return the configuration that parsed flags describe; `chosen` holds fields that are not taken from flags.

    Raises InputError for values that are out of range."""
    names = {item.name for item in fields(config)}
    return config(**{name: value for name, value in vars(flags).items() if name in names} | chosen)


def to_json(config: Config) -> str:
    """Return the configuration as JSON text that `from_json` reads back equal."""
    return json.dumps(asdict(config), indent=2)


def from_json(config: type[C], text: str) -> C:
    """Read `to_json`'s text; a field that is absent takes its default.

    Raises InputError for text that is not a JSON object, unknown fields and values out of range."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{config.__name__} is not JSON ({error}): restore the file it was read from") from error
    if not isinstance(values, dict):
        raise InputError(f"{config.__name__} is {type(values).__name__}, expected a JSON object: restore its file")
    unknown = sorted(values.keys() - {item.name for item in fields(config)})
    if unknown:
        raise InputError(f"{config.__name__} has unknown fields {', '.join(unknown)}: "
                         "it was written by another version of this program, or edited; remove them")
    return config(**values)


def _problem(value: Any, kind: type, metadata: Any) -> str:
    """Return what is wrong with a value and what would be right, or nothing."""
    accepted: dict[type, Any] = {int: numbers.Integral, float: numbers.Real}
    if not isinstance(value, accepted.get(kind, kind)) or (kind is not bool and isinstance(value, bool)):
        return f"expected {KINDS[kind]}, got {type(value).__name__}"
    if metadata["choices"] and value not in metadata["choices"]:
        return f"choose one of {', '.join(metadata['choices'])}"
    if metadata["interval"] and not _within(value, metadata["interval"]):
        return f"choose {KINDS[kind]} in {metadata['interval']}" + (f" {metadata['unit']}" if metadata["unit"] else "")
    return ""


def _within(value: float, interval: str) -> bool:
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    try:
        number = float(value)
    except OverflowError:  # of a whole number beyond all floats
        return False
    above = low <= number if interval[0] == "[" else low < number
    below = number <= high if interval[-1] == "]" else number < high
    return above and below


def _add_flag(parser: argparse._ActionsContainer, name: str, kind: type, default: Any, metadata: Any) -> None:
    flags = [*filter(None, [metadata["short"]]), f"--{name.replace('_', '-')}"]
    meaning = ", ".join(filter(None, [metadata["help"], metadata["unit"]])).replace("%", "%%")
    usual = "none" if default == "" else "%(default)s"
    how: dict[str, Any] = {"default": default, "help": f"{meaning} (default {usual}; {metadata['source']})"}
    if kind is bool:
        how["action"] = argparse.BooleanOptionalAction
    elif metadata["choices"]:
        how["choices"] = metadata["choices"]
    else:
        how.update(type=_reader(kind, metadata), metavar=kind.__name__.upper())
    parser.add_argument(*flags, **how)


def _reader(kind: type, metadata: Any) -> Callable[[str], Any]:
    """Return what argparse calls on a flag's text: the value, or a usage error."""

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r}: expected {KINDS[kind]}") from None
        problem = _problem(value, kind, metadata)
        if problem:
            raise argparse.ArgumentTypeError(f"{text}: {problem} ({metadata['help']})")
        return value

    return read
