"""Sends events to the server: a bounded queue for each thread, and batches of many threads in one command.

If a batch gets no reply, the worker sends the same batch again under the same number, so that the server can ignore a
duplicate.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any, Final

import anyio

from bridgekit.events import Outcome, Receipt
from bridgekit.ids import ThreadId
from bridgekit.stores.redis.keys_and_functions import APPEND, ThreadKeys
from bridgekit.stores.redis.topology import (
    CONNECTION_ERRORS,
    ClusterTopology,
    Command,
    Node,
    RetryDelay,
    concerns_key,
    error_message,
)
from bridgekit.transport.log import LINK, NO_SUBSCRIBER, Retention

__all__ = [
    "BACKLOG_BYTES",
    "BACKLOG_EVENTS",
    "Backlog",
    "BatchSender",
    "Entry",
    "PublishQueue",
    "encode_settings",
    "refused",
]

_log = logging.getLogger(__name__)

BACKLOG_EVENTS: Final = 10_000
"""Limit on this worker's events that the server has not confirmed."""
BACKLOG_BYTES: Final = 33_554_432
"""Limit on the bytes of the events that the server has not confirmed."""
COUNTED_REFUSALS: Final = 65_536
"""Approximate limit on the threads whose refused events are counted."""
BATCH_EVENTS: Final = 128
"""Limit on one thread's events in a batch."""
BATCH_BYTES: Final = 262_144
"""Limit on the bytes of one thread's events in a batch. An event over the limit is sent in a batch of its own."""
MAX_IN_FLIGHT: Final = 2
"""Limit on commands to one node that have no reply yet. While the node executes one command, this worker prepares the
next command. With a higher limit, the worker would send more and smaller commands, which cost more in total."""
REQUEST_EVENTS: Final = 256
"""Approximate limit on the events in one command. A command blocks the server for about 10 µs per event."""
REQUEST_BYTES: Final = 1_048_576

_RELAYED: Final = Outcome.RELAYED
_NO_SUBSCRIBER: Final = Outcome.NO_SUBSCRIBER


class Entry:
    """An event that the server has not confirmed, and the future that holds its receipt."""

    __slots__ = ("answer", "since", "tail")

    def __init__(self, tail: bytes, since: float, answer: asyncio.Future[Receipt]) -> None:
        self.tail = tail
        """The frame without its seq."""
        self.since = since
        self.answer = answer
        """The publisher's receipt. The sender sends the event even if the publisher was cancelled."""

    def resolve(self, receipt: Receipt) -> None:
        """Give the publisher its receipt. Later calls have no effect."""
        if not self.answer.done():
            self.answer.set_result(receipt)


class PublishQueue:
    """One thread's unconfirmed events, in order. At most one batch of the queue is in flight."""

    __slots__ = ("batch", "keys", "number", "queued", "skip", "thread_id", "waiting")

    def __init__(self, thread_id: ThreadId, keys: ThreadKeys) -> None:
        self.thread_id = thread_id
        self.keys = keys
        self.waiting: deque[Entry | int] = deque()
        """Events that are not yet in a batch, and between them the counts of refused events."""
        self.number = 0
        """The number of the unconfirmed batch, or 0 if there is none. Numbers increase within a worker, so that the
        server can ignore a batch that it already has."""
        self.skip = 0
        """The number of seqs that the thread skips before the batch, one for each refused event."""
        self.batch: list[Entry] = []
        self.queued = False
        """True if the queue belongs to a sender or waits for a node."""

    def next_batch(self, numbers: Iterator[int]) -> list[Entry]:
        """Return the batch to send: the unconfirmed batch, unchanged, or a new batch."""
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
        """Yield all unconfirmed events, oldest first."""
        yield from self.batch
        yield from (entry for entry in self.waiting if isinstance(entry, Entry))


