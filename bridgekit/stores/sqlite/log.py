"""Thread logs in a SQLite file: acknowledged events survive the process, and `seq` continues after a restart.

An event is committed before it is delivered and before its sender gets a receipt. The log assigns `seq` and keeps the
position of every known thread in memory. The frames are only in the file.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Generator, Iterable, Mapping
from itertools import chain
from typing import Any, Final
from zlib import crc32

from bridgekit.cursors_and_gaps import Cursor
from bridgekit.events import FRAME_BYTES, AgentEvent, Answer, Frame, Outcome, Receipt, encode, renumber
from bridgekit.ids import ThreadId
from bridgekit.stores.sqlite.file import STORE, checksum, damaged
from bridgekit.stores.sqlite.group_commit import LOAD_TIMEOUT_SECONDS, Database, Pending, RowsDamaged, encode_rows
from bridgekit.stores.sqlite.thread_log import ThreadLog, count_retained
from bridgekit.transport.log import (
    DEFAULT_RETENTION,
    LINK,
    LocalSink,
    Replay,
    Retention,
    published,
    replay_after,
    same_epoch,
)
from bridgekit.transport.pinned_lru import PinnedLru, new_epoch

__all__ = ["BATCH_EVENTS", "SqliteEventLog"]

_logger = logging.getLogger(__name__)

BACKLOG_EVENTS: Final = 10_000
BACKLOG_BYTES: Final = 33_554_432
"""Limits on the events that are accepted and not yet delivered: their number, and the bytes of their frames."""
BATCH_EVENTS: Final = 512
"""Limit on the events in one transaction. The event loop takes about one microsecond to deliver an event."""
BATCH_BYTES: Final = 4_194_304
DELETED_ROWS: Final = 1_024
"""Limit on the rows that one transaction deletes, so that no sender waits for a long deletion."""
EXPIRED_LOGS: Final = 256
"""Limit on the logs that are checked for expiry after one transaction."""

_THREADS: Final = """
  SELECT number, thread_id, epoch, seq, last, sum, used_at,
    (SELECT first FROM events WHERE thread = number ORDER BY seq LIMIT 1)
  FROM threads ORDER BY used_at, number
"""
_ORPHANS: Final = """
  WITH RECURSIVE found (number) AS (
    SELECT min(thread) FROM events
    UNION ALL
    SELECT (SELECT min(thread) FROM events WHERE thread > number) FROM found WHERE number IS NOT NULL
  )
  SELECT number,
    (SELECT min(seq) FROM events WHERE thread = number),
    (SELECT max(seq) FROM events WHERE thread = number)
  FROM found WHERE number IS NOT NULL AND number NOT IN (SELECT number FROM threads)
"""
"""Selects events of forgotten threads. Such events remain if a process ended before it had deleted them."""
_FRAMES: Final = """
  SELECT first, min(seq), CAST(group_concat(data, '') AS BLOB), group_concat(sum || ' ' || size)
  FROM (
    SELECT first, seq, data, CAST(sum AS INTEGER) AS sum, length(CAST(data AS BLOB)) AS size
    FROM events WHERE thread = ? AND seq > ? AND at >= ? ORDER BY seq
  )
"""
"""Returns all frames in one row, because the reading thread waits for the interpreter's lock once per row."""


class _PendingEvent(Pending[Receipt]):
    """An event that waits for its commit.

    Awaiting the pending event returns its receipt, which is PENDING if the file takes too long.
    """

    __slots__ = ("frame", "log")

    def __init__(self, log: ThreadLog, frame: Frame) -> None:
        super().__init__()
        self.log = log
        self.frame = frame

    def __await__(self) -> Generator[Any, Any, Receipt]:
        receipt = yield from self.wait().__await__()
        if receipt is None:
            return _failed(self.log, self.frame.seq, Outcome.PENDING, "no answer in time")
        return receipt


