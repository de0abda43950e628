"""ImageNet's tars in small: three classes, the real names, a devkit as the real one is made."""

import gzip
import io
import logging
import os
import pickle
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data import imagenet_tars
from data.datasets import open_dataset
from data.errors import DataError
from data.imagenet_labels import read_truth
from data.imagenet_tars import TRAIN, VAL, walk
from data.spans import Spans
from tests.data.files import pixels, truncate

savemat = pytest.importorskip("scipy.io").savemat

WORDNET = ["n02119789", "n01440764", "n07753592"]  # in the order of ILSVRC's ids 1, 2, 3
CLASSES = tuple(sorted(WORDNET))
TRUTH = [3, 1, 2, 2, 1]  # ids of the validation pictures


@pytest.fixture(autouse=True)
def caches(tmp_path_factory, monkeypatch):
    """No test touches the user's caches."""
    folder = tmp_path_factory.mktemp("caches")
    monkeypatch.setenv("GOOGLENET_CACHE", str(folder))
    return folder


def jpeg(shape=(9, 12, 3)):
    file = io.BytesIO()
    Image.fromarray(pixels(*shape)).save(file, "JPEG")
    return file.getvalue()


def tar_of(files, form=tarfile.GNU_FORMAT):
    """The bytes of a tar of {name: bytes}."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def meta():
    """meta.mat: the classes and, behind them, a synset above two of them."""
    rows = [(i + 1, wordnet, "words", "gloss", 0) for i, wordnet in enumerate(WORDNET)]
    rows.append((4, "n00001740", "entity", "gloss", 2))
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    file = io.BytesIO()
    savemat(file, {"synsets": np.array(rows, fields).reshape(-1, 1)})
    return file.getvalue()


def devkit(truth=TRUTH):
    text = "".join(f"{number}\n" for number in truth).encode()
    return gzip.compress(tar_of({
        "ILSVRC2012_devkit_t12/readme.txt": b"see data/meta.mat",
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": text,
        "ILSVRC2012_devkit_t12/data/meta.mat": meta(),
    }))  # fmt: skip


def write_imagenet(folder):
    """The three files, and the same pictures unpacked into folders; returns both places."""
    tars, unpacked = folder / "tars", folder / "unpacked"
    tars.mkdir()
    inner = {}
    for wordnet in ("n07753592", "n01440764", "n02119789"):  # tars have an order of their own
        names = [f"{wordnet}_{number}.JPEG" for number in (10026, 9, 100)]
        inner[f"{wordnet}.tar"] = {name: jpeg() for name in names}
        for name, content in inner[f"{wordnet}.tar"].items():
            write(unpacked / "train" / wordnet / name, content)
    (tars / TRAIN).write_bytes(tar_of({name: tar_of(files) for name, files in inner.items()}))
    val = {f"ILSVRC2012_val_{i:08d}.JPEG": jpeg() for i in (2, 1, 3, 5, 4)}
    for name, content in val.items():
        write(unpacked / "val" / WORDNET[TRUTH[int(name[15:23]) - 1] - 1] / name, content)
    (tars / VAL).write_bytes(tar_of(val))
    (tars / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(devkit())
    return tars, unpacked


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def imagenet(tmp_path):
    return write_imagenet(tmp_path)


def test_the_training_tar_is_the_unpacked_folder(imagenet):
    tars, unpacked = imagenet
    for source in (tars, tars / TRAIN):
        dataset, folder = open_dataset(source, "train"), open_dataset(unpacked, "train")
        assert dataset.classes == folder.classes == CLASSES
        assert list(dataset.names) == list(folder.names)
        np.testing.assert_array_equal(dataset.labels, folder.labels)
        for i in range(9):
            np.testing.assert_array_equal(dataset.image(i), folder.image(i))


def test_validation_pictures_have_the_labels_of_the_folders(imagenet):
    """Not ILSVRC's ids less one, which are another order."""
    tars, unpacked = imagenet
    folder = open_dataset(unpacked, "val")
    expected = {name.split("/")[1]: label for name, label in zip(folder.names, folder.labels.tolist(), strict=True)}
    for source, split in ((tars, "val"), (tars, "test"), (tars / VAL, "val")):
        dataset = open_dataset(source, split)
        assert dataset.classes == CLASSES
        assert dict(zip(dataset.names, dataset.labels.tolist(), strict=True)) == expected
        assert list(dataset.names) == sorted(dataset.names)
    assert expected["ILSVRC2012_val_00000001.JPEG"] == 2 == CLASSES.index(WORDNET[TRUTH[0] - 1])
    content = (unpacked / "val" / WORDNET[1] / "ILSVRC2012_val_00000003.JPEG").read_bytes()
    assert dataset.encoded(2) == content


