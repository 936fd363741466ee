"""The functions that a Redis-protocol server runs for us, and the names of what they work on."""

from __future__ import annotations

import binascii
import hashlib
from functools import lru_cache
from importlib.resources import files
from typing import Final, NamedTuple

from bridgekit.errors import InvalidId
from bridgekit.ids import RunId, ThreadId

__all__ = ["APPEND", "CLOSE", "FENCE", "FIND", "READ", "ROUTE", "SLOTS", "SOURCE", "Keys", "Names", "slot_of"]

SLOTS: Final = 16_384
"""Into how many parts a Cluster divides its keys."""
FENCE: Final = 1_000_000
"""How many numbers a thread leaves out where its latest ones may have been lost; the functions have it too."""

_TEXT: Final = files(__package__).joinpath("redis_library.lua").read_text(encoding="utf-8")
_VERSION: Final = hashlib.sha256(_TEXT.encode()).hexdigest()[:12]

SOURCE: Final = f"#!lua name=bridgekit_{_VERSION}\n{_TEXT.replace('@VERSION@', _VERSION)}".encode()
"""What FUNCTION LOAD is given."""

APPEND: Final = f"bridgekit_append_{_VERSION}".encode()
READ: Final = f"bridgekit_read_{_VERSION}".encode()
ROUTE: Final = f"bridgekit_route_{_VERSION}".encode()
FIND: Final = f"bridgekit_find_{_VERSION}".encode()
CLOSE: Final = f"bridgekit_close_{_VERSION}".encode()


class Keys(NamedTuple):
    """Where a thread is kept. All of it is in one slot."""

    log: bytes
    """A stream; and the name of the channel on which its events are told."""
    head: bytes
    """A hash: epoch, number, and what is needed to go on."""
    slot: int


class Names:
    """The keys of one application. Another prefix is another application: neither sees anything of the other."""

    def __init__(self, prefix: str) -> None:
        if "{" in prefix:
            raise InvalidId("prefix", "must not contain '{', which begins what a Cluster divides keys by")
        if "\r" in prefix:
            raise InvalidId("prefix", "must not contain a line's end, which ends a channel's name when it is read")
        self._prefix = prefix
        # The same threads are published to again and again.
        self.thread = lru_cache(maxsize=10_000)(self._thread)

    def _thread(self, thread_id: ThreadId) -> Keys:
        """The keys of a thread, whatever its id consists of."""
        tag = _hashed(thread_id)
        log, head = (f"{self._prefix}:{{{tag}}}:{name}".encode() for name in ("log", "head"))
        return Keys(log, head, slot_of(tag.encode()))

    def route(self, run_id: RunId) -> tuple[bytes, int]:
        """The key of a run's route, and its slot."""
        return self._single("route", run_id)

    def ticket(self, ticket_id: str) -> tuple[bytes, int]:
        """The key of a spent ticket, and its slot."""
        return self._single("spent", ticket_id)

    def probe(self, worker: str, slots: frozenset[int]) -> bytes:
        """A channel of that worker alone, in one of the slots."""
        number = 0
        while slot_of(tag := f"{worker}.{number}".encode()) not in slots:
            number += 1
        return b"%b:probe:{%b}" % (self._prefix.encode(), tag)

    def _single(self, kind: str, name: str) -> tuple[bytes, int]:
        tag = _hashed(name)
        return f"{self._prefix}:{kind}:{{{tag}}}".encode(), slot_of(tag.encode())


def slot_of(tag: bytes) -> int:
    """A Cluster's part for a hash tag: CRC16 (XModem) modulo 16,384."""
    return binascii.crc_hqx(tag, 0) % SLOTS


def _hashed(name: str) -> str:
    return hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=16).hexdigest()
