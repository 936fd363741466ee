"""Routes in this process's memory: the default store."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from bridgekit.ids import RunId, ThreadId

__all__ = ["MemoryStore"]


class MemoryStore:
    """A dict, and a queue of the routes that are to be forgotten.

    Every operation is O(1), amortised: each call forgets what has fallen due since the last one. The queue is in
    the order of the calls to `expire`, which is the order of falling due as long as they name one duration; a
    route that falls due behind one with a longer duration is forgotten for readers at once and freed with it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._routes: dict[RunId, ThreadId] = {}
        self._due: dict[RunId, float] = {}
        self._queue: deque[tuple[float, RunId]] = deque()

    def __len__(self) -> int:
        return len(self._routes)

    async def add(self, run_id: RunId, thread_id: ThreadId) -> ThreadId:
        self._forget_due()
        if self._fallen_due(run_id):
            del self._routes[run_id], self._due[run_id]
        holds = self._routes.setdefault(run_id, thread_id)
        if holds == thread_id:
            # A run that goes on in its grace period is live again.
            self._due.pop(run_id, None)
        return holds

    async def get(self, run_id: RunId) -> ThreadId | None:
        self._forget_due()
        return None if self._fallen_due(run_id) else self._routes.get(run_id)

    async def expire(self, run_id: RunId, seconds: float) -> None:
        self._forget_due()
        if run_id in self._routes and run_id not in self._due:
            self._due[run_id] = self._clock() + seconds
            self._queue.append((self._due[run_id], run_id))

    def _fallen_due(self, run_id: RunId) -> bool:
        due = self._due.get(run_id)
        return due is not None and due <= self._clock()

    def _forget_due(self) -> None:
        now = self._clock()
        while self._queue and self._queue[0][0] <= now:
            due, run_id = self._queue.popleft()
            # The run may have been registered anew since; then the queue speaks of the old one.
            if self._due.get(run_id) == due:
                del self._routes[run_id], self._due[run_id]
