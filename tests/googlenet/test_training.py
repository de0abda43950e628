"""Training: rates, losses and updates against arithmetic, small sets learned by heart, and stopping without a trace."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

import minigrad
from data.base import ArrayDataset
from data.crops import crops
from data.datasets import split_validation
from data.errors import DataError
from data.preprocess import Preprocessing
from data.sampling import Sampling, sample_generator
from googlenet.config import ModelConfig, TrainingConfig
from googlenet.model import GoogLeNet, preprocessing_of
from googlenet.testing import Score
from googlenet.training import DivergedError, Epoch, Losses, Step, Trainer, configuration, learning_rate, mean
from googlenet.weights import load_model
from minigrad import Tensor, nn, ops
from minigrad.errors import InputError
from tests.runs import CLASSES, computing_alone, pictures

one_thread = pytest.fixture(computing_alone, scope="module", autouse=True)


class Pictures(ArrayDataset):
    """Embedded pictures in memory; those at `bad` can't be read."""

    def __init__(self, count: int, bad=()):
        images, labels = zip(*pictures("train", count), strict=True)
        super().__init__(np.stack(images), labels, [f"{i}.png" for i in range(len(labels))], CLASSES, "pictures")
        self.bad = bad

    def image(self, index):
        if index in self.bad:
            raise DataError(f"{index}.png: cannot be decoded")
        return super().image(index)


def make(config: TrainingConfig, dataset=None, validation=None, **model) -> Trainer:
    """A trainer of a tiny network, its weights drawn."""
    config_of_model = ModelConfig(**{"classes": 4, "image_size": 32, "width": 0.05, **model})
    images = Preprocessing(size=32, mean=(80.0,) * 3, order=preprocessing_of(config_of_model).order)
    trainer = Trainer(GoogLeNet(config_of_model), config, dataset or Pictures(4), validation, images)
    trainer.initialise()
    return trainer


def comparable(record):
    """A record without its speed; NaN equals NaN in text."""
    return str(record._replace(images_per_second=0)) if isinstance(record, Step) else str(record)


# Rates.

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


# Steps.

def test_a_record_of_each_step_and_epoch():
    """16 images in batches of 6: two whole ones and one of 4, twice."""
    config = TrainingConfig(epochs=2, batch_size=6, lr=0.01, schedule="poly", loader_threads=2)
    records = list(make(config).records())
    assert [type(record) for record in records] == [Step, Step, Step, Epoch] * 2
    steps = [record for record in records if isinstance(record, Step)]
    assert [(s.step, s.epoch, s.images) for s in steps] == [
        (1, 0, 6), (2, 0, 12), (3, 0, 16), (4, 1, 22), (5, 1, 28), (6, 1, 32)]
    expected = [0.01 * math.sqrt(1 - done / 6) for done in range(6)]
    np.testing.assert_allclose([s.lr for s in steps], expected, rtol=1e-12)
    assert all(s.images_per_second > 0 for s in steps)
    epochs = [record for record in records if isinstance(record, Epoch)]
    assert [e[:3] for e in epochs] == [(0, 3, 16), (1, 6, 32)]
    assert {(e.validation, e.best) for e in epochs} == {(None, True)}
    for epoch, own in zip(epochs, (steps[:3], steps[3:]), strict=True):
        np.testing.assert_allclose(epoch.losses, np.mean([s.losses for s in own], axis=0), rtol=1e-12)


@pytest.mark.parametrize(("heads", "built"), [("both", (1, 1)), ("aux1", (1, 0)), ("aux2", (0, 1)), ("none", (0, 0))])
def test_total_is_the_main_loss_and_a_part_of_those_of_the_heads(heads, built):
    config = TrainingConfig(epochs=1, batch_size=16, aux_weight=0.25)
    losses = next(make(config, heads=heads).records()).losses
    assert [math.isfinite(loss) for loss in (losses.aux1, losses.aux2)] == [bool(each) for each in built]
    extra = sum(loss for loss in (losses.aux1, losses.aux2) if math.isfinite(loss))
    assert losses.total == pytest.approx(losses.main + 0.25 * extra, rel=1e-6)


