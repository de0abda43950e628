"""Published sets in small, of their true layout, fetched from a server in this process."""

import errno
import hashlib
import os
import re
import threading
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest

from data import download as downloading
from data import flowers, idx, published, unpacking
from data.cifar import CLASSES
from data.datasets import NAMED, open_dataset
from data.errors import DataError
from data.published import ABOUT, SETS, fetch
from data.unpacking import write
from tests.data.publishing import CIFAR_FILES, MAKERS, cifar10, cifar_records, flower_numbers, republished, tar_of
from tests.data.web import cut, files, serving, undisturbed


@pytest.fixture
def publish(monkeypatch, tmp_path_factory):
    """publish(name, answers, ...) -> (contents, server): a small set behind a server, by default a good one."""
    undisturbed(monkeypatch, downloading)
    with ExitStack() as running:

        def start(name, *answers, contents=None):
            contents = contents or MAKERS[name](tmp_path_factory.mktemp("source"))
            server = running.enter_context(serving(*answers, files(contents)))
            monkeypatch.setitem(SETS, name, republished(name, contents, server.url))
            return contents, server

        yield start


@pytest.fixture(autouse=True)
def caches(tmp_path_factory, monkeypatch):
    """No test touches the user's caches."""
    folder = tmp_path_factory.mktemp("caches") / "new"
    monkeypatch.setenv("GOOGLENET_CACHE", str(folder))
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What comes out -----------------------------------------------------------------------------------------------------


def test_fashion(publish, caches):
    contents, _ = publish("fashion-mnist")
    home = fetch("fashion-mnist")
    assert home == caches / "fashion-mnist"
    assert {name: each for name, each in content(home).items() if name.endswith(".gz")} == contents
    training, test = open_dataset("fashion-mnist", "train"), open_dataset("fashion-mnist", "test")
    assert (len(training), len(test)) == (20, 10)
    assert training.classes == test.classes == idx.FASHION, "the names lie beside the images"
    assert training.labels.tolist() == [i % 10 for i in range(20)]


def test_cifar10(publish):
    publish("cifar10")
    home = fetch("cifar10")
    assert names(home) == sorted([ABOUT, "batches.meta.txt", *CIFAR_FILES])
    assert (len(open_dataset("cifar10", "train")), len(open_dataset("cifar10", "test"))) == (25, 5)


def test_cifar10_at_its_true_size(publish):
    """Six files of 10,000 records of 3073 bytes: red, green and blue planes of 32 x 32 behind a label."""
    publish("cifar10", contents=cifar10(None, count=10_000))
    home = fetch("cifar10")
    assert {(home / name).stat().st_size for name in CIFAR_FILES} == {30_730_000}
    assert [line.strip() for line in (home / "batches.meta.txt").read_text().splitlines()] == [*CLASSES, ""]
    training, test = open_dataset("cifar10", "train"), open_dataset("cifar10", "test")
    assert (len(training), len(test)) == (50_000, 10_000)
    for dataset, index, record in ((training, 0, cifar_records(10_000, 0)[0]),
                                   (training, 49_999, cifar_records(10_000, 4)[-1]),
                                   (test, 4321, cifar_records(10_000, 5)[4321])):  # fmt: skip
        assert dataset.labels[index] == record[0]
        image = dataset.image(index)
        assert image.shape == (32, 32, 3)
        for channel in range(3):
            np.testing.assert_array_equal(image[:, :, channel].ravel(), record[1 + 1024 * channel :][:1024])
    assert training.classes == CLASSES


