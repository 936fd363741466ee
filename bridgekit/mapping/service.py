"""The audit's Fix 3, sound: a run never moves, and its route durable it for a stated time."""

from __future__ import annotations

from typing import Final, Protocol

from bridgekit import ids
from bridgekit.errors import RunAlreadyMapped
from bridgekit.ids import RunId, ThreadId
from bridgekit.mapping.memory import MemoryMappingStore

__all__ = ["GRACE_SECONDS", "MappingStore", "RunThreadMappingService"]

GRACE_SECONDS: Final = 30.0
"""How long a closed run's route lingers, so that its late events still arrive."""


class MappingStore(Protocol):
    """Keeps routes. Each method is atomic, and raises StoreUnavailable where the store does not answer in time."""

    async def add(self, run_id: RunId, thread_id: ThreadId) -> ThreadId:
        """Store the route unless the run has one, and answer the route that now holds.

        MappingFull where there is no room, and every route that is kept is a live run's.
        """

    async def get(self, run_id: RunId) -> ThreadId | None:
        """Answer the run's thread, or None."""

    async def expire(self, run_id: RunId, seconds: float) -> None:
        """Forget the route after that many seconds. An unknown run is no error: it is forgotten already."""


class RunThreadMappingService:
    """Remembers the thread of every run that is under way, and of those that ended a moment ago."""

    def __init__(self, store: MappingStore | None = None, *, grace_seconds: float = GRACE_SECONDS) -> None:
        self._store = MemoryMappingStore() if store is None else store
        self._grace_seconds = grace_seconds

    async def register_mapping(self, run_id: RunId, thread_id: ThreadId) -> None:
        """Bind a run to its thread. Saying it twice is harmless; another thread raises RunAlreadyMapped.

        InvalidId names the id that is none. MappingFull and StoreUnavailable are raised as they come: the run has no route.
        """
        holds = await self._store.add(ids.run_id(run_id), ids.thread_id(thread_id))
        if holds != thread_id:
            raise RunAlreadyMapped(run_id, holds, thread_id)

    async def get_thread_id(self, run_id: RunId) -> ThreadId | None:
        """The run's thread, also for the grace period after `cleanup_mapping`; None for an unknown run."""
        return await self._store.get(run_id)

    async def cleanup_mapping(self, run_id: RunId) -> None:
        """Close a run: its route is forgotten when the grace period is over."""
        await self._store.expire(run_id, self._grace_seconds)
