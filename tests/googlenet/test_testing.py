"""From pictures to probabilities and errors: averages over crops and networks against literal loops, ranks, damage."""

import threading

import numpy as np
import pytest

from data.base import ArrayDataset
from data.crops import COUNTS, crops, scales, shared_crops
from data.damaged import Damaged
from data.errors import DataError
from data.preprocess import Preprocessing, resize
from googlenet.inference import Predictor
from googlenet.testing import Judged, Prediction, Spent, answers, judge, pooled, predictions, score, tally, top
from googlenet.weights import LoadedModel
from minigrad import Tensor
from minigrad.errors import InputError
from tests.runs import CLASSES, computing_alone, network

one_thread = pytest.fixture(computing_alone, scope="module", autouse=True)


class Photos(ArrayDataset):
    """Photos of several shapes, some square, held in memory; those at `bad` can't be read."""

    def __init__(self, shapes, bad=()):
        rng = np.random.default_rng(0)
        self.photos = [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]
        names = [f"{i}.jpg" for i in range(len(shapes))]
        super().__init__(np.zeros((len(shapes), 1, 1), np.uint8), np.arange(len(shapes)) % 4, names, CLASSES, "photos")
        self.bad = bad

    def image(self, index):
        if index in self.bad:
            raise DataError(f"{index}.jpg: cannot be decoded")
        return self.photos[index]


SHAPES = [(40, 60), (50, 50), (64, 41)]
WAYS = {
    "paper": Preprocessing(size=32, mean=(80.0, 90.0, 100.0)),
    "caffe": Preprocessing(size=36, fit="warp", order="BGR", mean=(104.0, 117.0, 123.0), std=(2.0, 1.0, 1.0)),
}


def predictor(variant="paper", seed=0, **config) -> Predictor:
    way = WAYS[variant]
    return Predictor(LoadedModel(network(seed, variant=variant, image_size=way.size, **config), CLASSES, way))


def literal(predictor: Predictor, views) -> np.ndarray:
    """The softmax of the network's logits for each view by itself, averaged."""
    total = np.zeros(len(CLASSES))
    for view in views:
        way = predictor.preprocessing
        pixels = view[..., ::-1] if way.order == "BGR" else view
        x = ((pixels.astype(np.float64) - way.mean) / way.std).astype(np.float32)
        logits = predictor.model(Tensor(x[None])).logits.data[0].astype(np.float64)
        total += np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    return total / len(views)


