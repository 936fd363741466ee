"""Events on their way to the server: bounded queues in order, and many threads' events in one command.

A batch that is not answered is sent again as it was, under the same number: the server knows whether it has it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any, Final

import anyio

from bridgekit.events import Outcome, Receipt
from bridgekit.ids import ThreadId
from bridgekit.stores.redis.functions import APPEND, ThreadKeys
from bridgekit.stores.redis.topology import (
    CONNECTION_ERRORS,
    ClusterTopology,
    Command,
    Node,
    RetryDelay,
    error_message,
)
from bridgekit.transport.log import LINK, NO_SUBSCRIBER, Retention

__all__ = ["BACKLOG_BYTES", "BACKLOG_EVENTS", "Backlog", "BatchSender", "Entry", "PublishQueue", "encode_settings"]

BACKLOG_EVENTS: Final = 10_000
"""Events of this worker that may wait for the server, or for its answer."""
BACKLOG_BYTES: Final = 33_554_432
"""The bytes of these events."""
COUNTED_REFUSALS: Final = 65_536
"""Threads, about, for which the number of refused events is remembered."""
BATCH_EVENTS: Final = 128
"""Events of one thread in one batch."""
BATCH_BYTES: Final = 262_144
"""The bytes of these events. A larger event is a batch of its own."""
MAX_IN_FLIGHT: Final = 2
"""Commands to one node that are not answered: while it executes one, this worker prepares the next. More of them are
smaller, and cost more than they gain."""
REQUEST_EVENTS: Final = 256
"""Events in one command, about: the server executes nothing else meanwhile, some 10 µs for each."""
REQUEST_BYTES: Final = 1_048_576

_RELAYED: Final = Outcome.RELAYED
_NOBODY: Final = Outcome.NO_SUBSCRIBER


class Entry:
    """An event that the server has not confirmed, and the future of its receipt."""

    __slots__ = ("answer", "since", "tail")

    def __init__(self, tail: bytes, since: float, answer: asyncio.Future[Receipt]) -> None:
        self.tail = tail
        """The frame without its seq."""
        self.since = since
        self.answer = answer
        """Done when the publisher has its receipt, or was cancelled. The event is sent all the same."""

    def resolve(self, receipt: Receipt) -> None:
        """Give the publisher its receipt. Only the first one counts."""
        if not self.answer.done():
            self.answer.set_result(receipt)


class PublishQueue:
    """One thread's events, in order. The next batch of them is sent when the one before is confirmed."""

    __slots__ = ("batch", "keys", "number", "queued", "skip", "thread_id", "waiting")

    def __init__(self, thread_id: ThreadId, keys: ThreadKeys) -> None:
        self.thread_id = thread_id
        self.keys = keys
        self.waiting: deque[Entry | int] = deque()
        """Events, and between them how many were refused."""
        self.number = 0
        """The number of the batch that is sent and not confirmed, or 0. It rises with each batch of this worker: the
        server ignores a batch that it has already."""
        self.skip = 0
        """How many numbers are left out before the batch: those of refused events."""
        self.batch: list[Entry] = []
        self.queued = False
        """Whether a sender has this queue, or it waits for a node."""

    def seal(self, numbers: Iterator[int]) -> list[Entry]:
        """Return the batch to send: the one that was not confirmed, as it was, or a new one."""
        if not self.number:
            self.number, waiting = next(numbers), self.waiting
            while waiting and isinstance(refused := waiting[0], int):
                self.skip += refused
                waiting.popleft()
            size = 0
            while waiting and isinstance(entry := waiting[0], Entry) and len(self.batch) < BATCH_EVENTS:
                size += len(entry.tail)
                if size > BATCH_BYTES and self.batch:
                    break
                self.batch.append(entry)
                waiting.popleft()
        return self.batch

    def entries(self) -> Iterator[Entry]:
        """All that is not confirmed, oldest first."""
        yield from self.batch
        yield from (entry for entry in self.waiting if isinstance(entry, Entry))


