"""Modules: what a parameter is called, in which order, and what the layers pass on to their ops."""

import numpy as np
import pytest

from minigrad import InputError, Tensor, nn, no_grad, ops
from minigrad.kernels.plan import Plan
from tests import reference
from tests.minigrad.checks import assert_close
from tests.minigrad.strategies import normal


class Block(nn.Module):
    def __init__(self):
        self.reduce = nn.Conv2d(3, 4, 1)
        self.conv = nn.Conv2d(4, 5, (3, 2), stride=(2, 1), padding="same", relu=False)
        self.note = "not a parameter"

    def forward(self, x, scale=1.0):
        return self.conv(self.reduce(x)) * scale


class Network(nn.Module):
    def __init__(self):
        self.stem = nn.DepthwiseConv2d(3, 2, 3, stride=2, padding=1)
        self.inception_3a = Block()
        self.drop = nn.Dropout(0.4)
        self.classifier = nn.Linear(5, 10)
        self.temperature = nn.Parameter(np.ones(1, np.float32))

    def forward(self, x):
        return x


PATHS = [
    "stem/weight",
    "inception_3a/reduce/weight",
    "inception_3a/reduce/bias",
    "inception_3a/conv/weight",
    "inception_3a/conv/bias",
    "classifier/weight",
    "classifier/bias",
]


def test_parameters_are_called_by_their_attribute_path_in_the_order_assigned():
    network = Network()
    named = dict(network.named_parameters())
    assert [path for path in named if path != "temperature"] == PATHS
    assert named["temperature"] is network.temperature
    assert named["inception_3a/conv/weight"] is network.inception_3a.conv.weight
    assert all(isinstance(parameter, nn.Parameter) and parameter.requires_grad for parameter in named.values())


def test_modules_are_called_by_their_attribute_path():
    network = Network()
    assert [path for path, _ in network.named_modules()] == [
        "", "stem", "inception_3a", "inception_3a/reduce", "inception_3a/conv", "drop", "classifier"
    ]  # fmt: skip
    assert dict(network.named_modules())["inception_3a/conv"] is network.inception_3a.conv


def test_parameters_returns_the_arrays_themselves():
    network = Network()
    assert network.parameters()["classifier/bias"] is network.classifier.bias.data


def test_train_and_eval_reach_every_module():
    network = Network()
    assert all(module.training for _, module in network.named_modules())
    assert network.eval() is network
    assert not any(module.training for _, module in network.named_modules())
    network.train()
    assert all(module.training for _, module in network.named_modules())


