"""torch.save's files: exact read-back, and nothing in them runs, whatever it is called."""

import io
import pickle
import random
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from googlenet.weights.formats import torch_pickle
from googlenet.weights.formats.unpickling import MOST_STEPS
from minigrad.errors import InputError
from tests.fuzz import mutate

FIXTURES = Path(__file__).parents[2] / "fixtures" / "weights"
FILES = {"torch_legacy.pth": ("legacy", 364), "torch_zip.pth": ("zip", 344), "torch_half.pth": ("legacy", 364)}
VALUES = np.arange(6, dtype=np.float32)


# Pickles by hand, an opcode after the other.

def plain(value: object) -> bytes:
    """The opcodes that push a value, without the protocol in front and the stop behind."""
    return pickle.dumps(value, 2)[2:-1]


def named(path: str) -> bytes:
    module, _, name = path.rpartition(".")
    return f"c{module}\n{name}\n".encode()


def storage(key: object = "0", kind: str = "torch.FloatStorage", count: object = 6) -> bytes:
    return b"(" + plain("storage") + named(kind) + plain(key) + plain("cpu") + plain(count) + b"tQ"


def tensor(stored: bytes, offset: object = 0, size: object = (2, 3), stride: object = (3, 1)) -> bytes:
    hooks = named("collections.OrderedDict") + b")R"
    return (named("torch._utils._rebuild_tensor_v2") + b"(" + stored + plain(offset) + plain(size) + plain(stride)
            + b"\x89" + hooks + b"tR")


def state(**tensors: bytes) -> bytes:
    return b"\x80\x02}(" + b"".join(plain(name) + opcodes for name, opcodes in tensors.items()) + b"u."


A = state(a=tensor(storage()))


def zipped(pickled: bytes, storages: dict[str, bytes] | None = None, **more: bytes) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, content in ({"0": VALUES.tobytes()} if storages is None else storages).items():
            archive.writestr(f"archive/data/{key}", content)
        for name, content in more.items():
            archive.writestr(f"archive/{name}", content)
    return memory.getvalue()


def legacy(pickled: bytes, keys: object = ("0",), content: bytes = struct.pack("<q", 6) + VALUES.tobytes(),
           order: bool = True) -> bytes:
    parts = [0x1950a86a20f9469cfc6c, 1001, {"protocol_version": 1001, "little_endian": order, "type_sizes": {}}]
    keys = list(keys) if isinstance(keys, tuple) else keys
    return b"".join(pickle.dumps(part, 2) for part in parts) + pickled + pickle.dumps(keys, 2) + content


@pytest.fixture
def read(tmp_path):
    def of(content: bytes):
        path = tmp_path / "some.file"
        path.write_bytes(content)
        return torch_pickle.read(path)

    return of


# What torch wrote.

@pytest.mark.parametrize("name", FILES)
def test_torchs_files_come_back_exactly(name):
    kind, count = FILES[name]
    contents = torch_pickle.read(FIXTURES / name)
    assert contents.format == f"torch pickle ({kind})"
    assert contents.notes == ()
    assert len(contents.arrays) == count
    expected = np.load(FIXTURES / "torch_expected.npz")
    for path, array in contents.arrays.items():
        assert array.flags.aligned, path
        assert array.dtype.isnative, path
        if path.endswith("num_batches_tracked"):
            assert array.shape == ()
            assert array.dtype == np.int64
            assert array == 1000
        else:
            stored = expected[path].astype(np.float16) if "half" in name else expected[path]
            assert array.dtype == stored.dtype
            np.testing.assert_array_equal(array, stored, err_msg=path, strict=True)


@pytest.mark.parametrize("name", FILES)
def test_recognised_by_content(name, tmp_path):
    content = (FIXTURES / name).read_bytes()
    path = tmp_path / "weights.npz"
    path.write_bytes(content)
    assert torch_pickle.recognise(content[:4096], path)


@pytest.mark.parametrize("name", ["torch.safetensors", "torch_expected.npz"])
def test_others_are_not_recognised(name):
    assert not torch_pickle.recognise((FIXTURES / name).read_bytes()[:4096], FIXTURES / name)


def test_recognised_wherever_the_pickle_is(tmp_path):
    """Not only as the archive's first member; what is no archive at all is not, and does not raise."""
    path = tmp_path / "x"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/version", "3")
        archive.writestr("archive/data.pkl", A)
    assert torch_pickle.recognise(path.read_bytes(), path)
    path.write_bytes(b"PK\x03\x04 cut short")
    for start in (b"", b"PK\x03\x04", b"PK\x03\x04" + bytes(30), b"\x80\x02", random.Random(1).randbytes(4096)):
        assert not torch_pickle.recognise(start, path)


