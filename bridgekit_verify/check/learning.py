"""Drafts a `[dialect]` table from the names and values of the fields in one recording. A person reviews it."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Final

from msgspec.structs import replace

from bridgekit_verify.check.dialect_tables import (
    EVENT,
    RUN_OF_CONNECTION,
    TEXT,
    decoded,
    name_of,
    parse_table,
    without_prefix,
)
from bridgekit_verify.check.frames import Message, decode_text, split
from bridgekit_verify.check.judge import Judge
from bridgekit_verify.check.property_answers import Property
from bridgekit_verify.check.verdict import conclude
from bridgekit_verify.errors import UnusableRecording

__all__ = ["draft_table"]

MAX_KINDS: Final = 60
MAX_DEPTH: Final = 4
MAX_ITEMS: Final = 6
MAX_PAIR: Final = 2
"""A list of more objects is a batch of messages. A shorter list may be one message, such as a text and its origin."""
EVERYWHERE: Final = 0.9
KIND_NAMES: Final = ("type", "kind", "event", "t", "op", "action", "name")
ID_NAMES: Final = {
    "run": r"run|response_?id|task_?id|job",
    "thread": r"thread|conversation|session|room|channel|chat_?id",
    "user": r"user|account|owner",
    "call": r"call_?id|tool_?(use_)?id|^call$|call$",
    "message": r"me?ss?a?ge?_?id|^message$|^msg$|item_?id|^id$",
}
REASON_NAMES: Final = r"(finish|stop)_?reason"
END_NAMES: Final = r"^(is_?)?(done|stop|final|finished)$"
END_TEXTS: Final = re.compile(
    r"(?i:[\[<(|_#]+(\w*_)?(done|end|eo[fs]|stop|finish(ed)?|completed?)(_\w*)?[\])>|_#]+)|DONE|END|EO[FS]|STOP"
)
"""Texts that end a run although only one connection shows it, such as `[DONE]`."""
TEXT_NAMES: Final = r"(delta|token|chunk|text|content|piece|answer|^d$)(?!.*(id|type)$)"
WHOLE_NAMES: Final = {"args": r"arg|input|param", "whole": r"(whole|full|final|text|content|output)(?!.*(id|type)$)"}
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
"""Rules that map the name of a type to a kind of frame. The first matching rule applies."""
DELTAS: Final = ("thinking", "text", "tool_args")
Path = tuple[str, ...]
Row = Mapping[Path, Any]


def draft_table(path: str, messages: Iterable[Message]) -> str:
    """Return a draft of the recording's `[dialect]` table as TOML.

    Raises UnusableRecording if fewer than two messages are JSON.
    """
    prefix, decoded = _decode(list(messages))
    pairs = [(message, row) for message in decoded if (row := _row(message))]
    rows = [row for _, row in pairs]
    texts = [message for message in decoded if isinstance(message.value, str)]
    if not rows and len(texts) > 1:
        return _text_table(texts)
    if len(rows) < 2:
        raise UnusableRecording(
            path, f"has {len(rows) or 'no'} frame that is JSON: record a whole run, one frame per line"
        )
    types, kinds = _kind(rows), dict[str, str]()
    kind = types or _end(rows)
    fields: dict[str, Path] = {} if kind is None else {"kind": kind}
    fields |= _ids(rows, kind)
    fields |= _texts(rows, set(fields.values()))
    if types is not None:
        kinds = _kinds(pairs, types, fields.get("run"), fields.get("text"))
    elif kind is not None:
        kinds = {"*": "text"} | {name_of(each): "ended" for each in _values(rows, kind) if each}
        _name_run(rows, kind, fields)
    if kind is not None and "run" not in fields and _ends_once(pairs, kind, kinds):
        names = (path for path in _paths(rows) if path not in fields.values() and _names_connections(pairs, path))
        fields["run"] = next(names, (RUN_OF_CONNECTION,))
    position = _position(pairs, fields)
    _remove_contradictions(pairs, fields, kinds, position)
    lines = [f"# drafted from {len(rows)} frames by `bridgekit learn`: review every line", "[dialect]"]
    lines += [f"prefix = {_quote(prefix)}"] if prefix else []
    lines += [_line(field, where, rows) for field, where in fields.items()]
    if position:
        lines.append(f"position = {{ {', '.join(f'{name} = {_quote(each)}' for name, each in position.items())} }}")
    by_ours = _by_ours(kinds)
    lines += ["[dialect.kinds]"] if kinds else []
    lines += [f"{ours} = {_quote(names if len(names) > 1 else names[0])}" for ours, names in by_ours.items()]
    return "\n".join(lines) + "\n"


_quote = partial(json.dumps, ensure_ascii=False)
"""Quotes a value for TOML, which has all escapes of JSON except those of surrogate pairs."""


def _decode(messages: Sequence[Message]) -> tuple[str, list[Message]]:
    """Return the most frequent prefix of JSON texts, and the messages. The JSON after this prefix is decoded."""
    messages = [replace(m, value=decode_text(m.value)) if isinstance(m.value, str) else m for m in messages]
    lists = any(isinstance(each.value, list) and len(each.value) > MAX_PAIR for each in messages)
    messages = [replace(each, value=part) for each in messages for part in split(each.value, lists=lists)]
    texts = [message.value for message in messages if isinstance(message.value, str)]
    found = Counter(match[0] for text in texts if (match := re.match(r"[^\[{\s\"]{0,16}(?=[\[{])", text)))
    prefix = max(found, key=lambda each: found[each], default="")
    return prefix, [
        replace(message, value=decode_text(without_prefix(message.value, prefix)))
        if isinstance(message.value, str) and message.value.startswith(prefix)
        else message
        for message in messages
    ]


def _row(message: Message) -> Row:
    row = dict(_leaves(message.value)) if isinstance(message.value, dict | list) else {}
    return row if message.event is None else {(EVENT,): message.event, **row}


def _remove_contradictions(
    pairs: Sequence[tuple[Message, Row]], fields: dict[str, Path], kinds: dict[str, str], position: dict[str, Any]
) -> None:
    """Remove the parts of a draft with which the recording would break a property.

    The recording is assumed to be sound.
    """
    messages = [replace(message, index=n) for n, (message, _) in enumerate(pairs, 1)]  # also within a batch
    types = [name_of(row.get(fields.get("kind", ()))) for _, row in pairs]
    for _ in range(MAX_KINDS):
        table = {field: ".".join(path) for field, path in fields.items()} | {"kinds": _by_ours(kinds)}
        judge = Judge(parse_table(table | ({"position": position} if position else {}), "draft"))
        judge.feed(messages)
        broken = [answer for answer in conclude(judge).answers if answer.violations]
        if not broken:
            return
        for answer in broken:
            if answer.property in (Property.USER, Property.THREAD):
                fields.pop("user" if answer.property is Property.USER and "user" in fields else "thread", None)
            elif answer.property in (Property.ENDED, Property.END_LAST):
                kinds.update((name, "event") for name, ours in kinds.items() if ours in ("ended", "error"))
            else:
                kinds[types[answer.violations[0].frames[-1].index - 1]] = "event"


def _by_ours(kinds: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the recording's types, grouped by kind of frame."""
    found: dict[str, list[str]] = {}
    for name, ours in kinds.items():
        found.setdefault(ours, []).append(name)
    return found


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict | list) and len(path) < MAX_DEPTH:
        pairs = value.items() if isinstance(value, dict) else enumerate(value[:MAX_ITEMS])
        for name, each in pairs:
            if "." not in str(name):
                yield from _leaves(each, (*path, str(name)))
    elif path:
        yield path, value


