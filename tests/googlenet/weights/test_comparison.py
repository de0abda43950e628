"""Networks compared array by array and stage by stage, with each other and with recordings."""

import math
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.crops import crops
from googlenet.config import ModelConfig
from googlenet.model import GoogLeNet, preprocessing_of
from googlenet.weights import Weights, read, save
from googlenet.weights.comparison import CHUNK, Tally, compare_arrays, compare_stages, differing_settings, open_side
from googlenet.weights.recording import Recording
from minigrad import Tensor, init, no_grad, ops
from minigrad.errors import InputError

REFERENCE = Path(__file__).resolve().parents[4] / "shared" / "reference"
FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "weights"


def weights(seed: int = 1, classes=("a", "b", "c"), **config) -> Weights:
    model = GoogLeNet(ModelConfig(**{"classes": len(classes), "image_size": 32, "width": 0.05, "heads": "none",
                                     "variant": "caffe", **config}))
    init.initialise(model, seed, weight="he", bias=0.1)
    rng = np.random.default_rng(seed)
    arrays = {path: rng.uniform(0.5, 2, array.shape).astype(np.float32) if "batch_norm" in path else array
              for path, array in model.state().items()}
    arrays["classifier/weight"] *= 0.01  # so that no class takes all
    return Weights(model.config, arrays, tuple(classes), preprocessing_of(model.config))


def images(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (40 + i, 60 - i, 3), np.uint8) for i in range(count)]


def changed(made: Weights, path: str, by: float) -> Weights:
    array = made.arrays[path].copy()
    array.flat[:2] += by
    return replace(made, arrays={**made.arrays, path: array})


# Differences.

def counted(*pairs):
    tally = Tally("x")
    for a, b in pairs:
        tally.add(np.array(a, np.float64), np.array(b, np.float64))
    return tally.difference()


def test_a_difference_by_hand():
    found = counted(([1, 2, -4], [1, 2.5, -4]))
    assert found.largest == 0.5
    assert found.relative == 0.5 / 4
    assert found.mean == pytest.approx(0.5 / 3)
    assert found.correlation == pytest.approx(np.corrcoef([1, 2, -4], [1, 2.5, -4])[0, 1])
    assert found.within(0.125)
    assert not found.within(0.124)


def test_batches_add_up():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((6, 5)) + 3
    b = a + rng.standard_normal(a.shape)
    whole, parts = counted((a, b)), counted((a[:4], b[:4]), (a[4:], b[4:]))
    assert parts.largest == whole.largest
    assert parts.correlation == pytest.approx(whole.correlation)
    assert parts.correlation == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_no_value_of_a_large_array_is_overlooked():
    a = np.random.default_rng(0).standard_normal((3, CHUNK - 1))
    b = a.copy()
    b[-1, -1] += 7
    found = counted((a, b))
    assert found.largest == pytest.approx(7)
    assert found.mean == pytest.approx(7 / a.size)
    assert found.correlation == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@pytest.mark.parametrize(("a", "b", "relative", "correlation"), [
    ([0, 0], [0, 0], 0, None), ([np.nan, 1], [np.nan, 1], 0, None), ([np.inf, 1, 2], [np.inf, 1, 2], 0, 1),
    ([np.nan, 1, 2], [0, 1, 2], math.inf, 1), ([np.inf, 1, 2], [-np.inf, 1, 2], math.inf, 1),
    ([5, 5], [4, 5], 0.2, None), ([1e200, 2e200], [1e200, 2e200], 0, None),
    ([1, 2], [1, 2, 3], None, None)])
def test_differences_of_odd_values(a, b, relative, correlation):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = counted((a, b))
    assert found.relative == relative
    assert found.correlation == (correlation if correlation is None else pytest.approx(correlation))
    assert found.within(1e-5) == (relative == 0)


# Arrays.

def test_the_same_arrays_agree_and_a_changed_one_is_found():
    made = weights()
    assert compare_arrays(made, made).agree(0)
    found = compare_arrays(made, changed(made, "conv2/weight", 0.25))
    assert [each.name for each in found.both if not each.within(1e-5)] == ["conv2/weight"]
    assert not found.agree(1e-5)
    assert found.agree(1)


def test_arrays_on_one_side_are_named():
    found = compare_arrays(weights(heads="aux2"), weights())
    assert found.only_a[0] == "aux2/conv/weight"
    assert len(found.only_a) == 6
    assert found.only_b == []
    assert not found.agree(math.inf)


def test_other_shapes_are_told():
    found = compare_arrays(weights(), weights(variant="torchvision", batch_norm="folded"))
    differing = {each.name: each.shapes for each in found.both if each.relative is None}
    assert differing["inception_3a/conv_5x5/weight"] == ((5, 5, 4, 4), (3, 3, 4, 4))
    assert len(differing) == 9