def everything(torch):
    """State dicts of every type of values, and of views of all kinds."""
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(4, 6, generator=generator) * 100
    types = [torch.float64, torch.float32, torch.float16, torch.int64, torch.int32, torch.int16, torch.int8,
             torch.uint8, torch.bool]
    arrays = {str(dtype): values.abs().to(dtype) for dtype in types}
    return OrderedDict(
        **arrays, transposed=values.t(), part=values[1:3, 2:5], step=values[:, ::2], column=values[:, 3],
        repeated=torch.arange(3).expand(5, 3), scalar=torch.tensor(7), empty=torch.zeros(0, 3), same=values,
        again=values,
        flipped_axes=torch.randn(2, 3, 4, 5, generator=generator).permute(3, 1, 0, 2),
        channels_last=torch.randn(2, 3, 4, 5, generator=generator).to(memory_format=torch.channels_last),
        parameter=torch.nn.Parameter(torch.randn(3, generator=generator)))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zip_", [False, True])
def test_types_and_views(tmp_path, protocol, zip_):
    torch = pytest.importorskip("torch", reason="writes the file")
    arrays = everything(torch)
    torch.save(arrays, tmp_path / "x", pickle_protocol=protocol, _use_new_zipfile_serialization=zip_)
    found = torch_pickle.read(tmp_path / "x").arrays
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array.detach().numpy(), err_msg=name, strict=True)


@pytest.mark.parametrize("zip_", [False, True])
def test_bfloat16_becomes_float32(tmp_path, zip_):
    torch = pytest.importorskip("torch", reason="writes the file")
    values = torch.tensor([1.0, -2.5, 3e38, 1e-40, float("inf")]).to(torch.bfloat16)
    torch.save({"a": values}, tmp_path / "x", _use_new_zipfile_serialization=zip_)
    contents = torch_pickle.read(tmp_path / "x")
    np.testing.assert_array_equal(contents.arrays["a"], values.float().numpy(), strict=True)
    assert "bfloat16" in contents.notes[0]


@pytest.mark.parametrize("name", ["state_dict", "model", "model_state_dict"])
def test_checkpoints_say_what_else_they_hold(tmp_path, name):
    torch = pytest.importorskip("torch", reason="writes the file")
    network = torch.nn.Linear(3, 2)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    torch.save({"epoch": 7, name: network.state_dict(), "optimizer": optimiser.state_dict(), "best": torch.tensor(0.7),
                "lr": 1e-3, "notes": ("a", None, True)}, tmp_path / "x")
    contents = torch_pickle.read(tmp_path / "x")
    assert list(contents.arrays) == ["weight", "bias"]
    np.testing.assert_array_equal(contents.arrays["weight"], network.weight.detach().numpy())
    assert contents.notes == (f"the state dict is its {name}; besides it holds epoch, optimizer, best, lr, notes",)


def test_what_is_no_tensor_is_told(read):
    contents = read(zipped(state(a=tensor(storage()), version=plain(3), extra=plain({1: 2}))))
    assert list(contents.arrays) == ["a"]
    assert contents.notes == ("not tensors, and left out: version, extra",)


@pytest.mark.parametrize("content", [plain([1, 2]), plain({}), plain({"a": 1, "b": {"c": 2}}), tensor(storage())])
def test_files_without_named_tensors_are_refused(read, content):
    with pytest.raises(InputError, match=r"some.file: it holds .*state_dict"):
        read(zipped(b"\x80\x02" + content + b"."))


def test_python_2s_pickles(read):
    """Their texts are byte strings, and an OrderedDict is made of a list of pairs."""
    pair = b"](U\x04conv" + tensor(storage()) + b"e"
    content = b"\x80\x02" + named("collections.OrderedDict") + b"(](" + pair + b"etR."
    np.testing.assert_array_equal(read(legacy(content)).arrays["conv"], VALUES.reshape(2, 3))


def test_tensors_of_torch_before_0_4(read):
    arguments = b"(" + storage() + plain(1) + plain((2, 2)) + plain((3, 1)) + b"t"
    opcodes = named("torch._utils._rebuild_tensor") + arguments + b"R"
    np.testing.assert_array_equal(read(legacy(state(a=opcodes))).arrays["a"], [[1, 2], [4, 5]])


