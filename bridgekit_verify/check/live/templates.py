"""Replaces placeholders such as `{thread}` in texts with their values, quoted where necessary."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

__all__ = ["Body", "Values", "fill_body", "fill_text", "fill_url", "names_in"]

Values = Mapping[str, str]
"""The values of placeholders, by name."""
Body = str | dict[str, Any] | list[Any]

PLACEHOLDER: Final = re.compile(r"\{([A-Za-z_]\w*)\}")


def names_in(template: object) -> set[str]:
    """Return the names of the placeholders in a template."""
    if isinstance(template, str):
        return set(PLACEHOLDER.findall(template))
    if isinstance(template, Mapping):
        return {name for pair in template.items() for each in pair for name in names_in(each)}
    if isinstance(template, list | tuple):
        return {name for each in template for name in names_in(each)}
    return set()


def fill_text(template: str, values: Values) -> str:
    """Replace the placeholders with their values. A placeholder without a value stays unchanged."""
    return PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), template)


def fill_url(template: str, values: Values) -> str:
    """Replace the placeholders with their values, quoted for a URL."""
    return PLACEHOLDER.sub(lambda found: quote(values.get(found[1], found[0]), safe=""), template)


def fill_body(template: Body, values: Values) -> tuple[str, bool]:
    """Replace the placeholders with their values, escaped in JSON. Return the body and whether it is JSON."""
    if not isinstance(template, str):
        return json.dumps(_filled(template, values), default=str), True  # TOML has dates and times
    escaped = {name: json.dumps(value)[1:-1] for name, value in values.items()}
    text = fill_text(template, escaped)
    try:
        json.loads(text)
    except ValueError:
        return fill_text(template, values), False
    return text, True


def _filled(template: Any, values: Values) -> Any:
    if isinstance(template, str):
        return fill_text(template, values)
    if isinstance(template, dict):
        return {fill_text(name, values): _filled(each, values) for name, each in template.items()}
    return [_filled(each, values) for each in template] if isinstance(template, list) else template
