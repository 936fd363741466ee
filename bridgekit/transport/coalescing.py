"""What an outbox over its limits does: frames that a later one supersedes make room for others."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

from bridgekit.events import COALESCIBLE, EventType, Frame
from bridgekit.ids import RunId

__all__ = ["CoalescingQueue", "IntervalSet"]


class CoalescingQueue:
    """Frames in rising order of `seq`, and which of them are superseded: a later frame of their run and type, which
    may be coalesced, waits too. Every operation is O(1) a frame."""

    def __init__(self, frames: Iterable[Frame]) -> None:
        self._frames: dict[int, Frame] = {}
        self._latest: dict[tuple[RunId, EventType], int] = {}
        """The latest frame that waits, for each run and type that may be coalesced."""
        self._superseded: deque[int] = deque()
        """Superseded frames, in the order in which the later one came. The first of them waits; of the others some
        may have been taken."""
        for frame in frames:
            self.mark_superseded(frame)
            self.append(frame)

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[Frame]:
        return iter(self._frames.values())

    @property
    def can_make_room(self) -> bool:
        return bool(self._superseded)

    def mark_superseded(self, frame: Frame) -> None:
        """The frame has come. Whether or not there is room for it, an earlier one of its run and type may go."""
        if frame.type in COALESCIBLE and (earlier := self._latest.get((frame.run_id, frame.type))) is not None:
            self._superseded.append(earlier)

    def append(self, frame: Frame) -> None:
        if frame.type in COALESCIBLE:
            self._latest[frame.run_id, frame.type] = frame.seq
        self._frames[frame.seq] = frame

    def evict_superseded(self) -> Frame:
        """Remove the frame that was superseded first. There must be one: see `can_make_room`."""
        frame = self._remove(self._superseded.popleft())
        self._forget_taken()
        return frame

    def take(self, limit: int | None) -> list[Frame]:
        """Remove and return the first so many."""
        taken = [self._remove(seq) for seq in list(islice(self._frames, limit))]
        self._forget_taken()
        return taken

    def _forget_taken(self) -> None:
        # From the front is enough: while the first one waits, nothing has made room since it was superseded, so that
        # all that came later waits too, and there are no more of those behind it than fit.
        while self._superseded and self._superseded[0] not in self._frames:
            self._superseded.popleft()

    def _remove(self, seq: int) -> Frame:
        frame = self._frames.pop(seq)
        if frame.type in COALESCIBLE and self._latest.get(what := (frame.run_id, frame.type)) == seq:
            del self._latest[what]
        return frame


class IntervalSet:
    """A set of whole numbers that are mostly adjacent, as disjoint intervals in rising order, both ends inclusive."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def __len__(self) -> int:
        """How many intervals, not how many numbers."""
        return len(self._firsts)

    def add(self, number: int) -> None:
        """Add a number that is not in the set."""
        index = bisect_right(self._firsts, number)
        extends_left = index > 0 and self._lasts[index - 1] == number - 1
        extends_right = index < len(self._firsts) and self._firsts[index] == number + 1
        if extends_left and extends_right:
            self._lasts[index - 1] = self._lasts.pop(index)
            del self._firsts[index]
        elif extends_left:
            self._lasts[index - 1] = number
        elif extends_right:
            self._firsts[index] = number
        else:
            self._firsts.insert(index, number)
            self._lasts.insert(index, number)

    def pop_below(self, number: int) -> list[tuple[int, int]]:
        """Remove and return the intervals below a number that is in none of them."""
        index = bisect_right(self._firsts, number)
        taken = list(zip(self._firsts[:index], self._lasts[:index], strict=True))
        del self._firsts[:index], self._lasts[:index]
        return taken