def test_big_endian_files(read):
    """Zip files hold the machine's order and name it; the legacy format is little endian whatever it names."""
    swapped = VALUES.astype(">f4").tobytes()
    for content in (zipped(A, {"0": swapped}, byteorder=b"big"), zipped(A, byteorder=b"little"), zipped(A),
                    legacy(A, order=False), legacy(A)):
        array = read(content).arrays["a"]
        np.testing.assert_array_equal(array, VALUES.reshape(2, 3), strict=True)
    with pytest.raises(InputError, match=r"byte order is .*expected little or big"):
        read(zipped(A, byteorder=b"middle"))


def test_a_whole_file_takes_little_time(tmp_path):
    torch = pytest.importorskip("torch", reason="writes the file")
    from tests.googlenet.weights.torchvision_network import random_network
    torch.save(random_network(1, 1000, width=1.0, aux_logits=False).state_dict(), tmp_path / "x")
    begin = time.process_time()
    torch_pickle.read(tmp_path / "x")
    assert time.process_time() - begin < 0.5


# What is not read.

def reduced(path: str, *arguments: object) -> bytes:
    return named(path) + plain(arguments) + b"R"


def harmful(marker: str) -> dict[str, tuple[bytes, str]]:
    """{what: (opcodes that would make the marker's file if they ran, how they are refused)}"""
    command, code = f"echo > {marker}", f"open({marker!r}, 'w')"
    return {
        "os.system": (reduced("os.system", command), "wants os.system"),
        "posix.system": (reduced("posix.system", command), "wants posix.system"),
        "eval": (reduced("builtins.eval", code), "wants builtins.eval"),
        "exec of Python 2": (reduced("__builtin__.eval", code), "wants __builtin__.eval"),
        "from the stack": (plain("posix") + plain("system") + b"\x93" + plain((command,)) + b"R", "wants posix.system"),
        "an attribute": (plain("torch") + plain("_utils.os.system") + b"\x93" + plain((command,)) + b"R",
                         "wants torch._utils.os.system"),
        "of torch's module": (reduced("torch.serialization.os.system", command), "wants torch.serialization.os.system"),
        "nested": (tensor(storage(), offset=0)[:-2] + reduced("builtins.eval", code) + b"tR", "wants builtins.eval"),
        "getattr": (reduced("builtins.getattr", 1, "x"), "wants builtins.getattr"),
        "copyreg": (reduced("copyreg._reconstructor", 1, 2, 3), "wants copyreg._reconstructor"),
        "a model": (named("torchvision.models.googlenet.GoogLeNet") + b")\x81}b",
                    "wants torchvision.models.googlenet.GoogLeNet.*state_dict"),
        "numpy": (reduced("numpy.core.multiarray.scalar", 1), "wants numpy.core.multiarray.scalar"),
        "INST": (b"(" + plain(command) + b"ios\nsystem\n", "the opcode INST"),
        "OBJ": (b"(" + named("collections.OrderedDict") + b"o", "the opcode OBJ"),
        "NEWOBJ": (named("collections.OrderedDict") + b")\x81", "the opcode NEWOBJ"),
        "NEWOBJ_EX": (named("collections.OrderedDict") + b")}\x92", "the opcode NEWOBJ_EX"),
        "EXT1": (b"\x82\x01", "the opcode EXT1"), "EXT2": (b"\x83\x01\x00", "the opcode EXT2"),
        "EXT4": (b"\x84\x01\x00\x00\x00", "the opcode EXT4"),
        "protocol 0": (b"Vtext\n", "the opcode UNICODE"), "an unknown opcode": (b"\xff", "the opcode 0xff"),
        "BUILD": (named("collections.OrderedDict") + plain({"a": 1}) + b"b", "sets attributes of collections.Ordered"),
        "calling a type": (named("torch.FloatStorage") + b")R", "calls torch.FloatStorage"),
        "calling a result": (named("collections.OrderedDict") + b")R)R", "calls dict"),
        "calling a text": (plain("os.system") + plain((command,)) + b"R", "calls str"),
        "another reference": (plain(("module", 1)) + b"Q", "refers to something else than a storage"),
        "a storage's class": (b"(" + plain("storage") + named("posix.system") + b"tQ", "wants posix.system"),
        "a name of two lines": (b"cos\x00\nsystem\n", r"wants os\\x00.system"),
    }


