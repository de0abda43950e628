"""The engine: the walk back through the graph, whatever the ops."""

import threading
import weakref

import numpy as np
import pytest

from minigrad import InputError, Tensor, no_grad, ops
from minigrad.op import Op


def leaf(*values: float) -> Tensor:
    return Tensor(np.array(values), requires_grad=True)


def test_a_chain_of_20000_ops_does_not_recurse():
    x = leaf(1.0)
    y = x
    for _ in range(20_000):
        y = y + 1.0
    y.backward(np.array([2.0]))
    assert y.data[0] == 20_001
    assert x.grad[0] == 2


def test_dropping_a_long_graph_does_not_recurse():
    """Freed without a backward pass, the chain is taken apart object by object, which must not overflow either."""
    y = leaf(1.0)
    y = y + 1.0
    first = weakref.ref(y.op)
    for _ in range(20_000):
        y = y + 1.0
    del y
    assert first() is None


def test_diamonds_double_the_gradient_at_each_step():
    """y = x + x, forty times: visiting each path instead of each op would take 2^40 visits."""
    x = leaf(1.0)
    y = x
    for _ in range(40):
        y = y + y
    y.backward(np.array([1.0]))
    assert x.grad[0] == 2.0**40


def test_a_tensor_is_left_only_when_its_gradient_is_complete():
    """z is used early and late: its op must run back once, with the sum of both uses."""
    calls = []

    class Spy(Op):
        def forward(self, x):
            return 2 * x

        def backward(self, dy):
            calls.append(dy.copy())
            return (2 * dy,)

    x = leaf(3.0)
    z = Spy()(x)
    y = ((z * z + 1.0) * 5.0) + z
    y.backward(np.array([1.0]))
    assert len(calls) == 1
    assert calls[0][0] == 5 * 2 * 6 + 1
    assert x.grad[0] == 122


def test_the_gradient_of_a_shared_result_is_not_written_into():
    """Where an op hands its dy on unchanged, summing into one use's gradient must not change the other's."""
    a, b = leaf(1.0), leaf(2.0)
    s = a + b
    (s + a).backward(np.array([1.0]))
    assert a.grad[0] == 2
    assert b.grad[0] == 1


def test_gradients_add_up_over_backward_passes_in_the_same_array():
    x = leaf(1.0, 2.0)
    (x * 3.0).backward(np.ones(2))
    first = x.grad
    (x * 4.0).backward(np.ones(2))
    assert x.grad is first
    np.testing.assert_array_equal(x.grad, [7, 7])


def test_the_caller_may_reuse_dy():
    x, dy = leaf(1.0), np.ones(1)
    (x + 0.0).backward(dy)
    dy[0] = 9
    assert x.grad[0] == 1


def test_dy_is_taken_in_the_tensors_dtype():
    x = Tensor(np.ones(2, np.float32), requires_grad=True)
    (x * 2.0).backward(np.array([1.0, 2.0]))
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad, [2, 4])


def test_only_leaves_that_ask_get_a_gradient():
    x, c = leaf(2.0), Tensor(np.array([3.0]))
    middle = x * c
    ops.sum_all(middle).backward()
    assert x.grad[0] == 3
    assert c.grad is None
    assert middle.grad is None


def test_no_grad_records_nothing_and_ends():
    x = leaf(2.0)
    with no_grad():
        assert not (x * x).requires_grad
        with no_grad():
            pass
        assert not (x * x).requires_grad
    assert (x * x).requires_grad
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert (x * x).requires_grad


def test_no_grad_is_of_one_thread():
    x, seen = leaf(2.0), []
    with no_grad():
        thread = threading.Thread(target=lambda: seen.append((x * x).requires_grad))
        thread.start()
        thread.join()
    assert seen == [True]


def test_a_second_backward_says_that_the_graph_is_gone():
    x = leaf(2.0)
    y = ops.sum_all(x * x)
    y.backward()
    with pytest.raises(InputError, match="forward"):
        y.backward()
    np.testing.assert_array_equal(x.grad, [4])


def test_a_graph_freed_through_another_result_is_gone_as_well():
    x = leaf(2.0)
    shared = x * x
    one, other = ops.sum_all(shared * 2.0), ops.sum_all(shared * 3.0)
    one.backward()
    with pytest.raises(InputError, match="forward"):
        other.backward()


def test_backward_of_what_was_not_recorded_is_refused():
    x = leaf(2.0)
    with no_grad():
        y = ops.sum_all(x * x)
    with pytest.raises(InputError, match=r"requires_grad|no_grad"):
        y.backward()


def test_memory_is_freed_on_the_way():
    """After backward the graph holds no arrays: what an op kept is gone though the result is still there."""
    x = leaf(2.0)
    y = ops.sum_all(x * x)
    op = y.op
    y.backward()
    assert op.inputs is None


def test_dy_of_another_shape_is_refused_with_both_shapes():
    y = Tensor(np.ones((2, 3)), requires_grad=True) * 2.0
    with pytest.raises(InputError, match=r"\(3, 2\).*\(2, 3\)"):
        y.backward(np.ones((3, 2)))
    with pytest.raises(InputError, match=r"\(2, 3\)"):
        y.backward()


def test_scalars():
    """A loss has no axes: sums of its uses are arrays all the same, and a second pass adds to them."""
    x = Tensor(np.array(3.0), requires_grad=True)
    for times in (1, 2):
        (x * x + x + x + x).backward()
        assert isinstance(x.grad, np.ndarray)
        assert x.grad.shape == ()
        assert x.grad == times * 9


def test_item_is_a_python_number():
    assert type(ops.sum_all(leaf(1.0, 2.0)).item()) is float


class SumAndDifference(Op):
    """Two outputs of two inputs."""

    def forward(self, a, b):
        return a + b, a - b

    def backward(self, d_sum, d_difference):
        zero = np.zeros(3)
        d_sum, d_difference = (zero if d is None else d for d in (d_sum, d_difference))
        return d_sum + d_difference, d_sum - d_difference


def test_an_op_with_two_outputs():
    a, b = leaf(1.0, 2.0, 3.0), leaf(4.0, 5.0, 6.0)
    total, difference = SumAndDifference()(a, b)
    (total * total + difference * difference).backward(np.ones(3))  # = 2 a^2 + 2 b^2
    np.testing.assert_array_equal(a.grad, 4 * a.data)
    np.testing.assert_array_equal(b.grad, 4 * b.data)


@pytest.mark.parametrize(("used", "db"), [(0, 1), (1, -1)])
def test_an_output_without_a_gradient(used, db):
    a, b = leaf(1.0, 2.0, 3.0), leaf(4.0, 5.0, 6.0)
    SumAndDifference()(a, b)[used].backward(np.ones(3))
    np.testing.assert_array_equal(a.grad, np.ones(3))
    np.testing.assert_array_equal(b.grad, db * np.ones(3))


@pytest.mark.parametrize("op", [ops.relu, ops.softmax, ops.log_softmax, ops.lrn, ops.sum_all,
                                lambda x: ops.max_pool2d(x, 1), lambda x: ops.dropout(x, 0.5, seed=0, step=0),
                                lambda x: ops.concat([x, x]), lambda x: x + 1.0, lambda x: x * x])
def test_every_op_refuses_an_empty_batch(op):
    with pytest.raises(InputError, match=r"0, 2, 2, 3.*empty batch"):
        op(Tensor(np.zeros((0, 2, 2, 3))))
