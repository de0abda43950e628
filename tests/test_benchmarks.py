"""benchmarks/: what is measured is the network, what is compared is equal, and what is told is what was measured."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import compare, layers, limit, scaling, works
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
from minigrad import Tensor, nn
from minigrad.op import Op

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
    ["scaling", "--size", "64"],
    ["inference", "--of", "training"], ["--json", "/no/such/folder/told.json"]], ids=" ".join)
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


def test_scaling_compares_the_cost_of_a_pixel(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "REFERENCE", (2, 64))
    monkeypatch.setattr(scaling, "BATCHES", (1, 2))
    monkeypatch.setattr(scaling, "SIZES", (64,))
    found = measure(tmp_path / "told.json", "scaling", "--of", "inference")
    against_batch, against_size = found["cost_per_pixel"].values()
    assert list(against_size.values()) == [1]
    rates = {each["name"]: each["value"] for each in found["rows"]}
    assert against_batch.keys() == {name for name in rates if "64x64" in name}
    assert all(cost > 0 for cost in against_batch.values())


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


def test_the_limit_is_what_its_plain_loops_say():
    fast, plain = np.linspace(0, 1, limit.LANES, dtype=np.float32), np.linspace(0, 1, limit.LANES, dtype=np.float32)
    limit.run(3, fast, np.float32(0.5))
    limit.chains(3, plain, np.float32(0.5))
    np.testing.assert_allclose(fast, plain, rtol=1e-6)
    assert limit.gflops(1) > 0


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


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_being_stopped_ends_the_children(number, tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    running = subprocess.Popen([*COMPARE, "inference", "--size", "64", "--batch", "1", "--rounds", "100000",
                                "--peers", "none"], stderr=subprocess.PIPE, text=True, env=environment)
    listed = Path(f"/proc/{running.pid}/task/{running.pid}/children")
    until = time.monotonic() + 60
    while not (children := listed.read_text().split()) and time.monotonic() < until:
        time.sleep(0.05)
    running.send_signal(number)
    _, complaint = running.communicate(timeout=30)
    assert children
    assert running.returncode == 130
    assert complaint == "compare.py: stopped\n"
    assert not [child for child in children if Path(f"/proc/{child}").exists()]
    assert not list(tmp_path.glob("googlenet-benchmark-*"))