@pytest.mark.parametrize("kind", [zipped, legacy])
@pytest.mark.parametrize("what", harmful(""))
def test_code_is_refused_by_name(read, tmp_path, kind, what):
    marker = tmp_path / "ran"
    opcodes, told = harmful(str(marker))[what]
    with pytest.raises(InputError, match=f"some.file: .*{told}") as error:
        read(kind(state(a=tensor(storage()), b=opcodes)))
    assert not marker.exists()
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


def test_the_harm_is_real(tmp_path):
    """Python's own pickle does run the first of them: the marker would be seen."""
    marker = tmp_path / "ran"
    pickle.loads(b"\x80\x02" + harmful(str(marker))["os.system"][0] + b".")
    assert marker.exists()


@pytest.mark.parametrize("zip_", [False, True])
def test_whole_models_are_refused_by_class(tmp_path, zip_):
    torch = pytest.importorskip("torch", reason="writes the file")
    torch.save(torch.nn.Linear(3, 2), tmp_path / "x", _use_new_zipfile_serialization=zip_)
    with pytest.raises(InputError, match=r"wants torch.nn.modules.linear.Linear.*save the network's state_dict\(\)"):
        torch_pickle.read(tmp_path / "x")


def test_torchs_first_format_is_told(read, tmp_path):
    import tarfile
    with tarfile.open(tmp_path / "some.file", "w") as archive:
        archive.addfile(tarfile.TarInfo("sys_info"))
    content = (tmp_path / "some.file").read_bytes()
    assert torch_pickle.recognise(content[:4096], tmp_path / "some.file")
    with pytest.raises(InputError, match="a tar archive of 2016"):
        read(content)


@pytest.mark.parametrize(("opcodes", "told"), [
    (tensor(storage(), offset=1), "up to value 6 of a storage of 6"),
    (tensor(storage(), stride=(4, 1)), "up to value 6 of a storage of 6"),
    (tensor(storage(), offset=-1), "something else than a storage, an offset"),
    (tensor(storage(), stride=(-3, 1)), "something else"),
    (tensor(storage(), size=(2, -3)), "something else"),
    (tensor(storage(), size=(2, True)), "something else"),
    (tensor(storage(), size=(2, 3, 1)), "something else"),
    (tensor(storage(), size=(0, 2**40, 2**40), stride=(0, 0, 0)), "something else"),
    (tensor(storage(), size=(1,) * 33, stride=(0,) * 33), "something else"),
    (tensor(storage(), size=(10**600,), stride=(0,)), "something else"),
    (tensor(storage(), size=(2**20, 2**20), stride=(0, 0)), "repeat or reorder more than"),
    (tensor(storage(count=2**60)), "no number of values"),
    (tensor(storage(count=-6)), "no number of values"),
    (tensor(storage(key=7)), "no number of values"),
    (tensor(storage(kind="collections.OrderedDict")), "no number of values"),
    (tensor(storage(kind="torch.DoubleStorage")), "6 values of float64 and something else"),
    (tensor(plain(1)), "something else"),
    (named("torch._utils._rebuild_tensor_v2") + b")R", "something else"),
    (named("torch._utils._rebuild_parameter") + plain((1, 2, 3)) + b"R", "something else than a tensor"),
    (plain(1) + tensor(storage(count=3), size=(3,), stride=(1,)) + b"\x86", "and something else"),
    (tensor(storage()[:-2] + b"\x89tQ"), "storages that are views"),
    (tensor(storage()) + b"00", "the opcode POP"),
])
@pytest.mark.parametrize("kind", [zipped, legacy])
def test_tensors_that_do_not_fit_are_refused(read, kind, opcodes, told):
    with pytest.raises(InputError, match=f"some.file: .*({told})"):
        read(kind(state(a=tensor(storage()), b=opcodes)))


