"""What an application keeps outside its code, and where: routes, logs and spent tickets, all of one kind of store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from bridgekit.errors import UnknownName
from bridgekit.mapping import MappingStore, MemoryStore
from bridgekit.transport.broker import HISTORY, Broker, Keep
from bridgekit.transport.broker.memory import MemoryBroker
from bridgekit.transport.spent import SpentInMemory, SpentTickets

__all__ = ["MEMORY", "StoreFactory", "Stores", "in_memory", "memory_stores", "stores_from"]


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


def stores_from(url: str, *, keep: Keep = HISTORY) -> StoreFactory:
    """The stores that a URL names: `memory:`, `sqlite:///a/file`, `redis://host:port` or `rediss://…`.

    UnknownName for another; NotInstalled where a store's package is missing.
    """
    scheme, _, rest = url.partition(":")
    match scheme:
        case "memory":
            return memory_stores(keep)
        case "sqlite":
            # As SQLAlchemy writes it: three slashes before a relative path, four before an absolute one.
            return sqlite_stores(rest.removeprefix("///"), keep=keep)
        case "redis" | "rediss":
            return redis_stores(url, keep=keep)
    raise UnknownName("store", scheme, ("memory:", "sqlite:///FILE", "redis://HOST:PORT", "rediss://HOST:PORT"))


MEMORY: Final = memory_stores()
"""What an application has that chose nothing else."""
