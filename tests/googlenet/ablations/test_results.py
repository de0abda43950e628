"""From runs to figures: means and intervals over seeds, differences seed by seed; the table that shows them."""

import math

import numpy as np
import pytest
from scipy import stats

from googlenet.ablations import results
from googlenet.ablations.questions import BASE, VARIATIONS, base
from googlenet.ablations.results import Estimate, Result, Results, answers
from googlenet.intervals import Interval
from googlenet.reports import ablations as report
from minigrad.errors import InputError

ERRORS = {BASE: (0.14, 0.13, 0.16), "no-heads": (0.16, 0.14, 0.17), "paper-rate": (0.2, 0.19, 0.19)}
ASKED = [each for each in VARIATIONS if each.run in ERRORS]


def row(run, seed, error):
    return Result(run, seed, 2000, error, error / 10, 3 * error, error - 0.01 * seed, error / 20, 2 * error, 1000,
                  2_000_000, 100.0 + seed, "{}", "{}")


@pytest.fixture
def made(tmp_path):
    found = Results(tmp_path / "results.csv")
    for run, errors in ERRORS.items():
        for seed, error in enumerate(errors):
            found.add(row(run, seed, error))
    return found


def answer(made, run, averaged=False, seeds=3):
    return next(each for each in answers(made, ASKED, seeds)
                if (each.variation.run, each.variation.averaged) == (run, averaged))


def assert_estimates(found, values):
    values = np.array(values)
    assert found.mean == pytest.approx(values.mean())
    expected = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    np.testing.assert_allclose(found.interval, expected)


def test_means_and_differences_are_over_seeds(made):
    found = answer(made, "no-heads")
    assert_estimates(found.error, [0.16, 0.14, 0.17])
    assert_estimates(found.error_difference, [0.02, 0.01, 0.01])
    assert_estimates(found.nll, [0.48, 0.42, 0.51])
    assert_estimates(found.nll_difference, [0.06, 0.03, 0.03])
    assert found.images_per_second == 101


def test_an_average_is_held_to_the_last_step_of_its_run(made):
    assert_estimates(answer(made, BASE, averaged=True).error, [0.14, 0.12, 0.14])
    found = answer(made, "paper-rate", averaged=True)
    assert_estimates(found.error_difference, [0, -0.01, -0.02])
    assert_estimates(found.nll_difference, [-0.2, -0.19, -0.19])


def test_one_seed_has_no_interval(made):
    found = answer(made, "no-heads", seeds=1)
    assert found.error == Estimate(0.16, Interval(-math.inf, math.inf))
    assert report.told(found.error, 100) == "16.00"


def test_a_file_comes_back_as_it_was(made):
    assert results.read(made.path) == made
    assert results.read(made.path.with_name("nothing.csv")).rows == {}


@pytest.mark.parametrize("spoil", [lambda text: text.replace("0.14", "a"), lambda text: text.replace("seed", "seeds"),
                                   lambda text: text[:-30], lambda text: ""],
                         ids=range(4))
def test_a_damaged_file_is_named(made, spoil):
    made.path.write_text(spoil(made.path.read_text()))
    with pytest.raises(InputError, match=r"results\.csv can't be read"):
        results.read(made.path)


@pytest.mark.parametrize(("low", "high", "text"), [
    (-0.01, 0.03, "+1.00 (−1.00 to +3.00)"), (0.005, 0.015, "+1.00\\* (+0.50 to +1.50)"), (0.01, 0.01,
                                                                                       "+1.00 (+1.00 to +1.00)")])
def test_a_difference_that_is_no_chance_is_marked(low, high, text):
    assert report.told(Estimate(0.01, Interval(low, high)), 100, signed=True) == text


def test_the_table_has_a_row_for_each_variation(made):
    training, network = base({})
    text = report.document(answers(made, ASKED, 3), training, network, 10_000, 2_000)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert {len(cells) for cells in rows} == {9}
    assert [cells[1] for cells in rows[2:]] == ["base", *(each.label for each in ASKED)]
    assert rows[3][0] == "auxiliary heads (section 5)"
    assert rows[3][2].startswith("15.67 (")
    assert rows[3][3].startswith("+1.33 (")
    assert rows[3][4].startswith("0.470 (")
    assert rows[3][6:] == ["1,000", "2.0 M", "101"]
    for told in ("10,000 images of embedded", "2,000 images by their centre", "3 seeds", "48x48 pixels"):
        assert told in text


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_picture_is_drawn(made, tmp_path, seeds):
    from PIL import Image

    report.picture(answers(made, ASKED, seeds), tmp_path / "drawn.png")
    with Image.open(tmp_path / "drawn.png") as image:
        assert image.width > 1000
        assert len(image.convert("L").getcolors()) > 10


def test_a_picture_that_cannot_be_written(made, tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        report.picture(answers(made, ASKED, 3), tmp_path / "nowhere" / "drawn.png")
