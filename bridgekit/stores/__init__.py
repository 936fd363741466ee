"""The stores of an application: routes, thread logs, used tickets and active runs, in memory, SQLite or Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
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
    "dropped_settings",
    "in_memory",
    "memory_stores",
    "redis_stores",
    "sqlite_stores",
    "stores_from",
]

REDIS_REQUIREMENT: Final = "redis[hiredis]>=8,<9"
"""The package that the Redis store requires, as in pyproject.toml. NotInstalled tells the user to install it."""
PREFIX: Final = "bridgekit"
DEFAULTS: Final[Mapping[str, object]] = {
    "retention": DEFAULT_RETENTION,
    "synchronous": "normal",
    "routes": MAX_ROUTES,
    "prefix": PREFIX,
}
"""The default values of a store's settings."""


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


@dataclass(frozen=True, eq=False)
class ConfiguredStores:
    """A StoreFactory with its settings, so that an option which replaces the stores does not drop the settings
    silently."""

    open: StoreFactory
    settings: Mapping[str, object]

    def __call__(self) -> AbstractAsyncContextManager[Stores]:
        return self.open()


def dropped_settings(configured: StoreFactory, replacement: StoreFactory) -> list[str]:
    """Return the names of the settings that differ from their defaults and that the replacement sets to other
    values."""
    if not (isinstance(configured, ConfiguredStores) and isinstance(replacement, ConfiguredStores)):
        return []
    given, other = configured.settings, replacement.settings
    return [name for name, value in given.items() if value not in (DEFAULTS[name], other.get(name, value))]


def in_memory(retention: Retention = DEFAULT_RETENTION) -> Stores:
    """Return stores in this process's memory, which do not have to be opened."""
    return Stores(
        name="memory", routes=MemoryMappingStore(), log=MemoryEventLog(retention), used_tickets=MemoryUsedTickets()
    )


def memory_stores(retention: Retention = DEFAULT_RETENTION) -> StoreFactory:
    """Stores in this process's memory. Memory stores are the fastest, serve one worker, and are lost when the worker
    ends."""

    @asynccontextmanager
    async def open_stores() -> AsyncIterator[Stores]:
        yield in_memory(retention)

    return ConfiguredStores(open_stores, {"retention": retention})


def sqlite_stores(
    path: str | PathLike[str],
    retention: Retention = DEFAULT_RETENTION,
    *,
    synchronous: str = "normal",
    routes: int = MAX_ROUTES,
) -> StoreFactory:
    """Stores in one SQLite file, for one worker. Acknowledged events survive the end of the process.

    `synchronous` is "off", "normal" or "full", and decides which events a power loss may lose: see
    `bridgekit.stores.sqlite.file.Synchronous`. Raises UnknownName for any other value of `synchronous`.
    """
    from bridgekit.stores.sqlite import file, group_commit, log, mapping_and_runs

    setting = file.parse_synchronous(synchronous)
    location = Path(path).absolute()

    @asynccontextmanager
    async def open_stores() -> AsyncIterator[Stores]:
        async with group_commit.open_database(location, setting) as opened_database:
            yield Stores(
                name="sqlite",
                routes=await mapping_and_runs.SqliteMappingStore(opened_database, routes=routes).load(),
                log=await log.SqliteEventLog(opened_database, retention).load(),
                used_tickets=MemoryUsedTickets(),
                runs=await mapping_and_runs.SqliteRunRegistry(opened_database).load(),
            )

    return ConfiguredStores(open_stores, {"retention": retention, "synchronous": setting.value, "routes": routes})


def redis_stores(url: str, retention: Retention = DEFAULT_RETENTION, *, prefix: str = PREFIX) -> StoreFactory:
    """Stores in a server or Cluster that speaks the Redis protocol, for any number of workers and machines.

    `url` names the server, or one node of the Cluster. The server's configuration decides which data survives its
    restart. Applications that share a server need different prefixes: `redis://host:port/0?prefix=mine`, or the
    argument `prefix`.

    Raises NotInstalled if the package `redis` is missing, and InvalidId if the URL is not valid. Opening the stores on
    an event loop other than asyncio's raises AsyncioRequired.
    """
    try:
        from bridgekit.stores.redis.active_runs import RedisRunRegistry
        from bridgekit.stores.redis.log import RedisEventLog
        from bridgekit.stores.redis.mapping_and_tickets import RedisMappingStore, RedisUsedTickets
        from bridgekit.stores.redis.topology import ClusterTopology, parse_url
    except ModuleNotFoundError as error:
        raise NotInstalled("the Redis store", REDIS_REQUIREMENT) from error
    _, url_settings = parse_url(url)

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

    return ConfiguredStores(open_stores, {"retention": retention, "prefix": url_settings.get("prefix", prefix)})


def stores_from(url: str, *, retention: Retention = DEFAULT_RETENTION) -> StoreFactory:
    """Return the stores of a URL: `memory:`, `sqlite:///a/file?synchronous=full`, `redis://host:port` or `rediss://…`.

    Raises UnknownName for another scheme or an unknown setting, InvalidId for a Redis URL that is not valid, and
    NotInstalled if a required package is missing.
    """
    scheme, _, rest = url.partition(":")
    match scheme:
        case "memory" if rest in ("", "//"):
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
