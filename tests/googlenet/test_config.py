"""Configurations refuse what makes no sense, become flags, and survive JSON."""

import argparse
import dataclasses

import numpy as np
import pytest

from googlenet.config import ModelConfig, TrainingConfig, add_flags, from_flags, from_json, to_json
from minigrad.errors import InputError

BAD = [
    (ModelConfig, "image_size", 31, "[32, inf)"),
    (ModelConfig, "image_size", 64.0, "a whole number"),
    (ModelConfig, "classes", True, "a whole number"),
    (ModelConfig, "width", 0.0, "(0, inf)"),
    (ModelConfig, "width", float("nan"), "(0, inf)"),
    (ModelConfig, "variant", "torch", "paper, caffe"),
    (ModelConfig, "dropout", 1.0, "[0, 1)"),
    (TrainingConfig, "lr", -0.1, "(0, inf)"),
    (TrainingConfig, "workers", 0, "replicas"),
    (TrainingConfig, "decay", 1.01, "(0, 1]"),
    (TrainingConfig, "output", 3, "text"),
    (TrainingConfig, "standardise", 1, "true or false"),
    (TrainingConfig, "accumulate", 0, "[1, inf)"),
    (TrainingConfig, "clip_norm", -1.0, "[0, inf)"),
    (TrainingConfig, "fresh_rate", 0.0, "(0, inf)"),
    (TrainingConfig, "bias_rate", 0.0, "(0, inf)"),
    (TrainingConfig, "tested", "best", "averaged, raw"),
    (TrainingConfig, "on_divergence", "go on", "stop, halve"),
]


@pytest.mark.parametrize(("config", "name", "value", "remedy"), BAD)
def test_bad_values_are_named_with_their_remedy(config, name, value, remedy):
    with pytest.raises(InputError) as error:
        config(**{name: value})
    assert str(error.value).startswith(f"{name}={value!r}: ")
    assert remedy in str(error.value)


@pytest.mark.parametrize("config", [ModelConfig, TrainingConfig])
def test_every_field_says_what_it_is_and_whose(config):
    for item in dataclasses.fields(config):
        assert item.metadata["help"], item.name
        assert item.metadata["source"], item.name


def test_bounds_belong_where_the_bracket_is_square():
    assert ModelConfig(image_size=32).image_size == 32
    assert TrainingConfig(decay=1).decay == 1.0


def test_numpy_numbers_become_python_numbers():
    assert type(ModelConfig(classes=np.int64(3)).classes) is int
    assert type(ModelConfig(width=1).width) is float


@pytest.mark.parametrize("config", [ModelConfig(heads="aux2", width=0.3), TrainingConfig(lr=1e-3, data="été")])
def test_json_round_trip(config):
    assert from_json(type(config), to_json(config)) == config


def test_fields_that_are_younger_than_the_text_take_their_defaults():
    assert from_json(TrainingConfig, '{"lr": 0.5}') == TrainingConfig(lr=0.5)


@pytest.mark.parametrize(("text", "told"), [("{", "not JSON"), ("[]", "list"), ('{"widht": 1}', "widht"),
                                        ('{"width": "1"}', "width='1'"), ('{"image_size": 3}', "image_size=3"),
                                        ('{"classes": %s}' % ("9" * 5000), "not JSON"), ("[" * 100_000, "not JSON"),
                                        ('{"width": 1%s}' % ("0" * 400), "choose a number in")])
def test_foreign_json_is_refused(text, told):
    with pytest.raises(InputError, match=told):
        from_json(ModelConfig, text)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    add_flags(parser, ModelConfig, skip=["classes"])
    add_flags(parser, TrainingConfig)
    return parser


def test_flags_without_arguments_are_the_defaults():
    flags = parser().parse_args([])
    assert from_flags(ModelConfig, flags) == ModelConfig()
    assert from_flags(TrainingConfig, flags) == TrainingConfig()


def test_skipped_fields_have_no_flag():
    assert not hasattr(parser().parse_args([]), "classes")


def test_flags_reach_their_fields():
    flags = parser().parse_args(["--image-size", "64", "-b", "8", "--standardise", "--bias-decay=1", "--heads", "none"])
    assert from_flags(ModelConfig, flags, classes=10) == ModelConfig(image_size=64, classes=10, heads="none")
    assert from_flags(TrainingConfig, flags) == TrainingConfig(batch_size=8, standardise=True, bias_decay=1.0)


@pytest.mark.parametrize(("arguments", "told"), [
    (["--image-size", "16"], "--image-size: 16: choose a whole number in [32, inf) pixels"),
    (["--lr", "fast"], "--lr: 'fast': expected a number"),
    (["--variant", "torch"], "--variant"),
    (["--workers", "0"], "--workers: 0"),
])
def test_flags_out_of_range_are_usage_errors(arguments, told, capsys):
    with pytest.raises(SystemExit) as stop:
        parser().parse_args(arguments)
    assert stop.value.code == 2
    assert told in capsys.readouterr().err


def test_help_tells_unit_default_and_source():
    text = " ".join(parser().format_help().split())
    assert "side of the square input, pixels (default 224; paper, Table 1)" in text
