"""Frozen layers stay as they are, the others learn as they would, and nothing is computed for the lower ones."""

import numpy as np
import pytest

from googlenet.config import TrainingConfig
from googlenet.model import TABLE_1, GoogLeNet
from googlenet.training import Step
from googlenet.training.freezing import frozen_parameters
from minigrad import Tensor, nn
from minigrad.errors import InputError
from tests.googlenet.training.cases import Pictures, make
from tests.runs import computing_alone, network

one_thread = pytest.fixture(computing_alone, scope="module", autouse=True)

STEM = {"conv1", "conv2_reduce", "conv2"}


def layers_of(layers: str, **config) -> set[str]:
    """The first parts of the paths that are frozen."""
    return {path.partition("/")[0] for path in frozen_parameters(network(**config), layers)}


@pytest.mark.parametrize(("layers", "expected"), [
    ("", set()),
    ("conv1", {"conv1"}),
    (" conv1 , aux2,", {"conv1", "aux2"}),
    ("conv1..conv2", STEM),
    ("conv1..pool2", STEM),
    ("pool2..inception_3b", {"inception_3a", "inception_3b"}),
    ("conv1..inception_4a,aux1", STEM | {"inception_3a", "inception_3b", "inception_4a", "aux1"}),
    ("conv1..inception_5b", {row.name for row in TABLE_1 if row.type in ("convolution", "inception")} | STEM),
])
def test_names_and_ranges(layers, expected):
    assert layers_of(layers) == expected


def test_a_layer_within_a_layer():
    assert frozen_parameters(network(), "inception_3a/conv_3x3,aux1/fc") == {
        f"{layer}/{name}" for layer in ("inception_3a/conv_3x3", "aux1/fc") for name in ("weight", "bias")}
    assert "conv2/weight" not in frozen_parameters(network(), "conv2_reduce"), "names are not beginnings of names"
    assert {path.rpartition("/")[2] for path in frozen_parameters(network(variant="torchvision"), "conv1")} == {
        "weight", "gamma", "beta"}


@pytest.mark.parametrize("layers", ["conv3", "pool1", "conv1/weigh", "conv1/weight", "conv1..aux1", "..conv2",
                                    "conv1..", "aux2"])
def test_unknown_layers_are_refused_with_those_that_there_are(layers):
    with pytest.raises(InputError) as error:
        frozen_parameters(network(heads="aux1"), f"conv1,{layers}")
    assert str(error.value).startswith(f"freeze {layers!r}: no such layer; choose of conv1, conv2_reduce, conv2, ")
    assert "inception_5b, classifier, aux1, a layer within" in str(error.value)


def test_a_range_the_wrong_way_round_is_refused_with_the_right_one():
    with pytest.raises(InputError, match=r"inception_3a comes before inception_4b: write inception_3a\.\.inception_4b"):
        frozen_parameters(network(), "inception_4b..inception_3a")


def test_something_must_learn():
    with pytest.raises(InputError, match="is all of the network: leave a layer"):
        frozen_parameters(network(), "conv1..classifier,aux1,aux2")


FROZEN = "conv1..inception_4b,inception_4d/conv_3x3,aux1"


@pytest.mark.parametrize(("variant", "averaging"), [("paper", "none"), ("torchvision", "tail"), ("slim", "ema")])
def test_what_is_frozen_stays_as_it_is(variant, averaging):
    """Weights, velocity, running statistics and their average, over steps with decay, and with a save in between."""
    config = TrainingConfig(epochs=2, batch_size=4, lr=0.01, freeze=FROZEN, averaging=averaging, weight_decay=0.1)
    trainer = make(config, validation=Pictures(1), variant=variant)
    before = {path: array.copy() for path, array in trainer.model.state().items()}
    for record in trainer.records():
        assert trainer.guard.sound()
        assert not isinstance(record, Step) or record.losses.aux1 > 0
    after, velocity, averaged = trainer.model.state(), trainer.flat.views(trainer.optimiser.memory), trainer.averaged()
    modules = tuple({f"{path.rpartition('/')[0]}/" for path in trainer.frozen})
    for path, array in before.items():
        frozen = path.startswith(modules)
        assert np.array_equal(after[path], array) == frozen, path
        if averaged:
            assert np.array_equal(averaged[path], array) == frozen, path
        if path in velocity:
            assert bool(velocity[path].any()) != frozen, path
    if variant != "paper":
        assert [path for path in before if path.startswith("conv1/") and path.endswith("/mean")], "there are statistics"


def test_what_is_not_frozen_learns_as_it_would():
    """The first step's gradient of a layer is the same, whatever of the rest is frozen: dropout too."""
    (whole, part) = (make(TrainingConfig(batch_size=16, freeze=freeze)) for freeze in ("", "conv1..inception_4e"))
    losses = [next(trainer.records()).losses for trainer in (whole, part)]
    assert losses[0] == losses[1]
    own = part.flat.views(part.optimiser.memory)
    for path, velocity in whole.flat.views(whole.optimiser.memory).items():
        if path not in part.frozen:
            np.testing.assert_array_equal(own[path], velocity, err_msg=path)


def test_frozen_batch_norms_normalise_by_their_running_statistics():
    trainer = make(TrainingConfig(freeze="conv1"), variant="torchvision")
    trainer.replica.to_training()
    assert [path for path, module in trainer.model.named_modules()
            if isinstance(module, nn.BatchNorm) and not module.training] == ["conv1/batch_norm"]
    assert trainer.model.training


@pytest.mark.parametrize("variant", ["paper", "torchvision"])
def test_nothing_is_recorded_below_the_first_layer_that_learns(variant):
    trainer = make(TrainingConfig(freeze="conv1..inception_4b"), variant=variant)
    trainer.replica.to_training()
    stages = trainer.model.stages(Tensor(np.zeros((2, 32, 32, 3), np.float32)))
    recorded = {}
    for name, y in stages:
        recorded[name] = y.op is not None
        if name == "inception_4c":
            break
    assert [name for name, made in recorded.items() if made] == ["inception_4c"]


def test_names_are_those_of_the_variant():
    """A separable stem is one layer, with two inside."""
    model = GoogLeNet(network(stem="separable").config)
    assert frozen_parameters(model, "conv1/depthwise") == {"conv1/depthwise/weight"}
