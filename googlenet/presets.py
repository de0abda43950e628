"""Recipes by name, for `train.py --preset NAME`: every value with its source. A flag that is given wins.

"paper" is the paper's recipe as far as it is told, and BVLC's where it is not; "bvlc" and "bvlc-quick" are the two
solvers of Caffe's reference model; the others are ours.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

FINETUNE = "finetune"  # which makes nothing of weights that are drawn
FOR_IMAGENET = ("paper", "bvlc", "bvlc-quick")
AS_INPUT = "as --image-size"  # for `resize`: the resized image is all of the input, nothing is cut


class Preset(NamedTuple):
    """What it is for, and {setting: (value, source)}; the settings are fields of TrainingConfig and ModelConfig."""

    purpose: str
    settings: Mapping[str, tuple[Any, str]]


BVLC = {
    "variant":      ("caffe",  "train_val.prototxt"),
    "batch_size":   (32,       "train_val.prototxt"),
    "lr":           (0.01,     "solver.prototxt, quick_solver.prototxt: base_lr"),
    "momentum":     (0.9,      "solver.prototxt, quick_solver.prototxt"),
    "weight_decay": (2e-4,     "solver.prototxt, quick_solver.prototxt"),
    "init":         ("xavier", "train_val.prototxt: weight_filler"),
    "bias_init":    (0.2,      "train_val.prototxt: bias_filler"),
    "bias_rate":    (2.0,      "train_val.prototxt: lr_mult"),
    "bias_decay":   (0.0,      "train_val.prototxt: decay_mult"),
    "augment":      ("crop",   "train_val.prototxt: crop_size 224, mirror"),
    "validation_fraction": (0.01, "ours: a dozen images a class; BVLC trained on all"),
}  # fmt: skip

PRESETS = {
    "paper": Preset("the paper's training, on ImageNet at 224x224", {
        "variant":      ("paper",       "paper, Table 1 and Fig. 3"),
        "momentum":     (0.9,           "paper, section 6"),
        "schedule":     ("step",        "paper, section 6: fixed, 4 % every 8 epochs"),
        "decay":        (0.96,          "paper, section 6"),
        "decay_epochs": (8.0,           "paper, section 6"),
        "averaging":    ("tail",        "paper, section 6: Polyak averaging; its window is not told"),
        "augment":      ("paper",       "paper, section 6"),
        "aspect_law":   ("log-uniform", "ours: the paper only bounds the aspect ratio"),
        "heads":        ("both",        "paper, section 5"),
        "aux_weight":   (0.3,           "paper, section 5"),
        "aux_dropout":  (0.7,           "paper, section 5"),
        "dropout":      (0.4,           "paper, Table 1"),
        "epochs":       (250,           "BVLC, solver.prototxt: 10,000,000 steps of 32; the paper does not tell"),
        "batch_size":   (32,            "BVLC, train_val.prototxt; the paper does not tell"),
        "lr":           (0.01,          "BVLC, solver.prototxt; the paper does not tell"),
        "weight_decay": (2e-4,          "BVLC, solver.prototxt; the paper does not tell"),
        "init":         ("xavier",      "BVLC, train_val.prototxt; the paper does not tell"),
        "bias_init":    (0.2,           "BVLC, train_val.prototxt; the paper does not tell"),
        "validation_fraction": (0.01,   "ours: a dozen images a class; BVLC trained on all"),
        "on_divergence": ("halve",      "ours: a head that stays at ln 1000 was met by several who trained it"),
        "keep":         (3,             "ours: the run takes weeks"),
    }),
    "bvlc": Preset("Caffe's reference model, its longer solver, on ImageNet", {
        **BVLC,
        "schedule":     ("step",        "solver.prototxt"),
        "decay":        (0.96,          "solver.prototxt: gamma"),
        "decay_epochs": (8.0,           "solver.prototxt: 320,000 steps of 32 are 7.99 epochs"),
        "epochs":       (250,           "solver.prototxt: 10,000,000 steps"),
        "keep":         (3,             "ours: the run takes weeks"),
    }),
    "bvlc-quick": Preset("Caffe's reference model, by the solver that its published weights are of", {
        **BVLC,
        "schedule":     ("poly",        "quick_solver.prototxt"),
        "power":        (0.5,           "quick_solver.prototxt"),
        "epochs":       (60,            "quick_solver.prototxt: 2,400,000 steps of 32 are 59.9 epochs"),
        "keep":         (3,             "ours: the run takes weeks"),
    }),
    # The embedded images are 28x28 pixels and fill their frame: at 64 pixels, nothing cropped, the whole network learns
    # them in a few minutes. There is no time for the paper's slow schedule: the rate falls to zero in a line.
    "embedded": Preset("the embedded images, in a few minutes on two cores (without --preset, their default)", {
        "image_size":          (64,       "ours"),
        "resize":              (AS_INPUT, "ours: the images fill their frame"),
        "epochs":              (7,        "ours: four minutes"),
        "batch_size":          (16,       "ours"),
        "lr":                  (0.0025,   "ours"),
        "schedule":            ("poly",   "ours"),
        "power":               (1.0,      "ours"),
        "init":                ("he",     "He et al. 2015"),
        "bias_init":           (0.0,      "He et al. 2015"),
        "standardise":         (True,     "ours: as He's weights want; LRN, made for 0 to 255, hardly acts then"),
        "validation_fraction": (0.05,     "ours"),
    }),
    "fashion": Preset("all of Fashion-MNIST (python -m data.fetch fashion-mnist) in under forty minutes on two cores", {
        "data":                ("fashion-mnist", "ours"),
        "width":               (0.5,      "ours: half the channels learn twice as many images in the time"),
        "image_size":          (64,       "ours: at 32 and 48 pixels it learned less in the same time"),
        "resize":              (AS_INPUT, "ours: the images fill their frame"),
        "augment":             ("crop",   "BVLC; where nothing is cut, that is the mirror alone"),
        "epochs":              (14,       "ours: under forty minutes"),
        "batch_size":          (32,       "BVLC"),
        "lr":                  (0.005,    "ours: half of BVLC's"),
        "schedule":            ("poly",   "BVLC's law, down to zero"),
        "power":               (1.0,      "ours"),
        "init":                ("he",     "He et al. 2015"),
        "bias_init":           (0.0,      "He et al. 2015"),
        "standardise":         (True,     "ours: as He's weights want; LRN, made for 0 to 255, hardly acts then"),
        "validation_fraction": (0.1,      "ours"),
    }),
    "cifar10": Preset("CIFAR-10 (python -m data.fetch cifar10), in some hours on two cores; not measured", {
        "data":                ("cifar10", "ours"),
        "image_size":          (64,       "ours: as of Fashion-MNIST"),
        "resize":              (80,       "ours: shifts by up to 8 of 64 pixels, as He et al. 2015b by 4 of 32"),
        "augment":             ("crop",   "BVLC"),
        "epochs":              (40,       "ours"),
        "batch_size":          (32,       "BVLC"),
        "lr":                  (0.005,    "ours: half of BVLC's"),
        "schedule":            ("poly",   "BVLC's law, down to zero"),
        "power":               (1.0,      "ours"),
        "weight_decay":        (5e-4,     "Krizhevsky 2012"),
        "init":                ("he",     "He et al. 2015"),
        "bias_init":           (0.0,      "He et al. 2015"),
        "standardise":         (True,     "ours: as He's weights want; LRN, made for 0 to 255, hardly acts then"),
        "on_divergence":       ("halve",  "ours"),
        "validation_fraction": (0.1,      "ours"),
    }),
    "flowers": Preset("Oxford's 17 flowers (python -m data.fetch flowers17) from nothing; see finetune", {
        "data":                ("flowers17", "ours"),
        "image_size":          (112,      "ours: a quarter of the time of 224"),
        "augment":             ("paper",  "paper, section 6: 1,020 photos are few"),
        "epochs":              (100,      "ours"),
        "batch_size":          (16,       "ours"),
        "lr":                  (0.0025,   "ours: as of the embedded images"),
        "schedule":            ("poly",   "BVLC's law, down to zero"),
        "power":               (1.0,      "ours"),
        "init":                ("he",     "He et al. 2015"),
        "bias_init":           (0.0,      "He et al. 2015"),
        "standardise":         (True,     "ours: as He's weights want; LRN, made for 0 to 255, hardly acts then"),
        "on_divergence":       ("halve",  "ours"),
        "validation_fraction": (0.1,      "ours"),
    }),
    FINETUNE: Preset("go on from trained weights (--init FILE) on a small set of photos", {
        "heads":               ("none", "ours: their gradient is not missed once the trunk is trained"),
        "lr":                  (0.002,  "ours: a fifth of BVLC's"),
        "schedule":            ("poly", "BVLC's law, down to zero"),
        "power":               (1.0,    "ours"),
        "epochs":              (10,     "ours"),
        "batch_size":          (32,     "BVLC"),
        "weight_decay":        (2e-4,   "BVLC"),
        "augment":             ("crop", "BVLC"),
        "validation_fraction": (0.0,    "ours: a small set is trained on as a whole, and the final weights count"),
    }),
}  # fmt: skip


def apply(name: str, flags: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Change `flags`, settings by name, to those of a preset, but for the `given` ones."""
    for setting, (value, _) in PRESETS[name].settings.items():
        if setting not in given:
            flags[setting] = value
    if flags["resize"] == AS_INPUT:
        flags["resize"] = flags["image_size"]


def described() -> str:
    """Return all presets with their values and sources, as text of aligned columns."""
    blocks = []
    for name, preset in PRESETS.items():
        rows = [(f"--{setting.replace('_', '-')}", str(value), source)
                for setting, (value, source) in preset.settings.items()]
        flag, text = (max(len(row[column]) for row in rows) for column in (0, 1))
        blocks.append(f"{name}: {preset.purpose}\n" + "\n".join(
            f"  {setting:<{flag}}  {value:<{text}}  {source}" for setting, value, source in rows))
    return "\n\n".join(blocks)
