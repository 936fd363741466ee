"""Numbers that JSON lacks: NaN and the infinities, which encoders write as null without a word."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

__all__ = ["doubtful", "where_not"]

_PLAIN: Final = frozenset({str, int, bool, type(None)})


def doubtful(values: Iterable[Any]) -> bool:
    """Whether one of these could be, or have in it, a number that JSON lacks, or of what only the encoder knows.

    Quick, and wary of what is nested.
    """
    for value in values:
        kind = type(value)
        if kind in _PLAIN:
            continue
        if kind is float:
            if not math.isfinite(value):
                return True
        elif kind is dict:
            if not _PLAIN.issuperset(map(type, value.values())):
                return True
        elif kind is not list or not _PLAIN.issuperset(map(type, value)):
            return True
    return False


def where_not(value: object, path: str = "payload") -> str | None:
    """Where in a payload a number stands that JSON does not have, or None."""
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{path} = {value}"
    children: Iterable[tuple[object, object]] = ()
    if isinstance(value, Mapping):
        children = value.items()
    elif isinstance(value, (list, tuple, set, frozenset)):
        children = enumerate(value)
    return next((found for key, child in children if (found := where_not(child, f"{path}[{key!r}]"))), None)
