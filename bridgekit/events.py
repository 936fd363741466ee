"""The events that agents emit, the frames that clients read, and the receipts that the bridge returns.

Each event becomes one JSON text frame. Encoding and decoding do no I/O.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Awaitable, Generator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Final

import msgspec

from bridgekit.errors import FrameTooLarge, MalformedFrame, PayloadError
from bridgekit.event_types import CRITICAL, END_EVENTS, POLICIES, EventType, Policy, define_event_type
from bridgekit.ids import RunId, ThreadId, new_id
from bridgekit.payload_encoding import MAX_DEPTH, apply_hook, encode_json, explain, find_depth, find_problem

__all__ = [
    "CRITICAL",
    "END_EVENTS",
    "FRAME_BYTES",
    "POLICIES",
    "AgentEvent",
    "Answer",
    "ConcatenatedFrame",
    "EventType",
    "Frame",
    "Outcome",
    "Payload",
    "Policy",
    "Receipt",
    "RoutedEvent",
    "TextDelta",
    "concatenate",
    "decode",
    "decode_frame",
    "define_event_type",
    "encode",
    "encode_unnumbered",
    "numbered",
    "renumber",
    "text_delta",
]

FRAME_BYTES: Final = 1_048_576
"""Size limit of a frame, in bytes of UTF-8."""


Payload = Mapping[str, object]
"""A JSON object. Encoding the event raises PayloadError for a value that JSON cannot represent."""


_now: Final = partial(datetime.now, UTC)


class AgentEvent(msgspec.Struct, kw_only=True):
    """An emitted event. The order of the fields is that of the wire format.

    The event is mutable because the thread's log sets `seq` just before it encodes the event.
    """

    seq: int = 0
    """`seq` is 0 until the thread's log assigns a number."""
    type: EventType
    thread_id: ThreadId | None = None
    """The thread of the run's context, or None if the caller knows only the run id."""
    run_id: RunId
    agent_name: str
    event_id: str = msgspec.field(default_factory=new_id)
    timestamp: datetime = msgspec.field(default_factory=_now)
    """The time of emission, in UTC. It never changes afterwards."""
    payload: Payload


class RoutedEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event as a client receives it, with exactly the fields of the wire format."""

    seq: int
    """The event's number within its thread. The log numbers events from 1. The log skips numbers only if events are
    lost or may be lost."""
    first_seq: int | None = None
    """Set only in a concatenated event, which represents the events `first_seq` to `seq`. A concatenated event has the
    id and time of its last event."""
    type: EventType
    thread_id: ThreadId
    run_id: RunId
    agent_name: str
    event_id: str
    timestamp: Annotated[datetime, msgspec.Meta(tz=True)]
    payload: dict[str, object]


class Frame(msgspec.Struct, frozen=True, gc=False):
    """An encoded event, shared by all sockets that receive it, with the fields that an outbox needs."""

    seq: int
    type: EventType
    run_id: RunId
    data: bytes
    """The event in the wire format, as UTF-8 JSON."""
    published_at: float = 0.0
    """The time of publication in seconds, by the clock of the log that holds the frame in memory."""

    @property
    def event(self) -> RoutedEvent:
        """The decoded event. Each access to this property decodes the frame again."""
        return decode(self.data, limit_bytes=len(self.data))


class ConcatenatedFrame(Frame, frozen=True, gc=False, kw_only=True):
    """The frame of adjacent events that an outbox joined into one event."""

    first_seq: int


class TextDelta(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The payload of an event with the policy CONCATENATE: the next piece of a message's text."""

    message_id: str
    delta: str


class _DeltaFrame(msgspec.Struct):
    payload: TextDelta


_decode_delta_frame: Final = msgspec.json.Decoder(_DeltaFrame).decode


def text_delta(frame: Frame) -> TextDelta | None:
    """Return the payload of a frame that may be concatenated, and None for any other frame."""
    if POLICIES.get(frame.type) is not Policy.CONCATENATE:
        return None
    try:
        return _decode_delta_frame(frame.data).payload
    except msgspec.DecodeError:
        return None


def concatenate(first_seq: int, last: Frame, delta: str) -> ConcatenatedFrame:
    """Return one frame, with the text `delta`, for a message's adjacent events from `first_seq` to `last`."""
    event = last.event
    joined = msgspec.structs.replace(event, first_seq=first_seq, payload=event.payload | {"delta": delta})
    return ConcatenatedFrame(last.seq, last.type, last.run_id, _encode(joined), first_seq=first_seq)


