"""The pieces that pages are made of."""

import base64
import hashlib
import io
import re

import numpy as np
import pytest
from PIL import Image

from googlenet.reports import page
from googlenet.reports.page import Html, bar, document, element, escaped, figures, joined, name, picture, section, table
from tests.googlenet.reports.structure import checked, words

EVIL = "<script>alert(1)</script>"


def test_text_is_escaped_and_html_is_not():
    assert escaped(f"{EVIL} & \"'") == "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;&#x27;"
    assert escaped(Html("<b>")) == "<b>"
    assert element("p", EVIL, Html("<i></i>"), 3) == "<p>&lt;script&gt;alert(1)&lt;/script&gt;<i></i>3</p>"
    assert joined([EVIL, Html("<br>")], " ") == "&lt;script&gt;alert(1)&lt;/script&gt; <br>"


def test_attributes_cannot_break_out():
    assert element("a", href='"><script>', class_="x", aria_sort=None, hidden=True, open=False) == (
        '<a href="&quot;&gt;&lt;script&gt;" class="x" hidden></a>')


@pytest.mark.parametrize("character", ["\0", "\x1b", "\x85", "\udcff", "\uffff"])
def test_what_no_page_can_hold_is_replaced(character):
    assert escaped(f"a{character}b") == "a\ufffdb"
    document("a", name(f"a{character}b"), [])


def test_a_long_name_keeps_its_ends():
    assert name("short") == "<bdi>short</bdi>"
    made = name("a" * 5000 + "z" * 5000)
    assert made.startswith("<bdi>aaa")
    assert made.endswith("zzz</bdi>")
    assert len(made) < 150
    assert name("x" * 40, 40) == f"<bdi>{'x' * 40}</bdi>"


@pytest.mark.parametrize("mode", ["noise", "flat", "RGBA"])
def test_a_picture_is_in_the_page_and_as_small_as_it_can_be(mode):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (64, 64, 4 if mode == "RGBA" else 3), np.uint8)
    pixels = np.full((64, 64, 3), 7, np.uint8) if mode == "flat" else noise
    made = picture(Image.fromarray(pixels), 'a "dog"', class_="plate")
    kind, data = re.search(r'src="data:image/(.*?);base64,(.*?)"', made).groups()
    assert kind == {"noise": "jpeg", "flat": "png", "RGBA": "png"}[mode]
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert (image.size, image.format.lower()) == ((64, 64), kind)
        if kind == "png":
            assert np.array_equal(np.asarray(image), pixels)
    assert 'alt="a &quot;dog&quot;" width="64" height="64" class="plate"' in made


def test_a_table_has_heads_a_caption_and_keys_to_sort_by():
    made = table("what", ["class", "n"], [[name(EVIL), ("1,000", 1000)]], numbers=(1,), sortable=True)
    assert '<th class="number" scope="col" aria-sort="none"><button type="button">n</button></th>'.replace(
        'class="number" scope="col"', 'scope="col" class="number"') in made
    assert '<td class="number" data-key="1000">1,000</td>' in made
    assert '<th scope="row"><bdi>&lt;script' in made
    plain = table("what", ["class", "n"], [["a", (1, 2)]])
    assert "data-key" not in plain
    assert "button" not in plain
    assert "<caption><span>what</span></caption>" in plain


@pytest.mark.parametrize(("part", "width"), [(0.123, "12.3"), (-1, "0.0"), (7, "100.0")])
def test_a_bar_stays_in_its_track(part, width):
    assert f"width:{width}%" in bar(part, "x")


def test_a_page_is_whole_and_names_its_parts():
    made = document("A & B", element("p", "about"), [section("one", "First < second", figures([("n", 1, "note")])),
                                                     section("two", "Second", element("h3", "more"))])
    structure = checked(made)
    assert [attributes["href"] for tag, attributes in structure.found if tag == "a"] == ["#content", "#one", "#two"]
    assert "A & B" in words(structure)
    assert "First < second" in words(structure)


def test_only_the_pages_own_script_may_run():
    source = document("t", "", []).decode()
    script = re.search(r"<script>(.*?)</script>", source, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert escaped(policy) in source
    assert source.count("<script") == 1
    assert "</style" not in page.Path(page.__file__).with_name("page.css").read_text(encoding="utf-8")


def test_only_a_page_that_is_to_load_again_does():
    assert b'http-equiv="refresh"' not in document("t", "", [])
    again = document("t", "", [], reload_seconds=7)
    assert b'<noscript><meta http-equiv="refresh" content="7"></noscript>' in again
    assert b'data-reload="7"' in again
    checked(again)
