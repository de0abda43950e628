"""Recipes by name: every setting exists and is in range, flags win, and the numbers are those of their sources."""

import math

import pytest

import train
from googlenet import presets
from googlenet.config import ModelConfig, TrainingConfig, from_flags
from googlenet.presets import AS_INPUT, PRESETS
from tests.runs import script

IMAGENET = 1281167  # training images
DATA = ("--data", "photos")


def flags(*arguments):
    trained = ("--init", "bvlc") if "finetune" in arguments else ()
    return train.read_flags([*trained, *arguments])[0]


@pytest.mark.parametrize("name", PRESETS)
def test_every_setting_is_one_and_is_taken(name):
    """`from_flags` refuses what is out of range."""
    taken = flags("--preset", name, *DATA)
    config, network = from_flags(TrainingConfig, taken), from_flags(ModelConfig, taken)
    for setting, (value, source) in PRESETS[name].settings.items():
        owner = config if hasattr(config, setting) else network
        if setting != "data":  # which DATA chose
            assert getattr(owner, setting) == (network.image_size if value == AS_INPUT else value), setting
        assert source


@pytest.mark.parametrize("name", PRESETS)
def test_a_flag_that_is_given_wins(name):
    taken = flags("--preset", name, "--lr", "0.5", "--epochs", "2", "--image-size", "40", *DATA)
    assert (taken.lr, taken.epochs, taken.image_size, taken.data) == (0.5, 2, 40, "photos")


def test_given_at_its_default_a_flag_wins_too():
    assert flags("--preset", "bvlc-quick", "--schedule", "step", *DATA).schedule == "step"


def test_the_embedded_images_have_theirs_without_being_asked():
    own = flags()
    assert vars(own).items() >= {"image_size": 64, "resize": 64, "epochs": 7, "standardise": True}.items()
    assert flags("--image-size", "96").resize == 96
    assert flags("--image-size", "96", "--resize", "100").resize == 100
    assert flags(*DATA).epochs != own.epochs
    assert flags("--preset", "fashion", "--data", "embedded").lr == 0.005


def test_a_presets_data_is_used_unless_another_is_given():
    assert flags("--preset", "fashion").data == "fashion-mnist"
    assert flags("--preset", "fashion", "--data", "elsewhere").data == "elsewhere"


@pytest.mark.parametrize(("name", "steps", "fall"), [("bvlc", 10_000_000, 320_000), ("bvlc-quick", 2_400_000, None)])
def test_bvlcs_epochs_are_the_steps_of_its_solvers(name, steps, fall):
    """But for the hundredth of the images that is held out."""
    taken = flags("--preset", name, *DATA)
    epoch = IMAGENET * (1 - taken.validation_fraction) / taken.batch_size
    assert round(steps / epoch, -1) == taken.epochs
    assert math.isclose(steps / epoch, taken.epochs, rel_tol=0.011)
    if fall:
        assert math.isclose(fall / epoch, taken.decay_epochs, rel_tol=0.011)


@pytest.mark.parametrize("name", ["paper", "bvlc", "bvlc-quick"])
def test_of_imagenet_a_dozen_images_a_class_are_held_out(name):
    assert 12 <= flags("--preset", name, *DATA).validation_fraction * IMAGENET / 1000 < 13


def test_finetuning_needs_trained_weights(tmp_path):
    for start in ([], ["--init", "he"]):
        done = script("train.py", "--preset", "finetune", *start, *DATA, "--output", tmp_path / "runs")
        assert done.code == 2
        assert "finetune goes on from trained weights: give --init FILE, or, to download them, --init " in done.err
    assert not (tmp_path / "runs").exists()


def test_shifts_of_cifars_images_are_the_usual_part():
    """The crop moves by up to 4 of 32 pixels about the middle."""
    taken = flags("--preset", "cifar10")
    assert (taken.resize - taken.image_size) / 2 / taken.image_size == 4 / 32


def test_another_name_is_a_usage_error(tmp_path):
    done = script("train.py", "--preset", "resnet", "--output", tmp_path / "runs")
    assert done.code == 2
    assert "invalid choice: 'resnet'" in done.err
    assert not (tmp_path / "runs").exists()


def test_presets_are_printed_with_their_sources():
    done = script("train.py", "--presets")
    assert done.code == 0
    for name, preset in PRESETS.items():
        assert f"{name}: {preset.purpose}\n" in done.out
    assert "  --decay-epochs  " in done.out
    assert "solver.prototxt: 320,000 steps of 32 are 7.99 epochs" in done.out
    assert presets.described() in done.out


@pytest.mark.parametrize("name", presets.FOR_IMAGENET)
def test_what_is_made_for_imagenet_asks_for_data(name, capsys):
    with pytest.raises(SystemExit, match="2"):
        flags("--preset", name)
    assert f"{name} is made for ImageNet: give --data DIR" in capsys.readouterr().err
    assert flags("--preset", name, "--data", "photos").data == "photos"
