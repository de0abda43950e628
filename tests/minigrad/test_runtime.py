"""Process-wide settings: how convolutions are computed."""

from importlib import import_module

import numpy as np
import pytest

import minigrad
from googlenet.config import ModelConfig
from googlenet.model import GoogLeNet
from minigrad import InputError, Tensor, init, nn, ops
from tests.minigrad.checks import assert_close
from tests.minigrad.network import step
from tests.minigrad.strategies import normal

conv2d = import_module("minigrad.ops.conv2d")  # not the function of that name


@pytest.fixture(autouse=True)
def restored():
    yield
    minigrad.set_convolution("auto")


@pytest.mark.parametrize("method", ["im2col", "direct", "winograd"])
def test_the_setting_does_what_the_argument_does(method):
    expected = step(np.float64, method)
    minigrad.set_convolution(method)
    assert minigrad.get_convolution() == method
    got = step(np.float64)
    for name in expected:
        assert_close(got[name], expected[name], 1e-13, what=name)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-11), ("float32", 5e-3)])
@pytest.mark.parametrize("method", ["auto", "direct", "winograd"])
def test_a_network_learns_the_same_by_every_method(method, dtype, tolerance):
    """GoogLeNet's loss and gradients against im2col's, by the length of what differs.

    Rounding moves some values across zero, or from one maximum of a pool to another; in float32 single entries of a
    gradient then differ by a thousandth."""
    results = {}
    for each in ("im2col", method):
        minigrad.set_convolution(each)
        model = GoogLeNet(ModelConfig(image_size=64, width=0.5, classes=5, dtype=dtype))
        init.initialise(model, 0, weight="he")
        nn.seed_dropout(model, 0, 0)
        x = normal(np.random.default_rng(0), (16, 64, 64, 3), dtype)
        outputs = model.train()(Tensor(x))
        labels = np.arange(16) % 5
        main, aux1, aux2 = (ops.cross_entropy(logits, labels) for logits in outputs)
        (main + 0.3 * aux1 + 0.3 * aux2).backward()
        results[each] = {"loss": main.data} | {path: p.grad for path, p in model.named_parameters()}
    for name, expected in results["im2col"].items():
        difference = np.linalg.norm(results[method][name] - expected) / np.linalg.norm(expected)
        assert difference <= tolerance, f"{name}: {difference:.1e}"
    loss = results["im2col"]["loss"]
    assert abs(results[method]["loss"] - loss) <= 1e-5 * loss


@pytest.mark.parametrize(("images", "op"), [(12, conv2d.Winograd), (1, conv2d.Direct)])
def test_auto_takes_winograd_where_it_pays(images, op):
    x, w = np.ones((images, 8, 8, 32), np.float32), Tensor(np.ones((3, 3, 32, 32), np.float32), requires_grad=True)
    assert type(ops.conv2d(Tensor(x), w, padding=1).op) is op
    assert type(ops.conv2d(Tensor(x), w, padding=1, stride=2).op) is conv2d.Direct
    minigrad.set_convolution("im2col")
    assert type(ops.conv2d(Tensor(x), w, padding=1).op) is conv2d.Im2col


def test_refuses_another_word():
    with pytest.raises(InputError, match=r"fft.*auto, im2col, direct, winograd"):
        minigrad.set_convolution("fft")
    assert minigrad.get_convolution() == "auto"


def test_products_of_channels_follow():
    """A linear layer and 1x1 branches are matrix products; by im2col NumPy computes them."""
    rng = np.random.default_rng(0)
    x, w, b = normal(rng, (2, 3, 3, 20)), normal(rng, (1, 1, 20, 9)), normal(rng, (9,))
    results = []
    for method in ("im2col", "direct"):
        minigrad.set_convolution(method)
        results.append(ops.pointwise(Tensor(x), [(Tensor(w), Tensor(b))])[0].data)
    assert_close(*results)