def test_each_tar_alone(imagenet):
    tars, _ = imagenet
    (tars / VAL).rename(tars / "elsewhere")
    with pytest.raises(DataError, match=r"no test split: ILSVRC2012_img_val.tar is missing"):
        open_dataset(tars, "test")
    assert len(open_dataset(tars, "train")) == 9
    (tars / "elsewhere").rename(tars / VAL)
    (tars / TRAIN).unlink()
    with pytest.raises(DataError, match=r"no train split: ILSVRC2012_img_train.tar is missing"):
        open_dataset(tars, "train")
    assert len(open_dataset(tars / VAL, "test")) == 5


OTHER_LABELS = {
    "LOC_val_solution.csv": "ImageId,PredictionString\n"
    + "".join(f"ILSVRC2012_val_{i:08d},{WORDNET[each - 1]} 1 2 3 4 \n" for i, each in enumerate(TRUTH, 1)),
    "imagenet_2012_validation_synset_labels.txt": "".join(f"{WORDNET[each - 1]}\n" for each in TRUTH),
    "val.txt": "".join(
        f"ILSVRC2012_val_{i:08d}.JPEG {CLASSES.index(WORDNET[each - 1])}\n" for i, each in enumerate(TRUTH, 1)
    ),
}


@pytest.mark.parametrize("name", OTHER_LABELS)
@pytest.mark.parametrize("words", ["synset_words.txt", "LOC_synset_mapping.txt"])
def test_labels_from_elsewhere(imagenet, name, words):
    tars, _ = imagenet
    expected = open_dataset(tars, "val")
    (tars / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    with pytest.raises(DataError, match=r"has no labels of the validation pictures: put ILSVRC2012_devkit_t12.tar.gz"):
        open_dataset(tars, "val")
    (tars / name).write_text(OTHER_LABELS[name])
    (tars / words).write_text("".join(f"{wordnet} some, words\n" for wordnet in CLASSES))
    dataset = open_dataset(tars, "val")
    assert dataset.labels.tolist() == expected.labels.tolist()
    assert dataset.classes == expected.classes


def test_the_devkit_may_be_unpacked(imagenet):
    tars, _ = imagenet
    expected = read_truth(tars)
    with tarfile.open(tars / "ILSVRC2012_devkit_t12.tar.gz") as tar:
        tar.extractall(tars, filter="data")
    (tars / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    assert read_truth(tars)[:2] == expected[:2]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ILSVRC2012_devkit_t12.tar.gz", b"no tar", r"tar.gz: cannot be read .*download it again"),
        ("ILSVRC2012_devkit_t12.tar.gz", gzip.compress(tar_of({"data/other": b""})), "holds no data/meta.mat"),
        ("ILSVRC2012_devkit_t12.tar.gz", devkit()[:-200], "cannot be read|holds no"),
        ("ILSVRC2012_devkit_t12.tar.gz", gzip.compress(tar_of({"x/data/meta.mat": b"MATLAB 5" * 50})),
         "meta.mat cannot be read"),
        ("ILSVRC2012_devkit_t12.tar.gz", devkit([1, 2, 4, 1, 1]), "ground_truth.txt holds 4, and ids are 1 to 3"),
        ("ILSVRC2012_devkit_t12.tar.gz", devkit([1, 2, 3]), "holds 5 pictures, .* has 3 labels|has no label in"),
        ("ILSVRC2012_devkit_t12.tar.gz", devkit([1, 2, 3, 1, 1, 1]), "holds 5 pictures, .* has 6 labels"),
        ("LOC_val_solution.csv", b"ImageId,PredictionString\na,dog 1\n", "'dog' is no WordNet id"),
        ("LOC_val_solution.csv", b"\xff", "cannot be read"),
        ("val.txt", b"a.JPEG 1\n", "needs synset_words.txt beside it"),
    ],
)  # fmt: skip
def test_wrong_labels_are_named(imagenet, name, content, message):
    tars, _ = imagenet
    (tars / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    (tars / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_dataset(tars, "val")


def test_both_tars_must_have_the_same_classes(imagenet):
    tars, _ = imagenet
    (tars / TRAIN).write_bytes(tar_of({"n01440764.tar": tar_of({"n01440764_1.JPEG": jpeg()})}))
    with pytest.raises(DataError, match=r"has 1 classes, .* has 3; n02119789 is in one only"):
        open_dataset(tars, "val")


def test_the_index_is_kept_and_made_again_when_the_tar_changes(imagenet, monkeypatch, caplog):
    tars, _ = imagenet
    scans = []
    true = imagenet_tars._scan
    monkeypatch.setattr(imagenet_tars, "_scan", lambda *arguments: (scans.append(1), true(*arguments))[1])
    with caplog.at_level(logging.INFO, "data"):
        first = open_dataset(tars, "train")
    assert "indexing" in caplog.text
    again = open_dataset(tars, "train")
    assert len(scans) == 1
    assert list(again.names) == list(first.names)
    assert again.encoded(4) == first.encoded(4)
    assert (tars / f"{TRAIN}.index.npz").is_file()
    content = tar_of({"n01440764.tar": tar_of({"n01440764_1.JPEG": jpeg()})})
    (tars / TRAIN).write_bytes(content)
    assert len(open_dataset(tars, "train")) == 1
    os.utime(tars / TRAIN, ns=(1, 1))
    open_dataset(tars, "train")
    assert len(scans) == 3
    for damage in (b"", b"no index", (tars / f"{TRAIN}.index.npz").read_bytes()[:-100]):
        (tars / f"{TRAIN}.index.npz").write_bytes(damage)
        assert len(open_dataset(tars, "train")) == 1
    assert len(scans) == 6


def unwritable(monkeypatch, *folders):
    true = open

    def refusing(file, mode="r", *arguments, **options):
        if "w" in mode and any(str(file).startswith(str(folder)) for folder in folders):
            raise PermissionError(13, "Permission denied", str(file))
        return true(file, mode, *arguments, **options)

    monkeypatch.setattr(imagenet_tars, "open", refusing, raising=False)


def test_the_index_of_a_read_only_folder_is_among_the_caches(imagenet, caches, monkeypatch, caplog):
    tars, _ = imagenet
    unwritable(monkeypatch, tars)
    open_dataset(tars, "train")
    assert [path.name.startswith(TRAIN) for path in caches.iterdir()] == [True]
    assert not list(tars.glob("*.npz"))
    monkeypatch.setattr(imagenet_tars, "_scan", lambda *arguments: pytest.fail("made again"))
    assert len(open_dataset(tars, "train")) == 9
    monkeypatch.undo()
    unwritable(monkeypatch, tars, caches)
    monkeypatch.setenv("GOOGLENET_CACHE", str(caches / "no"))
    assert len(open_dataset(tars, "train")) == 9
    assert "its index can't be kept" in caplog.text


@pytest.mark.parametrize("keep", [0.01, 0.3, 0.5, 0.75])
def test_a_tar_that_was_cut_short_is_named(imagenet, keep):
    tars, _ = imagenet
    truncate(tars / TRAIN, keep)
    with pytest.raises(DataError, match=rf"{TRAIN}: (is cut short: the file at byte|no tar header at byte)"):
        open_dataset(tars, "train")


def test_a_tar_without_its_end_mark_is_warned_of(imagenet, caplog):
    tars, _ = imagenet
    with tarfile.open(tars / TRAIN) as tar:
        last = tar.getmembers()[-1]
    os.truncate(tars / TRAIN, last.offset_data + last.size)
    assert len(open_dataset(tars, "train")) == 9
    assert "has no end mark" in caplog.text


def test_a_tar_that_changes_underneath_is_named(imagenet):
    tars, _ = imagenet
    dataset = open_dataset(tars, "train")
    truncate(tars / TRAIN, 0.5)
    with pytest.raises(DataError, match=r"img_train.tar: ends at byte"):
        [dataset.encoded(i) for i in range(9)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tar_of({"a.txt": b"x"}), "holds no tar for each class"),
        (tar_of({"n01440764.tar": tar_of({"readme.txt": b"x"})}), "n01440764.tar holds no pictures"),
        (tar_of({"n01440764.tar": tar_of({"a.JPEG": b"x"}), "n2.tar": tar_of({"a.txt": b""})}), "n2.tar holds no pict"),
        (tar_of({"n01440764.tar": tar_of({"a/1.JPEG": b"x", "b/1.JPEG": b"y"})}), "holds n01440764/1.JPEG twice"),
        (tar_of({"n01440764.tar": b"no tar" * 200}), "no tar header at byte 512"),
    ],
)
def test_a_foreign_tar_is_named(tmp_path, content, message):
    (tmp_path / TRAIN).write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path, "train")