@pytest.mark.parametrize(("opcodes", "told"), [
    (b"R", "empty stack"), (b"(", "without an end|empty stack|are left"), (b"u.", "mark that isn't there|fills"),
    (b"h\x05", "object 5, which isn't there"), (b"j\xff\xff\xff\x7f", "object 2147483647"),
    (b"X\xff\xff\xff\xff", "4294967295 bytes where"), (b"\x8d" + struct.pack("<Q", 2**62), "bytes where"),
    (b"T\xff\xff\xff\xff", "wants -1 bytes"), (b"X\x01\x00\x00\x00\xff", "isn't UTF-8"),
    (b"c" + b"x" * 2000 + b"\n", "name without an end"), (plain(1) + plain("a") + b"\x93", "no short text"),
    (plain("x" * 2000) + plain("a") + b"\x93", "no short text"), (plain(1) + plain(2) + b"a", "appends to int"),
    (plain(1) + plain(2) + plain(3) + b"s", "fills int"), (b"}(" + plain(1) + b"u", "1 keys and values"),
    (b"})}s", "key of type tuple"), (b"}" + plain(2**70) + b"}s", "key of type int"),
    (b"}" + (plain("k") + b"}s") * 2, "stores k twice"),
    (named("collections.OrderedDict") + plain((1, 2)) + b"R", "OrderedDict of something else"),
    (named("collections.OrderedDict") + plain(([1],)) + b"R", "OrderedDict of int"),
])
def test_malformed_pickles_are_refused(read, opcodes, told):
    with pytest.raises(InputError, match=f"some.file: .*({told})"):
        read(zipped(b"\x80\x02" + opcodes + b"."))


N = 100_000  # deep enough to exhaust the stack of anything that recurses
BOMBS = {
    "steps": b"}" * (MOST_STEPS + 1),
    "deep tuples": b")" + b"\x85" * N,
    "deep lists": b"]" * N + b"a" * (N // 4),
    "deep tuples as a key": b"})" + b"\x85" * N + b"}s",
    "marks": b"(" * N,
    "a list in itself": b"]q\x00h\x00a",
    "wide text": b"X" + struct.pack("<I", 2**23) + "\U0001f600".encode() + b"a" * (2**23 - 4),
    "huge place": b"}r\xff\xff\xff\xff",
    "a list copied again and again": (b"](" + b"".join(b"](" + plain(i) + b"Ne" for i in range(10_000)) + b"eq\x00"
                                      + (named("collections.OrderedDict") + b"h\x00\x85R") * 2000),
}


@pytest.mark.parametrize("what", BOMBS)
def test_bombs_are_refused_in_time(read, what):
    content = zipped(b"\x80\x02" + BOMBS[what] + b".")
    begin = time.process_time()
    with pytest.raises(InputError):
        read(content)
    assert time.process_time() - begin < 2
    tracemalloc.start()
    try:
        with pytest.raises(InputError):
            read(content)
        assert tracemalloc.get_traced_memory()[1] < 2**28 + len(content)
    finally:
        tracemalloc.stop()


def test_many_names_of_one_tensor_take_no_memory(read):
    """As many tensors as the steps allow, each the same megabyte."""
    values = np.ones(2**18, np.float32)
    first = tensor(storage(count=2**18), size=(2**18,), stride=(1,)) + b"q\x01"
    rest = b"".join(plain(f"n{i}")[:-2] + b"h\x01" for i in range(MOST_STEPS // 2 - 100))
    content = zipped(b"\x80\x02}(" + plain("a") + first + rest + b"u.", {"0": values.tobytes()})
    begin = time.process_time()
    assert len(read(content).arrays) == MOST_STEPS // 2 - 99
    assert time.process_time() - begin < 2


# Archives.

def test_archives_without_their_parts_are_refused(read):
    for content, told in (
            (zipped(A, {}), "data/0 is not there, expected 24 bytes"), (zipped(A, {"0": b"abc"}), "data/0 is 3 bytes"),
            (zipped(A).replace(b"archive/data.pkl", b"archive/data.pk_"), "0 members named data.pkl"),
            (zipped(A, None, **{"../x/data.pkl": A}), None),
            (zipped(A).replace(b"archive/data.pkl", b"archive/data/0\0\0"), "0 members"),
            (zipped(state(a=tensor(storage(count=2**40)))), "expected 4398046511104 bytes"),
            (zipped(state(a=tensor(storage(kind="torch.DoubleStorage")))), "is 24 bytes, expected 48"),
            (zipped(A)[:-1], "zip"), (zipped(A)[:60], "zip archive")):
        if told is None:
            assert list(read(content).arrays) == ["a"]
            continue
        with pytest.raises(InputError, match=f"some.file: .*{told}"):
            read(content)


def test_compressed_bombs_are_refused(read):
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", A)
        archive.writestr("archive/data/0", bytes(10**8))
    with pytest.raises(InputError, match="would unpack to"):
        read(memory.getvalue())


@pytest.mark.parametrize("name", ["archive/data.pkl", "archive/data/0", "archive/byteorder"])
def test_checksums_are_verified(read, name):
    content = bytearray(zipped(A, byteorder=b"little"))
    content[content.index(name.encode()) + len(name)] ^= 1
    with pytest.raises(InputError, match=f"'{name}' is damaged: its CRC differs"):
        read(bytes(content))


def many_members(count: int) -> bytes:
    """An archive whose directory names one member of a megabyte again and again."""
    data = bytes(2**20)
    sizes = (zlib.crc32(data), len(data), len(data), 4)
    head = struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 0, 0, 0, *sizes, 0) + b"name"
    entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, *sizes, 0, 0, 0, 0, 0, 0)
    entries = [entry + name for name in [*(struct.pack("<I", i) for i in range(1, count)), b"\0\0\0\0"]]
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, 50 * count, len(head) + len(data), 0)
    return head + data + b"".join(entries) + end


