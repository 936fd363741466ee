"""The words of the wire: what an agent emits, what a browser reads, and what the sender is told.

One JSON text frame per event. Encoding and decoding are pure and raise only errors of `bridgekit.errors`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec

from bridgekit import finite
from bridgekit.errors import FrameTooLarge, MalformedFrame, PayloadError, UnknownEventType
from bridgekit.ids import RunId, ThreadId, new_id
from bridgekit.payloads import Payload

__all__ = [
    "COALESCIBLE",
    "CRITICAL",
    "FRAME_BYTES",
    "MUST_DELIVER",
    "AgentEvent",
    "Draft",
    "EventType",
    "Frame",
    "Outcome",
    "Receipt",
    "RoutedEvent",
    "decode",
    "draft",
    "encode",
    "event_type",
]

FRAME_BYTES: Final = 1_048_576
"""Largest frame, in bytes of its UTF-8 text."""


class EventType(enum.StrEnum):
    """The seven types; the first five are the audit's critical events."""

    AGENT_STARTED = "agent_started"
    AGENT_THINKING = "agent_thinking"
    TOOL_EXECUTING = "tool_executing"
    TOOL_COMPLETED = "tool_completed"
    AGENT_COMPLETED = "agent_completed"
    AGENT_ERROR = "agent_error"
    PROGRESS_UPDATE = "progress_update"


CRITICAL: Final = tuple(EventType)[:5]
COALESCIBLE: Final = frozenset({EventType.AGENT_THINKING, EventType.PROGRESS_UPDATE})
"""Under pressure the latest of these stands for the earlier ones."""
MUST_DELIVER: Final = frozenset(EventType) - COALESCIBLE


def event_type(value: object) -> EventType:
    """Check an event type from outside; UnknownEventType names the known ones."""
    try:
        return EventType(value)  # type: ignore[arg-type]  # the enum's own lookup refuses what is no text
    except ValueError:
        raise UnknownEventType("event type", value, tuple(EventType)) from None


def _now() -> datetime:
    return datetime.now(UTC)


class AgentEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent emits. Where it carries its thread, these fields are the wire format but for the number."""

    type: EventType
    thread_id: ThreadId | None = None
    """Carried from the run's context where there is one; None from a caller who has nothing but a run id."""
    run_id: RunId
    agent_name: str
    event_id: str = msgspec.field(default_factory=new_id)
    timestamp: datetime = msgspec.field(default_factory=_now)
    """The moment of emission. Nobody overwrites it."""
    payload: Payload


class RoutedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event that has its place in a thread: exactly the wire format, field by field."""

    seq: int
    """Counts within the thread, from 1, without gaps."""
    type: EventType
    thread_id: ThreadId
    run_id: RunId
    agent_name: str
    event_id: str
    timestamp: Annotated[datetime, msgspec.Meta(tz=True)]
    payload: dict[str, object]


class Frame(msgspec.Struct, frozen=True, gc=False):
    """An event encoded once, however many sockets read it, and what a socket's outbox must know of it."""

    seq: int
    type: EventType
    run_id: RunId
    data: bytes
    """The wire format, as UTF-8 JSON."""

    @property
    def event(self) -> RoutedEvent:
        """The event, decoded anew."""
        return decode(self.data, limit_bytes=len(self.data))


class Draft(msgspec.Struct, frozen=True, gc=False):
    """An event that is encoded but for its number, which is given where the thread's log is kept."""

    thread_id: ThreadId
    type: EventType
    run_id: RunId
    rest: bytes
    """The wire format behind the number and its comma."""

    def frame(self, seq: int) -> Frame:
        """The event as number `seq` of its thread."""
        return Frame(seq, self.type, self.run_id, b'{"seq":%d,%b' % (seq, self.rest))

    @property
    def around(self) -> tuple[bytes, bytes]:
        """The wire format before the number and after it, for who gives it elsewhere."""
        return b'{"seq":', b"," + self.rest