def test_flowers17(publish):
    publish("flowers17")
    home = fetch("flowers17")
    assert names(home) == [ABOUT, "test", "train"]
    for split, places in (("train", (1, 2, 3)), ("test", (4,))):
        dataset = open_dataset("flowers17", split)
        assert dataset.classes == tuple(sorted(flowers.CLASSES))
        found = {}
        for i, name in enumerate(dataset.names):
            number = int(re.fullmatch(r".*/image_(\d{4})\.jpg", name)[1])
            assert dataset.classes[dataset.labels[i]] == flowers.CLASSES[(number - 1) // 80]
            assert dataset.image(i)[0, 0].tolist() == [number // 256 * 40, number % 256, 0], "the number's picture"
            found[number] = name
        assert sorted(found) == sorted(flower_numbers(*places)[0].tolist())


@pytest.mark.parametrize("name", NAMED)
def test_where_it_is_from_lies_beside_it(publish, name):
    publish(name)
    told = (fetch(name) / ABOUT).read_text()
    for file in SETS[name].files:
        assert {file.file, file.urls[0], *file.digests} <= set(re.split(r"\s+|;", told))
    assert SETS[name].licence in told
    assert SETS[name].cite in told


# How it goes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMED)
def test_a_set_is_fetched_once(publish, tmp_path, name):
    _, server = publish(name)
    home = fetch(name, tmp_path / "new" / "folder")
    assert home == tmp_path / "new" / "folder" / name
    assert names(home.parent) == [name], "neither archives nor anything half done"
    asked, before = len(server.asked), content(home)
    assert asked == len(SETS[name].files)
    assert fetch(name, home.parent) == home
    assert len(server.asked) == asked
    assert content(home) == before


def test_progress_is_shown_for_each_file(publish):
    contents, _ = publish("fashion-mnist")
    shown = {}

    class Showing:
        def __init__(self, name):
            self.steps = shown.setdefault(name, [])

        def __enter__(self):
            return lambda here, total: self.steps.append((here, total))

        def __exit__(self, *_):
            self.steps.append("end")

    fetch("fashion-mnist", show=Showing)
    assert list(shown) == [file.file for file in SETS["fashion-mnist"].files]
    for name, steps in shown.items():
        assert steps[-2:] == [(len(contents[name]), len(contents[name])), "end"]


@pytest.mark.parametrize("name", NAMED)
def test_a_download_that_was_cut_goes_on(publish, tmp_path, monkeypatch, name):
    monkeypatch.setattr(downloading, "ATTEMPTS", 1)
    contents, server = publish(name)
    first = contents[SETS[name].files[0].file]
    server.answers = (cut(len(first) // 2, content=first), *server.answers)
    with pytest.raises(DataError, match=r"the connection was cut .*the next fetch goes on from it"):
        fetch(name, tmp_path)
    assert not (tmp_path / name).exists()
    fetch(name, tmp_path)
    assert server.asked[1][1]["Range"] == f"bytes={len(first) // 2}-"
    assert len(server.asked) == 1 + len(contents)


@pytest.mark.parametrize("name", NAMED)
def test_another_file_is_refused(publish, tmp_path, monkeypatch, name):
    publish(name)
    good = SETS[name]
    wrong = replace(good.files[-1], digests=(*good.files[-1].digests[:-1], f"sha256:{64 * '0'}"))
    monkeypatch.setitem(SETS, name, replace(good, files=(*good.files[:-1], wrong)))
    with pytest.raises(DataError, match=rf"can't fetch {name}: .*gives another file \(sha256 .*, expected 0+\)"):
        fetch(name, tmp_path)
    assert names(tmp_path) == [f".{name}.download"]
    monkeypatch.setitem(SETS, name, good)
    fetch(name, tmp_path)
    assert names(tmp_path) == [name]


@pytest.mark.parametrize(("failure", "expected", "message"), [
    (KeyboardInterrupt(), KeyboardInterrupt, None),
    (OSError(errno.ENOSPC, "No space left on device"), DataError, r"can't write .*: No space left .*choose another"),
])  # fmt: skip
@pytest.mark.parametrize("name", NAMED)
def test_stopped_while_it_unpacks(publish, tmp_path, monkeypatch, name, failure, expected, message):
    """Nothing half done stays, and what was downloaded is not downloaded again."""
    _, server = publish(name)
    written = []

    def stop(path, content):
        if len(written) == 3:
            raise failure
        written.append(path)
        write(path, content)

    with monkeypatch.context() as patched:
        for module in (published, unpacking):
            patched.setattr(module, "write", stop)
        with pytest.raises(expected, match=message):
            fetch(name, tmp_path)
    assert len(written) == 3
    assert names(tmp_path) == [f".{name}.download"]
    asked = len(server.asked)
    fetch(name, tmp_path)
    assert len(server.asked) == asked
    assert names(tmp_path) == [name]


def test_what_a_killed_process_left_is_cleared_away(publish, tmp_path):
    publish("flowers17")
    left = tmp_path / ".flowers17.unpacked" / "train" / "Daffodil"
    left.mkdir(parents=True)
    (left / "image_9999.jpg").write_bytes(b"half")
    home = fetch("flowers17", tmp_path)
    assert names(tmp_path) == ["flowers17"]
    assert len(list((home / "train" / "Daffodil").iterdir())) == 3


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.write_bytes(b"mine")])
def test_what_was_not_fetched_is_left_alone(publish, tmp_path, make):
    _, server = publish("cifar10")
    make(tmp_path / "cifar10")
    with pytest.raises(DataError, match=rf"cifar10 is there already and was not fetched, for it has no {ABOUT}: move"):
        fetch("cifar10", tmp_path)
    assert not server.asked


def test_an_archive_that_lacks_a_file(publish, tmp_path):
    """As it would be with links in place of files, or with names that lead elsewhere."""
    members = {f"cifar-10-batches-bin/{name}": b"" for name in CIFAR_FILES[1:]}
    archive = tar_of({**members, "cifar-10-batches-bin/batches.meta.txt": b"", "../data_batch_1.bin": b"evil"})
    publish("cifar10", contents={"cifar-10-binary.tar.gz": archive})
    with pytest.raises(DataError, match=r"lacks cifar-10-batches-bin/data_batch_1.bin \(1 such files\)"):
        fetch("cifar10", tmp_path)
    assert names(tmp_path) == [".cifar10.download"]


def test_a_folder_that_is_a_file(publish, tmp_path):
    publish("cifar10")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match=r"can't write .*choose another folder"):
        fetch("cifar10", tmp_path / "file")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_folder_that_cannot_be_written(publish, tmp_path):
    publish("cifar10")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(DataError, match=r"can't write .*Permission denied"):
            fetch("cifar10", tmp_path)
    finally:
        tmp_path.chmod(0o700)


def test_a_fetched_set_in_a_folder_that_cannot_be_written_serves(publish, tmp_path, monkeypatch):
    publish("cifar10")
    home = fetch("cifar10", tmp_path)
    monkeypatch.setattr(published, "alone", lambda *_: pytest.fail("a lock, where none can be made"))
    assert fetch("cifar10", tmp_path) == home


def test_two_at_once_fetch_once(publish, tmp_path, monkeypatch):
    monkeypatch.setattr(downloading, "POLL", 0.01)
    contents, server = publish("flowers17")
    homes = []
    both = [threading.Thread(target=lambda: homes.append(fetch("flowers17", tmp_path))) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join(30)
    assert homes == [tmp_path / "flowers17"] * 2
    assert len(server.asked) == len(contents)
    assert names(tmp_path) == ["flowers17"]


def test_an_unknown_name(tmp_path):
    with pytest.raises(DataError, match="no published data set 'mnist': choose one of fashion-mnist, cifar10, flowers"):
        fetch("mnist", tmp_path)


@pytest.mark.parametrize("name", NAMED)
def test_what_is_published(name):
    assert tuple(SETS) == NAMED
    for file in SETS[name].files:
        assert all(re.fullmatch(r"https?://[\w.~/-]+", url) and url.endswith(f"/{file.file}") for url in file.urls)
        assert file.digests, "nothing is used unchecked"
        assert all(re.fullmatch("md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", digest) for digest in file.digests)
        assert all(digest.split(":")[0] in hashlib.algorithms_guaranteed for digest in file.digests)
        assert file.licence
    assert SETS[name].cite
