"""Signals: frames that state where a subscription starts or which events are missing."""

from __future__ import annotations

import enum
import re
from typing import Annotated, Final, NamedTuple

import msgspec

from bridgekit.errors import FrameTooLarge, InvalidId, MalformedFrame
from bridgekit.events import FRAME_BYTES, RoutedEvent, decode
from bridgekit.ids import ThreadId

__all__ = ["START", "Cursor", "Gap", "GapReason", "Signal", "Subscribed", "cursor", "decode_any", "encode_signal"]


class Cursor(NamedTuple):
    """A client's position in a thread: up to `seq`, the client has read every event or was sent a gap."""

    epoch: str
    """The epoch of `seq`: 16 hexadecimal digits, chosen at random each time that numbering restarts."""
    seq: int


START: Final = Cursor("start", 0)
"""The cursor of a client that has read no event and requests every retained event. It names no epoch."""

_EPOCH = re.compile("[0-9a-f]{16}")
_SEQ_DIGITS: Final = 18
"""Every number with at most 18 digits fits into 63 bits."""


def cursor(epoch: object, seq: object) -> Cursor:
    """Check the syntax of a client's epoch and seq, and return them as a Cursor. Raises InvalidId."""
    if not isinstance(epoch, str) or not _EPOCH.fullmatch(epoch):
        raise InvalidId("epoch", "must be the 16 hexadecimal digits that the server sent")
    text = str(seq)
    if not (text.isascii() and text.isdecimal() and len(text) <= _SEQ_DIGITS):
        raise InvalidId("seq", f"must be a whole number from 0, in at most {_SEQ_DIGITS} decimal digits")
    return Cursor(epoch, int(text))


class Subscribed(msgspec.Struct, frozen=True, tag_field="type", tag="subscribed"):
    """The first frame on every socket.

    After this frame, the client gets each later event of the thread once and in order, or a gap in the event's place.
    """

    thread_id: ThreadId
    epoch: str
    seq: Annotated[int, msgspec.Meta(ge=0)]

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.epoch, self.seq)


class GapReason(enum.StrEnum):
    """Why a client does not get the events of a gap."""

    COALESCED = "coalesced"
    """The socket was slow, and later events of the same run and type superseded the missing events. No recovery is
    needed."""
    EXPIRED = "expired"
    """The thread's log no longer retains the events."""
    RESTARTED = "restarted"
    """The log was lost, and its thread began a new epoch."""
    LOST = "lost"
    """The store assigned a `seq` to each of the events, but then lost them or could not store them."""


class Gap(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="gap", rename={"first": "from", "last": "to"}
):
    """A range of events that the client will not get. The bounds, `from` and `to` in JSON, are inclusive."""

    thread_id: ThreadId
    epoch: str
    """The epoch of `first` and `last`."""
    first: Annotated[int, msgspec.Meta(ge=1)]
    last: int | None
    """The `seq` of the last missing event. None if this number is unknown: the gap then extends to the end of the
    epoch."""
    reason: GapReason

    def __contains__(self, seq: int) -> bool:
        return self.first <= seq and (self.last is None or seq <= self.last)


Signal = Subscribed | Gap

_encoder: Final = msgspec.json.Encoder()
_signals: Final[msgspec.json.Decoder[Signal]] = msgspec.json.Decoder(Signal)


class _FrameType(msgspec.Struct):
    type: str


_frame_types: Final = msgspec.json.Decoder(_FrameType)
_SIGNALS: Final = frozenset({"subscribed", "gap"})


def encode_signal(signal: Signal) -> bytes:
    """Encode a signal as UTF-8 JSON."""
    return _encoder.encode(signal)


def decode_any(data: str | bytes) -> RoutedEvent | Signal:
    """Decode any frame that a server sends: an event or a signal.

    Raises FrameTooLarge if the frame exceeds FRAME_BYTES, and MalformedFrame if it is neither event nor signal.
    """
    try:
        if len(data) > FRAME_BYTES:
            raise FrameTooLarge("incoming frame", len(data), FRAME_BYTES)
        if _frame_types.decode(data).type in _SIGNALS:
            return _signals.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise MalformedFrame(str(error)) from error
    return decode(data)
