"""A thread store in memory. An experiment declares the threads' owners in each of its processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bridgekit.chain.models_tools_and_owners import MemoryThreadStore, ThreadSession

__all__ = ["DeclaredOwners"]


class DeclaredOwners:
    """A session factory for owners in memory.

    Unlike MemoryThreadStore, the factory may be used with a durable store.
    """

    def __init__(self) -> None:
        self.owners = MemoryThreadStore()

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[ThreadSession]:
        yield self.owners