class Outcome(enum.StrEnum):
    """The honest answers to "was it sent?"."""

    SENT = "sent"
    """Sockets of this process took it."""
    RELAYED = "relayed"
    """It is in the thread's log, and workers that hold sockets of the thread were given it."""
    NOBODY_LISTENING = "nobody listening"
    PENDING = "pending"
    """The store did not answer in time. The event waits here, in order, until it does."""
    UNROUTABLE = "unroutable"
    REFUSED = "refused"


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What the bridge answers to one event. True only when a socket took it, or a worker for its sockets."""

    outcome: Outcome
    sockets: int = 0
    """How many sockets of this process took the frame."""
    workers: int = 0
    """How many workers took it for their sockets; only a store that workers share knows."""
    kept: bool = False
    """Whether it is in the thread's log, for who resumes in time. What the log survives is its store's promise."""
    thread_id: ThreadId | None = None
    seq: int | None = None
    epoch: str | None = None
    """Which numbering of the thread `seq` belongs to."""
    link: int | None = None
    """The link at which an undelivered event stopped, 7 to 10."""
    reason: str = ""

    def __bool__(self) -> bool:
        match self.outcome:
            case Outcome.SENT:
                return self.sockets > 0
            case Outcome.RELAYED:
                return self.workers > 0
        return False


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(RoutedEvent)


def encode(event: RoutedEvent, *, limit_bytes: int = FRAME_BYTES) -> Frame:
    """Encode an event as UTF-8 JSON; PayloadError or FrameTooLarge where it cannot go over the wire.

    JSON has fewer types than Python: bytes become base64, dates ISO 8601, sets and tuples arrays, number keys texts.
    """
    return Frame(event.seq, event.type, event.run_id, _encoded(event, limit_bytes))


_NUMBER_BYTES: Final = len('"seq":,') + 19
"""Room for the number: 19 digits are enough for any of 63 bits."""


def draft(event: AgentEvent, thread_id: ThreadId, *, limit_bytes: int = FRAME_BYTES) -> Draft:
    """Encode an event of that thread, but for its number; raises as `encode` does."""
    if type(event.payload) is not dict or event.thread_id != thread_id or type(event) is not AgentEvent:
        event = _routed(event, thread_id)
    return Draft(thread_id, event.type, event.run_id, _encoded(event, limit_bytes - _NUMBER_BYTES)[1:])


def _routed(event: AgentEvent, thread_id: ThreadId) -> AgentEvent:
    """The event as it can be encoded: with its thread, with a payload that the encoder knows, and with nothing more."""
    if not isinstance(event.payload, Mapping):
        raise PayloadError(event.type, f"must be a JSON object, not {type(event.payload).__name__}")
    return AgentEvent(
        type=event.type,
        thread_id=thread_id,
        run_id=event.run_id,
        agent_name=event.agent_name,
        event_id=event.event_id,
        timestamp=event.timestamp,
        payload=dict(event.payload),
    )


def _encoded(event: AgentEvent | RoutedEvent, limit_bytes: int) -> bytes:
    try:
        if event.timestamp.tzinfo is not UTC and event.timestamp.utcoffset() is None:
            raise PayloadError(event.type, "its timestamp has no time zone")
        data = _encoder.encode(event)
        # NaN and the infinities leave the encoder as null, and JSON that somebody else has encoded (`msgspec.Raw`)
        # leaves it unread. The latter is refused here: it could say anything, in the frame's own name.
        path = None
        if finite.doubtful(event.payload.values()):
            plain = msgspec.to_builtins(event.payload)
            if b"null" in data:
                path = finite.where_not(plain)
    except (AttributeError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise PayloadError(event.type, f"JSON cannot carry it: {error}") from error
    if path:
        raise PayloadError(event.type, f"JSON has no number for {path}")
    if len(data) > limit_bytes:
        raise FrameTooLarge(f"{event.type} of run {event.run_id!r}", len(data), limit_bytes)
    return data


def decode(data: str | bytes, *, limit_bytes: int = FRAME_BYTES) -> RoutedEvent:
    """Decode one frame; FrameTooLarge or MalformedFrame where it is not an event."""
    try:
        size = len(data.encode()) if isinstance(data, str) else len(data)
        if size > limit_bytes:
            raise FrameTooLarge("incoming frame", size, limit_bytes)
        event = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise MalformedFrame(str(error)) from error
    if event.seq < 1:
        raise MalformedFrame(f"seq counts from 1, not {event.seq}")
    return event