@pytest.mark.parametrize("count", [1, 10, 144])
def test_mean_over_crops_is_that_of_a_literal_loop(count):
    photos, one = Photos(SHAPES), predictor()
    found = list(predictions([one], photos, count))
    assert [(each.image, each.label) for each in found] == [(0, 0), (1, 1), (2, 2)]
    for each in found:
        expected = literal(one, crops(photos.image(each.image), count, one.preprocessing))
        np.testing.assert_allclose(each.probabilities, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("count", [1, 10])
def test_mean_over_networks_each_with_its_own_images(count):
    """Two that see images alike and one that sees them otherwise."""
    photos = Photos(SHAPES)
    networks = [predictor(seed=1), predictor("caffe", seed=2), predictor(seed=3)]
    together = list(predictions(networks, photos, count))
    alone = [list(predictions([each], photos, count)) for each in networks]
    for i, each in enumerate(together):
        expected = sum(single[i].probabilities for single in alone) / 3
        np.testing.assert_allclose(each.probabilities, expected, rtol=1e-6)
        assert max(np.abs(single[i].probabilities - expected).max() for single in alone) > 1e-3, "all the same"


def test_48_crops_of_a_square_have_the_mean_of_all_144():
    photos, one = Photos([(50, 50)]), predictor()
    image, views = photos.image(0), []
    for side in scales(32):
        scaled = resize(image, side, side, "bilinear")
        far, middle = side - 32, (side - 32) // 2
        for _ in ("left", "centre", "right"):
            six = [scaled[:32, :32], scaled[:32, far:], scaled[far:, :32], scaled[far:, far:],
                   scaled[middle:middle + 32, middle:middle + 32], resize(scaled, 32, 32, "bilinear")]
            views += [*six, *(view[:, ::-1] for view in six)]
    assert len(views) == 144
    found = next(predictions([one], photos, 144))
    np.testing.assert_allclose(found.probabilities, literal(one, views), rtol=1e-4, atol=1e-7)


def test_each_distinct_crop_is_computed_once(monkeypatch):
    photos, one = Photos([(50, 50)]), predictor()
    seen = []
    compute = one.probabilities
    monkeypatch.setattr(one, "probabilities", lambda views: (seen.append(len(views)), compute(views))[1])
    list(predictions([one], photos, 144))
    assert seen == [48]


def test_more_images_than_a_batch_in_order():
    photos, one = Photos([(40, 40 + i) for i in range(35)]), predictor()
    found = list(predictions([one], photos, 1))
    assert [each.image for each in found] == list(range(35))
    for each in found[15:18]:
        expected = literal(one, crops(photos.image(each.image), 1, one.preprocessing))
        np.testing.assert_allclose(each.probabilities, expected, rtol=1e-4, atol=1e-7)


def test_threads_change_nothing():
    photos, one = Photos([(40, 40 + i) for i in range(20)], bad=(3,)), predictor()
    results = [[(p.image, p.label, p.probabilities.tolist()) for p in predictions([one], photos, 1, threads=threads)]
               for threads in (1, 3)]
    assert results[0] == results[1]


def test_limit_takes_the_first():
    photos, one = Photos([(40, 40)] * 5), predictor()
    assert [each.image for each in predictions([one], photos, 1, limit=3)] == [0, 1, 2]
    assert len(list(predictions([one], photos, 1, limit=99))) == 5


def test_float64_networks_predict_alike():
    photos = Photos(SHAPES)
    single, double = (list(predictions([predictor(dtype=dtype)], photos, 1)) for dtype in ("float32", "float64"))
    for one, other in zip(single, double, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=1e-4)


def test_damaged_images_are_left_out_and_named():
    photos, one, bad = Photos([(40, 40)] * 20, bad=(0, 7, 19)), predictor(), {}
    found = list(predictions([one], photos, 1, max_bad=3, bad=bad))
    assert [each.image for each in found] == [i for i in range(20) if i not in (0, 7, 19)]
    assert [each.label for each in found] == [i % 4 for i in range(20) if i not in (0, 7, 19)]
    assert bad == {f"{i}.jpg": f"{i}.jpg: cannot be decoded" for i in (0, 7, 19)}
    whole = list(predictions([one], Photos([(40, 40)] * 20), 1))
    np.testing.assert_allclose(found[5].probabilities, whole[6].probabilities, rtol=1e-5)


def test_too_many_damaged_images_end_it():
    photos = Photos([(40, 40)] * 20, bad=(0, 7, 19))
    with pytest.raises(DataError, match=r"photos: 3 images cannot be used, more than the 2 allowed.*19\.jpg"):
        list(predictions([predictor()], photos, 1, max_bad=2))


def test_a_picture_too_thin_to_crop_counts_as_damaged():
    bad = {}
    found = list(predictions([predictor()], Photos([(40, 40), (2, 400)]), 1, bad=bad))
    assert [each.image for each in found] == [0]
    assert "too thin" in bad["1.jpg"]


def test_no_image_left_is_told():
    with pytest.raises(InputError, match="no image could be classified"):
        score([predictor()], Photos([(40, 40)] * 2, bad=(0, 1)), 1)


@pytest.mark.parametrize("ensemble", [False, True])
def test_other_numbers_of_classes_are_refused(ensemble):
    way = WAYS["paper"]
    other = Predictor(LoadedModel(network(classes=5), tuple("abcde"), way))
    with pytest.raises(InputError, match=r"5 classes.*photos has 4"):
        next(predictions([predictor(), other] if ensemble else [other], Photos(SHAPES), 1))


def test_other_names_of_classes_are_refused():
    classes = (*CLASSES[:2], "zebra", CLASSES[3])
    other = Predictor(LoadedModel(network(), classes, WAYS["paper"]))
    with pytest.raises(InputError, match='class 2 is "zebra" to the network and "coat" in photos'):
        next(predictions([other], Photos(SHAPES), 1))


def test_a_damaged_image_is_told_once(caplog):
    photos, one, bad = Photos([(40, 40)] * 4, bad=(1,)), predictor(), {}
    with caplog.at_level("WARNING"):
        for _ in range(2):
            score([one], photos, 1, bad=bad)
    assert [record.getMessage() for record in caplog.records] == ["left out 1.jpg: 1.jpg: cannot be decoded"]


def test_left_early_no_thread_stays():
    running = predictions([predictor()], Photos([(40, 40)] * 60), 1, threads=2)
    next(running)
    assert [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]
    running.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


# Several tests in one pass.

@pytest.fixture
def seen(monkeypatch):
    """The crops of each forward pass, whichever network's."""
    passes, compute = [], Predictor.probabilities
    monkeypatch.setattr(Predictor, "probabilities", lambda self, views: (passes.append(views), compute(self, views))[1])
    return passes


@pytest.mark.parametrize(("size", "width", "tolerance"), [(32, 0.05, 0), (56, 0.05, 0), (64, 0.5, 1e-5)])
def test_every_test_finds_what_it_finds_alone(size, width, tolerance):
    """To the bit with small networks; kernels of larger ones round by how many crops are together."""
    photos, way = Photos(SHAPES, bad=(1,)), Preprocessing(size=size, mean=(80.0, 90.0, 100.0))
    networks = [Predictor(LoadedModel(network(seed, image_size=size, width=width), CLASSES, way)) for seed in (1, 2)]
    networks.append(predictor("caffe", seed=3))
    for each in answers(networks, photos, COUNTS, ("mean", "max")):
        assert each.probabilities.keys() == {(count, pool) for count in COUNTS for pool in ("mean", "max")}
        for (count, pool), found in each.probabilities.items():
            alone = {p.image: p for p in predictions(networks, photos, count, pool=pool)}[each.image]
            np.testing.assert_allclose(found.mean(axis=0), alone.probabilities, rtol=tolerance)
            for one, own in zip(networks, found, strict=True):
                by_itself = {p.image: p for p in predictions([one], photos, count, pool=pool)}[each.image]
                np.testing.assert_allclose(own, by_itself.probabilities, rtol=tolerance)


def test_no_crop_is_computed_twice(seen):
    """At these sizes the ten are among the 144 where no half pixels are in the way."""
    photos = Photos([(64, 80), (64, 81), (50, 50)])
    list(answers([predictor(seed=1), predictor(seed=2)], photos, COUNTS))
    distinct = [len({view.tobytes() for count in COUNTS for view in crops(photo, count, WAYS["paper"])})
                for photo in photos.photos]
    assert [len(views) for views in seen] == [count for count in distinct for _ in range(2)]
    assert all(len({view.tobytes() for view in views}) == len(views) for views in seen)
    assert distinct[2] == 48, "of a square picture all other crops are among the 144"
    assert max(distinct[:2]) < 144 + 10


def test_the_papers_sizes_share_all_crops():
    rng = np.random.default_rng(0)
    for shape, count in (((270, 300), 144), ((301, 256), 144), ((260, 260), 48)):
        shared = shared_crops(rng.integers(0, 256, (*shape, 3), np.uint8), COUNTS, Preprocessing())
        assert len(shared.views) == count


def test_start_and_limit(seen):
    photos, one = Photos([(40, 40)] * 6), predictor()
    assert [each.image for each in answers([one], photos, (1,), start=2, limit=5)] == [2, 3, 4]
    assert sum(map(len, seen)) == 3, "what came before is not computed"
    assert list(answers([one], photos, (1,), start=6)) == []


def test_damaged_images_of_before_are_remembered(caplog):
    photos, damaged = Photos([(40, 40)] * 4, bad=(1,)), Damaged("photos", 1)
    damaged.found["0.jpg"] = "of before"
    with pytest.raises(DataError, match="2 images cannot be used"):
        list(answers([predictor()], photos, (1,), damaged=damaged))


def test_the_maximum_over_crops_is_that_of_a_literal_loop():
    photos, one = Photos(SHAPES), predictor()
    for each in predictions([one], photos, 10, pool="max"):
        views = crops(photos.image(each.image), 10, one.preprocessing)
        alone = [literal(one, [view]) for view in views]
        most = [max(p[c] for p in alone) for c in range(len(CLASSES))]
        np.testing.assert_allclose(each.probabilities, np.array(most) / sum(most), rtol=1e-4, atol=1e-7)


def test_the_maximum_of_an_ensemble_is_the_mean_of_its_networks_maxima():
    photos, networks = Photos(SHAPES), [predictor(seed=1), predictor(seed=2)]
    together = list(predictions(networks, photos, 10, pool="max"))
    alone = [list(predictions([one], photos, 10, pool="max")) for one in networks]
    for both, first, second in zip(together, *alone, strict=True):
        np.testing.assert_allclose(both.probabilities, (first.probabilities + second.probabilities) / 2, rtol=1e-12)


def test_pools():
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]])
    np.testing.assert_allclose(pooled(p, "mean"), [0.4, 0.4, 0.2])
    np.testing.assert_allclose(pooled(p, "max"), np.array([0.7, 0.6, 0.3]) / 1.6)


