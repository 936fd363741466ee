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
    """Frames in, frames out, in rising order of `seq`. Every operation is O(1) a frame and never waits.

    While it is full, a frame for which a later one of its run and type stands makes room: only those that may be
    coalesced, oldest first. What may not is never dropped: then the outbox takes no more.
    """

    def __init__(self, *, events: int = OUTBOX_EVENTS, size_bytes: int = OUTBOX_BYTES) -> None:
        self._events = events
        self._size_bytes = size_bytes
        self._frames: dict[int, Frame] = {}
        """By a number of the outbox's own, in order."""
        self._put = 0
        self._waiting_bytes = 0
        self._latest: dict[tuple[RunId, EventType], int] = {}
        """The latest frame that waits, for each run and type that may be coalesced."""
        self._superseded: deque[int] = deque()
        """Frames that wait although a later one stands for them."""
        self._made_room = Ranges()
        """The numbers of frames that made room, until they are told. No more ranges than frames wait, and one."""
        self.coalesced = 0
        """How many frames have made room for others."""

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frame: Frame) -> bool:
        """Take a frame, or answer False: nothing can make room for it."""
        self._put += 1
        if frame.type in COALESCIBLE:
            self._supersede(frame)
        while not self._fits(frame):
            if not self._make_room():
                return False
        self._frames[self._put] = frame
        self._waiting_bytes += len(frame.data)
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
        return [self._remove(number) for number in list(islice(self._frames, limit))]

    def drop_up_to(self, seq: int) -> None:
        """Let go of frames that were sent another way."""
        for number in [number for number, frame in self._frames.items() if frame.seq <= seq]:
            self._remove(number)

    def made_room_before(self, seq: int) -> list[tuple[int, int]]:
        """The numbers of frames before that one which made room for others, as ranges. Each is told once."""
        return self._made_room.take_below(seq)

    def _fits(self, frame: Frame) -> bool:
        # A frame larger than the bound still goes into an empty outbox: the frame limit is another border's.
        return not self._frames or (
            len(self._frames) < self._events and self._waiting_bytes + len(frame.data) <= self._size_bytes
        )

    def _supersede(self, frame: Frame) -> None:
        what = frame.run_id, frame.type
        earlier = self._latest.get(what)
        if earlier is not None:
            self._superseded.append(earlier)
        self._latest[what] = self._put

    def _make_room(self) -> bool:
        while self._superseded:
            number = self._superseded.popleft()
            # It may have been taken in the meantime.
            if number in self._frames:
                self._made_room.add(self._remove(number).seq)
                self.coalesced += 1
                return True
        return False

    def _remove(self, number: int) -> Frame:
        frame = self._frames.pop(number)
        self._waiting_bytes -= len(frame.data)
        what = frame.run_id, frame.type
        if self._latest.get(what) == number:
            del self._latest[what]
        return frame
