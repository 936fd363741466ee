"""The outbox of one subscriber: a bounded, ordered queue without duplicates, with gap frames for missing events.

The hub never waits for a socket, so the outbox holds frames until the socket accepts them. The subscribers in `writer`
write the frames. An outbox is *crowded* when it is half full, or when WRITE_BYTES bytes wait because the socket does
not accept them. While an outbox is crowded, emitters yield, so that the event loop can write.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Final, Protocol

import anyio

from bridgekit.counters import DeliveryCounters
from bridgekit.cursors_and_gaps import Gap, GapReason, Subscribed, encode_signal
from bridgekit.events import ConcatenatedFrame, Frame
from bridgekit.ids import ThreadId
from bridgekit.transport.authorization import CLOSE_DRAINED, CLOSE_RESTARTED, CLOSE_TOO_SLOW, Subscription
from bridgekit.transport.coalescing import CoalescingQueue
from bridgekit.transport.log import Replay, Retention, require_count

__all__ = ["OUTBOX_LIMITS", "SLOW_AFTER_TICKS", "TICK_SECONDS", "CrowdedOutboxes", "OutboxLimits", "Subscriber"]

BATCH_FRAMES: Final = 64
"""The default limit on the frames that an edge removes from the outbox at a time."""
WRITE_BYTES: Final = 32_768
"""When this many bytes wait, they are written immediately or, if the socket does not accept them, the outbox is
crowded."""
TICK_SECONDS: Final = 0.02
SLOW_AFTER_TICKS: Final = 5
"""A client is slow if it accepts no frame for this many ticks while its outbox is crowded. Emitters do not wait for
slow clients. Ticks are counted instead of seconds, so that a busy event loop does not make clients count as slow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxLimits:
    """Limits of one outbox, which is full when it reaches either limit."""

    events: int = 8_192
    size_bytes: int = 4_194_304
    """Bytes of waiting frames. For a delta that was joined to an earlier frame, only the size of its text counts. The
    frame that reaches the limit may exceed it."""

    def __post_init__(self) -> None:
        for name in ("events", "size_bytes"):
            require_count(f"OutboxLimits.{name}", getattr(self, name), at_least=1)

    def within(self, retention: Retention) -> OutboxLimits:
        """Return limits of at most the retention, if the log retains events, so that a slow client can resume.

        The limit on bytes stays above what a log delivers between two writes, so that a client that reads is not slow.
        """
        if not retention.events:
            return self
        size = max(retention.size_bytes, 2 * WRITE_BYTES)
        return OutboxLimits(events=min(self.events, retention.events), size_bytes=min(self.size_bytes, size))


OUTBOX_LIMITS: Final = OutboxLimits()


class Scheduler(Protocol):
    """The part of the edge's `WriteScheduler` that an outbox uses."""

    enqueued: int
    """The number of frames that all outboxes have enqueued so far."""
    limits: OutboxLimits
    """The limits of every outbox."""
    counters: DeliveryCounters
    """Counts the coalesced frames, the concatenated frames and the gaps of all outboxes."""
    crowded: CrowdedOutboxes
    """The registry to which outboxes report that they are crowded."""
    quiet: bool
    """True if a frame may be written immediately, because this event-loop iteration has no other put or write."""

    def schedule(self, subscriber: Subscriber) -> None:
        """Flush the subscriber in this event-loop iteration or the next."""


