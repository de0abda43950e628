"""TensorFlow's checkpoints: what TensorFlow wrote comes back exactly, and whatever is malformed is said."""

import gzip
import io
import shutil
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

from googlenet.weights.formats import tensorflow_checkpoint, tensorflow_tensor
from googlenet.weights.formats.crc32c import masked
from googlenet.weights.formats.protobuf import Field, encode
from googlenet.weights.formats.tensorflow_checkpoint import ENTRY, SAVED_SLICES, SLICE_KEY, SLICE_NAME_END
from minigrad.errors import InputError
from tests.fixtures.make_tensorflow import TRAINING
from tests.googlenet.weights.arrays import require_same
from tests.googlenet.weights.test_sstable import table

FIXTURES = Path(__file__).parents[2] / "fixtures/weights"
V1, V2 = FIXTURES / "slim_v1.ckpt", FIXTURES / "slim_v2.ckpt"
SHARD = ".data-00000-of-00001"
FLOAT, INT32, STRING, INT64, BFLOAT16, HALF = 1, 3, 7, 9, 14, 19
HEADER = {1: Field("num_shards", "int"), 2: Field("endianness", "int"), 3: Field("version", "message", {})}


def expected() -> dict[str, np.ndarray]:
    with np.load(FIXTURES / "slim_expected.npz") as archive:
        return {name.removeprefix("array/"): archive[name] for name in archive.files if name.startswith("array/")}


def recognised(path: Path) -> bool:
    start = b""
    if path.is_file():
        with open(path, "rb") as file:
            start = file.read(4096)
    return tensorflow_checkpoint.recognise(start, path)


# What TensorFlow wrote.

def test_v1_comes_back():
    assert recognised(V1)
    contents = tensorflow_checkpoint.read(V1)
    assert contents.format == "TensorFlow checkpoint (V1)"
    assert not contents.notes
    require_same(contents.arrays, expected())


@pytest.mark.parametrize("suffix", ["", ".index", SHARD])
def test_v2_comes_back_by_each_of_its_names(suffix):
    """With all that training leaves, and a variable that is stored in slices."""
    path = V2.with_name(V2.name + suffix)
    assert recognised(path)
    contents = tensorflow_checkpoint.read(path)
    assert contents.format == "TensorFlow checkpoint (V2)"
    require_same(contents.arrays, expected() | {name: np.asarray(array) for name, array in TRAINING.items()})


def test_other_files_are_not_taken_for_checkpoints(tmp_path):
    for name, content in {"empty": b"", "short": b"a" * 47, "text": b"a" * 5000, "x.index": b"b" * 100,
                          "c.gz": b"\x1f\x8b\x08", "a.gz": gzip.compress(b"a" * 5000),
                          "b.gz": gzip.compress(b"a")}.items():
        (tmp_path / name).write_bytes(content)
        assert not recognised(tmp_path / name), name
    for path in (tmp_path, tmp_path / "nothing", tmp_path / "x", Path("/"), Path(), Path("nul\0"),
                 FIXTURES / "slim_expected.npz"):
        assert not recognised(path), path
    with pytest.raises(InputError, match="no checkpoint of TensorFlow"):
        tensorflow_checkpoint.read(tmp_path / "text")
    with pytest.raises(InputError, match="can't be read"):
        tensorflow_checkpoint.read(tmp_path / "nothing")


def test_missing_and_misnamed_shards(tmp_path):
    shutil.copy(f"{V2}.index", tmp_path / "a.index")
    with pytest.raises(InputError, match=r"a\.data-00000-of-00001 can't be read"):
        tensorflow_checkpoint.read(tmp_path / "a")
    shutil.copy(f"{V2}.index", tmp_path / "renamed")
    with pytest.raises(InputError, match=r"PREFIX\.index"):
        tensorflow_checkpoint.read(tmp_path / "renamed")


