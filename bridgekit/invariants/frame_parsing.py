"""Parses recorded frames, which may be `RoutedEvent`s or decoded JSON, and lists the problems of each frame.

A recording may come from another backend, so the parser validates each field. The parser lists an invalid field as a
problem and raises no error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from bridgekit.events import POLICIES, EventType, RoutedEvent
from bridgekit.ids import RunId, ThreadId

__all__ = ["ParsedFrame", "Recorded", "read"]

Recorded = RoutedEvent | Mapping[str, object] | tuple[RoutedEvent | Mapping[str, object], float]
"""A frame, alone or with the time at which it was read, in seconds since the Unix epoch."""

CONFIRMATION: Final = "subscribed"
"""The type of a socket's first frame, which confirms the subscription. The parser skips confirmations, because they are
not events."""

ENVELOPE: Final = ("type", "thread_id", "run_id", "agent_name", "seq", "event_id", "timestamp", "payload")
REQUIRED_TEXTS: Final[Mapping[EventType, tuple[str, ...]]] = {
    EventType.AGENT_THINKING: ("reasoning",),
    EventType.TOOL_EXECUTING: ("tool_call_id", "tool_name"),
    EventType.TOOL_COMPLETED: ("tool_call_id", "tool_name"),
    EventType.AGENT_ERROR: ("error_message",),
    EventType.TEXT_DELTA: ("message_id",),
}
"""The payload fields of each event type that must be non-empty strings. Other payload fields are not checked."""
MAX_LINE_CHARACTERS: Final = 110


@dataclass(frozen=True, slots=True)
class ParsedFrame:
    """One recorded frame. A missing or invalid field is None, except that `payload` is empty and `first_seq` equals
    `seq`."""

    position: int
    """The frame's number in the recording, from 1."""
    type: EventType | None
    thread_id: ThreadId | None
    run_id: RunId | None
    seq: int | None
    first_seq: int | None
    """The `seq` of the first event that the frame represents, which is lower than `seq` only if events were
    concatenated."""
    event_id: str | None
    emitted_at: float | None
    read_at: float | None
    """The time of reading, like `emitted_at` in seconds since the Unix epoch."""
    payload: Mapping[str, object]
    problems: tuple[str, ...]
    """One sentence for each missing or invalid field."""
    raw: object
    """The frame as it was recorded."""

    @property
    def line(self) -> str:
        """A one-line summary of the frame for reports."""
        frame = _fields(self.raw)
        if frame is None:
            return _truncate(repr(self.raw))
        return _truncate(f"seq {frame.get('seq', '?')}  {frame.get('type', '?')}  {frame.get('payload', '?')!r}")

    def text(self, name: str) -> str | None:
        """Return a field of the payload if it is a non-empty string, otherwise None."""
        return _text(self.payload, name)


def read(events: Iterable[Recorded]) -> list[ParsedFrame]:
    """Parse a recording. Subscription confirmations count in the frames' positions, but the result does not contain
    them."""
    frames = []
    for position, recorded in enumerate(events, 1):
        raw, read_at = recorded if isinstance(recorded, tuple) else (recorded, None)
        fields = _fields(raw)
        if fields is None:
            frames.append(_not_an_object(position, raw, read_at))
        elif fields.get("type") != CONFIRMATION:
            frames.append(_parse(position, fields, read_at, raw))
    return frames


def _fields(raw: object) -> Mapping[str, object] | None:
    if isinstance(raw, RoutedEvent):
        fields = {name: getattr(raw, name) for name in ENVELOPE}
        return fields if raw.first_seq is None else {**fields, "first_seq": raw.first_seq}
    return raw if isinstance(raw, Mapping) else None


def _not_an_object(position: int, raw: object, read_at: float | None) -> ParsedFrame:
    problem = f"the frame is not a JSON object but {type(raw).__name__}"
    return ParsedFrame(position, None, None, None, None, None, None, None, read_at, {}, (problem,), raw)


def _parse(position: int, fields: Mapping[str, object], read_at: float | None, raw: object) -> ParsedFrame:
    event_type, payload = _type(fields.get("type")), fields.get("payload")
    thread_id, run_id, event_id = _text(fields, "thread_id"), _text(fields, "run_id"), _text(fields, "event_id")
    seq, emitted_at = _seq(fields.get("seq")), _unix_time(fields.get("timestamp"))
    parsed = {
        "type": event_type,
        "thread_id": thread_id,
        "run_id": run_id,
        "agent_name": _text(fields, "agent_name"),
        "seq": seq,
        "event_id": event_id,
        "timestamp": emitted_at,
        "payload": payload if isinstance(payload, Mapping) else None,
    }
    return ParsedFrame(
        position=position,
        type=event_type,
        thread_id=None if thread_id is None else ThreadId(thread_id),
        run_id=None if run_id is None else RunId(run_id),
        seq=seq,
        first_seq=_first_seq(fields, seq),
        event_id=event_id,
        emitted_at=emitted_at,
        read_at=read_at,
        payload=payload if isinstance(payload, Mapping) else {},
        problems=tuple(_problems(fields, parsed, event_type)),
        raw=raw,
    )


def _problems(
    fields: Mapping[str, object], parsed: Mapping[str, object], event_type: EventType | None
) -> Iterator[str]:
    for name, value in parsed.items():
        if name not in fields:
            yield f"the field {name} is missing"
        elif value is None:
            yield f"the field {name} is {_truncate(repr(fields[name]), 40)}"
    if "first_seq" in fields and fields["first_seq"] != _first_seq(fields, _seq(fields.get("seq"))):
        yield f"the field first_seq is {_truncate(repr(fields['first_seq']), 40)}"
    payload = parsed["payload"]
    if isinstance(payload, Mapping) and event_type is not None:
        for name in REQUIRED_TEXTS.get(event_type, ()):
            if _text(payload, name) is None:
                yield f"the payload of {event_type} has no {name}"


def _type(value: object) -> EventType | None:
    return EventType(value) if isinstance(value, str) and value in POLICIES else None


def _seq(value: object) -> int | None:
    # bool is a subclass of int in Python, so JSON's `true` must be excluded.
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 1 else None


def _first_seq(fields: Mapping[str, object], seq: int | None) -> int | None:
    first = _seq(fields.get("first_seq", seq))
    return first if first is not None and seq is not None and first <= seq else seq


def _text(fields: Mapping[str, object], name: str) -> str | None:
    value = fields.get(name)
    return value if isinstance(value, str) and value else None


def _unix_time(value: object) -> float | None:
    """Convert a timestamp to seconds since the Unix epoch. Return None for a value that is not a time or has no time
    zone."""
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return None
    return time.timestamp() if isinstance(time, datetime) and time.tzinfo is not None else None


def _truncate(text: str, characters: int = MAX_LINE_CHARACTERS) -> str:
    return text if len(text) <= characters else f"{text[: characters - 1]}…"
