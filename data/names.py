"""Class names: the lists that lie beside images (`classes.txt`, or ImageNet's `synset_words.txt`), else numbers.

Kaggle's form of ImageNet calls the latter `LOC_synset_mapping.txt`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from data.errors import DataError

__all__ = ["LISTS", "numbered", "read_list", "read_names"]

LISTS = ("classes.txt", "synset_words.txt", "LOC_synset_mapping.txt")
MOST_NUMBERED = 100_000


def read_names(*folders: Path) -> tuple[str, ...] | None:
    """Return the classes of the first list found in `folders`, as `read_list` does; None where there is no list."""
    path = next((folder / name for folder in folders for name in LISTS if (folder / name).is_file()), None)
    return None if path is None else read_list(path)


def read_list(path: Path) -> tuple[str, ...]:
    """Return the lines of a list, one class a line in order.

    A line is kept whole: in synset_words.txt it is the WordNet id before the words that makes `crane` two classes.
    Raises DataError for a list that can't be read, is empty, repeats a name or is not UTF-8.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    counts = Counter(line for line in lines if line)
    if not counts:
        raise DataError(f"{path}: holds no class names: expected one a line")
    name, times = counts.most_common(1)[0]
    if times > 1:
        raise DataError(f"{path}: names {name!r} {times} times: each line is a class of its own")
    return tuple(counts)


def numbered(largest: int, origin: Path) -> tuple[str, ...]:
    """Return the names "0" to `largest`. Raises DataError when that many classes can only come from a wrong label."""
    if largest >= MOST_NUMBERED:
        raise DataError(f"{origin}: label {largest}: more than {MOST_NUMBERED} classes need a classes.txt")
    return tuple(str(i) for i in range(largest + 1))
