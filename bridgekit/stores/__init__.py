"""The stores of an application: routes, thread logs, used tickets and active runs, in memory, SQLite or Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote

from bridgekit.errors import NotInstalled, UnknownName
from bridgekit.mapping import MappingStore, MemoryMappingStore, MemoryRunRegistry, RunRegistry
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
"""The requirement of the Redis store, as in pyproject.toml, which the error NotInstalled tells the user to install."""


@dataclass(frozen=True, kw_only=True)
class Stores:
    """One application's open stores."""

    name: str
    """"memory", "sqlite" or "redis"."""
    routes: MappingStore
    log: EventLog
    used_tickets: UsedTickets
    runs: RunRegistry = field(default_factory=MemoryRunRegistry)
    shared: bool = False
    """True if workers share the stores. If False, a second worker refuses to start."""

    @property
    def durable(self) -> bool:
        """True if the stores outlive the process."""
        return self.name != "memory"


StoreFactory = Callable[[], AbstractAsyncContextManager[Stores]]
"""Opens an application's stores for as long as the application runs. Raises StoreUnavailable, StoreInUse, StoreUnusable
or AsyncioRequired if the stores cannot be opened."""


def in_memory(retention: Retention = DEFAULT_RETENTION) -> Stores:
    """Return stores in this process's memory, which need no opening."""
    return Stores(
        name="memory", routes=MemoryMappingStore(), log=MemoryEventLog(retention), used_tickets=MemoryUsedTickets()
    )


def memory_stores(retention: Retention = DEFAULT_RETENTION) -> StoreFactory:
    """Stores in this process's memory. Memory stores are the fastest, serve one worker, and are lost when the worker
    ends."""

    @asynccontextmanager
    async def open_stores() -> AsyncIterator[Stores]:
        yield in_memory(retention)

    return open_stores


def sqlite_stores(
    path: str | PathLike[str],
    retention: Retention = DEFAULT_RETENTION,
    *,
    synchronous: str = "normal",
    routes: int = MAX_ROUTES,
) -> StoreFactory:
    """Stores in one SQLite file, for one worker. An acknowledged event survives the end of the process.

    `synchronous` is "off", "normal" or "full", and decides which events a power loss may lose: see
    `bridgekit.stores.sqlite.file.Synchronous`. Raises UnknownName for any other value of `synchronous`.
    """
    from bridgekit.stores.sqlite import file, group_commit, log, mapping

    setting = file.parse_synchronous(synchronous)
    location = Path(path).absolute()

    @asynccontextmanager
    async def open_stores() -> AsyncIterator[Stores]:
        async with group_commit.open_database(location, setting) as opened_database:
            yield Stores(
                name="sqlite",
                routes=await mapping.SqliteMappingStore(opened_database, routes=routes).load(),
                log=await log.SqliteEventLog(opened_database, retention).load(),
                used_tickets=MemoryUsedTickets(),
                runs=await mapping.SqliteRunRegistry(opened_database).load(),
            )

    return open_stores


def redis_stores(url: str, retention: Retention = DEFAULT_RETENTION, *, prefix: str = "bridgekit") -> StoreFactory:
    """Stores in a server or Cluster that speaks the Redis protocol, for any number of workers and machines.

    `url` names the server, or one node of the Cluster. The server's configuration decides which data survives its
    restart. Applications that share a server need different prefixes: `redis://host:port/0?prefix=mine`, or `prefix`.

    Raises NotInstalled if the package `redis` is missing, and InvalidId if the URL names no server. Opening the stores
    on another event loop than asyncio's raises AsyncioRequired.
    """
    try:
        from bridgekit.stores.redis.active_runs import RedisRunRegistry
        from bridgekit.stores.redis.log import RedisEventLog
        from bridgekit.stores.redis.mapping import RedisMappingStore, RedisUsedTickets
        from bridgekit.stores.redis.topology import ClusterTopology, parse_url
    except ModuleNotFoundError as error:
        raise NotInstalled("the Redis store", REDIS_REQUIREMENT) from error
    parse_url(url)

    @asynccontextmanager
    async def open_stores() -> AsyncIterator[Stores]:
        async with (
            ClusterTopology(url, prefix=prefix) as topology,
            RedisRunRegistry(
                topology, used_tickets := RedisUsedTickets(topology), log := RedisEventLog(topology, retention)
            ) as runs,
            log,
        ):
            yield Stores(
                name="redis",
                routes=RedisMappingStore(topology),
                log=log,
                used_tickets=used_tickets,
                runs=runs,
                shared=True,
            )

    return open_stores


def stores_from(url: str, *, retention: Retention = DEFAULT_RETENTION) -> StoreFactory:
    """Return the stores of a URL: `memory:`, `sqlite:///a/file?synchronous=full`, `redis://host:port` or `rediss://…`.

    Raises UnknownName for another scheme or an unknown setting, InvalidId for a Redis URL that is not valid, and
    NotInstalled if a required package is missing.
    """
    scheme, _, rest = url.partition(":")
    match scheme:
        case "memory":
            return memory_stores(retention)
        case "sqlite":
            # SQLAlchemy's notation: three slashes before a relative path, four before an absolute one.
            path, _, query = rest.removeprefix("///").partition("?")
            return sqlite_stores(unquote(path), retention, synchronous=_synchronous_in(query))
        case "redis" | "rediss":
            return redis_stores(url, retention=retention)
    raise UnknownName("store", scheme, ("memory:", "sqlite:///FILE", "redis://HOST:PORT", "rediss://HOST:PORT"))


def _synchronous_in(query: str) -> str:
    settings = dict(parse_qsl(query, keep_blank_values=True))
    synchronous = settings.pop("synchronous", "normal")
    if settings:
        raise UnknownName("setting of the SQLite store", next(iter(settings)), ("synchronous",))
    return synchronous


MEMORY: Final = memory_stores()
"""The default stores of an application."""
