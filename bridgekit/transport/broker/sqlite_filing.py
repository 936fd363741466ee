"""Events on their way into the SQLite file, what was refused on that way, and what is to leave the file again."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import anyio
import msgspec

from bridgekit.events import Frame
from bridgekit.storage.sqlite import Database
from bridgekit.transport.broker import Keep
from bridgekit.transport.broker.sqlite_log import Log, hole
from bridgekit.transport.broker.sqlite_trims import Trim, Trims

__all__ = ["BACKLOG_BYTES", "BACKLOG_EVENTS", "Entry", "Filing"]

BACKLOG_EVENTS: Final = 10_000
"""Events that may wait to be committed."""
BACKLOG_BYTES: Final = 33_554_432
"""Bytes of frames that may wait to be committed."""
GROUP_EVENTS: Final = 512
"""Events that are committed together. The event loop is busy with delivering them for about as many microseconds."""
GROUP_BYTES: Final = 4_194_304
SWEPT_LOGS: Final = 256
"""Logs that are found to be too old after one group."""


class Batch:
    """Events that are committed together, and the answer to all of them."""

    __slots__ = ("entries", "problem", "settled", "size_bytes")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.size_bytes = 0
        self.settled = anyio.Event()
        self.problem = ""


class Entry:
    """One event, and how many sockets took it when it was committed."""

    __slots__ = ("batch", "first", "frame", "log", "sockets")

    def __init__(self, batch: Batch, log: Log, first: int, frame: Frame) -> None:
        self.batch = batch
        self.log = log
        self.first = first
        """The frame's number, or a lower one: then those before it were refused."""
        self.frame = frame
        self.sockets = 0


class _Group:
    """What was taken to be written, in order."""

    def __init__(self, batch: Batch, now: float) -> None:
        self.batch = batch
        self.now = now
        self.heads: dict[Log, int] = {}
        """The threads whose row is written, and the number in it."""
        self.rows: list[tuple[Log, int, int, bytes]] = []
        """First number, last number, data."""
        self.owed: list[tuple[Log, int, int]] = []
        """Numbers that were refused, and that no later event of the thread tells of."""
        self.trims: list[Trim] = []
        self.forgotten: list[int] = []

    def columns(self) -> Mapping[str, str | bytes]:
        events, at = [], 1
        for log, _, last, data in self.rows:
            events.append((log.number, last, at, len(data)))
            at += len(data)
        heads = [(log.number, log.thread_id, log.epoch, seq, self.now) for log, seq in self.heads.items()]
        return {
            "forgotten": _json(self.forgotten),
            "heads": _json(heads),
            "events": _json(events),
            "data": b"".join([data for *_, data in self.rows]),
            "trims": _json([(trim.number, trim.first, trim.last) for trim in self.trims]),
        }

    def __bool__(self) -> bool:
        return bool(self.batch.entries or self.heads or self.owed or self.trims or self.forgotten)


class Filing:
    """A Source of events. What it is told to file is in the file, or lost, in the order in which it was told."""

    def __init__(
        self,
        database: Database,
        keep: Keep,
        *,
        deliver: Callable[[Entry], None],
        done: Callable[[Entry], None],
    ) -> None:
        self._database = database
        self._keep = keep
        self._deliver = deliver
        """Called with each event that is committed, in order."""
        self._done = done
        """Called with each event when it is committed or refused."""
        self._waiting: deque[Batch] = deque()
        self._taken = _Group(Batch(), 0.0)
        self._events = 0
        self._bytes = 0
        self._owing: dict[Log, None] = {}
        """Threads of which numbers were refused."""
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
        if self._events >= BACKLOG_EVENTS or self._bytes + size_bytes > BACKLOG_BYTES or self._database.closed:
            self._owing[log] = None
            return None
        if not self._waiting or self._is_full(self._waiting[-1]):
            self._waiting.append(Batch())
        batch = self._waiting[-1]
        entry = Entry(batch, log, log.queued + 1, frame)
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
        for logs in (self._owing, self._untold, self._filled):
            logs.pop(log, None)
        log.forgotten = True
        self._forgotten.append(log.number)
        self._trims.add(Trim(log.number, log.oldest, log.settled, log.rows))

    def take(self) -> Mapping[str, str | bytes]:
        if not self._waiting and self._database.closed and not self._database.healthy:
            return {}
        group = self._taken = _Group(self._waiting.popleft() if self._waiting else Batch(), self._database.clock())
        for entry in group.batch.entries:
            log, seq = entry.log, entry.frame.seq
            entry.first, log.hole = log.hole or entry.first, 0
            if entry.first < seq:
                self._add(group, log, entry.first, seq - 1, hole(entry.first, seq - 1))
            self._add(group, log, seq, seq, entry.frame.data)
        self._take_owed(group)
        for log in self._untold:
            group.heads.setdefault(log, log.settled)
        group.trims = self._trims.take()
        group.forgotten, self._forgotten = self._forgotten, []
        return group.columns() if group else {}

    def settle(self, problem: str) -> None:
        group, self._taken = self._taken, _Group(Batch(), 0.0)
        if problem:
            self._refused(group)
        else:
            self._filed(group)
        for entry in group.batch.entries:
            self._events -= 1
            self._bytes -= len(entry.frame.data)
            self._done(entry)
        group.batch.problem = problem
        group.batch.settled.set()

    def _take_owed(self, group: _Group) -> None:
        """Tell the file of refused numbers, as soon as no event that came before them waits."""
        if self._waiting:
            return
        for log in self._owing:
            first = log.hole or log.queued + 1
            if first <= log.seq:
                log.hole, log.queued = 0, log.seq
                group.owed.append((log, first, log.seq))
                self._add(group, log, first, log.seq, hole(first, log.seq))
        self._owing.clear()

    def _add(self, group: _Group, log: Log, first: int, last: int, data: bytes) -> None:
        if self._keep.events:
            group.rows.append((log, first, last, data))
        if not log.stored or not self._keep.events:
            group.heads[log] = last

    def _refused(self, group: _Group) -> None:
        """None of it is on file: its numbers are left out, and the rest is to be tried again."""
        numbers = [(entry.log, entry.first, entry.frame.seq) for entry in group.batch.entries]
        for log, first, last in numbers + group.owed:
            log.hole = log.hole or first
            log.settled = last
            if not log.forgotten:
                self._owing[log] = None
        self._trims.put_back(group.trims)
        self._forgotten = group.forgotten + self._forgotten

    def _filed(self, group: _Group) -> None:
        for log in group.heads:
            log.stored = True
            self._untold.pop(log, None)
        for log, first, last, data in group.rows:
            log.filed(first, last, len(data), group.now, self._keep)
        for entry in group.batch.entries:
            entry.log.settled = entry.frame.seq
            self._deliver(entry)
        for log, _, last in group.owed:
            log.settled = last
        self._sweep({log: None for log, *_ in group.rows}, group.now - self._keep.seconds)

    def _sweep(self, used: Iterable[Log], before: float) -> None:
        """Let go of what is over the bounds in the logs that were used, and of what is too old in some others."""
        for log in used:
            if log.forgotten:
                # While this was on its way. What was on file before is trimmed already.
                self._trims.add(Trim(log.number, log.oldest, log.settled, log.rows))
            else:
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