def _values(rows: Sequence[Row], path: Path) -> list[Any]:
    return [row[path] for row in rows if path in row]


def _paths(rows: Sequence[Row]) -> list[Path]:
    """Return all paths in these rows, short paths first."""
    found = Counter(path for row in rows for path in row)
    return sorted(found, key=lambda path: (len(path), -found[path], path))


def _kind(rows: Sequence[Row]) -> Path | None:
    """Return the probable path of the frames' type: a string in nearly every frame, with few different values."""
    candidates = []
    for path in _paths(rows):
        values = _values(rows, path)
        names = {each for each in values if isinstance(each, str) and each}
        if re.search("id$|_at$|time|^text$|^content$|^token$", path[-1], re.IGNORECASE):
            continue
        few = 1 < len(names) <= min(MAX_KINDS, max(2, len(rows) // 2))
        if few and len(values) >= EVERYWHERE * len(rows) and all(isinstance(each, str) for each in values):
            rank = KIND_NAMES.index(path[-1]) if path[-1] in KIND_NAMES else len(KIND_NAMES)
            candidates.append((rank, len(path), path))
    return min(candidates)[2] if candidates else None


def _ids(rows: Sequence[Row], kind: Path | None) -> dict[str, Path]:
    """Return, for each field that holds an id, a path that ends with a usual name of the field. Use no path twice."""
    found: dict[str, Path] = {}
    for field, pattern in ID_NAMES.items():
        exact = re.compile(rf"({pattern})(_?id)?", re.IGNORECASE)
        for path in sorted(_paths(rows), key=lambda path: exact.fullmatch(path[-1]) is None):
            if path == kind or path in found.values() or not exact.search(path[-1]):
                continue
            ids = [each for each in _values(rows, path) if each not in ("", None)]
            if ids and all(isinstance(each, str) and len(each) <= 128 for each in ids):
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


def _position(pairs: Sequence[tuple[Message, Row]], fields: Mapping[str, Path]) -> dict[str, Any]:
    """Draft the position: a whole number that increases by one within each client, thread or run.

    If each client has only one run, every scope fits. The run is then chosen, because its numbering may restart with
    the next run.
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
            first = {"first": min(firsts)} if firsts <= {0} or firsts <= {1} else {}
            return {"path": ".".join(path), "per": per, **first}
    return {}


def _numbers(pairs: Sequence[tuple[Message, Row]], path: Path, scope: Path | None) -> list[list[int]]:
    """Return the numbers at this path, one list for each scope, or an empty list if they cannot be positions."""
    numbers = defaultdict[object, list[int]](list)
    for message, row in pairs:
        if type(row.get(path)) is int:
            numbers[message.client, row.get(scope) if scope else None].append(row[path])
    count = sum(map(len, numbers.values()))
    if count < max(3, EVERYWHERE * len(pairs)):
        return []
    follow = all(later == earlier + 1 for each in numbers.values() for earlier, later in pairwise(each))
    return list(numbers.values()) if follow else []


def _end(rows: Sequence[Row]) -> Path | None:
    """Return the path of a mark of the end for frames that have no type: a reason, or `done` that is true."""
    for path in _paths(rows):
        for names, type_ in ((REASON_NAMES, str | int), (END_NAMES, int)):  # `final` may also be the whole text
            marks = (each for each in _values(rows, path) if isinstance(each, type_))
            if re.search(names, path[-1], re.IGNORECASE) and any(marks):
                return path
    return None


def _name_run(rows: Sequence[Row], kind: Path, fields: dict[str, Path]) -> None:
    """Take the path `id` for that of the run, as in chat completions, unless there are more ids than ends."""
    if "run" in fields or fields.get("message", ())[-1:] != ("id",):
        return
    ids = [each for each in _values(rows, fields["message"]) if each]
    if len(set(ids)) <= sum(map(bool, _values(rows, kind))):
        fields["run"] = fields.pop("message")
    elif len(set(ids)) == len(ids):  # each frame has an id of its own
        del fields["message"]


def _ends_once(pairs: Sequence[tuple[Message, Row]], kind: Path, kinds: Mapping[str, str]) -> bool:
    """Return whether there are several connections, and each has one frame that ends a run."""
    ends = Counter({(message.client, message.connection): 0 for message, _ in pairs})
    ends.update(
        (message.client, message.connection)
        for message, row in pairs
        if kind in row and kinds.get(name_of(row[kind])) == "ended"
    )
    return len(ends) > 1 and set(ends.values()) == {1}


def _names_connections(pairs: Sequence[tuple[Message, Row]], path: Path) -> bool:
    """Return whether most frames have a text at this path that only their connection has."""
    found = (((message.client, message.connection), row.get(path)) for message, row in pairs)
    texts = [(client, name) for client, name in found if name and isinstance(name, str)]
    clients, names = {client for client, _ in texts}, {name for _, name in texts}
    return len(set(texts)) == len(clients) == len(names) and 2 * len(texts) > len(pairs)


def _text_table(messages: Sequence[Message]) -> str:
    """Return the table of a recording whose messages are text.

    The last text is the end if it looks like one, or if all connections have it and differ in their other texts.
    """
    texts = defaultdict[str, list[str]](list)
    for message in messages:
        texts[message.client].append(decoded(message.value)[TEXT])
    lasts = [each[-1] for each in texts.values()]
    end = lasts[0]
    ends = lasts.count(end) == len(lasts) and (len({tuple(each) for each in texts.values()}) > 1
                                               or END_TEXTS.fullmatch(end.strip()) is not None)  # fmt: skip
    lines = [f"# drafted from {len(messages)} texts by `bridgekit learn`: review every line", "[dialect]"]
    if ends and sum(each.count(end) for each in texts.values()) == len(lasts):
        lines.append(f'run = "{RUN_OF_CONNECTION}"')
    lines += [f'kind = "{TEXT}"', f'text = "{TEXT}"', "[dialect.kinds]", 'text = "*"']
    return "\n".join([*lines, *([f"ended = {_quote(end)}"] if ends else [])]) + "\n"


def _kinds(pairs: Sequence[tuple[Message, Row]], kind: Path, run: Path | None, text: Path | None) -> dict[str, str]:
    """Return each type's kind.

    The order of types in runs shows `started` and `ended`, and their names show the others.
    """
    by_run = defaultdict[Any, list[str]](list)
    for message, row in pairs:
        if kind in row and (run is None or run in row):
            by_run[row.get(run) if run else message.client].append(row[kind])
    rows = [row for _, row in pairs]
    texts = Counter(row.get(kind) for row in rows if text is not None and row.get(text) and isinstance(row[text], str))
    kinds: dict[str, str] = {}
    firsts, lasts = {each[0] for each in by_run.values()}, {each[-1] for each in by_run.values()}
    for name in dict.fromkeys(_values(rows, kind)):
        matched = next((ours for ours, rule in KIND_RULES if re.search(rule, name, re.IGNORECASE)), "event")
        if texts and name == texts.most_common(1)[0][0]:
            matched = "text" if matched == "event" else matched
        elif firsts == {name} and name not in lasts:
            matched = "started"
        elif lasts == {name} and name not in firsts:
            matched = "ended"
        kinds[name] = "event" if matched in DELTAS and name not in texts else matched
    return kinds


def _line(field: str, path: Path, rows: Sequence[Row]) -> str:
    if path == (RUN_OF_CONNECTION,):
        return f"{field} = {_quote(RUN_OF_CONNECTION)}  # each connection has one frame that ends a run"
    values = _values(rows, path)
    distinct = len({repr(each) for each in values})
    return f"{field} = {_quote('.'.join(path))}  # in {len(values)} of {len(rows)} frames, {distinct} values"
