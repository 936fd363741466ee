"""Drafts a `[dialect]` table from one recording, by the names and the values of its fields. A person reviews it."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from bridgekit_verify.check.frames import Message
from bridgekit_verify.errors import UnusableRecording

__all__ = ["draft_table"]

MAX_KINDS: Final = 60
MAX_DEPTH: Final = 4
EVERYWHERE: Final = 0.9
KIND_NAMES: Final = ("type", "kind", "event", "t", "op", "action", "name")
ID_NAMES: Final = {
    "run": r"run|response_?id|task_?id|job",
    "thread": r"thread|conversation|session|room|channel|chat_?id",
    "user": r"user|account|owner",
    "call": r"call_?id|tool_?(use_)?id|^call$|call$",
    "message": r"me?ss?a?ge?_?id|^message$|^msg$|item_?id|^id$",
}
TEXT_NAMES: Final = r"delta|token|chunk|text|content|piece|^d$"
WHOLE_NAMES: Final = {"args": r"arg|input|param", "whole": r"whole|full|final|text|content|output"}
KIND_RULES: Final = (
    ("error", r"error|fail|abort|cancel"),
    ("tool_result", r"(tool|call|function).*(result|output)"),
    ("tool_args", r"(tool|call|function|arg|input).*(delta|chunk|args?|piece)|^args?$"),
    ("tool_end", r"(tool|call|function).*(end|done|stop|finish|complete|available)|^called$"),
    ("tool_begin", r"(tool|call|function).*(start|begin|added|open)"),
    ("thinking", r"think|reason"),
    ("text_end", r"(text|message|msg|content).*(end|done|stop|finish|complete)|^said$"),
    ("text_begin", r"(text|message|msg|content).*(start|begin|added|open)|^open$"),
    ("text", r"delta|token|chunk|text|^say$|content"),
    ("tool", r"tool|call|function"),
)
"""Rules that map the name of a type to a kind. The first matching rule counts."""
Path = tuple[str, ...]
Row = Mapping[Path, Any]


def draft_table(path: str, messages: Iterable[Message]) -> str:
    """Return a TOML file with a `[dialect]` table. Raises UnusableRecording if the recording has no JSON objects."""
    pairs = [(message, dict(_leaves(message.value))) for message in messages if isinstance(message.value, dict | list)]
    rows = [row for _, row in pairs]
    if not rows:
        raise UnusableRecording(path, "has no frame that is JSON: strip the prefix of its messages first")
    kind = _kind(rows)
    fields = _ids(rows, kind)
    fields |= _texts(rows, {*fields.values(), *([kind] if kind else [])})
    lines = [f"# drafted from {len(rows)} frames by `bridgekit learn`: review every line", "[dialect]"]
    if kind is not None:
        lines.append(_line("kind", _quote(kind), rows, kind))
    lines += [_line(field, _quote(where), rows, where) for field, where in fields.items()]
    lines += _position(pairs, fields)
    if kind is not None:
        lines += ["[dialect.kinds]", *_kinds(rows, kind, fields.get("run"))]
    return "\n".join(lines) + "\n"


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict | list) and len(path) < MAX_DEPTH:
        pairs = value.items() if isinstance(value, dict) else enumerate(value[:MAX_DEPTH])
        for name, each in pairs:
            if "." not in str(name):
                yield from _leaves(each, (*path, str(name)))
    elif path:
        yield path, value


def _values(rows: Sequence[Row], path: Path) -> list[Any]:
    return [row[path] for row in rows if path in row]


def _paths(rows: Sequence[Row]) -> list[Path]:
    """Return the paths that occur, short ones first."""
    found = Counter(path for row in rows for path in row)
    return sorted(found, key=lambda path: (len(path), -found[path], path))


def _kind(rows: Sequence[Row]) -> Path | None:
    """Return the path of a string that nearly every frame has and that has few values.

    Paths with a usual name come first.
    """
    candidates = []
    for path in _paths(rows):
        values = _values(rows, path)
        names = {each for each in values if isinstance(each, str)}
        few = 1 < len(names) <= min(MAX_KINDS, max(2, len(rows) // 2))
        if few and len(values) >= EVERYWHERE * len(rows) and all(isinstance(each, str) for each in values):
            rank = KIND_NAMES.index(path[-1]) if path[-1] in KIND_NAMES else len(KIND_NAMES)
            candidates.append((rank, len(path), path))
    return min(candidates)[2] if candidates else None


def _ids(rows: Sequence[Row], kind: Path | None) -> dict[str, Path]:
    """Return the paths whose names are usual names of ids. Each path is used once."""
    found: dict[str, Path] = {}
    for field, pattern in ID_NAMES.items():
        for path in _paths(rows):
            if path == kind or path in found.values() or not re.search(pattern, path[-1], re.IGNORECASE):
                continue
            if all(isinstance(each, str) and 0 < len(each) <= 128 for each in _values(rows, path)):
                found[field] = path
                break
    return found


def _texts(rows: Sequence[Row], taken: set[Path]) -> dict[str, Path]:
    """Return the path of the deltas, which has the most strings, and the paths of complete values."""
    strings = {
        path: sum(isinstance(each, str) for each in _values(rows, path)) for path in _paths(rows) if path not in taken
    }
    named = [path for path in strings if strings[path] and re.search(TEXT_NAMES, path[-1], re.IGNORECASE)]
    found = {"text": max(named, key=lambda path: strings[path])} if named else {}
    for field, pattern in WHOLE_NAMES.items():
        for path in strings:
            if path not in found.values() and strings[path] and re.search(pattern, path[-1], re.IGNORECASE):
                found[field] = path
                break
    return found


def _position(pairs: Sequence[tuple[Message, Row]], fields: Mapping[str, Path]) -> list[str]:
    """Draft the position: a whole number that increases by one in every client, thread or run.

    If each client has only one run, all three scopes fit. The function then chooses the run, because the numbering may
    restart with the next run.
    """
    for path in _paths([row for _, row in pairs]):
        found = [
            (per, numbers)
            for per in ("client", "thread", "run")
            if (per == "client" or per in fields) and (numbers := _numbers(pairs, path, fields.get(per)))
        ]
        if found:
            per, numbers = [each for each in found if len(each[1]) == len(found[0][1])][-1]
            firsts = {each[0] for each in numbers}
            first = f", first = {min(firsts)}" if firsts <= {0} or firsts <= {1} else ""
            return [f'position = {{ path = {_quote(path)}, per = "{per}"{first} }}']
    return []


def _numbers(pairs: Sequence[tuple[Message, Row]], path: Path, scope: Path | None) -> list[list[int]]:
    """Return the numbers of each scope if they are positions, and otherwise an empty list."""
    numbers = defaultdict[object, list[int]](list)
    for message, row in pairs:
        if type(row.get(path)) is int:
            numbers[message.client, row.get(scope) if scope else None].append(row[path])
    count = sum(map(len, numbers.values()))
    if count < max(3, EVERYWHERE * len(pairs)):
        return []
    follow = all(later == earlier + 1 for each in numbers.values() for earlier, later in pairwise(each))
    return list(numbers.values()) if follow else []


def _kinds(rows: Sequence[Row], kind: Path, run: Path | None) -> list[str]:
    """Draft the kinds. Start and end follow from the order in each run, and the other kinds from the names."""
    by_run = defaultdict[Any, list[str]](list)
    for row in rows:
        if kind in row and (run is None or run in row):
            by_run[row.get(run) if run else None].append(row[kind])
    kinds = defaultdict[str, list[str]](list)
    firsts, lasts = {each[0] for each in by_run.values()}, {each[-1] for each in by_run.values()}
    for name in dict.fromkeys(_values(rows, kind)):
        matched = next((ours for ours, rule in KIND_RULES if re.search(rule, name, re.IGNORECASE)), None)
        if firsts == {name} and name not in lasts:
            matched = "started"
        elif lasts == {name} and name not in firsts:
            matched = "ended"
        kinds[matched or "event"].append(name)
    return [f"{ours} = {json.dumps(names if len(names) > 1 else names[0])}" for ours, names in kinds.items()]


def _quote(path: Path) -> str:
    return json.dumps(".".join(path))


def _line(field: str, value: str, rows: Sequence[Row], path: Path) -> str:
    values = _values(rows, path)
    distinct = len({repr(each) for each in values})
    return f"{field} = {value}  # in {len(values)} of {len(rows)} frames, {distinct} values"
