"""Builds key names, and loads the source and the function names of the Lua library that the server executes."""

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
    "GENERATION",
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
"""The number of seqs that a thread skips when its latest events may have been lost. `functions.lua` has the same
constant."""

_TEXT: Final = files(__package__).joinpath("functions.lua").read_text(encoding="utf-8")
_VERSION: Final = hashlib.sha256(_TEXT.encode()).hexdigest()[:12]

SOURCE: Final = f"#!lua name=bridgekit_{_VERSION}\n{_TEXT.replace('@VERSION@', _VERSION)}".encode()
"""The argument of FUNCTION LOAD."""

APPEND: Final = f"bridgekit_append_{_VERSION}".encode()
READ: Final = f"bridgekit_read_{_VERSION}".encode()
ADD_ROUTE: Final = f"bridgekit_add_route_{_VERSION}".encode()
GET_ROUTE: Final = f"bridgekit_get_route_{_VERSION}".encode()
CLOSE_ROUTE: Final = f"bridgekit_close_route_{_VERSION}".encode()
GENERATION: Final = f"bridgekit_generation_{_VERSION}".encode()
OPEN_RUN: Final = f"bridgekit_open_run_{_VERSION}".encode()
CLOSE_RUN: Final = f"bridgekit_close_run_{_VERSION}".encode()
RENEW_LEASE: Final = f"bridgekit_renew_lease_{_VERSION}".encode()


class Key(NamedTuple):
    """A key and its Cluster hash slot."""

    name: bytes
    slot: int


class ThreadKeys(NamedTuple):
    """The two keys of one thread, which share a hash slot."""

    log: bytes
    """The key of the stream that holds the thread's log. The thread's pub/sub channel has the same name."""
    head: bytes
    """The key of a string that holds the thread's epoch, its seq, and other state of the functions."""
    slot: int


class KeyNames:
    """Builds the keys of one application. Applications with different prefixes share no keys."""

    def __init__(self, prefix: str) -> None:
        if "{" in prefix:
            raise InvalidId("prefix", "must not contain '{', which starts a hash tag in a Cluster key")
        self._prefix = prefix
        # Most events belong to recently used threads, so their keys are cached.
        self.thread = lru_cache(maxsize=10_000)(self._thread)

    def _thread(self, thread_id: ThreadId) -> ThreadKeys:
        """Return a thread's keys. The keys contain a hash of the thread id, because the id may have any characters."""
        tag = _hashed(thread_id)
        log, head = (f"{self._prefix}:{{{tag}}}:{name}".encode() for name in ("log", "head"))
        return ThreadKeys(log, head, key_slot(log))

    def route(self, run_id: RunId) -> Key:
        """Return the key of a run's route."""
        return self._key("route", _hashed(run_id))

    def runs(self) -> tuple[Key, Key, Key, Key]:
        """Return the keys of the active runs, of the workers that execute them, of the generation of this data, and of
        the workers' retention."""
        runs, workers, generation, retention = (
            self._key(kind, "runs") for kind in ("runs", "workers", "generation", "retention")
        )
        return runs, workers, generation, retention

    def ticket(self, ticket_id: str) -> Key:
        """Return the key of a used ticket.

        The key shares its slot with the generation, so that a failed node loses both.
        """
        return self._key(f"used:{_hashed(ticket_id)}", "runs")

    def heartbeat(self, worker: str, number: int) -> Key:
        """Return a heartbeat channel of one worker. The channel's slot depends on `number`."""
        return self._key("heartbeat", f"{worker}.{number}")

    def _key(self, kind: str, tag: str) -> Key:
        name = f"{self._prefix}:{kind}:{{{tag}}}".encode()
        return Key(name, key_slot(name))


def _hashed(name: str) -> str:
    return hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=16).hexdigest()
