"""Reads and replaces the literals of a notebook's parameters cell, and rejects unknown parameters."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import Any

from bridgekit.errors import BridgekitError

PARAMETERS_TAG = "parameters"


class ParameterError(BridgekitError, ValueError):
    """A setting or a parameters cell is malformed, or a parameter is unknown or has the wrong type."""


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """Parse command-line settings such as "seed=7". A value that is not a Python literal is kept as text.

    Raises ParameterError for a setting without a name or "=", and for a name that is set twice.
    """
    parameters: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name.isidentifier():
            raise ParameterError(f"{setting!r} is not a parameter: write name=value")
        if name in parameters:
            raise ParameterError(f"the parameter {name} is set twice: set it once")
        try:
            parameters[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            parameters[name] = text
    return parameters


def read_parameters(source: str) -> dict[str, Any]:
    """Return the names and values of a parameters cell. Raises ParameterError if a line does not set a literal."""
    return {name: _literal(name, value) for name, value in _assignments(source)}


def replace_parameters(source: str, parameters: Mapping[str, Any]) -> str:
    """Return the cell's source with the literals in `parameters` replaced. Comments stay.

    Raises ParameterError if a value and the replaced literal have different types. A whole number may replace a float.
    """
    lines = source.encode().splitlines(keepends=True)  # `ast` gives column offsets in bytes
    for name, value in reversed(list(_assignments(source))):
        if name not in parameters:
            continue
        _require_type(name, _literal(name, value), parameters[name])
        first, last = value.lineno - 1, (value.end_lineno or value.lineno) - 1
        before, after = lines[first][: value.col_offset], lines[last][value.end_col_offset :]
        lines[first : last + 1] = [before + repr(parameters[name]).encode() + after]
    return b"".join(lines).decode()


def require_known(parameters: Iterable[str], known: Iterable[str]) -> None:
    """Raise ParameterError for a parameter that no notebook has. The message lists the known names."""
    have = sorted(set(known))
    unknown = sorted(set(parameters) - set(have))
    if unknown:
        names = ", ".join(have) or "none"
        raise ParameterError(f"no notebook has the parameter {', '.join(unknown)}; known parameters are: {names}")


def _assignments(source: str) -> Iterable[tuple[str, ast.expr]]:
    for statement in ast.parse(source).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                yield name, value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield name, value
            case _:
                raise ParameterError(f"line {statement.lineno} of a parameters cell must be name = literal")


def _literal(name: str, value: ast.expr) -> Any:
    try:
        return ast.literal_eval(value)
    except ValueError:
        raise ParameterError(f"the value of the parameter {name} is not a literal") from None


def _require_type(name: str, default: object, value: object) -> None:
    wanted = type(default)
    whole_for_real = wanted is float and type(value) is int
    if type(value) is not wanted and not whole_for_real:
        raise ParameterError(f"parameter {name} must be of type {wanted.__name__}, but {value!r} is not")
