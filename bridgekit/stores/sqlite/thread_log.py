"""One thread's state in the SQLite file: its position, and its rows in segments that are deleted together."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import islice
from typing import Final
from zlib import crc32

from bridgekit.events import Frame, decode_frame
from bridgekit.ids import ThreadId
from bridgekit.stores.sqlite.file import checksum
from bridgekit.transport.log import Retention
from bridgekit.transport.pinned_lru import ThreadSequence

__all__ = ["Segment", "ThreadLog", "count_retained"]

_logger = logging.getLogger(__name__)

SEGMENTS: Final = 8
"""Approximate number of segments in a full log. Without segments, each insertion would need a deletion."""


@dataclass(slots=True)
class Segment:
    """Consecutive rows of one thread that are deleted together."""

    first: int
    last: int
    rows: int
    size_bytes: int
    begun_at: float
    ended_at: float


class ThreadLog(ThreadSequence):
    """One thread's log: which events are numbered, which are committed or lost, and which are in the file."""

    __slots__ = ("last", "number", "rows", "salt", "segments", "settled", "size_bytes", "thread_id", "waiting")

    def __init__(self, thread_id: ThreadId, number: int, epoch: str, seq: int = 0, last: int = 0) -> None:
        super().__init__(epoch, seq)
        self.thread_id = thread_id
        self.number = number
        """Identifies the thread in the file."""
        self.salt = checksum(number, thread_id)
        """Start value of the checksums of the thread's frames, so that a frame of another thread is detected."""
        self.waiting = 0
        """Number of events that wait for their commit."""
        self.settled = seq
        """Every event up to this `seq` is committed or lost."""
        self.last = last
        """The `seq` of the last committed event. Every later event up to `settled` is lost."""
        self.segments: list[Segment] = []
        self.rows = 0
        self.size_bytes = 0

    def restore(self, first: int, last: int, at: float) -> None:
        """Count the rows that are already in the file. The size of these rows is unknown and counts as 0."""
        self.rows = last - first + 1
        self.segments.append(Segment(first, last, self.rows, 0, at, at))

    def decode_frames(self, data: bytes, sums: str) -> list[Frame]:
        """Split concatenated frames by the checksums and sizes in `sums`, and omit damaged frames.

        A client detects an omitted frame by its missing `seq`.
        """
        frames, start = [], 0
        for each in sums.split(","):
            total, size = map(int, each.split(" "))
            frame = data[start : start + size]
            start += size
            if crc32(frame, self.salt) == total:
                frames.append(decode_frame(frame))
            else:
                _logger.warning("an event of thread %s is lost: its row in the file is damaged", self.thread_id)
        return frames

    def append(self, seq: int, size_bytes: int, now: float, retention: Retention) -> None:
        """Count a committed row."""
        self.rows += 1
        self.size_bytes += size_bytes
        segment = self.segments[-1] if self.segments else None
        if segment is None or (
            segment.rows * SEGMENTS >= retention.events
            or segment.size_bytes * SEGMENTS >= retention.size_bytes
            or (now - segment.begun_at) * SEGMENTS >= retention.seconds
        ):
            self.segments.append(Segment(seq, seq, 1, size_bytes, now, now))
        else:
            segment.last, segment.ended_at = seq, now
            segment.rows += 1
            segment.size_bytes += size_bytes

    def trim(self, before: float, retention: Retention) -> list[Segment]:
        """Remove and return the segments that have expired or exceed the retention policy."""
        removed = []
        while self.segments:
            first = self.segments[0]
            if not (
                first.ended_at < before
                or self.rows - first.rows >= retention.events
                or self.size_bytes - first.size_bytes >= max(1, retention.size_bytes)
            ):
                break
            removed.append(self.segments.pop(0))
            self.rows -= first.rows
            self.size_bytes -= first.size_bytes
        return removed


def count_retained(frames: list[Frame], retention: Retention) -> int:
    """Return how many of the latest frames are within the retention policy. The latest frame counts whatever its
    size."""
    count = size_bytes = 0
    for frame in islice(reversed(frames), retention.events):
        size_bytes += len(frame.data)
        if size_bytes > retention.size_bytes and count:
            break
        count += 1
    return count
