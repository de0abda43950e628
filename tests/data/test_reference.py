"""Real photos and what Caffe's network was fed of them; both lie beside the project, not in it."""

from pathlib import Path

import numpy as np
import pytest

from data.crops import crops
from data.datasets import open_dataset
from data.preprocess import CAFFE

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference"
needs_reference = pytest.mark.skipif(not (REFERENCE / "photos").is_dir(), reason=f"no photos in {REFERENCE}")


@needs_reference
def test_the_photos_names_and_labels_agree():
    dataset = open_dataset(REFERENCE / "photos", "test")
    assert len(dataset) == 200
    assert len(dataset.classes) == 1000
    for name, label in zip(dataset.names, dataset.labels, strict=True):
        wordnet = name.split("_")[0]
        assert dataset.classes[label].startswith(f"{wordnet} ")


@needs_reference
@pytest.mark.parametrize("stem", ["n01558993_robin", "n02504013_Indian_elephant"])
def test_the_network_is_fed_what_the_reference_was_fed(stem):
    dataset = open_dataset(REFERENCE / "photos", "test")
    image = dataset.image(dataset.names.index(f"{stem}.JPEG"))
    with np.load(REFERENCE / "activations" / f"{stem}.npz") as stages:
        expected = stages["input"][0].transpose(1, 2, 0)  # (3, 224, 224) -> (224, 224, 3)
    np.testing.assert_array_equal(CAFFE.normalise(crops(image, 1, CAFFE))[0], expected)
