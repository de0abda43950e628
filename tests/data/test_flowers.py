
import numpy as np
import pytest
import scipy.io

from data.errors import DataError
from data.flowers import CLASSES, read_split
from tests.data.publishing import flower_numbers


@pytest.fixture
def splits(tmp_path):
    """splits(trn1=..., ...) -> a file of these, the others as they should be."""

    def make(**changed):
        made = {"trn1": flower_numbers(1, 2), "val1": flower_numbers(3), "tst1": flower_numbers(4), **changed}
        scipy.io.savemat(tmp_path / "datasplits.mat", {name: each for name, each in made.items() if each is not None})
        return tmp_path / "datasplits.mat"

    return make


def test_validation_joins_training(splits):
    parts = read_split(splits())
    assert list(parts) == ["train", "test"]
    assert sorted(parts["train"]) == sorted(80 * label + place for label in range(17) for place in (1, 2, 3))
    assert sorted(parts["test"]) == [80 * label + 4 for label in range(17)]
    assert parts["test"].dtype == np.int64, "numbers of 16 bits, as they are stored, would not do to reckon with"
    assert len(CLASSES) == len(set(CLASSES)) == 17


@pytest.mark.parametrize(("changed", "message"), [
    ({"val1": None}, "cannot be read .*val1"),
    ({"val1": np.array([["one"]])}, "cannot be read"),
    ({"val1": flower_numbers(2)}, "expected each picture, 1 to 1360, once at most"),
    ({"tst1": flower_numbers(3)}, "expected each picture, 1 to 1360, once at most"),
    ({"val1": np.array([[0]])}, "expected each picture, 1 to 1360"),
    ({"val1": np.array([[1361]])}, "expected each picture, 1 to 1360"),
    ({"tst1": flower_numbers(4)[:, 1:]}, "has no test picture of Daffodil"),
    ({"trn1": np.zeros((1, 0)), "val1": np.zeros((1, 0))}, "has no train picture of Daffodil"),
])  # fmt: skip
def test_splits_that_make_no_sense(splits, changed, message):
    with pytest.raises(DataError, match=rf"datasplits.mat: {message}.*fetch it again"):
        read_split(splits(**changed))


@pytest.mark.parametrize("content", [b"", b"<html></html>", bytes(1000)])
def test_what_is_no_matlab_file(tmp_path, content):
    (tmp_path / "datasplits.mat").write_bytes(content)
    with pytest.raises(DataError, match=r"datasplits.mat: cannot be read"):
        read_split(tmp_path / "datasplits.mat")


def test_a_cut_file(splits, tmp_path):
    path = splits()
    content = path.read_bytes()
    for kept in range(0, len(content) - 1, 97):
        path.write_bytes(content[:kept])
        with pytest.raises(DataError, match=r"datasplits.mat: "):
            read_split(path)
