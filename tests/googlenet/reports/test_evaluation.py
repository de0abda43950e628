"""The page of a test: what is on it, whatever the data set, and that it works in a browser."""

import re

import numpy as np
import pytest

from data.base import ArrayDataset
from googlenet.inference import Predictor
from googlenet.model import preprocessing_of
from googlenet.reports import evaluation
from googlenet.reports.log import Log
from googlenet.testing import Judged
from googlenet.weights import LoadedModel
from minigrad.errors import InputError
from tests.googlenet.reports import test_learning
from tests.googlenet.reports.browser import Browser, needs_browser
from tests.googlenet.reports.structure import checked, words
from tests.runs import network

EVIL = "<script>alert(1)</script>"
MEASURES = {"images": 40, "top1_error": 0.25, "top5_error": 0.05, "loss": 1.2345,
            "intervals": {"top1_error": [0.2, 0.3], "top5_error": [0.01, 0.1], "loss": [1.1, 1.3]}}
DIFFERENCE = {"top1_error": -0.0123, "top5_error": 0.0, "loss": -0.5,
              "intervals": {"top1_error": [-0.02, -0.001], "top5_error": None, "loss": [-0.6, -0.4]}}

ROW = {"kind": "paper", "networks": ["a/best.h5"], "models": 1, "crops": 1, "pool": "mean", "cost": 1, **MEASURES,
       "distinct_crops": 1.0, "ms_per_image": 12.3, "difference": None}
OTHER = {**ROW, "networks": ["a/best.h5", "b/best.h5"], "models": 2, "crops": 144, "pool": "max", "cost": 288,
         "distinct_crops": 48.0,
         "difference": DIFFERENCE, "more_differences": [{**DIFFERENCE, "to": "10 crops", "loss": 0.25}]}
MEMBERS = {"each": [{"network": "a/best.h5", **MEASURES}, {"network": "b/best.h5", **MEASURES}], "mean": MEASURES,
           "difference": DIFFERENCE}


def dataset(classes, images=40, shape=(40, 30, 3), names=None):
    rng = np.random.default_rng(0)
    return ArrayDataset(rng.integers(0, 255, (images, *shape), dtype=np.uint8), np.arange(images) % len(classes),
                        names or [f"t/{i}.jpg" for i in range(images)], classes, "a set")


def judged(data, wrong=3):
    """Every `wrong`-th image is taken for the class after its own, the later the surer."""
    found, classes = [], len(data.classes)
    for image, label in enumerate(data.labels.tolist()):
        missed = image % wrong == 0
        best = tuple((label + missed + i) % classes for i in range(min(5, classes)))
        rank = best.index(label) if label in best else 9
        found.append(Judged(image, label, rank, 0.5 + missed, best, (0.5 + image / 200, *[0.01] * (len(best) - 1))))
    return found


def predictor(**config):
    model = network(**config)
    return Predictor(LoadedModel(model, ("a", "b", "c", "d"), preprocessing_of(model.config)))


def result(**more):
    return {**MEASURES, "crops": 10, "pool": "mean", "networks": 1, "seconds": 4.0, "ms_per_image": 100.0,
            "network_ms_per_image": 80.0, "data": "DIR", "split": "val", "left_out": [],
            "weights": [{"file": "runs/x/best.h5", "variant": "paper", "format": "ours", "sha256": "ab" * 32,
                         "preprocessing": "shorter side to 36"}], **more}


def written(tmp_path, found, data, answers=None, predictors=()):
    evaluation.write(tmp_path / "page.html", found, judged(data) if answers is None else answers, data, predictors)
    return (tmp_path / "page.html").read_bytes()