def test_calling_a_module_calls_forward_with_all_arguments():
    x = Tensor(np.ones((1, 4, 4, 3), np.float32))
    block = Block()
    block.conv.bias.data[:] = 1
    np.testing.assert_array_equal(block(x, scale=3.0).data, 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layers_compute_their_ops(dtype):
    rng = np.random.default_rng(0)
    x = normal(rng, (2, 6, 5, 3), dtype)
    options = {"stride": (2, 1), "padding": ((0, 1), (1, 0))}
    conv = nn.Conv2d(3, 8, (3, 2), relu=True, dtype=dtype, **options)
    assert conv.weight.shape == (3, 2, 3, 8)
    assert conv.bias.shape == (8,)
    assert conv.weight.dtype == dtype
    assert not conv.weight.data.any()
    assert not conv.bias.data.any()
    conv.weight.data[...], conv.bias.data[...] = normal(rng, (3, 2, 3, 8)), normal(rng, (8,))
    expected = reference.relu(reference.conv2d(x, conv.weight.data, conv.bias.data, **options))
    assert_close(conv(Tensor(x)).data, expected)
    wide = np.zeros((*expected.shape[:3], 20), dtype)
    conv(Tensor(x), out=wide[..., 4:12])
    assert_close(wide[..., 4:12], expected)

    depthwise = nn.DepthwiseConv2d(3, 4, 3, dtype=dtype, **options)
    assert [path for path, _ in depthwise.named_parameters()] == ["weight"]
    assert depthwise.weight.shape == (3, 3, 3, 4)
    depthwise.weight.data[...] = normal(rng, (3, 3, 3, 4))
    assert_close(depthwise(Tensor(x)).data, reference.depthwise_conv2d(x, depthwise.weight.data, **options))

    rows = normal(rng, (2, 7), dtype)
    linear = nn.Linear(7, 5, relu=True, dtype=dtype)
    linear.weight.data[...], linear.bias.data[...] = normal(rng, (7, 5)), normal(rng, (5,))
    expected = reference.relu(reference.linear(rows, linear.weight.data, linear.bias.data))
    assert_close(linear(Tensor(rows)).data, expected)


class Normalised(nn.Module):
    """Convolutions with batch norm, as TF-slim and torchvision have them, and one without."""

    def __init__(self, dtype=np.float64):
        norm = nn.BatchNorm(8, gamma=False, dtype=dtype)
        self.slim = nn.Conv2d(3, 8, 3, padding="same", dtype=dtype, batch_norm=norm)
        norm = nn.BatchNorm(17, eps=0.1, decay=0.5, dtype=dtype)
        self.torchvision = nn.Conv2d(8, 17, 3, stride=2, relu=False, dtype=dtype, batch_norm=norm)
        self.plain = nn.Conv2d(17, 4, 1, dtype=dtype)

    def forward(self, x):
        return self.plain(self.torchvision(self.slim(x)))


def filled(model, seed=0):
    """`model` with all its parameters and buffers random; variances positive."""
    rng = np.random.default_rng(seed)
    for path, array in model.state().items():
        array[...] = rng.uniform(0.5, 2, array.shape) if path.endswith("variance") else normal(rng, array.shape)
    return model


def test_a_batch_norm_has_parameters_and_buffers():
    network = Normalised(np.float32)
    parameters = [
        "slim/weight", "slim/batch_norm/beta",
        "torchvision/weight", "torchvision/batch_norm/gamma", "torchvision/batch_norm/beta",
        "plain/weight", "plain/bias",
    ]  # fmt: skip
    buffers = [f"{conv}/batch_norm/{name}" for conv in ("slim", "torchvision") for name in ("mean", "variance")]
    assert [path for path, _ in network.named_parameters()] == list(network.parameters()) == parameters
    assert [path for path, _ in network.named_buffers()] == buffers
    assert list(network.state()) == parameters + buffers
    norm = network.torchvision.batch_norm
    assert network.state()["torchvision/batch_norm/mean"] is norm.mean.data
    assert network.state()["torchvision/batch_norm/gamma"] is norm.gamma.data
    assert (norm.mean.shape, norm.mean.dtype) == ((17,), np.float32)
    assert network.slim.bias is None
    assert network.slim.batch_norm.gamma is None
    for name, value in {"gamma": 1, "beta": 0, "mean": 0, "variance": 1}.items():
        np.testing.assert_array_equal(getattr(norm, name).data, value)
        assert getattr(norm, name).dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_batch_norm_computes_its_op(dtype):
    rng = np.random.default_rng(0)
    x = normal(rng, (4, 3, 3, 8), dtype)
    norm = filled(nn.BatchNorm(8, eps=0.1, decay=0.25, relu=True, dtype=dtype))
    gamma, beta, mean, variance = (array.copy() for array in norm.state().values())
    wide = np.zeros((4, 3, 3, 20), dtype)
    norm(Tensor(x), out=wide[..., 4:12])
    assert_close(wide[..., 4:12], reference.relu(reference.batch_norm(x, gamma, beta, eps=0.1)))
    assert_close(norm.mean.data, 0.25 * mean + 0.75 * x.mean((0, 1, 2)))
    assert_close(norm.variance.data, 0.25 * variance + 0.75 * x.var((0, 1, 2), ddof=1))

    mean, variance = norm.mean.data.copy(), norm.variance.data.copy()
    y = norm.eval()(Tensor(x)).data
    assert_close(y, reference.relu(reference.batch_norm(x, gamma, beta, eps=0.1, mean=mean, variance=variance)))
    np.testing.assert_array_equal(norm.mean.data, mean)
    np.testing.assert_array_equal(norm.variance.data, variance)


def test_batch_norm_comes_between_convolution_and_relu():
    """Unlike the layers before, the second convolution has no ReLU."""
    network = filled(Normalised())
    x = normal(np.random.default_rng(1), (2, 6, 6, 3))
    beta, gamma = network.slim.batch_norm.beta.data, np.ones(8)
    expected = reference.relu(
        reference.batch_norm(reference.conv2d(x, network.slim.weight.data, padding="same"), gamma, beta, eps=1e-3)
    )
    wide = np.zeros((2, 6, 6, 20))
    got = network.slim(Tensor(x), out=wide[..., 4:12])
    assert_close(wide[..., 4:12], expected)
    assert np.shares_memory(got.data, wide)
    conv = network.torchvision
    z = reference.conv2d(expected, conv.weight.data, stride=2)
    y = conv(got).data
    assert_close(y, reference.batch_norm(z, conv.batch_norm.gamma.data, conv.batch_norm.beta.data, eps=0.1))
    assert y.min() < 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_folded_convolution_computes_what_it_and_its_batch_norm_do(dtype):
    network = filled(Normalised(dtype)).eval()
    x = Tensor(normal(np.random.default_rng(1), (2, 6, 6, 3), dtype))
    for conv in (network.slim, network.torchvision, network.plain):
        weight, bias = conv.folded()
        assert weight.dtype == bias.dtype == dtype
        y = conv(x)
        options = {"stride": conv.stride, "padding": conv.padding, "relu": conv.relu}
        assert_close(ops.conv2d(x, Tensor(weight), Tensor(bias), **options).data, y.data)
        x = y
    weight, bias = network.plain.folded()
    assert weight is network.plain.weight.data
    assert bias is network.plain.bias.data


def test_folding_rounds_once():
    network = filled(Normalised(np.float32))
    exact = Normalised(np.float64)
    for path, array in exact.state().items():
        array[...] = network.state()[path]
    for single, double in zip(network.torchvision.folded(), exact.torchvision.folded(), strict=True):
        np.testing.assert_array_equal(single, double.astype(np.float32))


def test_a_plan_repeats_a_network_with_batch_norm():
    network = filled(Normalised(np.float32)).eval()

    def output(x):
        with no_grad():
            return network(Tensor(x)).data

    one, other = normal(np.random.default_rng(0), (2, 3, 9, 9, 3), np.float32)
    plan = Plan(output, one)
    assert plan.agrees
    assert_close(plan(other), output(other))


def test_gradients_pass_a_batch_norm():
    network = filled(Normalised())
    ops.sum_all(network(Tensor(normal(np.random.default_rng(0), (2, 6, 6, 3))))).backward()
    for path, parameter in network.named_parameters():
        assert np.any(parameter.grad), path


@pytest.mark.parametrize("norm", [nn.BatchNorm(7), nn.BatchNorm(8, dtype=np.float64)])
def test_a_batch_norm_must_fit_its_convolution(norm):
    with pytest.raises(InputError, match=r"8 channels of float32, got (7 of float32|8 of float64)"):
        nn.Conv2d(3, 8, 1, batch_norm=norm)


class Twice(nn.Module):
    def __init__(self):
        self.first, self.second = nn.Dropout(0.5), nn.Dropout(0.5)

    def forward(self, x):
        return self.first(x), self.second(x)


def test_dropout_is_keyed_by_seed_step_and_place():
    model, x = Twice(), Tensor(np.ones(256, np.float32))

    def masks(seed, step):
        nn.seed_dropout(model, seed, step)
        return [y.data for y in model(x)]

    first, second = masks(1, 7)
    assert (first != second).any(), "two places share a mask"
    for again, before in zip(masks(1, 7), (first, second), strict=True):
        np.testing.assert_array_equal(again, before)
    assert (masks(1, 8)[0] != first).any()
    assert (masks(2, 7)[0] != first).any()


def test_dropout_does_nothing_in_testing_or_at_rate_zero():
    x = Tensor(np.ones(64, np.float32))
    assert nn.Dropout(0.9).eval()(x) is x
    assert nn.Dropout(0.0)(x) is x


def test_dropout_without_a_seed_says_how_to_give_one():
    with pytest.raises(InputError, match="seed_dropout"):
        nn.Dropout(0.5)(Tensor(np.ones(4)))


def test_a_wrong_input_is_named_with_every_dimension():
    with pytest.raises(InputError, match=r"1, 4, 4, 5.*1, 1, 3, 4"):
        Block()(Tensor(np.ones((1, 4, 4, 5), np.float32)))


def test_gradients_reach_the_parameters():
    block = Block()
    block.reduce.weight.data[...] = 1
    block.conv.weight.data[...] = 1
    ops.sum_all(block(Tensor(np.ones((1, 4, 4, 3), np.float32)))).backward()
    for path, parameter in block.named_parameters():
        assert np.any(parameter.grad), path