class SqliteEventLog:
    """A log for each thread, in one file, for the sockets of this process. Implements EventLog and WriteSource."""

    def __init__(
        self,
        database: Database,
        retention: Retention = DEFAULT_RETENTION,
        *,
        backlog_events: int = BACKLOG_EVENTS,
        backlog_bytes: int = BACKLOG_BYTES,
    ) -> None:
        self.retention = retention
        self._database = database
        self._sink: LocalSink
        self._frame_bytes = FRAME_BYTES
        self._threads: PinnedLru[ThreadLog] = PinnedLru(retention.threads, self._create, self._forget)
        """Thread logs. A thread is pinned once for each of its sockets and each undelivered event."""
        self._numbers = 0
        """The last thread number that was assigned."""
        self._backlog_events = self._free_events = backlog_events
        self._free_bytes = backlog_bytes
        self._waiting: deque[_PendingEvent] = deque()
        self._undelivered: dict[ThreadLog, deque[_PendingEvent]] = {}
        """For each thread, the committed events that a task will deliver."""
        self._changed: dict[ThreadLog, None] = {}
        """Threads whose position must be written to the file even if none of their events waits."""
        self._forgotten: list[int] = []
        """Numbers of threads to delete from the file."""
        self._with_rows: OrderedDict[ThreadLog, None] = OrderedDict()
        """Threads with rows in the file, least recently published first."""
        self._deletions: deque[tuple[int, int, int]] = deque()
        """Rows to delete: a thread's number with the first and last `seq` of at most `DELETED_ROWS` rows."""
        # The fields below describe the transaction in progress, or otherwise the last transaction.
        self._batch: list[_PendingEvent] = []
        self._batch_heads: dict[ThreadLog, tuple[int, int]] = {}
        """Thread positions that the transaction writes, as (`seq`, `last`)."""
        self._batch_forgotten = 0
        self._batch_deletions = 0
        """How many entries of `_forgotten` and `_deletions` the transaction includes."""
        database.sources.append(self)

    async def load(self) -> SqliteEventLog:
        """Read the position of every thread in the file. Call this before any other method."""
        for number, first, last in await self._database.read(_ORPHANS, timeout_seconds=LOAD_TIMEOUT_SECONDS):
            self._numbers = max(self._numbers, number)
            self._delete(number, first, last)
        for row in await self._database.read(_THREADS, timeout_seconds=LOAD_TIMEOUT_SECONDS):
            *head, total, used_at, first = row
            if checksum(*head) != total:
                raise damaged(self._database.path, f"the position of thread {head[1]!r} was changed")
            number, thread_id, epoch, seq, last = head
            self._numbers = max(self._numbers, number)
            log = ThreadLog(thread_id, number, epoch, seq, last)
            if first is not None:
                log.restore(first, last, used_at)
                self._with_rows[log] = None
            self._threads.put(thread_id, log)
        return self

    def __len__(self) -> int:
        """Return the number of threads whose epoch and `seq` are kept."""
        return len(self._threads)

    @property
    def healthy(self) -> bool:
        return not self._database.problem

    @property
    def problem(self) -> str:
        return self._database.problem

    @property
    def unconfirmed(self) -> int:
        return self._backlog_events - self._free_events

    def bind(self, sink: LocalSink, *, frame_bytes: int = FRAME_BYTES) -> None:
        self._sink = sink
        self._frame_bytes = frame_bytes

    def publish(self, event: AgentEvent) -> Answer:
        thread_id = event.thread_id
        assert thread_id is not None
        log = self._threads.get_or_create(thread_id)
        event.seq = seq = log.seq + 1
        data = encode(event, self._frame_bytes)
        if log.seq >= seq:
            seq = log.seq + 1
            data = renumber(event, data, seq)
        log.seq = seq
        if self._database.closed or not self._free_events or len(data) > self._free_bytes:
            if not log.waiting:
                log.settled = seq
                self._changed[log] = None
            problem = "it is closed" if self._database.closed else "its queue of unwritten events is full"
            return _failed(log, seq, Outcome.REFUSED, problem)
        log.waiting += 1
        self._threads.pin(thread_id)
        self._free_events -= 1
        self._free_bytes -= len(data)
        pending = _PendingEvent(log, Frame(seq, event.type, event.run_id, data))
        self._waiting.append(pending)
        if len(self._waiting) == 1:
            self._database.notify()
        return pending

    async def join(self, thread_id: ThreadId) -> None:
        self._threads.pin(thread_id)

    def leave(self, thread_id: ThreadId) -> None:
        self._threads.unpin(thread_id)

    async def replay(self, thread_id: ThreadId, after: Cursor | None) -> Replay:
        log = self._threads.get_or_create(thread_id)
        head = Cursor(log.epoch, log.settled)
        if after is None or after == head:
            return Replay(head)
        oldest, frames = await self._read(log, after.seq if same_epoch(head, after) else 0)
        return replay_after(thread_id, head, frames, after, oldest)

    async def _read(self, log: ThreadLog, after: int) -> tuple[int, list[Frame]]:
        """Return the retained frames after `after`, and the `seq` from which every event without a frame is lost."""
        before = self._database.clock() - self.retention.seconds
        try:
            ((first, _, data, sums),) = await self._database.read(_FRAMES, log.number, after, before)
        except RowsDamaged as error:
            _logger.warning("events of thread %s are lost: %s", log.thread_id, error)
            return after + 1, []
        if data is None:
            return log.last + 1, []
        frames = log.decode_frames(data, sums)
        # The file may still contain rows over the retention, because they are deleted later.
        excess = len(frames) - count_retained(frames, self.retention)
        return (frames[excess - 1].seq + 1 if excess else first), frames[excess:]

    def next_batch(self) -> Mapping[str, str | bytes]:
        if not self._waiting and self._database.problem:
            return {}
        self._batch, size_bytes = [], 0
        while self._waiting and len(self._batch) < BATCH_EVENTS and size_bytes < BATCH_BYTES:
            self._batch.append(self._waiting.popleft())
            size_bytes += len(self._batch[-1].frame.data)
        heads = self._batch_heads = {log: (log.settled, log.last) for log in self._changed}
        events, offset = [], 1
        for pending in self._batch:
            log, frame = pending.log, pending.frame
            _, last = heads.get(log, (0, log.last))
            events.append((log.number, frame.seq, last + 1, offset, len(frame.data), crc32(frame.data, log.salt)))
            offset += len(frame.data)
            heads[log] = (frame.seq, frame.seq)
        if not self.retention.events:
            events = []
        deletions = self._next_deletions()
        self._batch_deletions = len(deletions)
        self._batch_forgotten = len(self._forgotten)
        if not (heads or deletions or self._forgotten):
            return {}
        return {
            "forgotten": encode_rows(self._forgotten),
            "events": encode_rows(events),
            "data": b"".join([pending.frame.data for pending in self._batch]),
            "deletions": encode_rows(deletions),
            **({"heads": encode_rows([_head_row(log, *head) for log, head in heads.items()])} if heads else {}),
        }

    def complete(self, problem: str) -> None:
        if problem:
            self._refuse_batch(problem)
            return
        del self._forgotten[: self._batch_forgotten]
        for _ in range(self._batch_deletions):
            self._deletions.popleft()
        events_of: dict[ThreadLog, deque[_PendingEvent]] = {}
        for pending in self._batch:
            self._settle(pending)
            events_of.setdefault(pending.log, deque()).append(pending)
        for log, (seq, last) in self._batch_heads.items():
            log.last = last
            if seq >= log.settled:
                self._changed.pop(log, None)
        if self.retention.events:
            self._retain(events_of, self._database.clock())
        for log, events in events_of.items():
            self._deliver_events(log, events)

    def unresolved(self) -> Iterable[_PendingEvent]:
        return chain(*self._undelivered.values(), self._batch, self._waiting)

    def _refuse_batch(self, problem: str) -> None:
        """Record that the events of a failed batch are lost. Everything else is retried."""
        for pending in self._batch:
            self._settle(pending)
            self._changed[pending.log] = None
            self._resolve(pending, _failed(pending.log, pending.frame.seq, Outcome.REFUSED, problem))

    def _settle(self, pending: _PendingEvent) -> None:
        """Record that the event is committed or lost.

        Settling a thread's last waiting event also settles the refused events after it.
        """
        log = pending.log
        log.waiting -= 1
        log.settled = pending.frame.seq if log.waiting else log.seq
        if log.settled > pending.frame.seq:
            self._changed[log] = None

    def _deliver_events(self, log: ThreadLog, events: deque[_PendingEvent]) -> None:
        """Deliver events of one thread, in order. The event loop can write to the thread's sockets between two events.

        A single event is delivered immediately, because the event loop has run since the thread's previous event. If
        there are several events, a separate task delivers them, so that neither the next commit nor another thread
        waits for the thread's clients.
        """
        if (undelivered := self._undelivered.get(log)) is not None:
            undelivered.extend(events)
        elif len(events) == 1:
            self._deliver(events[0])
        else:
            self._undelivered[log] = events
            self._database.tasks.start_soon(self._deliver_in_turn, log, events)

    async def _deliver_in_turn(self, log: ThreadLog, events: deque[_PendingEvent]) -> None:
        while events:
            self._deliver(events[0])
            events.popleft()
            await self._sink.wait_for_room(log.thread_id)
        del self._undelivered[log]

    def _deliver(self, pending: _PendingEvent) -> None:
        log, frame = pending.log, pending.frame
        sockets = self._sink.deliver(log.thread_id, frame)
        kept = self.retention.events > 0
        self._resolve(pending, published(log.thread_id, frame.seq, log.epoch, sockets=sockets, kept=kept))

    def _resolve(self, pending: _PendingEvent, receipt: Receipt) -> None:
        self._free_events += 1
        self._free_bytes += len(pending.frame.data)
        self._threads.unpin(pending.log.thread_id)
        pending.resolve(receipt)

    def _create(self, thread_id: ThreadId) -> ThreadLog:
        self._numbers += 1
        log = ThreadLog(thread_id, self._numbers, new_epoch())
        # Clients get the epoch even if no event is published, so it must be the same after a restart.
        self._changed[log] = None
        self._database.notify()
        return log

    def _forget(self, thread_id: ThreadId, log: ThreadLog) -> None:
        self._changed.pop(log, None)
        self._with_rows.pop(log, None)
        self._forgotten.append(log.number)
        if log.segments:
            self._delete(log.number, log.segments[0].first, log.last)

    def _retain(self, events_of: Mapping[ThreadLog, Iterable[_PendingEvent]], now: float) -> None:
        """Count new rows. Delete rows over the limits in these logs, and expired rows in some other logs."""
        before = now - self.retention.seconds
        for log, events in events_of.items():
            for pending in events:
                log.append(pending.frame.seq, len(pending.frame.data), now, self.retention)
            self._with_rows[log] = None
            self._with_rows.move_to_end(log)
            self._delete_segments(log, before)
        for _ in range(EXPIRED_LOGS):
            oldest = next(iter(self._with_rows), None)
            if oldest is None or oldest.segments[-1].ended_at >= before:
                return
            self._delete_segments(oldest, before)

    def _delete_segments(self, log: ThreadLog, before: float) -> None:
        for segment in log.trim(before, self.retention):
            self._delete(log.number, segment.first, segment.last)
        if not log.segments:
            del self._with_rows[log]

    def _delete(self, number: int, first: int, last: int) -> None:
        for start in range(first, last + 1, DELETED_ROWS):
            self._deletions.append((number, start, min(last, start + DELETED_ROWS - 1)))

    def _next_deletions(self) -> list[tuple[int, int, int]]:
        """Return the next deletions that fit in one transaction."""
        deletions, rows = [], 0
        for number, first, last in self._deletions:
            rows += last - first + 1
            if rows > DELETED_ROWS:
                break
            deletions.append((number, first, last))
        return deletions


def _head_row(log: ThreadLog, seq: int, last: int) -> tuple[object, ...]:
    head = (log.number, log.thread_id, log.epoch, seq, last)
    return *head, checksum(*head)


def _failed(log: ThreadLog, seq: int, outcome: Outcome, problem: str) -> Receipt:
    return Receipt(
        outcome=outcome,
        thread_id=log.thread_id,
        seq=seq,
        epoch=log.epoch,
        link=LINK,
        reason=f"the {STORE} store: {problem}",
    )