def test_every_kind_of_damage_to_what_tensorflow_wrote(tmp_path):
    """One byte in each stretch of the file, and the file cut there: a clear message or the same arrays."""
    for source in (V1, V2.with_name(f"{V2.name}.index"), V2.with_name(V2.name + SHARD)):
        for other in FIXTURES.glob("slim_v2.ckpt.*"):
            shutil.copy(other, tmp_path)
        content = source.read_bytes()
        for at in range(0, len(content) - 48, len(content) // 60 - 1):
            changed = bytearray(content)
            changed[at] ^= 0x10
            for damaged in (bytes(changed), content[:at]):
                (tmp_path / source.name).write_bytes(damaged)
                with pytest.raises(InputError, match=r"damaged|no checkpoint"):
                    tensorflow_checkpoint.read(tmp_path / source.name)


# Archives.

def archived(path: Path, files: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_archives_are_read_as_they_are(tmp_path):
    path = archived(tmp_path / "inception_v1.tar.gz", {"README": b"words", "inception_v1.ckpt": V1.read_bytes()})
    assert recognised(path)
    require_same(tensorflow_checkpoint.read(path).arrays, expected())
    files = {f"./model/{file.name}": file.read_bytes() for file in FIXTURES.glob("slim_v2.ckpt.*")}
    contents = tensorflow_checkpoint.read(archived(tmp_path / "v2.tgz", files))
    assert contents.arrays.keys() == expected().keys() | TRAINING.keys()


def test_archives_without_one_checkpoint(tmp_path):
    with pytest.raises(InputError, match=r"0 checkpoints.*a\.txt"):
        tensorflow_checkpoint.read(archived(tmp_path / "none", {"a.txt": b"a"}))
    with pytest.raises(InputError, match=r"2 checkpoints.*\(it has a, b\)"):
        tensorflow_checkpoint.read(archived(tmp_path / "two", {"b": V1.read_bytes(), "a": V1.read_bytes()}))
    with pytest.raises(InputError, match=r"has no v2\.data-00000-of-00001"):
        tensorflow_checkpoint.read(archived(tmp_path / "half", {"v2.index": Path(f"{V2}.index").read_bytes()}))


def test_damaged_archives(tmp_path):
    path = archived(tmp_path / "a", {"inception_v1.ckpt": V1.read_bytes()})
    content = path.read_bytes()
    for damaged in (content[:-100], content[:600], content[:50_000] + b"\0" + content[50_001:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged archive"):
            tensorflow_checkpoint.read(path)


def test_archives_that_unpack_to_too_much(tmp_path, monkeypatch):
    path = archived(tmp_path / "bomb", {"zeros": bytes(10**6)})
    monkeypatch.setattr(tensorflow_checkpoint, "UNPACKED", 10**5)
    with pytest.raises(InputError, match="unpack it"):
        tensorflow_checkpoint.read(path)


# V1 by hand.

def shape(*sizes: int) -> dict:
    return {"dim": [{"size": size} for size in sizes]}


def box(*bounds: tuple[int, int] | None) -> dict:
    return {"extent": [{"start": each[0], "length": each[1]} if each else {} for each in bounds]}


def v1(tmp_path: Path, tensors: list[dict], slices: list[dict]) -> Path:
    """A V1 file of a list of tensors and of slices, as TensorFlow would write it."""
    pairs = [(b"", encode(SAVED_SLICES, {"meta": {"tensor": tensors}}))]
    pairs += [(b"%03d" % i, encode(SAVED_SLICES, {"data": each})) for i, each in enumerate(slices)]
    path = tmp_path / "hand.ckpt"
    path.write_bytes(table(pairs))
    return path


def tensor(name: str = "w", type_: int = FLOAT, sizes: tuple[int, ...] = (2, 3)) -> dict:
    return {"name": name, "type": type_, "shape": shape(*sizes), "slice": [box(*(None for _ in sizes))]}


def piece(data: dict, *bounds: tuple[int, int] | None, name: str = "w") -> dict:
    return {"name": name, "slice": box(*bounds), "data": data}


SIX = {"floats": np.arange(6, dtype=np.float32)}


def test_v1_slices_are_put_together(tmp_path):
    left = {"floats": np.array([0, 1, 10, 11], np.float32)}
    right = {"floats": np.array([2, 12], np.float32)}
    path = v1(tmp_path, [tensor()], [piece(right, None, (2, 1)), piece(left, None, (0, 2))])
    np.testing.assert_array_equal(tensorflow_checkpoint.read(path).arrays["w"], [[0, 1, 2], [10, 11, 12]])


@pytest.mark.parametrize(("type_", "data", "dtype", "values"), [
    (FLOAT, {"floats": np.array([1.5, -2], np.float32)}, np.float32, [1.5, -2]),
    (FLOAT, {"floats": np.array([1.5], np.float32)}, np.float32, [1.5, 1.5]),  # the last value stands for the others
    (FLOAT, {}, np.float32, [0, 0]),
    (FLOAT, {"content": struct.pack("<2f", 1.5, -2)}, np.float32, [1.5, -2]),
    (2, {"doubles": np.array([1.5, -2])}, np.float64, [1.5, -2]),
    (INT32, {"ints": [-1, 2**31 - 1]}, np.int32, [-1, 2**31 - 1]),
    (4, {"ints": [0, 255]}, np.uint8, [0, 255]),
    (6, {"ints": [-128, 127]}, np.int8, [-128, 127]),
    (INT64, {"longs": [-2**63, 5]}, np.int64, [-2**63, 5]),
    (23, {"unsigned_longs": [2**64 - 1, 5]}, np.uint64, [2**64 - 1, 5]),
    (10, {"bools": [1, 0]}, np.bool_, [True, False]),
    (HALF, {"halves": [0x3C00, 0xC000]}, np.float16, [1, -2]),
    (BFLOAT16, {"halves": [0x3F80, 0xC000]}, np.float32, [1, -2]),
    (BFLOAT16, {"content": struct.pack("<2H", 0x3FC0, 0xC000)}, np.float32, [1.5, -2]),
])
def test_types(tmp_path, type_, data, dtype, values):
    contents = tensorflow_checkpoint.read(v1(tmp_path, [tensor(type_=type_, sizes=(2,))], [piece(data, None)]))
    assert contents.arrays["w"].dtype == dtype
    assert contents.arrays["w"].tolist() == values
    assert bool(contents.notes) == (type_ == BFLOAT16)


def test_scalars_and_empty_arrays(tmp_path):
    path = v1(tmp_path, [tensor("global_step", INT64, ()), tensor("none", FLOAT, (0, 3))],
              [piece({"longs": [7]}, name="global_step"), piece({}, None, None, name="none")])
    arrays = tensorflow_checkpoint.read(path).arrays
    assert arrays["global_step"].shape == ()
    assert arrays["global_step"] == 7
    assert arrays["none"].shape == (0, 3)


def test_text_is_left_out_and_said(tmp_path):
    path = v1(tmp_path, [tensor("text", STRING, ()), tensor()], [piece({}, name="text"), piece(SIX, None, None)])
    contents = tensorflow_checkpoint.read(path)
    assert list(contents.arrays) == ["w"]
    assert "text" in contents.notes[0]


@pytest.mark.parametrize(("tensors", "slices", "message"), [
    ([tensor()], [], "has 0 values in 0 slices"),
    ([tensor()], [piece({"floats": np.zeros(4, np.float32)}, None, (0, 2))], "has 4 values in 1 slices"),
    ([tensor()], [piece({}, None, (0, 2)), piece({}, None, (1, 1))], "slices that overlap"),
    ([tensor()], [piece(SIX, None, None), piece(SIX, None, None)], "slice twice"),
    ([tensor()], [piece(SIX, None)], "a slice of 1 axes"),
    ([tensor()], [piece(SIX, None, (1, 3))], "a slice from 1 to 4"),
    ([tensor()], [piece(SIX, None, (-1, 3))], "a slice from -1 to 2"),
    ([tensor()], [piece(SIX, None, (2, -1))], "a slice from 2 to 1"),
    ([tensor()], [piece({"floats": np.zeros(7, np.float32)}, None, None)], "7 values for the shape"),
    ([tensor()], [piece({"content": bytes(20)}, None, None)], "20 bytes"),
    ([tensor()], [piece(SIX, None, None), piece(SIX, None, None, name="x")], "does not list x"),
    ([tensor(), tensor()], [piece(SIX, None, None)], "lists w twice"),
    ([tensor(type_=8)], [piece({}, None, None)], "data type 8"),
    ([tensor(sizes=(2**40,))], [piece({}, None)], "more than 128 MiB"),
    ([tensor(sizes=(2**40, 2**40))], [piece({}, None, None)], r"has the shape \(1099511627776, "),
    ([tensor(sizes=(2**40, 0, 2**40))], [piece({}, None, None, None)], r"has the shape"),
    ([tensor(sizes=(2, -3))], [piece(SIX, None, None)], "known sizes"),
    ([tensor(sizes=(1,) * 33)], [piece(SIX, *[None] * 33)], "known sizes"),
])
def test_malformed_v1(tmp_path, tensors, slices, message):
    with pytest.raises(InputError, match=message):
        tensorflow_checkpoint.read(v1(tmp_path, tensors, slices))


def test_values_that_are_repeated_are_bounded_together(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorflow_tensor, "FILLED", 4000)
    tensors = [tensor(name, sizes=(600,)) for name in "ab"]
    slices = [piece({"floats": np.ones(1, np.float32)}, None, name=name) for name in "ab"]
    assert tensorflow_checkpoint.read(v1(tmp_path, tensors[:1], slices[:1])).arrays["a"].sum() == 600
    with pytest.raises(InputError, match=r"b has the shape \(600,\) and 1 values"):
        tensorflow_checkpoint.read(v1(tmp_path, tensors, slices))


# V2 by hand.

def entry(values: bytes, type_: int = FLOAT, sizes: tuple[int, ...] = (2,), offset: int = 0, **more) -> dict:
    return {"dtype": type_, "shape": shape(*sizes), "offset": offset, "size": len(values),
            "crc32c": masked(values)} | more


def v2(tmp_path: Path, entries: dict[bytes, dict], values: bytes, **header) -> Path:
    pairs = [(b"", encode(HEADER, {"num_shards": 1, **header}))]
    pairs += [(name, encode(ENTRY, each)) for name, each in sorted(entries.items())]
    (tmp_path / "hand.index").write_bytes(table(pairs))
    (tmp_path / f"hand{SHARD}").write_bytes(values)
    return tmp_path / "hand"


TWO = struct.pack("<2f", 1.5, -2)
SLICE_OF_W = SLICE_KEY + b"w" + SLICE_NAME_END + b"\1\x80\x82"


def test_big_endian_values(tmp_path):
    values = struct.pack(">2f", 1.5, -2)
    array = tensorflow_checkpoint.read(v2(tmp_path, {b"w": entry(values)}, values, endianness=1)).arrays["w"]
    assert array.tolist() == [1.5, -2]
    assert array.dtype.isnative


def test_shards_are_found_by_their_numbers(tmp_path):
    path = v2(tmp_path, {b"w": entry(TWO, shard_id=1)}, b"", num_shards=2)
    (tmp_path / "hand.data-00001-of-00002").write_bytes(TWO)
    assert tensorflow_checkpoint.read(path).arrays["w"].tolist() == [1.5, -2]


@pytest.mark.parametrize(("entries", "message"), [
    ({b"w": entry(TWO) | {"crc32c": 5}}, "w does not have its checksum"),
    ({b"w": entry(TWO) | {"size": 2**40}}, "w has 1099511627776 bytes at 0 of shard 0, which has 8"),
    ({b"w": entry(TWO, offset=4)}, "w has 8 bytes at 4"),
    ({b"w": entry(TWO, offset=-4)}, "at -4"),
    ({b"w": entry(TWO) | {"size": -8}}, "has -8 bytes"),
    ({b"w": entry(TWO, shard_id=1)}, "of shard 1 of 1"),
    ({b"w": entry(TWO, shard_id=-1)}, "of shard -1 of 1"),
    ({b"w": entry(TWO, sizes=(3,))}, "8 bytes"),
    ({b"w": entry(TWO, type_=99)}, "data type 99"),
    ({b"w": entry(TWO), b"x": entry(TWO)}, "two tensors have the bytes at 0"),
    ({b"\xff": entry(TWO)}, "is no text"),
    ({b"w": entry(b"", slices=[box((0, 1)), box((1, 1))])}, "in 2 slices and has 0"),
    ({SLICE_OF_W: entry(TWO)}, "does not list w"),
    ({b"w": entry(b"", slices=[box((0, 2))]), SLICE_OF_W: entry(TWO, sizes=(1, 2))}, "another shape"),
    ({b"w": entry(b"", slices=[box((0, 2))]), SLICE_OF_W: entry(TWO, type_=INT32)}, "another shape"),
])
def test_malformed_v2(tmp_path, entries, message):
    with pytest.raises(InputError, match=message):
        tensorflow_checkpoint.read(v2(tmp_path, entries, TWO))


def test_text_of_v2_is_left_out(tmp_path):
    """Its length and checksum are of another kind, so they aren't looked at."""
    contents = tensorflow_checkpoint.read(v2(tmp_path, {b"_CHECKPOINTABLE": entry(b"", STRING) | {"size": 50},
                                                        b"w": entry(TWO)}, TWO))
    assert list(contents.arrays) == ["w"]
    assert "_CHECKPOINTABLE" in contents.notes[0]


def test_tables_that_are_no_checkpoints(tmp_path):
    (tmp_path / "a").write_bytes(table([(b"key", b"value")]))
    with pytest.raises(InputError, match="without a header"):
        tensorflow_checkpoint.read(tmp_path / "a")


# Against TensorFlow, where it is installed.

@pytest.mark.parametrize("version", ["V1", "V2"])
def test_against_tensorflow(tmp_path, version):
    """All number types, odd shapes, slices along every axis."""
    tf = pytest.importorskip("tensorflow", reason="compares with TensorFlow's own files")
    v1 = tf.compat.v1
    random = np.random.default_rng(3)
    types = ["float32", "float64", "int32", "int64", "uint8", "int8", "int16", "bool", "float16"]
    arrays = {f"scope/{name}": random.integers(0, 2, (3, 1, 2)).astype(name) for name in types}
    arrays |= {"scalar": np.float32(0.1), "empty": np.zeros((0, 2), np.float32), "long/" + "x" * 300: np.ones(3)}
    sliced = random.standard_normal((70, 300)).astype(np.float32)
    with tf.Graph().as_default(), v1.Session() as session:
        for name, array in arrays.items():
            v1.get_variable(name, initializer=array, use_resource=True)
        for axis in (0, 1):
            cut = v1.fixed_size_partitioner(30, axis)
            parts = list(v1.get_variable(f"sliced{axis}", sliced.shape, partitioner=cut))
            session.run([part.initializer for part in parts])
            for part, values in zip(parts, np.array_split(sliced, 30, axis), strict=True):
                part.load(values, session)
        session.run([v.initializer for v in v1.global_variables() if not v.op.name.startswith("sliced")])
        saver = v1.train.Saver(write_version=getattr(v1.train.SaverDef, version))
        path = saver.save(session, str(tmp_path / "x.ckpt"))
    wanted = {name: np.asarray(array) for name, array in arrays.items()}
    require_same(tensorflow_checkpoint.read(Path(path)).arrays, wanted | {"sliced0": sliced, "sliced1": sliced})


def test_checkpoint_of_tensorflow_2(tmp_path):
    """Of objects, whose names end in an attribute's; with bfloat16, and the text that describes them."""
    tf = pytest.importorskip("tensorflow", reason="compares with TensorFlow's own files")
    values = np.array([[1.5, -2, 3e38]], np.float32)
    module = tf.Module()
    module.a, module.b = tf.Variable(values), tf.Variable(tf.cast(values, tf.bfloat16))
    contents = tensorflow_checkpoint.read(Path(tf.train.Checkpoint(module=module).save(str(tmp_path / "x"))))
    end = "/.ATTRIBUTES/VARIABLE_VALUE"
    np.testing.assert_array_equal(contents.arrays[f"module/a{end}"], values)
    np.testing.assert_array_equal(contents.arrays[f"module/b{end}"], tf.cast(module.b, tf.float32).numpy())
    assert len(contents.notes) == 2
