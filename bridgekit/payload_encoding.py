"""Defines which values of a payload are encoded unchanged, which are converted without loss, and which are refused.

An application converts its own types with the hook `BridgeConfig.payload_hook`.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from copy import copy
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec.structs import force_setattr

from bridgekit.errors import text_for_users

__all__ = [
    "EXACT_INTEGER",
    "MAX_DEPTH",
    "PayloadHook",
    "apply_hook",
    "convert",
    "encode_json",
    "explain",
    "find_depth",
    "find_problem",
]

EXACT_INTEGER: Final = 2**53
"""JavaScript may round an integer whose absolute value exceeds this bound. The frame contains the exact integer."""

PayloadHook = Callable[[object], object]
"""Converts a value of a payload, or returns it unchanged if it needs no conversion."""

MAX_DEPTH: Final = 100
"""Limit on objects and arrays inside one another. A reader whose recursion limit is lower than the writer's would
otherwise fail at the frame, and at each later attempt to resume."""
TOO_DEEP: Final = f"is nested more than {MAX_DEPTH} levels deep"
_HOOK_ADVICE: Final = "convert it, or set BridgeConfig(payload_hook=…)"
_SCALARS: Final = frozenset({str, bool, type(None)})


def _parts(*names: str) -> Callable[[Any, Any], object]:
    return lambda kind, value: kind(**{name: getattr(value, name) for name in names})


_DATE: Final = ("year", "month", "day")
_TIME: Final = ("hour", "minute", "second", "microsecond", "tzinfo", "fold")
_DATETIME: Final = datetime
"""The class `datetime` under another name, because test tools that stop the clock replace `datetime` in every
module."""
_TIME_OF_DAY: Final = time

_PLAIN_TYPES: Final[Mapping[type, Callable[[Any, Any], object]]] = {
    str: lambda _, value: str.__str__(value),
    numbers.Integral: lambda _, value: int(value),
    numbers.Real: lambda _, value: float(value),
    bytes: lambda _, value: b"".join([value]),
    datetime: _parts(*_DATE, *_TIME),
    date: _parts(*_DATE),
    time: _parts(*_TIME),
    timedelta: _parts("days", "seconds", "microseconds"),
    Decimal: lambda kind, value: kind(value),
    Mapping: lambda _, value: dict(value),
}
"""The types whose subclasses are converted: test tools, numpy and pandas define such subclasses. The first matching
type is used."""


def convert(value: Any) -> object:
    """Convert a value of a type that the encoder does not know to an equal value of a plain type.

    Raises TypeError if no plain value is equal: a subclass may have more precision than its base.
    """
    kind = next((each for each in _PLAIN_TYPES if isinstance(value, each)), None)
    # A bool would become a number. A bool gets here only as a key of a mapping or behind a proxy.
    if kind is not None and type(value) is not kind and not isinstance(value, bool):
        with suppress(TypeError, ValueError, OverflowError):
            plain = _PLAIN_TYPES[kind](kind, value)
            if plain == value or value != value:
                return plain
    raise TypeError(f"it is of type {type(value).__module__}.{type(value).__qualname__}")


encode_json: Final = msgspec.json.Encoder(enc_hook=convert).encode


def find_problem(value: object, path: str = "payload") -> str | None:
    """Describe the first value that JSON cannot carry unchanged, with its path. Return None if JSON can carry every
    value."""
    try:
        return _find_in_value(value, path)
    except RecursionError:
        raise
    except Exception as error:  # noqa: BLE001  # the code of a value's class may raise any error
        return f"JSON cannot carry {path}: {text_for_users(error)}; {_HOOK_ADVICE}"


def _find_in_value(value: object, path: str) -> str | None:
    if isinstance(value, msgspec.Raw):
        return f"{path} is JSON that was encoded elsewhere"
    if isinstance(value, enum.Enum):
        return find_problem(value.value, path)
    if isinstance(value, Mapping):
        return _find_in_mapping(value, path)
    if isinstance(value, (list, tuple, set, frozenset)):
        return _first(find_problem(child, f"{path}[{index}]") for index, child in enumerate(value))
    if (fields := _fields_of(value)) is not None:
        return _find_in_mapping(fields, path) or _find_other_fields(value, fields, path)
    return _find_in_scalar(value, path)


def _find_in_scalar(value: object, path: str) -> str | None:
    try:
        data = encode_json(value)
    except (TypeError, ValueError) as error:
        return f"JSON cannot carry {path}: {error}; {_HOOK_ADVICE}"
    if (data == b"null" and value is not None) or (isinstance(value, Decimal) and not value.is_finite()):
        return f"JSON has no number for {path} = {value}"
    if isinstance(value, _DATETIME) or (isinstance(value, _TIME_OF_DAY) and value.tzinfo is not None):
        return _find_in_time_zone(value.utcoffset(), f"{path} = {value}")
    return None


def _find_other_fields(value: object, fields: Mapping[str, object], path: str) -> str | None:
    # For attrs classes, the encoder omits private fields, and adds attributes that are not fields.
    if isinstance(value, msgspec.Struct) or msgspec.json.decode(encode_json(value)).keys() == fields.keys():
        return None
    return f"JSON cannot carry {path} with exactly its fields {', '.join(fields)}; {_HOOK_ADVICE}"


def explain(error: Exception, payload: object) -> str:
    """Describe the value of a payload that caused the encoder's error, or the error if no such value is found."""
    if not isinstance(error, RecursionError):
        with suppress(RecursionError):
            return find_problem(payload) or f"JSON cannot carry it: {text_for_users(error)}"
    return f"a value {TOO_DEEP}, or contains itself"


