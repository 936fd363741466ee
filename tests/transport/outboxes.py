"""Outboxes without a socket, and what a client would receive from them."""

from __future__ import annotations

from bridgekit.counters import DeliveryCounters
from bridgekit.cursors_and_gaps import Cursor, Gap, GapReason, Subscribed, decode_any
from bridgekit.events import EventType, Frame
from bridgekit.ids import RunId
from bridgekit.transport.authorization import Subscription
from bridgekit.transport.log import Replay
from bridgekit.transport.outbox import CrowdedOutboxes, OutboxLimits, Subscriber
from tests.factories import ALICE, THREAD

EPOCH = "0" * 16


class Schedule:
    """A scheduler that writes nothing and counts the requested flushes."""

    def __init__(self, limits: OutboxLimits, crowded: CrowdedOutboxes | None = None) -> None:
        self.limits = limits
        self.counters = DeliveryCounters()
        self.crowded = CrowdedOutboxes() if crowded is None else crowded
        self.enqueued = 0
        self.quiet = False
        self.scheduled = 0

    def schedule(self, subscriber: Subscriber) -> None:
        self.scheduled += 1


class Box(Subscriber):
    """A subscriber without a socket that counts how often it is aborted."""

    def __init__(
        self, crowded: CrowdedOutboxes | None = None, /, *, events: int = 1_024, size_bytes: int = 4_194_304
    ) -> None:
        self.schedule = Schedule(OutboxLimits(events=events, size_bytes=size_bytes), crowded)
        self.counters = self.schedule.counters
        self.crowded = self.schedule.crowded
        super().__init__(Subscription(ALICE, THREAD), self.schedule)
        self.aborted = 0

    def abort(self) -> None:
        self.aborted += 1

    def put_all(self, *frames: Frame) -> list[bool]:
        return [self.put(each) for each in frames]

    def started(
        self, seq: int = 0, *frames: Frame, gap: Gap | None = None, expired: Gap | None = None, last: int = 0
    ) -> list[str]:
        return received(self.start(Replay(Cursor(EPOCH, seq), frames, gap, expired, last)))

    def taken(self, limit: int = 1_000_000) -> list[str]:
        """Return the next messages in short form."""
        return received(self.next_frames(limit))

    def seqs(self, limit: int = 1_000_000) -> list[int]:
        """Return the `seq` of each event that is sent next."""
        return [int(each) for each in self.taken(limit) if each.isdigit()]


def received(frames: list[bytes]) -> list[str]:
    """Return messages in short form: a number for an event, and words for a signal."""
    return [brief(each) for each in frames]


def brief(frame: bytes) -> str:
    if not frame.startswith(b"{"):
        return frame.rstrip(b".").decode()
    item = decode_any(frame)
    if isinstance(item, Subscribed):
        return f"subscribed {item.seq}"
    if isinstance(item, Gap):
        return f"{item.first}-{item.last or ''} {item.reason}"
    return str(item.seq)


def numbered(seq: int, type: EventType, run: str = "run_1", size: int = 10) -> Frame:  # noqa: A002  # the name in the wire format
    """Return a frame with this `seq` and size."""
    return Frame(seq, type, RunId(run), str(seq).encode().ljust(size, b"."))


def tool(seq: int, run: str = "run_1", size: int = 10) -> Frame:
    return numbered(seq, EventType.TOOL_EXECUTING, run, size)


def thought(seq: int, run: str = "run_1", size: int = 10) -> Frame:
    return numbered(seq, EventType.AGENT_THINKING, run, size)


def progress(seq: int, run: str = "run_1") -> Frame:
    return numbered(seq, EventType.PROGRESS_UPDATE, run)


def gap(first: int, last: int | None, reason: GapReason) -> Gap:
    return Gap(thread_id=THREAD, epoch=EPOCH, first=first, last=last, reason=reason)
