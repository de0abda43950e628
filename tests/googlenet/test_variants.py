"""What ports of the network changed: layers, grids, counts, and that folding a batch norm changes nothing."""

import numpy as np
import pytest

from data.preprocess import PREPROCESSINGS
from googlenet.config import ModelConfig
from googlenet.model import VARIANTS, GoogLeNet, preprocessing_of
from googlenet.summary import render, summary
from minigrad import Tensor, init, nn, no_grad, ops
from minigrad.errors import InputError

NARROW = {"classes": 5, "image_size": 64, "width": 1 / 16}
WITH_NORM = ("torchvision", "slim")


def network(variant: str, **chosen) -> GoogLeNet:
    """A network whose batch norms are no identity."""
    made = GoogLeNet(ModelConfig(variant=variant, **{**NARROW, **chosen}))
    init.initialise(made, 0, weight="he", bias=0.2)
    rng = np.random.default_rng(1)
    for path, array in made.state().items():
        if "/batch_norm/" in path:
            array[...] = rng.uniform(0.5, 1.5, array.shape)
    nn.seed_dropout(made, seed=0, step=0)
    return made


def images(model: GoogLeNet, count: int = 2) -> Tensor:
    S = model.config.image_size
    return Tensor(np.random.default_rng(0).normal(0, 1, (count, S, S, 3)).astype(model.config.dtype))


@pytest.mark.parametrize(("variant", "classes", "count"), [
    ("paper", 1000, 6_998_552), ("caffe", 1000, 6_998_552), ("onnx-inception-v1", 1000, 6_998_552),
    ("torchvision", 1000, 6_624_904), ("slim", 1001, 6_618_649)])
def test_parameters_are_as_many_as_the_authors_count(variant, classes, count):
    assert summary(ModelConfig(variant=variant, classes=classes, heads="none"))["parameters"] == count


def test_inception5h_has_widths_of_its_own():
    shapes = GoogLeNet(ModelConfig(variant="inception5h", classes=1008)).stage_shapes
    assert shapes["inception_4a"] == (14, 14, 508)
    rows = {row["name"]: row for row in summary(ModelConfig(variant="inception5h"))["rows"]}
    assert (rows["inception_4a"]["3x3"], rows["inception_5a"]["5x5_reduce"]) == (204, 48)


@pytest.mark.parametrize(("variant", "grids"), [
    *((variant, (56, 28, 14, 7)) for variant in VARIANTS if variant != "onnx-inception-v1"),
    ("onnx-inception-v1", (55, 27, 13, 6))])
def test_grids_behind_the_pools(variant, grids):
    shapes = GoogLeNet(ModelConfig(variant=variant)).stage_shapes
    assert tuple(shapes[f"pool{number}"][0] for number in (1, 2, 3, 4)) == grids
    assert shapes["pool5"] == (1024,)


@pytest.mark.parametrize("variant", VARIANTS)
def test_local_response_normalisation_stands_where_the_variant_has_it(variant):
    stages = list(GoogLeNet(ModelConfig(variant=variant, **NARROW)).stage_shapes)
    assert ("norm1" in stages, "norm2" in stages) == (variant not in WITH_NORM,) * 2


def test_the_constants_of_lrn_can_be_given():
    norm = GoogLeNet(ModelConfig(variant="inception5h", lrn="9 0.0018 0.6 2", **NARROW)).norm1
    assert (norm.size, norm.alpha, norm.beta, norm.k) == (9, 0.0018, 0.6, 2)


@pytest.mark.parametrize(("variant", "lrn", "told"), [
    ("paper", "5 1e-4 0.75", "expected four numbers"), ("paper", "5.5 1 1 1", "expected four numbers"),
    ("paper", "4 1 1 1", "odd size"), ("paper", "5 nan 1 1", "finite"), ("paper", "5 1 1 0", "k above 0"),
    ("paper", "5 -1 1 1", "alpha from 0"), ("slim", "5 1e-4 0.75 1", "slim has no local response normalisation")])
def test_constants_that_make_no_sense_are_refused(variant, lrn, told):
    with pytest.raises(InputError, match=told):
        GoogLeNet(ModelConfig(variant=variant, lrn=lrn))


@pytest.mark.parametrize("variant", WITH_NORM)
def test_folding_changes_nothing_but_the_rounding(variant):
    model = network(variant, dtype="float64").eval()
    with no_grad():
        before, after = model(images(model)).logits.data, model.folded()(images(model)).logits.data
    np.testing.assert_allclose(after, before, rtol=1e-10)
    assert not any("batch_norm" in path for path in model.folded().state())
    assert any("batch_norm" in path for path in model.state()), "the network itself stays"


def test_folding_nothing_is_the_network_itself():
    model = network("caffe")
    assert model.folded() is model


@pytest.mark.parametrize("variant", WITH_NORM)
def test_training_reaches_every_parameter_and_moves_the_statistics(variant):
    model = network(variant)
    outputs = model(images(model, 3))
    losses = [ops.cross_entropy(each, np.array([0, 1, 2])) for each in outputs if each is not None]
    sum(losses[1:], start=losses[0]).backward()
    assert len(losses) == 3
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None, path
        assert np.abs(parameter.grad).max() > 0, path
    fresh = network(variant).state()
    assert all((array != fresh[path]).any() for path, array in model.state().items() if path.endswith("norm/mean"))


def test_heads_of_torchvision_have_a_grid_of_four_whatever_the_image():
    for size in (64, 224):
        model = GoogLeNet(ModelConfig(variant="torchvision", **{**NARROW, "image_size": size}))
        assert model.head("aux1").fc.weight.shape[0] == 16 * model.head("aux1").conv.weight.shape[3]


@pytest.mark.parametrize("variant", VARIANTS)
def test_images_are_prepared_as_the_authors_did(variant):
    known = PREPROCESSINGS[VARIANTS[variant].preprocessing]
    assert preprocessing_of(ModelConfig(variant=variant)) == known
    half = preprocessing_of(ModelConfig(variant=variant, image_size=112))
    assert (half.size, half.resize) == (112, known.resize // 2)


def test_the_summary_says_what_its_columns_hide():
    told = render(summary(ModelConfig(variant="torchvision")))
    assert "kernels of the 5x5 branch are 3x3" in told
    assert "batch norm" in told
    assert "kernels" not in render(summary(ModelConfig()))
    assert "normalisation over 11 channels" in render(summary(ModelConfig(variant="inception5h")))
    assert "normalisation" not in render(summary(ModelConfig()))


def test_an_image_too_small_for_floored_pools_is_told():
    with pytest.raises(InputError, match="image"):
        GoogLeNet(ModelConfig(variant="onnx-inception-v1", image_size=32))
