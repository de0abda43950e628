"""evaluate.py as a user runs it: scores, files and pictures it writes, ensembles, and everything that goes wrong."""

import csv
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

import evaluate
import googlenet
from data.base import ArrayDataset
from data.crops import crops, sheet
from data.datasets import open_dataset
from googlenet import ensembles
from googlenet.config import ModelConfig, TrainingConfig
from googlenet.inference import Predictor
from googlenet.intervals import wilson
from googlenet.ledger import Ledger
from googlenet.model import preprocessing_of
from googlenet.reports import evaluation
from googlenet.weights import read, save, save_weights
from minigrad.errors import InputError
from tests.runs import CLASSES, Done, command, process, script, write_set, write_weights

FIXTURES = Path(__file__).parent / "fixtures" / "weights"
TEN = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """12 test pictures of four classes, cut to landscape, portrait and square by turns, and 4 training pictures."""
    made = write_set(tmp_path_factory.mktemp("pictures"), train=1, test=3)
    for i, path in enumerate(sorted((made / "test").rglob("*.*"))):
        with Image.open(path) as image:
            shape = [(28, 20), (20, 28), (28, 28)][i % 3]
            image.crop((0, 0, *shape)).save(path.with_suffix(".png"))
        if path.suffix != ".png":
            path.unlink()
    return made


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> list[Path]:
    """Two networks of the same classes, which want their pictures in different ways."""
    home = tmp_path_factory.mktemp("weights")
    return [write_weights(home / "a.h5", 1), write_weights(home / "b.h5", 2, variant="caffe", image_size=40)]


def evaluated(*arguments: object) -> tuple[Done, dict]:
    """Run evaluate.py for its JSON."""
    done = script("evaluate.py", *arguments, "--threads", "1", "--json", "-")
    assert done.code == 0, done.err
    return done, json.loads(done.out)


def literal(paths: list[Path], folder: Path, count: int) -> np.ndarray:
    """(images, classes): probabilities averaged over crops, then over networks, one image at a time."""
    dataset = open_dataset(folder, "test")
    networks = [googlenet.load(path) for path in paths]
    means = [[network.probabilities(crops(dataset.image(i), count, network.preprocessing)).mean(axis=0)
              for network in networks] for i in range(len(dataset))]
    return np.mean(means, axis=1)


@pytest.mark.parametrize(("count", "networks"), [(1, 1), (10, 1), (144, 1), (10, 2)])
def test_errors_are_those_of_a_literal_count(folder, weights, count, networks):
    _, result = evaluated("--weights", *weights[:networks], "--data", folder, "--crops", count)
    labels = open_dataset(folder, "test").labels
    probabilities = literal(weights[:networks], folder, count)
    wrong = [int(np.argmax(p)) != label for p, label in zip(probabilities, labels, strict=True)]
    assert result["top1_error"] == pytest.approx(np.mean(wrong))
    assert result["top5_error"] == 0
    assert result["images"] == 12
    assert result["crops"] == count
    assert result["networks"] == networks
    assert result["seconds"] > 0
    assert result["loss"] == pytest.approx(-np.mean(np.log(probabilities[np.arange(12), labels])), rel=1e-4)


def test_errors_of_each_class_add_up(folder, weights):
    _, result = evaluated("--weights", weights[0], "--data", folder)
    assert tuple(result["classes"]) == CLASSES
    assert {part["images"] for part in result["classes"].values()} == {3}
    assert np.mean([part["top1_error"] for part in result["classes"].values()]) == pytest.approx(result["top1_error"])
    labels, chosen = open_dataset(folder, "test").labels, literal(weights[:1], folder, 1).argmax(axis=1)
    for label, part in enumerate(result["classes"].values()):
        assert part["top1_error"] == pytest.approx(np.mean(chosen[labels == label] != label))


def test_top_5_of_the_embedded_images(tmp_path):
    """Ten classes, so that five are not all; the first images only."""
    path = write_weights(tmp_path / "ten.h5", 3, classes=TEN)
    _, result = evaluated("--weights", path, "--limit", "40")
    dataset, network = open_dataset("embedded", "test"), googlenet.load(path)
    probabilities = network.predict([dataset.image(i) for i in range(40)])
    rank = [(p > p[label]).sum() for p, label in zip(probabilities, dataset.labels[:40], strict=True)]
    assert result["images"] == 40
    assert result["top1_error"] == pytest.approx(np.mean(np.array(rank) >= 1))
    assert result["top5_error"] == pytest.approx(np.mean(np.array(rank) >= 5))
    assert 0 < result["top5_error"] < result["top1_error"]


def test_json_in_a_file_and_a_table_for_the_eye(folder, weights, tmp_path):
    done = script("evaluate.py", "--weights", *weights, "--data", folder, "--crops", 10, "--json", tmp_path / "a.json")
    assert done.code == 0
    result = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert result.keys() >= {"top1_error", "top5_error", "images", "crops", "seconds"}
    classes, members, last = done.out.split("\n\n")
    header, *rows = classes.splitlines()
    assert header.split() == ["class", "images", "top-1", "error", "top-5", "error"]
    assert {re.split(r"  +", row)[0] for row in rows} == {*CLASSES, "all"}
    errors = [float(re.split(r"  +", row)[2].rstrip("%")) for row in rows]
    assert errors[:-1] == sorted(errors[:-1], reverse=True), "the worst class first"
    assert errors[-1] == pytest.approx(100 * result["top1_error"], abs=0.01)
    assert [re.split(r"  +", row)[0] for row in members.splitlines()] == [
        "network", *("/".join(path.parts[-2:]) for path in weights), "mean of the 2", "the 2 together",
        "together - mean, errors in points"]
    assert last.startswith(f"top-1 error {result['top1_error']:.2%}".replace("%", " %"))
    assert "10 crops, 2 networks" in last
    assert "ms an image" in last
    for path in weights:
        assert str(path) in done.err
    assert "BGR" in done.err, "what the images need is told"