def test_the_page_tells_what_was_found(tmp_path):
    data = dataset(["cat", "dog", "fox", "owl"])
    structure = checked(written(tmp_path, result(), data, predictors=[predictor()]))
    told = words(structure)
    for text in ("Test of x/best.h5", "25.00% 20.00% to 30.00%", "1.2345 1.1000 to 1.3000",
                 "100 ms of it 80 ms in the network", "DIR", "val images: 4 classes", "shorter side to 36", "abababab",
                 "Most frequent mistakes", "First layer",
                 "Crops of one image", "14 wrong answers"):
        assert text in told, text
    assert "Table 3" not in told
    assert "How the network learned" not in told
    # The surest mistake comes first: the last image that is wrong is number 39, a 39 % 4 = 3, taken for 0.
    assert re.search(r"both\. cat 69\.5% true: owl 22\.31% t/39\.jpg dog", told)
    confusion = [text.split() for text in re.findall(r"(?:cat|dog|fox|owl) \d+ \d+ \d+ \d+\b", told)]
    assert confusion == [["cat", "6", "4", "0", "0"], ["dog", "0", "7", "3", "0"], ["fox", "0", "0", "7", "3"],
                         ["owl", "4", "0", "0", "6"]]


def test_classes_stand_with_the_worst_first(tmp_path):
    data = dataset(["cat", "dog"], images=10)
    answers = [Judged(i, label, int(label == 1 and i < 6), 0.5, (0, 1), (0.6, 0.4))
               for i, label in enumerate(data.labels.tolist())]
    told = words(checked(written(tmp_path, result(), data, answers)))
    assert re.search(r"loss dog 5 40\.0% 11\.76% to 76\.93% 100\.0% 0\.500 cat 5 100\.0% 56\.55% to 100\.00%", told)


def test_table_3_and_the_members_of_an_ensemble(tmp_path):
    table = [ROW, OTHER, {**ROW, "kind": "member", "networks": ["b/best.h5"]}]
    told = words(checked(written(tmp_path, result(table=table, members=MEMBERS, networks=2), dataset(["cat", "dog"]))))
    assert "2 models 144, maximum 288 12.3 ms 25.00% 20.00% to 30.00% 5.00%" in told
    assert "100 ms all tests of the table; of this one 80 ms in the networks" in told
    assert "2 models 144, maximum the first row -1.23 -2.00 to -0.10 +0.00 -0.5000 -0.6000 to -0.4000" in told
    assert "2 models 144, maximum 10 crops -1.23 -2.00 to -0.10 +0.00 +0.2500 -0.6000 to -0.4000" in told
    assert "Distinct are of 144 crops 48: " in told
    assert "Each network by itself" in told
    assert told.count("1 model: b/best.h5 1 1 12.3 ms") == 1
    assert "mean of the networks 25.00%" in told


def test_little_is_needed(tmp_path):
    data = dataset(["cat", "dog"])
    structure = checked(written(tmp_path, {"images": 40, "top1_error": 0.5}, data))
    assert "50.00%" in words(structure)
    right = [each._replace(rank=0, classes=(each.label, 1 - each.label)) for each in judged(data)]
    assert "No image was taken for another class" in words(checked(written(tmp_path, result(), data, right)))


def test_curves_of_a_run_whose_log_lies_beside_its_weights(tmp_path):
    log = Log(tmp_path / "log.csv", 1)
    for record in test_learning.records():
        (log.epoch if hasattr(record, "validation") else log.step)(record)
    log.close()
    ours, other = {"file": str(tmp_path / "best.h5")}, {"file": str(tmp_path / "none" / "best.h5")}
    data = dataset(["cat", "dog"])
    one = written(tmp_path, result(weights=[ours, other]), data)
    assert "How the network learned" in words(checked(one))
    assert one.count(b'class="curves"') == 2
    two = written(tmp_path, result(weights=[ours, ours]), data)
    assert two.count(b'class="curves"') == 4
    assert two.count(b"<details") == one.count(b"<details") + 3  # each run is folded, and has its epochs' figures
    checked(two)


NAMES = [EVIL, "日本語 café", "left \u202egnp.exe", "x" * 5000, "\0\x1b\udcff", "&amp; \"'", " "]


def hostile(tmp_path):
    data = dataset(NAMES, names=[f"{EVIL}{i}{'y' * 3000}.jpg" for i in range(40)])
    found = result(data=EVIL, split=EVIL, left_out=[EVIL, *map(str, range(900))],
                   weights=[dict.fromkeys(("file", "variant", "format", "sha256", "preprocessing"), EVIL * 9)])
    return written(tmp_path, found, data, predictors=[predictor()])