class Backlog:
    """The queues of all threads that have events on their way. Adding and confirming are O(1)."""

    def __init__(self, *, events: int = BACKLOG_EVENTS, size_bytes: int = BACKLOG_BYTES) -> None:
        self._events = events
        self._size_bytes = size_bytes
        self._held = 0
        self._held_bytes = 0
        self._counted_refusals = 0
        self._queues: dict[ThreadId, PublishQueue] = {}
        self.numbers = count(1)
        self.empty = asyncio.Event()
        """Set while no event is on its way."""
        self.empty.set()
        self.nonempty = asyncio.Event()
        """Set while one is."""

    def __len__(self) -> int:
        """How many events are not confirmed."""
        return self._held

    def __iter__(self) -> Iterator[PublishQueue]:
        return iter(tuple(self._queues.values()))

    def queue(self, thread_id: ThreadId, names: Callable[[ThreadId], ThreadKeys]) -> PublishQueue:
        """Return the thread's queue. A new one has to be given an event at once."""
        queue = self._queues.get(thread_id)
        if queue is None:
            if not self._queues:
                self.empty.clear()
                self.nonempty.set()
            queue = self._queues[thread_id] = PublishQueue(thread_id, names(thread_id))
        return queue

    def add(self, queue: PublishQueue, entry: Entry) -> bool:
        """Append an event to a queue. Where there is no room, leave its number out instead and return False."""
        size = len(entry.tail)
        if self._held and (self._held >= self._events or self._held_bytes + size > self._size_bytes):
            self._refuse(queue)
            return False
        queue.waiting.append(entry)
        self._held += 1
        self._held_bytes += size
        return True

    def confirm(self, queue: PublishQueue) -> bool:
        """The queue's batch is in the log. Return whether there is more to send."""
        self._held -= len(queue.batch)
        self._held_bytes -= sum([len(entry.tail) for entry in queue.batch])
        self._counted_refusals -= queue.skip > 0
        queue.number, queue.skip, queue.batch = 0, 0, []
        if not queue.waiting:
            self._close(queue)
        return bool(queue.waiting)

    def _refuse(self, queue: PublishQueue) -> None:
        if queue.waiting and isinstance(queue.waiting[-1], int):
            queue.waiting[-1] += 1
        elif self._counted_refusals < COUNTED_REFUSALS:
            self._counted_refusals += 1
            queue.waiting.append(1)
        elif not queue.waiting and not queue.number:
            self._close(queue)

    def _close(self, queue: PublishQueue) -> None:
        del self._queues[queue.thread_id]
        if not self._queues:
            self.nonempty.clear()
            self.empty.set()


