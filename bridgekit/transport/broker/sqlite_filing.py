"""Events on their way into the SQLite file, what was refused on that way, and what is to leave the file again."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import anyio
import msgspec

from bridgekit.events import Frame
from bridgekit.storage.sqlite import Database
from bridgekit.transport.broker.sqlite_log import Log
from bridgekit.transport.broker.sqlite_trims import Trim, Trims
from bridgekit.transport.log import Keep

__all__ = ["BACKLOG_BYTES", "BACKLOG_EVENTS", "Entry", "Filing"]

BACKLOG_EVENTS: Final = 10_000
BACKLOG_BYTES: Final = 33_554_432
"""Events that may wait to be committed, and the bytes of their frames."""
GROUP_EVENTS: Final = 512
"""Events that are committed together. The event loop is busy with delivering them for about as many microseconds."""
GROUP_BYTES: Final = 4_194_304
SWEPT_LOGS: Final = 256
"""Logs that are found to be too old after one group."""


class Batch:
    """Events that are committed together, and the answer to all of them."""

    __slots__ = ("answered", "begun_at", "entries", "problem", "settled", "size_bytes")

    def __init__(self) -> None:
        self.begun_at = time.monotonic()
        self.entries: list[Entry] = []
        self.size_bytes = 0
        self.answered = anyio.Event()
        """It is settled, or it is too late to wait for that."""
        self.settled = False
        self.problem = ""


class Entry:
    """One event, and how many sockets took it when it was committed."""

    __slots__ = ("batch", "frame", "log", "sockets")

    def __init__(self, batch: Batch, log: Log, frame: Frame) -> None:
        self.batch = batch
        self.log = log
        self.frame = frame
        self.sockets = 0


class _Group:
    """What was taken to be written."""

    def __init__(self, batch: Batch, now: float) -> None:
        self.batch = batch
        self.now = now
        self.heads: dict[Log, int] = {}
        """The threads whose own row is written, and the number in it."""
        self.rows: list[tuple[Log, int, Frame]] = []
        """Events, each with the first number that it speaks of: those before its own were lost."""
        self.trims: list[Trim] = []
        self.forgotten: list[int] = []

    def columns(self) -> Mapping[str, str | bytes]:
        events, at = [], 1
        for log, first, frame in self.rows:
            events.append((log.number, frame.seq, first, at, len(frame.data)))
            at += len(frame.data)
        heads = [(log.number, log.thread_id, log.epoch, seq, log.last) for log, seq in self.heads.items()]
        return {
            "forgotten": _json(self.forgotten),
            "heads": _json(heads),
            "events": _json(events),
            "data": b"".join([frame.data for *_, frame in self.rows]),
            "trims": _json([(trim.number, trim.first, trim.last) for trim in self.trims]),
        }

    def __bool__(self) -> bool:
        return bool(self.batch.entries or self.heads or self.trims or self.forgotten)


class Filing:
    """A Source of events. What it is told to file is in the file, or lost, in the order in which it was told."""

    def __init__(
        self,
        database: Database,
        keep: Keep,
        *,
        deliver: Callable[[Entry], None],
        done: Callable[[Entry], None],
        backlog_events: int = BACKLOG_EVENTS,
        backlog_bytes: int = BACKLOG_BYTES,
    ) -> None:
        self._database = database
        self._keep = keep
        self._backlog_events = backlog_events
        self._backlog_bytes = backlog_bytes
        self._deliver = deliver
        """Called with each event that is committed, in order."""
        self._done = done
        """Called with each event when it is committed or refused."""
        self._waiting: deque[Batch] = deque()
        self._taken = _Group(Batch(), 0.0)
        self._events = 0
        self._bytes = 0
        self._skipped: set[Log] = set()
        """Threads of which an event was refused while an earlier one was on its way."""
        self._untold: dict[Log, None] = {}
        """Threads of which the file must be told how far they are, because no event there says it."""
        self._filled: OrderedDict[Log, None] = OrderedDict()
        """Threads that have events on file, the one that was published to longest ago first."""
        self._trims = Trims()
        self._forgotten: list[int] = []
        database.add(self)

    def put(self, log: Log, frame: Frame) -> Entry | None:
        """Let the event, which is the latest of its thread, be written. None where too much waits: it is refused."""
        size_bytes = len(frame.data)
        too_much = self._events >= self._backlog_events or self._bytes + size_bytes > self._backlog_bytes
        if too_much or self._database.closed:
            self._skip(log)
            return None
        if not self._waiting or self._is_full(self._waiting[-1]):
            self._waiting.append(Batch())
        batch = self._waiting[-1]
        entry = Entry(batch, log, frame)
        log.queued = frame.seq
        batch.entries.append(entry)
        batch.size_bytes += size_bytes
        self._events += 1
        self._bytes += size_bytes
        self._database.ring()
        return entry

    def remember(self, log: Log) -> None:
        """Let the file know of the thread, also if no event follows."""
        if not log.stored:
            self._untold[log] = None
            self._database.ring()

    def restore(self, logs: Iterable[Log], orphans: Iterable[Trim]) -> None:
        """What the file has already; the log that was published to longest ago comes first."""
        for trim in orphans:
            self._trims.add(trim)
        self._filled.update((log, None) for log in logs if log.parts)

    def forget(self, log: Log) -> None:
        """Remove all of a thread from which nothing waits."""
        self._skipped.discard(log)
        self._untold.pop(log, None)
        self._filled.pop(log, None)
        self._forgotten.append(log.number)
        self._trims.add(Trim(log.number, log.oldest, log.settled, log.rows))

    def take(self) -> Mapping[str, str | bytes]:
        if not (self._waiting or self._database.healthy):
            return {}
        group = self._taken = _Group(self._waiting.popleft() if self._waiting else Batch(), self._database.clock())
        for entry in group.batch.entries:
            self._add(group, entry.log, entry.frame)
        for log in self._untold:
            group.heads.setdefault(log, log.settled)
        group.trims = self._trims.take()
        group.forgotten, self._forgotten = self._forgotten, []
        return group.columns() if group else {}

    def settle(self, problem: str) -> None:
        group = self._taken
        if problem:
            self._refused(group)
        else:
            self._filed(group)
        for entry in group.batch.entries:
            self._events -= 1
            self._bytes -= len(entry.frame.data)
            if entry.log in self._skipped:
                self._skip(entry.log)
            self._done(entry)
        group.batch.problem = problem
        group.batch.settled = True
        group.batch.answered.set()
        self._taken = _Group(Batch(), 0.0)

    def late(self, before: float) -> None:
        for batch in (self._taken.batch, *self._waiting):
            if batch.begun_at < before:
                batch.answered.set()

    def _add(self, group: _Group, log: Log, frame: Frame) -> None:
        if self._keep.events:
            group.rows.append((log, log.last + 1, frame))
        log.last = frame.seq
        if not log.stored or not self._keep.events:
            group.heads[log] = frame.seq

    def _skip(self, log: Log) -> None:
        """The latest numbers of the thread are lost: to be told as soon as what came before them is decided."""
        if log.queued > log.settled:
            self._skipped.add(log)
        else:
            self._skipped.discard(log)
            log.settled = log.seq
            self._untold[log] = None

    def _refused(self, group: _Group) -> None:
        """None of it is on file: its numbers are lost, and the rest is to be tried again."""
        for log, first, _ in reversed(group.rows):
            log.last = first - 1
        for entry in group.batch.entries:
            entry.log.settled = entry.frame.seq
            self._untold[entry.log] = None
        self._trims.put_back(group.trims)
        self._forgotten = group.forgotten + self._forgotten

    def _filed(self, group: _Group) -> None:
        for log, seq in group.heads.items():
            log.stored = True
            if seq >= log.settled:
                self._untold.pop(log, None)
        for log, first, frame in group.rows:
            log.filed(first, frame.seq, len(frame.data), group.now, self._keep)
        for entry in group.batch.entries:
            entry.log.settled = entry.frame.seq
            self._deliver(entry)
        self._sweep({log: None for log, *_ in group.rows}, group.now - self._keep.seconds)

    def _sweep(self, used: Iterable[Log], before: float) -> None:
        """Let go of what is over the bounds in the logs that were used, and of what is too old in some others."""
        for log in used:
            self._filled[log] = None
            self._filled.move_to_end(log)
            self._let_go(log, before)
        for _ in range(SWEPT_LOGS):
            oldest = next(iter(self._filled), None)
            if oldest is None or oldest.parts[-1].ended_at >= before:
                return
            self._let_go(oldest, before)

    def _let_go(self, log: Log, before: float) -> None:
        for part in log.overdue(before, self._keep):
            self._trims.add(Trim(log.number, part.first, part.last, part.rows))
        if not log.parts:
            del self._filled[log]
            self._untold[log] = None

    @staticmethod
    def _is_full(batch: Batch) -> bool:
        return len(batch.entries) >= GROUP_EVENTS or batch.size_bytes >= GROUP_BYTES


def _json(rows: list[Any]) -> str:
    return msgspec.json.encode(rows).decode()
