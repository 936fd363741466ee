"""The default mapping store, which holds routes in the memory of this process."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from bridgekit.errors import MappingFull
from bridgekit.ids import RunId, ThreadId

__all__ = ["MAX_ROUTES", "MemoryMappingStore"]

MAX_ROUTES: Final = 1_000_000
"""The default limit on stored routes. The limit includes the routes of active and of closed runs."""


class MemoryMappingStore:
    """Stores routes in a dict, and the expiry times of closed runs in the order in which the runs were closed.

    Every operation takes amortized O(1) time. Each lookup first evicts expired routes in the order of closing, up to
    the first route that has not expired. If grace periods differ, other expired routes may remain until their lookup,
    which returns None. When the store is full, `insert` evicts the run that was closed first. `insert` never evicts an
    active run.
    """

    shared = False

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, routes: int = MAX_ROUTES) -> None:
        self._clock = clock
        self._limit = routes
        self.known = self._routes = dict[RunId, ThreadId]()
        self._due: OrderedDict[RunId, float] = OrderedDict()
        """The times at which the routes of closed runs expire, by the store's clock."""

    def __len__(self) -> int:
        return len(self._routes)

    async def add(self, run_id: RunId, thread_id: ThreadId) -> ThreadId:
        return self.insert(run_id, thread_id)

    async def get(self, run_id: RunId) -> ThreadId | None:
        return self.lookup(run_id)

    async def expire(self, run_id: RunId, seconds: float) -> None:
        self.close(run_id, self._clock() + seconds)

    def insert(self, run_id: RunId, thread_id: ThreadId) -> ThreadId:
        """Do the same as `add`, without a coroutine."""
        stored = self.lookup(run_id)
        if stored is None:
            self._evict_for_insert()
            stored = self._routes[run_id] = thread_id
        elif stored == thread_id:
            # A run that is registered again within its grace period is active again.
            self._due.pop(run_id, None)
        return stored

    def lookup(self, run_id: RunId) -> ThreadId | None:
        """Do the same as `get`, without a coroutine."""
        if self._due:
            self._evict_due()
            due = self._due.get(run_id)
            if due is not None and due <= self._clock():
                self.evict(run_id)
        return self._routes.get(run_id)

    def close(self, run_id: RunId, due: float) -> float | None:
        """Let the route expire at the time `due` of the store's clock, unless an earlier call has set a time.

        Returns the time at which the route expires, or None for an unknown run.
        """
        if self.lookup(run_id) is None:
            return None
        return self._due.setdefault(run_id, due)

    def due(self, run_id: RunId) -> float | None:
        """Return the time at which a closed run's route expires, or None for an active or unknown run."""
        return self._due.get(run_id)

    def restore(self, run_id: RunId, thread_id: ThreadId | None, due: float | None) -> None:
        """Replace the run's entry by the given thread and expiry time. With `thread_id=None`, remove the entry."""
        self.evict(run_id)
        if thread_id is not None:
            self._routes[run_id] = thread_id
            if due is not None:
                self._due[run_id] = due

    def evict(self, run_id: RunId) -> None:
        """Remove the route immediately."""
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
