"""The page of a test, `evaluate.py --report OUT.html`: what the errors are, of which classes, and what they look like.

One file of at most some 3 MB, whatever the data set: pictures are small and few, classes beyond CLASSES and lists of
left-out images are cut, and a confusion matrix of many classes is a picture.
"""
from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.base import Dataset
from data.crops import sheet
from data.errors import DataError
from googlenet.inference import Predictor
from googlenet.intervals import wilson
from googlenet.reports import page
from googlenet.reports.learning import learning_of
from googlenet.reports.page import Html, details, element, joined, name, section, table
from googlenet.reports.pictures import filters, thumbnail
from googlenet.table3 import CHANCE, HEADS, ONE_MODEL, POINTS, repeated, short
from googlenet.testing import Judged
from minigrad.errors import InputError
from minigrad.files import write_whole

CLASSES = 1000  # in the table of classes: of more, those with the largest errors
CELLS = 30  # classes whose confusion matrix is a table of numbers
PAIRS = 20  # of classes that are taken for each other
MISTAKES = 24
SMALL = 100  # pixels: images below are enlarged as squares
NETWORKS = 8  # of an ensemble, whose curves and filters are shown
LEFT_OUT = 50  # names of images
PIXELS = 250  # the side of a confusion matrix that is a picture
SHEET = (1280, 1600)  # of the crop sheet
HEADLINES = ("Top-1 error", "Top-5 error", "Neg. log likelihood")
FORMS = {"top1_error": ".2%", "top5_error": ".2%", "loss": ".4f"}
CONFUSED = (49, 130, 206)  # seen on light and on dark paper


def write(path: str | PathLike[str], result: Mapping[str, Any], judged: Sequence[Judged], dataset: Dataset,
          predictors: Sequence[Predictor]) -> None:
    """Write the page of a test: `result` is what evaluate.py writes as JSON, of which parts may be missing.

    Raises InputError where the file can't be written; an old one then stays as it was."""
    files = [each.get("file", "") for each in result.get("weights", [])]
    about = element("p", "GoogLeNet on ", element("strong", name(result.get("data", dataset.origin))),
                    f", {result.get('split', 'test')} images: ", f"{len(dataset.classes):,} classes.", class_="about")
    found = [
        section("result", "Result", _headline(result)),
        *_optional("compared", "Models and crops compared", _compared(result)),
        *_optional("learning", "How the network learned", _learning(files)),
        section("classes", "Classes", _classes(judged, dataset)),
        section("confusion", "What is taken for what", *_confusion(judged, dataset)),
        *_optional("mistakes", "The surest mistakes", _mistakes(judged, dataset)),
        *_optional("filters", "First layer", _filters(predictors, files)),
        *_optional("crops", "Crops of one image", _crops(judged, dataset, predictors)),
        section("made", "How it was made", *_made(result)),
    ]
    names = " + ".join(short(each) for each in files[:3]) + " + …" * (len(files) > 3)
    write_whole(path, [page.document(f"Test of {names or 'GoogLeNet'}", about, found)])


def _optional(identity: str, title: str, content: Html) -> list[Html]:
    """Return a section where it has a content."""
    return [section(identity, title, content)] if content else []


def _headline(result: Mapping[str, Any]) -> Html:
    """Return the figures that one looks for first."""
    images, left_out = result["images"], len(result.get("left_out", ()))
    pooled = "their maximum" if result.get("pool") == "max" else "the mean of their probabilities"
    networks = result.get("networks", 1)
    found: list[tuple[str, object, object]] = [
        *((label, f"{result[key]:{form}}", _range(result, key, form))
          for label, (key, form) in zip(HEADLINES, FORMS.items(), strict=True) if key in result),
        ("Images", f"{images:,}", f"{left_out} damaged ones left out" if left_out else ""),
        ("Crops of each", result.get("crops", 1), pooled if result.get("crops", 1) > 1 else "the centre"),
        ("Networks", networks, "the mean of their probabilities" if networks > 1 else "")]
    if result.get("seconds"):
        own = result.get("network_ms_per_image")
        part = "all tests of the table; of this one" if result.get("table") else "of it"
        found.append(("Time of an image", _time(1000 * result["seconds"] / images),
                      f"{part} {_time(own)} in the network{'s' * (networks > 1)}" if own else ""))
    intervals = element("p", "The ranges are intervals of 95 %.", class_="note")
    return Html(page.figures(found) + intervals)


