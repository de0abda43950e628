"""Each variation is the base but for what it asks about."""

from dataclasses import asdict
from pathlib import Path

import pytest

from googlenet.ablations.questions import BASE, QUESTIONS, VARIATIONS, base
from googlenet.ablations.results import planned
from googlenet.config import ModelConfig, TrainingConfig

CHANGED = {
    "no-heads": {"heads": "none"}, "head-4a": {"heads": "aux1"}, "head-4d": {"heads": "aux2"},
    "fully-connected": {"classifier": "fully_connected"}, "naive": {"module": "naive"}, "width-half": {"width": 0.25},
    "width-quarter": {"width": 0.125}, "no-augmentation": {"augment": "none"}, "paper-crops": {"augment": "paper"},
    "paper-rate": {"schedule": "step"},
}  # fmt: skip


def settings(run):
    return asdict(run.training) | asdict(run.network)


@pytest.fixture(scope="module")
def plan():
    return planned(Path("runs"), *base({}), VARIATIONS, 2)


def test_a_run_differs_from_the_base_in_one_thing(plan):
    for seed in (0, 1):
        usual = settings(plan[BASE, seed])
        found = {name: {key: value for key, value in settings(run).items() if value != usual[key]}
                 for (name, number), run in plan.items() if number == seed}
        assert found == {BASE: {}, **CHANGED}


def test_seeds_differ_in_nothing_else(plan):
    for name in (BASE, *CHANGED):
        assert settings(plan[name, 0]) | {"seed": 1} == settings(plan[name, 1])
        assert plan[name, 0].folder != plan[name, 1].folder


def test_the_base_is_the_papers_network_with_the_recipe_of_the_embedded_images():
    training, network = base({})
    assert network == ModelConfig(image_size=48, width=0.5)
    assert (training.init, training.resize, training.standardise, training.power) == ("he", 48, True, 1)
    assert training.validation_fraction == 0, "nothing is held out"
    assert training.augment == TrainingConfig().augment == "crop"


def test_settings_that_are_given_win():
    training, network = base({"image_size": 40, "lr": 0.5, "width": 2.0})
    assert (training.resize, training.lr, network.width) == (40, 0.5, 2)


def test_only_some_questions_need_only_some_runs():
    own = [each for each in VARIATIONS if each.question == "averaging"]
    assert [name for name, _ in planned(Path("runs"), *base({}), own, 1)] == [BASE, "paper-rate"]


def test_every_question_is_asked_and_has_a_source():
    assert {each.question for each in VARIATIONS} == set(QUESTIONS)
    assert all(question.source.startswith("section ") for question in QUESTIONS.values())
