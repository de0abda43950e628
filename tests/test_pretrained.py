"""train.py --init FILE: trained weights as a beginning."""

import re
from pathlib import Path

import numpy as np
import pytest

from googlenet.weights import load_model
from tests.runs import CLASSES, computing_alone, process, run_folder, script, write_set, write_weights

alone = pytest.fixture(autouse=True)(computing_alone)
FIXTURES = Path(__file__).parent / "fixtures" / "weights"
STILL = ("--lr", "1e-12", "--epochs", "1", "--batch-size", "4", "--threads", "1")  # steps too small to move a weight


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("pictures"))


def test_begins_where_the_weights_are(pictures, tmp_path):
    """The classes are others, so that classifiers are drawn anew; all else is the file's, its colours too."""
    trained = write_weights(tmp_path / "trained.h5", seed=5, classes=tuple("abcdefg"), variant="caffe")
    done = script("train.py", "--init", trained, "--data", pictures, "--output", tmp_path / "runs", *STILL)
    assert done.code == 0, done.err
    assert ("trained.h5: caffe; 122 of its 128 arrays are taken: conv1..inception_5b, aux1/conv, aux1/fc, aux2/conv, "
            "aux2/fc; drawn anew, as classes differ or it lacks them: aux1/classifier, aux2/classifier, classifier\n"
            ) in done.out
    before, after = load_model(trained), load_model(run_folder(tmp_path / "runs") / "best.h5")
    assert after.classes == CLASSES
    assert (after.model.config.variant, after.preprocessing) == ("caffe", before.preprocessing)
    np.testing.assert_allclose(after.model.conv1.weight.data, before.model.conv1.weight.data, rtol=1e-6)
    assert np.abs(after.model.classifier.weight.data).max() > 0


def test_says_when_nothing_is_left_to_chance(pictures, tmp_path):
    trained = write_weights(tmp_path / "trained.h5", seed=5)
    done = script("train.py", "--init", trained, "--data", pictures, "--output", tmp_path / "runs", *STILL)
    assert "trained.h5: paper; 128 of its 128 arrays are taken: conv1..aux2\n" in done.out


def test_says_when_heads_are_left_out(pictures, tmp_path):
    trained = write_weights(tmp_path / "trained.h5", seed=5)
    done = script("train.py", "--init", trained, "--heads", "none", "--data", pictures, "--output", tmp_path / "runs",
                  *STILL)
    assert "trained.h5: paper; 116 of its 128 arrays are taken: conv1..classifier\n" in done.out


def test_a_resumed_run_does_not_begin_again(pictures, tmp_path):
    trained = write_weights(tmp_path / "trained.h5", seed=5)
    script("train.py", "--init", trained, "--data", pictures, "--output", tmp_path / "runs", *STILL)
    trained.unlink()
    done = script("train.py", "--resume", run_folder(tmp_path / "runs"), "--epochs", "2")
    assert done.code == 0, done.err


@pytest.mark.parametrize(("flags", "told"), [
    (("--init", "bvlk", "--width", "2"),
     "--init bvlk: there is no such file; give xavier, he, truncated_normal, .* bvlc, torchvision"),
    (("--init", "{folder}/a.h5", "--variant", "caffe"), "--variant can't change beside --init"),
    (("--init", "{folder}/a.h5", "--width", "0.5"), "--width can't change beside --init"),
    (("--init", "{folder}/a.h5", "--resize", "300"), "--resize can't change beside --init .*preprocessing are taken"),
    (("--init", "{folder}/a.h5", "--standardise"), "--standardise can't change beside --init"),
])
def test_what_makes_no_sense_is_told(pictures, tmp_path, flags, told):
    write_weights(tmp_path / "a.h5")
    flags = [flag.format(folder=tmp_path) for flag in flags]
    done = script("train.py", *flags, "--data", pictures, "--output", tmp_path / "runs")
    assert done.code == 1
    assert re.search(told, done.complaint), done.complaint
    assert not (tmp_path / "runs").exists()


def test_begins_with_a_checkpoint_that_is_named_by_its_prefix(pictures, tmp_path):
    done = script("train.py", "--init", FIXTURES / "slim_v2.ckpt", "--image-size", "64", "--heads", "none", "--data",
                  pictures, "--output", tmp_path / "runs", *STILL)
    assert done.code == 0, done.err
    assert "slim_v2.ckpt: slim; 228 of its 230 arrays are taken: conv1..inception_5b; drawn anew" in done.out


def test_begins_with_heads_of_smaller_images(pictures, tmp_path):
    """A Caffe model does not tell the size of its images, and its heads' weights depend on it."""
    trained = write_weights(tmp_path / "trained.h5", seed=5, variant="caffe", image_size=64)
    assert script("googlenet", "export", trained, tmp_path / "trained.caffemodel").code == 0
    flags = ("--init", tmp_path / "trained.caffemodel", "--data", pictures, "--output", tmp_path / "runs", *STILL)
    assert "--image-size" in script("train.py", *flags).complaint
    done = script("train.py", *flags, "--image-size", "64")
    assert done.code == 0, done.err
    assert "128 of its 128 arrays are taken: conv1..aux2" in done.out


def test_as_a_user_does(pictures, tmp_path):
    trained = write_weights(tmp_path / "trained.h5", seed=5)
    done = process("train.py", "--init", trained, "--data", pictures, "--output", tmp_path / "runs", *STILL)
    assert done.code == 0, done.err