class _FrameHead(msgspec.Struct):
    seq: int
    type: EventType
    run_id: RunId


_decode_frame_head: Final = msgspec.json.Decoder(_FrameHead).decode


def decode_frame(data: bytes) -> Frame:
    """Return the frame of an event that a store holds in the wire format. Raises msgspec.DecodeError if the data has
    another format."""
    head = _decode_frame_head(data)
    return Frame(head.seq, head.type, head.run_id, data)


class Outcome(enum.StrEnum):
    """What happened to an event when it was published."""

    SENT = "sent"
    """Sockets of this process accepted the event."""
    RELAYED = "relayed"
    """The event is in the thread's log, and the store passed it to the workers that have sockets of the thread."""
    NO_SUBSCRIBER = "no subscriber"
    """No socket is subscribed to the thread. The log may retain the event: see `Receipt.kept`."""
    PENDING = "pending"
    """The store did not answer in time. The event is queued in this process, in order, until the store answers."""
    UNROUTABLE = "unroutable"
    """No thread was found for the event's run, or the event carries a thread other than its run's."""
    REFUSED = "refused"
    """The event could not be encoded, published or stored. `Receipt.reason` states the reason."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """The result of publishing one event.

    A receipt is true only if a socket or a worker with sockets of the thread accepted the event.

    `await receipt` returns the receipt itself, so callers can await the result of every publishing method.
    """

    outcome: Outcome
    sockets: int = 0
    """The number of sockets of this process that accepted the frame."""
    workers: int = 0
    """The number of workers that accepted the event for their sockets. Only a shared store reports this number."""
    kept: bool = False
    """True if the thread's log retains the event for clients that resume in time. The store determines which failures
    the log survives."""
    thread_id: ThreadId | None = None
    seq: int | None = None
    epoch: str | None = None
    """The epoch of `seq`, which is new each time that the numbering of the thread restarts."""
    link: int | None = None
    """The link (7 to 10) at which an undelivered event stopped or waits."""
    reason: str = ""

    @property
    def lost(self) -> bool:
        """True if no client received the event and no client can receive it later."""
        return not (self or self.kept or self.outcome is Outcome.PENDING)

    def __bool__(self) -> bool:
        match self.outcome:
            case Outcome.SENT:
                return self.sockets > 0
            case Outcome.RELAYED:
                return self.workers > 0
        return False

    def __await__(self) -> Generator[Any, Any, Receipt]:
        yield from ()  # A receipt is complete, so awaiting it never suspends the caller.
        return self


Answer = Receipt | Awaitable[Receipt]
"""The return type of each publishing method: the receipt itself, or an awaitable that returns it."""


_encode: Final = encode_json
_encode_known: Final = msgspec.json.Encoder().encode
"""Raises TypeError for a value that `convert` would have to convert."""
_decoder: Final = msgspec.json.Decoder(RoutedEvent)

_SEQ_DIGITS: Final = 19
"""The frame limit reserves 19 digits for `seq`, enough for any number of 63 bits."""
_PLAIN: Final = frozenset({str, int, bool, type(None)})
_all_plain: Final = _PLAIN.issuperset
_all_strings: Final = frozenset({str}).issuperset


def encode(event: AgentEvent | RoutedEvent, limit_bytes: int = FRAME_BYTES) -> bytes:  # noqa: C901  # the hot path
    """Encode an event as UTF-8 JSON.

    JSON has fewer types than Python: bytes become base64 strings, dates become ISO 8601 strings, Decimals and numeric
    keys become strings, and sets and tuples become arrays. Subclasses are encoded as their bases. `limit_bytes` applies
    to the frame's size with a `seq` of 19 digits, so that the limit does not depend on `seq`. Raises PayloadError if
    JSON cannot represent a value unchanged, or if the value's class raises an error. Raises FrameTooLarge if the frame
    exceeds `limit_bytes`. Does not catch KeyboardInterrupt and SystemExit.
    """
    payload = event.payload
    try:
        if type(payload) is not dict or type(event) is not AgentEvent:
            event = _as_plain_event(event)
        try:
            data = _encode_known(event)
        except TypeError:
            # Converting a value runs Python code, during which other threads may change a list. The encoder would then
            # read freed memory, so it gets a copy.
            copied: Payload = apply_hook(lambda value: value, event.payload)
            data = _encode(msgspec.structs.replace(event, payload=copied))
        # Most payloads need no `_check`: they hold only strings, numbers, booleans and null, at most one level deep and
        # under keys that are strings.
        for key, value in event.payload.items():
            kind = type(value)
            if type(key) is not str:
                break
            if kind not in _PLAIN:
                if kind is dict:
                    if not _all_plain(map(type, value.values())) or not _all_strings(map(type, value)):  # type: ignore[attr-defined, call-overload]  # a dict
                        break
                elif kind is float:
                    if not math.isfinite(value):  # type: ignore[arg-type]  # it is a float
                        break
                elif kind is not list or not _all_plain(map(type, value)):  # type: ignore[call-overload]  # a list
                    break
        else:
            if (
                event.timestamp.tzinfo is UTC
                and len(data) <= limit_bytes - _SEQ_DIGITS
                and event.run_id.__class__ is event.agent_name.__class__ is event.event_id.__class__ is str
            ):
                return data
        _check(event, data)
    except PayloadError:
        raise
    except Exception as error:  # the code of a value's class may raise any error
        raise PayloadError(event.type, explain(error, payload)) from error
    if (size := len(data) - len(str(event.seq)) + _SEQ_DIGITS) > limit_bytes:
        raise FrameTooLarge(f"{event.type} of run {event.run_id!r}", size, limit_bytes)
    return data


def encode_unnumbered(event: AgentEvent, limit_bytes: int = FRAME_BYTES) -> bytes:
    """Encode an event without its `seq`, for a log that assigns `seq` elsewhere. Raises the same errors as `encode`.

    `numbered(seq, tail)` completes the frame.
    """
    seq, event.seq = event.seq, 0
    try:
        return encode(event, limit_bytes)[len(b'{"seq":0') :]
    finally:
        event.seq = seq


def numbered(seq: int, tail: bytes) -> bytes:
    """Add `seq` to an event that `encode_unnumbered` encoded, and return the complete frame."""
    return b'{"seq":%d%b' % (seq, tail)


def renumber(event: AgentEvent, data: bytes, seq: int) -> bytes:
    """Give an event that `encode` encoded as `data` another `seq`, because a value's own code has published events
    meanwhile."""
    tail = data[len(b'{"seq":%d' % event.seq) :]
    event.seq = seq
    return numbered(seq, tail)


def _as_plain_event(event: AgentEvent | RoutedEvent) -> AgentEvent:
    """Copy the event with its payload as a dict, and without the fields that a subclass adds."""
    if not isinstance(event.payload, Mapping):
        raise PayloadError(event.type, f"must be a JSON object, not {type(event.payload).__name__}")
    fields = {name: getattr(event, name) for name in AgentEvent.__struct_fields__}
    return AgentEvent(**fields | {"payload": dict(event.payload)})


def _check(event: AgentEvent | RoutedEvent, data: bytes) -> None:
    """Reject values that the encoder would change silently or copy unchecked.

    The encoder writes NaN and the infinities as null, and can write two different Python keys as the same JSON key. The
    encoder copies encoded JSON (`msgspec.Raw`) unchecked, so such a value could forge fields of the frame.
    """
    for name in ("run_id", "agent_name", "event_id"):
        if not isinstance(value := getattr(event, name), str):
            raise PayloadError(event.type, f"its {name} must be a string, not {type(value).__name__}")
    if event.timestamp.utcoffset() is None:
        raise PayloadError(event.type, "its timestamp has no time zone")
    payload = _decode_any(data)["payload"]
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and (problem := find_depth(payload)):
        raise PayloadError(event.type, problem)
    if payload == event.payload:
        return  # the usual case: nested values of JSON's own types
    if problem := find_problem(event.payload):
        raise PayloadError(event.type, problem)


_decode_any: Final = msgspec.json.Decoder().decode


def decode(data: str | bytes, *, limit_bytes: int = FRAME_BYTES) -> RoutedEvent:
    """Decode one event frame.

    Raises FrameTooLarge if the frame exceeds `limit_bytes`, and MalformedFrame if it is not an event.
    """
    try:
        size = len(data.encode()) if isinstance(data, str) else len(data)
        if size > limit_bytes:
            raise FrameTooLarge("incoming frame", size, limit_bytes)
        event = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise MalformedFrame(str(error)) from error
    if event.seq < 1:
        raise MalformedFrame(f"seq must be at least 1, not {event.seq}")
    if event.first_seq is not None and not 1 <= event.first_seq <= event.seq:
        raise MalformedFrame(f"first_seq must be from 1 to {event.seq}, not {event.first_seq}")
    return event
