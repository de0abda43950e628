"""safetensors: exact there and back with the library itself, and headers that lie."""

import json
import struct
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from googlenet.weights.formats import safetensors
from minigrad.errors import InputError
from tests.fuzz import mutate

FIXTURE = Path(__file__).parents[2] / "fixtures" / "weights" / "torch.safetensors"
TYPES = ["f8", "f4", "f2", "i8", "u8", "i4", "u4", "i2", "u2", "i1", "u1", "?"]
F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def some_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    arrays = {f"{kind}.weight": (rng.standard_normal((3, 5)) * 100).astype(kind) for kind in TYPES}
    return {**arrays, "scalar": np.array(7.5), "empty": np.zeros((0, 3), np.float32),
            "transposed": arrays["f4.weight"].T, "big": arrays["f4.weight"].astype(">f4"),
            'a "name" of ünïcode': np.ones(1, np.int16)}


def file(header: object, content: bytes = bytes(8), size: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + content


@pytest.fixture
def read(tmp_path):
    def of(content: bytes):
        path = tmp_path / "some.file"
        path.write_bytes(content)
        return safetensors.read(path)

    return of


def test_the_librarys_file_comes_back_exactly():
    contents = safetensors.read(FIXTURE)
    assert (contents.format, contents.notes, contents.metadata) == ("safetensors", (), {"format": "pt"})
    assert len(contents.arrays) == 364
    expected = np.load(FIXTURE.with_name("torch_expected.npz"))
    for name, array in contents.arrays.items():
        if name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(array, np.array(1000), strict=True)
        else:
            np.testing.assert_array_equal(array, expected[name], err_msg=name, strict=True)


def test_written_as_the_library_writes(tmp_path):
    """To the byte, without the library: order, alignment and spaces are its own."""
    contents = safetensors.read(FIXTURE)
    shuffled = dict(sorted(contents.arrays.items(), key=lambda item: hash(item[0])))
    safetensors.write(tmp_path / "x", shuffled, contents.metadata)
    assert (tmp_path / "x").read_bytes() == FIXTURE.read_bytes()


@pytest.mark.parametrize("metadata", [None, {"variant": "torchvision", "classes": "été"}])
def test_the_library_reads_what_is_written(tmp_path, metadata):
    library = pytest.importorskip("safetensors", reason="reads the file")
    arrays = some_arrays()
    safetensors.write(tmp_path / "x", arrays, metadata)
    with library.safe_open(tmp_path / "x", "numpy") as found:
        assert found.metadata() == metadata
        assert sorted(found.keys()) == sorted(arrays)
        for name, array in arrays.items():
            assert found.get_tensor(name).dtype == array.dtype.newbyteorder("=")
            np.testing.assert_array_equal(found.get_tensor(name), array, err_msg=name)


def test_what_the_library_writes_is_read(tmp_path):
    """And our writing of it is the same to the byte, for all types of values."""
    library = pytest.importorskip("safetensors.numpy", reason="writes the file")
    arrays = {name: np.ascontiguousarray(array, array.dtype.newbyteorder("=")) if array.ndim else array
              for name, array in some_arrays().items()}
    library.save_file(arrays, tmp_path / "x")
    safetensors.write(tmp_path / "ours", arrays)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "x").read_bytes()
    found = safetensors.read(tmp_path / "x").arrays
    assert sorted(found) == sorted(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name, strict=True)


def test_what_is_written_is_read(tmp_path):
    arrays = some_arrays()
    safetensors.write(tmp_path / "x", arrays, {"a": "b"})
    contents = safetensors.read(tmp_path / "x")
    assert contents.metadata == {"a": "b"}
    assert sorted(contents.arrays) == sorted(arrays)
    for name, array in arrays.items():
        found = contents.arrays[name]
        assert (found.dtype, found.flags.aligned) == (array.dtype.newbyteorder("="), True)
        np.testing.assert_array_equal(found, array, err_msg=name)


def test_values_begin_at_multiples_of_eight(tmp_path):
    for length in range(1, 18):
        safetensors.write(tmp_path / "x", {"n" * length: np.ones(3)})
        content = (tmp_path / "x").read_bytes()
        assert struct.unpack_from("<Q", content)[0] % 8 == 0
        assert content.endswith(np.ones(3).tobytes())


