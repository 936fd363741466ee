"""Events on their way to a store that may be away: in order, bounded, and sent again just as they were sent before."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import count
from typing import Final

import anyio

from bridgekit.events import Draft, Receipt
from bridgekit.ids import ThreadId
from bridgekit.storage.redis_bell import Bell, bell
from bridgekit.storage.redis_library import Keys

__all__ = ["BACKLOG_BYTES", "BACKLOG_EVENTS", "Backlog", "Entry", "Lane", "Parcel"]

BACKLOG_EVENTS: Final = 10_000
"""Events of this worker that may wait for the store, or for its answer."""
BACKLOG_BYTES: Final = 33_554_432
"""Their bytes."""
REFUSALS: Final = 65_536
"""Threads, about, for which it can be remembered that events were refused."""
PARCEL_EVENTS: Final = 128
"""Of one thread, in one piece."""
PARCEL_BYTES: Final = 262_144
"""The same. An event that is larger goes alone."""


class Entry:
    """An event on its way, and whoever waits for what becomes of it."""

    __slots__ = ("_bell", "draft", "receipt", "since", "size_bytes")

    def __init__(self, draft: Draft, since: float) -> None:
        self.draft = draft
        self.since = since
        self.size_bytes = len(draft.rest)
        self.receipt: Receipt | None = None
        self._bell: Bell | None = None

    def answer(self, receipt: Receipt) -> None:
        """Tell whoever waits. Only the first answer counts."""
        if self.receipt is None:
            self.receipt = receipt
            if self._bell is not None:
                self._bell.ring()

    async def answered(self) -> Receipt:
        """Wait for the answer. One task does."""
        while self.receipt is None:
            self._bell = bell()
            await self._bell
        return self.receipt


class Parcel:
    """Events of one thread that are sent in one piece. Its number tells the store whether it had it already."""

    __slots__ = ("entries", "number", "size_bytes", "skip")

    def __init__(self, number: int, skip: int) -> None:
        self.number = number
        self.skip = skip
        """How many numbers are left out before its events: of others, which were refused."""
        self.entries: list[Entry] = []
        self.size_bytes = 0

    def takes(self, entry: Entry) -> bool:
        return not self.entries or (
            len(self.entries) < PARCEL_EVENTS and self.size_bytes + entry.size_bytes <= PARCEL_BYTES
        )

    def put(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.size_bytes += entry.size_bytes


class Lane:
    """One thread's events, in order. One parcel of it is under way at a time, and none after it before it arrived."""

    __slots__ = ("keys", "parcel", "queued", "thread_id", "waiting")

    def __init__(self, thread_id: ThreadId, keys: Keys) -> None:
        self.thread_id = thread_id
        self.keys = keys
        self.waiting: deque[Entry | int] = deque()
        """Events, and between them how many were refused."""
        self.parcel: Parcel | None = None
        self.queued = False
        """Whether it stands in somebody's queue, or in somebody's hands."""

    def seal(self, numbers: Iterator[int]) -> Parcel:
        """What is to be sent next: the parcel that did not arrive, as it was, or else a new one."""
        if self.parcel is None:
            skip = 0
            while self.waiting and isinstance(refused := self.waiting[0], int):
                skip += refused
                self.waiting.popleft()
            self.parcel = Parcel(next(numbers), skip)
            while self.waiting and isinstance(entry := self.waiting[0], Entry) and self.parcel.takes(entry):
                self.parcel.put(entry)
                self.waiting.popleft()
        return self.parcel

    def entries(self) -> Iterator[Entry]:
        """All that has not arrived, oldest first."""
        if self.parcel is not None:
            yield from self.parcel.entries
        yield from (entry for entry in self.waiting if isinstance(entry, Entry))


class Backlog:
    """The lanes of all threads that have something under way. Adding and taking out are O(1)."""

    def __init__(self, *, events: int = BACKLOG_EVENTS, size_bytes: int = BACKLOG_BYTES) -> None:
        self._events = events
        self._size_bytes = size_bytes
        self._held = 0
        self._held_bytes = 0
        self._refusals = 0
        self._lanes: dict[ThreadId, Lane] = {}
        # Made only when somebody waits: the backlog of agents that speak now and then is empty again and again.
        self._empty: anyio.Event | None = None
        self._some: anyio.Event | None = None
        self.numbers = count(1)

    def __len__(self) -> int:
        """How many events have not arrived."""
        return self._held

    def __iter__(self) -> Iterator[Lane]:
        return iter(tuple(self._lanes.values()))

    def lane(self, thread_id: ThreadId, keys: Keys) -> Lane:
        """The thread's lane; one that is made is to be given an event at once."""
        lane = self._lanes.get(thread_id)
        if lane is None:
            if self._some is not None:
                self._some.set()
                self._some = None
            lane = self._lanes[thread_id] = Lane(thread_id, keys)
        return lane

    def add(self, lane: Lane, draft: Draft, now: float) -> Entry | None:
        """Take an event, or leave its number out when there is no room for it, and answer None."""
        entry = Entry(draft, now)
        if self._held and (self._held >= self._events or self._held_bytes + entry.size_bytes > self._size_bytes):
            self._refuse(lane)
            return None
        lane.waiting.append(entry)
        self._held += 1
        self._held_bytes += entry.size_bytes
        return entry

    def arrived(self, lane: Lane) -> bool:
        """The lane's parcel is done with; whether there is more."""
        if lane.parcel is not None:
            self._held -= len(lane.parcel.entries)
            self._held_bytes -= lane.parcel.size_bytes
            self._refusals -= lane.parcel.skip > 0
            lane.parcel = None
        if not lane.waiting:
            self._close(lane)
        return bool(lane.waiting)

    async def some(self) -> None:
        """Wait until something is under way."""
        if not self._lanes:
            self._some = self._some or anyio.Event()
            await self._some.wait()

    async def empty(self) -> None:
        """Wait until nothing is under way."""
        if self._lanes:
            self._empty = self._empty or anyio.Event()
            await self._empty.wait()

    def _refuse(self, lane: Lane) -> None:
        if lane.waiting and isinstance(lane.waiting[-1], int):
            lane.waiting[-1] += 1
        elif self._refusals < REFUSALS:
            self._refusals += 1
            lane.waiting.append(1)
        elif not lane.waiting and lane.parcel is None:
            self._close(lane)

    def _close(self, lane: Lane) -> None:
        del self._lanes[lane.thread_id]
        if not self._lanes and self._empty is not None:
            self._empty.set()
            self._empty = None
