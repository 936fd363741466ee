"""The functions that the server runs, and the names of the keys that they work on."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.resources import files
from typing import Final, NamedTuple

from redis.crc import key_slot

from bridgekit.errors import InvalidId
from bridgekit.ids import RunId, ThreadId

__all__ = [
    "ADD_ROUTE",
    "APPEND",
    "CLOSE_ROUTE",
    "CLOSE_RUN",
    "GET_ROUTE",
    "OPEN_RUN",
    "READ",
    "RENEW_LEASE",
    "SEQ_SKIP_AFTER_RESTART",
    "SOURCE",
    "Key",
    "KeyNames",
    "ThreadKeys",
]

SEQ_SKIP_AFTER_RESTART: Final = 1_000_000
"""How many numbers a thread skips where its latest ones may have been lost. The functions have the same constant."""

_TEXT: Final = files(__package__).joinpath("functions.lua").read_text(encoding="utf-8")
_VERSION: Final = hashlib.sha256(_TEXT.encode()).hexdigest()[:12]

SOURCE: Final = f"#!lua name=bridgekit_{_VERSION}\n{_TEXT.replace('@VERSION@', _VERSION)}".encode()
"""The argument of FUNCTION LOAD."""

APPEND: Final = f"bridgekit_append_{_VERSION}".encode()
READ: Final = f"bridgekit_read_{_VERSION}".encode()
ADD_ROUTE: Final = f"bridgekit_add_route_{_VERSION}".encode()
GET_ROUTE: Final = f"bridgekit_get_route_{_VERSION}".encode()
CLOSE_ROUTE: Final = f"bridgekit_close_route_{_VERSION}".encode()
OPEN_RUN: Final = f"bridgekit_open_run_{_VERSION}".encode()
CLOSE_RUN: Final = f"bridgekit_close_run_{_VERSION}".encode()
RENEW_LEASE: Final = f"bridgekit_renew_lease_{_VERSION}".encode()


class Key(NamedTuple):
    """A key, and the part of a Cluster that it belongs to."""

    name: bytes
    slot: int


class ThreadKeys(NamedTuple):
    """The keys of one thread. They share a slot."""

    log: bytes
    """A stream. The channel on which the thread's events are published has the same name."""
    head: bytes
    """A string: the thread's epoch and seq, and what the functions need to go on."""
    slot: int


class KeyNames:
    """The keys of one application. Applications with different prefixes share nothing."""

    def __init__(self, prefix: str) -> None:
        if "{" in prefix:
            raise InvalidId("prefix", "must not contain '{', which begins the hash tag of a Cluster's key")
        self._prefix = prefix
        # The same threads are published to again and again.
        self.thread = lru_cache(maxsize=10_000)(self._thread)

    def _thread(self, thread_id: ThreadId) -> ThreadKeys:
        """The keys of a thread, whatever characters its id consists of."""
        tag = _hashed(thread_id)
        log, head = (f"{self._prefix}:{{{tag}}}:{name}".encode() for name in ("log", "head"))
        return ThreadKeys(log, head, key_slot(log))

    def route(self, run_id: RunId) -> Key:
        """The key of a run's route."""
        return self._key("route", _hashed(run_id))

    def runs(self) -> tuple[Key, Key]:
        """The keys of the active runs and of the workers that execute them. They share a slot."""
        return self._key("runs", "runs"), self._key("workers", "runs")

    def ticket(self, ticket_id: str) -> Key:
        """The key of a used ticket."""
        return self._key("used", _hashed(ticket_id))

    def heartbeat(self, worker: str, number: int) -> Key:
        """A channel of that worker alone. Another number is another slot."""
        return self._key("heartbeat", f"{worker}.{number}")

    def _key(self, kind: str, tag: str) -> Key:
        name = f"{self._prefix}:{kind}:{{{tag}}}".encode()
        return Key(name, key_slot(name))


def _hashed(name: str) -> str:
    return hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=16).hexdigest()
