"""The outbox of one subscriber: bounded, in order, each frame once, with a gap frame wherever a number is missing.

The hub never waits for a socket, so what a socket cannot take at once waits here. `writer` has who writes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Final, Protocol

import anyio

from bridgekit.events import Frame
from bridgekit.ids import ThreadId
from bridgekit.signals import Gap, GapReason, Subscribed, encode_signal
from bridgekit.transport.authorization import CLOSE_DRAINED, CLOSE_RESTARTED, CLOSE_TOO_SLOW, Subscription
from bridgekit.transport.coalescing import CoalescingQueue, IntervalSet
from bridgekit.transport.log import Replay, Retention

__all__ = [
    "BATCH_FRAMES",
    "OUTBOX_LIMITS",
    "SLOW_AFTER_TICKS",
    "TICK_SECONDS",
    "WRITE_BYTES",
    "CrowdedOutboxes",
    "OutboxLimits",
    "Scheduler",
    "Subscriber",
]

BATCH_FRAMES: Final = 64
"""Frames that an edge takes at a time, beside those that wait in the outbox."""
WRITE_BYTES: Final = 32_768
"""So many bytes that wait are written without waiting for more; where they cannot be, the outbox is crowded."""
TICK_SECONDS: Final = 0.02
SLOW_AFTER_TICKS: Final = 5
"""A client that takes nothing for so many ticks although its outbox is crowded is slow: no emitter waits for it. Ticks
of the event loop and not time, so that a client is not blamed for a loop that was busy."""
NO_GAPS: Final = Counter[GapReason]()
"""Shared by all subscribers that were sent none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxLimits:
    """How much may wait for one socket. When so much waits, it is full."""

    events: int = 1_024
    size_bytes: int = 4_194_304
    """In bytes of the frames. The frame that reaches the limit may exceed it."""

    def within(self, keep: Retention) -> OutboxLimits:
        """No more than a log retains, so that a client that was too slow can resume what waited for it."""
        if not keep.events:
            return self
        return OutboxLimits(events=min(self.events, keep.events), size_bytes=min(self.size_bytes, keep.size_bytes))


OUTBOX_LIMITS: Final = OutboxLimits()


class Scheduler(Protocol):
    """What an outbox needs of the edge's `WriteScheduler`."""

    enqueued: int
    """How many frames were put in any outbox. The outboxes count."""
    limits: OutboxLimits
    """Of every outbox."""
    crowded: CrowdedOutboxes
    """Where the outboxes report that they are crowded."""
    quiet: bool
    """Whether a frame may be written when it is put: nothing else is under way in this iteration of the event loop."""

    def schedule(self, subscriber: Subscriber) -> None:
        """Have it flushed in this iteration of the event loop, or the next."""


