"""The curves of a run as a picture: the losses of all classifiers and the validation errors, over the images seen."""
from __future__ import annotations

from pathlib import Path

from googlenet.scripts import writing


def curves(rows: list[dict[str, str]], path: Path) -> None:
    """Draw a log as a PNG: the losses of all classifiers and the validation errors, over the images seen."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    ends = [row for row in rows if row["validation_top1_error"]]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4))
    figure.subplots_adjust(0.06, 0.13, 0.985, 0.91, wspace=0.19)  # a layout that is computed takes twice the time
    _losses(left, rows, ends)
    _errors(right, ends)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    with writing(path):
        figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _losses(axes, rows: list[dict[str, str]], ends: list[dict[str, str]]) -> None:
    """Draw the losses of the steps, and the validation's at the ends of epochs."""
    for column, label, colour in (("loss_aux1", "auxiliary head at 4a", "#ff7f0e"),
                                  ("loss_aux2", "auxiliary head at 4d", "#2ca02c"),
                                  ("loss_main", "classifier", "#1f77b4")):
        points = [(int(row["images"]), float(row[column])) for row in rows if row["lr"] and row[column]]
        if points:
            images, losses = zip(*points, strict=True)
            axes.plot(images, losses, color=colour, alpha=0.2, linewidth=0.8)
            axes.plot(images, smoothed(losses), color=colour, label=f"{label} (smoothed)")
    if ends:
        axes.plot([int(row["images"]) for row in ends], [float(row["validation_loss"]) for row in ends], "k.--",
                  label="classifier, validation")
    axes.set(xlabel="training images seen", ylabel="cross-entropy", title="Losses")


def _errors(axes, ends: list[dict[str, str]]) -> None:
    """Draw the validation errors at the ends of epochs."""
    from matplotlib.ticker import PercentFormatter

    for name, label in (("validation_top1_error", "top-1"), ("validation_top5_error", "top-5")):
        axes.plot([int(row["images"]) for row in ends], [float(row[name]) for row in ends], ".-", label=label)
    averages = [row for row in ends if row["averaged_top1_error"]]
    if averages:
        axes.plot([int(row["images"]) for row in averages], [float(row["averaged_top1_error"]) for row in averages],
                  ".:", color="#1f77b4", label="top-1, averaged weights")
    axes.set(xlabel="training images seen", ylabel="error", title="Validation")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylim(bottom=0)


def smoothed(values: tuple[float, ...], span: int = 20) -> list[float]:
    """Return the mean of each value and up to `span` - 1 before it."""
    return [sum(values[max(0, i - span + 1):i + 1]) / min(i + 1, span) for i in range(len(values))]
