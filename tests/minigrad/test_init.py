"""Initialisers: their distributions, and that a parameter's values depend on nothing but seed and path."""

import numpy as np
import pytest
from scipy import stats

from minigrad import InputError, nn
from minigrad.init import initialise
from tests.minigrad.test_nn import Network, Normalised, filled

FAN_IN = 3 * 3 * 48  # of the convolution below


class Model(nn.Module):
    def __init__(self):
        self.conv = nn.Conv2d(48, 128, 3)
        self.linear = nn.Linear(300, 200)
        self.stem = nn.DepthwiseConv2d(64, 32, 5)


def drawn(weight: str, path: str, seed: int = 0) -> np.ndarray:
    model = Model()
    initialise(model, seed, weight=weight)
    return model.parameters()[path].astype(np.float64).ravel()


# Each weight of the model, and how many inputs one of its outputs sums.
FANS = {"conv/weight": FAN_IN, "linear/weight": 300, "stem/weight": 5 * 5}


@pytest.mark.parametrize("path", FANS)
def test_xavier_is_caffes_uniform_by_fan_in(path):
    limit = np.sqrt(3 / FANS[path])
    values = drawn("xavier", path)
    assert np.abs(values).max() <= np.float32(limit)
    assert stats.kstest(values, stats.uniform(-limit, 2 * limit).cdf).pvalue > 1e-3
    assert values.var() == pytest.approx(1 / FANS[path], rel=0.03)


@pytest.mark.parametrize("path", FANS)
def test_he_is_normal_with_twice_the_variance(path):
    values = drawn("he", path)
    assert stats.kstest(values, stats.norm(0, np.sqrt(2 / FANS[path])).cdf).pvalue > 1e-3


def test_truncated_normal_ends_at_two_deviations():
    values = drawn("truncated_normal", "conv/weight")
    assert np.abs(values).max() <= 0.02 * (1 + 1e-6)
    assert stats.kstest(values, stats.truncnorm(-2, 2, scale=0.01).cdf).pvalue > 1e-3


def test_biases_get_their_value_except_those_named():
    model = Network()
    initialise(model, 0, bias=0.2, zero_bias=("classifier",))
    assert (model.inception_3a.reduce.bias.data == np.float32(0.2)).all()
    assert (model.classifier.bias.data == 0).all()


def test_batch_norms_begin_as_the_identity_whatever_biases_are():
    model = filled(Normalised(np.float32))
    initialise(model, 0, bias=0.2)
    values = {"gamma": 1, "beta": 0, "mean": 0, "variance": 1}
    for path, array in model.state().items():
        where, _, name = path.rpartition("/")
        if where.endswith("batch_norm"):
            np.testing.assert_array_equal(array, values[name], err_msg=path)
    assert (model.plain.bias.data == np.float32(0.2)).all()
    assert model.slim.weight.data.std() > 0.1


def test_the_same_seed_gives_the_same_values_and_another_seed_others():
    for weight in ("xavier", "he", "truncated_normal"):
        np.testing.assert_array_equal(drawn(weight, "linear/weight"), drawn(weight, "linear/weight"))
        assert (drawn(weight, "linear/weight") != drawn(weight, "linear/weight", seed=1)).mean() > 0.99


def test_a_parameter_does_not_depend_on_what_else_there_is():
    """A network without its heads starts from the weights that it has with them."""

    class Part(nn.Module):
        def __init__(self):
            self.other = nn.Linear(7, 7)
            self.linear = nn.Linear(300, 200)

    part = Part()
    initialise(part, 0, weight="xavier")
    np.testing.assert_array_equal(part.linear.weight.data.ravel(), drawn("xavier", "linear/weight"))


def test_equal_shapes_get_different_values():
    class Pair(nn.Module):
        def __init__(self):
            self.a, self.b = nn.Linear(30, 30), nn.Linear(30, 30)

    pair = Pair()
    initialise(pair, 0)
    assert abs(np.corrcoef(pair.a.weight.data.ravel(), pair.b.weight.data.ravel())[0, 1]) < 0.2


def test_both_dtypes_start_from_the_same_values():
    """So that a float64 run can be held against a float32 one."""
    single, double = nn.Linear(30, 30), nn.Linear(30, 30, dtype=np.float64)
    for model in (single, double):
        initialise(model, 0)
    np.testing.assert_array_equal(single.weight.data, double.weight.data.astype(np.float32))


def test_an_unknown_scheme_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"glorot.*xavier.*he.*truncated_normal"):
        initialise(Model(), 0, weight="glorot")
