"""The log of each thread: it numbers events, retains them for clients that resume, and delivers them to sockets.

This module contains the interface, the rules for replay, and the default log, which is in memory. The persistent logs
are in `bridgekit.stores`.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NamedTuple, Protocol

from bridgekit.cursors_and_gaps import START, Cursor, Gap, GapReason
from bridgekit.errors import InvalidId
from bridgekit.events import FRAME_BYTES, AgentEvent, Answer, Frame, Outcome, Receipt, encode, renumber
from bridgekit.ids import ThreadId
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
    "require_count",
    "require_seconds",
    "same_epoch",
]

LINK: Final = 10
"""The audit describes links 1 to 9. bridgekit counts the delivery to the sockets as link 10."""
NO_SUBSCRIBER: Final = "no socket of the thread accepted it"
"""The reason in the receipt of an event that no subscriber accepted."""


MAX_COUNT: Final = 2**53
"""Redis computes with floats, which represent whole numbers exactly up to this one."""
MAX_SECONDS: Final = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Retention policy of each thread's log: events over any of these limits are deleted, oldest first.

    An outbox is never larger than the retention or 64 KiB (`OutboxLimits.within`), so that a client that was
    disconnected as too slow can resume. The default limits are twice those of an outbox, to include the frames in the
    system's socket buffers.
    """

    events: int = 16_384
    """Events per thread. The default is so high that a streamed text reaches the limit on bytes or age first. With 0,
    the log retains no event, and delivery is at most once."""
    size_bytes: int = 8_388_608
    """Bytes of retained frames per thread. The latest event is retained whatever its size."""
    seconds: float = 300.0
    """Longest time that an event is retained, from its publication."""
    threads: int = 100_000
    """The number of threads whose epoch and `seq` are kept. Over this limit, the log evicts the least recently used
    thread without sockets. A client that resumes an evicted thread gets a gap."""

    def __post_init__(self) -> None:
        for name in ("events", "size_bytes", "threads"):
            require_count(f"Retention.{name}", getattr(self, name), at_least=0)
        require_seconds("Retention.seconds", self.seconds)


def require_count(field: str, count: object, *, at_least: int) -> None:
    """Raise InvalidId if the value of the field is not a whole number that every store can keep."""
    if type(count) is not int or not at_least <= count <= MAX_COUNT:
        raise InvalidId(field, f"must be a whole number from {at_least} to {MAX_COUNT:,}, not {count!r}")


def require_seconds(field: str, seconds: Any) -> None:
    """Raise InvalidId if the value of the field is not a duration in seconds."""
    if type(seconds) not in (int, float) or not 0 <= seconds <= MAX_SECONDS:
        raise InvalidId(field, f"must be a number from 0 to {MAX_SECONDS:,}, not {seconds!r}")


DEFAULT_RETENTION: Final = Retention()


class Replay(NamedTuple):
    """The gaps and frames that a subscriber gets before new events."""

    cursor: Cursor
    """The position at which the socket's stream starts."""
    frames: tuple[Frame, ...] = ()
    """Every event that the log retains after the cursor."""
    gap: Gap | None = None
    """A gap that starts at the client's cursor, if the log lacks the next event. The stream then starts at the log's
    end or, in a new epoch, with the oldest retained event."""
    expired: Gap | None = None
    """A gap at the start of a new epoch, for events that the log no longer retains."""
    last: int = 0
    """The last `seq` that the replay covers. The store has lost any events between the last frame and this `seq`."""

    @property
    def gaps(self) -> list[Gap]:
        """The gaps that the server sends to the client before the frames."""
        return [gap for gap in (self.gap, self.expired) if gap is not None]


class LocalSink(Protocol):
    """The methods of the hub that a log calls on the event loop. None of them raises an error."""

    def deliver(self, thread_id: ThreadId, frame: Frame) -> int:
        """Put the frame in the outbox of every socket of the thread, and return how many accepted it.

        A thread's frames arrive in ascending order of `seq`. If a `seq` is skipped, its event is lost.
        """

    def force_reconnect(self, thread_id: ThreadId) -> None:
        """Make the thread's clients reconnect and get a gap, because the thread begins a new epoch."""

    async def wait_for_room(self, thread_id: ThreadId) -> None:
        """Wait until no outbox of the thread is crowded.

        A log that delivers many events at once awaits `wait_for_room` between events. The wait is bounded, even if a
        client does not read.
        """