class Backlog:
    """The queues of all threads with unconfirmed events. Adding an event and confirming it take O(1)."""

    def __init__(self, *, events: int = BACKLOG_EVENTS, size_bytes: int = BACKLOG_BYTES) -> None:
        self._events = events
        self._size_bytes = size_bytes
        self._unconfirmed = 0
        self._unconfirmed_bytes = 0
        self._counted_refusals = 0
        self._queues: dict[ThreadId, PublishQueue] = {}
        self.numbers = count(1)
        self.empty = asyncio.Event()
        """Set while every event is confirmed."""
        self.empty.set()
        self.nonempty = asyncio.Event()
        """Set while at least one event is not confirmed."""

    def __len__(self) -> int:
        """Return the number of unconfirmed events."""
        return self._unconfirmed

    def __iter__(self) -> Iterator[PublishQueue]:
        return iter(tuple(self._queues.values()))

    def queue(self, thread_id: ThreadId, names: Callable[[ThreadId], ThreadKeys]) -> PublishQueue:
        """Return the thread's queue. The caller must immediately add an event, because a new queue is empty."""
        queue = self._queues.get(thread_id)
        if queue is None:
            if not self._queues:
                self.empty.clear()
                self.nonempty.set()
            queue = self._queues[thread_id] = PublishQueue(thread_id, names(thread_id))
        return queue

    def add(self, queue: PublishQueue, entry: Entry) -> bool:
        """Append an event to a queue. If the backlog is full, count the event as refused and return False."""
        size = len(entry.tail)
        full = self._unconfirmed >= self._events or self._unconfirmed_bytes + size > self._size_bytes
        if self._unconfirmed and full:
            self._refuse(queue)
            return False
        queue.waiting.append(entry)
        self._unconfirmed += 1
        self._unconfirmed_bytes += size
        return True

    def confirm(self, queue: PublishQueue) -> bool:
        """Remove the queue's batch, which the server has confirmed. Return whether the queue has more events."""
        self._unconfirmed -= len(queue.batch)
        self._unconfirmed_bytes -= sum([len(entry.tail) for entry in queue.batch])
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
    """Sends batches to one node. Batches that are ready at the same time share a command, up to a limit."""

    def __init__(
        self,
        node: Node,
        topology: ClusterTopology,
        backlog: Backlog,
        retention: Callable[[], Retention],
        worker: bytes,
        route: Callable[[PublishQueue], None],
    ) -> None:
        """`route` is called with each queue that has more events, because the queue's slot may have moved."""
        self.node = node
        self.unavailable = False
        """True if the node did not confirm an event in time, so that publishers do not wait."""
        self.confirmed_at = 0.0
        self.problem = ""
        """The reason why the node last failed to confirm events."""
        self._topology = topology
        self._backlog = backlog
        self._retention = retention
        self._worker = worker
        self._route = route
        self._queues: asyncio.Queue[PublishQueue] = asyncio.Queue()
        self._backoff = RetryDelay()

    def push(self, queue: PublishQueue) -> None:
        """Schedule the queue's next batch. The queue must not belong to another sender."""
        queue.queued = True
        self._queues.put_nowait(queue)

    def clear(self) -> list[PublishQueue]:
        """Remove and return all queues that have no batch in flight."""
        return [self._queues.get_nowait() for _ in range(self._queues.qsize())]

    async def run(self) -> None:
        """Send batches until the task is cancelled, which happens when the node leaves the Cluster."""
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
            batch = queue.next_batch(self._backlog.numbers)
            queues.append(queue)
            events += len(batch) or 1
            size_bytes += sum([len(entry.tail) for entry in batch])
            if events >= REQUEST_EVENTS or size_bytes >= REQUEST_BYTES or self._queues.empty():
                return queues
            queue = self._queues.get_nowait()

    async def _send_batches(self, queues: list[PublishQueue]) -> None:
        settings = encode_settings(self._retention(), self.node)
        groups = [queues]
        if self._topology.is_cluster:
            # A Cluster accepts a command only if all its keys belong to one slot.
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
                    self._failed(self.node.problem if self.node.failing.is_set() else error_message(reply))
                    self._topology.refresh()
                    self._retry(group)
                else:
                    self._apply_reply(group, reply)

    def _apply_reply(self, queues: list[PublishQueue], reply: list[Any]) -> None:
        failed = []
        for queue, epoch, last, receivers in zip(queues, reply[0::3], reply[1::3], reply[2::3], strict=True):
            if receivers >= 0:
                self._confirm(queue, epoch.decode(), int(last), receivers)
            elif concerns_key(problem := epoch.decode()):
                self._topology.key_problem.report(problem, queue.keys.head)
                self._refuse(queue, problem)  # the reason is a label in metrics, so it omits the key
            else:
                self._failed(problem)
                failed.append(queue)
        if len(failed) < len(queues):
            self.unavailable, self.problem = False, ""
            self.confirmed_at = time.monotonic()
            self._backoff.reset()
        if failed:
            self._retry(failed)

    def _failed(self, problem: str) -> None:
        if problem not in (self.problem, self.node.problem):
            _log.warning("%s refuses events, which wait: %s", self.node, problem)
        self.problem = problem

    def _refuse(self, queue: PublishQueue, problem: str) -> None:
        """Refuse a batch because of an error in its thread's keys. The batches of other threads are still sent."""
        for entry in queue.batch:
            entry.resolve(refused(queue.thread_id, problem))
        self._continue(queue)

    def _continue(self, queue: PublishQueue) -> None:
        """Send the next batch of the queue, if it has more events."""
        queue.queued = False
        if self._backlog.confirm(queue):
            self._route(queue)

    def _confirm(self, queue: PublishQueue, epoch: str, last: int, receivers: int) -> None:
        thread_id, kept = queue.thread_id, self._retention().events > 0
        outcome, link, reason = (_RELAYED, None, "") if receivers else (_NO_SUBSCRIBER, LINK, NO_SUBSCRIBER)
        for seq, entry in enumerate(queue.batch, last - len(queue.batch) + 1):
            if not entry.answer.done():
                receipt = Receipt(
                    outcome=outcome, workers=receivers, kept=kept, thread_id=thread_id, seq=seq, epoch=epoch,
                    link=link, reason=reason,
                )  # fmt: skip
                entry.answer.set_result(receipt)
        self._continue(queue)

    def _retry(self, queues: list[PublishQueue]) -> None:
        """Send these queues again after a pause. Other queues are sent meanwhile, because the error may not concern
        them."""
        loop, pause = asyncio.get_running_loop(), self._backoff.next()
        for queue in queues:
            loop.call_later(pause, self._route, queue)


def refused(thread_id: ThreadId, reason: str) -> Receipt:
    """Return the REFUSED receipt of an event that is not sent."""
    return Receipt(outcome=Outcome.REFUSED, thread_id=thread_id, link=LINK, reason=reason)


def encode_settings(retention: Retention, node: Node) -> bytes:
    """Encode the first argument of the functions: the retention, and whether the server syncs each write to disk."""
    duration_ms = max(1, round(1_000 * retention.seconds))
    return b"%d %d %d %d" % (retention.events, retention.size_bytes, duration_ms, node.syncs_each_write)


def _append_command(queues: Sequence[PublishQueue], settings: bytes, worker: bytes) -> Command:
    """Build the command that appends the current batches of these queues.

    All events of a thread are lines of one argument, because redis-py encodes each argument separately. Encoded JSON
    contains no line feed.
    """
    keys: list[bytes] = []
    batches: list[bytes] = []
    for queue in queues:
        keys += queue.keys.log, queue.keys.head
        batches += b"%d %d" % (queue.number, queue.skip), b"\n".join([entry.tail for entry in queue.batch])
    return ("FCALL", APPEND, len(keys), *keys, settings, worker, *batches)