def _range(row: Mapping[str, Any], key: str, form: str, scale: float = 1.0) -> str:
    """Return the interval of a figure as text, nothing where it is not told."""
    interval = row.get("intervals", {}).get(key)
    return " to ".join(f"{scale * bound:{form}}" for bound in interval) if interval else ""


def _time(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.3g} s" if milliseconds >= 1000 else f"{milliseconds:.3g} ms"


def _compared(result: Mapping[str, Any]) -> Html:
    """Return Table 3, and what an ensemble's networks do by themselves."""
    return Html(_table3(result.get("table")) + _members(result))


def _table3(rows: Sequence[Mapping[str, Any]] | None) -> Html:
    """Return the paper's Table 3: the errors of each row, and its differences to the first."""
    if not rows:
        return Html("")
    alone = [row for row in rows if row.get("kind") == "member"]
    paper = [row for row in rows if row.get("kind") != "member"]
    named = bool(alone)
    pairs = [*((row, "the first row", row["difference"]) for row in paper if row.get("difference")),
             *((row, more["to"], more) for row in paper for more in row.get("more_differences", ()))]
    differences = [[*_setting(row, named), to, *_differences(more)] for row, to, more in pairs]
    told = " ".join(filter(None, [ONE_MODEL if named else "", CHANCE, repeated(rows)]))
    return joined([
        _rows("Table 3 of the paper: models and crops", paper, named),
        table("Differences, taken image by image; errors in points", ["models", "crops", "compared with", *HEADS],
              differences, numbers=(1, 3, 4, 5)),
        element("p", told, class_="note"),
        details("Each network by itself", _rows("The networks by themselves", alone, named)) if alone else ""])


def _rows(caption: str, rows: Sequence[Mapping[str, Any]], named: bool) -> Html:
    """Return rows of Table 3, with their networks' names where they are `named`."""
    cells = [[*_setting(row, named), row["cost"], _time(row["ms_per_image"]), *_errors(row)] for row in rows]
    return table(caption, ["models", "crops", "cost", "networks' time", *HEADS], cells, numbers=range(1, 7))


def _setting(row: Mapping[str, Any], named: bool) -> list[object]:
    """Return the models of a row of Table 3, by name where there are several networks, and their crops."""
    models = [f"{row['models']} models"] if row["models"] > 1 else ["1 model"]
    own = [": ", name(short(row["networks"][0]))] if named and row["models"] == 1 else []
    return [joined([*models, *own]), f"{row['crops']}{', maximum' if row.get('pool') == 'max' else ''}"]


def _members(result: Mapping[str, Any]) -> Html:
    """Return the errors of an ensemble's networks, of their mean, and of all together."""
    if "members" not in result:
        return Html("")
    found = result["members"]
    rows = [(name(short(each["network"])), *_errors(each)) for each in found["each"]]
    rows += [(Html("mean of the networks"), *_errors(found["mean"])), (Html("all together"), *_errors(result)),
             (Html("all together minus the mean, errors in points"), *_differences(found["difference"]))]
    return table("What the networks of the ensemble do by themselves", ["network", *HEADS], rows, numbers=(1, 2, 3))


def _errors(row: Mapping[str, Any]) -> list[Html]:
    """Return the figures of HEADS, each above its interval."""
    return [_above(f"{row[key]:{form}}", _range(row, key, form)) for key, form in FORMS.items()]


def _differences(row: Mapping[str, Any]) -> list[Html]:
    """Return differences of these figures, errors in points, each above its interval."""
    return [_above(f"{scale * row[key]:{form}}", _range(row, key, form, scale))
            for key, scale, form in POINTS]


def _above(figure: str, interval: str) -> Html:
    return joined([figure, *([element("br"), element("small", interval)] if interval else [])])


def _learning(files: Sequence[str]) -> Html:
    """Draw the curves of each run whose log stands beside its weights."""
    found = [(file, learning_of(Path(file).parent / "log.csv").html()) for file in files[:NETWORKS]]
    found = [(file, curves) for file, curves in found if curves]
    if len(found) < 2:
        return joined(curves for _, curves in found)
    return joined(details(short(file), curves, open_=number == 0) for number, (file, curves) in enumerate(found))