# Time.

def test_time_of_forward_passes_by_network_and_test():
    photos = Photos([(50, 50), (64, 80)]).photos
    square, wide = (shared_crops(photo, COUNTS, WAYS["paper"]) for photo in photos)
    distinct = len({view.tobytes() for view in crops(photos[1], 144, WAYS["paper"])})
    spent = Spent(2)
    for network_, images, seconds in ((0, [square], 99.0), (0, [wide, square], 3.0), (1, [square], 7.0)):
        spent.add(network_, seconds, images)
    a_crop = 3.0 / (len(wide.views) + 48), 7.0 / 48
    assert spent.an_image([0], 1) == pytest.approx(a_crop[0]), "the first pass loads kernels"
    assert spent.an_image([1], 10) == pytest.approx(10 * a_crop[1]), "but where it is the only one"
    assert spent.an_image([0, 1], 144) == pytest.approx(a_crop[0] * (48 + 48 + distinct) / 3 + a_crop[1] * 48)


def test_time_is_measured():
    spent = Spent(1)
    list(answers([predictor()], Photos(SHAPES), COUNTS, spent=spent))
    assert 0 < spent.an_image([0], 1) < spent.an_image([0], 10) < spent.an_image([0], 144) < 10


# Errors.

def found(probabilities, label):
    return judge(Prediction(7, label, np.array(probabilities)))


