"""GoogLeNet's shapes, stages and options, and its gradient as a whole."""

import numpy as np
import pytest

from googlenet.config import ModelConfig
from googlenet.model import TABLE_1, AuxiliaryHead, GoogLeNet, Outputs, preprocessing_of, scaled
from minigrad import Tensor, init, nn, no_grad, ops
from minigrad.errors import InputError

SLIM = 0.125  # width of the networks of these tests


def network(seed: int = 0, **chosen) -> GoogLeNet:
    model = GoogLeNet(ModelConfig(**{"classes": 5, "image_size": 32, "width": SLIM, **chosen}))
    init.initialise(model, seed, weight="he", bias=0.2)
    nn.seed_dropout(model, seed=0, step=0)
    return model


def images(model: GoogLeNet, count: int = 2, seed: int = 0) -> Tensor:
    """Input on the scale of mean-subtracted photos, at which local response normalisation matters."""
    S = model.config.image_size
    return Tensor(np.random.default_rng(seed).normal(0, 60, (count, S, S, 3)).astype(model.config.dtype))


def test_channels_of_a_module_add_up():
    for row in TABLE_1:
        if row.type == "inception":
            assert row.n1x1 + row.n3x3 + row.n5x5 + row.pool_proj == row.output, row.name


@pytest.mark.parametrize("variant", ["paper", "caffe"])
@pytest.mark.parametrize(("size", "grids"), [
    (32, (16, 8, 4, 2, 1)), (64, (32, 16, 8, 4, 2)), (96, (48, 24, 12, 6, 3)), (224, (112, 56, 28, 14, 7))])
def test_grids_halve_five_times(size, grids, variant):
    model = network(image_size=size, variant=variant)
    stages = ("conv1", "pool1", "pool2", "pool3", "pool4")
    assert tuple(model.stage_shapes[stage][0] for stage in stages) == grids


@pytest.mark.parametrize("chosen", [
    {}, {"variant": "caffe"}, {"image_size": 37}, {"image_size": 37, "variant": "caffe"}, {"image_size": 64},
    {"image_size": 96}, {"stem": "separable"}, {"module": "naive"}, {"classifier": "fully_connected"},
    {"classifier": "fully_connected", "image_size": 64}, {"dtype": "float64"}, {"classes": 1}, {"width": 0.3}])
def test_stages_have_the_shapes_that_are_told(chosen):
    model = network(**chosen)
    x = images(model)
    got = {name: y.shape for name, y in model.stages(x)}
    assert got == {name: (2, *shape) for name, shape in model.stage_shapes.items()}
    assert list(got) == list(model.stage_shapes)
    y = model(x)
    assert {output.shape for output in y} == {(2, model.config.classes)}
    assert all(output.dtype == model.config.dtype and np.isfinite(output.data).all() for output in y)


