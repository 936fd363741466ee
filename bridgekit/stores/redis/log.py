"""The event log on a shared Redis server: workers publish to it, and each worker delivers events to its own sockets."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import anyio
from anyio import AsyncContextManagerMixin
from anyio.abc import TaskGroup

from bridgekit.cursors_and_gaps import Cursor
from bridgekit.errors import StoreUnavailable, unwrap_single_error
from bridgekit.events import FRAME_BYTES, AgentEvent, Answer, Outcome, Receipt, encode_unnumbered
from bridgekit.ids import ThreadId, new_id
from bridgekit.stores.redis.delivery import LogEntries, ThreadDelivery
from bridgekit.stores.redis.keys_and_functions import READ, ThreadKeys
from bridgekit.stores.redis.publishing import (
    BACKLOG_BYTES,
    BACKLOG_EVENTS,
    Backlog,
    BatchSender,
    Entry,
    PublishQueue,
    encode_settings,
    refused,
)
from bridgekit.stores.redis.subscriptions import PubSubReader
from bridgekit.stores.redis.topology import NO_NODE, STORE, ClusterTopology, Node
from bridgekit.transport.log import DEFAULT_RETENTION, LINK, LocalSink, Replay, Retention

__all__ = ["ANSWER_TIMEOUT_SECONDS", "CLOSE_TIMEOUT_SECONDS", "RedisEventLog"]

_logger = logging.getLogger(__name__)

ANSWER_TIMEOUT_SECONDS: Final = 0.25
"""How long a publisher waits for its receipt. Once the node is marked unavailable, publishers do not wait."""
POLL_INTERVAL_SECONDS: Final = 0.05
"""Interval between checks for publishers that have waited too long."""
OPEN_TIMEOUT_SECONDS: Final = 1.0
"""How long a starting worker waits for its first heartbeats before it starts without them."""
JOIN_TIMEOUT_SECONDS: Final = 5.0
"""How long a socket may take to join a thread whose node is available. The limit is high, because thousands of sockets
may join at the same time."""
CLOSE_TIMEOUT_SECONDS: Final = 2.0
"""How long a stopping worker waits for the confirmation of its events."""

STORE_TIMEOUT: Final = "the store did not answer in time"
"""The reason in the receipt of a PENDING event, if no error is known."""
SHUTTING_DOWN: Final = "this worker is shutting down"


class _NodePipeline:
    """Holds this worker's sender and subscriptions for one node."""

    def __init__(self, node: Node, sender: BatchSender, reader: PubSubReader) -> None:
        self.node = node
        self.sender = sender
        self.reader = reader
        self.scope = anyio.CancelScope()

    @property
    def unavailable(self) -> bool:
        """True if callers fail immediately instead of waiting for the node."""
        return self.sender.unavailable or self.node.unavailable

    @property
    def healthy(self) -> bool:
        """True if the node accepts events, heartbeats arrive, and no thread has to catch up."""
        return (
            not (self.node.failing.is_set() or self.sender.unavailable)
            and self.reader.live.is_set()
            and self.reader.complete
        )

    @property
    def problem(self) -> str:
        """The reason why the node is not healthy, or an empty string."""
        if self.healthy:
            return ""
        if self.node.failing.is_set():
            return self.node.problem
        return self.sender.problem or self.reader.problem or "it replies too slowly"

    async def run(self) -> None:
        """Send and receive until the node has left the Cluster."""
        with self.scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.sender.run)
                tasks.start_soon(self.reader.run)


