"""NumPy archives: what NumPy and Chainer wrote comes back; nothing that lies about its size or runs code is taken."""

import io
import pickle
import re
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from googlenet.weights.formats import npz
from minigrad.errors import InputError
from tests.googlenet.weights.arrays import require_same

FIXTURES = Path(__file__).parents[2] / "fixtures" / "weights"
BRANCHES = {"conv1": "1x1", "proj3": "3x3_reduce", "conv3": "3x3", "proj5": "5x5_reduce", "conv5": "5x5",
            "projp": "pool_proj"}


def npy(header: str, values: bytes = b"", version: int = 1) -> bytes:
    length = struct.pack("<H" if version == 1 else "<L", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header.encode() + values


def archive(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def described(descr: str = "'<f4'", fortran: str = "False", shape: str = "(2,)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_wrote_comes_back(tmp_path, save):
    rng = np.random.default_rng(0)
    arrays = {"conv1/weight": rng.normal(size=(8, 3, 7, 7)).astype(np.float32), "double": rng.normal(size=5),
              "half": np.float16([1, 2]), "scalar": np.array(3, np.int64), "empty": np.zeros((0, 4), np.float32),
              "fortran": np.asfortranarray(rng.normal(size=(3, 4, 5))), "big": np.arange(6, dtype=">f4").reshape(2, 3),
              "mask": np.array([True, False]), "été": np.arange(3, dtype=np.uint8)}
    save(tmp_path / "a.npz", **arrays)
    contents = npz.read(tmp_path / "a.npz")
    assert contents.format == "NumPy archive"
    require_same(contents.arrays, arrays)
    assert all(array.flags.aligned and array.dtype.isnative for array in contents.arrays.values())


def test_chainers_file_is_caffes_under_other_names():
    with np.load(FIXTURES / "caffe_npz.npz") as file:
        caffe = dict(file)
    found = npz.read(FIXTURES / "chainer.npz").arrays
    stem = {"conv1": "conv1/7x7_s2", "conv2_reduce": "conv2/3x3_reduce", "conv2": "conv2/3x3",
            "loss3_fc": "loss3/classifier"}
    for loss in ("loss1", "loss2"):
        stem |= {f"{loss}_conv": f"{loss}/conv", f"{loss}_fc1": f"{loss}/fc", f"{loss}_fc2": f"{loss}/classifier"}
    modules = {name.split("/")[0] for name in caffe if name.startswith("inception")}
    stem |= {f"inc{module.removeprefix('inception_')}/{theirs}": f"{module}/{branch}"
             for module in modules for theirs, branch in BRANCHES.items()}
    require_same(found, {f"{theirs}/{letter}": caffe[f"{layer}/{role}"] for theirs, layer in stem.items()
                         for letter, role in (("W", "weight"), ("b", "bias"))})


def test_texts_are_metadata(tmp_path):
    np.savez(tmp_path / "a.npz", probabilities=np.ones((2, 3)), files=np.array(["tench.JPEG", "été.JPEG"]),
             by=np.bytes_("me"))
    contents = npz.read(tmp_path / "a.npz")
    assert list(contents.arrays) == ["probabilities"]
    assert contents.metadata == {"files": "tench.JPEG\nété.JPEG", "by": "me"}


def test_python_2s_long_shapes_and_later_versions_are_read(tmp_path):
    values = np.float32([1, 2]).tobytes()
    path = archive(tmp_path / "a.npz", {"old.npy": npy(described(shape="(2L,)"), values),
                                        "two.npy": npy(described(), values, version=2),
                                        "three.npy": npy(described(), values, version=3)})
    require_same(npz.read(path).arrays, dict.fromkeys(("old", "two", "three"), np.float32([1, 2])))


def test_written_files_are_numpys_and_always_the_same(tmp_path):
    arrays = {"inception_3a/1x1/weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(1.5),
              "turned": np.arange(6.0).reshape(2, 3).T}
    for name in ("a.npz", "b.npz"):
        npz.write(tmp_path / name, arrays)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz") as file:
        require_same(dict(file), arrays)
    require_same(npz.read(tmp_path / "a.npz").arrays, arrays)


def test_recognised_by_the_first_member(tmp_path):
    start = (FIXTURES / "caffe_npz.npz").read_bytes()[:4096]
    assert npz.recognise(start, tmp_path)
    torch = archive(tmp_path / "torch", {"archive/data.pkl": b"", "archive/data/0": b""}).read_bytes()
    assert not npz.recognise(torch, tmp_path)
    for content in (b"", b"P", b"PK\x03\x04", b"\x93NUMPY", b"\x89HDF\r\n\x1a\n", start[1:]):
        assert not npz.recognise(content, tmp_path)


def test_pickles_are_refused_unread(tmp_path):
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("a pickle was run",)

    np.savez(tmp_path / "a.npz", x=np.array([{}]))
    path = archive(tmp_path / "b.npz", {"x.npy": npy(described("'|O'", shape="()"), pickle.dumps(Trap()))})
    for each in (tmp_path / "a.npz", path):
        with pytest.raises(InputError, match=r"x.npy is pickled objects|x.npy is \(1,\) of \|O"):
            npz.read(each)


@pytest.mark.parametrize(("content", "told"), [
    (npy(described(shape="(3,)"), bytes(8)), r"is \(3,\) of <f4, 12 bytes, but holds 8"),
    (npy(described(shape="(1,)"), bytes(8)), r"is \(1,\) of <f4, 4 bytes, but holds 8"),
    (npy(described(shape=f"({2**40},)"), bytes(8)), "but holds 8|describes no array"),
    (npy(described(shape=f"({2**40}, 0, {2**40})")), "describes no array"),
    (npy(described(shape="(-2,)"), bytes(8)), "describes no array"),
    (npy(described(shape="(2.0,)"), bytes(8)), "describes no array"),
    (npy(described(shape="[2]"), bytes(8)), "describes no array"),
    (npy(described(shape="(True, 2)"), bytes(8)), "describes no array"),
    (npy(described(shape="(" + "1," * 40 + ")"), bytes(4)), "describes no array"),
    (npy(described(fortran="1"), bytes(8)), "describes no array"),
    (npy(described("'<c8'"), bytes(16)), "type '<c8', which is not read"),
    (npy(described("'<f3'"), bytes(6)), "type '<f3', which is not read"),
    (npy(described("'|V2'"), bytes(4)), "not read: save it as float32"),
    (npy(described("[('a', '<f4')]"), bytes(8)), "not read"),
    (npy(described("'<U0'")), "not read"),
    (npy("{'descr': '<f4', 'shape': (2,)}", bytes(8)), "describes no array"),
    (npy("[" * 900, bytes(8)), "can't be read"),
    (npy("-" * 900 + "1", bytes(8)), "can't be read"),
    (npy("__import__('os').abort()"), "can't be read"),
    (npy("\xff" * 10), "can't be read"),
    (npy(described().ljust(2000), bytes(8)), "header of 2,000 characters"),
    (npy(described("'<U1'", shape="()"), b"\xff\xff\xff\xff"), "characters that Unicode has not"),
    (b"\x93NUMPY\x01\x00\xff\xff" + bytes(9), "header of 65,535 characters"),
    (b"\x93NUMPY\x07\x00" + bytes(90), "version 1 to 3"),
    (b"\x93NUMPY", "version 1 to 3"), (b"", "version 1 to 3"),
])
def test_headers_that_lie_are_refused(tmp_path, content, told):
    path = archive(tmp_path / "lie.npz", {"x.npy": content})
    with pytest.raises(InputError, match=told) as error:
        npz.read(path)
    assert f"{path}: x.npy" in str(error.value)


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "BEYOND", 2**20)
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros(2**19, np.float32))
    with pytest.raises(InputError, match=re.escape("would unpack to 2,097,280 bytes") + ".* and 1,048,576: unpack it"):
        npz.read(tmp_path / "bomb.npz")
    monkeypatch.setattr(npz, "BEYOND", 2**21)
    assert not npz.read(tmp_path / "bomb.npz").arrays["x"].any()


def deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush()


def zipped(name: bytes, packed: bytes, size: int, crc: int, method: int = 8, *, flags: int = 0, count: int = 1,
           local: bytes | None = None, again: int = 1, comment: int = 0) -> bytes:
    """A zip archive made by hand, so that what it says can be wrong."""
    before = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, flags, method, 0, 0, crc, len(packed), size, len(name), 0)
    entry = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, flags, method, 0, 0, crc, len(packed), size, len(name), 0,
                        comment, 0, 0, 0, 0) + name
    front = before + (local or name) + packed
    return front + entry * again + end(count, len(entry) * again, len(front))


