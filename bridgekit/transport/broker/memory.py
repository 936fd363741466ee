"""Logs in this process's memory: the default. They end with the process, and no other worker sees them."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import islice
from typing import Final

from bridgekit.events import Draft, Frame, Outcome, Receipt
from bridgekit.ids import ThreadId
from bridgekit.signals import Cursor
from bridgekit.transport.broker import HISTORY, LINK, UNHEARD, Keep, Replay, Sink
from bridgekit.transport.broker.remembered import Numbering, Remembered, new_epoch
from bridgekit.transport.broker.resuming import replayed, same_numbering

__all__ = ["MemoryBroker"]

_SENT: Final = Outcome.SENT  # an enumeration takes longer to find its member than a Receipt takes to be made


class _Kept:
    """The latest frames of a thread, and when each was published."""

    __slots__ = ("frames", "size_bytes", "times")

    def __init__(self) -> None:
        self.frames: deque[Frame] = deque()
        self.times: deque[float] = deque()
        self.size_bytes = 0

    def append(self, frame: Frame, now: float, keep: Keep) -> None:
        self.frames.append(frame)
        self.times.append(now)
        self.size_bytes = size_bytes = self.size_bytes + len(frame.data)
        if len(self.frames) > keep.events or size_bytes > keep.size_bytes or self.times[0] < now - keep.seconds:
            self._trim(now - keep.seconds, keep)

    def _trim(self, before: float, keep: Keep) -> None:
        frames = self.frames
        while len(frames) > keep.events or (self.size_bytes > keep.size_bytes and len(frames) > 1):
            self._drop()
        self.expire(before)

    def expire(self, before: float) -> None:
        while self.times and self.times[0] < before:
            self._drop()

    def latest(self, count: int) -> tuple[Frame, ...]:
        return tuple(islice(self.frames, max(0, len(self.frames) - count), None))

    def _drop(self) -> None:
        self.times.popleft()
        self.size_bytes -= len(self.frames.popleft().data)


class _Log(Numbering):
    """One thread's numbers, and the latest of its frames, if any are kept."""

    __slots__ = ("kept",)

    def __init__(self) -> None:
        super().__init__(new_epoch())
        # Most threads that are remembered hold no frame, and two empty deques take 1.2 kB.
        self.kept: _Kept | None = None


def _nowhere(thread_id: ThreadId, frame: Frame) -> int:
    """Delivers to nobody, as long as there are no sockets."""
    return 0


class MemoryBroker:
    """A log a thread. Publishing is O(1), amortised, and never waits.

    Memory is bounded by `keep`: frames that are too old go when any thread's event is published, and of threads whose
    frames are all gone only epoch and number are remembered.
    """

    def __init__(self, keep: Keep = HISTORY, clock: Callable[[], float] = time.monotonic) -> None:
        self._keep = keep
        self._keeps = keep.events > 0
        self._clock = clock
        self._deliver: Callable[[ThreadId, Frame], int] = _nowhere
        self._threads: Remembered[_Log] = Remembered(keep.threads, lambda _: _Log(), self._forget)
        self._filled: OrderedDict[ThreadId, _Log] = OrderedDict()
        """Logs that hold frames, the one that was published to longest ago first."""

    def __len__(self) -> int:
        """How many threads are remembered."""
        return len(self._threads)

    @property
    def healthy(self) -> bool:
        return True

    def bind(self, sink: Sink) -> None:
        self._deliver = sink.deliver

    async def publish(self, draft: Draft) -> Receipt:
        thread_id = draft.thread_id
        log = self._threads.of(thread_id)
        log.seq = seq = log.seq + 1
        frame = draft.frame(seq)
        if self._keeps:
            self._keep_frame(thread_id, log, frame)
        sockets = self._deliver(thread_id, frame)
        if sockets:
            return Receipt(
                outcome=_SENT, sockets=sockets, kept=self._keeps, thread_id=thread_id, seq=seq, epoch=log.epoch
            )
        return Receipt(
            outcome=Outcome.NOBODY_LISTENING,
            kept=self._keeps,
            thread_id=thread_id,
            seq=seq,
            epoch=log.epoch,
            link=LINK,
            reason=UNHEARD,
        )

    async def join(self, thread_id: ThreadId) -> None:
        self._threads.hold(thread_id)

    def leave(self, thread_id: ThreadId) -> None:
        self._threads.let_go(thread_id)

    async def replay(self, thread_id: ThreadId, after: Cursor | None) -> Replay:
        log = self._threads.of(thread_id)
        head = Cursor(log.epoch, log.seq)
        if after is None:
            return Replay(head)
        self._expire(thread_id, log, self._clock() - self._keep.seconds)
        wanted = log.seq - after.seq if same_numbering(head, after) else log.seq
        held = () if log.kept is None else log.kept.latest(wanted)
        return replayed(thread_id, head, held, after)

    def _keep_frame(self, thread_id: ThreadId, log: _Log, frame: Frame) -> None:
        now = self._clock()
        filled = self._filled
        if log.kept is None:
            log.kept = _Kept()
            filled[thread_id] = log
        else:
            filled.move_to_end(thread_id)
        log.kept.append(frame, now, self._keep)
        # The log that was published to longest ago has the oldest frames; those behind it have their turn later.
        for longest_ago in filled:
            if longest_ago != thread_id:
                self._expire(longest_ago, filled[longest_ago], now - self._keep.seconds)
            break

    def _expire(self, thread_id: ThreadId, log: _Log, before: float) -> None:
        if log.kept is not None:
            log.kept.expire(before)
            if not log.kept.frames:
                self._forget(thread_id, log)

    def _forget(self, thread_id: ThreadId, log: _Log) -> None:
        """Let go of a log's frames."""
        log.kept = None
        self._filled.pop(thread_id, None)
