"""benchmarks/: what is measured is the network, what is compared is equal, and what is told is what was measured."""

import contextlib
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import blocks, compare, convolutions, crew, layers, limit, scaling, works
from benchmarks.contender import peak_mib
from benchmarks.job import Job
from benchmarks.load import Load
from benchmarks.ours import Trainee, network
from benchmarks.peers import PEERS
from benchmarks.results import Comparison, Report, rates, row, speedup
from benchmarks.session import ContenderError, require_agreement, session
from googlenet.config import ModelConfig
from googlenet.model import GoogLeNet
from googlenet.summary import summary
from minigrad import Tensor, get_threads, nn
from minigrad.kernels import parallel
from minigrad.kernels.elementwise import add_values
from minigrad.kernels.target import target
from minigrad.kernels.team import team
from minigrad.op import Op
from tests.runs import TINY, write_set

ROOT = Path(__file__).resolve().parents[1]
COMPARE = [sys.executable, str(ROOT / "benchmarks" / "compare.py")]
QUICK = ["--rounds", "1"]
SMALL = ["--size", "64", *QUICK]

FAKE_NCNN = """
import types
import numpy
class Net:
    def __init__(self): self.opt = types.SimpleNamespace()
    def load_param(self, path): return 0
    def load_model(self, path): return 0
    def input_names(self): return ["x"]
    def output_names(self): return ["y"]
    def create_extractor(self): return self
    def input(self, name, x): pass
    def extract(self, name): return 0, numpy.zeros(1000)
Mat = numpy.array
"""


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Puts a module in the place of an installed one, for the processes that are started."""
    def put(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return put


def measure(path: Path, *arguments: str) -> dict:
    """What a work wrote as JSON, run in this process (its contenders have their own)."""
    small = QUICK if "scaling" in arguments else SMALL
    assert compare.main([*arguments, *small, "--json", str(path)]) == 0
    return json.loads(path.read_text())


def test_compare_as_a_user_runs_it(tmp_path):
    told = tmp_path / "told.json"
    done = subprocess.run([*COMPARE, "inference", "--batch", "2", *SMALL, "--peers", "none", "--json", str(told)],
                          capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(told.read_text())
    assert found["work"] == "inference"
    [ours] = found["rows"]
    assert set(ours) == {"name", "value", "unit", "min", "max"}
    assert ours["unit"] == "images/s"
    assert 0 < ours["min"] <= ours["value"] <= ours["max"]
    assert found["ours"] == ours["name"]
    assert found["best_peer"] is found["speedup"] is None
    assert found["limit"]["gflops"] > 0
    assert "the machine's limit" in done.stdout
    assert found["busy"] == ("WARNING" in done.stdout)


@pytest.mark.parametrize("unit", ["images/s", "GFLOP/s", "s", "ms", "MiB"])
def test_speedup_over_one_is_better_whatever_the_unit(unit):
    better, worse = (20.0, 10.0) if unit.endswith("/s") else (10.0, 20.0)
    assert speedup(better, worse, unit) == 2
    assert speedup(worse, better, unit) == 0.5


def test_a_row_is_the_median_with_its_range():
    assert row("ours", [9.0, 1.0, 2.0], "s") == ("ours", 2, "s", 1, 9)
    assert rates([0.5, 2.0], 8) == [16, 4]


def test_the_best_peer_is_one_as_it_comes():
    rows = [row(name, [value, value - 1, value + 1], "images/s")
            for name, value in (("ours", 60), ("slow", 20), ("good", 30), ("tuned", 40))]
    comparison = Comparison("a work", rows, frozenset({"tuned"}))
    told = comparison.summary()
    assert (told["ours"], told["best_peer"], told["speedup"]) == ("ours", "good", 2)
    assert (told["best_hand_tuned"], told["speedup_over_hand_tuned"]) == ("tuned", 1.5)
    assert "2.00 times as good as the best peer as it comes, good" in comparison.text()
    assert "1.50 times as good as the best peer tuned by hand, tuned" in comparison.text()


def test_the_worst_of_several_comparisons_speaks_for_all():
    parts = [Comparison(str(peer), [row("ours", [1.0], "s"), row("peer", [peer], "s")]) for peer in (3.0, 0.5, 2.0)]
    alone = Comparison("alone", [row("ours", [1.0], "s")])
    told = Report([alone, *parts], {"busy": False}).as_json("startup")
    assert told["speedup"] == 0.5
    assert [part["speedup"] for part in told["parts"]] == [None, 3, 0.5, 2]
    assert len(told["rows"]) == 7
    assert told["busy"] is False


@pytest.mark.parametrize("arguments", [
    ["swimming"], ["--size", "3"], ["--batch", "0"], ["--rounds", "many"], ["--threads", "100000"], ["--wrong"],
    ["--peers", "nobody"], ["layers", "--peers", "torch"], ["training", "--peers", "ncnn"], ["memory", "--batch", "4"],
    ["scaling", "--size", "64"], ["scaling", "--cores", "1"], ["scaling", "--only", "corners"],
    ["layers", "--only", "blocks"], ["busy", "--cores", "8"], ["scaling", "--dtype", "float64"],
    ["convolutions", "--dtype", "float16"], ["inference", "--of", "training"],
    ["--json", "/no/such/folder/told.json"]], ids=" ".join)
def test_wrong_flags_are_one_line(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        compare.parse(arguments)
    assert end.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("compare.py: error: ")
    assert arguments[-1] in line or arguments[0] in line


@pytest.mark.parametrize(("arguments", "unit"), [
    (["crops"], "s"), (["memory"], "MiB"), (["layers", "--batch", "2"], "ms"),
    (["busy", "--of", "inference", "--batch", "1"], "images/s")], ids=["crops", "memory", "layers", "busy"])
def test_every_work_writes_rows(arguments, unit, tmp_path, monkeypatch):
    monkeypatch.setattr(works, "MEMORY", (("inference", 1),))
    found = measure(tmp_path / "told.json", *arguments, "--peers", "none")
    assert found["work"] == arguments[0]
    assert {each["unit"] for each in found["rows"]} == {unit}
    assert all(0 <= each["min"] <= each["value"] <= each["max"] for each in found["rows"])
    assert found["ours"] in [each["name"] for each in found["rows"]]


def test_workers_stand_beside_serial_training_and_leave_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(crew, "COUNT", 24)
    monkeypatch.setattr(crew, "PICTURES", 4)
    monkeypatch.setattr(crew, "BLOCK", 1)
    found = measure(tmp_path / "told.json", "workers", "--batch", "2")
    assert [part["ours"] for part in found["parts"]] == [f"2 workers of one thread, {source}"
                                                         for source in ("memory", "JPEG files")]
    assert [each["name"] for each in found["rows"]] == [
        "2 workers of one thread, memory", "serial, one thread, memory", "serial, 2 threads, memory",
        "2 processes that share nothing", "2 workers of one thread, JPEG files", "serial, one thread, JPEG files",
        "serial, 2 threads, JPEG files"]
    assert all(each["value"] > 0 for each in found["rows"])
    assert 0 < found["server_share_memory"] < 1
    assert not multiprocessing.active_children()


def test_scaling_compares_the_cost_of_a_pixel(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "REFERENCE", (2, 64))
    monkeypatch.setattr(scaling, "BATCHES", (1,))
    monkeypatch.setattr(scaling, "SIZES", (64,))
    monkeypatch.setattr(blocks, "STEP", (2, 64))
    found = measure(tmp_path / "told.json", "scaling", "--of", "inference")
    against_batch, against_size = found["cost_per_pixel"].values()
    assert list(against_size.values()) == [1]
    rates = {each["name"]: each["value"] for each in found["rows"]}
    assert (against_batch | against_size).keys() == {name for name in rates if "64x64" in name}
    assert len(against_batch) == 1
    assert all(cost > 0 for cost in against_batch.values())
    assert found["blocks"]["cores"] == 64


def test_the_cost_of_a_pixel_is_that_of_all_images():
    assert scaling._cost([1.0, 2.0, 9.0], 4, 10) == 2 / 400


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_peak_memory_is_in_mib():
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20
    assert 0.9 * resident < peak_mib() < 50 * resident


def test_predicting_as_a_whole_process(tmp_path):
    flags = compare.parse(["startup", *SMALL, "--peers", "none"])
    with session([], named=True) as made:
        ours = works._predict(made, flags).ours
    assert 0 < ours.min <= ours.value


@pytest.mark.parametrize(("source", "reason"), [
    ("raise ImportError('not here')", "not here"), (FAKE_NCNN, "computes something else: its logits differs by 1e+00")])
def test_a_peer_that_cannot_take_part(source, reason, library, capsys, tmp_path):
    library("ncnn", source)
    told = ["inference", "--batch", "1", *SMALL, "--json", str(tmp_path / "told.json"), "--peers", "ncnn"]
    assert compare.main(told) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"compare.py: error: ncnn: {reason}")
    assert not (tmp_path / "told.json").exists()


def test_a_peer_that_nobody_named_is_left_out(library, monkeypatch, capsys, tmp_path):
    library("ncnn", "raise ImportError('not here')")
    monkeypatch.setitem(compare.WORKS, "inference", compare.WORKS["inference"]._replace(peers=("ncnn",)))
    found = measure(tmp_path / "told.json", "inference", "--batch", "1")
    assert found["left_out"] == {"ncnn": "not here"}
    assert found["best_peer"] is None
    assert "left out: ncnn: not here" in capsys.readouterr().out


@pytest.mark.parametrize(("work", "peer"), [("training", "torch-fused-lrn"), ("inference", "openvino"),
                                            ("inference", "onnxruntime"), ("inference", "ncnn")])
def test_peers_compute_what_we_compute(work, peer):
    """Where they are installed."""
    pytest.importorskip(PEERS[peer].module)
    with session([peer], named=True) as made:
        assert len(made.line_up(work, 2, 64, 2)) == 2


def test_agreement():
    ours = {"logits": np.array([[1.0, -200.0]]), "gradient": np.array([100.0])}
    require_agreement(ours, {"logits": np.array([[1.1, -199.9]]), "gradient": np.array([101.0])})
    for name, wrong in (("logits", np.array([[1.3, -200]])), ("gradient", np.array([103.0])),
                        ("logits", np.array([[np.nan, -200]])), ("logits", np.zeros(2))):
        with pytest.raises(ContenderError, match=f"its {name}"):
            require_agreement(ours, {**ours, name: wrong})


@pytest.mark.parametrize(("dtype", "allowed"), [("float32", 1e-6), ("float64", 1e-15)])
def test_the_limit_is_what_its_plain_loops_say(dtype, allowed):
    fast = np.linspace(0, 1, target().lanes(np.dtype(dtype)), dtype=dtype)
    plain = fast.copy()
    limit.run(3, fast, fast.dtype.type(0.5))
    limit.chains(3, plain, plain.dtype.type(0.5))
    np.testing.assert_allclose(fast, plain, rtol=allowed)
    assert limit.gflops(1, dtype) > 0
    assert limit._operations(dtype) == 2 * limit.UNROLLED * limit.CHAINS * plain.size


@pytest.fixture(scope="module")
def all_convolutions():
    return convolutions.convolutions_of(network(64))


def test_all_convolutions_are_found(all_convolutions):
    modules = dict(network(64).named_modules())
    assert {each.path for each in all_convolutions} == {path for path, module in modules.items()
                                                       if isinstance(module, nn.Conv2d)}
    heads = (512 + 528) * 128  # the convolutions of the heads, on one pixel
    assert sum(each.multiply_adds for each in all_convolutions) == (
        works.multiply_adds("inference", 64) - 1024 * 1000 + heads)
    assert [each.path for each in all_convolutions if each.first] == ["conv1"]
    assert len([each for each in all_convolutions if each.ways == ("direct", "winograd")]) == 10


def test_convolutions_run_in_sequence_on_arrays_of_their_own(all_convolutions, monkeypatch):
    cases = [convolutions.Case(each, 1, "float32") for each in all_convolutions[:3]]  # conv1, conv2_reduce, conv2
    seen = []
    monkeypatch.setattr(convolutions, "_compute", lambda op, direction, inputs, dy: seen.append(
        (type(op).__name__, direction, inputs[0].ctypes.data, dy.ctypes.data)))
    convolutions.run_in_sequence(cases, "winograd")
    forward, data, weight = convolutions.DIRECTIONS
    assert [each[:2] for each in seen] == [
        ("Direct", forward), ("Direct", forward), ("Winograd", forward), ("Winograd", data), ("Winograd", weight),
        ("Direct", data), ("Direct", weight), ("Direct", weight)]
    assert len({each[2:] for each in seen}) == 3
    assert [list(case.seconds) for case in cases] == [[], [], [("winograd", each) for each in (forward, data, weight)]]


def test_errors_are_parts_of_the_largest_value(all_convolutions, monkeypatch):
    each = next(each for each in all_convolutions if each.path == "inception_4a/conv_3x3")
    for way in each.ways:
        assert all(0 < error < 1e-4 for error in convolutions.errors(each, way, "float32").values())
    right = convolutions.conv2d.Winograd.data_gradient
    monkeypatch.setattr(convolutions.conv2d.Winograd, "data_gradient", lambda op, dz: 1.25 * right(op, dz))
    found = convolutions.errors(each, "winograd", "float64")
    assert found.pop("data gradient") == pytest.approx(0.25)
    assert len(found) == 2
    assert max(found.values()) < 1e-12


def test_convolutions_tell_what_was_measured(tmp_path, capsys):
    found = measure(tmp_path / "told.json", "convolutions", "--batch", "2")
    assert {each["unit"] for each in found["rows"]} == {"GFLOP/s"}
    totals, told = found["totals"], capsys.readouterr().out
    sums = dict.fromkeys(((way, direction) for way in totals for direction in convolutions.DIRECTIONS), 0.0)
    for layer in found["layers"]:
        for direction, direct in layer["direct"].items():
            assert direct["gflops"] == pytest.approx(2 * 2 * layer["multiply_adds"] / direct["ms"] / 1e6)
            assert direct["of_limit"] == pytest.approx(direct["gflops"] / found["limit"]["gflops"])
            winograd = layer.get("winograd", {}).get(direction, direct)
            assert winograd.get("over_direct", 1) == pytest.approx(direct["ms"] / winograd["ms"])
            sums["direct", direction] += direct["ms"] / 2
            sums["the best way", direction] += min(direct["ms"], winograd["ms"]) / 2
    assert {key: totals[key[0]][key[1]]["ms_an_image"] for key in sums} == pytest.approx(sums)  # of one round
    assert totals["direct"]["all three"]["ms_an_image"] == pytest.approx(
        sum(sums["direct", direction] for direction in convolutions.DIRECTIONS))
    errors = [each["error"] for layer in found["layers"] for each in layer.get("winograd", {}).values()]
    assert len(errors) == 30
    error = found["error"]
    assert (error["largest"], error["promise"], error["kept"]) == (max(errors), 1e-5, max(errors) <= 1e-5)
    assert ("the promise is 1e-05: kept" in told) == error["kept"]
    assert found["settings"]["dtype"] == "float32"
    assert "of float32 multiply-adds" in told
    assert found["limit_of_one_thread"]["value"] > 0


@pytest.mark.parametrize(("items", "pieces", "threads", "most"), [
    (1046, 768, 64, 18), (64, 64, 64, 1), (65, 65, 64, 2), (7, 7, 7, 1), (7, 5, 2, 4), (9, 4, 1, 9)])
def test_the_busiest_thread_gets(items, pieces, threads, most):
    assert blocks.most_of(items, pieces, threads) == most


def test_a_core_without_work_counts():
    assert blocks.Call("mask_rows", 7, 7, 7, 0.1).imbalance(64) == 64 / 7
    assert blocks.Call("relu_forward", 128, 128, 64, 0.1).imbalance(64) == 1


def test_kernels_are_cut_for_cores_that_are_not_there(monkeypatch):
    monkeypatch.setattr(parallel, "PIECES_OF_MANY", 5)  # the figures are minigrad's own, not a copy of its rules
    x, here, team_before = np.arange(2.0**17), get_threads(), len(team.helpers)
    y = np.zeros_like(x)
    recorder = layers.Recorder(nn.Module())
    recorder.running = running = layers.Layer("relu", "Relu"), "forward"
    with blocks.cut_for(64, recorder) as calls:
        assert get_threads() == here  # what was imported before; who asks now learns of 64
        add_values(x.size, x, x, y)
        add_values(9, x[:9], x[:9], y[:9])
    add_values(x.size, x, x, y)
    assert [(layer, call.kernel, call.items, call.pieces, call.threads) for layer, call in calls] == [
        (running, "add_values", x.size, 5 * 64, 64), (running, "add_values", 9, 9, 1)]
    np.testing.assert_array_equal(y, 2 * x)
    assert len(team.helpers) <= max(team_before, here - 1)
    assert parallel.pieces_wanted() == here * parallel.PIECES_A_THREAD or here > parallel.MANY


def test_blocks_of_each_layer(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(blocks, "STEP", (2, 64))
    monkeypatch.setattr(scaling, "BATCHES", ())  # no other table is wanted
    found = measure(tmp_path / "told.json", "scaling", "--only", "blocks", "--cores", "48")
    assert {each["unit"] for each in found["rows"]} == {"max/mean"}
    parts = {part["name"]: part for part in found["blocks"]["parts"]}
    assert found["cost_per_pixel"] == found["limit"] == {}
    assert [call["kernel"] for call in parts["conv2 Direct forward"]["calls"]].count("multiply_tiles") == 1
    calls = [call for part in found["blocks"]["parts"] for call in part["calls"]]
    assert {"sum_products", "mask_rows"} <= {call["kernel"] for call in parts["conv1 Direct backward"]["calls"]}
    assert "update" in {call["kernel"] for call in parts["between the ops"]["calls"]}
    assert max(calls, key=lambda call: call["items"])["pieces"] == 48 * parallel.PIECES_OF_MANY
    assert all(call["pieces"] <= call["items"] and call["threads"] in (1, min(48, call["items"])) for call in calls)
    [convolutions] = [each for each in found["rows"] if each["name"] == "convolutions"]
    assert found["ours"] == "convolutions"
    assert convolutions["value"] == convolutions["max"] >= 1
    assert f"the largest max/mean is {convolutions['value']:.3f}" in capsys.readouterr().out


def test_load_is_that_of_others():
    spinner = subprocess.Popen([sys.executable, "-m", "benchmarks.spin"], cwd=ROOT, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    try:
        assert spinner.stdout.readline() == "spinning\n"
        of_others, own = Load(), Load(lambda: [spinner.pid])
        if own.before is None:
            pytest.skip("needs /proc")
        time.sleep(1)
        assert of_others.others() - own.others() > 0.2
    finally:
        spinner.communicate()  # its input ends, and with it the spinner
    assert spinner.returncode == 0


def test_every_weight_multiplies_as_often_as_the_summary_says():
    config = ModelConfig(variant="caffe", image_size=224)
    model = GoogLeNet(config)
    found = layers.profile_inference(model, np.zeros((1, 224, 224, 3), np.float32))
    counted = summary(config)["multiply_adds"]
    assert sum(layer.multiply_adds for layer in found) == counted == 1582671872 == works.multiply_adds("inference", 224)
    assert [layer.name for layer in found if layer.kind == "Lrn"] == ["norm1", "norm2"]


def test_a_profile_of_training(tmp_path):
    job = Job("googlenet", "training", 2, 64, 1, str(tmp_path))
    found, steps = layers.profile(Trainee(network(64), job), 3)
    assert len(steps) == 3
    assert all(len(layer.forward) == 3 and len(layer.backward) == (0 if layer.kind == "SGD" else 3) for layer in found)
    both = sum(layer.multiply_adds + layer.gradient_multiply_adds for layer in found)
    assert both == 2 * works.multiply_adds("training", 64)  # two images
    in_ops = sum(sum(layer.forward) + sum(layer.backward) for layer in found)
    assert 0.3 * sum(steps) < in_ops <= sum(steps)
    assert Op.__subclasses__()[0].forward.__module__.startswith("minigrad")  # the clock has been taken off again


def test_an_op_of_several_weights_and_outputs():
    class Several(Op):
        def forward(self, x, a, b):
            self.x = x
            return np.concatenate([x @ a[0, 0], x @ b[0, 0]], axis=-1)

        def backward(self, dy):
            return np.zeros_like(self.x), np.zeros((1, 1, 3, 2)), np.zeros((1, 1, 3, 4))

    class Branches(nn.Module):
        def __init__(self):
            self.one, self.two = nn.Conv2d(3, 2, 1, dtype=np.float64), nn.Conv2d(3, 4, 1, dtype=np.float64)

        def forward(self, x):
            return Several()(x, self.one.weight, self.two.weight)

    outer = nn.Module()
    outer.branches = Branches()
    with layers.recorded(outer) as recorder:
        y = outer.branches(Tensor(np.ones((5, 7, 7, 3))))
        y.backward(np.ones(y.shape))
    [layer] = recorder.layers.values()
    assert (layer.name, layer.kind) == ("branches/{one,two}", "Several")
    assert layer.multiply_adds == layer.gradient_multiply_adds == 5 * 7 * 7 * 3 * (2 + 4)  # x wants no gradient
    x, weight = np.zeros((5, 8, 8, 3)), np.zeros((3, 3, 3, 4))
    for y in (np.zeros((5, 4, 4, 4)), (np.zeros((5, 8, 8, 2)), np.zeros((5, 4, 4, 4)))):
        assert layers.multiply_adds(weight, x, y) == 5 * 4 * 4 * math.prod(weight.shape)
    assert layers.multiply_adds(weight, x, None) == 5 * 8 * 8 * math.prod(weight.shape)


FEEDING = [sys.executable, str(ROOT / "benchmarks" / "feeding.py"), "--threads", "1"]


def test_feeding_from_files_and_from_memory():
    small = ["--count", "8", "--batch", "2", "--size", "32", "--rounds", "1", "--block", "1"]
    done = subprocess.run([*FEEDING, *small], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    *speeds, last = done.stdout.splitlines()
    assert [line.split()[0] for line in speeds] == ["files", "memory", "ready"]
    assert all(float(line.split()[1]) > 0 for line in speeds)
    assert last.endswith("% of the speed from memory")


def test_feeding_wants_pictures(tmp_path):
    done = subprocess.run([*FEEDING, "--pictures", str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"feeding.py: error: {tmp_path}: holds no images: expected at least one"


@pytest.mark.skipif(sys.platform != "linux", reason="finds and stops processes as Linux has them")
def test_faults_are_measured_beside_what_is_left_alone(tmp_path):
    folder = write_set(tmp_path / "pictures")
    small = [*TINY[:4], "--data", folder, "--batch-size", "4", "--epochs", "15", "--init", "he", "--lr", "0.001",
             "--warm-start", "0"]
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "faults.py", "--seeds", "3", "--only", "worker raised",
                           "--json", tmp_path / "found.json", "--", *map(str, small)], capture_output=True, text=True,
                          timeout=300)
    assert done.returncode == 0, done.stderr
    assert "failed: RuntimeError: made to fail" in done.stdout, done.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["errors"].keys() == {"left alone", "worker raised"}
    assert done.stdout.splitlines()[-1].split()[:2] == ["worker", "raised"]


def contenders_of(process: int) -> list[str]:
    """Its children that run a contender; imports start others, for a moment."""
    listed, found = Path(f"/proc/{process}/task/{process}/children"), []
    for child in listed.read_text().split():
        with contextlib.suppress(OSError):  # it has ended
            if b"benchmarks.contender" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_being_stopped_ends_the_children(number, tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    running = subprocess.Popen([*COMPARE, "inference", "--size", "64", "--batch", "1", "--rounds", "100000",
                                "--peers", "none"], stderr=subprocess.PIPE, text=True, env=environment)
    until = time.monotonic() + 60
    while not (children := contenders_of(running.pid)) and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.1)  # it has begun; by now whoever started it knows
    running.send_signal(number)
    _, complaint = running.communicate(timeout=30)
    assert children
    assert running.returncode == 130
    assert complaint == "compare.py: stopped\n"
    assert not [child for child in children if Path(f"/proc/{child}").exists()]
    assert not list(tmp_path.glob("googlenet-benchmark-*"))