def find_depth(payload: Mapping[str, Any]) -> str | None:
    """Describe the first value of a decoded payload that is nested more than MAX_DEPTH levels deep."""
    for key, value in payload.items():
        containers = [value] if isinstance(value, dict | list) else []
        for _ in range(MAX_DEPTH):
            if not containers:
                break
            children = [child for each in containers for child in (each.values() if isinstance(each, dict) else each)]
            containers = [child for child in children if isinstance(child, dict | list)]
        if containers:
            return f"payload[{key!r}] {TOO_DEEP}"
    return None


def _find_in_time_zone(offset: timedelta | None, moment: str) -> str | None:
    if offset is None:
        return f"{moment} has no time zone; give it one, for example datetime.now(UTC)"
    return f"{moment} has a time zone with seconds, which would be rounded" if offset.total_seconds() % 60 else None


def _find_in_mapping(value: Mapping[Any, object], path: str) -> str | None:
    names: dict[str, object] = {}
    for key, child in value.items():
        place = f"{path}[{key!r}]"
        if type(key) is not str and (problem := find_problem(key, f"a key of {path}")):
            return problem
        try:
            data = encode_json({key: None})
            name = key if type(key) is str else next(iter(msgspec.json.decode(data)))
        except (TypeError, ValueError) as error:
            return f"JSON cannot carry the key {place}: {error}"
        if name in names:
            return f"{path} has the keys {names[name]!r} and {key!r}, which are equal in JSON"
        names[name] = key
        if problem := find_problem(child, place):
            return problem
    return None


def _first(found: Iterable[str | None]) -> str | None:
    return next((problem for problem in found if problem), None)


def _fields_of(value: object) -> dict[str, object] | None:
    """Return the fields of an object that the encoder turns into a JSON object, or None for any other value."""
    if isinstance(value, type):
        return None
    names: Iterable[str]
    if isinstance(value, msgspec.Struct):
        names = value.__struct_fields__
    elif dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
    elif attributes := getattr(type(value), "__attrs_attrs__", None):
        names = [attribute.name for attribute in attributes]
    else:
        return None
    return {name: getattr(value, name) for name in names}


def apply_hook(hook: PayloadHook, value: Any) -> Any:
    """Convert the value with `hook` at every depth.

    The hook gets each value except strings, booleans, None, dicts, lists, tuples, finite floats and integers up to
    EXACT_INTEGER. It gets no keys. The values inside the hook's result are also converted, and so are the fields of
    dataclasses, attrs classes and Structs, and the values of Enums.
    """
    kind = type(value)
    if kind in _SCALARS or (kind is float and math.isfinite(value)) or (kind is int and abs(value) <= EXACT_INTEGER):
        return value
    if kind not in (dict, list, tuple):
        converted = hook(value)
        if type(converted) is not kind:
            return apply_hook(hook, converted)
        value = converted
    return _apply_inside(hook, value)


def _apply_inside(hook: PayloadHook, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: apply_hook(hook, child) for key, child in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [apply_hook(hook, child) for child in value]
    if isinstance(value, enum.Enum):
        return apply_hook(hook, value.value)
    if (fields := _fields_of(value)) is None:
        return value
    if not isinstance(value, msgspec.Struct):
        return apply_hook(hook, fields)
    # A copy of the Struct keeps what its class defines for the encoder: names, tags, and the form of an array.
    value = copy(value)
    for name, child in fields.items():
        force_setattr(value, name, apply_hook(hook, child))
    return value