class Subscriber:
    """One subscription: its outbox, and how it ends. A client that is too slow is disconnected, and resumes.

    How bytes are written is a subclass's concern. This class has no socket.
    """

    # fmt: off
    __slots__ = (
        "_coalesced", "_crowded", "_crowded_bytes", "_crowded_events", "_epoch", "_idle_ticks", "_last", "_limits",
        "_queue", "_room", "_scheduled", "_scheduler", "_sent", "_waiting", "_waiting_bytes", "coalesced", "code",
        "gaps", "in_flight", "thread_id", "user_id",
    )
    # fmt: on

    def __init__(self, subscription: Subscription, scheduler: Scheduler) -> None:
        self.thread_id = subscription.thread_id
        self.user_id = subscription.user_id
        self._scheduler = scheduler
        self._scheduled = False
        """Whether the scheduler will flush it, or does."""
        self._limits = limits = scheduler.limits
        self._crowded = scheduler.crowded
        self._crowded_bytes = min(WRITE_BYTES, limits.size_bytes // 2)
        self._crowded_events = max(1, limits.events // 2)
        self._room: anyio.Event | None = None
        """While the outbox is crowded: set when it no longer is, or when its client proves to be slow."""
        self._idle_ticks = 0
        """While the outbox is crowded: ticks since its client last took something."""
        self._waiting: list[Frame] = []
        """What waits, as long as the limits were not reached."""
        self._queue: CoalescingQueue | None = None
        """What waits, from when a limit was reached until all of it is taken."""
        self._waiting_bytes = 0
        self._last = 0
        """The highest number that was put, or that was sent in a replay."""
        self._epoch = ""
        self._sent = 0
        """Every number up to here was sent, or is in a gap that was."""
        self._coalesced: IntervalSet | None = None
        """The numbers of frames that made room for others, until a gap with them is sent. There are no more intervals
        than frames wait, and one."""
        self.coalesced = 0
        """How many frames have made room for others."""
        self.gaps = NO_GAPS
        """Gaps that were sent between events."""
        self.in_flight = 0
        """What was taken and is not written yet. The edge counts it down."""
        self.code: int | None = None
        """The close code, once the end is decided; what waits is written before."""

    def __len__(self) -> int:
        """How many frames wait."""
        return len(self._waiting if self._queue is None else self._queue)

    def __bool__(self) -> bool:
        return True

    @property
    def unwritten(self) -> int:
        """Frames that were put here and not written."""
        return len(self) + self.in_flight

    def put(self, frame: Frame) -> bool:
        """Take a frame, without waiting. False once the end is decided, or where that is because of this frame.

        While the outbox is over its limits, a frame for which a later one of its run and type stands makes room: only
        such as may be coalesced, the oldest first. What may not is never dropped: the client is disconnected.
        """
        if self.code is not None:
            return False
        seq = frame.seq
        if seq <= self._last:
            return True
        waiting, scheduler = self._waiting, self._scheduler
        size = self._waiting_bytes
        if self._queue is not None or len(waiting) >= self._limits.events or size >= self._limits.size_bytes:
            if not self._coalesce(frame):
                self.disconnect_slow()
                return False
        elif not waiting and scheduler.quiet and self._write_alone(frame):
            self._last = seq
            return True
        else:
            waiting.append(frame)
            self._waiting_bytes = size = size + len(frame.data)
        self._last = seq
        scheduler.enqueued += 1
        if not self._scheduled:
            self._scheduled = True
            scheduler.schedule(self)
        if size >= self._crowded_bytes or len(waiting) >= self._crowded_events:
            self._relieve_or_report()
        return True

    def _relieve_or_report(self) -> None:
        """More waits than one write should carry: write it, or have emitters let the event loop run."""
        self._write_early()
        if self._room is None and self._is_crowded():
            self._room = anyio.Event()
            self._idle_ticks = 0
            self._crowded.add(self)

    def _write_alone(self, frame: Frame) -> bool:
        """Write a frame without an outbox, if the socket takes it at once."""
        return False

    def _write_early(self) -> None:
        """Write what waits, before the scheduler does, if the socket takes it at once."""

    def flush(self) -> Awaitable[None] | None:
        """Write what waits. Return what is still to be awaited, in the same task, where the socket takes it slowly."""
        return None

    def abort(self) -> None:
        """Close the socket without waiting for what is not written. Does not wait itself."""

    def restart(self) -> None:
        """Have the client connect again: its thread begins a new epoch."""
        self._end(CLOSE_RESTARTED)

    def drain(self) -> None:
        """Take no more; close when all that waits is written."""
        self._end(CLOSE_DRAINED)

    def disconnect_slow(self) -> None:
        """Disconnect a client that does not read. What waited for it is in the thread's log."""
        if self.code is None:
            self.code = CLOSE_TOO_SLOW
        self.abort()

    def left(self) -> None:
        """It is unsubscribed: no emitter waits for it any more."""
        self._relieve()

    def start(self, replay: Replay) -> list[bytes]:
        """What is sent first: the confirmation, the gaps if there are any, and the replay.

        The frames that were put meanwhile follow by `take`. Those that the replay has already are discarded, also
        where they are put only later.
        """
        self._epoch, self._sent = replay.cursor
        first = [encode_signal(Subscribed(self.thread_id, *replay.cursor)), *map(encode_signal, replay.gaps)]
        first += self._with_gaps(replay.frames)
        waiting = self._waiting if self._queue is None else self._queue
        self._take_frames(sum([frame.seq <= self._sent for frame in waiting]))
        self._last = max(self._last, self._sent)
        return first

    def take(self, limit: int = BATCH_FRAMES) -> list[bytes]:
        """Remove and return what is to be sent next, in order, with a gap where numbers are missing."""
        frames = self._take_frames(limit)
        count, sent = len(frames), self._sent
        # They rise. So nothing is missing where the last is as far ahead as there are frames.
        if count and frames[-1].seq == sent + count and frames[0].seq == sent + 1:
            self._sent = sent + count
            self.in_flight += count
            return [frame.data for frame in frames]
        taken = self._with_gaps(frames)
        self.in_flight += len(taken)
        return taken

    def _take_frames(self, limit: int) -> list[Frame]:
        frames = self._waiting
        if self._queue is not None:
            taken = self._queue.take(limit)
            if not len(self._queue):
                self._queue = None
            self._waiting_bytes -= _size(taken)
        elif limit >= len(frames):
            taken, self._waiting, self._waiting_bytes = frames, [], 0
        else:
            taken = frames[:limit]
            del frames[:limit]
            self._waiting_bytes -= _size(taken)
        if self._room is not None:
            if not self._is_crowded():
                self._relieve()
            elif taken:
                if self.is_slow():
                    self._room = anyio.Event()
                self._idle_ticks = 0
        return taken

    def _coalesce(self, frame: Frame) -> bool:
        """Put a frame for which others have to make room; False where none of them may."""
        queue = self._coalescing()
        queue.mark_superseded(frame)
        while self._limit_reached(queue):
            if not queue.can_make_room:
                return False
            gone = queue.evict_superseded()
            self._coalesced = IntervalSet() if self._coalesced is None else self._coalesced
            self._coalesced.add(gone.seq)
            self._waiting_bytes -= len(gone.data)
            self.coalesced += 1
        queue.append(frame)
        self._waiting_bytes += len(frame.data)
        return True

    def _limit_reached(self, waiting: Sized) -> bool:
        return len(waiting) >= self._limits.events or self._waiting_bytes >= self._limits.size_bytes

    def _coalescing(self) -> CoalescingQueue:
        """What waits, now that a limit is reached, in a queue that knows which frames are superseded."""
        if self._queue is None:
            self._queue = CoalescingQueue(self._waiting)
            self._waiting = []
        return self._queue

    def _is_crowded(self) -> bool:
        return self._waiting_bytes >= self._crowded_bytes or len(self) >= self._crowded_events

    def is_slow(self) -> bool:
        """Whether it is crowded and its client takes nothing."""
        return self._room is not None and self._idle_ticks >= SLOW_AFTER_TICKS

    def tick(self) -> None:
        """A tick has passed while it is crowded."""
        self._idle_ticks += 1
        if self.is_slow() and self._room is not None:
            self._room.set()

    def is_full(self) -> bool:
        """Whether an event that may not be coalesced would find no room."""
        return self._limit_reached(self) and not self._coalescing().can_make_room

    async def wait_for_room(self) -> None:
        """Let the event loop run until the outbox is no longer crowded, or its client proves to be slow."""
        while self._room is not None and not self.is_slow():
            await self._room.wait()

    def _relieve(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None
            self._crowded.remove(self)

    def _end(self, code: int) -> None:
        if self.code is None:
            self.code = code
            if not self._scheduled:
                self._scheduled = True
                self._scheduler.schedule(self)

    def _with_gaps(self, frames: Iterable[Frame]) -> list[bytes]:
        sent: list[bytes] = []
        for frame in frames:
            if frame.seq != self._sent + 1:
                sent += self._gaps(self._sent + 1, frame.seq - 1)
            self._sent = frame.seq
            sent.append(frame.data)
        return sent

    def _gaps(self, first: int, last: int) -> Iterator[bytes]:
        """Missing numbers as gaps, by their reasons: what was coalesced here, and what never came."""
        for start, end in () if self._coalesced is None else self._coalesced.pop_below(last + 1):
            if first < start:
                yield self._gap(first, start - 1, GapReason.LOST)
            if first <= end:
                yield self._gap(max(first, start), end, GapReason.COALESCED)
            first = max(first, end + 1)
        if first <= last:
            yield self._gap(first, last, GapReason.LOST)

    def _gap(self, first: int, last: int, reason: GapReason) -> bytes:
        self.gaps = self.gaps + Counter((reason,))
        return encode_signal(Gap(thread_id=self.thread_id, epoch=self._epoch, first=first, last=last, reason=reason))


class CrowdedOutboxes:
    """Subscribers whose outbox is crowded, by thread. Mostly there are none."""

    def __init__(self) -> None:
        self.by_thread: dict[ThreadId, list[Subscriber]] = {}
        self._turns: dict[ThreadId, anyio.Lock] = {}
        """By thread, while emitters wait: one for room, and the others for their turn. Room for one event is not room for
        all of theirs."""
        self._added: anyio.Event | None = None

    async def watch(self) -> None:
        """Tell their clients that are slow from those that read. Never returns."""
        while True:
            if not self.by_thread:
                self._added = anyio.Event()
                await self._added.wait()
            await anyio.sleep(TICK_SECONDS)
            for subscribers in list(self.by_thread.values()):
                for subscriber in list(subscribers):
                    subscriber.tick()

    def add(self, subscriber: Subscriber) -> None:
        self.by_thread.setdefault(subscriber.thread_id, []).append(subscriber)
        if self._added is not None:
            self._added.set()

    def remove(self, subscriber: Subscriber) -> None:
        subscribers = self.by_thread[subscriber.thread_id]
        subscribers.remove(subscriber)
        if not subscribers:
            del self.by_thread[subscriber.thread_id]

    def refuses(self, thread_id: ThreadId) -> bool:
        """Whether an outbox of the thread has no room although its client reads: an event now would disconnect it."""
        return any(
            subscriber.code is None and subscriber.is_full() and not subscriber.is_slow()
            for subscriber in self.by_thread.get(thread_id, ())
        )

    async def wait_for_room(self, thread_id: ThreadId) -> None:
        """Let the event loop run until no outbox of the thread is crowded but those of slow clients."""
        turn = self._turns.setdefault(thread_id, anyio.Lock())
        try:
            async with turn:
                while crowded := [each for each in self.by_thread.get(thread_id, ()) if not each.is_slow()]:
                    await crowded[0].wait_for_room()
        finally:
            if not turn.locked():
                self._turns.pop(thread_id, None)


def _size(frames: list[Frame]) -> int:
    return sum([len(frame.data) for frame in frames])
