"""The log of each thread: it numbers events, retains them for clients that resume, and delivers them to sockets.

The interface, the rule for what a resuming client is sent, and the default, which keeps the logs in memory. The
persistent ones are in `bridgekit.stores`.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple, Protocol

from bridgekit.events import FRAME_BYTES, AgentEvent, Answer, Frame, Outcome, Receipt, encode
from bridgekit.ids import ThreadId
from bridgekit.signals import Cursor, Gap, GapReason
from bridgekit.transport.pinned_lru import PinnedLru, ThreadSequence, new_epoch

__all__ = [
    "DEFAULT_RETENTION",
    "LINK",
    "NO_SUBSCRIBER",
    "EventLog",
    "LocalSink",
    "MemoryEventLog",
    "Replay",
    "Retention",
    "published",
    "replay_after",
    "replay_after_restart",
    "same_epoch",
]

LINK: Final = 10
"""The audit's list ends at link 9. Whether a socket belongs to a thread at all is the link after it."""
NO_SUBSCRIBER: Final = "no socket of the thread took it"
"""The reason of an event that had no subscriber."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How much of a thread's log is retained: what is over any of the bounds goes, oldest first.

    The outbox of a socket is never larger (`OutboxLimits.within`): a client that was disconnected because it was slow
    can resume. The defaults are twice those of an outbox, for what the system's own buffers held.
    """

    events: int = 2_048
    """A thread. 0 retains nothing: then delivery is at most once."""
    size_bytes: int = 8_388_608
    """A thread, in bytes of its frames. The latest event is retained whatever its size."""
    seconds: float = 300.0
    """From an event's publication."""
    threads: int = 100_000
    """How many threads' epochs and sequence numbers are remembered. The thread without sockets that was unused longest
    is forgotten first; a client that resumes it later gets a gap."""


DEFAULT_RETENTION: Final = Retention()


class Replay(NamedTuple):
    """What a subscriber is sent before the events to come."""

    cursor: Cursor
    """Where its stream begins: the first of `frames`, or else the next event of the thread, comes right after this."""
    frames: tuple[Frame, ...] = ()
    """Every event after the cursor, up to now."""
    gap: Gap | None = None
    """In the epoch that the client asked for: set where not every event after its cursor can be given. Then none of
    it is given, and the stream begins at the log's end; or, in a new epoch, with all of that."""
    expired: Gap | None = None
    """In a new epoch: what its beginning no longer holds."""

    @property
    def gaps(self) -> list[Gap]:
        """What the client is sent before the frames."""
        return [gap for gap in (self.gap, self.expired) if gap is not None]


class LocalSink(Protocol):
    """The sockets of this worker. Its methods are called on the event loop and do not raise."""

    def deliver(self, thread_id: ThreadId, frame: Frame) -> int:
        """Put the frame in the outbox of every socket of the thread; return how many took it.

        A thread's frames come in rising order. Where a number is left out, that event is lost.
        """

    def restart(self, thread_id: ThreadId) -> None:
        """The thread begins a new epoch: its clients must connect again, and then get a gap for what they miss."""

    async def wait_for_room(self, thread_id: ThreadId) -> None:
        """Let the sockets be written to, where much waits for those of the thread. A log that delivers many events at
        once awaits this between them. It takes bounded time, also where a client does not read."""


class EventLog(Protocol):
    """A log for each thread, and the way from it to the sockets. No event of one thread reaches another."""

    @property
    def healthy(self) -> bool:
        """Whether an event that is published now would reach its sockets, as far as is known."""

    @property
    def retention(self) -> Retention:
        """How much it retains."""

    def bind(self, sink: LocalSink, *, frame_bytes: int = FRAME_BYTES) -> None:
        """Deliver to these sockets, and refuse larger frames. Called once, before anything else."""

    def publish(self, event: AgentEvent) -> Answer:
        """Assign the event its `seq`, retain it, and deliver it wherever the thread (`event.thread_id`) has sockets.

        The answer comes in bounded time whatever state the store is in, and is one of SENT, RELAYED, NO_SUBSCRIBER,
        PENDING, or REFUSED with the reason. A REFUSED event takes a number all the same as soon as it can, so that
        clients get a gap. Events of a thread that are published one after the other keep their order, also where the
        answers are not awaited. PayloadError and FrameTooLarge are raised at once: then the event took no number.
        """

    async def join(self, thread_id: ThreadId) -> None:
        """When this returns, every later event of the thread is delivered to the sink. Once for each socket.

        StoreUnavailable where the store does not answer in time.
        """

    def leave(self, thread_id: ThreadId) -> None:
        """Take back one `join`."""

    async def replay(self, thread_id: ThreadId, after: Cursor | None) -> Replay:
        """What a socket that has just joined is sent: what came after its cursor; without one, nothing.

        Covers all that was not delivered to the sink since `join` returned, and may overlap with it. A cursor of
        another epoch, or ahead of the log, gets a gap without an end, and all that there is of this epoch: see
        `replay_after`. StoreUnavailable as in `join`.
        """