class BatchSender:
    """Sends batches to one node. Events that are published in one iteration of the event loop share a command."""

    def __init__(
        self,
        node: Node,
        topology: ClusterTopology,
        backlog: Backlog,
        retention: Retention,
        worker: bytes,
        route: Callable[[PublishQueue], None],
    ) -> None:
        """`route` is called with each queue that has more to send: another node may have its slot meanwhile."""
        self.node = node
        self.unavailable = False
        """Whether no event was confirmed in time. Then no publisher should wait."""
        self.confirmed_at = 0.0
        self.problem = ""
        """Why events were last not confirmed."""
        self._topology = topology
        self._backlog = backlog
        self._retention = retention
        self._worker = worker
        self._route = route
        self._queues: asyncio.Queue[PublishQueue] = asyncio.Queue()
        self._backoff = RetryDelay()

    def push(self, queue: PublishQueue) -> None:
        """Send what the queue has when its turn comes. No other sender may have it."""
        queue.queued = True
        self._queues.put_nowait(queue)

    def clear(self) -> list[PublishQueue]:
        """Give back all queues whose turn has not come."""
        return [self._queues.get_nowait() for _ in range(self._queues.qsize())]

    async def run(self) -> None:
        """Send, until the node has left the Cluster."""
        async with anyio.create_task_group() as tasks:
            for _ in range(MAX_IN_FLIGHT):
                tasks.start_soon(self._send)

    async def _send(self) -> None:
        while True:
            await self.node.answering.wait()
            await self._send_batches(self._next_queues(await self._queues.get()))

    def _next_queues(self, queue: PublishQueue) -> list[PublishQueue]:
        queues: list[PublishQueue] = []
        events = size_bytes = 0
        while True:
            batch = queue.seal(self._backlog.numbers)
            queues.append(queue)
            events += len(batch) or 1
            size_bytes += sum([len(entry.tail) for entry in batch])
            if events >= REQUEST_EVENTS or size_bytes >= REQUEST_BYTES or self._queues.empty():
                return queues
            queue = self._queues.get_nowait()

    async def _send_batches(self, queues: list[PublishQueue]) -> None:
        settings = encode_settings(self._retention, self.node)
        groups = [queues]
        if self._topology.is_cluster:
            # In a Cluster, the keys of one command belong to one slot.
            by_slot: dict[int, list[PublishQueue]] = {}
            for queue in queues:
                by_slot.setdefault(queue.keys.slot, []).append(queue)
            groups = list(by_slot.values())
        replies: list[Any] = [ConnectionResetError("the node has left the Cluster")] * len(groups)
        try:
            replies = await self.node.execute(*[_append_command(group, settings, self._worker) for group in groups])
        except CONNECTION_ERRORS as error:
            replies = [error] * len(groups)
        finally:
            for group, reply in zip(groups, replies, strict=True):
                if isinstance(reply, BaseException):
                    self.problem = error_message(reply)
                    self._topology.refresh()
                    self._retry(group)
                else:
                    self._apply_reply(group, reply)

    def _apply_reply(self, queues: list[PublishQueue], reply: list[Any]) -> None:
        failed = []
        for queue, epoch, last, receivers in zip(queues, reply[0::3], reply[1::3], reply[2::3], strict=True):
            if receivers < 0:
                self.problem = epoch.decode()
                failed.append(queue)
            else:
                self._confirm(queue, epoch.decode(), int(last), receivers)
        if len(failed) < len(queues):
            self.unavailable = False
            self.confirmed_at = time.monotonic()
            self._backoff.reset()
        if failed:
            self._retry(failed)

    def _confirm(self, queue: PublishQueue, epoch: str, last: int, receivers: int) -> None:
        thread_id, kept = queue.thread_id, self._retention.events > 0
        outcome, link, reason = (_RELAYED, None, "") if receivers else (_NOBODY, LINK, NO_SUBSCRIBER)
        for seq, entry in enumerate(queue.batch, last - len(queue.batch) + 1):
            if not entry.answer.done():
                receipt = Receipt(
                    outcome=outcome, workers=receivers, kept=kept, thread_id=thread_id, seq=seq, epoch=epoch,
                    link=link, reason=reason,
                )  # fmt: skip
                entry.answer.set_result(receipt)
        queue.queued = False
        if self._backlog.confirm(queue):
            self._route(queue)

    def _retry(self, queues: list[PublishQueue]) -> None:
        """Send these again after a pause. Others do not wait: it may be a problem of these threads alone."""
        loop, pause = asyncio.get_running_loop(), self._backoff.next()
        for queue in queues:
            loop.call_later(pause, self._route, queue)


def encode_settings(retention: Retention, node: Node) -> bytes:
    """The functions' first argument: how much to retain, and whether the server syncs each write."""
    duration_ms = max(1, round(1_000 * retention.seconds))
    return b"%d %d %d %d" % (retention.events, retention.size_bytes, duration_ms, node.syncs_each_write)


def _append_command(queues: Sequence[PublishQueue], settings: bytes, worker: bytes) -> Command:
    """The command that appends the next batches of these queues.

    One argument has all events of a thread, a line each: redis-py encodes each argument by itself, and JSON has no line
    feed.
    """
    keys: list[bytes] = []
    batches: list[bytes] = []
    for queue in queues:
        keys += queue.keys.log, queue.keys.head
        batches += b"%d %d" % (queue.number, queue.skip), b"\n".join([entry.tail for entry in queue.batch])
    return ("FCALL", APPEND, len(keys), *keys, settings, worker, *batches)
