"""Converts the values of a data frame to JSON types without changing their meaning, or refuses them."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from datetime import date, time
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

__all__ = ["json_value"]


def json_value(value: Any, where: str) -> Any:
    """Return a value as a JSON type. A missing value is None.

    Numbers stay exact, dates become ISO 8601 text, UUIDs and decimals become text, and an enumeration becomes its
    value. Raises ValueError if the value has no JSON type, or is infinite. `where` names the value in the message.
    """
    item = value.tolist() if type(value).__module__ == "numpy" else value
    # The markers NA and NaT are recognized by name, because NA cannot be compared, and NaT would count as a date.
    if item is None or type(item).__name__ in ("NAType", "NaTType"):
        return None
    for kinds, convert in _CONVERSIONS:
        if isinstance(item, kinds):
            return convert(item, where)
    raise ValueError(f"{where}: a {type(item).__name__} cannot be stored; convert it to a number or to text")


def _float(value: float, where: str) -> float | None:
    if math.isinf(value):
        raise ValueError(f"{where}: JSON has no number {value}; replace it, for example by None")
    return None if math.isnan(value) else float(value)


def _list(value: list[Any] | tuple[Any, ...], where: str) -> list[Any]:
    return [json_value(each, where) for each in value]


def _object(value: dict[Any, Any], where: str) -> dict[str, Any]:
    return {str(key): json_value(each, where) for key, each in value.items()}


# The first matching type decides. An enumeration can also be a `str` or an `int`, and `bool` is a subclass of `int`.
_CONVERSIONS: Final[tuple[tuple[Any, Callable[[Any, str], Any]], ...]] = (
    (enum.Enum, lambda value, where: json_value(value.value, where)),
    (bool, lambda value, where: value),
    ((str, UUID, Decimal), lambda value, where: str(value)),
    (int, lambda value, where: int(value)),
    (float, _float),
    ((date, time), lambda value, where: value.isoformat()),
    ((list, tuple), _list),
    (dict, _object),
)
