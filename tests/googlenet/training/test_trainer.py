"""Training: losses and updates against arithmetic, small sets learned by heart, validation and what is best."""

import math

import numpy as np
import pytest

from data.base import ArrayDataset
from data.crops import crops
from data.sampling import Sampling, sample_generator
from googlenet.config import TrainingConfig
from googlenet.testing import Score
from googlenet.training import Epoch, Step
from minigrad import Tensor, nn, ops
from minigrad.errors import InputError
from tests.googlenet.training.cases import Pictures, make
from tests.runs import CLASSES, computing_alone, network

one_thread = pytest.fixture(computing_alone, scope="module", autouse=True)

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
    ({"bias_rate": 1.0, "bias_decay": 1.0, "momentum": 0.5, "weight_decay": 0.1, "aux_weight": 0.7}, {}),
    ({"bias_rate": 3.0, "bias_decay": 0.5, "weight_decay": 0.1}, {}),
    ({"init": "he", "bias_init": 0.05}, {"dtype": "float64"}),
    ({"seed": 3}, {"variant": "caffe", "heads": "aux1"}),
])
def test_two_steps_against_literal_momentum(options, model):
    """v <- mu v + lr (g + wd w), w <- w - v; biases at a rate and a decay of their own."""
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
            rate, decay = 0.001, config.weight_decay
            if path.endswith("bias"):
                rate, decay = rate * config.bias_rate, decay * config.bias_decay
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
    trainer = make(config, Pictures(8), std=90.0, width=0.25, dropout=0.0, aux_dropout=0.0)
    last = list(trainer.records())[-1]
    assert last.losses.main < 0.02
    assert last.losses.aux1 < 0.2
    assert last.losses.aux2 < 0.2
    trainer.validation = trainer.training
    score = trainer.validate()
    assert score.top1_error == 0
    assert score.loss < 0.02


# Batch norm.

@pytest.mark.parametrize(("size", "variant", "options"), [
    (32, "torchvision", {"batch_size": 5}), (32, "torchvision", {"batch_size": 1}), (64, "slim", {"batch_size": 5})])
def test_a_single_image_of_a_single_pixel_has_no_variance(size, variant, options):
    """In the last batch of 16 images; at 64 pixels in slim's heads, whose pool leaves 1x1."""
    with pytest.raises(InputError, match=rf"batch-size {options['batch_size']}: of 16 images the last.*--batch-size"):
        make(TrainingConfig(**options), variant=variant, image_size=size)


@pytest.mark.parametrize(("size", "variant", "options"), [
    (32, "paper", {"batch_size": 5}), (32, "torchvision", {"batch_size": 6}), (64, "torchvision", {"batch_size": 5}),
    (32, "torchvision", {"batch_size": 5, "freeze": "conv1..inception_5b,aux1,aux2"})])
def test_where_batch_norms_have_a_variance_or_learn_nothing_it_begins(size, variant, options):
    trainer = make(TrainingConfig(epochs=1, **options), variant=variant, image_size=size)
    assert isinstance(list(trainer.records())[-1], Epoch)


# Several batches to a step.

PLAIN = {"epochs": 2, "lr": 0.005, "schedule": "poly", "weight_decay": 0.1, "augment": "none"}


def trained(dataset, **options):
    """A trainer without dropout at the end of its run, in float64, and its steps."""
    config = TrainingConfig(**{**PLAIN, **options})
    trainer = make(config, dataset, dropout=0.0, aux_dropout=0.0, dtype="float64")
    return trainer, [record for record in trainer.records() if isinstance(record, Step)]


def missing(places, seed=0):
    """The pictures that stand at these places of the first epoch's order; the second epoch has others there."""
    order = make(TrainingConfig(seed=seed)).loader._order(0)
    return tuple(order[list(places)].tolist())


@pytest.mark.parametrize(("batch", "accumulate", "bad", "clip_norm"), [
    (4, 2, (), 0.0), (4, 2, (), 20.0), (5, 2, (), 20.0), (3, 3, (0, 7), 0.0), (1, 7, (4,), 20.0), (2, 100, (6, 7), 0.0),
    (2, 4, (2, 3), 0.0), (2, 4, (6, 7), 20.0), (2, 4, (0, 1, 15), 0.0)])  # some batches without an image
def test_a_step_is_of_the_mean_gradient_of_all_its_images(batch, accumulate, bad, clip_norm):
    """As one large batch's, also where groups are smaller: at the end of an epoch, and for images that are damaged."""
    dataset = Pictures(4, bad=missing(bad))
    one, steps = trained(dataset, batch_size=batch, accumulate=accumulate, clip_norm=clip_norm)
    other, large = trained(dataset, batch_size=batch * accumulate, clip_norm=clip_norm)
    assert [step[:3] for step in steps] == [step[:3] for step in large]
    assert len(steps) == 2 * one.epoch_steps
    for field in ("lr", "losses", "gradient_norm"):
        np.testing.assert_allclose([getattr(step, field) for step in steps], [getattr(step, field) for step in large],
                                   rtol=1e-9)
    np.testing.assert_allclose(one.flat.data, other.flat.data, rtol=0, atol=1e-12)
    np.testing.assert_allclose(one.optimiser.memory, other.optimiser.memory, rtol=0, atol=1e-12)
    assert not clip_norm or max(step.gradient_norm for step in steps) > clip_norm


