"""What a server says to a socket besides events: where its stream begins, and which events it will not get."""

from __future__ import annotations

import enum
import re
from typing import Annotated, Final, NamedTuple

import msgspec

from bridgekit.errors import FrameTooLarge, InvalidId, MalformedFrame
from bridgekit.events import FRAME_BYTES, RoutedEvent, decode
from bridgekit.ids import ThreadId

__all__ = ["Cursor", "Gap", "GapReason", "Signal", "Subscribed", "cursor", "decode_any", "encode_signal"]


class Cursor(NamedTuple):
    """How far a reader of a thread has come: every event up to `seq` was read, or was told to be missing."""

    epoch: str
    """Which numbering `seq` belongs to: 16 hexadecimal digits, drawn anew whenever numbering starts anew."""
    seq: int


_EPOCH = re.compile("[0-9a-f]{16}")
_SEQ_DIGITS: Final = 18
"""Every number of so many digits fits into 63 bits."""


def cursor(epoch: object, seq: object) -> Cursor:
    """Check a cursor from outside: an epoch as it was told, and a number in decimal digits; else InvalidId."""
    if not isinstance(epoch, str) or not _EPOCH.fullmatch(epoch):
        raise InvalidId("epoch", "must be the 16 hexadecimal digits that the server sent")
    text = str(seq)
    if not (text.isascii() and text.isdecimal() and len(text) <= _SEQ_DIGITS):
        raise InvalidId("seq", "must be a whole number from 0")
    return Cursor(epoch, int(text))


class Subscribed(msgspec.Struct, frozen=True, tag_field="type", tag="subscribed"):
    """The first frame of every socket: from now on it gets each event of the thread after `seq`, in order, once."""

    thread_id: ThreadId
    epoch: str
    seq: Annotated[int, msgspec.Meta(ge=0)]

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.epoch, self.seq)


class GapReason(enum.StrEnum):
    """Why a socket does not get some events."""

    COALESCED = "coalesced"
    """The socket was slow, and later events of the same run and type stand for these. Nothing to make up for."""
    EXPIRED = "expired"
    """The thread's log does not reach back so far."""
    RESTARTED = "restarted"
    """The log was lost, and numbering began anew."""
    LOST = "lost"
    """The events were given numbers, and the store lost them or could not take them."""


class Gap(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="gap", rename={"first": "from", "last": "to"}
):
    """Events of the thread that this socket will not get: on the wire `from` and `to`, both inclusive."""

    thread_id: ThreadId
    epoch: str
    """The numbering that `first` and `last` belong to."""
    first: Annotated[int, msgspec.Meta(ge=1)]
    last: int | None
    """None where nobody can say how many: everything from `first` to the end of that numbering."""
    reason: GapReason

    def __contains__(self, seq: int) -> bool:
        return self.first <= seq and (self.last is None or seq <= self.last)


Signal = Subscribed | Gap

_encoder: Final = msgspec.json.Encoder()
_signals: Final[msgspec.json.Decoder[Signal]] = msgspec.json.Decoder(Signal)


class _Head(msgspec.Struct):
    type: str


_heads: Final = msgspec.json.Decoder(_Head)
_SIGNALS: Final = frozenset({"subscribed", "gap"})


def encode_signal(signal: Signal) -> bytes:
    """The signal as UTF-8 JSON."""
    return _encoder.encode(signal)


def decode_any(data: str | bytes) -> RoutedEvent | Signal:
    """Decode whatever a server sends; FrameTooLarge or MalformedFrame where it is none of it."""
    try:
        if len(data) > FRAME_BYTES:
            raise FrameTooLarge("incoming frame", len(data), FRAME_BYTES)
        if _heads.decode(data).type in _SIGNALS:
            return _signals.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise MalformedFrame(str(error)) from error
    return decode(data)
