"""A bounded queue of frames between the hub, which never waits, and one socket, which may be slow."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Final

from bridgekit.events import COALESCIBLE, EventType, Frame
from bridgekit.ids import RunId
from bridgekit.transport.ranges import Ranges

__all__ = ["OUTBOX_BYTES", "OUTBOX_EVENTS", "Outbox"]

OUTBOX_EVENTS: Final = 1_024
"""Frames that may wait for one socket."""
OUTBOX_BYTES: Final = 4_194_304
"""Bytes that may wait for one socket."""


class Outbox:
    """Frames in, frames out, in rising order of `seq`, each once. Every operation is O(1) a frame and never waits.

    While it is full, a frame for which a later one of its run and type stands makes room: only those that may be
    coalesced, oldest first. What may not is never dropped: then the outbox takes no more.
    """

    def __init__(self, *, events: int = OUTBOX_EVENTS, size_bytes: int = OUTBOX_BYTES) -> None:
        self._events = events
        self._size_bytes = size_bytes
        self._frames: dict[int, Frame] = {}
        """What waits, by `seq`, in order."""
        self._last = 0
        """The highest number that was put, or that was sent another way."""
        self._waiting_bytes = 0
        self._latest: dict[tuple[RunId, EventType], int] = {}
        """The latest frame that waits, for each run and type that may be coalesced."""
        self._superseded: deque[int] = deque()
        """Frames that wait although a later one stands for them, in the order in which that one came. The first of
        them waits; of those behind it some may have been taken."""
        self._made_room = Ranges()
        """The numbers of frames that made room, until they are told. No more ranges than frames wait, and one."""
        self.coalesced = 0
        """How many frames have made room for others."""

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frame: Frame) -> bool:
        """Take a frame, or answer False: nothing can make room for it. One that came before is not taken twice."""
        seq, frames, size = frame.seq, self._frames, len(frame.data)
        if seq <= self._last:
            return True
        what = (frame.run_id, frame.type) if frame.type in COALESCIBLE else None
        if what is not None and (earlier := self._latest.get(what)) is not None:
            self._superseded.append(earlier)
        # A frame larger than the bound still goes into an empty outbox: the frame limit is another border's.
        while frames and (len(frames) >= self._events or self._waiting_bytes + size > self._size_bytes):
            if not self._make_room():
                return False
        if what is not None:
            self._latest[what] = seq
        frames[seq] = frame
        self._last = seq
        self._waiting_bytes += size
        return True

    def take(self, limit: int | None = None) -> list[Frame]:
        """Take what waits, in order, at most so many; none when nothing waits."""
        if limit is None or limit >= len(self._frames):
            frames = list(self._frames.values())
            self._frames.clear()
            self._latest.clear()
            self._superseded.clear()
            self._waiting_bytes = 0
            return frames
        taken = [self._remove(seq) for seq in list(islice(self._frames, limit))]
        self._forget_taken()
        return taken

    def drop_up_to(self, seq: int) -> None:
        """Let go of frames that are sent another way: those that wait, and those that are yet to be put."""
        for each in [each for each in self._frames if each <= seq]:
            self._remove(each)
        self._forget_taken()
        self._last = max(self._last, seq)

    def made_room_before(self, seq: int) -> list[tuple[int, int]]:
        """The numbers of frames before that one which made room for others, as ranges. Each is told once."""
        return self._made_room.take_below(seq)

    def _make_room(self) -> bool:
        if not self._superseded:
            return False
        seq = self._superseded.popleft()
        self._forget_taken()
        self._remove(seq)
        self._made_room.add(seq)
        self.coalesced += 1
        return True

    def _forget_taken(self) -> None:
        # From the front is enough: while the first one waits, nothing has made room since it was superseded, so that
        # all that came later waits too, and there are no more of those behind it than fit.
        while self._superseded and self._superseded[0] not in self._frames:
            self._superseded.popleft()

    def _remove(self, seq: int) -> Frame:
        frame = self._frames.pop(seq)
        self._waiting_bytes -= len(frame.data)
        if frame.type in COALESCIBLE and self._latest.get(what := (frame.run_id, frame.type)) == seq:
            del self._latest[what]
        return frame
