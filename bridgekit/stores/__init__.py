"""What an application keeps outside its code, and where: routes, logs and spent tickets, all of one kind of store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote

from bridgekit.errors import NotInstalled, UnknownName
from bridgekit.mapping import MappingStore, MemoryMappingStore
from bridgekit.mapping.memory import MAX_ROUTES
from bridgekit.transport.log import DEFAULT_RETENTION, EventLog, MemoryEventLog, Retention
from bridgekit.transport.used_tickets import MemoryUsedTickets, UsedTickets

__all__ = [
    "MEMORY",
    "StoreFactory",
    "Stores",
    "in_memory",
    "memory_stores",
    "redis_stores",
    "sqlite_stores",
    "stores_from",
]

REDIS_REQUIREMENT: Final = "redis[hiredis]>=8,<9"
"""What the Redis store needs beside the core, as in pyproject.toml: a command that names it works everywhere."""


@dataclass(frozen=True, kw_only=True)
class Stores:
    """One application's stores, open."""

    name: str
    """"memory", "sqlite" or "redis"."""
    routes: MappingStore
    log: EventLog
    spent: UsedTickets
    shared: bool = False
    """Whether workers share them. Where they do not, a second worker refuses to start."""

    @property
    def durable(self) -> bool:
        """Whether what they keep is there for longer than one process."""
        return self.name != "memory"


StoreFactory = Callable[[], AbstractAsyncContextManager[Stores]]
"""Opens an application's stores for as long as it runs. StoreUnavailable or StoreInUse where that cannot be."""


def in_memory(keep: Retention = DEFAULT_RETENTION) -> Stores:
    """In this process's memory, which needs no opening."""
    return Stores(name="memory", routes=MemoryMappingStore(), log=MemoryEventLog(keep), spent=MemoryUsedTickets())


def memory_stores(keep: Retention = DEFAULT_RETENTION) -> StoreFactory:
    """In this process's memory: the fastest, for one worker, and gone when it ends."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Stores]:
        yield in_memory(keep)

    return opened


def sqlite_stores(
    path: str | PathLike[str],
    keep: Retention = DEFAULT_RETENTION,
    *,
    synchronous: str = "normal",
    routes: int = MAX_ROUTES,
) -> StoreFactory:
    """In one SQLite file, for one worker: what was acknowledged is there when it is back.

    `synchronous` chooses what a power loss may cost, "off", "normal" or "full": see
    `bridgekit.stores.sqlite.file.Synchronous`. UnknownName for another.
    """
    from bridgekit.stores.sqlite import database, file, log, mapping, used_tickets

    setting = file.parse_synchronous(synchronous)
    location = Path(path).absolute()

    @asynccontextmanager
    async def opened() -> AsyncIterator[Stores]:
        async with database.open_database(location, setting) as opened_database:
            yield Stores(
                name="sqlite",
                routes=await mapping.SqliteMappingStore(opened_database, routes=routes).load(),
                log=await log.SqliteEventLog(opened_database, keep).load(),
                spent=await used_tickets.SqliteUsedTickets(opened_database).load(),
            )

    return opened


def redis_stores(url: str, keep: Retention = DEFAULT_RETENTION, *, prefix: str = "bridgekit") -> StoreFactory:
    """In a server of the Redis protocol, or a Cluster, for any number of workers on any number of machines.

    `url` names the server, or one node of the Cluster. The server's configuration decides what survives its restart.
    Applications that share a server need different prefixes: `redis://host:port/0?prefix=mine`, or `prefix`.

    NotInstalled where `redis` is missing, InvalidId where the URL names no server. Opening the stores raises
    AsyncioRequired on another event loop.
    """
    try:
        from bridgekit.stores.redis.log import RedisEventLog
        from bridgekit.stores.redis.mapping import RedisMappingStore, RedisUsedTickets
        from bridgekit.stores.redis.topology import ClusterTopology, parse_url
    except ModuleNotFoundError as error:
        raise NotInstalled("the Redis store", REDIS_REQUIREMENT) from error
    parse_url(url)

    @asynccontextmanager
    async def opened() -> AsyncIterator[Stores]:
        async with ClusterTopology(url, prefix=prefix) as topology, RedisEventLog(topology, keep) as log:
            yield Stores(
                name="redis",
                routes=RedisMappingStore(topology),
                log=log,
                spent=RedisUsedTickets(topology),
                shared=True,
            )

    return opened


def stores_from(url: str, *, keep: Retention = DEFAULT_RETENTION) -> StoreFactory:
    """The stores that a URL names: `memory:`, `sqlite:///a/file?synchronous=full`, `redis://host:port`, `rediss://…`.

    UnknownName for another; NotInstalled where a store's package is missing.
    """
    scheme, _, rest = url.partition(":")
    match scheme:
        case "memory":
            return memory_stores(keep)
        case "sqlite":
            # As SQLAlchemy writes it: three slashes before a relative path, four before an absolute one.
            path, _, query = rest.removeprefix("///").partition("?")
            return sqlite_stores(unquote(path), keep, synchronous=_synchronous_in(query))
        case "redis" | "rediss":
            return redis_stores(url, keep=keep)
    raise UnknownName("store", scheme, ("memory:", "sqlite:///FILE", "redis://HOST:PORT", "rediss://HOST:PORT"))


def _synchronous_in(query: str) -> str:
    settings = dict(parse_qsl(query, keep_blank_values=True))
    synchronous = settings.pop("synchronous", "normal")
    if settings:
        raise UnknownName("setting of the SQLite store", next(iter(settings)), ("synchronous",))
    return synchronous


MEMORY: Final = memory_stores()
"""What an application has that chose nothing else."""