def test_batch_norm_is_folded_where_one_side_has_none():
    made = weights(variant="torchvision")
    found = compare_arrays(made, made.folded())
    assert found.agree(1e-6)
    assert "folded" in found.notes[0]
    assert compare_arrays(made, made).notes == ()
    other = changed(made, "conv1/batch_norm/mean", 0.5)
    assert [each.name for each in compare_arrays(other, made.folded()).both if not each.within(1e-5)] == ["conv1/bias"]
    assert compare_arrays(made, weights(variant="slim")).notes != (), "slim has no gamma"


def test_settings_that_differ():
    assert differing_settings(weights(), weights()) == {}
    assert differing_settings(weights(), weights(classes="012")) == {}, "digits are names nobody gave"
    found = differing_settings(weights(image_size=64), weights(image_size=64, variant="onnx-inception-v1",
                                                               classes="axc"))
    assert found["variant"] == ("caffe", "onnx-inception-v1")
    assert found["name of class 1"] == ("b", "x")
    assert "cubic" in found["preprocessing"][1]


# Stages.

def test_a_network_agrees_with_itself():
    made = weights()
    found = compare_stages(made, made, images(5))
    assert found.images == 5
    assert found.parted(0) is None
    assert (found.top1, found.top5) == (1, 1)
    assert [each.name for each in found.both][:3] == ["input", "conv1", "pool1"]
    assert [each.name for each in found.both][-2:] == ["classifier", "probabilities"]
    assert found.both[1].shapes == ((5, 16, 16, 4),) * 2


@pytest.mark.parametrize(("path", "stage"), [("conv1/bias", "conv1"), ("inception_4c/pool_proj/bias", "inception_4c"),
                                             ("classifier/bias", "classifier")])
def test_the_first_stage_to_part(path, stage):
    made = weights()
    assert compare_stages(made, changed(made, path, 50), images(2)).parted(1e-5) == stage


def test_each_network_has_its_own_preprocessing():
    made = weights()
    other = replace(made, preprocessing=replace(made.preprocessing, mean=(100.0, 117.0, 123.0)))
    found = compare_stages(made, other, images(2))
    assert found.parted(1e-5) == "input"
    assert found.both[0].largest == 4


def test_stages_on_one_side_and_other_shapes_are_told():
    found = compare_stages(weights(), weights(variant="torchvision"), images(1))
    assert found.only_a == ["norm1", "norm2"]
    assert found.only_b == []
    floor = compare_stages(weights(image_size=64), weights(image_size=64, variant="onnx-inception-v1"), images(1))
    shapes = {each.name: each.shapes for each in floor.both if each.relative is None}
    assert "pool1" in shapes
    assert "input" not in shapes
    assert floor.parted(1e9) == "pool1"


def test_top_1_and_top_5_are_those_of_a_literal_count():
    a, b = weights(1, classes="abcdefgh"), weights(2, classes="abcdefgh")
    pictures = images(9)
    best = []
    for side in (a, b):
        x = np.concatenate([side.preprocessing.normalise(_centre(image, side))[None] for image in pictures])
        logits = side.model()(Tensor(x)).logits.data
        best.append([sorted(range(8), key=lambda c, row=row: -row[c])[:5] for row in logits])
    found = compare_stages(a, b, pictures)
    assert found.top1 == pytest.approx(np.mean([x[0] == y[0] for x, y in zip(*best, strict=True)]))
    assert found.top5 == pytest.approx(np.mean([len(set(x) & set(y)) / 5 for x, y in zip(*best, strict=True)]))
    assert 0 < found.top5 < 1


def _centre(image, side):
    return crops(image, 1, side.preprocessing)[0]


def test_probabilities_of_a_background_class_are_left_out():
    made = weights(classes="abc")
    arrays = {path: np.concatenate([np.full_like(array[..., :1], 0.3), array], axis=-1)
              if "classifier" in path else array for path, array in made.arrays.items()}
    more = Weights(replace(made.config, classes=4), arrays, ("background", "0", "1", "2"), made.preprocessing)
    for found in (compare_stages(more, made, images(3)), compare_stages(made, more, images(3))):
        last = found.both[-1]
        assert last.name == "probabilities"
        assert last.within(1e-5)
        assert found.top1 == 1
        assert "3 classes that both have" in found.notes[0]
        assert found.parted(1e-5) == "classifier", "whose shapes differ"


def test_classes_in_another_order_are_compared_one_by_one():
    made = weights(classes="abc")
    arrays = {path: array[..., [2, 0, 1]] if "classifier" in path else array for path, array in made.arrays.items()}
    found = compare_stages(made, replace(made, arrays=arrays, classes=("c", "a", "b")), images(3))
    assert found.both[-1].within(1e-5)
    assert not found.both[-2].within(1e-5)
    assert "another order" in found.notes[0]