def same_epoch(head: Cursor, after: Cursor) -> bool:
    """Whether the cursor can be answered by numbers: it is of the log's epoch, and not ahead of the log."""
    return after.epoch == head.epoch and after.seq <= head.seq


def replay_after(thread_id: ThreadId, head: Cursor, held: Sequence[Frame], after: Cursor | None) -> Replay:
    """What comes after a cursor, where `held` is all that the log, which ends at `head`, still holds after it.

    All or nothing: every event, or a gap and the stream from the log's end on. For a cursor of another epoch see
    `replay_after_restart`, which wants all that the log holds.
    """
    if after is None or after == head:
        return Replay(head)
    if not same_epoch(head, after):
        return replay_after_restart(thread_id, head, held, after)
    if not held or held[0].seq != after.seq + 1:
        return Replay(head, gap=_gap(thread_id, after, head.seq, GapReason.EXPIRED))
    return Replay(after, tuple(held))


def replay_after_restart(thread_id: ThreadId, head: Cursor, held: Sequence[Frame], after: Cursor) -> Replay:
    """A client comes from an epoch that was lost: it gets all of the new one, and a gap for what it misses.

    How much of the old epoch it misses is unknown. Of the new one it misses what the log no longer holds.
    """
    start = Cursor(head.epoch, held[0].seq - 1 if held else head.seq)
    expired = _gap(thread_id, Cursor(head.epoch, 0), start.seq, GapReason.EXPIRED) if start.seq else None
    return Replay(start, tuple(held), _gap(thread_id, after, None, GapReason.RESTARTED), expired)


def _gap(thread_id: ThreadId, after: Cursor, last: int | None, reason: GapReason) -> Gap:
    return Gap(thread_id=thread_id, epoch=after.epoch, first=after.seq + 1, last=last, reason=reason)


def published(thread_id: ThreadId, seq: int, epoch: str, *, sockets: int, kept: bool) -> Receipt:
    """The receipt of an event that was numbered and delivered to so many sockets of this process."""
    if sockets:
        return Receipt(outcome=Outcome.SENT, sockets=sockets, kept=kept, thread_id=thread_id, seq=seq, epoch=epoch)
    return Receipt(
        outcome=Outcome.NO_SUBSCRIBER,
        kept=kept,
        thread_id=thread_id,
        seq=seq,
        epoch=epoch,
        link=LINK,
        reason=NO_SUBSCRIBER,
    )


_SENT: Final = Outcome.SENT  # looking a member up in its enumeration takes longer than making a Receipt
_NEVER: Final = float("inf")
CLOCK_SECONDS: Final = 0.001
"""Events of so short a time share one moment of publication, and the object that holds it."""


class _RetainedFrames:
    """The latest frames of a thread, oldest first."""

    __slots__ = ("frames", "size_bytes")

    def __init__(self) -> None:
        self.frames: deque[Frame] = deque()
        self.size_bytes = 0

    def expire(self, before: float) -> None:
        """Drop what was published before that moment."""
        while self.frames and self.frames[0].published_at < before:
            self.size_bytes -= len(self.frames.popleft().data)

    def latest(self, count: int) -> tuple[Frame, ...]:
        return tuple(islice(self.frames, max(0, len(self.frames) - count), None))


class _ThreadLog(ThreadSequence):
    """One thread's numbers, and the latest of its frames, if any are retained."""

    __slots__ = ("retained",)

    def __init__(self) -> None:
        super().__init__(new_epoch())
        # Most threads that are remembered hold no frame, and an empty deque takes 0.6 kB.
        self.retained: _RetainedFrames | None = None


class _NoSockets:
    """A sink without sockets."""

    def deliver(self, thread_id: ThreadId, frame: Frame) -> int:
        return 0

    def restart(self, thread_id: ThreadId) -> None:
        """There is nothing to restart."""

    async def wait_for_room(self, thread_id: ThreadId) -> None:
        """There is nothing to wait for."""


