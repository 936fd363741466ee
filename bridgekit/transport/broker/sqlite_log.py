"""What one thread has in a SQLite file: its numbers, and in which parts its events are let go of."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

import msgspec

from bridgekit.events import EventType, Frame
from bridgekit.ids import RunId, ThreadId
from bridgekit.transport.log import Keep
from bridgekit.transport.pinned_lru import Numbering

__all__ = ["NOTHING_HELD", "PARTS", "Held", "Log", "Part"]

PARTS: Final = 8
"""In about how many parts a log is trimmed: a row at a time would be as many deletions as insertions."""


@dataclass(slots=True)
class Part:
    """Rows of one thread, in the order of their numbers, that are let go of together."""

    first: int
    last: int
    rows: int
    size_bytes: int
    begun_at: float
    ended_at: float


class Log(Numbering):
    """One thread: what was given, what is decided, and what is on file."""

    __slots__ = (
        "last",
        "number",
        "parts",
        "queued",
        "rows",
        "settled",
        "size_bytes",
        "stored",
        "thread_id",
    )

    def __init__(self, thread_id: ThreadId, number: int, epoch: str, seq: int = 0) -> None:
        super().__init__(epoch, seq)
        self.thread_id = thread_id
        self.number = number
        """Stands for the thread in the file."""
        self.queued = seq
        """The last event that was to be written."""
        self.settled = seq
        """Every number up to here is decided: its event is on file, or lost."""
        self.last = seq
        """The last event that went on file. All from there to `settled` are lost."""
        self.stored = False
        """Whether the file has its epoch."""
        self.parts: list[Part] = []
        self.rows = 0
        self.size_bytes = 0

    @property
    def oldest(self) -> int:
        """The lowest number that is on file, or is known to be lost."""
        return self.parts[0].first if self.parts else self.last + 1

    def restore(self, oldest: int, last: int, at: float) -> None:
        """The file has these events already."""
        self.rows = last - oldest + 1
        self.parts.append(Part(oldest, last, self.rows, 0, at, at))

    def filed(self, first: int, last: int, size_bytes: int, now: float, keep: Keep) -> None:
        """A row was added."""
        self.rows += 1
        self.size_bytes += size_bytes
        part = self.parts[-1] if self.parts else None
        if part is None or (
            part.rows * PARTS >= keep.events
            or part.size_bytes * PARTS >= keep.size_bytes
            or (now - part.begun_at) * PARTS >= keep.seconds
        ):
            self.parts.append(Part(first, last, 1, size_bytes, now, now))
        else:
            part.last, part.ended_at = last, now
            part.rows += 1
            part.size_bytes += size_bytes

    def overdue(self, before: float, keep: Keep) -> list[Part]:
        """Let go of the parts without which the log is still as long as it must be, and of those that are too old."""
        gone = []
        while self.parts and self._may_go(self.parts[0], before, keep):
            gone.append(self.parts.pop(0))
            self.rows -= gone[-1].rows
            self.size_bytes -= gone[-1].size_bytes
        return gone

    def _may_go(self, part: Part, before: float, keep: Keep) -> bool:
        return (
            part.ended_at < before
            or self.rows - part.rows >= keep.events
            or self.size_bytes - part.size_bytes >= keep.size_bytes
        )


class _Head(msgspec.Struct):
    seq: int
    type: EventType
    run_id: RunId


_heads: Final = msgspec.json.Decoder(_Head)


class Held(NamedTuple):
    """What a log holds from some number on."""

    oldest: int
    """The lowest number that is accounted for: by a frame, or because it is known to be lost."""
    frames: tuple[Frame, ...]

    @classmethod
    def of(cls, oldest: int, rows: list[bytes], keep: Keep) -> Held:
        """The frames that follow one another from that number on, and no more of them than are to be kept."""
        frames = [_frame(row) for row in rows]
        count = _how_many(frames, keep)
        gone, kept = frames[: len(frames) - count], tuple(frames[len(frames) - count :])
        return cls(gone[-1].seq + 1 if gone else oldest, kept)


NOTHING_HELD: Final = Held(sys.maxsize, ())


def _frame(data: bytes) -> Frame:
    head = _heads.decode(data)
    return Frame(head.seq, head.type, head.run_id, data)


def _how_many(frames: list[Frame], keep: Keep) -> int:
    """How many of the latest are within the bounds: the file is trimmed a little later."""
    count = size_bytes = 0
    for frame in islice(reversed(frames), keep.events):
        size_bytes += len(frame.data)
        if size_bytes > keep.size_bytes and count:
            break
        count += 1
    return count