def test_bfloat16_becomes_float32(read):
    header = {"a": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}
    contents = read(file(header, bytes.fromhex("803f 20c0 807f 0100")))
    expected = np.array([[1, -2.5], [np.inf, 2.0**-133]], np.float32)
    np.testing.assert_array_equal(contents.arrays["a"], expected, strict=True)
    assert "bfloat16" in contents.notes[0]


def test_values_are_aligned_wherever_they_lie(read):
    header = {"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
              "b": {"dtype": "F32", "shape": [2], "data_offsets": [1, 9]}}
    array = read(file(header, b"\0" + np.float32([1, 2]).tobytes())).arrays["b"]
    assert array.flags.aligned
    np.testing.assert_array_equal(array, np.float32([1, 2]), strict=True)


def test_any_byte_but_zero_is_true(read):
    header = {"a": {"dtype": "BOOL", "shape": [4], "data_offsets": [0, 4]}}
    assert read(file(header, b"\0\1\2\xff")).arrays["a"].tobytes() == b"\0\1\1\1"


def test_recognised_by_content():
    assert safetensors.recognise(FIXTURE.read_bytes()[:4096], Path("weights.pth"))
    assert safetensors.recognise(file({}, b""), Path("x"))
    for start in (b"", b"\0" * 4096, b'{"a": 1}    ', file([1]), b"\xff" * 8 + b'{"', b"\x89HDF\r\n\x1a\n" + bytes(50),
                  FIXTURE.with_name("torch_zip.pth").read_bytes()[:4096]):
        assert not safetensors.recognise(start, Path("x.safetensors"))


@pytest.mark.parametrize(("header", "told"), [
    (b"{ ", "not JSON"), (b"\xff\xfe", "not JSON"),
    ([], "list, expected"), (b" 5", "int, expected"), ("a", "str, expected"),
    (b'{"a": NaN}', "no dtype"), (b"[" * 100_000, "not JSON"), (b'{"a":' * 100_000, "not JSON"),
    (b'{"a": ' + b"1" * 5000 + b"}", "not JSON"),
    ({"__metadata__": 1}, "no object of texts"), ({"__metadata__": {"a": 1}}, "no object of texts"),
    ({"a": 1}, "'a' no dtype"), ({"a": {"dtype": "F32"}}, "'a' no dtype"), ({"a": {**F32, "more": 1}}, "'a' no dtype"),
    ({"a": {**F32, "dtype": 1}}, "'a' no dtype"), ({"a": {**F32, "dtype": "F8_E4M3"}}, "'F8_E4M3', expected one of"),
    ({"a": {**F32, "shape": [-2]}}, "shape that no"), ({"a": {**F32, "shape": 2}}, "shape that no"),
    ({"a": {**F32, "shape": [2.0]}}, "shape that no"), ({"a": {**F32, "shape": [True, 2]}}, "shape that no"),
    ({"a": {**F32, "shape": [2**40]}}, r"'a' \(1099511627776,\) of F32 is 4398046511104 bytes"),
    ({"a": {**F32, "shape": [2**70]}}, "shape that no"), ({"a": {**F32, "shape": [10**30] * 200_000}}, "shape that no"),
    ({"a": {**F32, "shape": [0, 2**40, 2**40]}}, "shape that no"), ({"a": {**F32, "shape": [1] * 33}}, "shape that no"),
    ({"a": {**F32, "shape": [3]}}, "12 bytes, which its data_offsets are not"),
    ({"a": {**F32, "data_offsets": [8, 0]}}, "are not"), ({"a": {**F32, "data_offsets": [0, 8, 16]}}, "are not"),
    ({"a": {**F32, "data_offsets": [False, 8]}}, "are not"), ({"a": {**F32, "data_offsets": [0.0, 8.0]}}, "are not"),
    ({"a": {**F32, "data_offsets": None}}, "are not"), ({"a": {**F32, "data_offsets": [-8, 0]}}, "are not"),
    ({"a": {**F32, "data_offsets": [8, 16]}}, "'a' begins at byte 8, expected 0"),
    ({"a": F32, "b": {**F32, "data_offsets": [4, 12]}}, "'b' begins at byte 4, expected 8"),
    ({"a": F32, "b": F32}, "'b' begins at byte 0, expected 8"),
    ({"a": {**F32, "shape": [1], "data_offsets": [0, 4]}}, "end at byte 4 of 8"),
    ({"a": {**F32, "shape": [4], "data_offsets": [0, 16]}}, "end at byte 16 of 8"), ({}, "end at byte 0 of 8"),
    (b'{"a": %s, "a": %s}' % ((json.dumps(F32).encode(),) * 2), "'a' twice"),
    (b'{"a": {"dtype": "F32", "dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}', "'dtype' twice"),
    (b'{"\\ud800": %s}' % json.dumps(F32).encode(), "isn't Unicode"),
    (b'{"__metadata__": {"a": "\\udfff"}, "a": %s}' % json.dumps(F32).encode(), "isn't Unicode"),
])
def test_headers_that_lie_are_refused(read, header, told):
    with pytest.raises(InputError, match=f"some.file: .*{told}") as error:
        read(file(header))
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("content", [b"", b"\0" * 7, bytes(8), file({}, b"", 2**40), file({}, b"", 2**64 - 1),
                                     file({}, b"", 3), file(b" " * (safetensors.LONGEST + 1)), file({"a": F32}, b"")])
