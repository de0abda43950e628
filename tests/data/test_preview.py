import numpy as np
import pytest
from PIL import Image

from data.base import ArrayDataset
from data.datasets import open_dataset
from data.errors import DataError
from data.loader import Loader
from data.preview import CELL, COLOURS, HEADER, MARGIN, PICTURE, SAMPLES, TAG, _apart, main, rows, sheet
from data.sampling import Sampling, sample_generator
from tests.data.files import pixels, truncate, write_class_folders, write_picture


def folder_set(folder, count=3):
    write_class_folders(folder, splits=("train",), count=count)
    return open_dataset(folder, "train")


def test_a_row_is_what_training_sees():
    """The samples of the first epochs, from the loader that training uses."""
    images = pixels(4, 20, 30, 3)
    dataset = ArrayDataset(images, [0, 1, 1, 0], list("abcd"), ["cat", "dog"], "memory")
    sampling = Sampling()
    loader = Loader(dataset, lambda image, rng: sampling.sample(image, 16, rng), 4, seed=5, shuffle=True)
    made = rows(dataset, sampling, 16, count=4, seed=5)
    assert [(row.name, row.label) for row in made] == [("a", "cat"), ("b", "dog"), ("c", "dog"), ("d", "cat")]
    for epoch in range(SAMPLES):
        batch = next(loader.epoch(epoch))
        for index, image in zip(batch.indices, batch.images, strict=True):
            np.testing.assert_array_equal(made[index].samples[epoch], image)


def test_each_sample_has_a_generator_of_its_own():
    drawn = {sample_generator(seed, epoch, index).random() for seed in (0, 1) for epoch in (0, 1) for index in (0, 1)}
    assert len(drawn) == 8


def test_pictures_are_taken_at_even_distances(tmp_path):
    dataset = folder_set(tmp_path, count=5)
    assert [row.name for row in rows(dataset, Sampling(), 8, 4, 0)] == ["cat/0.png", "cat/3.png", "dog/1.png",
                                                                       "dog/4.png"]
    assert len(rows(dataset, Sampling(), 8, 99, 0)) == 10
    assert len(rows(dataset, Sampling(), 8, 1, 0)) == 1


def test_damaged_pictures_are_passed_over(tmp_path):
    dataset = folder_set(tmp_path, count=1)
    truncate(tmp_path / "train" / "cat" / "0.png")
    assert [row.name for row in rows(dataset, Sampling(), 8, 2, 0)] == ["dog/0.png"]
    truncate(tmp_path / "train" / "dog" / "0.png")
    with pytest.raises(DataError, match="none of the pictures"):
        rows(dataset, Sampling(), 8, 2, 0)


def test_the_sheet_shows_each_sample_under_its_colour():
    dataset = ArrayDataset(pixels(2, 20, 30, 3), [0, 0], ["a", "b"], ["cat"], "memory")
    made = rows(dataset, Sampling(), CELL, 2, 0)
    page = np.asarray(sheet(made, "title", "subtitle"))
    bars = [tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for colour in COLOURS]
    lines = [y for y in range(len(page)) if tuple(page[y, -MARGIN - 1]) == bars[-1]]  # of the last column's bars
    tops = [y for y in lines if y - 1 not in lines]
    assert len(tops) == 2
    for top, row in zip(tops, made, strict=True):
        below = lines[lines.index(top) :]
        start = next(y for y in range(top, top + 50) if y not in below)
        for number, sample in enumerate(reversed(row.samples)):
            right = page.shape[1] - MARGIN - number * (CELL + 14)
            assert tuple(page[top, right - 1]) == bars[-1 - number]
            np.testing.assert_array_equal(page[start : start + CELL, right - CELL : right], sample)
    assert tops[0] == HEADER


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (300, 1), (2, 900)])
def test_any_picture_can_be_drawn(height, width):
    dataset = ArrayDataset(pixels(1, height, width, 3), [0], ["n" * 500], ["ünï\ncode " * 50], "memory")
    page = np.asarray(sheet(rows(dataset, Sampling(), 8, 1, 0), "title " * 500, "")).astype(int)
    assert (page[:, : MARGIN - 1] == 255).all()
    assert (page[:, -MARGIN:] == 255).all()
    assert (page[HEADER:, MARGIN + PICTURE : MARGIN + PICTURE + 14] == 255).all()  # before the first sample
    title, name = page[:HEADER].min(axis=(0, 2)), page[-MARGIN - 16 : -MARGIN, : MARGIN + PICTURE].min(axis=(0, 2))
    for line in (title[:-MARGIN], name):  # no more is left out than must be
        assert line[-30:].min() < 255


def test_numbers_of_crops_that_begin_together_stand_side_by_side():
    placed = _apart([(0, 0), (0, 0), (3, 2), (50, 0), (0, 40)])
    assert placed[0] == (0, 0)
    assert placed[3:] == [(50, 0), (0, 40)]
    lefts = [x for x, _ in placed[:3]]
    assert min(np.diff(lefts)) == max(np.diff(lefts)) == TAG[0]


def test_the_command_writes_a_sheet(tmp_path, capsys):
    folder_set(tmp_path)
    path = tmp_path / "sheet.png"
    assert main([str(tmp_path), "--count", "2", "--size", "16", "--seed", "3", "--output", str(path)]) == 0
    assert f"2 of 6 pictures, {SAMPLES} samples each: {path}" in capsys.readouterr().out
    first = path.read_bytes()
    with Image.open(path) as image:
        assert image.format == "PNG"
    main([str(tmp_path), "--count", "2", "--size", "16", "--seed", "3", "--output", str(path)])
    assert path.read_bytes() == first
    main([str(tmp_path), "--count", "2", "--size", "16", "--seed", "4", "--output", str(path)])
    assert path.read_bytes() != first


@pytest.mark.parametrize(("change", "message"), [
    ({"source": "nowhere"}, "nowhere"),
    ({"split": "test"}, "no test split"),
    ({"output": "nowhere/sheet.png"}, "sheet.png: No such file or directory"),
])
def test_the_command_says_what_is_wrong(tmp_path, capsys, change, message):
    folder_set(tmp_path)
    said = {"source": "", "split": "train", "output": "sheet.png"} | change
    assert main([str(tmp_path / said["source"]), "--split", said["split"], "--output",
                 str(tmp_path / said["output"])]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("python -m data.preview: error: ")
    assert message in captured.err
    assert not captured.out


@pytest.mark.parametrize("flags", [["--count", "0"], ["--count", "101"], ["--size", "-1"], ["--seed", "x"],
                                   ["--split", "all"], ["--output", "x.gif"]])
def test_flags_out_of_range_are_usage_errors(flags, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["embedded", *flags])
    assert flags[0] in capsys.readouterr().err


def test_a_sheet_without_a_name_is_preview_png(tmp_path, monkeypatch):
    folder_set(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main([".", "--count", "1", "--size", "16"]) == 0
    assert (tmp_path / "preview.png").exists()


def test_greyscale_and_odd_files_are_drawn(tmp_path):
    write_picture(tmp_path / "train" / "cat" / "0.png", pixels(7, 9))
    write_picture(tmp_path / "train" / "cat" / "1.jpg", pixels(90, 70, 3))
    assert main([str(tmp_path), "--output", str(tmp_path / "sheet.jpg")]) == 0