class MemoryEventLog:
    """Logs in this process's memory: the default. They end with the process, and no other worker sees them.

    Publishing is O(1), amortised, and never waits. Memory is bounded by `keep`: frames that are too old go when any
    thread's event is published, and of threads whose frames are all gone only epoch and number are remembered.
    """

    def __init__(self, keep: Retention = DEFAULT_RETENTION, clock: Callable[[], float] = time.monotonic) -> None:
        self.retention = keep
        self._clock = clock
        self._sink: LocalSink = _NoSockets()
        self._frame_bytes = FRAME_BYTES
        self._now = -_NEVER
        self._threads: PinnedLru[_ThreadLog] = PinnedLru(keep.threads, lambda _: _ThreadLog(), self._discard)
        self._with_frames: OrderedDict[ThreadId, _ThreadLog] = OrderedDict()
        """Logs that hold frames, the one that was published to longest ago first."""
        self._expiry_due = _NEVER
        """When the oldest frame of the first of them expires, or earlier."""

    def __len__(self) -> int:
        """How many threads are remembered."""
        return len(self._threads)

    @property
    def healthy(self) -> bool:
        return True

    def bind(self, sink: LocalSink, *, frame_bytes: int = FRAME_BYTES) -> None:
        self._sink = sink
        self._frame_bytes = frame_bytes

    def publish(self, event: AgentEvent) -> Receipt:  # noqa: C901  # one call an event
        thread_id = event.thread_id
        assert thread_id is not None
        log = self._threads.get(thread_id)
        if log is None or not log.pins:
            log = self._threads.get_or_create(thread_id)
        event.seq = seq = log.seq + 1
        data = encode(event, self._frame_bytes)
        log.seq = seq
        now = self._clock()
        if now - self._now < CLOCK_SECONDS:
            now = self._now
        else:
            self._now = now
        frame = Frame(seq, event.type, event.run_id, data, now)
        keep = self.retention
        if keep.events:
            if (retained := log.retained) is None:
                retained = log.retained = _RetainedFrames()
                self._with_frames[thread_id] = log
                if self._expiry_due == _NEVER:
                    self._expiry_due = now + keep.seconds
            else:
                self._with_frames.move_to_end(thread_id)
            frames, before = retained.frames, now - keep.seconds
            frames.append(frame)
            size = retained.size_bytes + len(data)
            while len(frames) > keep.events or size > keep.size_bytes or frames[0].published_at < before:
                if len(frames) == 1:
                    break  # the latest is retained whatever its size
                size -= len(frames.popleft().data)
            retained.size_bytes = size
            if now > self._expiry_due:
                self._expire_idle(before)
        sockets = self._sink.deliver(thread_id, frame)
        if sockets:
            return Receipt(
                outcome=_SENT, sockets=sockets, kept=keep.events > 0, thread_id=thread_id, seq=seq, epoch=log.epoch
            )
        return published(thread_id, seq, log.epoch, sockets=0, kept=keep.events > 0)

    async def join(self, thread_id: ThreadId) -> None:
        self._threads.pin(thread_id)

    def leave(self, thread_id: ThreadId) -> None:
        self._threads.unpin(thread_id)

    async def replay(self, thread_id: ThreadId, after: Cursor | None) -> Replay:
        log = self._threads.get_or_create(thread_id)
        head = Cursor(log.epoch, log.seq)
        if after is None:
            return Replay(head)
        self._expire(thread_id, log, self._clock() - self.retention.seconds)
        wanted = log.seq - after.seq if same_epoch(head, after) else log.seq
        held = () if log.retained is None else log.retained.latest(wanted)
        return replay_after(thread_id, head, held, after)

    def _expire_idle(self, before: float) -> None:
        """Expire frames of the logs that were published to longest ago, two at most: logs are emptied faster than
        others are filled. A log that is published to expires its own."""
        for _ in range(2):
            thread_id, log = next(iter(self._with_frames.items()))
            self._expire(thread_id, log, before)
            if log.retained is not None:
                self._expiry_due = log.retained.frames[0].published_at + self.retention.seconds
                return

    def _expire(self, thread_id: ThreadId, log: _ThreadLog, before: float) -> None:
        if log.retained is not None:
            log.retained.expire(before)
            if not log.retained.frames:
                self._discard(thread_id, log)

    def _discard(self, thread_id: ThreadId, log: _ThreadLog) -> None:
        """Drop a log's frames."""
        log.retained = None
        self._with_frames.pop(thread_id, None)
