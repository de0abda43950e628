"""What every page must be, read off its text: whole, without a network, fit for those who hear it."""

import re
from html.parser import HTMLParser
from itertools import pairwise

VOID = {"br", "img", "input", "link", "meta"}
NEVER_NESTED = {"p", "li", "h1", "h2", "h3", "section", "button", "a"}


class Structure(HTMLParser):
    """The tags of a page; raises AssertionError where they are not balanced."""

    def __init__(self):
        super().__init__()
        self.open, self.found, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes), f"<{tag}> has an attribute twice"
        assert tag not in NEVER_NESTED or tag not in self.open, f"<{tag}> in <{tag}>"
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        opened = self.open.pop()
        assert tag == opened, f"</{tag}> closes <{opened}>"

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text.append(data)


def checked(page: bytes) -> Structure:
    """Read a page and hold it to the rules that all obey."""
    source = page.decode("utf-8")
    assert source.startswith("<!DOCTYPE html>\n<html lang=")
    structure = Structure()
    structure.feed(source)
    structure.close()
    assert not structure.open
    found = structure.found
    identities = [attributes["id"] for _, attributes in found if "id" in attributes]
    assert len(set(identities)) == len(identities)
    for tag, attributes in found:
        if tag == "img":
            assert attributes.get("alt"), attributes
            assert attributes["src"].startswith("data:image/")
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
        assert attributes.get("aria-labelledby", "content") in identities
        address = attributes.get("href", "#content")
        assert address == "data:," or address[1:] in identities, address
    assert sum(tag == "table" for tag, _ in found) == sum(tag == "caption" for tag, _ in found)
    levels = [int(tag[1]) for tag, _ in found if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels)), levels
    assert not re.findall(r"""(?:src|href|action|data)=["']?(?:[a-z]+:)?//|url\(|@import""", source)
    assert any(tag == "title" for tag, _ in found)
    return structure


def words(structure: Structure) -> str:
    """What is there to read."""
    return " ".join(" ".join(structure.text).split())
