"""Training that goes wrong: warned of, ended, or taken back."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from googlenet.config import TrainingConfig
from googlenet.testing import Score
from googlenet.training import DivergedError, Epoch, Restart, Step, Trainer
from googlenet.training.guard import MOST_HALVINGS
from tests.googlenet.training.cases import Pictures, assert_same_state, comparable, make, resumed, split
from tests.runs import computing_alone

one_thread = pytest.fixture(computing_alone, scope="module", autouse=True)


def stuck(**options):
    """The warnings of three epochs in which nothing is learned: logits of small weights are all but equal."""
    model = {name: options.pop(name) for name in ("heads",) if name in options}
    config = TrainingConfig(**{"epochs": 3, "batch_size": 8, "lr": 1e-9, "init": "truncated_normal", "bias_init": 0.0,
                               **options})
    return [r.warnings for r in make(config, **model).records() if isinstance(r, Epoch)]


@pytest.mark.parametrize(("heads", "names"), [("both", ["main", "aux1", "aux2"]), ("none", ["main"])])
def test_heads_that_guess_are_warned_of_once_with_advice(heads, names):
    first, *later = stuck(heads=heads)
    assert [warning.split()[0] for warning in first] == names
    for warning in first:
        assert "1.386" in warning, "ln(4)"
        assert "--lr 5e-10" in warning
    assert later == [(), ()]


@pytest.mark.parametrize(("standardise", "advised"), [(False, True), (True, False)])
def test_nothing_is_advised_that_the_run_began_with(standardise, advised):
    """Zero weights guess, whatever drew them."""
    config = TrainingConfig(epochs=1, batch_size=8, lr=1e-9, init="he", bias_init=0.0, standardise=standardise)
    trainer = make(config, heads="none")
    trainer.flat.data[:] = 0
    (warning,) = next(record for record in trainer.records() if isinstance(record, Epoch)).warnings
    assert ("--init he" in warning) == advised


def test_what_learns_is_not_warned_of():
    config = TrainingConfig(epochs=1, batch_size=4, lr=0.002, init="he")
    assert [r.warnings for r in make(config, Pictures(24), heads="none").records() if isinstance(r, Epoch)] == [()]


def test_a_loss_that_is_not_finite_changes_nothing():
    trainer = make(TrainingConfig(epochs=2, batch_size=4, lr=1e30))
    records = trainer.records()
    step = next(records)
    assert math.isfinite(step.losses.total)
    before = trainer.flat.data.copy(), trainer.optimiser.memory.copy(), trainer.step
    with pytest.raises(DivergedError, match=r"the loss is (nan|inf) at step 2.*1e\+30.*--lr 5e\+29"):
        next(records)
    np.testing.assert_array_equal(trainer.flat.data, before[0])
    np.testing.assert_array_equal(trainer.optimiser.memory, before[1])
    assert trainer.step == before[2]


# Going back.

HALVE = TrainingConfig(epochs=3, batch_size=8, lr=0.002, schedule="poly", init="he", seed=5, on_divergence="halve",
                       averaging="ema")  # four steps and an end in each epoch


def overflowing(trainer: Trainer, *at: int) -> Trainer:
    """Let the loss overflow at the next of these steps, each at the rate that the ones before have left."""
    backward = trainer.replica._backward

    def overflow(batch, share):
        if trainer.guard.halvings < len(at) and trainer.step + 1 == at[trainer.guard.halvings]:
            raise DivergedError("the loss is inf")
        return backward(batch, share)

    trainer.replica._backward = overflow
    return trainer


def test_in_the_first_epoch_it_begins_again_at_half_the_rate(tmp_path):
    """As a run would at that rate from the start, to the last bit; whatever was saved on the way."""
    trainer, records = overflowing(make(HALVE, *split(HALVE)), 3), []
    for record in trainer.records():
        records.append(record)
        trainer.save(tmp_path / "last.h5")
    assert records[2] == Restart("the loss is inf at step 3", 2, 0, 0, 0.5)
    other = make(replace(HALVE, lr=HALVE.lr / 2), *split(HALVE))
    assert [comparable(record) for record in records[3:]] == [comparable(record) for record in other.records()]
    other.guard.halvings = 1
    assert_same_state(trainer, other)


def test_later_it_goes_back_to_the_end_of_the_last_epoch(tmp_path):
    """As a run would that is resumed from there at half the rate; whatever was saved since."""
    trainer = overflowing(make(HALVE, *split(HALVE), variant="torchvision"), 11)
    found = []
    for number, record in enumerate(trainer.records(), 1):
        found.append(comparable(record))
        if number in (3, 7, 10, 11, 12):
            assert trainer.save(tmp_path / f"{number}.h5")
    restart = found.index(str(Restart("the loss is inf at step 11", 10, 8, 2, 0.5)))
    other = resumed(tmp_path / "10.h5")
    other.guard.halvings = 1
    assert found[restart + 1:] == [comparable(record) for record in other.records()]
    assert_same_state(trainer, other)


def test_without_a_checkpoint_it_goes_back_there_too():
    trainer = overflowing(make(HALVE, *split(HALVE)), 11)
    assert [record[1:4] for record in trainer.records() if isinstance(record, Restart)] == [(10, 8, 2)]


@pytest.mark.parametrize(("saves", "kills"), [((5, 10, 15), 4), ((2, 4, 6, 9, 13), 7)], ids=str)
def test_killed_anywhere_it_comes_to_the_same_weights(saves, kills, tmp_path):
    """Losses overflow in the first epoch, in the second one, and again behind that; a run that is killed begins anew
    from its last checkpoint, or at all, and ends as one that was never saved."""
    path = tmp_path / "last.h5"

    def begun() -> Trainer:
        trainer = resumed(path) if path.exists() else make(HALVE, *split(HALVE))
        return overflowing(trainer, 3, 7, 11)

    def places(trainer, saved_at=()):
        """What each record is known by, after a save where it is its turn; what is taken again has another rate."""
        for record in trainer.records():
            place = trainer.guard.halvings, type(record).__name__, trainer.step, trainer.epoch
            if place in saved_at:
                trainer.save(path)
            yield place

    whole = begun()
    order = list(places(whole))
    assert sum(name == "Restart" for _, name, *_ in order) == 3
    saved_at = [order[number - 1] for number in saves]
    for kill in range(1, len(order), kills):
        path.unlink(missing_ok=True)
        list(itertools.islice(places(begun(), saved_at), kill))
        again = begun()
        list(places(again, saved_at))
        assert_same_state(again, whole)


def test_it_does_not_go_back_for_ever():
    trainer = make(TrainingConfig(epochs=2, batch_size=4, lr=1e30, on_divergence="halve"))
    records = trainer.records()
    found = []
    with pytest.raises(DivergedError, match=r"the loss is (nan|inf) at step 2, at 1/32 of the rate 1e\+30; it is not"):
        found.extend(records)
    restarts = [record for record in found if isinstance(record, Restart)]
    assert [record.rate_factor for record in restarts] == [0.5**n for n in range(1, MOST_HALVINGS + 1)]
    assert [record.lr for record in found if isinstance(record, Step)] == [1e30 * 0.5**n for n in range(6)]


def test_heads_that_guess_begin_again():
    config = TrainingConfig(epochs=3, batch_size=8, lr=1e-9, init="truncated_normal", bias_init=0.0,
                            on_divergence="halve")
    trainer = make(config)
    start = trainer.flat.data.copy()
    records = trainer.records()
    restart = next(record for record in records if isinstance(record, Restart))
    assert restart[1:] == (2, 0, 0, 0.5)
    assert restart.reason.count("has learned nothing: its loss is 1.386, that of a guess ln(4) = 1.386") == 3
    np.testing.assert_array_equal(trainer.flat.data, start)
    assert not trainer.optimiser.memory.any()
    with pytest.raises(DivergedError, match=r"aux2 has learned nothing.*, at 1/32 of the rate"):
        list(records)


@pytest.mark.parametrize(("warmup", "epoch"), [(0.0, 0), (0.9, 0), (1.0, 1), (2.5, 2), (3.0, None)])
def test_heads_are_judged_by_the_first_epoch_that_ends_at_the_full_rate(warmup, epoch):
    assert [bool(warnings) for warnings in stuck(warmup_epochs=warmup)] == [number == epoch for number in range(3)]


def ruin(trainer: Trainer):
    """An overflow that no loss shows yet."""
    trainer.optimiser.memory[0] = np.inf


@pytest.mark.parametrize("save", ["save", "save_weights"])
def test_ruined_weights_are_not_saved_but_gone_back_from(save, tmp_path):
    trainer = make(replace(HALVE, averaging="none"), *split(HALVE))
    records = trainer.records()
    next(records)
    path = tmp_path / "file.h5"
    assert getattr(trainer, save)(path)
    before = path.read_bytes()
    next(records)
    ruin(trainer)
    assert not getattr(trainer, save)(path)
    assert path.read_bytes() == before
    assert next(records)[1:] == (2, 0, 0, 0.5)
    assert isinstance(next(records), Step)
    assert getattr(trainer, save)(path)


def test_ruined_weights_end_a_run_that_is_to_stop(tmp_path):
    trainer = make(TrainingConfig(batch_size=8, lr=0.25))
    next(trainer.records())
    trainer.flat.data *= 1e30
    for save in (trainer.save, trainer.save_weights):
        with pytest.raises(DivergedError, match=r"after step 1 the loss is nan.*rate than 0.25.*--lr 0.125"):
            save(tmp_path / "file.h5")
    assert not list(tmp_path.iterdir())


def test_an_epoch_of_ruined_weights_is_no_best_one(monkeypatch):
    """Its steps are found wanting before they are validated."""
    trainer = make(HALVE, *split(HALVE))
    records = trainer.records()
    list(itertools.islice(records, 3))
    descend, calls = trainer._descend, []

    def ruining(lr, scale):
        calls.append(lr)
        descend(lr, scale)
        if len(calls) == 1:
            ruin(trainer)

    monkeypatch.setattr(trainer, "_descend", ruining)
    assert isinstance(next(records), Step)
    assert next(records)[1:] == (4, 0, 0, 0.5)


@pytest.mark.parametrize("on_divergence", ["stop", "halve"])
def test_a_validation_loss_that_is_not_finite(on_divergence, monkeypatch):
    trainer = make(replace(HALVE, on_divergence=on_divergence), *split(HALVE))
    monkeypatch.setattr(trainer, "validate", lambda averaged=False: Score(4, 0.5, 0.0, math.nan))
    records = itertools.islice(trainer.records(), 4, None)
    if on_divergence == "halve":
        assert next(records) == Restart("the validation loss is nan after epoch 1", 4, 0, 0, 0.5)
    else:
        with pytest.raises(DivergedError, match=r"the validation loss is nan after epoch 1; a lower rate than 0\.002"):
            next(records)


@pytest.mark.parametrize("tested", ["averaged", "raw"])
def test_an_average_of_which_nothing_finite_comes_is_not_the_best(tested):
    """Where no probability is a number, no error would be counted."""
    trainer = make(replace(HALVE, on_divergence="stop", tested=tested), *split(HALVE))
    records = trainer.records()
    list(itertools.islice(records, 4))
    trainer.average.kept *= 1e30
    with pytest.raises(DivergedError, match="the validation loss of the averaged weights is nan after epoch 1; a"):
        next(records)


def test_a_gradient_that_is_not_finite_changes_nothing():
    """Where it is measured: the loss may be finite still."""
    trainer = make(TrainingConfig(batch_size=16, clip_norm=1.0, aux_weight=0.0))
    before = trainer.flat.data.copy()
    backward = trainer.replica._backward

    def overflow(batch, share):
        losses = backward(batch, share)
        trainer.flat.gradient[7] = np.inf
        return losses

    trainer.replica._backward = overflow
    with pytest.raises(DivergedError, match="the norm of the gradient is inf at step 1; a lower rate"):
        next(trainer.records())
    np.testing.assert_array_equal(trainer.flat.data, before)


def test_a_trainer_that_stops_keeps_no_second_copy_of_itself():
    trainer = make(TrainingConfig(batch_size=16, epochs=1))
    next(trainer.records())
    assert trainer.guard.good is None