@pytest.mark.parametrize(("options", "model"), [
    ({}, {}),
    ({"bias_rate_doubled": False, "momentum": 0.5, "weight_decay": 0.1, "aux_weight": 0.7}, {}),
    ({"init": "he", "bias_init": 0.05}, {"dtype": "float64"}),
    ({"seed": 3}, {"variant": "caffe", "heads": "aux1"}),
])
def test_two_steps_against_literal_momentum(options, model):
    """v <- mu v + lr (g + wd w), w <- w - v; biases at twice the rate and without decay where so chosen."""
    config = TrainingConfig(**{"epochs": 1, "batch_size": 8, "lr": 0.001, "schedule": "constant", **options})
    trainer, twin = (make(config, **model) for _ in range(2))
    assert trainer.flat.data.dtype == model.get("dtype", "float32")
    velocity = {path: np.zeros(p.shape) for path, p in twin.model.named_parameters()}
    twin.model.train()
    for step, batch in enumerate(twin.loader.epoch(0)):
        nn.seed_dropout(twin.model, config.seed, step)
        twin.flat.zero_gradient()
        outputs = twin.model(Tensor(batch.images.astype(trainer.flat.data.dtype)))
        loss = ops.cross_entropy(outputs.logits, batch.labels)
        for head in (outputs.aux1, outputs.aux2):
            if head is not None:
                loss = loss + ops.cross_entropy(head, batch.labels) * config.aux_weight
        loss.backward()
        for path, p in twin.model.named_parameters():
            alone = path.endswith("bias") and config.bias_rate_doubled
            rate, decay = (0.002, 0) if alone else (0.001, config.weight_decay)
            velocity[path] = config.momentum * velocity[path] + rate * (p.grad + decay * p.data)
            p.data[...] = p.data - velocity[path]
    assert step == 1
    steps = [record for record in trainer.records() if isinstance(record, Step)]
    assert steps[-1].losses.total == pytest.approx(loss.item(), rel=1e-6)
    for path, p in trainer.model.named_parameters():
        np.testing.assert_allclose(p.data, dict(twin.model.named_parameters())[path].data, rtol=1e-5, atol=1e-7,
                                   err_msg=path)


def test_biases_of_classifiers_begin_at_zero_the_others_not():
    parameters = make(TrainingConfig(bias_init=0.125)).model.parameters()
    assert {path for path, array in parameters.items() if path.endswith("bias") and not array.any()} == {
        "classifier/bias", "aux1/classifier/bias", "aux2/classifier/bias"}
    assert (parameters["inception_4c/conv_3x3/bias"] == 0.125).all()


def test_precisions_agree_on_the_first_loss():
    config = TrainingConfig(epochs=1, batch_size=16)
    single, double = (next(make(config, dtype=dtype).records()).losses for dtype in ("float32", "float64"))
    np.testing.assert_allclose(single, double, rtol=1e-4)
    assert single != double


@pytest.mark.parametrize("augment", ["none", "crop"])
def test_training_images_are_centres_or_random_crops(augment):
    trainer = make(TrainingConfig(batch_size=16, augment=augment))
    batch = next(trainer.loader.epoch(0))
    centres = np.stack([trainer.preprocessing.normalise(crops(trainer.training.image(i), 1, trainer.preprocessing)[0])
                        for i in batch.indices.tolist()])
    same = [np.array_equal(a, b) for a, b in zip(batch.images, centres, strict=True)]
    assert all(same) if augment == "none" else sum(same) < 4


def test_training_images_may_be_the_papers_samples():
    """Each image's own, for its seed, epoch and number, in the network's colours and with the chosen fields."""
    trainer = make(TrainingConfig(batch_size=16, seed=4, augment="paper", aspect_law="uniform", distortion=0.3,
                                  lighting=0.0), variant="caffe")
    sampling = Sampling(aspect_law="uniform", distortion=0.3, lighting=0.0)
    batch = next(trainer.loader.epoch(2))
    for x, index in zip(batch.images, batch.indices.tolist(), strict=True):
        sample = sampling.sample(trainer.training.image(index), 32, sample_generator(4, 2, index))
        np.testing.assert_array_equal(x, trainer.preprocessing.normalise(sample))


def test_each_epoch_has_an_order_of_its_own():
    loader = make(TrainingConfig(batch_size=16)).loader
    orders = [next(loader.epoch(number)).indices.tolist() for number in (0, 1)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(16)) != orders[0]


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_each_step_has_dropout_masks_of_its_own(rate):
    """With weights that all but stand still, the loss of the same images changes from step to step by them alone."""
    config = TrainingConfig(epochs=3, batch_size=16, lr=1e-12, augment="none")
    trainer = make(config, dropout=rate, aux_dropout=rate)
    trainer.loader.shuffle = False
    losses = [record.losses for record in trainer.records() if isinstance(record, Step)]
    assert (np.ptp(losses, axis=0) > 1e-3).tolist() == [rate > 0] * 4


