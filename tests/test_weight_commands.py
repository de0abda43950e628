"""python -m googlenet convert, export, inspect, compare and fetch as a user runs them."""

import hashlib
import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import googlenet
from data.preprocess import PREPROCESSINGS
from googlenet.commands.compare import DIFFER
from googlenet.model import preprocessing_of
from googlenet.weights import fetch, load_model, read, save, save_weights
from googlenet.weights.fetch import Published
from googlenet.weights.formats import safetensors
from minigrad import Tensor
from minigrad.errors import InputError
from tests.runs import CLASSES, ROOT, Done, command, network, process, script, write_weights

FIXTURES = Path(__file__).parent / "fixtures" / "weights"
TORCH = FIXTURES / "torch_legacy.pth"  # torchvision's network, narrow, 64 pixels, seven classes
AT_64 = ("--image-size", 64)
ENDINGS = ("caffemodel", "npz", "safetensors", "onnx", "h5")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "own.h5"
    return write_weights(path, 1, variant="caffe", image_size=64, heads="none", width=1 / 16)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i, place in enumerate(("b.png", "a/c.jpg", "a/d.png")):
        (folder / place).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (70 + i, 90, 3), np.uint8)).save(folder / place)
    (folder / "notes.txt").write_text("no picture")
    return folder


def ran(*arguments: object, code: int = 0) -> str:
    done = script("googlenet", *arguments)
    assert done.code == code, done.err
    return done.out


def refused(*arguments: object) -> str:
    """The one line of an error."""
    done = script("googlenet", *arguments)
    assert done.code == 1
    return done.complaint


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# convert

def test_convert_tells_what_it_did(tmp_path):
    out = tmp_path / "out.h5"
    told = ran("convert", TORCH, out, *AT_64)
    for words in ("torch pickle (legacy)", "torchvision, input 64x64", "24,995 parameters (42,961 with heads)",
                  "7, not named", "RGB minus (127.5, 127.5, 127.5)", "305 arrays of 64 layers", str(out), sha256(TORCH),
                  sha256(out)):
        assert words in told, words
    assert "num_batches_tracked" in told, "what is left out is named"
    later = ran("inspect", out)
    assert f"converted from torch_legacy.pth, torch pickle (legacy), SHA-256 {sha256(TORCH)}" in later
    assert "num_batches_tracked" in later
    loaded, stored = load_model(out), read(TORCH, image_size=64).weights
    assert loaded.model.config == stored.config
    for path, array in loaded.model.state().items():
        np.testing.assert_array_equal(array, stored.arrays[path])


def test_convert_in_a_process_of_its_own(tmp_path):
    done = process("googlenet", "convert", TORCH, tmp_path / "out.h5", *AT_64, "--verbose")
    assert done.code == 0, done.err
    line = next(line for line in done.out.splitlines() if line.startswith("inception_3a/conv_5x5_reduce/weight "))
    assert line.split() == ["inception_3a/conv_5x5_reduce/weight", "1x1x12x4", "float32",
                            "inception3a.branch3.0.conv.weight", "OIHW"]
    assert done.err == ""


