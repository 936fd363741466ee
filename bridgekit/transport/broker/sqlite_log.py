"""What one thread has in a SQLite file: its numbers, and in which parts its events are let go of."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

import msgspec

from bridgekit.events import EventType, Frame
from bridgekit.ids import RunId, ThreadId
from bridgekit.transport.broker import Keep
from bridgekit.transport.broker.remembered import Numbering

__all__ = ["NOTHING_HELD", "PARTS", "Held", "Log", "Part", "hole"]

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
        "forgotten",
        "hole",
        "number",
        "parts",
        "queued",
        "rows",
        "settled",
        "size_bytes",
        "stored",
        "thread_id",
    )

    def __init__(self, thread_id: ThreadId, number: int, epoch: str, seq: int = 0, *, stored: bool = False) -> None:
        super().__init__(epoch, seq)
        self.thread_id = thread_id
        self.number = number
        """Stands for the thread in the file."""
        self.queued = seq
        """The number of the last event that waits for its commit, or did."""
        self.settled = seq
        """Every number up to here is on file, or is lost."""
        self.hole = 0
        """From here to `settled` all is lost, and the file is not told yet; 0 where there is nothing to tell."""
        self.stored = stored
        """Whether the file has its epoch."""
        self.forgotten = False
        """Whether the thread is to leave the file. Then nothing is told of it any more."""
        self.parts: list[Part] = []
        self.rows = 0
        self.size_bytes = 0

    @property
    def oldest(self) -> int:
        """The lowest number that is on file, or in a hole before one that is."""
        return self.parts[0].first if self.parts else self.settled + 1

    def restore(self, oldest: int, last: int, at: float) -> None:
        """The file has these numbers already."""
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
_FRAME: Final = b"{"


def hole(first: int, last: int) -> bytes:
    """What is put on file for numbers whose events are lost."""
    return b"%d %d" % (first, last)


class Held(NamedTuple):
    """What a log holds from some number on."""

    oldest: int
    """The lowest number that is accounted for, by a frame or by a hole."""
    frames: tuple[Frame, ...]

    @classmethod
    def of(cls, rows: list[bytes], keep: Keep) -> Held:
        """From one row or more, in order, and no more of them than are to be kept."""
        frames = [_frame(row) for row in rows if row.startswith(_FRAME)]
        kept = _kept(frames, keep)
        if len(kept) == len(frames) and not rows[0].startswith(_FRAME):
            return cls(int(rows[0].split(b" ")[0]), kept)
        return cls(kept[0].seq, kept) if kept else NOTHING_HELD


NOTHING_HELD: Final = Held(sys.maxsize, ())


def _frame(data: bytes) -> Frame:
    head = _heads.decode(data)
    return Frame(head.seq, head.type, head.run_id, data)


def _kept(frames: list[Frame], keep: Keep) -> tuple[Frame, ...]:
    """The latest ones, within the bounds: a file is trimmed a little later."""
    count = size_bytes = 0
    for frame in islice(reversed(frames), keep.events):
        size_bytes += len(frame.data)
        if size_bytes > keep.size_bytes and count:
            break
        count += 1
    return tuple(frames[len(frames) - count :])