class Subscriber:
    """One subscription's outbox and close code. Subclasses have the socket and write the frames."""

    # fmt: off
    __slots__ = (
        "_crowded", "_crowded_bytes", "_crowded_events", "_epoch", "_idle_ticks", "_last_sent_seq", "_last_seq",
        "_limits", "_queue", "_room", "_scheduled", "_scheduler", "_waiting", "_waiting_bytes", "code", "in_flight",
        "subscription", "thread_id", "user_id",
    )
    # fmt: on

    def __init__(self, subscription: Subscription, scheduler: Scheduler) -> None:
        self.thread_id, self.user_id = subscription.thread_id, subscription.user_id
        self.subscription = subscription
        self._scheduler = scheduler
        self._scheduled = False
        """True if a flush is scheduled or in progress."""
        self._limits = limits = scheduler.limits
        self._crowded = scheduler.crowded
        self._crowded_bytes = max(1, min(WRITE_BYTES, limits.size_bytes // 2))
        self._crowded_events = max(1, limits.events // 2)
        self._room: anyio.Event | None = None
        """Exists while the outbox is crowded, and is set when emitters no longer wait for the outbox."""
        self._idle_ticks = 0
        """Ticks since the client last accepted a frame, while the outbox is crowded."""
        self._waiting: list[Frame] = []
        """Holds the waiting frames until a limit is reached."""
        self._queue: CoalescingQueue | None = None
        """Holds the waiting frames from the time when a limit is reached until all of them are taken."""
        self._waiting_bytes = 0
        self._last_seq = 0
        """The highest `seq` that was put in the outbox or sent in a replay."""
        self._epoch = ""
        """Empty until the replay is known. Before the replay is known, no waiting frames are joined, because the replay
        may contain some of them."""
        self._last_sent_seq = 0
        """Every `seq` up to this one was sent, or is in a gap that was sent."""
        self.in_flight = 0
        """The number of frames that were taken from the outbox and are not yet written. The edge decrements it."""
        self.code: int | None = None
        """The close code, set once the socket must close."""

    def __len__(self) -> int:
        """Return the number of waiting frames."""
        return len(self._waiting if self._queue is None else self._queue)

    def __bool__(self) -> bool:
        return True

    @property
    def unwritten(self) -> int:
        """The number of frames that were put in the outbox and are not yet written."""
        return len(self) + self.in_flight

    def put(self, frame: Frame) -> bool:
        """Enqueue a frame without waiting. Return False if the socket is closing, or if this frame causes it to close.

        A full outbox joins adjacent deltas of a message into one frame, and drops superseded frames, oldest first. If
        the frame still does not fit, the client is disconnected.
        """
        if self.code is not None:
            return False
        seq = frame.seq
        if seq <= self._last_seq:
            return True
        waiting, scheduler = self._waiting, self._scheduler
        size = self._waiting_bytes
        if self._queue is not None or len(waiting) >= self._limits.events or size >= self._limits.size_bytes:
            if not self._put_over_limits(frame):
                self.disconnect_slow()
                return False
        elif not waiting and scheduler.quiet and self._write_directly(frame):
            self._last_seq = seq
            return True
        else:
            waiting.append(frame)
            self._waiting_bytes = size = size + len(frame.data)
        self._last_seq = seq
        scheduler.enqueued += 1
        if not self._scheduled:
            self._scheduled = True
            scheduler.schedule(self)
        if size >= self._crowded_bytes or len(waiting) >= self._crowded_events:
            self._write_or_report_crowded()
        return True

    def _write_or_report_crowded(self) -> None:
        """Write the waiting frames.

        If the outbox is still crowded, register it as crowded, so that emitters yield.
        """
        self._write_early()
        if self._room is None and self._is_crowded():
            self._room = anyio.Event()
            self._idle_ticks = 0
            self._crowded.add(self)

    def _write_directly(self, frame: Frame) -> bool:
        """Write a frame without enqueuing it, and return True, if the socket accepts the frame immediately."""
        return False

    def _write_early(self) -> None:
        """Write the waiting frames before the scheduler does, if the socket accepts them immediately."""

    def flush(self) -> Awaitable[None] | None:
        """Write the waiting frames. Return the rest of a slow send, which the caller must await in the same task."""
        return None

    def abort(self) -> None:
        """Close the socket and discard unwritten frames. Does not wait."""

    def force_reconnect(self) -> None:
        """Make the client reconnect, because its thread begins a new epoch."""
        self._end(CLOSE_RESTARTED)

    def drain(self) -> None:
        """Accept no more frames, and close the socket when all waiting frames are written."""
        self._end(CLOSE_DRAINED)

    def disconnect_slow(self) -> None:
        """Disconnect a client that does not read, and discard its waiting frames."""
        if self.code is None or (
            self.code == CLOSE_DRAINED and self.unwritten
        ):  # it means that all frames were written
            self.code = CLOSE_TOO_SLOW
        self.abort()

    def start(self, replay: Replay) -> list[bytes]:
        """Return the first messages: the confirmation, the replay's gaps, and the replay's frames.

        `next_frames` then returns the frames that are put before or after this call, except those that the replay
        contains.
        """
        self._epoch, self._last_sent_seq = replay.cursor
        first = [encode_signal(Subscribed(self.thread_id, *replay.cursor)), *map(encode_signal, replay.gaps)]
        first += self._with_gaps(replay.frames, self._queue)
        if replay.last > self._last_sent_seq:
            first += self._gaps(self._last_sent_seq + 1, replay.last, self._queue)
            self._last_sent_seq = replay.last
        waiting = self._waiting if self._queue is None else self._queue
        self._take_frames(sum([frame.seq <= self._last_sent_seq for frame in waiting]))
        self._last_seq = max(self._last_seq, self._last_sent_seq)
        return first

    def next_frames(self, limit: int = BATCH_FRAMES) -> list[bytes]:
        """Remove and return the next messages to send, in order, with a gap where events are missing."""
        queue, frames = self._queue, self._take_frames(limit)
        count, sent = len(frames), self._last_sent_seq
        # The frames are in ascending order, so none is missing if the first and the last `seq` are as expected.
        if count and frames[-1].seq == sent + count and frames[0].seq == sent + 1:
            self._last_sent_seq = sent + count
            self.in_flight += count
            return [frame.data for frame in frames]
        taken = self._with_gaps(frames, queue)
        self.in_flight += len(taken)
        return taken

    def _take_frames(self, limit: int) -> list[Frame]:
        frames = self._waiting
        if self._queue is not None:
            taken = self._queue.take(limit)
            self._waiting_bytes = self._queue.size_bytes
            if not len(self._queue):
                self._queue = None
        elif limit >= len(frames):
            taken, self._waiting, self._waiting_bytes = frames, [], 0
        else:
            taken = frames[:limit]
            del frames[:limit]
            self._waiting_bytes -= sum([len(frame.data) for frame in taken])
        if self._room is not None:
            if not self._is_crowded():
                self.clear_crowded()
            elif taken:
                if self.is_slow():
                    self._room = anyio.Event()
                self._idle_ticks = 0
        return taken

    def _put_over_limits(self, frame: Frame) -> bool:
        """Join a frame to the last waiting frame, or evict superseded frames until it fits.

        Return False if the frame cannot fit.
        """
        queue = self._coalescing_queue()
        queue.note(frame.seq)
        if self._epoch and queue.size_bytes < self._limits.size_bytes and queue.concatenate(frame):
            self._scheduler.counters.concatenated += 1
        else:
            queue.mark_superseded(frame)
            while self._limit_reached(queue):
                if not queue.can_make_room:
                    return False
                queue.evict_superseded()
                self._waiting_bytes = queue.size_bytes
                self._scheduler.counters.coalesced += 1
            queue.append(frame)
        self._waiting_bytes = queue.size_bytes
        return True

    def _limit_reached(self, waiting: Sized) -> bool:
        return len(waiting) >= self._limits.events or self._waiting_bytes >= self._limits.size_bytes

    def _coalescing_queue(self) -> CoalescingQueue:
        """Return the CoalescingQueue of the waiting frames. Create it if necessary."""
        if self._queue is None:
            self._queue = CoalescingQueue(self._waiting, self._last_sent_seq, concatenate=bool(self._epoch))
            self._scheduler.counters.concatenated += len(self._waiting) - len(self._queue)
            self._waiting, self._waiting_bytes = [], self._queue.size_bytes
        return self._queue

    def _is_crowded(self) -> bool:
        return self._waiting_bytes >= self._crowded_bytes or len(self) >= self._crowded_events

    def is_slow(self) -> bool:
        """Return whether the outbox is crowded and its client does not read."""
        return self._room is not None and self._idle_ticks >= SLOW_AFTER_TICKS

    def tick(self) -> None:
        """Count a tick that passed while the outbox was crowded."""
        self._idle_ticks += 1
        if self.is_slow() and self._room is not None:
            self._room.set()

    def is_full(self) -> bool:
        """Return whether there is no room for another event, even after coalescing."""
        if not self._limit_reached(self):
            return False
        return self._limit_reached(queue := self._coalescing_queue()) and not queue.can_make_room

    async def wait_for_room(self) -> None:
        """Wait until the outbox is no longer crowded, or its client is slow."""
        while self._room is not None and not self.is_slow():
            await self._room.wait()

    def clear_crowded(self) -> None:
        """Release the emitters that wait for this outbox."""
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

    def _with_gaps(self, frames: Iterable[Frame], queue: CoalescingQueue | None) -> list[bytes]:
        sent: list[bytes] = []
        for frame in frames:
            first = frame.first_seq if isinstance(frame, ConcatenatedFrame) else frame.seq
            if first != self._last_sent_seq + 1:
                sent += self._gaps(self._last_sent_seq + 1, first - 1, queue)
            self._last_sent_seq = frame.seq
            sent.append(frame.data)
        return sent

    def _gaps(self, first: int, last: int, queue: CoalescingQueue | None) -> Iterator[bytes]:
        """Yield gap frames for the events from `first` to `last`. Without a `queue`, all of these events were lost."""
        for start, end, reason in [(first, last, GapReason.LOST)] if queue is None else queue.missing(first, last):
            self._scheduler.counters.gaps[reason] += 1
            gap = Gap(thread_id=self.thread_id, epoch=self._epoch, first=start, last=end, reason=reason)
            yield encode_signal(gap)


class CrowdedOutboxes:
    """Subscribers with a crowded outbox, by thread. Usually there are none."""

    def __init__(self) -> None:
        self.by_thread: dict[ThreadId, list[Subscriber]] = {}
        self._turns: dict[ThreadId, anyio.Lock] = {}
        """Locks by thread, while emitters wait. The emitter that holds its thread's lock waits for room."""
        self._added: anyio.Event | None = None

    async def watch(self) -> None:
        """Count ticks for crowded outboxes, to distinguish slow clients from clients that read. Never returns."""
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
        """Return whether an event would disconnect a client that reads, because the client's outbox is full."""
        return any(
            subscriber.code is None and subscriber.is_full() and not subscriber.is_slow()
            for subscriber in self.by_thread.get(thread_id, ())
        )

    async def wait_for_room(self, thread_id: ThreadId) -> None:
        """Wait until no outbox of the thread is crowded. Outboxes of slow clients are ignored.

        Emitters of a thread take turns, because an outbox may have room for the event of only one emitter.
        """
        turn = self._turns.setdefault(thread_id, anyio.Lock())
        try:
            async with turn:
                while crowded := [each for each in self.by_thread.get(thread_id, ()) if not each.is_slow()]:
                    await crowded[0].wait_for_room()
        finally:
            if not turn.locked():
                self._turns.pop(thread_id, None)
