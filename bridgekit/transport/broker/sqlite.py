"""Logs in a SQLite file: what was acknowledged is there when the process is back, and numbering goes on.

Write ahead: an event is in the file before a socket or its sender hears of it. Numbers are given in memory, where the
head of every remembered thread is; the frames are in the file only.
"""

from __future__ import annotations

from typing import Final

from bridgekit.events import Draft, Outcome, Receipt
from bridgekit.ids import ThreadId
from bridgekit.signals import Cursor, Gap, GapReason
from bridgekit.storage.sqlite import Database
from bridgekit.storage.sqlite_file import STORE
from bridgekit.transport.broker.sqlite_filing import BACKLOG_BYTES, BACKLOG_EVENTS, Entry, Filing
from bridgekit.transport.broker.sqlite_found import found_logs, found_orphans
from bridgekit.transport.broker.sqlite_log import NOTHING_HELD, Held, Log
from bridgekit.transport.log import HISTORY, LINK, UNHEARD, Keep, Replay, Sink, replayed, same_numbering
from bridgekit.transport.pinned_lru import Remembered, new_epoch

__all__ = ["SqliteBroker"]

_HELD: Final = """
  SELECT first, min(seq), CAST(group_concat(data, char(10)) AS BLOB)
  FROM (SELECT first, seq, data FROM events WHERE thread = ? AND seq > ? AND at >= ? ORDER BY seq)
"""
"""The first number, and all frames as one row: with each row the thread waits for the interpreter. In a frame there is
no line break."""


class SqliteBroker:
    """A log a thread, in one file, for the sockets of this process."""

    def __init__(
        self,
        database: Database,
        keep: Keep = HISTORY,
        *,
        backlog_events: int = BACKLOG_EVENTS,
        backlog_bytes: int = BACKLOG_BYTES,
    ) -> None:
        self._database = database
        self._keep = keep
        self._sink: Sink | None = None
        self._threads: Remembered[Log] = Remembered(keep.threads, self._begun, self._forget)
        self._filing = Filing(
            database,
            keep,
            deliver=self._deliver,
            done=self._done,
            backlog_events=backlog_events,
            backlog_bytes=backlog_bytes,
        )
        self._numbers = 0
        """The number in the file that was given last."""

    async def load(self) -> SqliteBroker:
        """Take up all the threads that the file remembers. To be done first."""
        orphans, logs = await found_orphans(self._database), await found_logs(self._database)
        self._filing.restore(logs, orphans)
        for log in logs:
            self._threads.put(log.thread_id, log)
        self._numbers = max([trim.number for trim in orphans] + [log.number for log in logs], default=0)
        return self

    def __len__(self) -> int:
        """How many threads are remembered."""
        return len(self._threads)

    @property
    def healthy(self) -> bool:
        return self._database.healthy

    def bind(self, sink: Sink) -> None:
        self._sink = sink

    async def publish(self, draft: Draft) -> Receipt:
        log = self._threads.hold(draft.thread_id)
        log.seq = seq = log.seq + 1
        entry = self._filing.put(log, draft.frame(seq))
        if entry is None:
            self._threads.let_go(draft.thread_id)
            return _failed(log, seq, Outcome.REFUSED, "it is closed" if self._database.closed else "it is behind")
        # Whoever stops waiting stops nothing: the event has its place, and what comes after it has a later one.
        await entry.batch.answered.wait()
        if entry.batch.problem:
            return _failed(log, seq, Outcome.REFUSED, entry.batch.problem)
        if not entry.batch.settled:
            return _failed(log, seq, Outcome.PENDING, "it does not answer in time")
        return _answered(log, seq, entry.sockets, kept=self._keep.events > 0)

    async def join(self, thread_id: ThreadId) -> None:
        self._threads.hold(thread_id)

    def leave(self, thread_id: ThreadId) -> None:
        self._threads.let_go(thread_id)

    async def replay(self, thread_id: ThreadId, after: Cursor | None) -> Replay:
        log = self._threads.of(thread_id)
        # The socket is told the epoch: when the process is back, it is to be the same although nothing happened.
        self._filing.remember(log)
        head = Cursor(log.epoch, log.settled)
        if after is None or after == head:
            return Replay(head)
        if not same_numbering(head, after):
            return replayed(thread_id, head, (await self._held(log, 0)).frames, after)
        held = await self._held(log, after.seq) if log.oldest <= after.seq + 1 else NOTHING_HELD
        if held.frames and held.oldest <= after.seq + 1:
            # A hole between them is seen from their numbers; one after them, from the number of the next event.
            return Replay(after, held.frames)
        reason = GapReason.LOST if held.oldest <= after.seq + 1 else GapReason.EXPIRED
        gap = Gap(thread_id=thread_id, epoch=log.epoch, first=after.seq + 1, last=head.seq, reason=reason)
        return Replay(head, gap=gap)

    async def _held(self, log: Log, after: int) -> Held:
        """What the log holds after that number."""
        if after >= log.last:
            return Held(log.last + 1, ())
        before = self._database.clock() - self._keep.seconds
        ((first, _, data),) = await self._database.read(_HELD, log.number, after, before)
        return NOTHING_HELD if data is None else Held.of(first, data.split(b"\n"), self._keep)

    def _deliver(self, entry: Entry) -> None:
        if self._sink is not None:
            entry.sockets = self._sink.deliver(entry.log.thread_id, entry.frame)

    def _done(self, entry: Entry) -> None:
        self._threads.let_go(entry.log.thread_id)

    def _begun(self, thread_id: ThreadId) -> Log:
        self._numbers += 1
        return Log(thread_id, self._numbers, new_epoch())

    def _forget(self, thread_id: ThreadId, log: Log) -> None:
        self._filing.forget(log)


def _answered(log: Log, seq: int, sockets: int, *, kept: bool) -> Receipt:
    if sockets:
        return Receipt(
            outcome=Outcome.SENT, sockets=sockets, kept=kept, thread_id=log.thread_id, seq=seq, epoch=log.epoch
        )
    return Receipt(
        outcome=Outcome.NOBODY_LISTENING,
        kept=kept,
        thread_id=log.thread_id,
        seq=seq,
        epoch=log.epoch,
        link=LINK,
        reason=UNHEARD,
    )


def _failed(log: Log, seq: int, outcome: Outcome, problem: str) -> Receipt:
    return Receipt(
        outcome=outcome,
        thread_id=log.thread_id,
        seq=seq,
        epoch=log.epoch,
        link=LINK,
        reason=f"the {STORE} store: {problem}",
    )
