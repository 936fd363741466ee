"""A least-recently-used map of threads, with entries that can be pinned."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from bridgekit.ids import ThreadId

__all__ = ["PinnedLru", "ThreadSequence", "new_epoch"]


def new_epoch() -> str:
    """Return the name of a new epoch: 16 hexadecimal digits from a cryptographic random source."""
    return os.urandom(8).hex()


class ThreadSequence:
    """One thread's epoch and its last assigned `seq`."""

    __slots__ = ("epoch", "pins", "seq")

    def __init__(self, epoch: str, seq: int = 0) -> None:
        self.epoch = epoch
        self.seq = seq
        self.pins = 0
        """Number of pins. A pinned entry is never evicted."""


SequenceT = TypeVar("SequenceT", bound=ThreadSequence)


class PinnedLru(Generic[SequenceT]):
    """A map from thread to sequence. Every operation is O(1).

    A new entry beyond `limit` evicts the least recently used entry that is not pinned. If all entries are pinned, the
    map exceeds `limit` until some are unpinned.
    """

    def __init__(
        self, limit: int, create: Callable[[ThreadId], SequenceT], evicted: Callable[[ThreadId, SequenceT], None]
    ) -> None:
        self._limit = limit
        self._create = create
        self._evicted = evicted
        self._all: dict[ThreadId, SequenceT] = {}
        self._unpinned: OrderedDict[ThreadId, SequenceT] = OrderedDict()
        """Least recently used first."""
        self.get = self._all.get
        """Look up an entry without marking it as used. A pinned entry needs no mark, because it cannot be evicted."""

    def __len__(self) -> int:
        return len(self._all)

    def get_or_create(self, thread_id: ThreadId) -> SequenceT:
        """Return the thread's entry, creating it if necessary, and mark it as the most recently used."""
        sequence = self._all.get(thread_id)
        if sequence is None:
            sequence = self._create(thread_id)
            self.put(thread_id, sequence)
        elif not sequence.pins:
            self._unpinned.move_to_end(thread_id)
        return sequence

    def put(self, thread_id: ThreadId, sequence: SequenceT) -> None:
        """Add an entry for a thread that has none."""
        while len(self._all) >= self._limit and self._unpinned:
            evicted, entry = self._unpinned.popitem(last=False)
            del self._all[evicted]
            self._evicted(evicted, entry)
        self._all[thread_id] = self._unpinned[thread_id] = sequence

    def pin(self, thread_id: ThreadId) -> SequenceT:
        """Return the thread's entry, and protect it from eviction until `unpin` has undone every `pin`."""
        sequence = self.get_or_create(thread_id)
        sequence.pins += 1
        self._unpinned.pop(thread_id, None)
        return sequence

    def unpin(self, thread_id: ThreadId) -> None:
        """Undo one `pin`."""
        sequence = self._all[thread_id]
        sequence.pins -= 1
        if not sequence.pins:
            self._unpinned[thread_id] = sequence
