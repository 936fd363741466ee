"""Frames as somebody recorded them: events of ours, or whatever was decoded from JSON, with what is wrong with each.

A recording may come from another backend, so nothing about a frame is believed. What it lacks is noted, not raised.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from bridgekit.events import EventType, RoutedEvent
from bridgekit.ids import RunId, ThreadId

__all__ = ["Recorded", "ParsedFrame", "read"]

Recorded = RoutedEvent | Mapping[str, object] | tuple[RoutedEvent | Mapping[str, object], float]
"""A frame, alone or with the moment at which it was read, in seconds since the epoch."""

CONFIRMATION: Final = "subscribed"
"""A socket's first frame confirms the subscription and is no event: it is passed over."""

ENVELOPE: Final = ("type", "thread_id", "run_id", "agent_name", "seq", "event_id", "timestamp", "payload")
TYPES: Final = {event_type.value: event_type for event_type in EventType}
REQUIRED_TEXTS: Final[Mapping[EventType, tuple[str, ...]]] = {
    EventType.AGENT_THINKING: ("reasoning",),
    EventType.TOOL_EXECUTING: ("tool_call_id", "tool_name"),
    EventType.TOOL_COMPLETED: ("tool_call_id", "tool_name"),
    EventType.AGENT_ERROR: ("error_message",),
}
"""What a payload must say as a text. The rest of a payload is the agent's own business."""
MAX_LINE_CHARACTERS: Final = 110


@dataclass(frozen=True, slots=True)
class ParsedFrame:
    """One frame, as far as it can be understood: a field that is missing or of a wrong type is None."""

    place: int
    """Which frame of the recording, from 1."""
    type: EventType | None
    thread_id: ThreadId | None
    run_id: RunId | None
    seq: int | None
    event_id: str | None
    emitted_at: float | None
    read_at: float | None
    """Both in seconds since the epoch."""
    payload: Mapping[str, object]
    faults: tuple[str, ...]
    """What is wrong with its fields."""
    raw: object
    """The frame as it was recorded."""

    @property
    def line(self) -> str:
        """The frame in one line, for people."""
        frame = _fields(self.raw)
        if frame is None:
            return _cut(repr(self.raw))
        return _cut(f"seq {frame.get('seq', '?')}  {frame.get('type', '?')}  {frame.get('payload', '?')!r}")

    def text(self, name: str) -> str | None:
        """A text of the payload."""
        return _text(self.payload, name)


def read(events: Iterable[Recorded]) -> list[ParsedFrame]:
    """Read a recording; the confirmation of a subscription is counted as a place and left out."""
    seen = []
    for place, recorded in enumerate(events, 1):
        raw, read_at = recorded if isinstance(recorded, tuple) else (recorded, None)
        frame = _fields(raw)
        if frame is None:
            seen.append(_nothing(place, raw, read_at))
        elif frame.get("type") != CONFIRMATION:
            seen.append(_seen(place, frame, read_at, raw))
    return seen


def _fields(raw: object) -> Mapping[str, object] | None:
    if isinstance(raw, RoutedEvent):
        return {name: getattr(raw, name) for name in ENVELOPE}
    return raw if isinstance(raw, Mapping) else None


def _nothing(place: int, raw: object, read_at: float | None) -> ParsedFrame:
    fault = f"the frame is no object but {type(raw).__name__}"
    return ParsedFrame(place, None, None, None, None, None, None, read_at, {}, (fault,), raw)


def _seen(place: int, frame: Mapping[str, object], read_at: float | None, raw: object) -> ParsedFrame:
    event_type, payload = _type(frame.get("type")), frame.get("payload")
    thread_id, run_id = _text(frame, "thread_id"), _text(frame, "run_id")
    return ParsedFrame(
        place=place,
        type=event_type,
        thread_id=None if thread_id is None else ThreadId(thread_id),
        run_id=None if run_id is None else RunId(run_id),
        seq=_seq(frame.get("seq")),
        event_id=_text(frame, "event_id"),
        emitted_at=_moment(frame.get("timestamp")),
        read_at=read_at,
        payload=payload if isinstance(payload, Mapping) else {},
        faults=tuple(_faults(frame, event_type)),
        raw=raw,
    )


def _faults(frame: Mapping[str, object], event_type: EventType | None) -> Iterator[str]:
    understood = {
        "type": event_type,
        "seq": _seq(frame.get("seq")),
        "timestamp": _moment(frame.get("timestamp")),
        "payload": frame.get("payload") if isinstance(frame.get("payload"), Mapping) else None,
    }
    for name in ENVELOPE:
        if name not in frame:
            yield f"the field {name} is missing"
        elif (understood[name] if name in understood else _text(frame, name)) is None:
            yield f"the field {name} is {_cut(repr(frame[name]), 40)}"
    payload = understood["payload"]
    if isinstance(payload, Mapping) and event_type is not None:
        for name in REQUIRED_TEXTS.get(event_type, ()):
            if _text(payload, name) is None:
                yield f"the payload of {event_type} says no {name}"


def _type(value: object) -> EventType | None:
    return TYPES.get(value) if isinstance(value, str) else None


def _seq(value: object) -> int | None:
    # JSON's true is an int to Python.
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 1 else None


def _text(fields: Mapping[str, object], name: str) -> str | None:
    value = fields.get(name)
    return value if isinstance(value, str) and value else None


def _moment(value: object) -> float | None:
    """Seconds since the epoch; a time that does not say its zone is no moment."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return None
    return moment.timestamp() if isinstance(moment, datetime) and moment.tzinfo is not None else None


def _cut(text: str, characters: int = MAX_LINE_CHARACTERS) -> str:
    return text if len(text) <= characters else f"{text[: characters - 1]}…"