def test_stages_follow_table_1_and_figure_3():
    modules = [f"inception_{name}" for name in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")]
    assert list(network().stage_shapes) == [
        "conv1", "pool1", "norm1", "conv2_reduce", "conv2", "norm2", "pool2", *modules[:2], "pool3", *modules[2:7],
        "pool4", *modules[7:], "pool5", "dropout", "classifier"]
    assert list(network(classifier="fully_connected").stage_shapes)[-4:] == ["flatten", "fc", "dropout", "classifier"]


def test_widths_of_the_full_network_at_224():
    shapes = GoogLeNet().stage_shapes
    assert shapes["conv1"] == (112, 112, 64)
    assert shapes["norm1"] == (56, 56, 64)
    assert shapes["conv2_reduce"] == (56, 56, 64)
    assert shapes["norm2"] == (56, 56, 192)
    assert [shapes[f"inception_{name}"] for name in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")] == [
        (28, 28, 256), (28, 28, 480), (14, 14, 512), (14, 14, 512), (14, 14, 512), (14, 14, 528), (14, 14, 832),
        (7, 7, 832), (7, 7, 1024)]
    assert shapes["pool5"] == (1024,)
    assert shapes["classifier"] == (1000,)


@pytest.mark.parametrize(("heads", "built"), [("both", {"aux1", "aux2"}), ("aux1", {"aux1"}), ("aux2", {"aux2"}),
                                          ("none", set())])
def test_heads_are_named_and_absent_in_testing(heads, built):
    model = network(heads=heads)
    y = model(images(model))
    assert isinstance(y, Outputs)
    assert {name for name, value in y._asdict().items() if value is not None} == {
        "logits", *built}
    assert {path.split("/")[0] for path, _ in model.named_parameters() if path.startswith("aux")} == built
    model.eval()
    tested = model(images(model))
    assert tested.aux1 is None
    assert tested.aux2 is None


def test_heads_hang_on_4a_and_4d():
    """The heads' own outputs, computed from the two stages."""
    model = network(aux_dropout=0.0, dropout=0.0)
    y, stages = model(images(model)), dict(model.stages(images(model)))
    np.testing.assert_array_equal(y.aux1.data, model.aux1(stages["inception_4a"]).data)
    np.testing.assert_array_equal(y.aux2.data, model.aux2(stages["inception_4d"]).data)


def test_heads_of_the_paper():
    """The paper's section 5: 4x4x512 and 4x4x528 after the pool, 128 filters, 1024 units."""
    model = GoogLeNet()
    for head, channels in ((model.aux1, 512), (model.aux2, 528)):
        assert isinstance(head, AuxiliaryHead)
        assert (head.window, head.size) == (5, 4)
        assert head.conv.weight.shape == (1, 1, channels, 128)
        assert head.fc.weight.shape == (2048, 1024)
        assert head.classifier.weight.shape == (1024, 1000)
        assert head.dropout.rate == 0.7
    assert model.dropout.rate == 0.4


@pytest.mark.parametrize(("size", "window", "grid"), [(32, 2, 1), (64, 4, 1), (96, 5, 1), (128, 5, 2), (224, 5, 4)])
def test_window_of_a_head_is_cut_to_its_grid(size, window, grid):
    head = network(image_size=size).aux1
    assert (head.window, head.size) == (window, grid)


@pytest.mark.parametrize(("variant", "before"), [("paper", 2), ("caffe", 3)])
def test_first_layer_pads_as_its_variant(variant, before):
    """With a single weight at the kernel's first cell, the output shows how many rows were padded before the image."""
    model = network(variant=variant)
    model.conv1.weight.data[...] = 0
    model.conv1.weight.data[0, 0, 0, 0] = 1
    model.conv1.bias.data[...] = 0
    x = Tensor(np.random.default_rng(0).uniform(1, 2, (1, 32, 32, 3)).astype(np.float32))
    padded = np.pad(x.data[0, :, :, 0], before)
    np.testing.assert_array_equal(model.conv1(x).data[0, :, :, 0], padded[0:32:2, 0:32:2])


@pytest.mark.parametrize(("variant", "first"), [("paper", 0), ("caffe", 0)])
def test_pools_put_the_odd_cell_at_the_end(variant, first):
    x = np.arange(64, dtype=np.float32).reshape(1, 8, 8, 1).repeat(8, axis=3)
    pooled = network(variant=variant).pool1(Tensor(x)).data[0, :, :, 0]
    rows = np.minimum(first + 2 * np.arange(4) + 2, 7)  # the last row of each window
    np.testing.assert_array_equal(pooled, 8 * rows[:, None] + rows)


def test_an_odd_grid_tells_the_variants_apart():
    """7 cells, window 3, step 2: SAME pads one on each side and makes 4 windows, Caffe makes 3 and pads none."""
    x = Tensor(np.zeros((1, 7, 7, 8), np.float32))
    assert network().pool1(x).shape == (1, 4, 4, 8)
    assert network(variant="caffe").pool1(x).shape == (1, 3, 3, 8)


def test_module_is_its_four_branches_side_by_side():
    model = network()
    module = model.inception_3b
    x = images_of(model.stage_shapes["inception_3a"])
    pooled = ops.max_pool2d(x, 3, stride=1, padding=1)
    branches = [module.conv_1x1(x), module.conv_3x3(module.conv_3x3_reduce(x)),
                module.conv_5x5(module.conv_5x5_reduce(x)), module.pool_proj(pooled)]
    expected = np.concatenate([branch.data for branch in branches], axis=-1)
    np.testing.assert_array_equal(module(x).data, expected)
    assert all((branch.data >= 0).all() and (branch.data == 0).any() for branch in branches), "ReLU follows each"


def test_module_copies_nothing_to_join_its_branches(monkeypatch):
    def refuse(*arrays, **options):
        raise AssertionError("branches were copied")

    model = network()
    x = images(model)
    monkeypatch.setattr(np, "concatenate", refuse)
    model(x)


def test_naive_module_passes_its_pool_through():
    model = network(module="naive")
    x = images_of((8, 8, model.stage_shapes["pool2"][2]))
    y = model.inception_3a(x).data
    pooled = ops.max_pool2d(x, 3, stride=1, padding=1).data
    np.testing.assert_array_equal(y[..., -pooled.shape[-1]:], pooled)


def images_of(shape: tuple[int, ...]) -> Tensor:
    return Tensor(np.random.default_rng(1).normal(0, 1, (2, *shape)).astype(np.float32))


def test_normalisation_stands_after_pool1_and_after_conv2():
    model = network()
    model.eval()
    stages = {name: y.data for name, y in model.stages(images(model))}
    for before, after in (("pool1", "norm1"), ("conv2", "norm2")):
        expected = ops.lrn(Tensor(stages[before]), size=5, alpha=1e-4, beta=0.75, k=1.0).data
        np.testing.assert_array_equal(stages[after], expected)
        assert np.abs(expected - stages[before]).max() > 0.01 * stages[before].max(), "input too small to tell"


def test_separable_stem_counts_what_the_paper_prints():
    stem = GoogLeNet(ModelConfig(stem="separable", heads="none")).conv1
    assert stem.depthwise.weight.data.size + stem.pointwise.weight.data.size == 2712
    assert [path for path, _ in stem.named_parameters()] == ["depthwise/weight", "pointwise/weight", "pointwise/bias"]


def test_separable_stem_is_linear_between_its_two_layers():
    """As TensorFlow's separable convolution: ReLU follows the pair, so that no sign is lost within it."""
    stem = network(stem="separable").conv1
    inside = stem.depthwise(images_of((32, 32, 3)))
    assert inside.shape == (2, 16, 16, 24)
    assert (inside.data < 0).any()
    np.testing.assert_array_equal(stem(images_of((32, 32, 3))).data, stem.pointwise(inside).data)
    assert (stem.pointwise(inside).data >= 0).all()


@pytest.mark.parametrize(("channels", "width", "expected"), [(64, 1, 64), (16, 0.1, 4), (208, 0.5, 104), (24, 0.25, 8),
                                                       (112, 1.3, 144)])
def test_widths_are_multiples_of_four(channels, width, expected):
    assert scaled(channels, width) == expected


def test_parameters_are_named_by_the_papers_words():
    paths = [path for path, _ in GoogLeNet().named_parameters()]
    assert paths[:6] == ["conv1/weight", "conv1/bias", "conv2_reduce/weight", "conv2_reduce/bias", "conv2/weight",
                         "conv2/bias"]
    assert "inception_3a/conv_5x5_reduce/weight" in paths
    assert "inception_5b/pool_proj/bias" in paths
    assert paths[-14:] == ["classifier/weight", "classifier/bias", *[
        f"{head}/{layer}/{blob}"
        for head in ("aux1", "aux2") for layer in ("conv", "fc", "classifier") for blob in ("weight", "bias")]]
    assert len(paths) == 2 * (57 + 1 + 2 * 3), "convolutions, the linear layer, two heads; each with weight and bias"


def test_dropout_changes_from_step_to_step_and_not_in_testing():
    model = network()
    x = images(model)
    logits = []
    for step in (0, 0, 1):
        nn.seed_dropout(model, seed=3, step=step)
        logits.append(model(x).logits.data)
    np.testing.assert_array_equal(logits[0], logits[1])
    assert (logits[0] != logits[2]).any()
    model.eval()
    np.testing.assert_array_equal(model(x).logits.data, model(x).logits.data)


def test_images_do_not_mix():
    model = network(variant="caffe")
    model.eval()
    x = images(model, count=5)
    alone = model(Tensor(x.data[3:4])).logits.data
    np.testing.assert_allclose(model(x).logits.data[3:4], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("shape", "told"), [
    ((3, 32, 32), "channels go last"), ((32, 32, 3), "add the axis"), ((2, 3, 32, 32), "channels go last"),
    ((2, 32, 32, 1), "grey"), ((2, 33, 32, 3), "32 x 32 pixels"), ((0, 32, 32, 3), "empty"), ((2, 5), "32 x 32")])
def test_wrong_shapes_are_refused(shape, told):
    with pytest.raises(InputError, match=r"expected images \(N, 32, 32, 3\), got ") as error:
        network()(Tensor(np.zeros(shape, np.float32)))
    assert str(shape) in str(error.value)
    assert told in str(error.value)


def test_wrong_precision_is_refused():
    with pytest.raises(InputError, match="float32, got float64"):
        network()(Tensor(np.zeros((1, 32, 32, 3))))


def test_preprocessing_of_the_variants():
    paper = preprocessing_of(ModelConfig())
    caffe = preprocessing_of(ModelConfig(variant="caffe", image_size=112))
    assert (paper.size, paper.resize, paper.fit, paper.order) == (224, 256, "short", "RGB")
    assert (caffe.size, caffe.resize, caffe.fit, caffe.order) == (112, 128, "warp", "BGR")
    assert caffe.mean == (104, 117, 123)
    assert paper.mean == caffe.mean[::-1]


@pytest.mark.parametrize("chosen", [{}, {"module": "naive", "stem": "separable", "classifier": "fully_connected",
                                         "variant": "caffe"}])
def test_gradient_of_the_whole_network(chosen):
    """Along a random direction of each stage's parameters, and of the input, against central differences in float64.

    The step is far below the distance of most kinks (of rectifiers and max pools); the few crossings weigh little."""
    model = network(dtype="float64", width=0.0625, **chosen)
    x = Tensor(images(model).data, requires_grad=True)
    rng = np.random.default_rng(2)
    parts: dict[str, list[Tensor]] = {"input": [x]}
    for path, parameter in model.named_parameters():
        parts.setdefault(path.split("/")[0], []).append(parameter)
    projections = [rng.normal(0, 1, (2, 5)) for _ in range(3)]

    def projected() -> float:
        with no_grad():
            return sum(float((y.data * p).sum()) for y, p in zip(model(x), projections, strict=True))

    loss = sum((ops.sum_all(y * Tensor(p)) for y, p in zip(model(x), projections, strict=True)), start=Tensor(0.0))
    loss.backward()
    for part, tensors in parts.items():
        directions = [rng.normal(0, 1, tensor.shape) * np.abs(tensor.data).max() for tensor in tensors]
        slope = sum(float((tensor.grad * d).sum()) for tensor, d in zip(tensors, directions, strict=True))
        measured = []
        for h in (1e-7, -1e-7):
            for tensor, d in zip(tensors, directions, strict=True):
                tensor.data += h * d
            measured.append(projected())
            for tensor, d in zip(tensors, directions, strict=True):
                tensor.data -= h * d
        difference = (measured[0] - measured[1]) / 2e-7
        assert abs(slope - difference) <= 1e-5 * abs(slope), f"{part}: {slope!r} by backward, {difference!r} measured"
        assert abs(slope) > 1e-3, f"{part}: a slope of {slope!r} shows nothing"