def test_convert_with_names_and_preprocessing(tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("".join(f"n{i:08} name {i}, other\n" for i in range(7)), encoding="utf-8")
    told = ran("convert", TORCH, tmp_path / "out.h5", *AT_64, "--classes", names, "--preprocess", "slim", "--mean",
               FIXTURES / "caffe_mean.binaryproto")
    assert "n00000000 name 0, other; " in told
    loaded = load_model(tmp_path / "out.h5")
    assert loaded.classes[6] == "n00000006 name 6, other", "a line is a name"
    assert (loaded.preprocessing.size, loaded.preprocessing.interpolation) == (64, "tensorflow")
    assert loaded.preprocessing.mean == pytest.approx((123.12, 117.148, 103.748), abs=0.01), "red first, as slim has it"


def test_convert_takes_a_blue_first_mean_as_it_is(tmp_path, weights):
    ran("convert", weights, tmp_path / "out.h5", "--mean", FIXTURES / "caffe_mean.binaryproto")
    assert load_model(tmp_path / "out.h5").preprocessing.mean == pytest.approx((103.748, 117.148, 123.12), abs=0.01)


@pytest.mark.parametrize(("content", "told"), [
    ("a\nb\n", "names.txt has 2 names for a network of 7 classes"), ("a\n" * 7, "names 'a' 7 times"),
    (b"\xff\xfe\xff", "UTF-8"), (None, "No such file")])
def test_names_that_do_not_fit(tmp_path, content, told):
    names = tmp_path / "names.txt"
    if content is not None:
        names.write_bytes(content if isinstance(content, bytes) else content.encode())
    complaint = refused("convert", TORCH, tmp_path / "out.h5", *AT_64, "--classes", names)
    assert told in complaint
    assert not (tmp_path / "out.h5").exists()


def test_the_background_needs_no_name(tmp_path):
    model = network(classes=4, variant="slim", heads="none")
    save_weights(tmp_path / "in.h5", model, preprocessing=preprocessing_of(model.config),
                 classes=("background", "0", "1", "2"))
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    assert "4, not named, but for 'background'" in ran("inspect", tmp_path / "in.h5")
    ran("convert", tmp_path / "in.h5", tmp_path / "out.h5", "--classes", tmp_path / "names.txt")
    assert load_model(tmp_path / "out.h5").classes == ("background", "a", "b", "c")


def test_convert_keeps_averaged_weights_and_leaves_the_rest_out(tmp_path, weights):
    stored = read(weights).weights
    averaged = {path: array * 2 for path, array in stored.arrays.items()}
    save(tmp_path / "in.h5", stored, averaged=averaged, arrays={"optimiser/velocity": np.zeros(3)})
    told = ran("convert", tmp_path / "in.h5", tmp_path / "out.h5")
    assert "optimiser/velocity" in told
    again = read(tmp_path / "out.h5")
    np.testing.assert_array_equal(again.averaged["conv1/bias"], averaged["conv1/bias"])
    assert again.arrays == {}


def test_convert_tells_of_values_that_are_not_finite(tmp_path, weights):
    with np.load(FIXTURES / "caffe_npz.npz") as archive:
        arrays = dict(archive)
    arrays["conv1/7x7_s2/bias"][:2] = np.nan
    np.savez(tmp_path / "bad.npz", **arrays)
    assert "2 values are not finite numbers" in ran("convert", tmp_path / "bad.npz", tmp_path / "out.h5")
    assert "not finite" not in ran("convert", weights, tmp_path / "good.h5")
    assert "bad.npz: conv1/bias (float32)" in refused("export", tmp_path / "out.h5", tmp_path / "out.onnx")


@pytest.mark.parametrize("command", ["convert", "export"])
def test_nothing_is_overwritten_unasked(tmp_path, weights, command):
    out = tmp_path / "out.h5"
    out.write_text("precious")
    assert "--force" in refused(command, weights, out)
    assert out.read_text() == "precious"
    ran(command, weights, out, "--force")
    assert load_model(out).classes == CLASSES
    before = out.read_bytes()
    assert "is the file that is read" in refused(command, out, out, "--force")
    assert out.read_bytes() == before


@pytest.mark.parametrize(("command", "out", "told"), [
    ("convert", "out.onnx", "must end in .h5"), ("export", "out.txt", "must end in .caffemodel"),
    ("convert", "nowhere/out.h5", "no folder"), ("export", "folder.h5", "it is a folder")])
def test_places_that_cannot_be_written(tmp_path, weights, command, out, told):
    (tmp_path / "folder.h5").mkdir()
    complaint = refused(command, weights, tmp_path / out)
    assert told in complaint
    assert str(tmp_path / out) in complaint


@pytest.mark.parametrize("command", [
    ("convert", "out.h5"), ("export", "out.onnx"), ("inspect",), ("compare", "FILE")], ids=" ".join)
@pytest.mark.parametrize("content", [None, b"", b"hello", b"PK\x03\x04 cut"])
def test_files_that_are_none(tmp_path, command, content):
    path = tmp_path / "weights.bin"
    if content is not None:
        path.write_bytes(content)
    name, *rest = command
    complaint = refused(name, path, *(path if each == "FILE" else tmp_path / each for each in rest))
    assert str(path) in complaint
    assert sorted(each.name for each in tmp_path.iterdir()) == (["weights.bin"] if content is not None else [])


# export

@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_exported_is_the_same_network(tmp_path, weights, ending):
    out = tmp_path / f"out.{ending}"
    told = ran("export", weights, out)
    assert str(out) in told
    assert ("class names and preprocessing" in told) == (ending in ("caffemodel", "npz"))
    assert ("only this program" in told) == (ending == "safetensors")
    compared = json.loads(ran("compare", weights, out, *AT_64, "--json"))
    assert compared["agree"]
    assert compared["settings"] == {}
    kept = read(out, image_size=64).weights.classes
    assert kept == (CLASSES if ending not in ("caffemodel", "npz") else ("0", "1", "2", "3"))


def test_a_file_that_does_not_tell_the_size_of_its_images(tmp_path):
    """Heads behind a grid of another size are a part of it."""
    ran("export", write_weights(tmp_path / "in.h5", variant="caffe", image_size=64), tmp_path / "out.caffemodel")
    assert googlenet.load(tmp_path / "out.caffemodel", image_size=64).model.config.heads == "both"
    with pytest.raises(InputError, match="--image-size"):
        googlenet.load(tmp_path / "out.caffemodel")


def test_a_chain_of_formats_loses_nothing(tmp_path, weights):
    source = weights
    for step, ending in enumerate(("caffemodel", "h5", "npz", "h5", "onnx", "h5", "safetensors")):
        out = tmp_path / f"{step}.{ending}"
        ran("convert" if ending == "h5" else "export", source, out, *AT_64)
        source = out
    first, last = read(weights).weights.arrays, read(source).weights.arrays
    assert first.keys() == last.keys()
    for path, array in first.items():
        np.testing.assert_array_equal(array, last[path])


def test_export_tells_of_padding_and_heads(tmp_path):
    path = write_weights(tmp_path / "paper.h5", variant="paper")
    assert "paper does not" in ran("export", path, tmp_path / "out.caffemodel")
    assert "auxiliary heads" in ran("export", path, tmp_path / "out.onnx")
    assert read(tmp_path / "out.onnx").weights.config.heads == "none"


def test_averaged_weights_are_exported_unless_raw(tmp_path, weights):
    stored = read(weights).weights
    save(tmp_path / "in.h5", stored, averaged={path: array * 2 for path, array in stored.arrays.items()})
    ran("export", tmp_path / "in.h5", tmp_path / "averaged.npz")
    ran("export", tmp_path / "in.h5", tmp_path / "raw.npz", "--raw")
    with np.load(tmp_path / "averaged.npz") as averaged, np.load(tmp_path / "raw.npz") as raw:
        np.testing.assert_array_equal(averaged["conv1/7x7_s2/bias"], 2 * raw["conv1/7x7_s2/bias"])


def test_torchvision_takes_its_weights_back(tmp_path):
    """The exported file in a torch network of torchvision's names, strictly, and its logits on the same input."""
    torch = pytest.importorskip("torch", reason="torch is an extra")
    from tests.googlenet.weights.torchvision_network import random_network

    ran("export", TORCH, tmp_path / "out.safetensors", *AT_64)
    theirs = random_network(0).eval()
    arrays = safetensors.read(tmp_path / "out.safetensors").arrays
    theirs.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in arrays.items()}, strict=True)
    model = load_model(tmp_path / "out.safetensors").model
    x = np.random.default_rng(0).standard_normal((2, 64, 64, 3)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(model(Tensor(x)).logits.data, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(("config", "ending", "told"), [
    ({"variant": "torchvision"}, "caffemodel", "not for the variant torchvision"),
    ({"stem": "separable"}, "caffemodel", "conv1/depthwise/weight")])
def test_what_the_other_format_has_no_names_for(tmp_path, config, ending, told):
    path = write_weights(tmp_path / "in.h5", **config)
    assert told in refused("export", path, tmp_path / f"out.{ending}")
    assert not (tmp_path / f"out.{ending}").exists()


# inspect

def test_inspect_tells_of_every_array_and_of_the_network():
    told = ran("inspect", TORCH, *AT_64)
    rows = {line.split()[0]: line.split() for line in told.splitlines() if line}
    assert rows["conv1.conv.weight"][1:3] == ["4x3x7x7", "float32"]
    assert rows["conv1.conv.weight"][-3:] == ["0", "0", "0"]
    assert rows["network"][1] == "torchvision,"
    assert rows["SHA-256"][1] == sha256(TORCH)
    assert "all values are finite; no dead filters" in told


def test_inspect_as_json_tells_the_same(tmp_path, weights):
    stored = read(weights).weights
    stored.arrays["conv1/weight"][..., 1] = 0
    stored.arrays["conv2/bias"][:2] = np.nan, np.inf
    save(tmp_path / "bad.h5", stored)
    found = json.loads(ran("inspect", tmp_path / "bad.h5", "--json"))
    arrays = {each["name"]: each for each in found["arrays"]}
    assert arrays["weights/conv1/weight"]["dead"] == 1
    assert arrays["weights/conv2/bias"]["not_finite"] == 2
    assert found["network"]["classes"] == list(CLASSES)
    assert found["sha256"] == sha256(tmp_path / "bad.h5")
    told = ran("inspect", tmp_path / "bad.h5")
    assert "2 values are not finite; 1 dead filters in weights/conv1/weight" in told


def test_inspect_tells_why_it_is_no_network(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    assert re.search(r"network\s+none: .*no GoogLeNet", ran("inspect", tmp_path / "x.npz"))
    assert json.loads(ran("inspect", tmp_path / "x.npz", "--json"))["network"] is None
    assert "no filters to draw" in refused("inspect", tmp_path / "x.npz", "--filters", tmp_path / "f.png")


def test_inspect_draws_the_first_layer(tmp_path, weights):
    out = tmp_path / "filters.png"
    done = process("googlenet", "inspect", weights, "--filters", out)
    assert done.code == 0, done.err
    with Image.open(out) as image:
        assert image.format == "PNG"
        assert len(image.convert("RGB").getcolors(10**6)) > 20
    assert "--force" in refused("inspect", weights, "--filters", out)
    assert "no folder" in refused("inspect", weights, "--filters", tmp_path / "nowhere" / "f.png")
    assert "must end in .png" in refused("inspect", weights, "--filters", tmp_path / "f.txt")


# compare

def changed(weights: Path, path: Path, name: str, by: float, **more) -> Path:
    stored = read(weights).weights
    stored.arrays[name][...] += by
    save(path, stored, **more)
    return path


def test_compare_tells_what_differs(tmp_path, weights):
    other = changed(weights, tmp_path / "other.h5", "inception_4b/conv_3x3/bias", 0.5)
    told = ran("compare", weights, other, code=DIFFER)
    assert "they differ" in told
    assert "115 of 116 agree" in told
    assert re.search(r"^inception_4b/conv_3x3/bias +\d+ +5\.00e-01 .*differs$", told, re.MULTILINE)
    assert "conv1/weight" not in told, "what agrees is counted only"
    assert "they agree" in ran("compare", weights, other, "--tolerance", "10")
    assert "the same: warped" in told


def test_compare_on_images_names_the_first_stage_to_part(tmp_path, weights, photos):
    other = changed(weights, tmp_path / "other.h5", "inception_3b/conv_1x1/bias", 5)
    done = process("googlenet", "compare", weights, other, "--images", photos)
    assert done.code == DIFFER, done.err
    assert re.search(r"first to part +inception_3b$", done.out, re.MULTILINE)
    assert re.search(r"^images +3$", done.out, re.MULTILINE)
    assert "top-5" in done.out
    rows = [line.split()[0] for line in done.out.splitlines() if re.match(r"\w+ +3x", line)]
    assert rows[:2] == ["input", "conv1"]
    assert rows[-2:] == ["classifier", "probabilities"]


def test_compare_as_json_has_everything(tmp_path, weights, photos):
    other = changed(weights, tmp_path / "other.h5", "classifier/bias", np.array([9, 0, 0, 0]))
    done = script("googlenet", "compare", weights, other, "--images", photos, "--limit", 2, "--json")
    assert done.code == DIFFER
    found = json.loads(done.out)
    assert not found["agree"]
    assert found["first_to_part"] == "classifier"
    assert len(found["arrays"]["both"]) == 116
    assert [each["name"] for each in found["arrays"]["both"] if not each["agrees"]] == ["classifier/bias"]
    assert found["stages"]["images"] == 2
    assert found["stages"]["top5"] == 1
    assert found["a"]["file"] == str(weights)
    assert ran("compare", weights, weights, "--images", photos / "b.png").count("differs") == 0


def test_compare_tells_of_what_is_not_finite_in_valid_json(tmp_path, weights):
    other = changed(weights, tmp_path / "other.h5", "conv1/bias", np.nan)
    found = json.loads(ran("compare", weights, other, "--json", code=DIFFER))
    row = next(each for each in found["arrays"]["both"] if each["name"] == "conv1/bias")
    assert row["relative"] is None
    assert not row["agrees"]


def test_compare_folds_batch_norm_and_names_what_is_on_one_side(tmp_path):
    ran("convert", TORCH, tmp_path / "a.h5")
    told = ran("compare", tmp_path / "a.h5", FIXTURES / "onnx_torchvision.onnx", code=DIFFER)
    assert "folded into the convolutions" in told
    assert re.search(r"only in A +arrays: aux1/conv/weight", told)


def test_compare_with_recorded_activations(tmp_path, weights):
    loaded = load_model(weights)
    x = np.random.default_rng(0).standard_normal((2, 64, 64, 3)).astype(np.float32)
    names = {"conv1": "conv1/7x7_s2", "inception_3a": "inception_3a/output", "classifier": "loss3/classifier"}
    stages = {names[name]: y.data for name, y in loaded.model.stages(Tensor(x)) if name in names}
    first = {name.replace("/", "_"): array.transpose(0, 3, 1, 2) if array.ndim == 4 else array
             for name, array in {"data": x, **stages}.items()}
    np.savez(tmp_path / "r.npz", **first)
    told = ran("compare", weights, tmp_path / "r.npz")
    assert "5 of 5 agree" in told
    assert "by Caffe's names, channels first" in told
    assert "pool2" in next(line for line in told.splitlines() if line.startswith("only in A"))
    first["inception_3a_output"] = first["inception_3a_output"] + 1
    np.savez(tmp_path / "wrong.npz", **first)
    found = json.loads(ran("compare", tmp_path / "wrong.npz", weights, "--json", code=DIFFER))
    assert found["first_to_part"] == "inception_3a"
    assert found["a"]["recorded_by"] == "Caffe"
    assert "leave --images out" in refused("compare", weights, tmp_path / "r.npz", "--images", tmp_path)


def test_compare_with_probabilities_of_named_images(tmp_path, weights, photos):
    """What evaluate.py --probabilities wrote, here with the names in another order than the folder's."""
    names = ["a/d.png", "b.png", "a/c.jpg"]
    predictor = googlenet.load(weights)
    found = predictor.predict([np.asarray(Image.open(photos / name)) for name in names])
    np.savez(tmp_path / "p.npz", files=np.array(names), labels=np.zeros(3, int), probabilities=found)
    assert "they agree" in ran("compare", weights, tmp_path / "p.npz", "--images", photos)
    assert "they agree" in ran("compare", weights, tmp_path / "p.npz", "--images", photos, "--limit", 2)
    assert "give by --images" in refused("compare", weights, tmp_path / "p.npz")


@pytest.mark.parametrize(("arguments", "told"), [
    (["--images", "nowhere"], "no pictures there"), (["--images", "FOLDER", "--limit", "0"], "--limit 0"),
    (["--tolerance", "-1"], "--tolerance -1"), (["--tolerance", "nan"], "--tolerance nan"),
    (["--images", "notes.txt"], "notes.txt")])
def test_compare_arguments_that_make_no_sense(weights, photos, arguments, told):
    given = [photos if each == "FOLDER" else photos / each if each == "notes.txt" else each for each in arguments]
    assert told in refused("compare", weights, weights, *given)


# fetch

@pytest.fixture
def published(tmp_path, monkeypatch, weights) -> Path:
    """A published file in a folder that has it: nothing is asked of the network."""
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "own.h5").write_bytes(weights.read_bytes())
    entry = Published((), "own.h5", (f"sha256:{sha256(weights)}",), "none")
    monkeypatch.setitem(fetch.PUBLISHED, "slim", entry)
    monkeypatch.setenv("GOOGLENET_CACHE", str(folder))
    return folder


def test_fetch_tells_where_and_how_to_go_on(published):
    told = ran("fetch", "slim").splitlines()
    assert told[0] == str(published / "own.h5")
    assert "licence: none" in told
    assert f'googlenet convert "{published / "own.h5"}" slim.h5' in told[2]
    other = published.with_name("other")
    published.rename(other)
    assert ran("fetch", "slim", "--folder", other).splitlines()[0] == str(other / "own.h5")


def test_a_published_name_will_do_wherever_weights_are_asked_for(published, weights, photos):
    assert "they agree" in ran("compare", "slim", weights)
    assert sha256(weights) in ran("inspect", "slim")
    done = script("googlenet", "predict", photos / "b.png", "--weights", "slim")
    assert done.code == 0
    assert str(published / "own.h5") in done.err


def test_a_file_of_that_name_comes_first(published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_weights(tmp_path / "slim", classes="xyz")
    assert "x; y; z" in ran("inspect", "slim")


@pytest.mark.parametrize("arguments", [
    ["convert"], ["convert", "a"], ["export", "a"], ["inspect"], ["compare", "a"], ["fetch"], ["fetch", "alexnet"],
    ["convert", "a", "b.h5", "--preprocess", "x"], ["inspect", "a", "--image-size", "x"],
    ["compare", "a", "b", "--tolerance", "x"]], ids=" ".join)
def test_wrong_usage(arguments):
    done: Done = script("googlenet", *arguments)
    assert done.code == 2
    assert "error: " in done.err.splitlines()[-1]


def test_every_preprocessing_can_be_chosen():
    assert {"caffe", "torchvision", "slim", "onnx"} <= PREPROCESSINGS.keys()
    done = script("googlenet", "convert", "--help")
    assert all(name in done.out for name in PREPROCESSINGS)


def test_nobody_reading_on_is_no_error():
    """As in `... inspect FILE | head -1`: the reader is gone before the program writes."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run(command("googlenet", "inspect", FIXTURES / "caffe_v1.caffemodel"), stdout=closed,
                              stderr=subprocess.PIPE, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stderr) == (141, b"")


def test_class_names_may_be_given_to_predict(tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"class {letter}" for letter in "abcdefg"), encoding="utf-8")
    picture = tmp_path / "picture.png"
    Image.fromarray(np.full((40, 50, 3), 90, np.uint8)).save(picture)
    done = script("googlenet", "predict", picture, "--weights", FIXTURES / "onnx_caffe.onnx", "--classes", names)
    assert done.code == 0, done.err
    assert "class e" in done.out


def test_a_mean_that_is_none_is_refused(tmp_path):
    done = script("googlenet", "convert", FIXTURES / "caffe_v1.caffemodel", tmp_path / "out.h5",
                  "--mean", FIXTURES / "chainer.npz")
    assert "is no Caffe mean image" in done.complaint
    assert not (tmp_path / "out.h5").exists()


def test_compare_shows_the_worst_of_many_differences():
    sides = FIXTURES / "caffe_v2.caffemodel", FIXTURES / "torch_legacy.pth"
    short, long = ran("compare", *sides, code=DIFFER), ran("compare", *sides, "--verbose", code=DIFFER)
    assert "the worst of 128; --verbose lists all" in short
    assert short.count("differs") == 20
    assert long.count("differs") == 128
    assert re.findall(r"^inception_3a/conv_5x5/weight .*5x5x4x4 / 3x3x4x4", short, re.MULTILINE), "no shape is worse"
