"""The server, or the Cluster, behind one URL: which of its servers has a key, and a line to each.

Redis 7 or Valkey. Whether it is a Cluster the server itself says; a single server is a Cluster of one here.
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, cast

import anyio
from anyio import AsyncContextManagerMixin
from anyio.abc import TaskGroup
from coredis import exceptions
from coredis.connection import Location, TCPLocation
from coredis.typing import RedisValueT, ResponseType

from bridgekit.errors import InvalidId, StoreAway, first_error
from bridgekit.storage.redis_door import TROUBLE, Door, Wire, problem_of
from bridgekit.storage.redis_library import SLOTS, SOURCE, Names
from bridgekit.storage.redis_line import SILENCE_SECONDS, Backoff, Line

__all__ = ["ASK_SECONDS", "OPEN_SECONDS", "PREFIX", "STORE", "Server", "Servers", "door_of"]

_log = logging.getLogger(__name__)

STORE: Final = "redis"
PREFIX: Final = "bridgekit"
OLDEST_VERSION: Final = 7
OPEN_SECONDS: Final = 5.0
"""How long an application that starts waits for its store."""
ASK_SECONDS: Final = 1.0
"""How long a question that failed is asked again. Of a store that is known to be away nothing is asked."""
REFRESH_SECONDS: Final = 0.25
"""Between two questions after who has which slots."""


class Server:
    """One server: its line, and what it said of itself when it was connected."""

    def __init__(self, door: Door, lost: Callable[[], None]) -> None:
        self.door = door
        self.line = Line(door, self._greet, lost)
        self.slots: frozenset[int] = frozenset()
        self.is_cluster = False
        self.promises = False
        """Whether it syncs each write to its disk before it answers."""
        self.scope = anyio.CancelScope()

    def __repr__(self) -> str:
        return f"Server({self.door.location!r})"

    async def run(self) -> None:
        """Keep its line up, until it has left the Cluster."""
        with self.scope:
            await self.line.run()

    async def _greet(self, connection: Wire) -> None:
        """Make sure that it can do what is asked of it; OSError says what is wrong."""
        said = _facts(await connection.ask(b"INFO"))
        version = said.get("redis_version", "0")
        if int(version.partition(".")[0]) < OLDEST_VERSION:
            raise OSError(f"it is version {version}; Redis {OLDEST_VERSION} or Valkey is needed")
        if said.get("role") != "master":
            raise OSError("it is a replica, which cannot be written to")
        if said.get("maxmemory", "0") != "0" and said.get("maxmemory_policy") != "noeviction":
            _log.warning("%s forgets keys when it is full, also live runs' routes: set it to noeviction", self)
        self.is_cluster = said.get("cluster_enabled") == "1"
        self.promises = await _syncs_each_write(connection)
        await _load(connection)


class Servers(AsyncContextManagerMixin):
    """All servers of a store. Open for the length of a block; StoreAway where nobody answers at its beginning."""

    def __init__(self, url: str, *, prefix: str = PREFIX) -> None:
        self._door = door_of(url)
        # Channels know no databases, so that the name has to tell them apart.
        self.names = Names(f"{prefix}@{self._door.database}" if self._door.database else prefix)
        self.is_cluster = False
        self._servers: dict[Location, Server] = {}
        self._by_slot: list[Server | None] = [None] * SLOTS
        self._stale = anyio.Event()
        self._settled = anyio.Event()
        self._watchers: list[Callable[[], None]] = []

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Servers]:
        with first_error():
            async with anyio.create_task_group() as tasks:
                await self._begin(tasks)
                yield self
                tasks.cancel_scope.cancel()

    def __iter__(self) -> Iterator[Server]:
        """The servers that have slots."""
        return iter([server for server in self._servers.values() if server.slots])

    def of(self, slot: int) -> Server | None:
        """The server that has the slot, as far as is known; None where nobody has it."""
        return self._by_slot[slot]

    def watch(self, changed: Callable[[], None]) -> None:
        """Call this whenever slots have moved, or servers have come or gone."""
        self._watchers.append(changed)

    def refresh(self) -> None:
        """Find out again who has which slots."""
        self._stale.set()

    def heed(self, server: Server, error: BaseException) -> None:
        """Do what helps after that error of a command to that server."""
        if _lacks_function(error):
            # It was emptied. With the next connection it is given the functions.
            server.line.drop("it lacks the functions")
        elif isinstance(error, exceptions.ReadOnlyError):
            # It has become a replica. By its name somebody else may be found, or in the Cluster.
            server.line.drop("it has become a replica")
        elif isinstance(error, exceptions.RedisClusterError):
            # MOVED, ASK, TRYAGAIN, CLUSTERDOWN: it has the slot no longer, or not yet.
            self.refresh()

    async def call(self, slot: int, name: bytes, *arguments: RedisValueT) -> ResponseType:
        """One command that may be done twice without harm. StoreAway where it is not answered in time."""
        backoff, problem, deadline = Backoff(), "no server has the slot", anyio.current_time() + ASK_SECONDS
        while (server := self.of(slot)) is not None and anyio.current_time() < deadline:
            try:
                return await server.line.ask(name, *arguments)
            except TimeoutError:
                problem = server.line.problem if server.line.away else f"no answer in {SILENCE_SECONDS:.0f} s"
                break
            except TROUBLE as error:
                problem = problem_of(error)
                self.heed(server, error)
            await anyio.sleep(backoff.next())
        raise StoreAway(STORE, problem)

    async def _begin(self, tasks: TaskGroup) -> None:
        first = self._add(self._door, tasks)
        with anyio.move_on_after(OPEN_SECONDS):
            await first.line.up()
            self.is_cluster = first.is_cluster
            if self.is_cluster:
                self._stale.set()
                tasks.start_soon(self._follow, tasks)
                await self._settled.wait()
            else:
                self._settle({first.door.location: frozenset(range(SLOTS))}, tasks)
            for server in self:
                await server.line.up()
            return
        raise StoreAway(STORE, first.line.problem)

    def _add(self, door: Door, tasks: TaskGroup) -> Server:
        server = self._servers[door.location] = Server(door, self.refresh)
        tasks.start_soon(server.run)
        return server

    async def _follow(self, tasks: TaskGroup) -> None:
        """Find out who has which slots whenever there is a reason to ask."""
        while True:
            await self._stale.wait()
            self._stale = anyio.Event()
            # In no fixed order: a server that was cut off from the others tells of a past.
            for server in random.sample(list(self._servers.values()), len(self._servers)):
                if server.line.connected:
                    with suppress(*TROUBLE):
                        told = await server.line.ask(b"CLUSTER SLOTS")
                        self._settle(_layout(told, server.door.location), tasks)
                        break
            await anyio.sleep(REFRESH_SECONDS)

    def _settle(self, layout: Mapping[Location, frozenset[int]], tasks: TaskGroup) -> None:
        for location in layout.keys() - self._servers.keys():
            self._add(self._door.to(location), tasks)
        for location, server in list(self._servers.items()):
            server.slots = layout.get(location, frozenset())
            # The one that the URL names stays: it can be asked when all others have gone.
            if not server.slots and location != self._door.location:
                self._servers.pop(location).scope.cancel()
        self._settled.set()
        by_slot = _index(self)
        if by_slot != self._by_slot:
            self._by_slot = by_slot
            for changed in self._watchers:
                changed()


def door_of(url: str) -> Door:
    """Read a server's URL; InvalidId where it is none."""
    try:
        return Door.of(url)
    except ValueError:
        # Without the URL, which may hold a password.
        raise InvalidId("url", "must be redis://, rediss:// or unix://, with a host and a port") from None