def test_json_on_standard_output_is_nothing_else(folder, weights, tmp_path):
    """In a process of its own, whatever is compiled or drawn meanwhile."""
    done = process("evaluate.py", "--weights", weights[0], "--data", folder, "--json", "-", "--save-crops", tmp_path)
    assert done.code == 0, done.err
    assert json.loads(done.out)["images"] == 12


def test_predictions_and_probabilities(folder, weights, tmp_path):
    done, _ = evaluated("--weights", *weights, "--data", folder, "--crops", "10", "--predictions", tmp_path / "p.csv",
                        "--probabilities", tmp_path / "p.npz")
    assert done.code == 0
    dataset, expected = open_dataset(folder, "test"), literal(weights, folder, 10)
    with np.load(tmp_path / "p.npz", allow_pickle=False) as file:
        assert sorted(file.files) == ["files", "labels", "probabilities"]
        assert file["files"].tolist() == list(dataset.names)
        assert file["labels"].tolist() == dataset.labels.tolist()
        assert file["probabilities"].dtype == np.float32
        np.testing.assert_allclose(file["probabilities"], expected, rtol=1e-4, atol=1e-7)
    with open(tmp_path / "p.csv", newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["file", "label", *(f"{what}_{i}" for i in range(1, 5) for what in ("class", "probability"))]
    assert len(rows) == 12
    for (name, label, *guesses), p, truth in zip(rows, expected, dataset.labels, strict=True):
        assert name.startswith(f"{CLASSES[truth]}/")
        assert label == CLASSES[truth]
        assert guesses[::2] == [CLASSES[c] for c in np.argsort(-p, kind="stable")]
        np.testing.assert_allclose([float(each) for each in guesses[1::2]], np.sort(p)[::-1], rtol=1e-4, atol=1e-6)


def test_five_of_ten_classes_are_told(tmp_path):
    path = write_weights(tmp_path / "ten.h5", 3, classes=TEN)
    evaluated("--weights", path, "--limit", "2", "--predictions", tmp_path / "p.csv")
    with open(tmp_path / "p.csv", newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header[-2:] == ["class_5", "probability_5"]
    assert [len(row) for row in rows] == [12, 12]


def test_an_ensemble_is_the_mean_of_its_networks(folder, weights, tmp_path):
    found = []
    for number, paths in enumerate((weights[:1], weights[1:], weights)):
        evaluated("--weights", *paths, "--data", folder, "--probabilities", tmp_path / f"{number}.npz")
        with np.load(tmp_path / f"{number}.npz") as file:
            found.append(file["probabilities"])
    np.testing.assert_allclose(found[2], (found[0] + found[1]) / 2, rtol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_each_split_and_the_first_images_only(folder, weights):
    assert evaluated("--weights", weights[0], "--data", folder, "--split", "train")[1]["images"] == 4
    _, result = evaluated("--weights", weights[0], "--data", folder, "--limit", "5")
    assert result["images"] == 5
    assert sum(part["images"] for part in result["classes"].values()) == 5


def test_a_flat_folder_with_a_list(folder, weights, tmp_path):
    lines = ["file,class_index"]
    for label, name in enumerate(CLASSES):
        for path in sorted((folder / "test" / name).iterdir()):
            shutil.copy(path, tmp_path / f"{label}-{path.name}")
            lines.append(f"{label}-{path.name},{label}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    _, result = evaluated("--weights", weights[0], "--data", tmp_path)
    _, expected = evaluated("--weights", weights[0], "--data", folder)
    assert (result["images"], result["top1_error"]) == (12, expected["top1_error"])


def test_crop_sheets_are_pictures_of_the_crops(folder, weights, tmp_path):
    evaluated("--weights", weights[0], "--data", folder, "--save-crops", tmp_path / "sheets")
    dataset = open_dataset(folder, "test")
    drawn = sorted((tmp_path / "sheets").iterdir())
    assert len(drawn) == evaluate.SHEETS, "one for each image, of whatever class"
    for index in range(evaluate.SHEETS):
        expected = np.asarray(sheet(dataset.image(index), googlenet.load(weights[0]).preprocessing))
        found = []
        for path in drawn:
            with Image.open(path) as image:
                found.append(np.array_equal(np.asarray(image), expected))
        assert sum(found) == 1


def test_crop_sheets_whatever_pictures_are_called_and_shaped(weights, tmp_path):
    """Each has a sheet of its own; one too thin to be cut has none."""
    names = ["a/b.png", "a_b.png", f"{'é' * 250}.png", "thin.png"]
    assert len(names) == evaluate.SHEETS
    dataset = ArrayDataset(np.zeros((4, 28, 28), np.uint8), [0] * 4, names, CLASSES, "photos")
    dataset.image = lambda index: np.zeros((1 if names[index] == "thin.png" else 28, 500, 3), np.uint8)
    evaluate.save_sheets(dataset, googlenet.load(weights[0]), tmp_path)
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert drawn == ["00000-a_b.png.png", "00001-a_b.png.png", f"00002-{'é' * 56}.png.png"]


# Intervals, ensembles, Table 3.

def test_every_figure_has_its_interval(folder, weights):
    _, result = evaluated("--weights", weights[0], "--data", folder)
    wrong = round(12 * result["top1_error"])
    low, high = result["intervals"]["top1_error"]
    assert (low, high) == pytest.approx(wilson(wrong, 12))
    for name in ("top1_error", "top5_error", "loss"):
        low, high = result["intervals"][name]
        assert low <= result[name] <= high
    for part in result["classes"].values():
        assert part["intervals"].keys() == {"top1_error", "top5_error", "loss"}
    printed = script("evaluate.py", "--weights", weights[0], "--data", folder, "--threads", "1").out
    low, high = result["intervals"]["top1_error"]
    assert f"top-1 error {100 * wrong / 12:.2f} % ({100 * low:.2f} to {100 * high:.2f})" in printed


def test_one_image_has_errors_and_no_interval_of_its_loss(folder, weights):
    _, result = evaluated("--weights", *weights, "--data", folder, "--limit", "1", "--table")
    assert result["images"] == 1
    assert result["intervals"]["loss"] is None
    assert script("evaluate.py", "--weights", *weights, "--data", folder, "--limit", "1", "--table").code == 0


def test_networks_of_an_ensemble_are_told_alone_and_together(folder, weights):
    _, together = evaluated("--weights", *weights, "--data", folder, "--crops", 10)
    alone = [evaluated("--weights", path, "--data", folder, "--crops", 10)[1] for path in weights]
    members = together["members"]
    for path, one, each in zip(weights, alone, members["each"], strict=True):
        assert each["network"] == str(path)
        assert {key: one[key] for key in each if key != "network"} == {k: v for k, v in each.items() if k != "network"}
        assert "members" not in one
    for name in ("top1_error", "loss"):
        mean = (alone[0][name] + alone[1][name]) / 2
        assert members["mean"][name] == pytest.approx(mean)
        assert members["difference"][name] == pytest.approx(together[name] - mean)
        low, high = members["difference"]["intervals"][name]
        assert low <= members["difference"][name] <= high


def test_the_table_is_what_the_tests_find_one_by_one(folder, weights):
    """To the last bit of the errors and losses."""
    _, result = evaluated("--weights", *weights, "--data", folder, "--table", "--pool", "max", "--crops", 10)
    rows = result["table"]
    assert [(row["models"], row["crops"], row["pool"]) for row in rows[:5]] == [
        (1, 1, "mean"), (1, 10, "mean"), (1, 144, "mean"), (1, 10, "max"), (1, 144, "max")]
    assert len(rows) == 10 + 6
    for row in rows:
        _, alone = evaluated("--weights", *row["networks"], "--data", folder, "--crops", row["crops"], "--pool",
                             row["pool"])
        for name in ("images", "top1_error", "top5_error", "loss", "intervals"):
            assert row[name] == alone[name], (name, row["networks"], row["crops"])
        assert row["ms_per_image"] > 0
    _, headline = evaluated("--weights", *weights, "--data", folder, "--pool", "max", "--crops", 10)
    for name in ("top1_error", "loss", "intervals", "classes", "members", "crops", "pool"):
        assert result[name] == headline[name]


def test_the_table_evaluates_distinct_crops_once(folder, weights, monkeypatch):
    seen, compute = [], Predictor.probabilities
    monkeypatch.setattr(Predictor, "probabilities", lambda self, views: (seen.append(views), compute(self, views))[1])
    evaluated("--weights", weights[0], "--data", folder, "--table", "--pool", "max")
    dataset, way = open_dataset(folder, "test"), googlenet.load(weights[0]).preprocessing
    distinct = [len({view.tobytes() for count in (1, 10, 144) for view in crops(dataset.image(i), count, way)})
                for i in range(12)]
    assert [len(views) for views in seen] == distinct
    assert sum(distinct) < 12 * 144


def test_the_table_is_printed(folder, weights):
    done = script("evaluate.py", "--weights", *weights, "--data", folder, "--table", "--threads", "1")
    assert done.code == 0
    blocks = done.out.split("\n\n")
    errors, alone, differences, notes = (block.splitlines() for block in blocks[2:6])
    assert errors[0].split()[:5] == ["models", "crops", "pool", "cost", "ms/image"]
    assert [line.split()[:4] for line in errors[1:]] == [
        [str(models), str(crops_), "mean", str(models * crops_)] for models in (1, 2) for crops_ in (1, 10, 144)]
    assert alone[0] == "each network by itself:"
    assert alone[1].split() == errors[0].split()
    own = ["/".join(path.parts[-2:]) for path in weights]
    assert [(line.split()[1], line.split()[-1]) for line in alone[2:]] == [
        (str(crops_), name) for name in own for crops_ in (1, 10, 144)]
    assert "image by image" in differences[0]
    assert len(differences) == 2 + 5 + 2 + 3
    assert sum("its mean member" in line for line in differences) == 3
    assert "chance" in " ".join(notes)
    assert max(map(len, done.out.splitlines())) < 160
    test, whole = done.out.splitlines()[-2:]
    assert re.fullmatch(r"1 crop, 2 networks: [\d.]+ ms an image in forward passes", test)
    assert whole.startswith("all tests of the table, ")
    assert "forward" not in whole, "of which the 144 crops are the most"


def test_probabilities_and_predictions_beside_a_table_are_of_the_crops_chosen(folder, weights, tmp_path):
    for number, more in enumerate(([], ["--table"])):
        evaluated("--weights", *weights, "--data", folder, "--crops", "10", *more, "--predictions",
                  tmp_path / f"{number}.csv", "--probabilities", tmp_path / f"{number}.npz")
    assert (tmp_path / "0.csv").read_bytes() == (tmp_path / "1.csv").read_bytes()
    with np.load(tmp_path / "0.npz") as one, np.load(tmp_path / "1.npz") as other:
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name])


def test_the_maximum_over_crops(folder, weights, tmp_path):
    found = {pool: probabilities_of(tmp_path, "--weights", *weights, "--data", folder, "--crops", "10", "--pool", pool)
             for pool in ("mean", "max")}
    assert np.abs(found["max"] - found["mean"]).max() > 1e-4
    np.testing.assert_allclose(found["max"].sum(axis=1), 1, rtol=1e-6)
    printed = script("evaluate.py", "--weights", weights[0], "--data", folder, "--crops", "10", "--pool", "max").out
    assert "maximum over crops" in printed


def test_the_report_gets_the_result(folder, weights, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(evaluation, "write", lambda *given: written.append(given))
    done, result = evaluated("--weights", *weights, "--data", folder, "--table", "--report", tmp_path / "page.html")
    (path, given, judged, dataset, predictors), = written
    assert path == tmp_path / "page.html"
    assert json.loads(json.dumps(given)) == result
    assert [each.image for each in judged] == list(range(12))
    assert np.mean([each.rank > 0 for each in judged]) == result["top1_error"]
    assert len(dataset) == 12
    assert len(predictors) == 2
    assert str(path) in done.err


# Interrupted, and taken up again.

def timeless(result: dict) -> dict:
    """A result without its times."""
    times = ("seconds", "ms_per_image", "network_ms_per_image")
    kept = {key: value for key, value in result.items() if key not in times}
    return {**kept, "table": [{**row, "ms_per_image": 0} for row in result.get("table", [])]}


@pytest.fixture
def at_image(monkeypatch):
    """`at_image(n, error)` raises an error in place of the n-th image's forward pass."""
    def arrange(number: int, error: BaseException) -> None:
        compute, passes = Predictor.probabilities, []

        def probabilities(self, views):
            passes.append(len(views))
            if len(passes) == number:
                raise error
            return compute(self, views)

        monkeypatch.setattr(Predictor, "probabilities", probabilities)
    return arrange


ONE_BY_ONE = ("--crops", "144")  # an image a forward pass


@pytest.mark.parametrize("more", [(), ("--table", "--pool", "max")])
def test_interrupted_and_taken_up_it_finds_the_same(folder, weights, tmp_path, at_image, more):
    place = damaged_set(folder, tmp_path)
    arguments = ["--weights", weights[0], "--data", place, *ONE_BY_ONE, *more]
    _, whole = evaluated(*arguments, "--probabilities", tmp_path / "whole.npz", "--predictions", tmp_path / "whole.csv")
    state = ["--resume", tmp_path / "state.h5", "--probabilities", tmp_path / "p.npz", "--predictions",
             tmp_path / "p.csv"]
    at_image(6, KeyboardInterrupt())
    done = script("evaluate.py", *arguments, *state, "--threads", "1")
    assert done.code == 130
    assert "after 6 of 12 images: top-1 error" in done.err, "one of the six was damaged"
    assert f"the same command goes on from {tmp_path / 'state.h5'}" in done.err
    assert not (tmp_path / "p.npz").exists()
    again, result = evaluated(*arguments, *state)
    assert "goes on after 6 of 12 images" in again.err
    assert timeless(result) == timeless(whole)
    assert result["left_out"] == ["ankle boot/000.png", "dress/002.png"]
    assert (tmp_path / "p.csv").read_text() == (tmp_path / "whole.csv").read_text()
    with np.load(tmp_path / "p.npz") as one, np.load(tmp_path / "whole.npz") as other:
        np.testing.assert_array_equal(one["probabilities"], other["probabilities"])


def test_a_finished_evaluation_computes_nothing_again(folder, weights, tmp_path, at_image):
    arguments = ["--weights", weights[0], "--data", folder, "--resume", tmp_path / "state.h5"]
    _, first = evaluated(*arguments)
    at_image(1, AssertionError("computed"))
    _, second = evaluated(*arguments)
    assert timeless(second) == timeless(first)


def test_without_resume_ctrl_c_says_what_was_found(folder, weights, at_image):
    at_image(4, KeyboardInterrupt())
    done = script("evaluate.py", "--weights", weights[0], "--data", folder, *ONE_BY_ONE, "--threads", "1")
    assert done.code == 130
    assert "after 3 of 12 images: top-1 error" in done.err
    assert "--resume FILE.h5 would have kept it" in done.err
    assert done.out == ""


def test_ctrl_c_before_the_first_image(folder, weights, tmp_path, at_image):
    at_image(1, KeyboardInterrupt())
    done = script("evaluate.py", "--weights", weights[0], "--data", folder, "--resume", tmp_path / "state.h5")
    assert done.code == 130
    assert "no image was judged yet" in done.err
    assert not (tmp_path / "state.h5").exists()


@pytest.mark.parametrize(("more", "told"), [
    (["--crops", "1"], "with --crops 10, now it is with --crops 1"),
    (["--pool", "max"], "with --pool mean, now it is with --pool max"),
    (["--limit", "3"], "without --limit, now it is with --limit 3"), (["--split", "train"], "with other images"),
    (["--classes", "names.txt"], "with other classes"), (["--preprocess", "slim"], "with other preprocessing"),
    (["--probabilities", "p.npz"], "without --probabilities, now it is with --probabilities")])
def test_what_was_evaluated_otherwise_is_not_taken_up(folder, weights, tmp_path, monkeypatch, more, told):
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("\n".join(reversed(CLASSES)))
    arguments = ["--weights", weights[0], "--data", folder, "--crops", "10", "--resume", "state.h5"]
    evaluated(*arguments)
    done = script("evaluate.py", *arguments, *more)
    assert done.code == 1
    assert f"state.h5 was begun {told}: give" in done.err


def test_other_pictures_of_the_same_names_are_not_taken_up(folder, weights, tmp_path, monkeypatch):
    other = shutil.copytree(folder, tmp_path / "other")
    shutil.copy(other / "test" / "bag" / "001.png", other / "test" / "bag" / "000.png")
    arguments = ["--weights", weights[0], "--resume", tmp_path / "state.h5"]
    evaluated(*arguments, "--data", folder)
    done = script("evaluate.py", *arguments, "--data", other)
    assert done.code == 1
    began, now = (place.resolve() / "test" for place in (folder, other))
    assert f"state.h5 was begun with --data {began}, now it is with --data {now}" in done.err
    monkeypatch.chdir(folder.parent)
    evaluated(*arguments, "--data", folder.name)


def test_weights_are_not_overwritten_by_what_is_kept(folder, weights, tmp_path):
    path = Path(shutil.copy(weights[0], tmp_path / "best.h5"))
    done = script("evaluate.py", "--weights", weights[0], "--data", folder, "--resume", path)
    assert done.code == 1
    assert "holds no evaluation" in done.err
    assert path.read_bytes() == weights[0].read_bytes()


SAVING = ("import sys, runpy, googlenet.ledger as l; l.LEAST_WAIT = 0; l.MOST_OF_TIME = 1e9; sys.argv = sys.argv[1:];"
          "runpy.run_path(sys.argv[0], run_name='__main__')")


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL] if os.name == "posix" else [])
def test_stopped_from_outside(tmp_path, number):
    """By Ctrl-C or kill -9, with a save after each image: what was found is whole, and the rest is found like it."""
    path = write_weights(tmp_path / "ten.h5", 3, classes=TEN)
    arguments = ["--weights", path, "--limit", "100", "--crops", "144", "--threads", "1"]
    _, whole = evaluated(*arguments)
    arguments += ["--resume", tmp_path / "state.h5", "--json", tmp_path / "result.json"]
    python, file, *given = command("evaluate.py", *arguments)
    running = subprocess.Popen([python, "-c", SAVING, file, *given], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    told = ""
    while not re.search(r" [1-9]\d/100", told):
        more = os.read(running.stderr.fileno(), 4096).decode(errors="replace")
        assert more, f"ended too early: {told}"
        told += more
    running.send_signal(number)
    _, err = running.communicate(timeout=120)
    assert running.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
    assert b"Traceback" not in err
    assert not (tmp_path / "result.json").exists()
    done = script("evaluate.py", *arguments)
    assert done.code == 0
    assert re.search(r"goes on after [1-9]\d of 100 images", done.err)
    assert timeless(json.loads((tmp_path / "result.json").read_text())) == timeless(whole)


# Which weights and images.

@pytest.fixture
def run(weights, tmp_path) -> Path:
    """The folder of a run."""
    (tmp_path / "run [1]").mkdir()
    return Path(shutil.copy(weights[0], tmp_path / "run [1]" / "best.h5")).parent


@pytest.fixture
def ensemble(weights, tmp_path) -> Path:
    """The folder of an ensemble of which two of three members have ended."""
    home = tmp_path / "ensemble"
    home.mkdir()
    made = ensembles.planned(home, TrainingConfig(), ModelConfig(), {}, 3, 1.25)
    for member, file in zip(made.members, (*weights, weights[0]), strict=True):
        member.folder.mkdir()
        shutil.copy(file, member.best)
    for member in made.members[:2]:
        made.end(member, None)
    return home


def files_of(result: dict) -> list[str]:
    return [each["file"] for each in result["weights"]]


def test_a_run_is_named_by_its_folder(folder, run):
    _, result = evaluated("--weights", run, "--data", folder)
    assert files_of(result) == [str(run / "best.h5")]


def test_an_ensemble_is_named_by_its_folder(folder, ensemble):
    done, result = evaluated("--weights", ensemble, "--data", folder)
    assert files_of(result) == [str(ensemble / f"model-{number}" / "best.h5") for number in (1, 2)]
    assert f"{ensemble}: an ensemble, 2 of its 3 members have ended" in done.err


@pytest.mark.parametrize("pattern", ["model-*", "model-*/best.h5"])
def test_a_pattern_that_no_shell_has_expanded(folder, ensemble, pattern):
    shutil.rmtree(ensemble / "model-3")
    home = ensemble.rename(ensemble.with_name("several [1]"))
    _, result = evaluated("--weights", home / pattern, "--data", folder)
    assert files_of(result) == [str(home / f"model-{number}" / "best.h5") for number in (1, 2)]


@pytest.mark.skipif(os.name != "posix", reason="no * in names")
def test_a_file_whose_name_has_a_star(folder, weights, tmp_path):
    path = shutil.copy(weights[0], tmp_path / "a*.h5")
    shutil.copy(weights[1], tmp_path / "ab.h5")
    assert files_of(evaluated("--weights", path, "--data", folder)[1]) == [str(path)]


@pytest.mark.parametrize(("name", "told"), [
    ("empty", "empty is a folder without best.h5"), ("no-*/best.h5", "no file or folder is called so"),
    ("begun", "begun is an ensemble of which no member has ended")])
def test_nothing_is_found(folder, tmp_path, name, told):
    for made in ("empty", "begun"):
        (tmp_path / made).mkdir()
    ensembles.planned(tmp_path / "begun", TrainingConfig(), ModelConfig(), {}, 2, 1.25)
    done = script("evaluate.py", "--weights", tmp_path / name, "--data", folder)
    assert done.code == 1
    assert told in done.complaint
    assert str(tmp_path / name) in done.complaint


def test_weights_that_are_given_twice(folder, weights, run):
    done = script("evaluate.py", "--weights", *weights, run, "--data", folder)
    assert done.code == 1
    assert f"{run / 'best.h5'}: the same weights as {weights[0]}" in done.complaint


@pytest.mark.parametrize(("more", "told"), [
    ([], "test, --split test: 12 images of 4 classes"), (["--limit", 5], ": the first 5 of 12 images of"),
    (["--split", "val"], "test, --split val: 12 images"), (["--limit", 50], "--split test: 12 images")])
def test_what_is_tested_is_told(folder, weights, more, told):
    done, _ = evaluated("--weights", weights[0], "--data", folder, *more)
    line = next(line for line in done.err.splitlines() if "--split" in line)
    assert line.startswith(str(folder / "test"))
    assert told in line


def test_a_choice_without_effect_is_told(folder, weights, tmp_path):
    stored = read(weights[0]).weights
    averaged = {path: array + 0.1 for path, array in stored.arrays.items()}
    save(tmp_path / "averaged.h5", stored, averaged=averaged)
    save(tmp_path / "raw.h5", stored, averaged=averaged, tested="raw")
    for file, flag, without in (("averaged.h5", "--raw", False), ("averaged.h5", "--averaged", True),
                                ("raw.h5", "--raw", True), ("raw.h5", "--averaged", False)):
        done, _ = evaluated("--weights", tmp_path / file, weights[1], "--data", folder, flag)
        assert (f"{flag} changes nothing" in done.err) == without
    assert "--raw" not in evaluated("--weights", weights[1], "--data", folder)[0].err


# Whose weights, and whose classes.

def probabilities_of(tmp_path, *arguments) -> np.ndarray:
    evaluated(*arguments, "--probabilities", tmp_path / "p.npz")
    with np.load(tmp_path / "p.npz") as file:
        return file["probabilities"]


def test_what_was_used_is_told_and_stored(folder, weights):
    done, result = evaluated("--weights", *weights, "--data", folder)
    assert [each["file"] for each in result["weights"]] == [str(path) for path in weights]
    assert [each["variant"] for each in result["weights"]] == ["paper", "caffe"]
    for path, each in zip(weights, result["weights"], strict=True):
        assert each["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert each["preprocessing"] == str(googlenet.load(path).preprocessing)
        assert f"{path}: {each['variant']} (HDF5 of this program), {each['preprocessing']}" in done.err


def test_weights_of_another_framework(tmp_path):
    """Seven numbered classes, so that any data set of seven will do."""
    place = write_set(tmp_path / "data", train=0, test=1)
    (tmp_path / "data" / "classes.txt").write_text("\n".join("abcdefg"))
    listed = [path.relative_to(place / "test").as_posix() for path in sorted((place / "test").rglob("*.*"))]
    (place / "test" / "labels.csv").write_text("file,class_index\n" + "".join(f"{path},6\n" for path in listed))
    path = FIXTURES / "torch_zip.pth"
    done, result = evaluated("--weights", path, "--data", place)
    assert result["images"] == 4
    assert result["weights"][0]["format"] == "torch pickle (zip)"
    assert result["weights"][0]["variant"] == "torchvision"
    assert "as in torchvision" in done.err


def test_preprocessing_can_be_chosen(folder, weights, tmp_path):
    _, result = evaluated("--weights", weights[0], "--data", folder, "--preprocess", "slim")
    assert result["weights"][0]["preprocessing"].startswith("central 0.875")
    assert "warped to 32x32" in result["weights"][0]["preprocessing"], "at the network's size"
    one, other = (probabilities_of(tmp_path, "--weights", weights[0], "--data", folder, *more)
                  for more in ((), ("--preprocess", "slim")))
    assert np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize("usual", ["averaged", "raw"])
def test_raw_and_averaged_weights_can_be_chosen(usual, folder, weights, tmp_path):
    """And which of the two are used is told."""
    stored = read(weights[0]).weights
    averaged = {path: array + 0.1 for path, array in stored.arrays.items()}
    save(tmp_path / "run.h5", stored, averaged=averaged, tested=usual)
    save(tmp_path / "averaged.h5", replace(stored, arrays=averaged))
    alone = {"averaged": tmp_path / "averaged.h5", "raw": weights[0]}
    expected = {which: probabilities_of(tmp_path, "--weights", path, "--data", folder) for which, path in alone.items()}
    assert np.abs(expected["averaged"] - expected["raw"]).max() > 1e-3
    for flags, which in (((), usual), (("--raw",), "raw"), (("--averaged",), "averaged")):
        given = ("--weights", tmp_path / "run.h5", "--data", folder, *flags)
        np.testing.assert_array_equal(probabilities_of(tmp_path, *given), expected[which])
        done, result = evaluated(*given)
        assert result["weights"][0]["tested"] == which
        assert f", its {which} weights, " in done.err


@pytest.mark.parametrize(("classes", "columns", "told"), [
    (("background", *CLASSES), [1, 2, 3, 4], "without background the probabilities add up to 1 again"),
    (("background", "0", "1", "2", "3"), [1, 2, 3, 4], "without background"),
    (("dress", "x", "ankle boot", "bag", "y", "coat"), [2, 3, 5, 0], "without x, y"),
    (("bag", "ankle boot", "coat", "dress"), [1, 0, 2, 3], "in its order")])
def test_a_network_of_more_classes_is_cut_to_those_of_the_data(folder, tmp_path, classes, columns, told):
    path = write_weights(tmp_path / "more.h5", 1, classes=classes)
    done, result = evaluated("--weights", path, "--data", folder, "--probabilities", tmp_path / "p.npz")
    assert done.err.count(told) == 1
    whole = literal([path], folder, 1)[:, columns]
    with np.load(tmp_path / "p.npz") as file:
        np.testing.assert_allclose(file["probabilities"], whole / whole.sum(axis=1, keepdims=True), rtol=1e-4)
    assert tuple(result["classes"]) == CLASSES


# What goes wrong.

def damaged_set(folder: Path, tmp_path: Path) -> Path:
    place = shutil.copytree(folder, tmp_path / "photos")
    for name in ("ankle boot/000.png", "dress/002.png"):
        path = place / "test" / name
        path.write_bytes(path.read_bytes()[:60])
    return place


def test_damaged_pictures_are_named_and_left_out(folder, weights, tmp_path):
    place = damaged_set(folder, tmp_path)
    done, result = evaluated("--weights", weights[0], "--data", place, "--save-crops", tmp_path / "sheets",
                             "--predictions", tmp_path / "p.csv")
    assert result["images"] == 10
    assert result["left_out"] == ["ankle boot/000.png", "dress/002.png"]
    for name in result["left_out"]:
        assert f"left out {name}" in done.err
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 11
    assert len(list((tmp_path / "sheets").iterdir())) == evaluate.SHEETS - 1


def test_too_many_damaged_pictures_end_it(folder, weights, tmp_path):
    place = damaged_set(folder, tmp_path)
    done = script("evaluate.py", "--weights", weights[0], "--data", place, "--max-bad", "1", "--json",
                  tmp_path / "a.json")
    assert done.code == 1
    assert str(place) in done.complaint
    assert "more than the 1 allowed" in done.complaint
    assert not (tmp_path / "a.json").exists()


def test_too_many_damaged_pictures_end_it_again(folder, weights, tmp_path):
    place = damaged_set(folder, tmp_path)
    for _ in range(2):
        done = script("evaluate.py", "--weights", weights[0], "--data", place, "--max-bad", "1", *ONE_BY_ONE,
                      "--resume", tmp_path / "state.h5")
        assert done.code == 1
        assert "2 images cannot be used, more than the 1 allowed" in done.err
        assert (tmp_path / "state.h5").exists()


@pytest.mark.parametrize("arguments", [
    [], ["--weights"], ["--weights", "a.h5", "--crops", "12"], ["--weights", "a.h5", "--limit", "0"],
    ["--weights", "a.h5", "--threads", "-1"], ["--weights", "a.h5", "--loader-threads", "0"],
    ["--weights", "a.h5", "--max-bad", "-1"], ["--weights", "a.h5", "--split", "dev"],
    ["--weights", "a.h5", "--pool", "median"], ["--weights", "a.h5", "--pool", "max", "--crops", "1"],
    ["--weights", "a.h5", "--limit", "x"], ["--weights", "a.h5", "--workers", "2"]], ids=" ".join)
def test_flags_out_of_range_are_usage_errors(arguments):
    done = script("evaluate.py", *arguments)
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith("evaluate.py: error: ")
    assert all(word in done.err.splitlines()[-1] for word in arguments[2:])


def spoilt(kind: str, tmp_path: Path, weights: list[Path]) -> Path:
    path = tmp_path / f"{kind}.h5"
    content = weights[0].read_bytes()
    if kind == "truncated":
        path.write_bytes(content[:-1000])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "foreign":
        with h5py.File(path, "w") as file:
            file["model_weights/conv1/kernel"] = np.zeros((7, 7, 3, 64))
    elif kind == "folder":
        path.mkdir()
    elif kind == "zip":
        path.write_bytes(b"PK\x03\x04" + bytes(100))
    elif kind == "text":
        path.write_text("weights")
    return path


@pytest.mark.parametrize("kind", ["missing", "truncated", "empty", "foreign", "folder", "zip", "text"])
def test_weights_that_are_none(folder, weights, tmp_path, kind):
    path = spoilt(kind, tmp_path, weights)
    done = script("evaluate.py", "--weights", weights[0], path, "--data", folder, "--json", "-")
    assert done.code == 1
    assert done.out == ""
    assert done.complaint.startswith("evaluate.py: error: ")
    assert path.name in done.complaint


def test_weights_for_other_classes(folder, tmp_path):
    path = write_weights(tmp_path / "five.h5", classes="abcde")
    done = script("evaluate.py", "--weights", path, "--data", folder)
    assert done.code == 1
    assert re.search(r"5 classes.*has 4: give the weights and the data of one task$", done.complaint)
    assert str(folder) in done.complaint


def test_unnamed_classes_are_to_be_named_where_the_data_has_some_of_them(folder, tmp_path):
    for classes, naming in (("0123456", True), ("01", False)):
        path = write_weights(tmp_path / f"{len(classes)}.h5", classes=classes)
        done = script("evaluate.py", "--weights", path, "--data", folder)
        assert done.code == 1
        assert ("--classes NAMES.txt" in done.complaint) == naming


def test_weights_for_as_many_other_classes(folder, weights, tmp_path):
    for name, classes in (("others", ("bag", "boot", "coat", "dress")), ("numbers", "0123")):
        path = write_weights(tmp_path / f"{name}.h5", classes=classes)
        done = script("evaluate.py", "--weights", weights[0], path, "--data", folder)
        assert done.code == (0 if name == "numbers" else 1), "numbers are classes that nobody named"
        if name == "others":
            assert re.search('class 0 is "bag".*"ankle boot"', done.complaint)


def test_a_network_without_a_result_is_told(folder, weights, tmp_path):
    model = googlenet.load(weights[0]).model
    for parameter in model.parameters().values():
        parameter[...] = 1e30
    path = tmp_path / "ruined.h5"
    save_weights(path, model, preprocessing=preprocessing_of(model.config), classes=CLASSES)
    done = script("evaluate.py", "--weights", path, "--data", folder, "--json", "-")
    assert done.code == 1
    assert done.out == ""
    assert str(path) in done.complaint


@pytest.mark.parametrize("kind", ["missing", "empty", "train only", "list names a missing class"])
def test_data_that_cannot_be_used(folder, weights, tmp_path, kind):
    place = tmp_path / "photos"
    if kind != "missing":
        place.mkdir()
    if kind == "train only":
        shutil.copytree(folder / "train", place / "train")
    if kind == "list names a missing class":
        (place / "classes.txt").write_text("\n".join(CLASSES))
        (place / "labels.csv").write_text("file,class_index\na.png,4\n")
    done = script("evaluate.py", "--weights", weights[0], "--data", place)
    assert done.code == 1
    assert str(place) in done.complaint


@pytest.mark.parametrize("flag", ["--json", "--predictions", "--probabilities", "--save-crops", "--resume", "--report"])
def test_results_that_cannot_be_written(folder, weights, tmp_path, flag):
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "result"
    done = script("evaluate.py", "--weights", weights[0], "--data", folder, "--limit", "2", flag, place)
    assert done.code == 1
    assert str(place) in done.complaint


@pytest.mark.parametrize("flag", ["--json", "--predictions", "--probabilities", "--resume", "--report"])
def test_a_folder_in_place_of_a_file_is_told_before_any_image(folder, weights, tmp_path, flag, at_image):
    at_image(1, AssertionError("computed"))
    done = script("evaluate.py", "--weights", weights[0], "--data", folder, flag, tmp_path)
    assert done.code == 1
    assert f"can't write {tmp_path}: it is a folder" in done.complaint


def test_the_result_is_there_whatever_else_cannot_be_written(folder, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(np, "savez_compressed", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left")))
    done = script("evaluate.py", "--weights", weights[0], "--data", folder, "--json", tmp_path / "a.json",
                  "--probabilities", tmp_path / "p.npz")
    assert done.code == 1
    assert "p.npz: No space left" in done.err
    assert "top-1 error" in done.out
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["images"] == 12


@pytest.mark.skipif(os.name != "posix", reason="file names are Unicode")
def test_names_that_are_not_utf_8(folder, weights, tmp_path):
    place = shutil.copytree(folder, tmp_path / "photos")
    for number, name in enumerate((b"caf\xe9.png", b"cut\xe9.png")):
        old = place / "test" / "bag" / f"00{number}.png"
        try:
            new = old.rename(old.with_name(os.fsdecode(name)))
        except OSError:
            pytest.skip("this file system has UTF-8 names only")
    new.write_bytes(new.read_bytes()[:60])
    _, result = evaluated("--weights", weights[0], "--data", place, "--resume", tmp_path / "state.h5", "--predictions",
                          tmp_path / "p.csv", "--probabilities", tmp_path / "p.npz", "--report", tmp_path / "page.html",
                          "--save-crops", tmp_path / "sheets")
    assert "\nbag/caf\\udce9.png,bag," in (tmp_path / "p.csv").read_text(encoding="utf-8")
    with np.load(tmp_path / "p.npz") as file:
        assert "bag/caf\udce9.png" in file["files"].tolist()
    assert result["left_out"] == ["bag/cut\udce9.png"]
    assert "cut\ufffd.png" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_what_nobody_asked_for_is_not_listed(folder, weights, monkeypatch):
    """The judgements of a million images would fill a gigabyte."""
    monkeypatch.setattr(Ledger, "judged", lambda *_: pytest.fail("listed"))
    evaluated("--weights", weights[0], "--data", folder, "--table")


def test_debug_shows_where_an_error_comes_from(folder, tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.h5"):
        script("evaluate.py", "--weights", tmp_path / "nowhere.h5", "--debug")


def test_classes_that_do_not_fit_are_told_before_any_image(folder, tmp_path):
    weights = write_weights(tmp_path / "other.h5", classes=tuple("abc"))
    done = script("evaluate.py", "--weights", weights, "--data", folder)
    assert done.code == 1
    assert "the network has 3 classes" in done.complaint
    assert "image/s" not in done.err, "no bar had begun"
