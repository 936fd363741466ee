"""Frames that wait for a socket in so great a number that some of them must make room, and which of them may."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

from bridgekit.events import COALESCIBLE, EventType, Frame
from bridgekit.ids import RunId

__all__ = ["Crowd"]


class Crowd:
    """Frames in rising order of `seq`, and those among them that are superseded: a later one of their run and type,
    which may be coalesced, waits too. Every operation is O(1) a frame."""

    def __init__(self, frames: Iterable[Frame]) -> None:
        self._frames: dict[int, Frame] = {}
        self._latest: dict[tuple[RunId, EventType], int] = {}
        """The latest frame that waits, for each run and type that may be coalesced."""
        self._superseded: deque[int] = deque()
        """Frames that wait although a later one stands for them, in the order in which that one came. The first of
        them waits; of those behind it some may have been taken."""
        for frame in frames:
            self.supersede_by(frame)
            self.append(frame)

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[Frame]:
        return iter(self._frames.values())

    def supersede_by(self, frame: Frame) -> None:
        """The frame has come; whether or not it gets in, an earlier one of its run and type may make room."""
        if frame.type in COALESCIBLE and (earlier := self._latest.get((frame.run_id, frame.type))) is not None:
            self._superseded.append(earlier)

    def append(self, frame: Frame) -> None:
        if frame.type in COALESCIBLE:
            self._latest[frame.run_id, frame.type] = frame.seq
        self._frames[frame.seq] = frame

    def make_room(self) -> Frame | None:
        """Take out the frame that was superseded first; None where there is none."""
        if not self._superseded:
            return None
        frame = self._remove(self._superseded.popleft())
        self._forget_taken()
        return frame

    def take(self, limit: int | None = None) -> list[Frame]:
        """Take out the first so many."""
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
