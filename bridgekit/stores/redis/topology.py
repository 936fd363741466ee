"""The server or Cluster behind a URL: a client for each node, which node has a slot, and whether it answers.

redis-py connects, reconnects and speaks the protocol. Each node has a client of its own. With one `RedisCluster` for
all, commands to every node wait while it reads the layout again because one node does not answer.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, cast

import anyio
from anyio import AsyncContextManagerMixin
from anyio.abc import TaskGroup
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.connection import parse_url as parse_redis_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import REDIS_CLUSTER_HASH_SLOTS
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError, ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from bridgekit.errors import AsyncioRequired, InvalidId, StoreUnavailable, unwrap_single_error
from bridgekit.stores.redis.functions import SOURCE, KeyNames

__all__ = [
    "CONNECTION_ERRORS", "NO_NODE", "STORE", "ClusterTopology", "Command", "Node", "RetryDelay", "error_message",
    "parse_url",
]  # fmt: skip

_log = logging.getLogger(__name__)

STORE: Final = "redis"
OLDEST_VERSION: Final = 7
OPEN_TIMEOUT_SECONDS: Final = 5.0
"""How long an application that starts waits for its store."""
CONNECT_TIMEOUT_SECONDS: Final = 1.0
REPLY_TIMEOUT_SECONDS: Final = 1.0
"""A connection on which a reply takes longer is closed: a server that hangs does not close it."""
CALL_TIMEOUT_SECONDS: Final = 1.0
"""How long one call waits, with its retries. Once the node is marked unavailable, calls fail at once."""
UNAVAILABLE_AFTER_SECONDS: Final = 0.25
"""A node whose commands have failed for so long is unavailable."""
REFRESH_INTERVAL_SECONDS: Final = 0.25
"""Between two requests for the layout of the Cluster."""
REQUEST_CONNECTIONS: Final = 4
"""Connections of a node for requests, beside those for appended events and subscriptions."""
REQUEST_COMMANDS: Final = 32
"""Requests that are sent in one write."""

CONNECTION_ERRORS: Final = (RedisError, OSError, TimeoutError)
"""What a command raises when it is refused, or its connection lost. The reply may be lost after it was executed."""

NO_NODE: Final = "no node has the slot"
CLOSED: Final = "the connections to the node are closed"

Address = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""
Command = Sequence[bytes | str | int]


class RetryDelay:
    """Pauses between attempts: each twice as long, up to a second, and random, so that workers do not retry in step."""

    FIRST_SECONDS: Final = 0.05
    LONGEST_SECONDS: Final = 1.0

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._seconds = self.FIRST_SECONDS

    def next(self) -> float:
        seconds, self._seconds = self._seconds, min(2 * self._seconds, self.LONGEST_SECONDS)
        return seconds * random.uniform(0.5, 1.0)


class Node:
    """One server: its client, its requests, and whether it answers.

    Its own tasks send all commands. So a caller that is cancelled does not close a connection, and requests that are
    made together share one write.
    """

    def __init__(self, address: Address, settings: Mapping[str, Any], on_failure: Callable[[], None]) -> None:
        self.address = address
        self.slots: frozenset[int] = frozenset()
        self.is_cluster = False
        self.syncs_each_write = False
        """Whether it syncs each write to its disk before it answers."""
        self.problem = "not connected yet"
        """Why the last command failed."""
        self.scope = anyio.CancelScope()
        self._warned = False
        self._on_failure = on_failure
        place = {"path": address} if isinstance(address, str) else {"host": address[0], "port": address[1]}
        self.client = Redis.from_pool(ConnectionPool(**settings, **place, redis_connect_func=self._on_connect))
        self._requests: asyncio.Queue[tuple[Command, asyncio.Future[Any]]] = asyncio.Queue()
        self.answering = asyncio.Event()
        """Set while commands are answered."""
        self.failing = asyncio.Event()
        """Set while they are not."""
        self.failing.set()
        self._failing_since = time.monotonic()

    def __repr__(self) -> str:
        return f"Node({self.address!r})"

    @property
    def unavailable(self) -> bool:
        """Whether commands have failed for so long that no caller should wait for it."""
        return self.failing.is_set() and time.monotonic() - self._failing_since >= UNAVAILABLE_AFTER_SECONDS

    def request(self, *command: bytes | str | int) -> asyncio.Future[Any]:
        """Send one command with the next write; the reply is the future's result. It may be cancelled."""
        reply = asyncio.get_running_loop().create_future()
        self._requests.put_nowait((command, reply))
        return reply

    async def execute(self, *commands: Command) -> list[Any]:
        """Send commands in one write, and return each reply or error. Raises where the connection is lost.

        To be called in tasks of this store: where one is cancelled meanwhile, the connection is closed.
        """
        began, replies = time.monotonic(), list[Any]()
        pool: Any = self.client.connection_pool  # get_connection is not annotated
        try:
            async with asyncio.timeout(REPLY_TIMEOUT_SECONDS):
                connection = await pool.get_connection()
                try:
                    await connection.send_packed_command(connection.pack_commands(commands))
                    for _ in commands:
                        try:
                            replies.append(await connection.read_response())
                        except ResponseError as error:
                            replies.append(error)
                finally:
                    await pool.release(connection)
        except TimeoutError:
            self._failed(f"no answer in {REPLY_TIMEOUT_SECONDS:g} s", began)
            raise
        except CONNECTION_ERRORS as error:
            self._failed(error_message(error), began)
            raise
        self.answering.set()
        self.failing.clear()
        if any(isinstance(reply, ResponseError) and _needs_new_connection(reply) for reply in replies):
            await pool.disconnect(inuse_connections=False)
        return replies

    def _failed(self, problem: str, since: float) -> None:
        self.problem = problem
        if self.answering.is_set():
            self._failing_since = since
            self.answering.clear()
            self.failing.set()
        self._on_failure()

    async def run(self) -> None:
        """Serve requests, until the node has left the Cluster or the store is closed."""
        try:
            with self.scope:
                async with anyio.create_task_group() as tasks:
                    for _ in range(REQUEST_CONNECTIONS):
                        tasks.start_soon(self._serve_requests)
                    tasks.start_soon(self._recover)
        finally:
            while not self._requests.empty():
                _resolve(self._requests.get_nowait()[1], ConnectionResetError(CLOSED))
            with anyio.CancelScope(shield=True), suppress(*CONNECTION_ERRORS):
                await self.client.aclose()

    async def _serve_requests(self) -> None:
        while True:
            requests = [await self._requests.get()]
            while len(requests) < REQUEST_COMMANDS and not self._requests.empty():
                requests.append(self._requests.get_nowait())
            replies: list[Any] = [ConnectionResetError(CLOSED)] * len(requests)
            try:
                replies = await self.execute(*[command for command, _ in requests])
            except CONNECTION_ERRORS as error:
                replies = [error] * len(requests)
            finally:
                for (_, future), reply in zip(requests, replies, strict=True):
                    _resolve(future, reply)

    async def _recover(self) -> None:
        """Connect at the beginning, and again whenever commands fail."""
        backoff = RetryDelay()
        while True:
            await self.failing.wait()
            with suppress(*CONNECTION_ERRORS):
                await self.execute(("PING",))
                backoff.reset()
                continue
            await asyncio.sleep(backoff.next())

    async def _on_connect(self, connection: AbstractConnection) -> None:
        """Shake hands on a new connection, and make sure that the server can do what it is asked for."""
        await connection.on_connect()
        lines: list[str] = (await _ask(connection, "INFO")).decode().splitlines()
        info = dict(line.split(":", 1) for line in lines if ":" in line)
        version = info.get("redis_version", "0")
        if int(version.partition(".")[0]) < OLDEST_VERSION:
            raise RedisConnectionError(f"it is version {version}; Redis {OLDEST_VERSION} or Valkey is needed")
        if info.get("role") != "master":
            raise RedisConnectionError("it is a replica, which cannot be written to")
        evicts = info.get("maxmemory", "0") != "0" and info.get("maxmemory_policy") != "noeviction"
        if evicts and not self._warned:
            self._warned = True
            _log.warning("%s evicts keys when its memory is full, also live runs' routes: set noeviction", self)
        self.is_cluster = info.get("cluster_enabled") == "1"
        settings: Any = None
        # Not every user may read the configuration. Then nothing is assumed.
        with suppress(ResponseError):
            settings = await _ask(connection, "CONFIG", "GET", "appendonly", "appendfsync")
        self.syncs_each_write = settings == {b"appendonly": b"yes", b"appendfsync": b"always"}
        try:
            await _ask(connection, "FUNCTION", "LOAD", SOURCE)
        except ResponseError as error:
            # A version is never replaced: the first worker has loaded the same text.
            if "already exists" not in str(error):
                raise


