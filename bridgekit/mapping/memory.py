"""Routes in this process's memory: the default store."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from bridgekit.errors import MappingFull
from bridgekit.ids import RunId, ThreadId

__all__ = ["MAX_ROUTES", "MemoryMappingStore"]

MAX_ROUTES: Final = 1_000_000
"""How many routes are kept, of live runs and of closed ones."""


class MemoryMappingStore:
    """A dict, and beside it the closed runs in the order of their closing.

    Every operation is O(1), amortised: each call forgets what has fallen due since the last one. The order of closing
    is the order of falling due as long as all are given one grace; a route that falls due behind one with a longer
    grace is forgotten for readers at once and freed with it. When there is no room, the closed run that waits longest
    makes it; a live one never does.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, routes: int = MAX_ROUTES) -> None:
        self._clock = clock
        self._limit = routes
        self._routes: dict[RunId, ThreadId] = {}
        self._due: OrderedDict[RunId, float] = OrderedDict()
        """When the routes of closed runs are to be forgotten."""

    def __len__(self) -> int:
        return len(self._routes)

    async def add(self, run_id: RunId, thread_id: ThreadId) -> ThreadId:
        return self.insert(run_id, thread_id)

    async def get(self, run_id: RunId) -> ThreadId | None:
        return self.lookup(run_id)

    async def expire(self, run_id: RunId, seconds: float) -> None:
        self.close(run_id, self._clock() + seconds)

    def insert(self, run_id: RunId, thread_id: ThreadId) -> ThreadId:
        """As `add`."""
        holds = self.lookup(run_id)
        if holds is None:
            self._evict_for_insert()
            holds = self._routes[run_id] = thread_id
        elif holds == thread_id:
            # A run that goes on in its grace period is live again.
            self._due.pop(run_id, None)
        return holds

    def lookup(self, run_id: RunId) -> ThreadId | None:
        """As `get`."""
        if self._due:
            self._evict_due()
            due = self._due.get(run_id)
            if due is not None and due <= self._clock():
                self.evict(run_id)
        return self._routes.get(run_id)

    def close(self, run_id: RunId, due: float) -> float | None:
        """Let the route lapse at that time of the store's clock, or earlier if that was said before; answer when.

        None for an unknown run.
        """
        if self.lookup(run_id) is None:
            return None
        return self._due.setdefault(run_id, due)

    def due(self, run_id: RunId) -> float | None:
        """When the route of a closed run is to be forgotten; None for a live run, and for an unknown one."""
        return self._due.get(run_id)

    def restore(self, run_id: RunId, thread_id: ThreadId | None, due: float | None) -> None:
        """Make it so, whatever is known of the run; without a thread nothing is."""
        self.evict(run_id)
        if thread_id is not None:
            self._routes[run_id] = thread_id
            if due is not None:
                self._due[run_id] = due

    def evict(self, run_id: RunId) -> None:
        """Forget the route at once."""
        self._routes.pop(run_id, None)
        self._due.pop(run_id, None)

    def _evict_for_insert(self) -> None:
        while len(self._routes) >= self._limit:
            if not self._due:
                raise MappingFull(self._limit)
            self.evict(next(iter(self._due)))

    def _evict_due(self) -> None:
        now = self._clock()
        while self._due:
            run_id, due = next(iter(self._due.items()))
            if due > now:
                return
            self.evict(run_id)
