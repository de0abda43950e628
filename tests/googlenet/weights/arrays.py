"""Comparing what a reader gave with what a file was made of."""

from collections.abc import Mapping

import numpy as np


def require_same(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    """Equal names, types in native byte order, shapes and bits."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        native = array.astype(array.dtype.newbyteorder("="))
        np.testing.assert_array_equal(found[name], native, err_msg=name, strict=True)
        assert found[name].dtype.isnative, name
        assert found[name].tobytes() == native.tobytes(), name