def test_sizes_that_do_not_fit_are_refused(read, content):
    with pytest.raises(InputError, match=r"some.file: its (header is \d+ bytes|arrays end)"):
        read(content)


@pytest.mark.parametrize(("part", "told"), [
    (b"{},", "more than 43690 arrays"), (b"[],", "more than 43690 arrays"), (b"999,", "no dtype"),
    (b'"ab",', "no dtype"), (b"1e9,", "no dtype"), (b'"",', "no dtype"), (b"\xf0\x9f\x98\x80", "not JSON")])
def test_headers_of_many_parts_take_bounded_memory_and_time(read, part, told):
    content = file(b'{"a": [' + part * ((safetensors.LONGEST - 20) // len(part)) + b"0]}")
    begin = time.process_time()
    with pytest.raises(InputError, match=told):
        read(content)
    assert time.process_time() - begin < 2
    tracemalloc.start()
    try:
        with pytest.raises(InputError):
            read(content)
        assert tracemalloc.get_traced_memory()[1] < 300 * 2**20
    finally:
        tracemalloc.stop()


def test_many_names_and_one_twice_take_little_time(read):
    names = b"".join(b'"%d":0,' % i for i in range(500_000))
    begin = time.process_time()
    with pytest.raises(InputError, match="'499999' twice"):
        read(file(b"{" + names + b'"499999":0}'))
    assert time.process_time() - begin < 2


def test_cut_files_are_refused(read):
    content = FIXTURE.read_bytes()
    for place in (0, 7, 8, 9, 100, *(len(content) * i // 50 for i in range(50)), len(content) - 1):
        with pytest.raises(InputError):
            read(content[:place])
    with pytest.raises(InputError, match="end at byte"):
        read(content + b"\0")


def test_changed_files_are_refused_or_read(read, tmp_path):
    safetensors.write(tmp_path / "x", {name: array for name, array in some_arrays().items() if array.size < 100})
    content = (tmp_path / "x").read_bytes()
    for number in range(1000):
        changed = mutate(content, number, np.random.default_rng([2, number]), [])
        try:
            arrays = read(changed).arrays
        except InputError:
            continue
        size = struct.unpack_from("<Q", changed)[0]
        header = json.loads(changed[8:8 + size])
        for name, array in arrays.items():
            assert array.shape == tuple(header[name]["shape"])


def test_what_can_not_be_written_is_refused(tmp_path):
    for arrays in ({"a": np.ones(2, complex)}, {"a": np.array(["text"])}, {"__metadata__": np.ones(2)}):
        with pytest.raises(InputError, match=r"x: (a|__metadata__) \(.*\) can't be stored"):
            safetensors.write(tmp_path / "x", arrays)
    assert not (tmp_path / "x").exists()
    with pytest.raises(InputError, match="can't"):
        safetensors.write(tmp_path / "no" / "x", {"a": np.ones(2)})
