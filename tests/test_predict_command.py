"""python -m googlenet as a user runs it: summary and predict."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import googlenet
from data.crops import crops
from data.decode import read_image
from data.preprocess import PREPROCESSINGS
from googlenet.model import preprocessing_of
from googlenet.weights import save_weights
from minigrad.errors import InputError
from tests.runs import CLASSES, network, process, script, write_set, write_weights

FIXTURES = Path(__file__).parent / "fixtures" / "weights"


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "weights.h5", 1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> list[Path]:
    """A photo larger than the network's input, and two of the embedded pictures."""
    folder = tmp_path_factory.mktemp("photos")
    large = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    Image.fromarray(large).save(folder / "large.jpg")
    return [folder / "large.jpg", *sorted(write_set(folder, train=0, test=1).rglob("*.png"))[:2]]


def test_summary_recounts_table_1():
    done = script("googlenet", "summary")
    assert done.code == 0
    for told in ("6,998,552", "13,378,280", "1,582.67M", "inception_4e", "conv1"):
        assert told in done.out


def test_summary_as_json():
    """In a process of its own: nothing else on standard output."""
    done = process("googlenet", "summary", "--json")
    assert done.code == 0, done.err
    counted = json.loads(done.out)
    assert counted["parameters"] == 6998552
    assert counted["parameters_with_heads"] == 13378280
    assert counted["multiply_adds"] == pytest.approx(1582.7e6, abs=0.05e6)
    assert len(counted["rows"]) == 18


def test_summary_of_another_network():
    done = script("googlenet", "summary", "--json", "--stem", "separable", "--heads", "none", "--width", "0.5")
    counted = json.loads(done.out)
    assert counted["parameters_with_heads"] == counted["parameters"] < 6998552 / 2
    separable = json.loads(script("googlenet", "summary", "--json", "--stem", "separable").out)
    assert separable["rows"][0]["weights"] == 2712


@pytest.mark.parametrize("count", [1, 10, 144])
def test_predict_as_json(weights, photos, count):
    done = script("googlenet", "predict", *photos, "--weights", weights, "--crops", count, "--json")
    assert done.code == 0, done.err
    network = googlenet.load(weights)
    results = json.loads(done.out)
    assert [result["file"] for result in results] == [str(path) for path in photos]
    for path, result in zip(photos, results, strict=True):
        expected = network.probabilities(crops(read_image(path), count, network.preprocessing)).mean(axis=0)
        best = result["top5"]
        assert [guess["index"] for guess in best] == np.argsort(-expected, kind="stable").tolist()
        assert [guess["class"] for guess in best] == [CLASSES[guess["index"]] for guess in best]
        np.testing.assert_allclose([guess["probability"] for guess in best], np.sort(expected)[::-1], rtol=1e-4)


def test_predict_tells_five_of_many_classes(tmp_path, photos):
    path = write_weights(tmp_path / "twelve.h5", classes="abcdefghijkl")
    done = script("googlenet", "predict", photos[0], "--weights", path)
    first, *rest = done.out.splitlines()
    assert first == str(photos[0])
    assert len(rest) == 5
    shown = [float(line.split()[0].rstrip("%")) for line in rest]
    assert shown == sorted(shown, reverse=True)
    assert all(line.split()[1] in "abcdefghijkl" for line in rest)


def test_predict_with_weights_of_another_framework(photos):
    done = script("googlenet", "predict", photos[0], "--weights", FIXTURES / "torch_zip.pth", "--json")
    assert done.code == 0, done.err
    best = json.loads(done.out)[0]["top5"]
    expected = googlenet.load(FIXTURES / "torch_zip.pth").predict([read_image(photos[0])])[0]
    assert [guess["index"] for guess in best] == np.argsort(-expected, kind="stable")[:5].tolist()
    assert "torchvision (torch pickle (zip)), shorter side to 256 as in torchvision" in done.err


def test_a_run_is_named_by_its_folder(weights, photos, tmp_path):
    for name in ("run", "other"):
        (tmp_path / name).mkdir()
        shutil.copy(weights, tmp_path / name / "best.h5")
    done = script("googlenet", "predict", photos[0], "--weights", tmp_path / "run", "--raw")
    assert done.code == 0, done.err
    assert str(tmp_path / "run" / "best.h5") in done.err
    assert "--raw changes nothing" in done.err
    done = script("googlenet", "predict", photos[0], "--weights", tmp_path / "*")
    assert done.code == 1
    assert f"names 2 networks, predict takes one: give one, such as {tmp_path / 'other' / 'best.h5'}" in done.complaint


def test_preprocessing_can_be_chosen(weights, photos):
    network = googlenet.load(weights)
    network.preprocessing = PREPROCESSINGS["slim"].at(32)
    done = script("googlenet", "predict", photos[0], "--weights", weights, "--preprocess", "slim", "--json")
    expected = network.predict([read_image(photos[0])])[0]
    found = [guess["probability"] for guess in json.loads(done.out)[0]["top5"]]
    np.testing.assert_allclose(found, np.sort(expected)[::-1], rtol=1e-4)
    assert "central 0.875" in done.err


def test_predict_in_a_process_of_its_own(weights, photos):
    done = process("googlenet", "predict", photos[0], "--weights", weights, "--json")
    assert done.code == 0, done.err
    assert len(json.loads(done.out)[0]["top5"]) == 4


@pytest.mark.parametrize("arguments", [
    [], ["predict"], ["predict", "a.jpg"], ["predict", "--weights", "a.h5"], ["classify"],
    ["summary", "--image-size", "3"], ["summary", "--classes", "0"],
    ["predict", "a.jpg", "--weights", "a.h5", "--crops", "3"]], ids=" ".join)
def test_wrong_usage(arguments):
    done = script("googlenet", *arguments)
    assert done.code == 2
    assert "error: " in done.err.splitlines()[-1]


@pytest.mark.parametrize(("content", "told"), [(None, "no such file"), (b"", "decoded"), (b"no picture", "decoded"),
                                               (b"\xff\xd8\xff\xe0" + bytes(50), "decoded")])
def test_a_picture_that_is_none(weights, photos, tmp_path, content, told):
    path = tmp_path / "photo.jpg"
    if content is not None:
        path.write_bytes(content)
    done = script("googlenet", "predict", photos[0], path, "--weights", weights, "--json")
    assert done.code == 1
    assert str(path) in done.complaint
    assert told in done.complaint


def test_probabilities_that_are_no_numbers_are_an_error(photos, tmp_path):
    made = network()
    for array in made.state().values():
        array[...] = 1e30
    save_weights(tmp_path / "huge.h5", made, preprocessing=preprocessing_of(made.config), classes=CLASSES)
    done = script("googlenet", "predict", photos[0], "--weights", tmp_path / "huge.h5")
    assert done.code == 1
    assert "huge.h5: the probabilities of" in done.complaint
    assert done.out == ""


@pytest.mark.parametrize("kind", ["missing", "truncated"])
def test_weights_that_are_none(weights, photos, tmp_path, kind):
    path = tmp_path / "weights.h5"
    if kind == "truncated":
        path.write_bytes(weights.read_bytes()[:-500])
    done = script("googlenet", "predict", photos[0], "--weights", path)
    assert done.code == 1
    assert str(path) in done.complaint
    with pytest.raises(InputError, match=r"weights\.h5"):
        script("googlenet", "predict", photos[0], "--weights", path, "--debug")
