"""Logs in this process's memory: the default. They end with the process, and no other worker sees them."""

from __future__ import annotations

import os
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable

from bridgekit.events import Draft, Frame, Outcome, Receipt
from bridgekit.ids import ThreadId
from bridgekit.signals import Cursor, Gap, GapReason
from bridgekit.transport.broker import HISTORY, LINK, UNHEARD, Keep, Replay, Sink

__all__ = ["MemoryBroker", "new_epoch", "replayed"]


def new_epoch() -> str:
    """A name for a numbering that nobody can guess: 16 hexadecimal digits."""
    return os.urandom(8).hex()


class _Log:
    """One thread's numbers, and the latest of its frames."""

    __slots__ = ("epoch", "frames", "seq", "size_bytes", "sockets", "times")

    def __init__(self) -> None:
        self.epoch = new_epoch()
        self.seq = 0
        self.frames: deque[Frame] = deque()
        self.times: deque[float] = deque()
        """When each of `frames` was published."""
        self.size_bytes = 0
        self.sockets = 0
        """How often the thread was joined."""

    def append(self, frame: Frame, now: float, keep: Keep) -> None:
        self.frames.append(frame)
        self.times.append(now)
        self.size_bytes += len(frame.data)
        while len(self.frames) > keep.events or (self.size_bytes > keep.size_bytes and len(self.frames) > 1):
            self._drop()
        self.expire(now - keep.seconds)

    def expire(self, before: float) -> None:
        while self.times and self.times[0] < before:
            self._drop()

    def _drop(self) -> None:
        self.times.popleft()
        self.size_bytes -= len(self.frames.popleft().data)


class MemoryBroker:
    """A log a thread. Publishing is O(1), amortised, and never waits.

    Memory is bounded by `keep`: frames that are too old go when any thread's event is published, and of threads whose
    frames are all gone only epoch and number are remembered.
    """

    def __init__(self, keep: Keep = HISTORY, clock: Callable[[], float] = time.monotonic) -> None:
        self._keep = keep
        self._clock = clock
        self._sink: Sink | None = None
        self._logs: dict[ThreadId, _Log] = {}
        self._filled: OrderedDict[ThreadId, _Log] = OrderedDict()
        """Logs that hold frames, the one that was published to longest ago first."""
        self._empty: OrderedDict[ThreadId, _Log] = OrderedDict()
        """Logs that hold none, the one that is empty longest first."""

    def __len__(self) -> int:
        """How many threads are remembered."""
        return len(self._logs)

    @property
    def healthy(self) -> bool:
        return True

    def bind(self, sink: Sink) -> None:
        self._sink = sink

    async def publish(self, draft: Draft) -> Receipt:
        log = self._log(draft.thread_id)
        log.seq += 1
        frame = draft.frame(log.seq)
        if self._keep.events:
            self._kept(draft.thread_id, log, frame)
        sockets = 0 if self._sink is None else self._sink.deliver(draft.thread_id, frame)
        if sockets:
            return Receipt(
                outcome=Outcome.SENT,
                sockets=sockets,
                kept=bool(self._keep.events),
                thread_id=draft.thread_id,
                seq=log.seq,
                epoch=log.epoch,
            )
        return Receipt(
            outcome=Outcome.NOBODY_LISTENING,
            kept=bool(self._keep.events),
            thread_id=draft.thread_id,
            seq=log.seq,
            epoch=log.epoch,
            link=LINK,
            reason=UNHEARD,
        )

    async def join(self, thread_id: ThreadId) -> None:
        self._log(thread_id).sockets += 1

    def leave(self, thread_id: ThreadId) -> None:
        self._logs[thread_id].sockets -= 1

    async def replay(self, thread_id: ThreadId, after: Cursor | None) -> Replay:
        log = self._log(thread_id)
        log.expire(self._clock() - self._keep.seconds)
        return replayed(thread_id, Cursor(log.epoch, log.seq), log.frames, after)

    def _log(self, thread_id: ThreadId) -> _Log:
        log = self._logs.get(thread_id)
        if log is None:
            log = self._logs[thread_id] = self._empty[thread_id] = _Log()
            self._forget()
        return log

    def _kept(self, thread_id: ThreadId, log: _Log, frame: Frame) -> None:
        now = self._clock()
        log.append(frame, now, self._keep)
        self._empty.pop(thread_id, None)
        self._filled[thread_id] = log
        self._filled.move_to_end(thread_id)
        # The log that was published to longest ago has the oldest frames; those behind it have their turn later.
        oldest, first = next(iter(self._filled.items()))
        first.expire(now - self._keep.seconds)
        if not first.frames:
            del self._filled[oldest]
            self._empty[oldest] = first

    def _forget(self) -> None:
        """Forget the thread that is idle longest, if there are too many. One that has sockets is passed over."""
        for _ in range(min(len(self._logs) - self._keep.threads, 2)):
            # The last of the empty ones is the one that was made just now.
            idle = self._empty if len(self._empty) > 1 else self._filled
            thread_id = next(iter(idle), None)
            if thread_id is None:
                return
            if idle[thread_id].sockets:
                idle.move_to_end(thread_id)
            else:
                del idle[thread_id], self._logs[thread_id]


def replayed(thread_id: ThreadId, head: Cursor, frames: Iterable[Frame], after: Cursor | None) -> Replay:
    """All that came after a cursor, by what a log still holds; else a gap, and the stream goes on at the log's end."""
    if after is None or after == head:
        return Replay(head)
    if after.epoch != head.epoch or after.seq > head.seq:
        # Of another numbering, or from ahead of this one: how much is missing nobody knows.
        return Replay(head, gap=_gap(thread_id, after, None, GapReason.RESTARTED))
    missed = tuple(frame for frame in frames if frame.seq > after.seq)
    if not missed or missed[0].seq != after.seq + 1:
        return Replay(head, gap=_gap(thread_id, after, head.seq, GapReason.EXPIRED))
    return Replay(after, missed)


def _gap(thread_id: ThreadId, after: Cursor, last: int | None, reason: GapReason) -> Gap:
    return Gap(thread_id=thread_id, epoch=after.epoch, first=after.seq + 1, last=last, reason=reason)
