"""Threads' parcels as one command that goes out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct
from typing import Final

from bridgekit.events import Draft, EventType
from bridgekit.ids import RunId, ThreadId
from bridgekit.storage.redis_library import APPEND, Keys
from bridgekit.storage.redis_wire import number, word
from bridgekit.transport.broker.redis_backlog import Lane, Parcel

__all__ = ["appended", "head_of"]

_BEFORE, _BEHIND = Draft(ThreadId(""), EventType.AGENT_ERROR, RunId(""), b"").around
"""What stands before each event's number, and after it: the same for all."""
_AROUND: Final = word(_BEFORE) + word(_BEHIND)
_NAME: Final = word(b"FCALL") + word(APPEND)
_OTHER_WORDS: Final = 7
"""Of a command, besides keys and parcels."""

_HEAD: Final = Struct(">BQBQBQ")
_UINT64: Final = 0xCF
"""What MessagePack writes before a number of 64 bits, whose eight bytes follow, the highest first."""


def appended(lanes: Sequence[Lane], settings: bytes, emitter: bytes) -> bytes:
    """The command that appends the parcels, sealed before, of these lanes."""
    keys: list[bytes] = []
    parcels: list[bytes] = []
    words = _OTHER_WORDS + 3 * len(lanes)
    for lane in lanes:
        parcel = lane.parcel
        if parcel is None:
            raise ValueError("nothing was sealed")
        keys.append(_packed(lane.keys))
        parcels.append(word(head_of(parcel)))
        entries = parcel.entries
        words += len(entries)
        for entry in entries:
            rest = entry.draft.rest
            parcels.append(b"$%d\r\n%b\r\n" % (len(rest), rest))
    begin = b"*%d\r\n%b%b" % (words, _NAME, number(2 * len(lanes)))
    return b"".join((begin, *keys, word(settings), word(emitter), _AROUND, *parcels))


def head_of(parcel: Parcel) -> bytes:
    """A parcel's own number, how many numbers are left out before it, and how many events it has."""
    return _HEAD.pack(_UINT64, parcel.number, _UINT64, parcel.skip, _UINT64, len(parcel.entries))


@lru_cache(maxsize=10_000)
def _packed(keys: Keys) -> bytes:
    # The same threads are published to again and again.
    return word(keys.log) + word(keys.head)