def _index(servers: Iterable[Server]) -> list[Server | None]:
    by_slot: list[Server | None] = [None] * SLOTS
    for server in servers:
        for slot in server.slots:
            by_slot[slot] = server
    return by_slot


async def _load(connection: Wire) -> None:
    try:
        await connection.ask(b"FUNCTION LOAD", SOURCE)
    except exceptions.ResponseError as error:
        # A version is never replaced: whoever was first has loaded the same text.
        if "already exists" not in str(error):
            raise


def _lacks_function(error: BaseException) -> bool:
    return isinstance(error, exceptions.ResponseError) and "function not found" in str(error).lower()


def _facts(info: ResponseType) -> dict[str, str]:
    lines = (line.partition(":") for line in cast("bytes", info).decode().splitlines())
    return {name: value for name, colon, value in lines if colon}


async def _syncs_each_write(connection: Wire) -> bool:
    try:
        said = await connection.ask(b"CONFIG GET", b"appendonly", b"appendfsync")
    except exceptions.ResponseError:
        # Not everybody may ask that. Then nothing is promised.
        return False
    return said == {b"appendonly": b"yes", b"appendfsync": b"always"}


def _layout(told: ResponseType, asked: Location) -> dict[Location, frozenset[int]]:
    """CLUSTER SLOTS as primary → slots. Who does not say its host has that of the one who was asked."""
    layout: dict[Location, frozenset[int]] = {}
    for first, last, primary, *_ in cast("list[Any]", told):
        host = primary[0].decode() if primary[0] else cast("TCPLocation", asked).host
        location = TCPLocation(host, primary[1])
        layout[location] = layout.get(location, frozenset()) | frozenset(range(first, last + 1))
    return layout