def end(count: int, size: int, start: int) -> bytes:
    return struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, size, start, 0)


CONTENT = npy(described(), bytes(8))
PACKED, CRC = deflated(CONTENT), zlib.crc32(CONTENT)


def test_the_handmade_archive_is_sound(tmp_path):
    (tmp_path / "a.npz").write_bytes(zipped(b"x.npy", PACKED, len(CONTENT), CRC))
    require_same(npz.read(tmp_path / "a.npz").arrays, {"x": np.zeros(2, np.float32)})


@pytest.mark.parametrize(("content", "told"), [
    (zipped(b"x.npy", PACKED, len(CONTENT), CRC ^ 1), "its CRC differs"),
    (zipped(b"x.npy", PACKED, len(CONTENT) + 1, CRC), "its CRC differs"),
    (zipped(b"x.npy", PACKED, len(CONTENT) - 1, CRC), "does not unpack to its|CRC differs"),
    (zipped(b"x.npy", PACKED, 2, CRC), "does not unpack to its 2 bytes"),
    (zipped(b"x.npy", PACKED, 2**30, CRC), "can't be 1,073,741,824 bytes out of"),
    (zipped(b"x.npy", PACKED[:-3], len(CONTENT), CRC), "damaged"),
    (zipped(b"x.npy", PACKED + b"more", len(CONTENT), CRC), "does not unpack"),
    (zipped(b"x.npy", CONTENT, len(CONTENT) + 1, CRC, 0), "can't be"),
    (zipped(b"x.npy", PACKED, len(CONTENT), CRC, 12), "packed by method 12"),
    (zipped(b"x.npy", PACKED, len(CONTENT), CRC, flags=1), "is encrypted"),
    (zipped(b"x.npy", PACKED, len(CONTENT), CRC, local=b"y.npy"), "not where its directory says"),
    (zipped(b"x.npy", PACKED, len(CONTENT), CRC, count=2, again=2), "two members named 'x.npy'"),
    (zipped(b"x.npy", PACKED, len(CONTENT), CRC, count=1, again=2), "longer than its 1 entries"),
    (zipped(b"x.npy", PACKED, len(CONTENT), CRC, count=2), "fewer entries|entry"),
    (zipped(b"x.npy", PACKED, len(CONTENT), CRC, comment=500), "an entry of its directory is not whole"),
    (zipped(b"\xff.npy", PACKED, len(CONTENT), CRC, flags=0x800), "is no text"),
    (zipped(b"x.npy", PACKED, len(CONTENT), CRC, count=0xFFFF), "past 4 GB"),
    (b"\0" + zipped(b"x.npy", PACKED, len(CONTENT), CRC), "contradicts itself"),
    (zipped(b"x.npy", PACKED, len(CONTENT), CRC)[:-1], "end is missing"),
    (zipped(b"x.npy", PACKED, len(CONTENT), CRC) + b"x", "contradicts itself"),
    (zipped(b"readme.txt", PACKED, len(CONTENT), CRC), "readme.txt is no .npy array"),
    (zipped(b".npy", PACKED, len(CONTENT), CRC), "is no .npy array"),
    (b"", "end is missing"), (b"PK\x03\x04", "end is missing"),
    (b"PK\x05\x06" + bytes(18), "holds no arrays"),
])
def test_archives_that_lie_are_refused(tmp_path, content, told):
    path = tmp_path / "lie.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=told) as error:
        npz.read(path)
    assert str(error.value).startswith(str(path))


