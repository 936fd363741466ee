"""A model of an event log that is simple instead of fast or small: it keeps every event in a list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bridgekit.cursors_and_gaps import Cursor, GapReason
from bridgekit.ids import ThreadId
from bridgekit.transport.log import Replay, Retention


@dataclass(frozen=True)
class NaiveEvent:
    """One published event."""

    seq: int
    number: int
    at: float
    size_bytes: int
    lost: bool = False


@dataclass
class NaiveThread:
    birth: int
    """The model's name of the epoch."""
    events: list[NaiveEvent] = field(default_factory=list)
    sockets: int = 0

    @property
    def seq(self) -> int:
        return len(self.events)


Answer = tuple[str, int, int | None, tuple[int, ...]]
"""The answer to a resuming socket: "all" or its gap's reason, the gap's first and last `seq`, and the events sent."""


class Naive:
    """The model. Each epoch of a thread has a birth number, which is never reused."""

    def __init__(self, retention: Retention, clock: Callable[[], float]) -> None:
        self.retention = retention
        self.clock = clock
        self.threads: dict[ThreadId, NaiveThread] = {}
        """Least recently used first."""
        self.births = 0

    def used(self, thread_id: ThreadId) -> NaiveThread:
        thread = self.threads.pop(thread_id, None)
        if thread is None:
            thread = NaiveThread(self.births)
            self.births += 1
            while len(self.threads) >= self.retention.threads and self._forget_one():
                pass
        self.threads[thread_id] = thread
        return thread

    def _forget_one(self) -> bool:
        idle = [thread_id for thread_id, thread in self.threads.items() if not thread.sockets]
        for thread_id in idle[:1]:
            del self.threads[thread_id]
        return bool(idle)

    def publish(self, thread_id: ThreadId, number: int, size_bytes: int, *, lost: bool = False) -> int:
        thread = self.used(thread_id)
        thread.events.append(NaiveEvent(thread.seq + 1, number, self.clock(), size_bytes, lost))
        return thread.seq

    def kept(self, thread: NaiveThread) -> list[NaiveEvent]:
        """Return the latest events within all limits."""
        kept: list[NaiveEvent] = []
        for event in reversed([event for event in thread.events if not event.lost]):
            size_bytes = sum(each.size_bytes for each in kept) + event.size_bytes
            if len(kept) >= self.retention.events or (kept and size_bytes > self.retention.size_bytes):
                break
            kept.insert(0, event)
        return [event for event in kept if event.at >= self.clock() - self.retention.seconds]

    def replay(self, thread_id: ThreadId, birth: int, seq: int) -> Answer:
        thread = self.used(thread_id)
        kept = self.kept(thread)
        if birth != thread.birth or seq > thread.seq:
            return "restarted", seq + 1, None, tuple(event.number for event in kept)
        wanted = [event for event in thread.events[seq:] if not event.lost]
        if set(wanted) <= set(kept) and (wanted or seq == thread.seq):
            return "all", 0, 0, tuple(event.number for event in wanted)
        return ("expired" if wanted else "lost"), seq + 1, thread.seq, ()


def answer_of(replay: Replay, requested: Cursor) -> Answer:
    """Convert a log's replay to the model's form. Raises AssertionError if the replay contradicts itself."""
    frames = tuple(int(str(frame.event.payload["number"])) for frame in replay.frames)
    assert [frame.seq for frame in replay.frames] == [frame.event.seq for frame in replay.frames]
    if replay.gap is None:
        assert replay.cursor == requested
        return "all", 0, 0, frames
    assert replay.gap.epoch == requested.epoch
    if replay.gap.reason is GapReason.RESTARTED:
        start = replay.frames[0].seq - 1 if replay.frames else replay.cursor.seq
        assert replay.cursor.seq == start
        assert (replay.expired is None) == (start == 0)
    else:
        assert (replay.gap.last, replay.expired) == (replay.cursor.seq, None)
    return replay.gap.reason.value, replay.gap.first, replay.gap.last, frames