def test_learns_32_images_by_heart():
    """Near-zero loss of all three classifiers after a few dozen steps."""
    config = TrainingConfig(epochs=64, batch_size=32, lr=0.005, schedule="poly", weight_decay=0.0, init="he",
                            bias_init=0.0, augment="none")
    trainer = make(config, Pictures(8), width=0.25, dropout=0.0, aux_dropout=0.0)
    trainer.preprocessing = Preprocessing(size=32, mean=(80.0,) * 3, std=(90.0,) * 3)
    last = list(trainer.records())[-1]
    assert last.losses.main < 0.02
    assert last.losses.aux1 < 0.2
    assert last.losses.aux2 < 0.2
    trainer.validation = trainer.training
    score = trainer.validate()
    assert score.top1_error == 0
    assert score.loss < 0.02


# Validation, best weights, warnings.

def test_best_is_a_lower_loss_than_all_before(monkeypatch):
    losses = iter([0.5, 0.5, 0.25, 0.75, 0.25, 0.0])
    trainer = make(TrainingConfig(epochs=6, batch_size=16), validation=Pictures(1))
    monkeypatch.setattr(trainer, "validate", lambda: Score(4, 0.5, 0.0, next(losses)))
    epochs = [record for record in trainer.records() if isinstance(record, Epoch)]
    assert [epoch.best for epoch in epochs] == [True, False, True, False, False, True]
    assert epochs[3].validation == Score(4, 0.5, 0.0, 0.75)


def test_validation_is_in_testing_mode_and_training_goes_on_in_its_own():
    trainer = make(TrainingConfig(epochs=2, batch_size=16), validation=Pictures(2))
    modes = []
    validate = trainer.validate
    trainer.validate = lambda: (validate(), modes.append(trainer.model.training))[0]
    records = list(trainer.records())
    assert modes == [False, False]
    assert all(math.isfinite(r.losses.aux1) for r in records), "the heads are trained in the second epoch too"
    assert records[-1].validation.images == 8


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


def test_what_learns_is_not_warned_of():
    config = TrainingConfig(epochs=1, batch_size=4, lr=0.002, init="he")
    assert [r.warnings for r in make(config, Pictures(24), heads="none").records() if isinstance(r, Epoch)] == [()]


def test_a_loss_that_is_not_finite_changes_nothing():
    trainer = make(TrainingConfig(epochs=2, batch_size=4, lr=1e30))
    records = trainer.records()
    step = next(records)
    assert math.isfinite(step.losses.total)
    before = trainer.flat.data.copy(), trainer.sgd.velocity.copy(), trainer.step
    with pytest.raises(DivergedError, match=r"the loss is (nan|inf) at step 2.*1e\+30.*--lr 5e\+29"):
        next(records)
    np.testing.assert_array_equal(trainer.flat.data, before[0])
    np.testing.assert_array_equal(trainer.sgd.velocity, before[1])
    assert trainer.step == before[2]


def test_mean_of_no_losses_is_nan():
    assert all(math.isnan(loss) for loss in mean([]))
    assert mean([Losses(1, 2, 3, 4), Losses(3, 4, 5, 6)]) == Losses(2, 3, 4, 5)


# The same again.

LONG = TrainingConfig(epochs=3, batch_size=5, lr=0.002, schedule="poly", init="he", loader_threads=3, seed=5)


def long_run() -> Trainer:
    """36 images less those held out, one of them damaged, in seven steps an epoch; dropout at work."""
    training, validation = split_validation(Pictures(9, bad=(4,)), 0.1, 5)
    return make(LONG, training, validation)


def resumed(path) -> Trainer:
    """A trainer made anew from a checkpoint alone."""
    loaded = load_model(path)
    config = configuration(loaded, path)
    training, validation = split_validation(Pictures(9, bad=(4,)), config.validation_fraction, config.seed)
    trainer = Trainer(loaded.model, config, training, validation, loaded.preprocessing)
    trainer.restore(loaded)
    return trainer