def test_batches_of_a_step_have_dropout_masks_of_their_own():
    """Two batches of the same picture, weights that stand still: a step's loss is the mean of two different ones."""
    same = ArrayDataset(np.stack([Pictures(4).image(0)] * 16), [0] * 16, list(map(str, range(16))), CLASSES, "one")
    config = TrainingConfig(epochs=1, batch_size=8, lr=1e-12, augment="none")
    single = [record.losses.main for record in make(config, same).records() if isinstance(record, Step)]
    both, _ = make(TrainingConfig(epochs=1, batch_size=8, accumulate=2, lr=1e-12, augment="none"), same).records()
    assert single[0] != single[1]
    assert both.losses.main == pytest.approx(np.mean(single), rel=1e-6)


# Clipping, and rates of their own.

def first_step(**options):
    """A trainer after a step without decay, and its record: its velocity is the rate times the gradient."""
    trained = options.pop("trained", None)
    config = TrainingConfig(**{"batch_size": 16, "weight_decay": 0.0, "bias_rate": 1.0, **options})
    trainer = make(config)
    trainer.initialise(trained)
    return trainer, next(trainer.records())


def test_a_long_gradient_is_shortened_and_its_norm_told():
    whole, record = first_step()
    assert math.isnan(record.gradient_norm)
    norm = float(np.linalg.norm(whole.optimiser.memory / record.lr))
    for part in (0.25, 4.0):
        clipped, record = first_step(clip_norm=part * norm)
        assert record.gradient_norm == pytest.approx(norm, rel=1e-5)
        np.testing.assert_allclose(clipped.optimiser.memory, min(part, 1) * whole.optimiser.memory, rtol=1e-4,
                                   atol=1e-9)


def test_layers_left_to_chance_learn_at_a_rate_of_their_own():
    arrays = {path: array for path, array in network(classes=3).state().items() if not path.startswith("aux2")}
    (plain, _), (fast, _) = (first_step(trained=arrays, fresh_rate=rate) for rate in (1.0, 8.0))
    fresh = ("classifier/", "aux1/classifier/", "aux2/")
    for path, velocity in plain.flat.views(plain.optimiser.memory).items():
        factor = 8 if path.startswith(fresh) else 1
        np.testing.assert_array_equal(fast.flat.views(fast.optimiser.memory)[path], factor * velocity, err_msg=path)


def test_weights_that_are_all_drawn_have_one_rate():
    (plain, _), (fast, _) = (first_step(fresh_rate=rate) for rate in (1.0, 8.0))
    np.testing.assert_array_equal(plain.optimiser.memory, fast.optimiser.memory)


# Validation, and what is best.

def test_best_is_a_lower_error_than_all_before_or_the_same_at_a_lower_loss(monkeypatch):
    found = iter([(0.5, 0.5), (0.25, 2.0), (0.25, 1.0), (0.25, 1.0), (0.5, 0.125), (0.0, 3.0)])
    trainer = make(TrainingConfig(epochs=6, batch_size=16), validation=Pictures(1))

    def validate():
        error, loss = next(found)
        return Score(4, error, 0.0, loss)

    monkeypatch.setattr(trainer, "validate", validate)
    epochs = [record for record in trainer.records() if isinstance(record, Epoch)]
    assert [epoch.best for epoch in epochs] == [True, True, True, False, False, True]
    assert epochs[4].validation == Score(4, 0.5, 0.0, 0.125)
    assert trainer.best == (0.0, 3.0)


@pytest.mark.parametrize("tested", ["averaged", "raw"])
def test_the_best_is_the_best_of_what_is_tested(tested, monkeypatch):
    """The raw weights get better, their average worse."""
    trainer = make(TrainingConfig(epochs=2, batch_size=16, averaging="ema", tested=tested), validation=Pictures(1))
    raw, averages = iter([0.5, 0.25]), iter([0.25, 0.5])
    monkeypatch.setattr(trainer, "validate",
                        lambda averaged=False: Score(4, next(averages if averaged else raw), 0.0, 1.0))
    ends = [record for record in trainer.records() if isinstance(record, Epoch)]
    assert [end.best for end in ends] == ([True, False] if tested == "averaged" else [True, True])
    assert [end.averaged.top1_error for end in ends] == [0.25, 0.5]


def test_validation_is_in_testing_mode_and_training_goes_on_in_its_own():
    trainer = make(TrainingConfig(epochs=2, batch_size=16), validation=Pictures(2))
    modes = []
    validate = trainer.validate
    trainer.validate = lambda: (validate(), modes.append(trainer.model.training))[0]
    records = list(trainer.records())
    assert modes == [False, False]
    assert all(math.isfinite(r.losses.aux1) for r in records), "the heads are trained in the second epoch too"
    assert records[-1].validation.images == 8
