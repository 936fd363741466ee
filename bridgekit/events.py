"""The words of the wire: what an agent emits, what a browser reads, and what the sender is told.

One JSON text frame per event. Encoding and decoding are pure and raise only errors of `bridgekit.errors`.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Awaitable, Generator, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Final

import msgspec

from bridgekit.errors import FrameTooLarge, MalformedFrame, PayloadError, UnknownEventType
from bridgekit.ids import RunId, ThreadId, new_id

__all__ = [
    "COALESCIBLE",
    "CRITICAL",
    "FRAME_BYTES",
    "MUST_DELIVER",
    "AgentEvent",
    "Answer",
    "EventType",
    "Frame",
    "Outcome",
    "Payload",
    "Receipt",
    "RoutedEvent",
    "decode",
    "encode",
    "encode_unnumbered",
    "event_type",
    "numbered",
]

FRAME_BYTES: Final = 1_048_576
"""Largest frame, in bytes of its UTF-8 text."""


Payload = Mapping[str, object]
"""A JSON object. Values are what JSON can carry; anything else is refused when the event is encoded."""


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


_now: Final = partial(datetime.now, UTC)


class AgentEvent(msgspec.Struct, kw_only=True):
    """An event on its way. Its fields, in this order, are the wire format.

    Not immutable, for one reason: the log of its thread assigns `seq`, so that the event is encoded once and whole.
    """

    seq: int = 0
    """0 until the log has assigned it."""
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
    published_at: float = 0.0
    """When, by the clock of the log that keeps it in memory."""

    @property
    def event(self) -> RoutedEvent:
        """The event, decoded anew."""
        return decode(self.data, limit_bytes=len(self.data))


class Outcome(enum.StrEnum):
    """The honest answers to "was it sent?"."""

    SENT = "sent"
    """Sockets of this process took it."""
    RELAYED = "relayed"
    """It is in the thread's log, and workers that hold sockets of the thread were given it."""
    NO_SUBSCRIBER = "nobody listening"
    PENDING = "pending"
    """The store did not answer in time. The event waits here, in order, until it does."""
    UNROUTABLE = "unroutable"
    REFUSED = "refused"


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What the bridge answers to one event. True only when a socket took it, or a worker for its sockets.

    `await receipt` gives the receipt: whoever emits can await the answer in any case.
    """

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

    def __await__(self) -> Generator[Any, Any, Receipt]:
        yield from ()  # awaiting it does not wait
        return self


Answer = Receipt | Awaitable[Receipt]
"""What each layer's method for one event returns: the receipt, or what gives it when it is awaited."""


_encode: Final = msgspec.json.Encoder().encode
_decoder: Final = msgspec.json.Decoder(RoutedEvent)

_SEQ_DIGITS: Final = 19
"""Room for the number in the frame limit, whatever it is: enough for any of 63 bits."""
_PLAIN: Final = frozenset({str, int, bool, type(None)})
_all_plain: Final = _PLAIN.issuperset


def encode(event: AgentEvent | RoutedEvent, limit_bytes: int = FRAME_BYTES) -> bytes:  # noqa: C901  # one call an event
    """Encode an event as UTF-8 JSON; PayloadError or FrameTooLarge where it cannot go over the wire.

    JSON has fewer types than Python: bytes become base64, dates ISO 8601, sets and tuples arrays, number keys texts.
    `limit_bytes` counts the frame with a number of 19 digits, so that the limit does not depend on the number.
    """
    payload = event.payload
    if type(payload) is not dict or type(event) is not AgentEvent:
        event = _plain(event)
    try:
        data = _encode(event)
        # What lies in a payload is text, whole numbers and truth values, mostly one level deep. All else is looked at.
        for value in event.payload.values():
            kind = type(value)
            if kind not in _PLAIN:
                if kind is dict:
                    if not _all_plain(map(type, value.values())):  # type: ignore[attr-defined]  # it is a dict
                        break
                elif kind is float:
                    if not math.isfinite(value):  # type: ignore[arg-type]  # it is a float
                        break
                elif kind is not list or not _all_plain(map(type, value)):  # type: ignore[call-overload]  # a list
                    break
        else:
            if event.timestamp.tzinfo is UTC and len(data) <= limit_bytes - _SEQ_DIGITS:
                return data
        _check(event, data)
    except (AttributeError, TypeError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, PayloadError):
            raise
        raise PayloadError(event.type, f"JSON cannot carry it: {error}") from error
    if (size := len(data) - len(str(event.seq)) + _SEQ_DIGITS) > limit_bytes:
        raise FrameTooLarge(f"{event.type} of run {event.run_id!r}", size, limit_bytes)
    return data


def encode_unnumbered(event: AgentEvent, limit_bytes: int = FRAME_BYTES) -> bytes:
    """Encode an event but for its number, for a log that assigns it elsewhere; raises as `encode` does.

    `numbered(seq, tail)` puts the two together.
    """
    seq, event.seq = event.seq, 0
    try:
        return encode(event, limit_bytes)[len(b'{"seq":0') :]
    finally:
        event.seq = seq


def numbered(seq: int, tail: bytes) -> bytes:
    """The frame of an event that was encoded without its number."""
    return b'{"seq":%d%b' % (seq, tail)


def _plain(event: AgentEvent | RoutedEvent) -> AgentEvent:
    """The event as it can be encoded: with a payload that the encoder knows, and with no fields of a subclass."""
    if not isinstance(event.payload, Mapping):
        raise PayloadError(event.type, f"must be a JSON object, not {type(event.payload).__name__}")
    return AgentEvent(
        seq=event.seq,
        type=event.type,
        thread_id=event.thread_id,
        run_id=event.run_id,
        agent_name=event.agent_name,
        event_id=event.event_id,
        timestamp=event.timestamp,
        payload=dict(event.payload),
    )


def _check(event: AgentEvent | RoutedEvent, data: bytes) -> None:
    """Look for what leaves the encoder as something else.

    NaN and the infinities leave it as null. JSON that somebody else has encoded (`msgspec.Raw`) leaves it unread: it
    could say anything, in the frame's own name, and `to_builtins` refuses it.
    """
    if event.timestamp.utcoffset() is None:
        raise PayloadError(event.type, "its timestamp has no time zone")
    plain = msgspec.to_builtins(event.payload)
    if b"null" in data and (path := _not_a_number(plain)):
        raise PayloadError(event.type, f"JSON has no number for {path}")


def _not_a_number(value: object, path: str = "payload") -> str | None:
    """Where in a payload a number stands that JSON does not have, or None."""
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{path} = {value}"
    children: Iterable[tuple[object, object]] = ()
    if isinstance(value, Mapping):
        children = value.items()
    elif isinstance(value, (list, tuple, set, frozenset)):
        children = enumerate(value)
    return next((found for key, child in children if (found := _not_a_number(child, f"{path}[{key!r}]"))), None)


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