def test_members_that_share_bytes_are_refused(tmp_path):
    """Many entries of one member unpack to more than the file is made of."""
    path = tmp_path / "quoted.npz"
    one = io.BytesIO()
    with zipfile.ZipFile(one, "w") as file:
        file.writestr("x.npy", npy(described(shape="(2000,)"), bytes(8000)))
    entry = one.getvalue()[file.start_dir:-22]
    content = one.getvalue()[:file.start_dir]
    path.write_bytes(content + entry * 9 + end(9, 9 * len(entry), len(content)))
    with pytest.raises(InputError, match="two members"):
        npz.read(path)


def test_no_changed_byte_of_the_ends_changes_an_array(tmp_path):
    """What no CRC covers, an archive says twice."""
    np.savez_compressed(tmp_path / "a.npz", one=np.arange(3.0), two=np.arange(4), three=np.zeros(2))
    content, expected = (tmp_path / "a.npz").read_bytes(), npz.read(tmp_path / "a.npz").arrays
    for place in range(len(content)):
        for change in (0x01, 0x80):
            (tmp_path / "b.npz").write_bytes(content[:place] + bytes([content[place] ^ change]) + content[place + 1:])
            try:
                found = npz.read(tmp_path / "b.npz").arrays
            except InputError:
                continue
            require_same(found, expected)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none.npz can't be read"):
        npz.read(tmp_path / "none.npz")
