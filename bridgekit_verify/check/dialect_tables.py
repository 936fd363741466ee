"""Detects which of four protocols a recording uses, and reads tables that locate the fields of other protocols."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from bridgekit_verify.check.dialects import BUILT_IN, StreamDialect, type_of
from bridgekit_verify.check.frames import (
    END_OF_STREAM,
    FIELDS,
    KINDS,
    Message,
    ObservedFrame,
    decode_json,
    decode_text,
    encode_json,
    split,
)
from bridgekit_verify.errors import UnusableRecording

__all__ = ["EVENT", "RUN_OF_CONNECTION", "TEXT", "decoded", "detect", "load_table", "locate", "name_of", "parse_table",
           "steps_of", "without_prefix"]  # fmt: skip

PER: Final = ("client", "thread", "run", "connection")
RUN_OF_CONNECTION: Final = "@connection"
EVENT: Final = "@event"
ID: Final = "@id"
"""The path of the number in the `id:` line of a server-sent event."""
TEXT: Final = "@text"
"""The path that locates the whole text of a message that is not JSON."""
WHOLE: Final = ("whole", "args")
RUN_KINDS: Final = ("started", "ended", "error")
IDS: Final = {"run", "thread", "user", "message", "call"}
SAMPLE_MESSAGES: Final = 100
ENOUGH: Final = 0.5


def detect(path: str, messages: Iterable[Message]) -> StreamDialect:
    """Return the built-in dialect that knows the types of the most messages.

    Raises UnusableRecording if no dialect knows the types of at least half of the messages that are JSON objects.
    """
    types = Counter(type_of(part) for each in messages for part in split(each.value) if isinstance(part, dict))
    total = sum(types.values())
    shares = {
        each.name: sum(
            count for name, count in types.items() if name in each.known_types or name.startswith(each.type_prefixes)
        )
        for each in BUILT_IN.values()
        if any(name in each.recognized_by or name.startswith(each.type_prefixes) for name in types)
    }
    best = max(shares, key=lambda name: shares[name], default=None)
    if best is None or shares[best] < ENOUGH * total:
        seen = ", ".join(repr(name)[:40] for name, _ in types.most_common(4)) or "none, as they are text (@text)"
        raise UnusableRecording(
            path,
            f"is in no known dialect ({', '.join(BUILT_IN)}); types of its first frames: {seen}. "
            "Draft a table with `bridgekit learn`, review it, and pass it as --dialect TABLE.toml",
        )
    return BUILT_IN[best]


def load_table(path: str) -> StreamDialect:
    """Read the `[dialect]` table of a TOML file.

    Raises UnusableRecording if the file is not TOML or has no valid table, and OSError if it cannot be read.
    """
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UnusableRecording(path, f"is not TOML: {error}") from error
    table = document.get("dialect")
    if not isinstance(table, dict):
        raise UnusableRecording(path, "has no table [dialect]")
    return parse_table(table, path)


def parse_table(table: Mapping[str, Any], source: str) -> StreamDialect:
    """Return the dialect of a `[dialect]` table.

    Raises UnusableRecording, whose message names the first invalid line.
    """
    _refuse_unknown(table, source)
    name = str(table.get("name", Path(source).stem))
    position, per, first = _position(table.get("position"), source)
    paths = {field: str(table[field]) for field in FIELDS if field in table and field != "position"}
    if position is not None:
        paths["position"] = position
    kinds = _kinds(table.get("kinds", {}), source)
    run_is_connection = paths.get("run") == RUN_OF_CONNECTION
    if run_is_connection:
        del paths["run"]
    prefix = str(table.get("prefix", ""))
    located = {field: steps_of(path) for field, path in paths.items()}
    reader = _TableReader(located, kinds, prefix)
    return StreamDialect(
        name,
        reader,
        frozenset(paths),
        frozenset(kinds.values()) if "kind" in paths else frozenset(),
        position_per=per,
        first_position=first,
        run_is_connection=run_is_connection,
        json_arguments=False,
        source=source,
        reads_text="prefix" in table or (TEXT,) in located.values(),
        numbers_messages=position == ID,
        reads_events=located.get("kind") == (EVENT,),
        reads_lists=any(type(each[0]) is int for each in located.values()),
    )


def _refuse_unknown(table: Mapping[str, Any], source: str) -> None:
    for key, value in table.items():
        if key not in (*FIELDS, "name", "prefix", "kinds"):
            known = ", ".join(("name", "prefix", "kinds", *FIELDS))
            raise UnusableRecording(source, f"[dialect] has the unknown line {key!r}; known: {known}")
        empty = key in FIELDS and isinstance(value, str) and "" in value.split(".")
        if empty or (not isinstance(value, str) and key not in ("kinds", "position")):
            raise UnusableRecording(source, f"[dialect] {key} must be a path in quotes, not {value!r}")


def _position(value: object, source: str) -> tuple[str | None, str, int | None]:
    """Parse `position = "n"` or `position = { path = "n", per = "thread", first = 1 }`."""
    if value is None or isinstance(value, str):
        return value, "client", None
    if isinstance(value, dict) and isinstance(value.get("path"), str) and value.keys() <= {"path", "per", "first"}:
        per, first = value.get("per", "client"), value.get("first")
        if per in PER and (first is None or type(first) is int):
            return value["path"], per, first
    raise UnusableRecording(
        source,
        f"[dialect] position must be a path, or {{ path = …, per = one of {', '.join(PER)}, first = a number }}, "
        f"not {value!r}",
    )


def _kinds(value: object, source: str) -> dict[str, str]:
    """Return the kind of frame for each type of the protocol."""
    if not isinstance(value, dict):
        raise UnusableRecording(source, f"[dialect] kinds must be a table, not {value!r}")
    kinds: dict[str, str] = {}
    for kind, theirs in value.items():
        if kind not in KINDS:
            raise UnusableRecording(source, f"[dialect] kinds has the unknown kind {kind!r}; known: {', '.join(KINDS)}")
        for each in theirs if isinstance(theirs, list) else [theirs]:
            if not isinstance(each, str | int):
                raise UnusableRecording(source, f"[dialect] kinds {kind} must be a list of types, not {each!r}")
            if (name := name_of(each)) in kinds:
                raise UnusableRecording(source, f"[dialect] kinds names {each!r} as {kinds[name]} and as {kind}")
            kinds[name] = kind
    return kinds


def name_of(type_: object) -> str:
    """Return a type as text. A type may also be a number, true or false."""
    return type_ if isinstance(type_, str) else encode_json(type_)


Steps = tuple[str | int, ...]


def steps_of(path: str) -> Steps:
    """Return the steps of a path. Dots separate the steps, and a number is a list index."""
    return tuple(int(step) if step.isdecimal() else step for step in path.split("."))


def locate(value: Any, steps: Steps) -> Any:
    """Return the value at a path, or None if there is no such value. A text on the way may hold JSON."""
    for step in steps:
        if isinstance(value, str):
            value = decode_text(value)
        if isinstance(value, dict):
            value = value.get(str(step))
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value


class _TableReader:
    def __init__(self, paths: Mapping[str, Steps], kinds: Mapping[str, str], prefix: str) -> None:
        self._paths = [(field, steps) for field, steps in paths.items() if field != "kind"]
        # Most paths have one step, for which a plain lookup is faster than `locate`. A complete value is read after the
        # call's id, because the value is in `args` if the frame has a call, and in `whole` otherwise.
        late = WHOLE if len(paths.get("call", ())) > 1 else ()
        self._names = [(field, str(steps[0])) for field, steps in self._paths if len(steps) == 1 and field not in late]
        self._paths = [(field, steps) for field, steps in self._paths if len(steps) > 1 or field in late]
        self._kind, self._kinds, self._prefix = paths.get("kind"), kinds, prefix
        self._counts_ids = paths.get("position") == (ID,)
        self._every_text = kinds.get("*") == "text" and paths.get("kind") != paths.get("text")
        starts = sorted((type_[:-1] for type_ in kinds if type_.endswith("*")), key=len, reverse=True)
        self._starts = [(start, kinds[f"{start}*"]) for start in starts]

    def __call__(self, message: Message) -> tuple[ObservedFrame, ...]:
        value = message.value
        if isinstance(value, str):
            if not value.startswith(self._prefix):
                return ()
            value = decoded(without_prefix(value, self._prefix))
        theirs = message.event if self._kind == (EVENT,) else None if self._kind is None else locate(value, self._kind)
        name = name_of(theirs)
        kind = self._kinds.get(name)
        frame = ObservedFrame(message, kind or self._begun(name))
        if isinstance(value, dict):
            self._set_named(frame, value)
        if self._counts_ids:
            frame.position = _number(message.event_id)
        for field, steps in self._paths:
            if (found := locate(value, steps)) is not None:
                _set(frame, field, found)
        # A type with `*` must not match the end of the stream, or a message that has neither a type nor a text.
        if kind is None and (message.value == END_OF_STREAM or (theirs is None and frame.text is frame.whole is None)):
            frame.kind = "other"
        return self._with_text(frame) if self._every_text and kind in RUN_KINDS and frame.text else (frame,)

    @staticmethod
    def _with_text(frame: ObservedFrame) -> tuple[ObservedFrame, ...]:
        """Return the frame, and its text as a frame of its own: the last text may come with the reason of the end.

        The text of an end may also be the whole text. Unless the message has another one, the frame states it as both.
        """
        if frame.kind == "started":
            return frame, replace(frame, kind="text")
        return replace(frame, kind="text", whole=frame.text if frame.whole in (None, frame.text) else None), frame

    def _set_named(self, frame: ObservedFrame, value: Mapping[str, Any]) -> None:
        for field, name in self._names:
            found = value.get(name)
            if type(found) is str and field in IDS:
                setattr(frame, field, found or None)
            elif found is not None:
                _set(frame, field, found)

    def _begun(self, theirs: str) -> str:
        return next((kind for start, kind in self._starts if theirs.startswith(start)), "other")


def without_prefix(text: str, prefix: str) -> str:
    """Return the text after the prefix, without the digits before JSON.

    Socket.IO puts the number of an acknowledgement there. Digits before any other text belong to the text.
    """
    rest = text.removeprefix(prefix)
    data = rest.lstrip("0123456789") if prefix else rest
    return data if data == rest or isinstance(decode_text(data), dict | list) else rest


def _number(value: object) -> int | None:
    """Return a position, which some protocols send as text, or None."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
        return int(value)
    return value if type(value) is int else None


def decoded(text: str) -> Any:
    """Decode JSON. Any other text becomes the field TEXT. A JSON string is also text, as some backends send pieces."""
    value = decode_text(text)
    if isinstance(value, str) and value.startswith('"'):
        with suppress(ValueError):
            value = decode_json(value)
    return {TEXT: value} if isinstance(value, str) else value


def _set(frame: ObservedFrame, field: str, found: Any) -> None:
    if field in IDS:
        if found != "" and (isinstance(found, str) or type(found) is int):
            setattr(frame, field, str(found))
    elif field == "position":
        frame.position = _number(found)
    elif field == "text":
        frame.text = found if isinstance(found, str) else None
    elif (field == "args") == (frame.kind in ("tool", "tool_end") or frame.call is not None):
        frame.whole = found
