"""What an application keeps outside its code, and where: routes, logs and spent tickets, all of one kind of store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from bridgekit.mapping import MappingStore, MemoryStore
from bridgekit.transport.broker import HISTORY, Broker, Keep
from bridgekit.transport.broker.memory import MemoryBroker
from bridgekit.transport.spent import SpentInMemory, SpentTickets

__all__ = ["MEMORY", "StoreFactory", "Stores", "in_memory", "memory_stores"]


@dataclass(frozen=True, kw_only=True)
class Stores:
    """One application's stores, open."""

    name: str
    """"memory", "sqlite" or "redis"."""
    routes: MappingStore
    broker: Broker
    spent: SpentTickets
    shared: bool = False
    """Whether workers share them. Where they do not, a second worker refuses to start."""


StoreFactory = Callable[[], AbstractAsyncContextManager[Stores]]
"""Opens an application's stores for as long as it runs. StoreAway or StoreInUse where that cannot be."""


def in_memory(keep: Keep = HISTORY) -> Stores:
    """In this process's memory, which needs no opening."""
    return Stores(name="memory", routes=MemoryStore(), broker=MemoryBroker(keep), spent=SpentInMemory())


def memory_stores(keep: Keep = HISTORY) -> StoreFactory:
    """In this process's memory: the fastest, for one worker, and gone when it ends."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Stores]:
        yield in_memory(keep)

    return opened


MEMORY: Final = memory_stores()
"""What an application has that chose nothing else."""