class RedisEventLog(AsyncContextManagerMixin):
    """An `EventLog` in a Redis server or Cluster.

    When the log closes, it waits briefly for the confirmation of pending events.

    Events that the server has not confirmed wait in this process, in order and up to a limit. Unconfirmed events are
    lost if the process ends. `retention.threads` has no effect. The server deletes a thread's frames after
    `retention.seconds`, and the thread's epoch and seq after a day without use.
    """

    def __init__(
        self,
        topology: ClusterTopology,
        retention: Retention = DEFAULT_RETENTION,
        *,
        backlog_events: int = BACKLOG_EVENTS,
        backlog_bytes: int = BACKLOG_BYTES,
    ) -> None:
        self.retention = retention
        self.trims_by = retention
        """The policy by which the log is trimmed. In a process that only publishes, the workers' policy."""
        self._topology = topology
        self._worker = new_id()
        """A random id that identifies this worker's batches to the server."""
        self._frame_bytes = FRAME_BYTES
        self._sink: LocalSink | None = None
        self._backlog = Backlog(events=backlog_events, size_bytes=backlog_bytes)
        self._pipelines: dict[Node, _NodePipeline] = {}
        self._threads: dict[ThreadId, ThreadDelivery] = {}
        self._unassigned: list[PublishQueue] = []
        """Queues whose slot no node serves at the moment."""
        self._closed = False

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[RedisEventLog]:
        with unwrap_single_error():
            async with anyio.create_task_group() as tasks:
                self._rebalance(tasks)
                self._topology.on_change(partial(self._rebalance, tasks))
                tasks.start_soon(self._watch_timeouts)
                with anyio.move_on_after(OPEN_TIMEOUT_SECONDS):
                    for pipeline in self._pipelines.values():
                        await pipeline.reader.live.wait()
                try:
                    yield self
                finally:
                    await self._close()
                    tasks.cancel_scope.cancel()

    @property
    def healthy(self) -> bool:
        return bool(self._pipelines) and all(pipeline.healthy for pipeline in self._pipelines.values())

    @property
    def problem(self) -> str:
        problems = [pipeline.problem for pipeline in self._pipelines.values()] or [NO_NODE]
        return "; ".join(filter(None, (*problems, str(self._topology.key_problem))))

    @property
    def unconfirmed(self) -> int:
        return len(self._backlog)

    def _trims_by(self) -> Retention:
        return self.trims_by

    def bind(self, sink: LocalSink, *, frame_bytes: int = FRAME_BYTES) -> None:
        self._sink, self._frame_bytes = sink, frame_bytes

    def _bound_sink(self) -> LocalSink:
        assert self._sink is not None, "bind must be called before a thread is joined"
        return self._sink

    def publish(self, event: AgentEvent) -> Answer:
        tail = encode_unnumbered(event, self._frame_bytes)
        thread_id = event.thread_id
        assert thread_id is not None
        if self._closed:
            return refused(thread_id, SHUTTING_DOWN)
        queue = self._backlog.queue(thread_id, self._topology.names.thread)
        entry = Entry(tail, time.monotonic(), asyncio.get_running_loop().create_future())
        added = self._backlog.add(queue, entry)
        pipeline = self._pipeline_for_slot(queue.keys.slot)
        if queue.waiting and not queue.queued:
            self._enqueue(queue, pipeline)
        unavailable = pipeline is None or pipeline.unavailable
        if not added:
            return refused(thread_id, f"{'the store is unavailable and ' if unavailable else ''}the backlog is full")
        if unavailable:
            entry.resolve(_pending(thread_id, pipeline))
            return entry.answer.result()
        return entry.answer

    async def join(self, thread_id: ThreadId) -> None:
        thread = self._threads.get(thread_id)
        if thread is None:
            thread = self._threads[thread_id] = ThreadDelivery(thread_id, self._topology.names.thread(thread_id))
            self._subscribe(thread)
        thread.sockets += 1
        if not thread.ready.is_set():
            try:
                await self._wait_ready(thread)
            except BaseException:
                self.leave(thread_id)
                raise

    def leave(self, thread_id: ThreadId) -> None:
        thread = self._threads[thread_id]
        thread.sockets -= 1
        if not thread.sockets:
            del self._threads[thread_id]
            for pipeline in self._pipelines.values():
                pipeline.reader.remove(thread)

    async def replay(self, thread_id: ThreadId, after: Cursor | None) -> Replay:
        log = await self._read(self._topology.names.thread(thread_id), after)
        return log.replay(thread_id, after)

    async def _read(self, keys: ThreadKeys, after: Cursor | None) -> LogEntries:
        """Return the log's entries after the cursor. Raises StoreUnavailable if no reply arrives in time."""
        node = self._topology.node_for_slot(keys.slot)
        if node is None:
            raise StoreUnavailable(STORE, NO_NODE)
        settings, (epoch, seq) = encode_settings(self.trims_by, node), after or ("", "")
        reply = await self._topology.call(
            keys.slot, "FCALL", READ, 2, keys.log, keys.head, settings, self._worker, epoch, seq
        )
        return LogEntries.decode(reply)

    async def _close(self) -> None:
        self._closed = True
        with anyio.move_on_after(CLOSE_TIMEOUT_SECONDS, shield=True):
            await self._backlog.empty.wait()
        if self.unconfirmed:
            _logger.warning("%d events did not reach the store and are lost", self.unconfirmed)
        for queue in self._backlog:
            for entry in queue.entries():
                entry.resolve(refused(queue.thread_id, SHUTTING_DOWN))

    async def _wait_ready(self, thread: ThreadDelivery) -> None:
        deadline = time.monotonic() + JOIN_TIMEOUT_SECONDS
        while (pipeline := self._pipeline_for_slot(thread.keys.slot)) is not None and not pipeline.unavailable:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            with anyio.move_on_after(min(remaining, ANSWER_TIMEOUT_SECONDS)):
                await thread.ready.wait()
                return
            if thread.problem:
                raise StoreUnavailable(STORE, thread.problem)
        raise StoreUnavailable(STORE, NO_NODE if pipeline is None else pipeline.problem)

    def _pipeline_for_slot(self, slot: int) -> _NodePipeline | None:
        node = self._topology.node_for_slot(slot)
        return None if node is None else self._pipelines.get(node)

    def _route(self, queue: PublishQueue) -> None:
        """Assign the queue to the node that serves its slot now."""
        self._enqueue(queue, self._pipeline_for_slot(queue.keys.slot))

    def _enqueue(self, queue: PublishQueue, pipeline: _NodePipeline | None) -> None:
        if pipeline is None:
            queue.queued = True
            self._unassigned.append(queue)
        else:
            pipeline.sender.push(queue)

    def _subscribe(self, thread: ThreadDelivery) -> None:
        own = self._pipeline_for_slot(thread.keys.slot)
        for pipeline in self._pipelines.values():
            if pipeline is not own:
                pipeline.reader.remove(thread)
            elif not pipeline.reader.is_subscribed(thread):
                pipeline.reader.add(thread)

    def _rebalance(self, tasks: TaskGroup) -> None:
        """Start a pipeline for each new node, stop the pipelines of nodes that left, and reassign queues and
        threads."""
        if self._closed:
            return
        nodes = set(self._topology)
        for node in nodes - self._pipelines.keys():
            pipeline = self._pipelines[node] = _NodePipeline(
                node,
                BatchSender(node, self._topology, self._backlog, self._trims_by, self._worker.encode(), self._route),
                PubSubReader(node, self._topology, self._worker, self._read, self._bound_sink),
            )
            tasks.start_soon(pipeline.run)
        queues, self._unassigned = self._unassigned, []
        for node, pipeline in list(self._pipelines.items()):
            queues += pipeline.sender.clear()
            if node not in nodes:
                del self._pipelines[node]
                pipeline.scope.cancel()
        for queue in queues:
            self._route(queue)
        for thread in self._threads.values():
            self._subscribe(thread)

    async def _watch_timeouts(self) -> None:
        """Give publishers that have waited too long a PENDING receipt."""
        while True:
            await self._backlog.nonempty.wait()
            await asyncio.sleep(POLL_INTERVAL_SECONDS)
            latest = time.monotonic() - ANSWER_TIMEOUT_SECONDS
            for queue in self._backlog:
                since = next((entry.since for entry in queue.entries() if not entry.answer.done()), None)
                if since is not None and since <= latest:
                    self._mark_unavailable(queue, since)

    def _mark_unavailable(self, queue: PublishQueue, since: float) -> None:
        pipeline = self._pipeline_for_slot(queue.keys.slot)
        queues = [queue]
        if pipeline is None or pipeline.sender.confirmed_at < since:
            # Since the publisher began to wait, the node has confirmed no event of any thread, so the node counts as
            # unavailable.
            queues = [each for each in self._backlog if self._pipeline_for_slot(each.keys.slot) is pipeline]
            if pipeline is not None:
                pipeline.sender.unavailable = True
        for each in queues:
            for entry in each.entries():
                entry.resolve(_pending(each.thread_id, pipeline))


def _pending(thread_id: ThreadId, pipeline: _NodePipeline | None) -> Receipt:
    problem = "" if pipeline is None else pipeline.sender.problem or pipeline.node.problem
    reason = f"{problem or STORE_TIMEOUT}; the event is queued until the store takes it"
    return Receipt(outcome=Outcome.PENDING, thread_id=thread_id, link=LINK, reason=reason)