class ClusterTopology(AsyncContextManagerMixin):
    """All nodes of a store; a single server is a cluster of one node. StoreUnavailable if none answers on opening."""

    def __init__(self, url: str, *, prefix: str = "bridgekit") -> None:
        self._address, self._settings = parse_url(url)
        prefix, database = self._settings.pop("prefix", prefix), self._settings.get("db", 0)
        # Channels belong to no database, so that their names have to differ.
        self.names = KeyNames(f"{prefix}@{database}" if database else prefix)
        self.is_cluster = False
        self._nodes: dict[Address, Node] = {}
        self._node_by_slot: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._stale = asyncio.Event()
        self._known = asyncio.Event()
        self._on_change: list[Callable[[], None]] = []

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[ClusterTopology]:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise AsyncioRequired("the Redis store") from None
        with unwrap_single_error():
            async with anyio.create_task_group() as tasks:
                await self._open(tasks)
                yield self
                tasks.cancel_scope.cancel()

    def __iter__(self) -> Iterator[Node]:
        """The nodes that have slots."""
        return iter([node for node in self._nodes.values() if node.slots])

    def node_for_slot(self, slot: int) -> Node | None:
        """The node that has the slot, as far as is known, or None."""
        return self._node_by_slot[slot]

    def on_change(self, call: Callable[[], None]) -> None:
        """Call this whenever slots have moved, or nodes have come or gone."""
        self._on_change.append(call)

    def refresh(self) -> None:
        """Ask for the layout again."""
        self._stale.set()

    async def call(self, slot: int, *command: bytes | str | int) -> Any:
        """Execute an idempotent command. StoreUnavailable if no reply arrives in time."""
        backoff, problem = RetryDelay(), f"no answer in {CALL_TIMEOUT_SECONDS:g} s"
        with anyio.move_on_after(CALL_TIMEOUT_SECONDS):
            while (node := self.node_for_slot(slot)) is not None:
                if node.unavailable:
                    raise StoreUnavailable(STORE, node.problem)
                try:
                    return await node.request(*command)
                except CONNECTION_ERRORS as error:
                    problem = error_message(error)
                    self.refresh()
                await asyncio.sleep(backoff.next())
            raise StoreUnavailable(STORE, NO_NODE)
        raise StoreUnavailable(STORE, problem)

    async def _open(self, tasks: TaskGroup) -> None:
        first = self._add(self._address, tasks)
        with anyio.move_on_after(OPEN_TIMEOUT_SECONDS):
            await first.answering.wait()
            self.is_cluster = first.is_cluster
            if self.is_cluster:
                self.refresh()
                tasks.start_soon(self._follow_layout, tasks)
                await self._known.wait()
            else:
                self._apply({first.address: frozenset(range(REDIS_CLUSTER_HASH_SLOTS))}, tasks)
            for node in self:
                await node.answering.wait()
            return
        raise StoreUnavailable(STORE, first.problem)

    def _add(self, address: Address, tasks: TaskGroup) -> Node:
        node = self._nodes[address] = Node(address, self._settings, self.refresh)
        tasks.start_soon(node.run)
        return node

    async def _follow_layout(self, tasks: TaskGroup) -> None:
        """Ask for the layout of the Cluster whenever there is a reason to."""
        while True:
            await self._stale.wait()
            self._stale.clear()
            if not await self._read_layout(tasks):
                self._stale.set()
            await asyncio.sleep(REFRESH_INTERVAL_SECONDS)

    async def _read_layout(self, tasks: TaskGroup) -> bool:
        # In random order: a node that was cut off from the others still has an old layout.
        for node in random.sample(list(self._nodes.values()), len(self._nodes)):
            if node.answering.is_set():
                with suppress(*CONNECTION_ERRORS):
                    layout: dict[Address, frozenset[int]] = {}
                    for first, last, (host, port, *_), *_ in await node.request("CLUSTER SLOTS"):
                        # A node that does not know its own host has the one at which it was asked.
                        address = (host.decode() if host else node.address[0], port)
                        layout[address] = layout.get(address, frozenset()) | frozenset(range(first, last + 1))
                    self._apply(layout, tasks)
                    return True
        return False

    def _apply(self, layout: Mapping[Address, frozenset[int]], tasks: TaskGroup) -> None:
        for address in layout.keys() - self._nodes.keys():
            self._add(address, tasks)
        for address, node in list(self._nodes.items()):
            node.slots = layout.get(address, frozenset())
            # The node of the URL stays: it can be asked when all others have left.
            if not node.slots and address != self._address:
                self._nodes.pop(address).scope.cancel()
        self._known.set()
        by_slot: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for node in self:
            for slot in node.slots:
                by_slot[slot] = node
        if by_slot != self._node_by_slot:
            self._node_by_slot = by_slot
            for call in self._on_change:
                call()


