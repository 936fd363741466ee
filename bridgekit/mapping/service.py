"""The sound version of the audit's Fix 3: a run never changes its thread, and closed runs have a grace period."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from bridgekit import ids
from bridgekit.errors import RunAlreadyMapped
from bridgekit.ids import RunId, ThreadId
from bridgekit.mapping.memory import MemoryMappingStore

__all__ = ["GRACE_SECONDS", "MappingStore", "RunThreadMappingService"]

GRACE_SECONDS: Final = 30.0
"""The grace period: how long a closed run's route remains, so that the run's late events still arrive."""


class MappingStore(Protocol):
    """Stores routes. Each method is atomic, and raises StoreUnavailable if the store does not answer in time."""

    @property
    def known(self) -> Mapping[RunId, ThreadId]:
        """The routes that this worker can look up without waiting. The store keeps this mapping up to date."""

    @property
    def shared(self) -> bool:
        """Whether other workers store routes too, which `known` does not contain."""

    async def add(self, run_id: RunId, thread_id: ThreadId) -> ThreadId:
        """Store the route if the run has none. Return the thread that is now stored for the run.

        Raises MappingFull if the store is full and all its routes belong to active runs.
        """

    async def get(self, run_id: RunId) -> ThreadId | None:
        """Return the run's thread, or None for an unknown run."""

    async def expire(self, run_id: RunId, seconds: float) -> None:
        """Remove the route after `seconds`. An unknown run is not an error, because its route is already removed."""


class RunThreadMappingService:
    """Maps each run to its thread, until the run is closed and its grace period has ended.

    With a store in a file or on a server, each method raises WrongEventLoop on another event loop than the store's.
    """

    def __init__(self, store: MappingStore | None = None, *, grace_seconds: float = GRACE_SECONDS) -> None:
        self._store = MemoryMappingStore() if store is None else store
        self._grace_seconds = grace_seconds

    @property
    def known(self) -> Mapping[RunId, ThreadId]:
        """The routes that this worker knows without waiting."""
        return self._store.known

    @property
    def shared(self) -> bool:
        """Whether other workers store routes too."""
        return self._store.shared

    async def register_mapping(self, run_id: RunId, thread_id: ThreadId) -> None:
        """Map a run to its thread. A repeated call changes nothing for an active run, and reopens a closed run.

        Raises RunAlreadyMapped if the run is mapped to another thread, and InvalidId if an id is not valid. Raises
        MappingFull if the store has no room, and StoreUnavailable if it did not answer in time.
        """
        stored = await self._store.add(ids.run_id(run_id), ids.thread_id(thread_id))
        if stored != thread_id:
            raise RunAlreadyMapped(run_id, stored, thread_id)

    async def get_thread_id(self, run_id: RunId) -> ThreadId | None:
        """Return the run's thread, or None for an unknown run.

        The route of a closed run remains until its grace period ends. Raises StoreUnavailable if the store did not
        answer in time.
        """
        return await self._store.get(run_id)

    async def cleanup_mapping(self, run_id: RunId) -> None:
        """Close a run: its route expires when the grace period ends.

        Raises StoreUnavailable if the store did not answer.
        """
        await self._store.expire(run_id, self._grace_seconds)
