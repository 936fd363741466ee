"""Parts of sentences that several texts of the suite share."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["capitalized", "listed"]


def listed(members: Iterable[object]) -> str:
    """Return members as an enumeration, such as "8 and 9" or "8, 9 and 10", or "" if there is none."""
    *first, last = [*map(str, members)] or [""]
    return f"{', '.join(first)} and {last}" if first else last


def capitalized(text: str) -> str:
    """Return the text with a capital first letter. Other letters stay unchanged, unlike with str.capitalize."""
    return text[:1].upper() + text[1:]