def _classes(judged: Sequence[Judged], dataset: Dataset) -> Html:
    by_label: dict[int, list[Judged]] = {}
    for each in judged:
        by_label.setdefault(each.label, []).append(each)
    rows: list[tuple[float, list[object]]] = []
    for label, own in by_label.items():
        right, among = (sum(each.rank < most for each in own) for most in (1, 5))
        interval = wilson(right, len(own))
        loss = sum(each.loss for each in own) / len(own)
        rows.append((right / len(own), [
            name(dataset.classes[label], 80), (f"{len(own):,}", len(own)),
            (page.bar(right / len(own), f"{right / len(own):.1%}"), f"{right / len(own):.6f}"),
            ("{:.2%} to {:.2%}".format(*interval), f"{interval.low:.6f}"),
            (f"{among / len(own):.1%}", f"{among / len(own):.6f}"), (f"{loss:.3f}", f"{loss:.6f}")]))
    rows.sort(key=lambda row: row[0])
    cut = f"; the {CLASSES:,} worst of {len(rows):,}" if len(rows) > CLASSES else ""
    return table(f"Accuracy of each class, the worst first{cut}. The heads of the columns sort.",
                 ["class", "images", "top-1 accuracy", "95 % interval", "top-5", "loss"],
                 (row for _, row in rows[:CLASSES]), numbers=range(1, 6), sortable=True, tall=len(rows) > 15)


def _confusion(judged: Sequence[Judged], dataset: Dataset) -> list[Html]:
    found = _matrix(judged, dataset) if len(dataset.classes) <= CELLS else _matrix_picture(judged, dataset)
    return [found, _pairs(judged, dataset)]


def _pairs(judged: Iterable[Judged], dataset: Dataset) -> Html:
    """Return the classes that are taken for another most often."""
    totals = Counter(each.label for each in judged)
    pairs = Counter((each.label, each.classes[0]) for each in judged if each.rank)
    if not pairs:
        return element("p", "No image was taken for another class.", class_="note")
    rows = [(name(dataset.classes[label], 48), name(dataset.classes[taken], 48), f"{count:,} of {totals[label]:,}",
             page.bar(count / totals[label], f"{count / totals[label]:.1%}"))
            for (label, taken), count in pairs.most_common(PAIRS)]
    told = "Images of a class that were taken for another one"
    return Html(element("h3", "Most frequent mistakes")
                + table(told, ["true class", "taken for", "images", "of the class"], rows, numbers=(2, 3)))


def _matrix(judged: Iterable[Judged], dataset: Dataset) -> Html:
    """Return the confusion matrix as a table: a row a true class, a column a class it was taken for."""
    counts = Counter((each.label, each.classes[0]) for each in judged)
    numbers = range(len(dataset.classes))
    short = [name(each, 24) for each in dataset.classes]
    rows = []
    for label in numbers:
        total = sum(counts[label, taken] for taken in numbers)
        cells = []
        for taken in numbers:
            count = counts[label, taken]
            kind = "hit" if label == taken else "miss" if count else "none"
            cells.append(element("td", f"{count:,}", class_=kind, style=f"--part:{count / max(total, 1):.3f}"))
        rows.append(element("tr", element("th", short[label], scope="row"), *cells))
    told = "Images by their true class (rows) and the class they were taken for (columns); bold: right"
    caption = element("caption", element("span", told))
    head = element("tr", element("th", element("small", "true class"), scope="col"),
                   *(element("th", element("span", each), scope="col") for each in short))
    made = element("table", caption, element("thead", head), element("tbody", *rows), class_="confusion")
    return element("div", made, class_="scroll", tabindex="0", role="region", aria_label="Confusion matrix")


