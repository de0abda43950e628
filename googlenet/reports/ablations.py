"""What an ablation came to, as a table in Markdown and as a picture."""
from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from googlenet.ablations.questions import QUESTIONS
from googlenet.ablations.results import Answer, Estimate
from googlenet.config import ModelConfig, TrainingConfig
from googlenet.scripts import writing

HEAD = ("question", "variation", "top-1 error, %", "difference", "negative log likelihood", "difference", "parameters",
        "multiply-adds", "images/s")
MINUS = "\N{MINUS SIGN}"
DARK, PALE = "#1f4e79", "#9db4c8"


def document(answers: Sequence[Answer], training: TrainingConfig, network: ModelConfig, train: int, test: int) -> str:
    """Return the table with what must be known to read it; `train` and `test` are numbers of images."""
    seeds = len(answers[0].errors)
    epochs = f"{training.epochs} epoch{'s' * (training.epochs > 1)}"
    read = (f"Figures are means over {seeds} seeds with 95 % intervals (Student's t); \\* its interval leaves out 0. "
            f"Intervals are over seeds, not over test images: the same {test:,} test all. Of twenty intervals one is "
            "expected to miss." if seeds > 1 else
            "Figures are of one seed, so that there are no intervals: any difference may be chance.")
    return f"""# Ablations

Base: {network.variant} at width {network.width:g} on {network.image_size}x{network.image_size} pixels, both heads, \
average pool, reduced modules, images mirrored; {epochs} of {train:,} images of {training.data}, \
batches of {training.batch_size}, rate {training.lr:g} falling to 0. The weights of the last step are tested on \
{test:,} images by their centre; nothing was chosen on the way. Each variation changes one thing.

{table(answers)}

{read} Differences are to the base, seed by seed, or of an average to its last step. Parameters and multiply-adds are \
of testing one image, images/s of training on the machine that ran this.
"""


def table(answers: Sequence[Answer]) -> str:
    """Return the answers as a table in Markdown, the base first."""
    rows = [HEAD, tuple("---" if column < 2 else "---:" for column in range(len(HEAD))), *map(_row, answers)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(answer: Answer) -> tuple[str, ...]:
    variation = answer.variation
    base = not variation.question
    asked = "" if base else f"{QUESTIONS[variation.question].title} ({QUESTIONS[variation.question].source})"
    cost = (f"{answer.parameters:,}", f"{answer.multiply_adds / 1e6:,.1f} M", f"{answer.images_per_second:,.0f}")
    return (asked, variation.label, told(answer.error, 100), "" if base else told(answer.error_difference, 100, True),
            told(answer.nll), "" if base else told(answer.nll_difference, 1, True), *cost)


def told(estimate: Estimate, scale: float = 1, signed: bool = False) -> str:
    """Return a mean and its interval, with a star where a difference's leaves out 0."""
    digits = 2 if scale > 1 else 3

    def number(value: float) -> str:
        text = f"{scale * value:{'+' if signed else ''}.{digits}f}"
        return text.replace("-", MINUS)

    low, high = estimate.interval
    if not math.isfinite(low):
        return number(estimate.mean)
    star = "\\*" if signed and low < high and (low > 0 or high < 0) else ""
    return f"{number(estimate.mean)}{star} ({number(low)} to {number(high)})"


def picture(answers: Sequence[Answer], path: Path) -> None:
    """Draw the errors and their differences to the base, a line for each variation, as a PNG (or what `path` ends in).

    Dots are seeds, diamonds the base's mean, discs the others', bars intervals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    places = _places(answers)
    bottom = max(y for _, y, _ in places) + 0.8
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 1.2 + 0.3 * bottom), sharey=True,
                                            constrained_layout=True)
    _errors(left, places)
    _differences(right, places)
    left.set(ylim=(bottom, -0.8))
    for axes in (left, right):
        axes.tick_params(axis="y", length=0, labelsize=9)
        axes.grid(axis="x", alpha=0.25)
        axes.spines[["top", "right", "left"]].set_visible(False)
    with writing(path):
        figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _errors(axes, places: Sequence[Place]) -> None:
    """Draw each answer's error, and write what it is of."""
    for answer, y, _ in places:
        axes.plot([100 * error for error in answer.errors], [y] * len(answer.errors), ".", color=PALE, markersize=7,
                  zorder=2)
        _estimate(axes, answer.error, y, _is_base(answer))
    base = next(answer for answer, *_ in places if _is_base(answer))
    axes.axvline(100 * base.error.mean, color="0.6", linewidth=0.8, linestyle="--", zorder=0)
    axes.set_yticks([y for _, y, _ in places], [label for *_, label in places])
    for question, y in _titles(places):
        axes.text(-0.02, y, question, transform=axes.get_yaxis_transform(), ha="right", va="center", weight="bold",
                  fontsize=9)
    axes.set(xlabel="top-1 error, %")
    axes.set_title("test errors: seeds, mean, 95 % interval", fontsize=10)


def _differences(axes, places: Sequence[Place]) -> None:
    """Draw each answer's difference to what it is compared with."""
    for answer, y, _ in places:
        if not _is_base(answer):
            _estimate(axes, answer.error_difference, y)
    axes.axvline(0, color="0.6", linewidth=0.8, linestyle="--", zorder=0)
    axes.set(xlabel="difference, percentage points")
    axes.set_title("to the base (averages: to their last step), seed by seed", fontsize=10)


def _is_base(answer: Answer) -> bool:
    return not answer.variation.question


Place = tuple[Answer, float, str]


def _places(answers: Sequence[Answer]) -> list[Place]:
    """Return where each answer stands and what it is called, question by question, the base first in each."""
    base, *others = answers
    places: list[Place] = []
    y = 0.0
    for name, question in QUESTIONS.items():
        own = [each for each in others if each.variation.question == name]
        if not own:
            continue
        for answer, label in [(base, f"{question.base} (base)"), *((each, each.variation.label) for each in own)]:
            y += 1
            places.append((answer, y, label))
        y += 1.6
    return places


def _titles(places: Sequence[Place]) -> list[tuple[str, float]]:
    """Return each question's title and where it stands: above its base."""
    asked: list[tuple[str, float]] = []
    for (answer, y, _), (following, _, _) in pairwise(places):
        if not answer.variation.question:
            asked.append((QUESTIONS[following.variation.question].title, y - 0.95))
    return asked


def _estimate(axes, estimate: Estimate, y: float, base: bool = False) -> None:
    axes.plot(100 * estimate.mean, y, marker="D" if base else "o", color=DARK, markersize=6, zorder=3,
              markerfacecolor="white" if base else DARK)
    if math.isfinite(estimate.interval.low):
        axes.plot([100 * bound for bound in estimate.interval], [y, y], color=DARK, linewidth=1.6,
                  solid_capstyle="butt")
