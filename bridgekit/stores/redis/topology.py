"""Finds the nodes of the server or Cluster behind a URL, and tracks their slots and availability.

redis-py connects, reconnects and implements the protocol. Each node has its own client. With a single `RedisCluster`,
one node that does not reply would delay the commands to every node, because the client then reads the layout again.
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
from bridgekit.stores.redis.keys_and_functions import SOURCE, KeyNames
from bridgekit.stores.redis.server_errors import (
    CONNECTION_ERRORS,
    KeyProblem,
    RetryDelay,
    concerns_key,
    error_message,
    key_of,
)
from bridgekit.transport.cancellation import require_loop

__all__ = [
    "CONNECTION_ERRORS", "NO_NODE", "STORE", "ClusterTopology", "Command", "Node", "RetryDelay", "concerns_key",
    "error_message", "parse_url",
]  # fmt: skip

_log = logging.getLogger(__name__)

STORE: Final = "redis"
OLDEST_VERSION: Final = 7
OPEN_TIMEOUT_SECONDS: Final = 5.0
"""How long a starting application waits for its store."""
CONNECT_TIMEOUT_SECONDS: Final = 1.0
REPLY_TIMEOUT_SECONDS: Final = 1.0
"""How long the client waits for a reply before it closes the connection, because a hanging server does not close it."""
CALL_TIMEOUT_SECONDS: Final = 1.0
"""How long one call may take, including retries. Once the node is marked unavailable, calls fail immediately."""
UNAVAILABLE_AFTER_SECONDS: Final = 0.25
"""A node is unavailable after its commands have failed for this long."""
REFRESH_INTERVAL_SECONDS: Final = 0.25
"""Pause between requests for the layout of the Cluster."""
REQUEST_CONNECTIONS: Final = 4
"""The number of connections to a node for requests. Publishing and subscriptions use other connections."""
REQUEST_COMMANDS: Final = 32
"""Limit on requests in one write."""

NO_NODE: Final = "no node of the Cluster serves the slot"
CLOSED: Final = "the connections to the node are closed"

Address = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""
Command = Sequence[bytes | str | int]


class Node:
    """One server: its client, its pending requests, and whether it is available.

    The store's own tasks send all commands, so that a cancelled caller does not close a connection. Requests that are
    made together share one write.
    """

    def __init__(self, address: Address, settings: Mapping[str, Any], on_failure: Callable[[], None]) -> None:
        self.address = address
        self.slots: frozenset[int] = frozenset()
        self.is_cluster = False
        self.syncs_each_write = False
        """True if the server syncs each write to disk before it replies."""
        self.problem = "not connected yet"
        """The reason why the last command failed."""
        self.scope = anyio.CancelScope()
        self._was_answering = False
        """True once the server has answered. Only later failures are logged."""
        self._on_failure = on_failure
        endpoint = {"path": address} if isinstance(address, str) else {"host": address[0], "port": address[1]}
        self.client = Redis.from_pool(ConnectionPool(**settings, **endpoint, redis_connect_func=self._on_connect))
        self._requests: asyncio.Queue[tuple[Command, asyncio.Future[Any]]] = asyncio.Queue()
        self.answering = asyncio.Event()
        """Set while commands get replies."""
        self.failing = asyncio.Event()
        """Set while commands fail."""
        self.failing.set()
        self._failing_since = time.monotonic()

    def __repr__(self) -> str:
        return f"Node({self.address!r})"

    @property
    def unavailable(self) -> bool:
        """True if commands have failed for so long that callers do not wait for the node."""
        return self.failing.is_set() and time.monotonic() - self._failing_since >= UNAVAILABLE_AFTER_SECONDS

    def request(self, *command: bytes | str | int) -> asyncio.Future[Any]:
        """Send one command with the next write, and return a future for the reply. The caller may cancel the future."""
        reply = asyncio.get_running_loop().create_future()
        self._requests.put_nowait((command, reply))
        return reply

    async def execute(self, *commands: Command) -> list[Any]:
        """Send commands in one write, and return each reply or error. Raises an error if the connection is lost.

        Only the store's own tasks call `execute`, because cancelling the calling task closes the connection.
        """
        started, replies = time.monotonic(), list[Any]()
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
            self._failed(f"no reply within {REPLY_TIMEOUT_SECONDS:g} s", started)
            raise
        except CONNECTION_ERRORS as error:
            self._failed(error_message(error), started)
            raise
        if self._was_answering and self.failing.is_set():
            _log.warning("%s answers again", self)
        self._was_answering = True
        self.answering.set()
        self.failing.clear()
        if any(isinstance(reply, ResponseError) and _needs_new_connection(reply) for reply in replies):
            await pool.disconnect(inuse_connections=False)
        return replies

    def _failed(self, problem: str, since: float) -> None:
        if self._was_answering and (self.answering.is_set() or problem != self.problem):
            _log.warning("%s is unavailable: %s", self, problem)
        self.problem = problem
        if self.answering.is_set():
            self._failing_since = since
            self.answering.clear()
            self.failing.set()
        self._on_failure()

    async def run(self) -> None:
        """Serve requests until the node has left the Cluster or the store is closed."""
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
        """Connect at the start, and reconnect whenever commands fail."""
        backoff = RetryDelay()
        while True:
            await self.failing.wait()
            with suppress(*CONNECTION_ERRORS):
                await self.execute(("PING",))
                backoff.reset()
                continue
            await asyncio.sleep(backoff.next())

    async def _on_connect(self, connection: AbstractConnection) -> None:
        """Complete the handshake of a new connection, check the server, and load the functions."""
        await connection.on_connect()
        lines: list[str] = (await _ask(connection, "INFO")).decode().splitlines()
        info = dict(line.split(":", 1) for line in lines if ":" in line)
        version = info.get("redis_version", "0")
        if int(version.partition(".")[0]) < OLDEST_VERSION:
            raise RedisConnectionError(f"its version is {version}; use Redis {OLDEST_VERSION} or newer, or Valkey")
        if info.get("role") != "master":
            problem = "READONLY it is a replica, which accepts no writes; use the URL of the primary"
            raise RedisConnectionError(problem)
        if (policy := info.get("maxmemory_policy", "noeviction")) != "noeviction":
            problem = f"its maxmemory-policy {policy} may delete logs, routes and used tickets; set it to noeviction"
            if not self._was_answering:
                raise RedisConnectionError(problem)
            _log.warning("%s: %s", self, problem)
        self.is_cluster = info.get("cluster_enabled") == "1"
        settings: Any = None
        # The Redis user may lack permission to read the configuration. In that case, assume that writes are not synced.
        with suppress(ResponseError):
            settings = await _ask(connection, "CONFIG", "GET", "appendonly", "appendfsync")
        self.syncs_each_write = settings == {b"appendonly": b"yes", b"appendfsync": b"always"}
        try:
            await _ask(connection, "FUNCTION", "LOAD", SOURCE)
        except ResponseError as error:
            # A loaded library of this name has the same text, because the name contains a hash of the text.
            if "already exists" not in str(error):
                raise


class ClusterTopology(AsyncContextManagerMixin):
    """All nodes of a store, or its one server. Opening a topology raises StoreUnavailable if no node replies."""

    def __init__(self, url: str, *, prefix: str = "bridgekit") -> None:
        self._address, self._settings = parse_url(url)
        prefix, database = self._settings.pop("prefix", prefix), self._settings.get("db", 0)
        # A channel is visible in every database, so its name must contain the database's number.
        self.names = KeyNames(f"{prefix}@{database}" if database else prefix)
        self.is_cluster = False
        self._nodes: dict[Address, Node] = {}
        self._node_by_slot: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._stale = asyncio.Event()
        self._known = asyncio.Event()
        self._on_change: list[Callable[[], None]] = []
        self.key_problem = KeyProblem()

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[ClusterTopology]:
        try:
            self.loop = asyncio.get_running_loop()
        except RuntimeError:
            raise AsyncioRequired("the Redis store") from None
        with unwrap_single_error():
            async with anyio.create_task_group() as tasks:
                await self._open(tasks)
                yield self
                tasks.cancel_scope.cancel()

    def __iter__(self) -> Iterator[Node]:
        """Iterate over the nodes that serve slots."""
        return iter([node for node in self._nodes.values() if node.slots])

    def node_for_slot(self, slot: int) -> Node | None:
        """Return the node that serves the slot in the last known layout, or None."""
        return self._node_by_slot[slot]

    def synced(self, slot: int) -> int:
        """Return 1 if the node of the slot syncs each write to disk before it replies, and otherwise 0."""
        node = self.node_for_slot(slot)
        return int(node is not None and node.syncs_each_write)

    def on_change(self, call: Callable[[], None]) -> None:
        """Register a function that is called after slots have moved, or nodes have joined or left."""
        self._on_change.append(call)

    def refresh(self) -> None:
        """Request another read of the layout."""
        self._stale.set()

    async def call(self, slot: int, *command: bytes | str | int) -> Any:
        """Execute an idempotent command. Raises StoreUnavailable if the command fails or no reply arrives in time."""
        require_loop(self.loop, STORE)
        backoff, problem = RetryDelay(), f"no reply within {CALL_TIMEOUT_SECONDS:g} s"
        with anyio.move_on_after(CALL_TIMEOUT_SECONDS):
            while (node := self.node_for_slot(slot)) is not None:
                if node.unavailable:
                    raise StoreUnavailable(STORE, node.problem)
                try:
                    return await node.request(*command)
                except CONNECTION_ERRORS as error:
                    problem = error_message(error)
                    if concerns_key(problem):
                        raise StoreUnavailable(STORE, self.key_problem.report(problem, key_of(command))) from error
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
        raise StoreUnavailable(STORE, f"{first.problem.removesuffix('.')}; start the server, or correct the URL")

    def _add(self, address: Address, tasks: TaskGroup) -> Node:
        node = self._nodes[address] = Node(address, self._settings, self.refresh)
        tasks.start_soon(node.run)
        return node

    async def _follow_layout(self, tasks: TaskGroup) -> None:
        """Read the layout of the Cluster after each call of `refresh`."""
        while True:
            await self._stale.wait()
            self._stale.clear()
            if not await self._read_layout(tasks):
                self._stale.set()
            await asyncio.sleep(REFRESH_INTERVAL_SECONDS)

    async def _read_layout(self, tasks: TaskGroup) -> bool:
        # Ask nodes in random order, because a node that is cut off from the other nodes has an old layout.
        for node in random.sample(list(self._nodes.values()), len(self._nodes)):
            if node.answering.is_set():
                with suppress(*CONNECTION_ERRORS):
                    layout: dict[Address, frozenset[int]] = {}
                    for first, last, (host, port, *_), *_ in await node.request("CLUSTER SLOTS"):
                        # If a node does not know its own host, use the host of this connection.
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
            # Keep the node of the URL, to read the layout from it when all other nodes have left.
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
    """Return the server's address, and the connection settings with the URL's `prefix`, if it has one.

    Raises InvalidId if the URL is not valid.
    """
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
        # Report unknown settings here, before the store is opened.
        cast("Any", ConnectionPool(**settings)).make_connection()
    except (TypeError, ValueError, RedisError):
        # The message omits the URL, which may contain a password.
        raise InvalidId("url", "must be redis://, rediss:// or unix://, with a host and a port") from None
    return address, settings | prefix


def _resolve(future: asyncio.Future[Any], reply: Any) -> None:
    if not future.done():
        (future.set_exception if isinstance(reply, BaseException) else future.set_result)(reply)


def _needs_new_connection(error: ResponseError) -> bool:
    # A new connection resolves the host name again, and loads the functions or raises a clear error.
    return isinstance(error, ReadOnlyError) or "function not found" in str(error).lower()


async def _ask(connection: AbstractConnection, *command: bytes | str) -> Any:
    await connection.send_command(*command, check_health=False)
    return await connection.read_response()
