"""Which of a network's classes are those that are asked for: ports have one more, or an order of their own."""

from __future__ import annotations

from collections.abc import Sequence

BACKGROUND = "background"  # TF-slim's first class, which no image of ImageNet has


def columns(own: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """Return which of the network's own classes each wanted one is, None where they are not all there.

    They are as many and in one order, or that behind a background class, or each wanted name is the network's exactly
    once. Digits stand for names nobody gave, and are equal to any name in the same place."""
    if _alike(own, wanted):
        return list(range(len(own)))
    if own and own[0] == BACKGROUND and _alike(own[1:], wanted):
        return list(range(1, len(own)))
    places = {name: number for number, name in enumerate(own)}
    named = not any(name.isdigit() for name in wanted)
    if named and len(places) == len(own) and len(set(wanted)) == len(wanted) and places.keys() >= set(wanted):
        return [places[name] for name in wanted]
    return None


def same(one: str, other: str) -> bool:
    """Return whether two names can be those of one class."""
    return one == other or one.isdigit() or other.isdigit()


def _alike(own: Sequence[str], wanted: Sequence[str]) -> bool:
    return len(own) == len(wanted) and all(map(same, own, wanted))
