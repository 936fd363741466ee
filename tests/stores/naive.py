"""A broker as its words have it, without a thought for time or memory: everything that was ever said, in lists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bridgekit.ids import ThreadId
from bridgekit.signals import Cursor, GapReason
from bridgekit.transport.log import Replay, Retention


@dataclass(frozen=True)
class Said:
    """One event: its number in the thread, and whatever else is known of it."""

    seq: int
    number: int
    at: float
    size_bytes: int
    lost: bool = False


@dataclass
class NaiveThread:
    birth: int
    """Stands for the epoch."""
    said: list[Said] = field(default_factory=list)
    sockets: int = 0

    @property
    def seq(self) -> int:
        return len(self.said)


Answer = tuple[str, int, int | None, tuple[int, ...]]
"""What a resuming socket is told: "all" or why not, where its gap is, and which events it gets."""


class Naive:
    """The model. A thread's numbering is told by its birth: births are never repeated."""

    def __init__(self, keep: Retention, clock: Callable[[], float]) -> None:
        self.keep = keep
        self.clock = clock
        self.threads: dict[ThreadId, NaiveThread] = {}
        """In the order of their last use."""
        self.births = 0

    def used(self, thread_id: ThreadId) -> NaiveThread:
        thread = self.threads.pop(thread_id, None)
        if thread is None:
            thread = NaiveThread(self.births)
            self.births += 1
            while len(self.threads) >= self.keep.threads and self._forget_one():
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
        thread.said.append(Said(thread.seq + 1, number, self.clock(), size_bytes, lost))
        return thread.seq

    def kept(self, thread: NaiveThread) -> list[Said]:
        """The latest within all bounds."""
        kept: list[Said] = []
        for said in reversed([said for said in thread.said if not said.lost]):
            size_bytes = sum(each.size_bytes for each in kept) + said.size_bytes
            if len(kept) >= self.keep.events or (kept and size_bytes > self.keep.size_bytes):
                break
            kept.insert(0, said)
        return [said for said in kept if said.at >= self.clock() - self.keep.seconds]

    def replay(self, thread_id: ThreadId, birth: int, seq: int) -> Answer:
        thread = self.used(thread_id)
        kept = self.kept(thread)
        if birth != thread.birth or seq > thread.seq:
            return "restarted", seq + 1, None, tuple(said.number for said in kept)
        wanted = [said for said in thread.said[seq:] if not said.lost]
        if set(wanted) <= set(kept) and (wanted or seq == thread.seq):
            return "all", 0, 0, tuple(said.number for said in wanted)
        return ("expired" if wanted else "lost"), seq + 1, thread.seq, ()


def told(replay: Replay, asked: Cursor) -> Answer:
    """A broker's answer, in the model's words; an AssertionError where it contradicts itself."""
    frames = tuple(int(str(frame.event.payload["number"])) for frame in replay.frames)
    assert [frame.seq for frame in replay.frames] == [frame.event.seq for frame in replay.frames]
    if replay.gap is None:
        assert replay.cursor == asked
        return "all", 0, 0, frames
    assert replay.gap.epoch == asked.epoch
    if replay.gap.reason is GapReason.RESTARTED:
        begins = replay.frames[0].seq - 1 if replay.frames else replay.cursor.seq
        assert replay.cursor.seq == begins
        assert (replay.expired is None) == (begins == 0)
    else:
        assert (replay.gap.last, replay.expired) == (replay.cursor.seq, None)
    return replay.gap.reason.value, replay.gap.first, replay.gap.last, frames
