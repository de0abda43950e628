"""A plan repeats what it recorded, on other numbers, with memory of its own."""

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import minigrad
from googlenet.config import ModelConfig
from googlenet.model import GoogLeNet
from minigrad import Tensor, init, no_grad, ops
from minigrad.kernels.parallel import kernel
from minigrad.kernels.plan import Memory, Plan, empty, recording
from tests.minigrad.checks import assert_close
from tests.minigrad.strategies import normal


def network(**options):
    """A small GoogLeNet, as a function of an array."""
    model = GoogLeNet(ModelConfig(image_size=64, width=0.25, classes=7, **options)).eval()
    init.initialise(model, 0, weight="he")

    def logits(x: np.ndarray) -> np.ndarray:
        with no_grad():
            return model(Tensor(x)).logits.data

    return model, logits


@pytest.mark.parametrize("images", [1, 5])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", [{}, {"variant": "caffe", "stem": "separable"}, {"module": "naive"},
                                     {"classifier": "fully_connected"}], ids=str)
def test_repeats_a_network_on_other_images(images, dtype, options):
    _, logits = network(dtype=dtype, **options)
    rng = np.random.default_rng(0)
    first, *others = (normal(rng, (images, 64, 64, 3), dtype) for _ in range(4))
    plan = Plan(logits, first)
    assert plan.agrees
    for x in (*others, first):
        assert_close(plan(x), logits(x), 1e-5 if dtype == "float32" else 1e-12)


def test_repeats_bit_for_bit():
    _, logits = network()
    one, other = normal(np.random.default_rng(0), (2, 3, 64, 64, 3), np.float32)
    plan = Plan(logits, one)
    before = plan(one)
    plan(other)
    assert np.array_equal(plan(one), before)


def test_what_it_returned_stays():
    _, logits = network()
    one, other = normal(np.random.default_rng(0), (2, 3, 64, 64, 3), np.float32)
    plan = Plan(logits, one)
    held = plan(one)
    copy = held.copy()
    plan(other)
    assert np.array_equal(held, copy)


def test_parameters_are_those_of_the_recording():
    model, logits = network()
    x = normal(np.random.default_rng(0), (2, 64, 64, 3), np.float32)
    plan = Plan(logits, x)
    before = plan(x)
    for array in model.parameters().values():
        array *= 2
    changed = logits(x)
    del model, logits
    gc.collect()
    np.ones((3000, 3000))  # whatever was freed would be overwritten
    assert_close(plan(x), before)
    assert not np.allclose(before, changed)


def test_says_that_numpy_between_kernels_is_not_repeated(caplog):
    def function(x):
        return ops.relu(Tensor(np.sin(ops.relu(Tensor(x)).data))).data

    assert not Plan(function, np.ones((2, 3), np.float32)).agrees
    assert "NumPy code between its kernels" in caplog.text


def test_says_so_when_a_kernel_finds_no_memory_and_goes_on():
    sizes = np.ones(4, np.int64)

    def function(x):
        y = empty(x.shape, x.dtype)
        greedy(4, x, sizes, y)
        return y

    x = np.arange(4.0)
    plan = Plan(function, x)
    assert plan.agrees
    sizes[2] = 2**60  # read by the kernel each time
    with pytest.raises(MemoryError):
        plan(x)
    sizes[2] = 1
    np.testing.assert_array_equal(plan(x + 1), x + 1)


@kernel
def greedy(first, last, x, sizes, y):
    """y[i] = x[i] + a zero of a scratch array of sizes[i] values"""
    for i in range(first, last):
        y[i] = x[i] + np.zeros(sizes[i], x.dtype)[0]


def test_many_threads_share_a_plan():
    _, logits = network()
    xs = normal(np.random.default_rng(0), (8, 2, 64, 64, 3), np.float32)
    plan = Plan(logits, xs[0])
    expected = [plan(x) for x in xs]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(plan, np.tile(xs, (4, 1, 1, 1, 1))))
    for result, right in zip(results, expected * 4, strict=True):
        assert np.array_equal(result, right)


def test_one_thread_and_two_agree():
    if minigrad.available_threads() < 2:
        pytest.skip("needs two cores")
    _, logits = network()
    x = normal(np.random.default_rng(0), (4, 64, 64, 3), np.float32)
    plan = Plan(logits, x)
    before = minigrad.get_threads()
    try:
        results = []
        for threads in (1, 2):
            minigrad.set_threads(threads)
            results.append(plan(x))
    finally:
        minigrad.set_threads(before)
    assert np.array_equal(*results)


def test_nothing_is_recorded_outside_or_after_an_error():
    def fails(x):
        ops.relu(Tensor(x))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Plan(fails, np.ones(5, np.float32))
    assert recording() is None


def test_memory_comes_back_when_the_last_view_is_gone():
    memory = Memory()
    array = memory.take((4, 6), np.dtype(np.float32))
    view = array[1:, ::2]
    del array
    assert not memory.free
    view[:] = 1
    del view
    assert len(memory.free) == 1
    again = memory.take((3, 5), np.dtype(np.float64))
    assert len(memory.blocks) == 2  # 96 bytes do not hold 120
    assert memory.owns(again)
    assert memory.owns(memory.take((2,), np.dtype(np.float32)))
    assert not memory.owns(np.ones(3))


def test_takes_less_memory_than_all_layers_together():
    _, logits = network()
    x = np.zeros((4, 64, 64, 3), np.float32)
    plan = Plan(logits, x)
    stem = 4 * 32 * 32 * 16 * x.itemsize  # conv1's output, the largest
    assert sum(block.size for block in plan.memory.blocks) < 6 * stem


def test_plans_of_one_network_share_its_packed_weights():
    _, logits = network()
    constants = {}
    one, two = (Plan(logits, np.zeros((n, 64, 64, 3), np.float32), constants) for n in (1, 2))
    assert one.agrees
    assert two.agrees
    packed = {id(array) for array, _ in constants.values()}
    shared = packed & {id(a) for a in one.kept} & {id(a) for a in two.kept}
    assert len(shared) > 50  # nearly all: some layers are computed another way where images are few
