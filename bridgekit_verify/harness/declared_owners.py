"""A thread store in memory. An experiment declares the threads' owners in each of its processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bridgekit.chain.models_tools_and_owners import ThreadSession
from bridgekit.errors import ThreadNotOwned
from bridgekit.ids import ThreadId, UserId

__all__ = ["DeclaredOwners"]


class DeclaredOwners:
    """A session factory for owners in memory.

    Unlike MemoryThreadStore, the factory may be used with a durable store.
    """

    def __init__(self) -> None:
        self._owners: dict[ThreadId, UserId] = {}

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[ThreadSession]:
        yield self

    async def owner_of(self, thread_id: ThreadId) -> UserId | None:
        return self._owners.get(thread_id)

    async def claim(self, thread_id: ThreadId, user_id: UserId) -> None:
        if self._owners.setdefault(thread_id, user_id) != user_id:
            raise ThreadNotOwned(thread_id, user_id)