def test_names_are_never_markup(tmp_path):
    made = hostile(tmp_path)
    structure = checked(made)
    assert sum(tag == "script" for tag, _ in structure.found) == 1
    assert b"<script>alert" not in made
    assert EVIL in words(structure)
    assert "日本語 café" in words(structure)
    assert "<bdi>left \u202egnp.exe</bdi>".encode() in made
    assert "48 and 851 more" in words(structure)
    assert b"y" * 60 not in made
    assert b"x" * 90 not in made


@pytest.mark.parametrize("classes", [31, 1000, 3000])
def test_a_page_of_many_classes_stays_small(tmp_path, classes):
    data = dataset([f"{i} {'a long name, ' * 20}" for i in range(classes)], images=6000, shape=(8, 8, 3))
    made = written(tmp_path, result(), data)
    structure = checked(made)
    assert len(made) < 3_000_000
    rows = sum(tag == "tr" for tag, _ in structure.found)
    assert rows == min(classes, 1000) + 20 + 1 + 3  # classes, pairs, the weights, three heads
    assert ("1,000 worst of 3,000" in words(structure)) == (classes == 3000)
    matrix = next(attributes for tag, attributes in structure.found if tag == "img")
    assert matrix["alt"].startswith(f"Confusion matrix of {classes:,} classes")
    assert matrix["width"] == matrix["height"] == str(min(classes, 250))


def test_large_photos_become_small_pictures(tmp_path):
    data = dataset(["cat", "dog"], images=30, shape=(700, 900, 3))
    answers = [each._replace(rank=1) for each in judged(data)]
    made = written(tmp_path, result(), data, answers, [predictor()])  # noise is the worst of all photos
    assert len(made) < 3_000_000
    sides = [int(attributes["width"]) for tag, attributes in checked(made).found if tag == "img"]
    assert len(sides) == 24 + 2
    assert sides[:24] == [168] * 24


def test_an_image_that_is_gone_is_passed_over(tmp_path):
    from data.errors import DataError

    data = dataset(["cat", "dog"])
    whole = data.image

    def image(index):
        if index in (39, 0):
            raise DataError("gone")
        return whole(index)

    data.image = image
    told = words(checked(written(tmp_path, result(), data, predictors=[predictor()])))
    assert "t/36.jpg" in told
    assert "t/39.jpg" not in told
    assert "Crops of one image" not in told


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    data = dataset(["cat", "dog"])
    old = written(tmp_path, result(), data)
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(InputError, match=r"can't write .*page\.html: No space left"):
        written(tmp_path, result(images=7), data)
    assert (tmp_path / "page.html").read_bytes() == old
    assert [each.name for each in tmp_path.iterdir()] == ["page.html"]


@pytest.fixture(scope="module")
def browser():
    opened = Browser()
    yield opened
    opened.close()


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_finds_nothing_to_complain_of(tmp_path, browser, dark):
    hostile(tmp_path)
    browser.asked.clear()
    for width in (1280, 360):
        browser.open(tmp_path / "page.html", width, dark)
        assert browser.run("document.documentElement.scrollWidth") <= width
        assert browser.run("[...document.images].every((each) => each.complete && each.naturalWidth > 0)")
    assert browser.complaints == []
    assert {each.split(":")[0] for each in browser.asked} == {"file", "data"}
    light = browser.run("getComputedStyle(document.body).backgroundColor").removeprefix("rgb(").rstrip(")").split(",")
    assert (int(light[0]) < 60) == dark


LUMINANCE = """
(() => {
  const part = (c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const paint = (colours) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const each of colours) { canvas.fillStyle = each; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const faults = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || element.closest("script, noscript, .skip")) continue;
    const behind = [];
    for (let at = element; at; at = at.parentElement) behind.unshift(getComputedStyle(at).backgroundColor);
    const [a, b] = [light(paint([...behind, getComputedStyle(element).color])), light(paint(behind))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) faults.push(`${element.tagName} ${element.className} ${contrast.toFixed(2)}`);
  }
  return faults;
})()
"""


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_all_text_stands_out(tmp_path, browser, dark):
    """WCAG AA: 4.5 to 1, also in the cells of the confusion matrix, whatever their tint."""
    data = dataset(["cat", "dog", "fox"])
    sure = [each._replace(classes=((each.label + (each.label == 1)) % 3, 0, 1)) for each in judged(data)]
    written(tmp_path, result(), data, sure)
    browser.open(tmp_path / "page.html", dark=dark)
    assert browser.run(LUMINANCE) == []


