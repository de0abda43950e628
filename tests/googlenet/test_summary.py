"""Table 1 of the paper, transcribed here a second time, against the recount of the built network."""

import json

import pytest

from googlenet.config import ModelConfig
from googlenet.summary import differs, render, summary

# name, patch, output, depth, #1x1 to pool proj, weights, biases, multiply-adds in millions; printed, * if it differs
PAPER = """
conv1         7x7/2  112x112x64  1    0   0   0  0   0   0     9408   64 118.01   2.7K* 34M*
pool1         3x3/2    56x56x64  0    0   0   0  0   0   0        0    0   0      -     -
conv2         3x3/1   56x56x192  2    0  64 192  0   0   0   114688  256 359.66  112K   360M
pool2         3x3/2   28x28x192  0    0   0   0  0   0   0        0    0   0      -     -
inception_3a  -       28x28x256  2   64  96 128 16  32  32   163328  368 128.05  159K   128M
inception_3b  -       28x28x480  2  128 128 192 32  96  64   388096  640 304.27  380K   304M
pool3         3x3/2   14x14x480  0    0   0   0  0   0   0        0    0   0      -     -
inception_4a  -       14x14x512  2  192  96 208 16  48  64   375552  624  73.61  364K*  73M
inception_4b  -       14x14x512  2  160 112 224 24  64  64   448512  648  87.91  437K   88M
inception_4c  -       14x14x512  2  128 128 256 24  64  64   509440  664  99.85  463K*  100M
inception_4d  -       14x14x528  2  112 144 288 32  64  64   604672  704 118.52  580K*  119M
inception_4e  -       14x14x832  2  256 160 320 32 128 128   867328 1024 170.00  840K*  170M
pool4         3x3/2     7x7x832  0    0   0   0  0   0   0        0    0   0      -     -
inception_5a  -         7x7x832  2  256 160 320 32 128 128  1042432 1024  51.08 1072K*  54M*
inception_5b  -        7x7x1024  2  384 192 384 48 128 128  1442816 1264  70.70 1388K*  71M
pool5         7x7/1        1024  0    0   0   0  0   0   0        0    0   0      -     -
dropout       -            1024  0    0   0   0  0   0   0        0    0   0      -     -
classifier    -            1000  1    0   0   0  0   0   0  1024000 1000   1.02 1000K   1M
"""
COLUMNS = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj")

# Fig. 2a with the output widths of Table 1, stacked: output channels, millions of multiply-adds
NAIVE = {"3a": (416, 303), "3b": (832, 1388), "4a": (1280, 532), "4b": (1728, 947), "4c": (2176, 1366),
         "4d": (2640, 1836), "4e": (3344, 3278), "5a": (4048, 1038), "5b": (4944, 1396)}


def rows(config: ModelConfig | None = None) -> dict[str, dict]:
    return {row["name"]: row for row in summary(config)["rows"]}


def printed(text: str, differs: bool) -> str:
    return (text or "-") + "*" * differs


def test_table_1():
    lines = [line.split() for line in PAPER.strip().splitlines()]
    counted = rows()
    assert list(counted) == [line[0] for line in lines]
    for name, patch, output, depth, *numbers, weights, ops in lines:
        row = counted[name]
        assert (row["patch"], row["depth"]) == (patch.replace("-", ""), int(depth)), name
        assert "x".join(map(str, row["output"])) == output, name
        got = [*(row[column] for column in COLUMNS), row["weights"], row["biases"]]
        assert got == list(map(int, numbers[:-1])), name
        assert row["multiply_adds"] / 1e6 == pytest.approx(float(numbers[-1]), abs=0.0051), name
        assert printed(row["paper_weights"], row["weights_differ"]) == weights, name
        assert printed(row["paper_multiply_adds"], row["multiply_adds_differ"]) == ops, name


@pytest.mark.parametrize(("count", "text", "far"), [
    (437 * 1024, "437K", False), (438 * 1024, "437K", False), (438 * 1024 + 1, "437K", True),
    (int(2.5 * 1024), "2.7K", True), (72_000_000, "73M", False), (71_900_000, "73M", True), (5, "", False)])
def test_a_unit_of_the_last_digit_is_granted(count, text, far):
    assert differs(count, text) == far


def test_totals():
    total = summary()
    assert total["parameters"] == 6_998_552
    assert total["parameters_with_heads"] == 13_378_280
    assert (total["weights"], total["biases"]) == (6_990_272, 8_280)
    assert round(total["multiply_adds"] / 1e6, 1) == 1582.7
    assert sum(row["depth"] for row in total["rows"]) == 22, "the paper: 22 layers with parameters"
    assert [head["weights"] + head["biases"] for head in total["heads"]] == [3_188_840, 3_190_888]


@pytest.mark.parametrize("variant", ["paper", "caffe"])
def test_variants_count_alike(variant):
    one, other = summary(ModelConfig(variant=variant)), summary()
    assert {**one, "notes": []} == {**other, "notes": []}, "they differ in padding, which is a note"


def test_heads_count_only_where_they_are_built():
    assert summary(ModelConfig(heads="none"))["parameters_with_heads"] == 6_998_552
    assert summary(ModelConfig(heads="aux2"))["parameters_with_heads"] == 6_998_552 + 3_190_888


def test_multiply_adds_of_a_head():
    """4a at 4x4: 16 x 512 x 128, then 2048 x 1024, then 1024 x 1000."""
    assert summary()["heads"][0]["multiply_adds"] == 16 * 512 * 128 + 2048 * 1024 + 1024 * 1000


def test_separable_stem_is_what_the_paper_prints():
    conv1 = rows(ModelConfig(stem="separable"))["conv1"]
    assert conv1["weights"] == 2712
    assert round(conv1["multiply_adds"] / 1e6, 2) == 34.02
    assert not conv1["weights_differ"]
    assert not conv1["multiply_adds_differ"]
    assert round(summary(ModelConfig(stem="separable"))["multiply_adds"] / 1e6, 1) == 1498.7


def test_naive_modules():
    counted = rows(ModelConfig(module="naive"))
    for name, (channels, millions) in NAIVE.items():
        row = counted[f"inception_{name}"]
        assert row["output"][-1] == channels
        assert round(row["multiply_adds"] / 1e6) == millions
        assert row["depth"] == 1
    modules = [row for name, row in counted.items() if name.startswith("inception")]
    assert round(sum(row["weights"] for row in modules) / 1e6, 2) == 92.45
    assert counted["inception_3a"]["weights"] == 387_072


def test_fully_connected_classifier():
    row = rows(ModelConfig(classifier="fully_connected"))["pool5"]
    assert row["type"] == "fully connected"
    assert row["weights"] == 7 * 7 * 1024 * 1024
    assert row["depth"] == 1
    assert row["multiply_adds"] == row["weights"]


def test_summary_is_json_and_text():
    told = summary()
    assert json.loads(json.dumps(told)) == told
    text = render(told)
    lines = text.splitlines()
    assert len(text) > 1000
    assert max(map(len, lines)) <= 140
    assert lines[1].split() == ["conv1", "7x7/2", "112x112x64", "1", "9,408", "2.7K*", "118.01M", "34M*", "64"]
    assert "6,998,552" in text
    assert "13,378,280" in text
    assert "1,582,671,872" in text