def test_networks_of_other_classes_have_no_agreement():
    found = compare_stages(weights(classes="abcd"), weights(classes="xyz"), images(1))
    assert found.both[-1].relative is None
    assert (found.top1, found.top5) == (None, None)


def test_no_images_are_told():
    with pytest.raises(InputError, match="no images"):
        compare_stages(weights(), weights(), [])


# Recordings.

def record(made: Weights, pictures: int = 3, **more) -> Recording:
    """What the network itself gives for random input."""
    x = np.random.default_rng(5).standard_normal((pictures, 32, 32, 3)).astype(np.float32)
    with no_grad():
        stages = {name: y.data for name, y in made.model().stages(Tensor(x))
                  if name in ("conv1", "pool2", "classifier")}
    return Recording("r.npz", "this program", "last", {"input": x, **stages, **more}, (), ())


def test_a_recording_is_compared_on_its_own_input():
    made = weights()
    recorded = record(made, pictures=6)
    found = compare_stages(made, recorded)
    assert found.images == 6
    assert [each.name for each in found.both] == ["input", "conv1", "pool2", "classifier", "probabilities"]
    assert found.parted(1e-6) is None
    assert "inception_4a" in found.only_a
    assert compare_stages(recorded, changed(made, "conv1/bias", 1)).parted(1e-6) == "conv1"


def test_probabilities_follow_from_recorded_logits():
    made = weights()
    recorded = record(made)
    wrong = ops.softmax(Tensor(recorded.stages["classifier"])).data[::-1]
    for found in (compare_stages(made, record(made, probabilities=wrong)),
                  compare_stages(record(made, probabilities=wrong), made)):
        assert found.parted(1e-4) == "probabilities"


def test_two_recordings_need_no_network():
    recorded = record(weights())
    other = recorded._replace(stages={**recorded.stages, "pool2": recorded.stages["pool2"] + 1})
    assert compare_stages(recorded, recorded).parted(0) is None
    assert compare_stages(recorded, other).parted(1e-6) == "pool2"
    with pytest.raises(InputError, match=r"3 of r\.npz and 2 of r\.npz"):
        compare_stages(recorded, recorded.first(2))


def test_a_recording_without_input_is_of_the_images_given():
    made, pictures = weights(), images(6)
    x = np.stack([made.preprocessing.normalise(_centre(image, made)) for image in pictures])
    found = ops.softmax(made.model()(Tensor(x)).logits).data
    recorded = Recording("p.npz", "this program", "last", {"probabilities": found}, (), ())
    assert compare_stages(made, recorded, pictures).agree(1e-5)
    assert not compare_stages(made, recorded, pictures[::-1]).agree(1e-5)
    for wrong in (pictures[:5], [*pictures, pictures[0]], images(9)):
        with pytest.raises(InputError, match=r"p\.npz holds 6 images"):
            compare_stages(made, recorded, wrong)


def test_input_of_another_size_is_told():
    with pytest.raises(InputError, match=r"\(N, 40, 40, 3\)"):
        compare_stages(weights(image_size=40), record(weights()))


# Files.

def test_sides_are_recognised(tmp_path):
    made = weights()
    save(tmp_path / "a.h5", made, averaged=changed(made, "conv1/bias", 1).arrays)
    assert open_side(tmp_path / "a.h5").arrays["conv1/bias"][1] == pytest.approx(1.1)
    assert open_side(tmp_path / "a.h5", raw=True).arrays["conv1/bias"][1] == pytest.approx(0.1)
    np.savez(tmp_path / "r.npz", **record(made).stages)
    assert isinstance(open_side(tmp_path / "r.npz"), Recording)
    assert open_side(FIXTURES / "torch_legacy.pth", image_size=64).config.image_size == 64
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(InputError, match=r"other\.npz.*no GoogLeNet"):
        open_side(tmp_path / "other.npz")


def test_a_file_agrees_with_what_was_made_of_it(tmp_path):
    source = read(FIXTURES / "torch_legacy.pth", image_size=64).weights
    save(tmp_path / "a.h5", source)
    assert compare_arrays(source, open_side(tmp_path / "a.h5")).agree(0)


@pytest.mark.skipif(not REFERENCE.exists(), reason=f"no reference weights at {REFERENCE}")
def test_every_recorded_stage_of_the_published_network_agrees():
    made = open_side(REFERENCE / "weights" / "bvlc_googlenet.npz")
    found = compare_stages(made, open_side(REFERENCE / "activations" / "n01558993_robin.npz"))
    assert len(found.both) == 21
    assert found.agree(1e-5)
    assert found.only_b == []
