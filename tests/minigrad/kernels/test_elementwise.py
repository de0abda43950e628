"""The view of an array as rows of channels: without a copy where that can be."""

import numpy as np
import pytest

from minigrad.kernels.elementwise import add_into, as_rows

whole = np.arange(2 * 3 * 4 * 10.0).reshape(2, 3, 4, 10)


def rows(x: np.ndarray) -> np.ndarray:
    """The array that as_rows describes, (rows, C)."""
    flat, step = as_rows(x)
    return np.array([flat[r * step : r * step + x.shape[-1]] for r in range(x.size // x.shape[-1])])


@pytest.mark.parametrize(
    ("x", "copied"),
    [
        (whole, False),
        (whole[..., 3:7], False),
        (whole[..., 3:4], False),
        (whole[1:, ..., 2:], False),
        (whole[:, :, :1, :1][:, :1], False),
        (whole[:, 0], True),
        (whole[:, :, 1:3], True),
        (whole[:, ::2], True),
        (whole[..., ::-1], True),
        (whole[..., ::2], True),
        (whole.transpose(0, 2, 1, 3), True),
        (whole.transpose(3, 1, 2, 0), True),
        (np.broadcast_to(whole[0, 0, 0], (2, 3, 10)), True),
        (np.broadcast_to(whole[:1], (2, 3, 4, 10)), True),
        (np.broadcast_to(whole[..., :1], (2, 3, 4, 10)), True),
    ],
)
def test_rows_are_those_of_the_array(x, copied):
    np.testing.assert_array_equal(rows(x), x.reshape(-1, x.shape[-1]))
    assert np.shares_memory(as_rows(x)[0], whole) != copied


@pytest.mark.parametrize("n", [10, 2**14 - 1, 2**14, 100_003])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_add_into_adds_in_place(n, dtype):
    x, y = np.arange(n, dtype=dtype), np.full(n, 2, dtype)
    assert add_into(x, y) is x
    np.testing.assert_array_equal(x, np.arange(n) + 2)
    matrix = np.zeros((n, 2), dtype)
    add_into(matrix[:, 0], x)
    np.testing.assert_array_equal(matrix[:, 0], x)
