"""A worker's subscriptions at one node: the connection that receives messages, and the heartbeat that checks it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio
import msgspec
from anyio.abc import TaskGroup
from redis.asyncio.client import PubSub

from bridgekit.cursors_and_gaps import Cursor
from bridgekit.errors import StoreUnavailable
from bridgekit.stores.redis.delivery import ChannelMessage, LogEntries, ThreadDelivery
from bridgekit.stores.redis.keys_and_functions import ThreadKeys
from bridgekit.stores.redis.topology import (
    CONNECTION_ERRORS,
    ClusterTopology,
    Node,
    RetryDelay,
    concerns_key,
    error_message,
)
from bridgekit.transport.log import LocalSink

__all__ = ["PubSubReader"]

_log = logging.getLogger(__name__)

HEARTBEAT_INTERVAL_SECONDS: Final = 0.5
HEARTBEAT_TIMEOUT_SECONDS: Final = 1.0
"""If a heartbeat does not come back within this time, the connection is dead, even if its socket is open."""
READERS: Final = 16
"""Limit on concurrent log reads from one node. Each reply may be as large as a whole log."""


ReadLog = Callable[[ThreadKeys, Cursor | None], Awaitable[LogEntries]]
"""Reads a thread's log after a cursor. Raises StoreUnavailable if no reply arrives in time."""


