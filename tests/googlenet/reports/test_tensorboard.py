"""TensorBoard's events, read back record by record as TensorBoard does."""

import builtins
import io
import struct

import numpy as np
import pytest
from PIL import Image

from googlenet.reports.tensorboard import Events
from googlenet.testing import Score
from googlenet.training import Epoch, Losses, Restart, Step
from googlenet.weights.formats.crc32c import MASK, crc32c
from minigrad.errors import InputError
from tests.googlenet.reports.test_run_page import trainer


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + MASK) & 0xFFFFFFFF


def records(folder):
    """The events of all files in their order: each a length, its checksum, the event, its checksum."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length, crc), body = struct.unpack("<QI", data[:12]), data[12:]
            assert crc == masked(data[:8])
            assert struct.unpack("<I", body[length:length + 4])[0] == masked(body[:length])
            yield event_pb2.Event.FromString(body[:length])
            data = body[length + 4:]


def points(folder):
    """What TensorBoard shows, {tag: [(step, value)]}: where a session starts, all from its step on goes."""
    found = {}
    for event in records(folder):
        if event.HasField("session_log"):
            assert event.session_log.status == event.session_log.START
            found = {tag: [point for point in own if point[0] < event.step] for tag, own in found.items()}
        for value in event.summary.value:
            content = value.image.encoded_image_string if value.HasField("image") else value.simple_value
            found.setdefault(value.tag, []).append((event.step, content))
    return found


def step(number, heads=True):
    return Step(number, 0, number * 8, 0.25, Losses(1.5, number, *((3.0, 4.0) if heads else [np.nan] * 2)), 12.5)


def epoch(number, at, averaged=False):
    scored = Score(40, 0.25, 0.125, 0.875)
    return Epoch(number, at, at * 8, Losses(1.25, 1.75, 2.75, 4.0), scored, True, (), scored if averaged else None)


@pytest.fixture
def folder(tmp_path):
    pytest.importorskip("tensorboardX")
    return tmp_path / "events"


def test_steps_and_epochs_become_points(folder):
    t = trainer()
    events = Events(folder, t, every=2)
    for number in range(1, 6):
        events.step(step(number))
    events.epoch(epoch(0, 5, averaged=True))
    events.close()
    found = points(folder)
    [(at, content)] = found.pop("conv1")
    with Image.open(io.BytesIO(content)) as image:
        assert (at, image.mode) == (5, "RGB")
    assert found == {
        "loss/total": [(2, 1.5), (4, 1.5)], "loss/main": [(2, 2), (4, 4)], "loss/aux1": [(2, 3), (4, 3)],
        "loss/aux2": [(2, 4), (4, 4)], "rate": [(2, 0.25), (4, 0.25)], "images_per_second": [(2, 12.5), (4, 12.5)],
        "epoch": [(5, 1)], "validation/loss": [(5, 0.875)], "validation/top1_error": [(5, 0.25)],
        "validation/top5_error": [(5, 0.125)], "averaged/loss": [(5, 0.875)], "averaged/top1_error": [(5, 0.25)],
        "averaged/top5_error": [(5, 0.125)]}


def test_what_is_not_there_has_no_points(folder):
    events = Events(folder, trainer())
    events.step(step(1, heads=False))
    events.epoch(epoch(0, 1)._replace(validation=None))
    events.close()
    assert set(points(folder)) == {"loss/total", "loss/main", "rate", "images_per_second", "epoch", "conv1"}


@pytest.mark.parametrize("batch", [0, 1, 4])
def test_a_resumed_run_has_no_point_twice(folder, batch):
    """It had told six steps and the end of an epoch at step 4, and goes on from step 4: whose epoch, of four batches,
    has ended (0 batches into the next), or is in its midst, or ended only after the checkpoint."""
    t = trainer()
    events = Events(folder, t)
    for number in range(1, 7):
        events.step(step(number))
        if number == 4 and batch != 1:
            events.epoch(epoch(0, 4))
    events.close()
    t.step, t.batch = 4, batch
    again = Events(folder, t)
    if batch == 4:
        again.epoch(epoch(0, 4))
    for number in range(5, 9):
        again.step(step(number))
    again.close()
    found = points(folder)
    steps = [at for at, _ in found["loss/main"]]
    assert steps == [1, 2, 3, *[4] * (batch != 4), 5, 6, 7, 8]
    assert [at for at, _ in found.get("epoch", [])] == ([] if batch == 1 else [4])
    assert len(list(folder.iterdir())) == 2


def test_a_run_that_begins_again_has_no_point_twice(folder):
    """It was killed before its first checkpoint."""
    for last in (6, 3):
        events = Events(folder, trainer())
        for number in range(1, last + 1):
            events.step(step(number))
        events.close()
    assert [at for at, _ in points(folder)["loss/main"]] == [1, 2, 3]


def test_steps_that_are_taken_again_are_dropped(folder):
    events = Events(folder, trainer())
    for number in range(1, 6):
        events.step(step(number))
    events.restart(Restart("the loss is nan", 5, 2, 0, 0.5))
    events.step(step(3))
    events.close()
    assert [at for at, _ in points(folder)["rate"]] == [1, 2, 3]


def test_a_new_run_purges_nothing(folder):
    Events(folder, trainer()).close()
    assert not any(event.HasField("session_log") for event in records(folder))


def test_what_was_told_of_an_epoch_is_on_the_disk(folder):
    events = Events(folder, trainer())
    events.step(step(1))
    events.epoch(epoch(0, 1))
    assert "conv1" in points(folder)
    events.close()


def test_without_the_library_it_says_what_to_install(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("tensorboardX"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r'--tensorboard needs tensorboardX.*: pip install -e "\.\[tensorboard\]"$'):
        Events(tmp_path / "events", trainer())
    assert not (tmp_path / "events").exists()


def test_a_folder_that_cannot_be_written_is_named(folder):
    folder.parent.joinpath("events").write_text("a file")
    with pytest.raises(InputError, match=r"can't write .*events: .*; free space or choose another folder"):
        Events(folder, trainer())


def test_a_full_disk_is_told_once_and_ends_no_run(folder, monkeypatch, caplog):
    events = Events(folder, trainer())
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    for number in range(1, 100):
        events.step(step(number))
    for number in range(2):
        events.epoch(epoch(number, 99))
    events.close()
    assert len(caplog.records) == 1
    assert "No space left on device" in caplog.text