def test_what_is_kept_of_an_image():
    assert found([0.0, 0.1, 0.2, 0.3, 0.15, 0.25], 4) == Judged(
        7, 4, 3, pytest.approx(-np.log(0.15)), (3, 5, 2, 4, 1), (0.3, 0.25, 0.2, 0.15, 0.1))
    assert found([0.25, 0.75], 1) == Judged(7, 1, 0, pytest.approx(-np.log(0.75)), (1, 0), (0.75, 0.25))


@pytest.mark.parametrize(("probabilities", "order"), [
    ([0.1, 0.5, 0.4], [1, 2, 0]), ([0.2, 0.3, 0.2, 0.3], [1, 3, 0, 2]), ([0.25] * 4, [0, 1, 2, 3]),
    ([0.0, 0.1, 0.2, 0.3, 0.15, 0.25], [3, 5, 2, 4, 1])])
def test_top_is_the_best_five_the_lower_number_first(probabilities, order):
    assert top(np.array(probabilities)).tolist() == order
    assert top(np.array(probabilities), 2).tolist() == order[:2]


# Six classes: 0 is first, 1 and 2 tie, 3 and 4 tie, 5 is last.
SIX = [0.4, 0.2, 0.2, 0.075, 0.075, 0.05]


@pytest.mark.parametrize(("label", "top1", "top5"), [(0, 0, 0), (1, 1, 0), (4, 1, 0), (5, 1, 1)])
def test_errors_of_one_image(label, top1, top5):
    result = tally([found(SIX, label)])
    assert result[:3] == (1, top1, top5)
    assert result.loss == pytest.approx(-np.log(SIX[label]))


def test_of_equally_probable_classes_the_lower_number_wins():
    """As argmax has it: six equal classes are right for the first, and wrong by top-5 for the sixth."""
    equal = [1 / 6] * 6
    assert [tally([found(equal, label)])[1:3] for label in range(6)] == [(0, 0), *[(1, 0)] * 4, (1, 1)]


def test_errors_are_fractions_and_the_loss_a_mean():
    result = tally([found(SIX, label) for label in (0, 0, 3, 5)])
    assert (result.images, result.top1_error, result.top5_error) == (4, 0.5, 0.25)
    assert result.loss == pytest.approx(-np.mean(np.log([0.4, 0.4, 0.075, 0.05])))


def test_a_probability_of_zero_is_a_large_loss():
    assert 700 < tally([found([1.0, 0.0], 1)]).loss < np.inf


def test_few_classes_have_no_error_by_top_5():
    assert tally([found([0.5, 0.3, 0.2], 2)]).top5_error == 0