class PubSubReader:
    """Receives the messages of one node. If its connection is lost or dead, the reader opens another one."""

    def __init__(
        self, node: Node, topology: ClusterTopology, worker: str, read: ReadLog, sink: Callable[[], LocalSink]
    ) -> None:
        self.node = node
        self.live = asyncio.Event()
        """Set while this connection receives the worker's heartbeats, which are published like events."""
        self.problem = ""
        """The reason why the last connection ended."""
        self._topology = topology
        self._worker = worker
        self._read = read
        self._sink = sink
        self._threads: dict[bytes, ThreadDelivery] = {}
        self._tasks: TaskGroup | None = None
        self._heartbeat_channel = b""
        self._subscribed = asyncio.Event()
        self._returned = asyncio.Event()
        self._changes: asyncio.Queue[tuple[bytes, bool]] = asyncio.Queue()
        """Channels to subscribe to (True) or to unsubscribe from (False)."""
        self._subscribing: Counter[bytes] = Counter()
        """Unconfirmed requests for each channel. Only the confirmation of the last request counts."""
        self._unsubscribing: Counter[bytes] = Counter()
        self._catching_up: set[ThreadDelivery] = set()
        """Threads for which a task reads the log or delivers buffered messages."""
        self._readers = asyncio.Semaphore(READERS)

    @property
    def complete(self) -> bool:
        """True if no thread is behind, except threads whose own keys cannot be read."""
        return not any(thread.behind and not thread.problem for thread in self._threads.values())

    def is_subscribed(self, thread: ThreadDelivery) -> bool:
        """Return whether the reader subscribes to the thread's channel, now or when it connects again."""
        return self._threads.get(thread.keys.log) is thread

    def add(self, thread: ThreadDelivery) -> None:
        """Subscribe to the thread's channel.

        The worker reads the thread's log once the server confirms the subscription.
        """
        thread.require_read()
        self._threads[thread.keys.log] = thread
        self._change(thread.keys.log, subscribe=True)

    def remove(self, thread: ThreadDelivery) -> None:
        """Unsubscribe from the thread's channel."""
        if self.is_subscribed(thread):
            del self._threads[thread.keys.log]
            self._change(thread.keys.log, subscribe=False)

    async def run(self) -> None:
        """Receive messages, and reconnect as needed, until the node leaves the Cluster and the task is cancelled."""
        backoff = RetryDelay()
        while True:
            try:
                await self.node.answering.wait()
                async with (
                    self.node.client.pubsub(push_handler_func=_unchanged) as pubsub,
                    anyio.create_task_group() as tasks,
                ):
                    self._start(tasks)
                    # The first subscription opens the connection. Two tasks that subscribe at the same time would open
                    # two connections.
                    self._subscribing[self._heartbeat_channel] += 1
                    await pubsub.ssubscribe(self._heartbeat_channel)
                    tasks.start_soon(self._write_changes, pubsub)
                    tasks.start_soon(self._send_heartbeats, backoff)
                    while True:
                        kind, channel, data = await pubsub.parse_response()
                        if kind == b"smessage":
                            self._on_message(channel, data)
                        else:
                            # redis-py also tracks the subscriptions, so it must process each confirmation.
                            await pubsub.handle_message([kind, channel, data])
                            self._on_confirmation(kind, channel)
            except* CONNECTION_ERRORS as group:
                self.problem = error_message(group)
                self._topology.refresh()
            finally:
                self._end()
            await asyncio.sleep(backoff.next())

    def _start(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._heartbeat_channel = self._own_channel()
        self._subscribed = asyncio.Event()
        self._changes = asyncio.Queue()
        self._subscribing.clear()
        self._unsubscribing.clear()
        for thread in self._threads.values():
            self.add(thread)

    def _own_channel(self) -> bytes:
        """Return a channel that only this worker uses, in a slot of this node."""
        if not self.node.slots:
            raise ConnectionResetError("the node has no slots")
        names, number = self._topology.names, 0
        while (key := names.heartbeat(self._worker, number)).slot not in self.node.slots:
            number += 1
        return key.name

    def _end(self) -> None:
        self._tasks = None
        self.live.clear()
        for thread in self._threads.values():
            thread.require_read()

    def _change(self, channel: bytes, *, subscribe: bool) -> None:
        # Without a connection, do nothing, because `_start` will subscribe to all current threads.
        if self._tasks is not None:
            self._changes.put_nowait((channel, subscribe))

    async def _write_changes(self, pubsub: PubSub) -> None:
        while True:
            channel, subscribe = await self._changes.get()
            if subscribe:
                self._subscribing[channel] += 1
                await pubsub.ssubscribe(channel)
            else:
                self._unsubscribing[channel] += 1
                await pubsub.sunsubscribe(channel)

    async def _send_heartbeats(self, backoff: RetryDelay) -> None:
        """Publish to the worker's own channel at intervals. If no heartbeat returns, the connection is dead."""
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_TIMEOUT_SECONDS):
                    await self._send_heartbeat()
            except TimeoutError:
                problem = f"no heartbeat was received within {HEARTBEAT_TIMEOUT_SECONDS:g} s"
                raise ConnectionResetError(problem) from None
            self.live.set()
            backoff.reset()
            await asyncio.sleep(HEARTBEAT_INTERVAL_SECONDS)

    async def _send_heartbeat(self) -> None:
        self._returned.clear()
        await self._subscribed.wait()
        # Publish the heartbeat on the connection for events, to detect whether events and subscriptions use different
        # servers.
        if not await self.node.request("SPUBLISH", self._heartbeat_channel, b""):
            raise ConnectionResetError("events and subscriptions are connected to different servers")
        await self._returned.wait()

    def _on_message(self, channel: bytes, data: bytes) -> None:
        thread = self._threads.get(channel)
        if thread is not None:
            self._deliver(thread, data)
        elif channel == self._heartbeat_channel:
            self._returned.set()

    def _on_confirmation(self, kind: bytes, channel: bytes) -> None:
        if kind == b"sunsubscribe":
            if channel not in self._unsubscribing:
                raise ConnectionResetError("the slot of a channel has moved to another node")
            _was_last(self._unsubscribing, channel)
        elif _was_last(self._subscribing, channel):
            thread = self._threads.get(channel)
            if channel == self._heartbeat_channel:
                self._subscribed.set()
            elif thread is not None:
                # An earlier, cancelled subscription may have read the log before this subscription started.
                thread.require_read()
                self._catch_up(thread)

    def _deliver(self, thread: ThreadDelivery, data: bytes) -> None:
        try:
            thread.on_message(ChannelMessage.decode(data), self._sink())
        except (ValueError, msgspec.DecodeError) as error:
            # If the message contained events, the log contains them too.
            _log.warning("received a message that is not a frame, and read the log instead: %s", error)
            thread.require_read()
        if thread.behind:
            self._catch_up(thread)

    def _catch_up(self, thread: ThreadDelivery) -> None:
        """Start a task that reads the thread's log or delivers its buffered messages, unless one is running."""
        if thread not in self._catching_up and self._tasks is not None:
            self._catching_up.add(thread)
            self._tasks.start_soon(self._read_and_deliver, thread)

    async def _read_and_deliver(self, thread: ThreadDelivery) -> None:
        backoff = RetryDelay()
        try:
            while thread.behind and thread.sockets:
                if not thread.must_read:
                    await thread.drain(self._sink())
                    continue
                try:
                    async with self._readers:
                        log = await self._read(thread.keys, thread.position)
                    thread.problem = ""
                    thread.on_read(log, self._sink())
                except StoreUnavailable as error:
                    thread.problem = error.problem if concerns_key(error.problem) else ""
                    await asyncio.sleep(backoff.next())
        finally:
            self._catching_up.discard(thread)


async def _unchanged(message: Any) -> Any:
    """Replace redis-py's own push handler, which formats each message for its log."""
    return message


def _was_last(requested: Counter[bytes], channel: bytes) -> bool:
    """Count a confirmation, and return whether the confirmed request is the last one for the channel."""
    requested[channel] -= 1
    if requested[channel]:
        return False
    del requested[channel]
    return True