FIRST = "[...document.querySelectorAll('table.sortable tbody tr')].map((row) => row.cells[{}].textContent)"


@needs_browser
def test_the_table_is_sorted_by_keys(tmp_path, browser):
    """Tab to a head, Enter or space: as whoever has no mouse."""
    data = dataset(["cat 10", "cat 9", "dog", "Ape"], images=41)
    answers = [each._replace(rank=int(each.image < 4 * each.label), loss=float(each.label)) for each in judged(data)]
    written(tmp_path, result(), data, answers)
    browser.open(tmp_path / "page.html")
    assert browser.run(FIRST.format(0)) == ["Ape", "dog", "cat 9", "cat 10"]
    browser.press("Tab", 9)
    assert browser.run("document.activeElement.className") == "skip"
    browser.press("Enter", 13, "\r")
    assert browser.run("document.activeElement.id") == "content"
    while browser.run("document.activeElement.tagName") != "BUTTON":
        browser.press("Tab", 9)
    assert browser.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.press("Enter", 13, "\r")
    assert browser.run(FIRST.format(0)) == ["Ape", "cat 9", "cat 10", "dog"]
    order = "[...document.querySelectorAll('table.sortable th[aria-sort]')].map((head) => head.ariaSort)"
    assert browser.run(order) == ["ascending", *["none"] * 5]
    browser.press(" ", 32, " ")
    assert browser.run(FIRST.format(0)) == ["dog", "cat 10", "cat 9", "Ape"]
    browser.press("Tab", 9)
    browser.press("Enter", 13, "\r")
    assert browser.run(FIRST.format(1)) == ["11", "10", "10", "10"]
    assert browser.run(order) == ["none", "descending", *["none"] * 4]
    for _ in range(2):
        browser.press("Tab", 9)
    browser.press("Enter", 13, "\r")  # intervals, by their lower ends
    browser.press("Enter", 13, "\r")
    assert browser.run(FIRST.format(0)) == ["Ape", "dog", "cat 9", "cat 10"]


SCROLLED = """
[...document.querySelectorAll(".scroll")].filter((box) => box.querySelector("table")).map((box) => {
  box.scrollLeft = 1000;
  const [own, told, ...heads] = [box, box.querySelector("caption span"), box.querySelector("thead th"),
                                 box.querySelector("tbody th")].map((each) => each.getBoundingClientRect());
  const covering = document.elementFromPoint(heads[1].left + 5, heads[1].top + 5);
  return { moved: box.scrollLeft, text: told.left >= own.left && told.right <= own.right,
           heads: heads.every((each) => Math.abs(each.left - own.left) < 2 && each.right < own.left + own.width / 2),
           seen: !covering || covering.closest("th") !== null };
})
"""


@needs_browser
def test_rows_keep_their_names_on_a_phone(tmp_path, browser):
    """Where a table is moved sideways its caption and its first column stay."""
    data = dataset([f"class {i}" for i in range(20)], images=400)
    written(tmp_path, result(table=[ROW, OTHER], members=MEMBERS, networks=2), data)
    browser.open(tmp_path / "page.html", 360)
    found = browser.run(SCROLLED)
    assert sum(each["moved"] > 50 for each in found) >= 5
    assert all(each["text"] and each["heads"] and each["seen"] for each in found), found


@needs_browser
def test_it_prints_without_what_only_a_screen_needs(tmp_path, browser):
    written(tmp_path, result(), dataset([f"class {i}" for i in range(20)], images=400))
    browser.open(tmp_path / "page.html")
    browser.ask("Emulation.setEmulatedMedia", media="print")
    assert browser.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert browser.run("[...document.querySelectorAll('.tall')].every(box => box.scrollHeight < box.clientHeight + 3)")
    assert browser.run("[...document.querySelectorAll('main *')].every(each => getComputedStyle(each).position "
                       "!== 'sticky')")
    browser.ask("Emulation.setEmulatedMedia", media="")