def _matrix_picture(judged: Iterable[Judged], dataset: Dataset) -> Html:
    """Return the confusion matrix as a picture: the part of each true class (row), darker where it is larger."""
    classes = len(dataset.classes)
    side = min(classes, PIXELS)
    counts = np.zeros((side, side))
    for each in judged:
        counts[each.label * side // classes, each.classes[0] * side // classes] += 1
    parts = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    pixels = np.zeros((side, side, 4), np.uint8)
    pixels[..., :3] = CONFUSED
    pixels[..., 3] = np.rint(255 * np.sqrt(parts))  # a root, so that rare mistakes are seen
    drawn = page.picture(Image.fromarray(pixels), f"Confusion matrix of {classes:,} classes; the table below has the "
                         "pairs that are confused most often.", class_="pixels matrix")
    several = f"; a point stands for {classes / side:.3g} classes" if classes > side else ""
    told = ("Rows are true classes, columns those they were taken for, in the data set's order: right answers lie on "
            f"the diagonal{several}.")
    return element("figure", drawn, element("figcaption", element("span", told)))


def _mistakes(judged: Iterable[Judged], dataset: Dataset) -> Html:
    """Return the wrong answers that were given with the highest probability."""
    wrong = sorted((each for each in judged if each.rank), key=lambda each: -each.probabilities[0])
    shown = list(islice(filter(None, (_mistake(each, dataset) for each in wrong)), MISTAKES))
    if not shown:
        return Html("")
    told = (f"{len(shown):,} of {len(wrong):,} wrong answers, those given with the highest probability: the class that "
            "was given, the true one, and the probabilities of both.")
    return joined([element("p", told), element("ul", *shown, class_="pictures")])


def _mistake(each: Judged, dataset: Dataset) -> Html:
    """Return the picture of a wrong answer, nothing where it can't be read any more."""
    try:
        image = dataset.image(each.image)
    except DataError:
        return Html("")
    true, taken = dataset.classes[each.label], dataset.classes[each.classes[0]]
    drawn = page.picture(thumbnail(image), f"{_cut(true)}, taken for {_cut(taken)}",
                         class_="pixels" if max(image.shape) < SMALL else None)
    caption = element("figcaption", element("strong", name(taken, 40), f" {each.probabilities[0]:.1%}"),
                      element("span", "true: ", name(true, 40), f" {math.exp(-each.loss):.2%}"),
                      element("span", name(dataset.names[each.image], 40)))
    return element("li", element("figure", drawn, caption))


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"


def _filters(predictors: Sequence[Predictor], files: Sequence[str]) -> Html:
    """Draw the first layer of each network."""
    drawn = []
    for number, each in enumerate(predictors[:NETWORKS]):
        title = short(files[number]) if number < len(files) else f"network {number + 1}"
        try:
            image = filters(each.model, each.preprocessing, "conv1")
        except InputError:
            continue
        made = page.picture(image, f"The filters of the first layer of {_cut(title)}", class_="plate")
        drawn.append(element("figure", made, *([element("figcaption", element("span", name(title)))]
                                               if len(predictors) > 1 else [])))
    return element("div", *drawn, class_="pair") if drawn else Html("")


def _crops(judged: Sequence[Judged], dataset: Dataset, predictors: Sequence[Predictor]) -> Html:
    """Draw the 144 crops of the first image."""
    if not judged or not predictors:
        return Html("")
    index = judged[0].image
    try:
        drawn = sheet(dataset.image(index), predictors[0].preprocessing)
    except DataError:
        return Html("")
    drawn.thumbnail(SHEET, Image.Resampling.LANCZOS)
    made = page.picture(drawn, "Four scales, up to three squares, six views, mirrored: all crops of one image",
                        class_="plate sheet")
    told = element("p", "The crops of the test with 144, of ", name(dataset.names[index]), ".")
    box = element("div", made, class_="scroll", tabindex="0", role="region", aria_label="Crop sheet")
    return Html(told + box)


def _made(result: Mapping[str, Any]) -> list[Html]:
    rows = [(name(each.get("file", "")), each.get("variant", ""), each.get("format", ""), each.get("preprocessing", ""),
             element("code", each.get("sha256", "")[:16])) for each in result.get("weights", [])]
    parts = [table("Weights", ["file", "variant", "format", "preprocessing", "SHA-256 begins"], rows)] if rows else []
    left_out = list(result.get("left_out", ()))
    if left_out:
        more = [element("li", f"and {len(left_out) - LEFT_OUT:,} more")] if len(left_out) > LEFT_OUT else []
        parts.append(details(f"Images left out as damaged: {len(left_out):,}",
                             element("ul", *(element("li", name(each)) for each in left_out[:LEFT_OUT]), *more)))
    return parts or [element("p", "Nothing is told of the weights.", class_="note")]