def test_damaged_pictures_are_named(tmp_path):
    inner = tar_of({"n01440764_1.JPEG": jpeg()[:300], "n01440764_2.JPEG": b"", "n01440764_3.JPEG": jpeg()})
    (tmp_path / TRAIN).write_bytes(tar_of({"n01440764.tar": inner}))
    dataset = open_dataset(tmp_path, "train")
    for i in (0, 1):
        with pytest.raises(DataError, match=rf"{TRAIN}: n01440764/n01440764_{i + 1}.JPEG: cannot be decoded"):
            dataset.image(i)
    assert dataset.image(2).shape == (9, 12, 3)


NAMES = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=260)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
@given(st.dictionaries(NAMES, st.binary(max_size=1100), max_size=6))
def test_walking_finds_what_tarfile_finds(tmp_path_factory, form, files):
    if form == tarfile.USTAR_FORMAT:
        files = {f"{'folder/' * 15}{i}": content for i, content in enumerate(files.values())}
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    path.write_bytes(tar_of(files, form))
    spans = Spans(path)
    found = {each.name: spans.read(each.offset, each.size) for each in walk(spans, 0, path.stat().st_size)}
    assert found == files


def test_links_and_folders_in_a_tar_are_passed_over(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in (("folder", tarfile.DIRTYPE), ("link", tarfile.SYMTYPE), ("pipe", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        tar.addfile(tarfile.TarInfo("empty"))
    assert [each.name for each in walk(Spans(tmp_path / "a.tar"), 0, (tmp_path / "a.tar").stat().st_size)] == ["empty"]


def test_files_of_many_gigabytes_are_walked(tmp_path):
    """Beyond 8 GiB GNU's tar writes a size in binary, and POSIX's in the attributes. The file has holes, not values."""
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        info = tarfile.TarInfo("large")
        info.size = 9 * 2**30
        with open(tmp_path / "a.tar", "wb") as file:
            file.write(info.tobuf(form))
            begin = file.tell()
            file.seek(begin + info.size)
            file.write(tar_of({"b": b"x"}))
        found = list(walk(Spans(tmp_path / "a.tar"), 0, (tmp_path / "a.tar").stat().st_size))
        assert [(each.name, each.size) for each in found] == [("large", 9 * 2**30), ("b", 1)]


@given(st.data())
def test_damage_is_never_another_error(tmp_path_factory, data):
    """Whatever is done to a tar's bytes, its pictures are found or it raises DataError."""
    files = {f"{'long' * 30}{i}.JPEG": bytes(600) for i in range(3)}
    form = data.draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    content = bytearray(tar_of({"n1.tar": tar_of(files, form)}))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("damaged")
    (folder / TRAIN).write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        dataset = open_dataset(folder, "train")
    except DataError:
        return
    for i in range(len(dataset)):
        assert len(dataset.encoded(i)) <= len(content)


def test_threads_and_processes_read_at_once(imagenet):
    tars, _ = imagenet
    dataset = open_dataset(tars, "train")
    expected = [dataset.encoded(i) for i in range(9)]
    with ThreadPoolExecutor(8) as pool:
        places = list(range(9)) * 100
        assert list(pool.map(dataset.encoded, places)) == [expected[i] for i in places]
    assert pickle.loads(pickle.dumps(dataset)).encoded(5) == expected[5]


def test_reading_without_pread(imagenet, monkeypatch):
    """As on Windows."""
    tars, _ = imagenet
    before = open_dataset(tars, "train")
    expected = [before.encoded(i) for i in range(9)]
    monkeypatch.delattr(os, "pread", raising=False)
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    seek = os.lseek
    monkeypatch.setattr(os, "lseek", lambda *arguments: (seek(*arguments), time.sleep(0.001))[0])  # others' turn
    dataset = open_dataset(tars, "train")
    with ThreadPoolExecutor(8) as pool:
        places = list(range(9)) * 10
        assert list(pool.map(dataset.encoded, places)) == [expected[i] for i in places]


def test_a_missing_tar_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.tar: cannot be read \(No such file or directory\)"):
        Spans(tmp_path / "nowhere.tar").read(0, 1)