def run_in_pieces(path, stops) -> tuple[Trainer, list[str]]:
    """The long run, stopped after so many records, each time saved and made anew from the file."""
    trainer, found = long_run(), []
    for stop in [*stops, None]:
        running = trainer.records()
        found += [comparable(record) for record in itertools.islice(running, stop and stop - len(found))]
        running.close()
        if stop is not None:
            assert len(found) == stop
            trainer.save(path)
            trainer = resumed(path)
    return trainer, found


@pytest.fixture(scope="module")
def uninterrupted():
    return run_in_pieces(None, [])


def assert_same_state(one: Trainer, other: Trainer):
    np.testing.assert_array_equal(one.flat.data, other.flat.data)
    np.testing.assert_array_equal(one.sgd.velocity, other.sgd.velocity)
    for name in ("step", "epoch", "batch", "images", "lowest_loss"):
        assert getattr(one, name) == getattr(other, name), name
    assert one.loader.bad == other.loader.bad


@pytest.mark.parametrize("threads", [1, 2])
def test_same_seed_and_threads_same_run(threads, tmp_path):
    """Bit for bit, and in two pieces too."""
    if threads > minigrad.available_threads():
        pytest.skip("one core")
    minigrad.set_threads(threads)
    whole, records = run_in_pieces(tmp_path / "last.h5", [])
    again, same_records = run_in_pieces(tmp_path / "last.h5", [4])
    minigrad.set_threads(1)
    assert same_records == records
    assert_same_state(again, whole)


def test_another_seed_is_another_order_of_other_crops_and_weights():
    trainers = [make(TrainingConfig(batch_size=16, seed=seed)) for seed in (5, 6)]
    one, other = (next(trainer.loader.epoch(0)) for trainer in trainers)
    assert one.indices.tolist() != other.indices.tolist()
    assert not np.array_equal(one.images[one.indices.argsort()], other.images[other.indices.argsort()])
    assert not np.array_equal(trainers[0].flat.data, trainers[1].flat.data)


@pytest.mark.parametrize("stops", [(3,), (7,), (8,), (9,), (2, 8, 12, 23)], ids=str)
def test_resumed_is_as_never_stopped(uninterrupted, tmp_path, stops):
    """Of the eight records of an epoch the last is its end: stopped within it, before that, after it, all over."""
    trainer, found = run_in_pieces(tmp_path / "last.h5", stops)
    assert found == uninterrupted[1]
    assert_same_state(trainer, uninterrupted[0])


def test_running_statistics_of_batch_norm_go_on_too(tmp_path):
    """They are no parameters: a run that is resumed has them from the checkpoint."""
    def run(trainer, steps):
        return [comparable(record) for record in itertools.islice(trainer.records(), steps)]

    config = TrainingConfig(epochs=2, batch_size=4, seed=3, validation_fraction=0)
    whole = make(config, Pictures(4), variant="torchvision", heads="aux1")
    expected = run(whole, 6)
    first = make(config, Pictures(4), variant="torchvision", heads="aux1")
    found = run(first, 2)
    first.save(tmp_path / "last.h5")
    loaded = load_model(tmp_path / "last.h5")
    again = Trainer(loaded.model, config, Pictures(4), None, loaded.preprocessing)
    again.restore(loaded)
    assert found + run(again, 4) == expected
    assert np.ptp(whole.model.conv1.batch_norm.mean.data) > 0, "training moved them"
    for path, array in whole.model.state().items():
        np.testing.assert_array_equal(again.model.state()[path], array, err_msg=path)


@pytest.mark.parametrize("averaging", ["tail", "ema"])
@pytest.mark.parametrize("stop", [2, 5, 7])
def test_averages_go_on_too_and_are_what_is_tested(tmp_path, averaging, stop):
    """Of six steps in two epochs, four records each; the mean of the tail begins after three."""
    config = TrainingConfig(epochs=2, batch_size=4, seed=3, validation_fraction=0.25, averaging=averaging)
    training, validation = split_validation(Pictures(4), 0.25, 3)

    def run(trainer, count=None):
        return [comparable(record) for record in itertools.islice(trainer.records(), count)]

    whole = make(config, training, validation)
    expected = run(whole)
    first = make(config, training, validation)
    found = run(first, stop)
    first.save(tmp_path / "last.h5")
    loaded = load_model(tmp_path / "last.h5", raw=True)
    again = Trainer(loaded.model, configuration(loaded, tmp_path), training, validation, loaded.preprocessing)
    again.restore(loaded)
    assert found + run(again) == expected
    again.save_weights(tmp_path / "best.h5")
    raw, tested = load_model(tmp_path / "best.h5", raw=True).model, load_model(tmp_path / "best.h5").model
    for path, array in whole.averaged().items():
        np.testing.assert_array_equal(tested.state()[path], array)
        np.testing.assert_array_equal(raw.state()[path], whole.model.state()[path])
    assert (tested.conv1.weight.data != raw.conv1.weight.data).any()