class EventLog(Protocol):
    """The logs of all threads, from which events reach the sockets.

    An event never reaches the sockets of another thread.
    """

    @property
    def healthy(self) -> bool:
        """True if no known problem prevents the log from delivering events."""

    @property
    def problem(self) -> str:
        """A description of the problem for operators, or an empty string.

        A healthy log may still have a problem with some threads.
        """

    @property
    def retention(self) -> Retention:
        """The retention policy."""

    @property
    def unconfirmed(self) -> int:
        """The number of accepted events that the store has not confirmed. If the log is closed, they may be lost."""

    def bind(self, sink: LocalSink, *, frame_bytes: int = FRAME_BYTES) -> None:
        """Deliver events to `sink`, and refuse frames over `frame_bytes`. Call this once, before any other method."""

    def publish(self, event: AgentEvent) -> Answer:
        """Assign the event its `seq`, retain it, and deliver it to the thread's sockets in every worker.

        The receipt is available within a limited time, even if the store is unavailable. The receipt's outcome is SENT,
        RELAYED, NO_SUBSCRIBER, PENDING, or REFUSED with the reason. A REFUSED event also gets a `seq`, as soon as
        possible, so that clients get a gap. Events of one thread keep the order in which they are published, even if
        the receipts are not awaited. `publish` raises PayloadError and FrameTooLarge immediately, and the event gets no
        `seq`.
        """

    async def join(self, thread_id: ThreadId) -> None:
        """Deliver every later event of the thread to the sink. Call `join` once for each socket.

        Raises StoreUnavailable if the store does not answer in time.
        """

    def leave(self, thread_id: ThreadId) -> None:
        """Undo one `join`."""

    async def replay(self, thread_id: ThreadId, after: Cursor | None) -> Replay:
        """Return the replay for a socket that has just joined: the events after its cursor, or none without a cursor.

        The replay contains every event after the cursor that was not delivered since `join` returned, and perhaps some
        that were. See `replay_after` for a cursor of another epoch, or one that is ahead of the log. Raises
        StoreUnavailable as `join` does.
        """


def same_epoch(head: Cursor, after: Cursor) -> bool:
    """Return whether the cursor has the log's epoch and is not ahead of the log. The `seq` of any other cursor has no
    meaning in the log."""
    return after.epoch == head.epoch and after.seq <= head.seq


def replay_after(
    thread_id: ThreadId, head: Cursor, retained: Sequence[Frame], after: Cursor | None, oldest: int | None = None
) -> Replay:
    """Return the replay after a cursor.

    `retained` contains every event that the log, which ends at `head`, retains after the cursor.

    The client gets either every event after the cursor, or a gap and only later events. From the `seq` in `oldest` on
    (by default, that of the first frame), the log lacks only lost events. A client detects lost events from the `seq`
    of later frames. For a cursor of another epoch, `retained` must contain every event that the log retains.
    """
    if after is None or after == head:
        return Replay(head)
    if not same_epoch(head, after):
        return _replay_after_restart(thread_id, head, retained, after)
    if oldest is None:
        oldest = retained[0].seq if retained else head.seq + 1
    if retained and oldest <= after.seq + 1:
        return Replay(after, tuple(retained), last=head.seq)
    reason = GapReason.EXPIRED if oldest > after.seq + 1 else GapReason.LOST
    return Replay(head, gap=_gap(thread_id, after, head.seq, reason))


def _replay_after_restart(thread_id: ThreadId, head: Cursor, retained: Sequence[Frame], after: Cursor) -> Replay:
    """Return the replay for a cursor of a lost epoch: a gap for that epoch, and every retained event of the new epoch.

    The number of missed events of the old epoch is unknown. A second gap covers events of the new epoch that the log no
    longer retains. A client with `START` has read no other epoch, so it gets no gap for the lost epoch.
    """
    start = Cursor(head.epoch, retained[0].seq - 1 if retained else head.seq)
    expired = _gap(thread_id, Cursor(head.epoch, 0), start.seq, GapReason.EXPIRED) if start.seq else None
    if after == START:
        return Replay(start, tuple(retained), expired, last=head.seq)
    return Replay(start, tuple(retained), _gap(thread_id, after, None, GapReason.RESTARTED), expired, head.seq)


def _gap(thread_id: ThreadId, after: Cursor, last: int | None, reason: GapReason) -> Gap:
    return Gap(thread_id=thread_id, epoch=after.epoch, first=after.seq + 1, last=last, reason=reason)


def published(thread_id: ThreadId, seq: int, epoch: str, *, sockets: int, kept: bool) -> Receipt:
    """Return the receipt of a numbered event that was delivered to `sockets` sockets of this process."""
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


_SENT: Final = Outcome.SENT  # a constant, because looking up an enum member takes longer than creating a Receipt
_NEVER: Final = float("inf")
CLOCK_SECONDS: Final = 0.001
"""Events within this time share one timestamp object."""


