"""A module split over two processes computes what it computes in one."""

import os
from dataclasses import dataclass

import numpy as np
import pytest

from googlenet.config import ModelConfig
from googlenet.distbelief.partition import SplitModule, arithmetic
from googlenet.model import TABLE_1, GoogLeNet, InceptionModule
from minigrad import InputError, Tensor, init
from tests.googlenet.distbelief.cases import descendants
from tests.runs import computing_alone

one_thread = pytest.fixture(computing_alone, scope="module", autouse=True)
ROW = next(row for row in TABLE_1 if row.name == "inception_3a")
SHAPE = (2, 14, 14, 192)


@dataclass
class Computed:
    y: np.ndarray
    dx: np.ndarray
    gradients: dict[str, np.ndarray]


def computed(module, x, dy, of) -> Computed:
    inputs = Tensor(x, requires_grad=True)
    y = module(inputs)
    y.backward(dy)
    return Computed(y.data.copy(), inputs.grad, of())


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 2e-5)])
def test_split_it_is_the_same_forward_and_backward(dtype, tolerance):
    module = InceptionModule(192, ROW, ModelConfig(dtype=dtype))
    init.initialise(module, 0, bias=0.1)
    rng = np.random.default_rng(1)
    x, dy = rng.standard_normal(SHAPE).astype(dtype), rng.standard_normal((*SHAPE[:3], 256)).astype(dtype)
    split = SplitModule(module, SHAPE)
    try:
        apart = computed(split, x, dy, split.gradients)
    finally:
        split.close()
    module = InceptionModule(192, ROW, ModelConfig(dtype=dtype))
    init.initialise(module, 0, bias=0.1)
    whole = computed(module, x, dy, lambda: {path: p.grad for path, p in module.named_parameters()})
    for one, other in ((apart.y, whole.y), (apart.dx, whole.dx)):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())
    assert len(whole.gradients) == 12
    for path, gradient in whole.gradients.items():
        np.testing.assert_allclose(apart.gradients[path], gradient, rtol=0, atol=tolerance * np.abs(gradient).max(),
                                   err_msg=path)
    assert not descendants(os.getpid())


def test_another_shape_is_refused():
    module = InceptionModule(192, ROW, ModelConfig())
    init.initialise(module, 0)
    split = SplitModule(module, SHAPE)
    try:
        with pytest.raises(InputError, match=r"split for \(2, 14, 14, 192\) got \(1, 14, 14, 192\)"):
            split(Tensor(np.zeros((1, *SHAPE[1:]), np.float32)))
    finally:
        split.close()


def test_the_arithmetic_is_that_of_the_network():
    """Multiply-adds of the nine modules, as the summary counts them from their weights."""
    cuts = list(arithmetic())
    model = GoogLeNet(ModelConfig())
    assert [cut.name for cut in cuts] == [row.name for row in TABLE_1 if row.type == "inception"]
    for cut in cuts:
        H, W, _ = model.stage_shapes[cut.name]
        weights = sum(array.size for path, array in model.parameters().items()
                      if path.startswith(f"{cut.name}/") and path.endswith("/weight"))
        assert cut.total == H * W * weights
        assert 1 < cut.best < 2
        assert cut.speedup(1e30, 1e9) < cut.speedup(1e9, 1e30) == pytest.approx(cut.best)
    assert (cuts[0].sent, cuts[0].returned) == (4 * 28 * 28 * 192, 4 * 28 * 28 * 128)
