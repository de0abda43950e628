"""Rates against arithmetic, and against the iterations of BVLC's solvers."""

import pytest

from googlenet.config import TrainingConfig
from googlenet.training import learning_rate

# (epochs passed, rate as a part of the first); 250 / 8 = 31.25, so that 31 drops are behind, and 0.96^31 = 0.2821
STEPS = [(0, 1.0), (7.999, 1.0), (8, 0.96), (15.999, 0.96), (16, 0.9216), (24, 0.884736), (250, 0.2821)]
POLY = [(0, 1.0), (15, 0.866025), (30, 0.707107), (45, 0.5), (59.4, 0.1), (60, 0.0), (61, 0.0)]


@pytest.mark.parametrize(("schedule", "epochs", "part"), [
    *(("step", *each) for each in STEPS), *(("poly", *each) for each in POLY),
    *(("constant", epochs, 1.0) for epochs in (0, 7.5, 300))])
def test_rate_of_each_schedule(schedule, epochs, part):
    config = TrainingConfig(lr=0.04, schedule=schedule, epochs=60)
    assert learning_rate(config, epochs) == pytest.approx(0.04 * part, rel=2e-4, abs=1e-9)


def test_power_of_poly_is_an_option():
    config = TrainingConfig(lr=1.0, schedule="poly", power=2.0, epochs=10)
    assert [learning_rate(config, epochs) for epochs in (0, 5, 9, 10)] == pytest.approx([1.0, 0.25, 0.01, 0.0])


def test_decay_and_its_length_are_options():
    config = TrainingConfig(lr=1.0, decay=0.5, decay_epochs=2.5)
    assert [learning_rate(config, epochs) for epochs in (2.4, 2.5, 4.9, 5.0, 10.0)] == [1.0, 0.5, 0.5, 0.25, 0.0625]


@pytest.mark.parametrize(("epochs", "rate"), [
    (0, 0.0), (0.5, 0.025), (0.9, 0.045), (1, 0.025), (1.5, 0.0375), (2, 0.025), (3, 0.0125)])
def test_warm_up_rises_to_the_schedule(epochs, rate):
    config = TrainingConfig(lr=0.1, decay=0.5, decay_epochs=1.0, warmup_epochs=2.0)
    assert learning_rate(config, epochs) == pytest.approx(rate)


IMAGENET = 1_281_167  # training images
SOLVERS = {  # of BVLC's GoogLeNet: as here, and as Caffe computes it of an iteration of 32 images
    "solver.prototxt": (TrainingConfig(schedule="step", decay=0.96, decay_epochs=8, epochs=250),
                        lambda iteration: 0.01 * 0.96 ** (iteration // 320_000)),
    "quick_solver.prototxt": (TrainingConfig(schedule="poly", power=0.5, epochs=60),
                              lambda iteration: 0.01 * (1 - iteration / 2_400_000) ** 0.5),
}


@pytest.mark.parametrize("solver", SOLVERS)
def test_rates_are_those_of_bvlcs_solvers(solver):
    """Whose steps of 320,000 iterations are of 7.993 epochs, and whose 2,400,000 are 59.95."""
    config, caffe = SOLVERS[solver]
    for iteration in range(10_000, 2_200_000, 40_000):
        assert learning_rate(config, iteration * 32 / IMAGENET) == pytest.approx(caffe(iteration), rel=0.01), iteration