def parse_url(url: str) -> tuple[Address, dict[str, Any]]:
    """A server's address, and redis-py's settings of connections to it and `prefix`. InvalidId for any other URL."""
    try:
        settings: dict[str, Any] = {**parse_redis_url(url)}
        address: Address = settings.pop("path", "") or (settings.pop("host", ""), settings.pop("port", 6379))
        if not address[0]:
            raise ValueError("no host")
        prefix = {"prefix": settings.pop("prefix")} if "prefix" in settings else {}
        settings |= {
            "protocol": 3,
            "retry": Retry(NoBackoff(), 0, ()),
            "socket_timeout": None,
            "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        }
        # Settings that redis-py does not know are found here, and not when the store is opened.
        cast("Any", ConnectionPool(**settings)).make_connection()
    except (TypeError, ValueError, RedisError):
        # Without the URL, which may have a password.
        raise InvalidId("url", "must be redis://, rediss:// or unix://, with a host and a port") from None
    return address, settings | prefix


def error_message(error: BaseException) -> str:
    """The text of an error, or of the first in a group. It has no URL, which may have a password."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__


def _resolve(future: asyncio.Future[Any], reply: Any) -> None:
    if not future.done():
        (future.set_exception if isinstance(reply, BaseException) else future.set_result)(reply)


def _needs_new_connection(error: ResponseError) -> bool:
    # A new connection finds the new primary by its name, loads the functions, or raises what is wrong.
    return isinstance(error, ReadOnlyError) or "function not found" in str(error).lower()


async def _ask(connection: AbstractConnection, *command: bytes | str) -> Any:
    await connection.send_command(*command, check_health=False)
    return await connection.read_response()