class _RetainedFrames:
    """The retained frames of one thread, oldest first."""

    __slots__ = ("frames", "size_bytes")

    def __init__(self) -> None:
        self.frames: deque[Frame] = deque()
        self.size_bytes = 0

    def expire(self, before: float) -> None:
        """Drop the frames that were published earlier than `before`."""
        while self.frames and self.frames[0].published_at < before:
            self.size_bytes -= len(self.frames.popleft().data)

    def latest(self, count: int) -> tuple[Frame, ...]:
        return tuple(islice(self.frames, max(0, len(self.frames) - count), None))


class _ThreadLog(ThreadSequence):
    """One thread's epoch and `seq`, and its retained frames, if there are any."""

    __slots__ = ("retained",)

    def __init__(self) -> None:
        super().__init__(new_epoch())
        # Most threads retain no frame, and an empty deque takes 0.6 kB.
        self.retained: _RetainedFrames | None = None


class MemoryEventLog:
    """Logs in this process's memory, the default.

    The logs are lost when the process ends, and other workers cannot read them.

    Publishing is O(1), amortised, and never waits. `retention` limits the memory: each publication, in any thread,
    drops expired frames. For a thread without frames, the log keeps only epoch and `seq`.
    """

    def __init__(self, retention: Retention = DEFAULT_RETENTION, clock: Callable[[], float] = time.monotonic) -> None:
        self.retention = retention
        self.problem = ""
        self.unconfirmed = 0
        self._clock = clock
        self._sink: LocalSink
        self._frame_bytes = FRAME_BYTES
        self._now = -_NEVER
        self._threads: PinnedLru[_ThreadLog] = PinnedLru(retention.threads, lambda _: _ThreadLog(), self._discard)
        self._with_frames: OrderedDict[ThreadId, _ThreadLog] = OrderedDict()
        """Logs with frames, least recently published first."""
        self._expiry_due = _NEVER
        """No frame in the first log of `_with_frames` expires before this time."""

    def __len__(self) -> int:
        """Return the number of threads whose epoch and `seq` are kept."""
        return len(self._threads)

    @property
    def healthy(self) -> bool:
        return True

    def bind(self, sink: LocalSink, *, frame_bytes: int = FRAME_BYTES) -> None:
        self._sink = sink
        self._frame_bytes = frame_bytes

    def publish(self, event: AgentEvent) -> Receipt:  # noqa: C901  # not split, because each event would pay for the calls
        thread_id = event.thread_id
        assert thread_id is not None
        log = self._threads.get(thread_id)
        if log is None or not log.pins:
            log = self._threads.get_or_create(thread_id)
        event.seq = seq = log.seq + 1
        data = encode(event, self._frame_bytes)
        if log.seq >= seq:
            seq = log.seq + 1
            data = renumber(event, data, seq)
        log.seq = seq
        now = self._clock()
        if now - self._now < CLOCK_SECONDS:
            now = self._now
        else:
            self._now = now
        frame = Frame(seq, event.type, event.run_id, data, now)
        retention = self.retention
        if retention.events:
            if (retained := log.retained) is None:
                retained = log.retained = _RetainedFrames()
                self._with_frames[thread_id] = log
                if self._expiry_due == _NEVER:
                    self._expiry_due = now + retention.seconds
            else:
                self._with_frames.move_to_end(thread_id)
            frames, before = retained.frames, now - retention.seconds
            frames.append(frame)
            size = retained.size_bytes + len(data)
            while len(frames) > retention.events or size > retention.size_bytes or frames[0].published_at < before:
                if len(frames) == 1:
                    break  # the latest event is retained whatever its size
                size -= len(frames.popleft().data)
            retained.size_bytes = size
            if now > self._expiry_due:
                self._expire_idle(before)
        sockets = self._sink.deliver(thread_id, frame)
        if sockets:
            return Receipt(
                outcome=_SENT, sockets=sockets, kept=retention.events > 0, thread_id=thread_id, seq=seq, epoch=log.epoch
            )
        return published(thread_id, seq, log.epoch, sockets=0, kept=retention.events > 0)

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
        retained = () if log.retained is None else log.retained.latest(wanted)
        return replay_after(thread_id, head, retained, after)

    def _expire_idle(self, before: float) -> None:
        """Expire frames of the two logs that were published to least recently.

        Two logs per publication suffice, because each publication adds a frame to only one log. A log also expires its
        own frames when it is published to.
        """
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
        """Drop all frames of a log."""
        log.retained = None
        self._with_frames.pop(thread_id, None)