def test_members_of_one_name_are_refused(read):
    with pytest.raises(InputError, match="two members named 'archive/data/0'"):
        read(zipped(A, {"0": VALUES.tobytes(), "1": VALUES.tobytes()}).replace(b"data/1", b"data/0"))


@pytest.mark.parametrize(("count", "told"), [(3, "not where its directory says"), (300, "not where its directory says"),
                                             (65534, "not where its directory says"), (65535, "past 4 GB")])
def test_overlapping_members_are_refused(read, count, told):
    begin = time.process_time()
    with pytest.raises(InputError, match=told):
        read(many_members(count))
    assert time.process_time() - begin < 2


@pytest.mark.parametrize(("content", "told"), [
    (legacy(A, content=struct.pack("<q", 6) + VALUES.tobytes() + b"\0"), "1 bytes more than its storages"),
    (legacy(A, keys=()), "1 storages without values"),
    (legacy(A, keys=("0", "0")), "0 twice or without"),
    (legacy(A, keys=("0", "1")), "1 twice or without"),
    (legacy(A, keys=5), "list of storages"),
    (legacy(A, content=struct.pack("<q", 7) + VALUES.tobytes()), "7 values in 24 bytes, expected 6 in 24"),
    (legacy(A, content=struct.pack("<q", 2**62)), "values in 0 bytes"),
    (legacy(A, content=b""), "-1 values in 0 bytes"),
    (legacy(state(a=tensor(storage(count=2**40)))), "6 values in 24 bytes, expected 1099511627776"),
    (legacy(state(a=tensor(storage(kind="torch.DoubleStorage")))), "6 values in 24 bytes, expected 6 in 48"),
    (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02K\x01." + b"N." * 3, "a version of torch's format"),
    (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "wants 1 bytes where 0 are left"),
    (b"\x80\x02N." * 5, "no file of torch.save's"), (b"", "no file of torch.save's"), (b"hello", "no file of"),
])
def test_damaged_legacy_files_are_refused(read, content, told):
    with pytest.raises(InputError, match=f"some.file: .*{told}"):
        read(content)


@pytest.mark.parametrize("name", FILES)
def test_cut_files_are_refused(read, name):
    content = (FIXTURES / name).read_bytes()
    inside = [len(content) * i // 40 for i in range(40)]
    for place in (0, 1, 3, 30, *inside, *range(len(content) - 60, len(content))):
        with pytest.raises(InputError):
            read(content[:place])


SMALL = state(a=tensor(storage()), b=tensor(storage("1", "torch.HalfStorage", 4), size=(2, 2), stride=(1, 2)),
              c=named("torch._utils._rebuild_parameter") + b"(" + tensor(storage(), 5, (), ()) + b"\x88}tR", d=plain(1))
LEGACY = legacy(SMALL, ("1", "0"), struct.pack("<q8xq", 4, 6) + VALUES.tobytes())
ZIPPED = zipped(SMALL, {"0": VALUES.tobytes(), "1": bytes(8)}, byteorder=b"little", version=b"3\n")


@pytest.mark.parametrize("content", [LEGACY, ZIPPED], ids=["legacy", "zip"])
def test_changed_files_are_refused_or_read(read, content):
    """The zip format has checksums: what is read at all is what was written."""
    original = read(content).arrays
    for number in range(1000):
        changed = mutate(content, number, np.random.default_rng([1, number]), [])
        try:
            arrays = read(changed).arrays
        except InputError:
            continue
        for name, array in arrays.items():
            assert isinstance(array, np.ndarray)
            assert array.nbytes < 2**28
            if content is ZIPPED:
                np.testing.assert_array_equal(array, original[name])


def test_missing_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.pth can't be read"):
        torch_pickle.read(tmp_path / "nothing.pth")
    assert not torch_pickle.recognise(b"PK\x03\x04", tmp_path / "nothing.pth")
