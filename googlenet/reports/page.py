"""Pages that need nothing beside themselves: one HTML file, from any disk, without a network.

`element` writes HTML; text that is not `Html` already is escaped, so that no class name or file name can become
markup. What a page may do is said in its Content-Security-Policy as well: no script but its own, pictures from data:.
"""
from __future__ import annotations

import base64
import hashlib
import html
import re
import time
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image

LONGEST = 120  # characters of a name that are shown
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
VOID = {"br", "img", "input", "link", "meta", "path"}  # elements without children; of SVG's, path


class Html(str):
    """Text that is HTML already."""


def escaped(text: object) -> Html:
    """Return text as HTML that shows it; `Html` as it is."""
    if isinstance(text, Html):
        return text
    return Html(html.escape(UNPRINTABLE.sub("\ufffd", str(text))))


def element(kind: str, *children: object, **attributes: object) -> Html:
    """Return an element: `class_` becomes class, `aria_sort` aria-sort; None and False leave an attribute out."""
    inside = "".join(f' {name.rstrip("_").replace("_", "-")}' + ("" if value is True else f'="{escaped(value)}"')
                     for name, value in attributes.items() if value is not None and value is not False)
    if kind in VOID:
        return Html(f"<{kind}{inside}>" if kind != "path" else f"<{kind}{inside}/>")
    return Html(f"<{kind}{inside}>{''.join(map(escaped, children))}</{kind}>")


def joined(parts: Iterable[object], between: str = "") -> Html:
    """Return the parts one behind the other."""
    return Html(between.join(map(escaped, parts)))


def name(text: object, longest: int = LONGEST) -> Html:
    """Return a name from a file: its middle left out where it is long, its letters turning nothing else around."""
    shown = str(text)
    if len(shown) > longest:
        shown = f"{shown[:longest * 2 // 3]} … {shown[-longest // 4:]}"
    return element("bdi", shown)


def section(identity: str, title: str, *children: object) -> Html:
    """Return a part of the page with its heading, which the list of contents names."""
    return element("section", element("h2", title, id=f"{identity}-title"), *children, id=identity,
                   aria_labelledby=f"{identity}-title")


def figures(pairs: Iterable[tuple[str, object, object]]) -> Html:
    """Return the most important numbers, large: (what, number, note)."""
    return element("dl", *(element("div", element("dt", what), element("dd", element("strong", number), *(
        [element("small", note)] if note else []))) for what, number, note in pairs), class_="figures")


def details(summary: str, *children: object, open_: bool = False) -> Html:
    """Return what can be folded away."""
    return element("details", element("summary", summary), *children, open=open_)


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[int] = (),
          sortable: bool = False, tall: bool = False) -> Html:
    """Return a table in a box that scrolls by itself; the first column names the rows, and stays.

    Columns of `numbers` stand to the right. A sortable one has buttons as its heads; a cell that is a pair is what is
    shown and what it is sorted by."""
    title = [element("button", text, type="button") if sortable else text for text in head]
    side = ["number" if column in numbers else None for column in range(len(head))]
    top = element("tr", *(element("th", text, scope="col", class_=kind, aria_sort="none" if sortable else None)
                          for text, kind in zip(title, side, strict=True)))
    body = []
    for row in rows:
        cells = []
        for column, cell in enumerate(row):
            shown, key = cell if isinstance(cell, tuple) else (cell, None)
            scope = {"scope": "row"} if column == 0 else {}
            cells.append(element("td" if column else "th", shown, class_=side[column],
                                 data_key=key if sortable else None, **scope))
        body.append(element("tr", *cells))
    told = element("caption", element("span", caption))  # which stays in sight where the table is moved sideways
    made = element("table", told, element("thead", top), element("tbody", *body),
                   class_="sortable" if sortable else None)
    return element("div", made, class_="scroll tall" if tall else "scroll", tabindex="0", role="region",
                   aria_label=caption)


def bar(part: float, text: object) -> Html:
    """Return a number with a bar of its size, 0 to 1; the number says the same."""
    filled = element("span", class_="bar", style=f"width:{100 * min(max(part, 0.0), 1.0):.1f}%")
    return element("span", element("span", filled, class_="track", aria_hidden="true"),
                   element("span", text, class_="value"), class_="barred")


def picture(image: Image.Image, alt: str, **attributes: object) -> Html:
    """Return a picture that is part of the page: as PNG or JPEG, whichever is smaller."""
    opaque = image.mode in ("RGB", "L")
    found = [(_encoded(image, kind), kind) for kind in (("PNG", "JPEG") if opaque else ("PNG",))]
    data, kind = min(found, key=lambda each: len(each[0]))
    source = f"data:image/{kind.lower()};base64,{base64.b64encode(data).decode('ascii')}"
    return element("img", src=source, alt=alt, width=image.width, height=image.height, **attributes)


def _encoded(image: Image.Image, kind: str) -> bytes:
    file = BytesIO()
    image.save(file, kind, **({"quality": 85} if kind == "JPEG" else {"optimize": True}))
    return file.getvalue()


def document(title: str, about: object, sections: Sequence[Html], *, reload_seconds: int = 0) -> bytes:
    """Return a whole page: its title, what it is about, a list of contents, the sections.

    With `reload_seconds` it loads itself again so often: by its script, which keeps the place and can be paused, and
    where scripts are off by itself."""
    style, script = (Path(__file__).with_name(f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    refresh = element("noscript", element("meta", http_equiv="refresh", content=reload_seconds))
    head = element(
        "head", element("meta", charset="utf-8"), element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"), element("title", title), element("style", Html(style)),
        *([refresh] if reload_seconds else []))
    written = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    body = element(
        "body", element("a", "Skip to the content", href="#content", class_="skip"),
        element("header", element("h1", title), about, _contents(sections)),
        element("main", *sections, id="content", tabindex="-1"),
        element("footer", "Written ", element("time", time.strftime("%Y-%m-%d %H:%M:%S"), datetime=written),
                " by GoogLeNet, from scratch."),
        element("script", Html(script)), data_reload=reload_seconds or None)
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n".encode()


def _contents(sections: Sequence[Html]) -> Html:
    found = [re.search(r'<h2 id="(.*?)-title">(.*?)</h2>', each) for each in sections]
    links = (element("li", element("a", Html(each[2]), href=f"#{each[1]}")) for each in found if each)
    return element("nav", element("ul", *links), aria_label="Contents")
