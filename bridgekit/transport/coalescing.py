"""Makes room in a full outbox: joins the deltas of a message, and drops superseded frames."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from bridgekit.cursors_and_gaps import GapReason
from bridgekit.events import POLICIES, EventType, Frame, Policy, TextDelta, concatenate, text_delta
from bridgekit.ids import RunId

__all__ = ["CONCATENATED_BYTES", "CoalescingQueue"]

CONCATENATED_BYTES: Final = 32_768
"""Limit on the size of a joined frame: the bytes of its first frame plus the bytes of the appended texts."""


class _Concatenation:
    """A waiting delta, and the later deltas of its message that were joined to it."""

    __slots__ = ("deltas", "last", "message_id", "size_bytes")

    def __init__(self, frame: Frame, delta: TextDelta) -> None:
        self.last = frame
        self.message_id = delta.message_id
        self.deltas = [delta.delta]
        self.size_bytes = len(frame.data)

    def join(self, frame: Frame, delta: TextDelta) -> int | None:
        """Append a delta and return the size of its text.

        Return None if the delta does not directly follow the last joined delta, or if the joined frame would be too
        large.

        If a `seq` were missing in a joined frame, a client could resume after an event that it never received.
        """
        last, size = self.last, len(delta.delta.encode())
        if (
            (frame.seq, frame.type, frame.run_id, delta.message_id)
            != (last.seq + 1, last.type, last.run_id, self.message_id)
        ) or self.size_bytes + size > CONCATENATED_BYTES:
            return None
        self.last = frame
        self.deltas.append(delta.delta)
        self.size_bytes += size
        return size


class CoalescingQueue:
    """Holds frames in ascending order of `seq`, and records which of them are superseded.

    A frame is superseded when a later frame of the same run and type also waits, and the type may be coalesced. Every
    operation is O(1) per frame.
    """

    def __init__(self, frames: Iterable[Frame], last_seq: int, *, concatenate: bool) -> None:
        """`last_seq` is the `seq` that was sent last. With `concatenate`, deltas among the frames are joined."""
        self._last_seq = last_seq
        self._skipped: list[tuple[int, int]] = []
        """Ranges of `seq` that no frame had, in ascending order."""
        self.size_bytes = 0
        self._frames: dict[int, Frame] = {}
        self._concatenations: dict[int, _Concatenation] = {}
        """The concatenations, including those of a single delta, by the `seq` of their first delta."""
        self._tail: _Concatenation | None = None
        """The concatenation that was added last, if it still waits."""
        self._latest: dict[tuple[RunId, EventType], int] = {}
        """The `seq` of the latest waiting frame, for each run and each type that may be coalesced."""
        self._superseded: deque[int] = deque()
        """The `seq` of superseded frames, in the order in which their successors arrived. The first entry's frame still
        waits. The frames of other entries may have been taken."""
        for frame in frames:
            self.note(frame.seq)
            if not (concatenate and self.concatenate(frame)):
                self.mark_superseded(frame)
                self.append(frame)

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[Frame]:
        return iter(self._frames.values())

    @property
    def can_make_room(self) -> bool:
        """Return whether at least one waiting frame is superseded."""
        return bool(self._superseded)

    def mark_superseded(self, frame: Frame) -> None:
        """Record that this frame supersedes the waiting frame of its run and type, if there is one.

        Call this before making room for the frame, because the superseded frame can then be evicted.
        """
        if (earlier := self._latest.get((frame.run_id, frame.type))) is not None:
            self._superseded.append(earlier)

    def append(self, frame: Frame) -> None:
        if POLICIES.get(frame.type) is Policy.COALESCE:
            self._latest[frame.run_id, frame.type] = frame.seq
        elif (delta := text_delta(frame)) is not None:
            self._tail = self._concatenations[frame.seq] = _Concatenation(frame, delta)
        self._frames[frame.seq] = frame
        self.size_bytes += len(frame.data)

    def concatenate(self, frame: Frame) -> bool:
        """Join a delta to the last waiting frame if possible, and return whether it was joined."""
        if self._tail is None or (delta := text_delta(frame)) is None:
            return False
        size = self._tail.join(frame, delta)
        self.size_bytes += size or 0
        return size is not None

    def evict_superseded(self) -> None:
        """Remove the frame that was superseded first. Call this only if `can_make_room` is true."""
        self._remove(self._superseded.popleft())
        self._discard_taken()

    def take(self, limit: int | None) -> list[Frame]:
        """Remove and return the first `limit` frames, or all frames if `limit` is None."""
        taken = [self._remove(seq) for seq in list(islice(self._frames, limit))]
        self._discard_taken()
        return taken

    def _discard_taken(self) -> None:
        # Checking only the first entry suffices to limit the entries to the number of waiting frames. While the first
        # entry's frame waits, the frames that superseded the other entries wait too.
        while self._superseded and self._superseded[0] not in self._frames:
            self._superseded.popleft()

    def _remove(self, seq: int) -> Frame:
        frame = self._frames.pop(seq)
        if self._latest.get(key := (frame.run_id, frame.type)) == seq:
            del self._latest[key]
        joined = self._concatenations.pop(seq, None)
        self.size_bytes -= len(frame.data) if joined is None else joined.size_bytes
        if joined is None:
            return frame
        if joined is self._tail:
            self._tail = None
        return concatenate(seq, joined.last, "".join(joined.deltas)) if len(joined.deltas) > 1 else frame

    def note(self, seq: int) -> None:
        """Record the `seq` of an arriving frame, and the range that is missing before it."""
        if seq > self._last_seq + 1:
            self._skipped.append((self._last_seq + 1, seq - 1))
        self._last_seq = seq

    def missing(self, first: int, last: int) -> Iterator[tuple[int, int, GapReason]]:
        """Split a missing range by reason: LOST if no frame had the `seq`, and otherwise COALESCED."""
        for start, end in self._skipped:
            start, end = max(start, first), min(end, last)  # limited to this range
            if start <= end:
                if first < start:
                    yield first, start - 1, GapReason.COALESCED
                yield start, end, GapReason.LOST
                first = end + 1
        if first <= last:
            yield first, last, GapReason.COALESCED
        self._skipped = [skipped for skipped in self._skipped if skipped[1] > last]