def test_the_best_is_the_best_of_what_is_tested():
    """An average that lags behind is judged by its own loss, not by that of the weights it is made of."""
    training, validation = split_validation(Pictures(4), 0.25, 3)
    trainer = make(TrainingConfig(epochs=2, batch_size=4, averaging="ema"), training, validation)
    ends = [record for record in trainer.records() if isinstance(record, Epoch)]
    assert all(end.averaged is not None and end.averaged.loss != end.validation.loss for end in ends)
    assert trainer.lowest_loss == min(end.averaged.loss for end in ends)


def test_a_longer_run_keeps_the_beginning_of_its_mean(tmp_path):
    config = TrainingConfig(epochs=2, batch_size=4, averaging="tail", validation_fraction=0)
    trainer = make(config, Pictures(4))
    list(trainer.records())
    trainer.save(tmp_path / "last.h5")
    loaded = load_model(tmp_path / "last.h5", raw=True)
    longer = Trainer(loaded.model, replace(config, epochs=6), Pictures(4), None, loaded.preprocessing)
    longer.restore(loaded)
    assert longer.average.settings() == trainer.average.settings()
    np.testing.assert_array_equal(longer.average.average, trainer.average.average)


def test_saving_changes_nothing(uninterrupted, tmp_path):
    trainer, found = long_run(), []
    for record in trainer.records():
        found.append(comparable(record))
        trainer.save(tmp_path / "last.h5")
        trainer.save_weights(tmp_path / "best.h5")
    assert found == uninterrupted[1]


def test_damaged_images_are_remembered(tmp_path):
    trainer = long_run()
    list(itertools.islice(trainer.records(), 8))
    assert list(trainer.loader.bad) == ["4.png"]
    trainer.save(tmp_path / "last.h5")
    assert resumed(tmp_path / "last.h5").loader.bad == trainer.loader.bad


def test_a_checkpoint_of_other_images_is_refused(tmp_path):
    trainer = long_run()
    trainer.save(tmp_path / "last.h5")
    loaded = load_model(tmp_path / "last.h5")
    other = Trainer(loaded.model, LONG, Pictures(4), None, loaded.preprocessing)
    with pytest.raises(InputError, match=r"trained on 32 images.*holds 16 images.*resume with the data"):
        other.restore(loaded)


def test_relabelled_images_are_other_images(tmp_path):
    trainer = make(LONG)
    trainer.save(tmp_path / "last.h5")
    loaded = load_model(tmp_path / "last.h5")
    relabelled = Pictures(4)
    relabelled.labels = relabelled.labels[::-1].copy()
    with pytest.raises(InputError, match="resume with the data"):
        Trainer(loaded.model, LONG, relabelled, None, loaded.preprocessing).restore(loaded)


def test_weights_alone_are_half_and_no_checkpoint(tmp_path):
    trainer = make(LONG)
    trainer.save(tmp_path / "last.h5")
    trainer.save_weights(tmp_path / "best.h5")
    assert (tmp_path / "best.h5").stat().st_size < 0.6 * (tmp_path / "last.h5").stat().st_size
    loaded = load_model(tmp_path / "best.h5")
    assert loaded.preprocessing == trainer.preprocessing
    assert loaded.classes == CLASSES
    for path, array in loaded.model.parameters().items():
        np.testing.assert_array_equal(array, trainer.model.parameters()[path])
    with pytest.raises(InputError, match=r"best\.h5 holds weights but no state of training.*last\.h5"):
        configuration(loaded, tmp_path / "best.h5")


def test_a_checkpoint_knows_its_configuration(tmp_path):
    trainer = make(LONG, heads="aux2")
    trainer.save(tmp_path / "last.h5")
    loaded = load_model(tmp_path / "last.h5")
    assert (loaded.model.config, configuration(loaded, "last.h5")) == (trainer.model.config, LONG)
