"""A bounded queue of frames between the hub, which never waits, and one socket, which may be slow."""

from __future__ import annotations

from typing import Final

from bridgekit.events import Frame
from bridgekit.transport.crowd import Crowd
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

    __slots__ = ("_crowd", "_events", "_frames", "_last", "_made_room", "_size_bytes", "_waiting_bytes", "coalesced")

    def __init__(self, *, events: int = OUTBOX_EVENTS, size_bytes: int = OUTBOX_BYTES) -> None:
        self._events = events
        self._size_bytes = size_bytes
        self._frames: list[Frame] = []
        """What waits, as long as it was never full: then nobody asks which of it may make room."""
        self._crowd: Crowd | None = None
        """What waits, from when it was full until all of it is taken."""
        self._waiting_bytes = 0
        self._last = 0
        """The highest number that was put, or that was sent another way."""
        self._made_room: Ranges | None = None
        """The numbers of frames that made room, until they are told. No more ranges than frames wait, and one."""
        self.coalesced = 0
        """How many frames have made room for others."""

    def __len__(self) -> int:
        return len(self._frames if self._crowd is None else self._crowd)

    def put(self, frame: Frame) -> bool:
        """Take a frame, or answer False: nothing can make room for it. One that came before is not taken twice."""
        seq = frame.seq
        if seq <= self._last:
            return True
        size, frames = self._waiting_bytes + len(frame.data), self._frames
        if self._crowd is not None or (frames and (size > self._size_bytes or len(frames) >= self._events)):
            return self._squeeze_in(frame)
        frames.append(frame)
        self._waiting_bytes = size
        self._last = seq
        return True

    def take(self, limit: int | None = None) -> list[Frame]:
        """Take what waits, in order, at most so many; none when nothing waits."""
        frames = self._frames
        if self._crowd is not None:
            taken = self._crowd.take(limit)
            if not self._crowd:
                self._crowd = None
        elif limit is None or limit >= len(frames):
            self._frames = []
            self._waiting_bytes = 0
            return frames
        else:
            taken = frames[:limit]
            del frames[:limit]
        self._waiting_bytes -= _size(taken)
        return taken

    def drop_up_to(self, seq: int) -> None:
        """Let go of frames that are sent another way: those that wait, and those that are yet to be put."""
        waiting = self._frames if self._crowd is None else self._crowd
        self.take(sum([frame.seq <= seq for frame in waiting]))
        self._last = max(self._last, seq)

    def made_room_before(self, seq: int) -> list[tuple[int, int]]:
        """The numbers of frames before that one which made room for others, as ranges. Each is told once."""
        return [] if self._made_room is None else self._made_room.take_below(seq)

    def _squeeze_in(self, frame: Frame) -> bool:
        """Put a frame where others may have to make room for it."""
        if (crowd := self._crowd) is None:
            crowd = self._crowd = Crowd(self._frames)
            self._frames = []
        crowd.supersede_by(frame)
        size = len(frame.data)
        # A frame larger than the bound still goes into an empty outbox: the frame limit is another border's.
        while crowd and (len(crowd) >= self._events or self._waiting_bytes + size > self._size_bytes):
            if (gone := crowd.make_room()) is None:
                return False
            self._made_room = Ranges() if self._made_room is None else self._made_room
            self._made_room.add(gone.seq)
            self._waiting_bytes -= len(gone.data)
            self.coalesced += 1
        crowd.append(frame)
        self._waiting_bytes += size
        self._last = frame.seq
        return True


def _size(frames: list[Frame]) -> int:
    return sum([len(frame.data) for frame in frames])
