"""A bounded queue of frames between the hub, which never waits, and one socket, which may."""

from __future__ import annotations

from collections import deque
from typing import Final

import anyio

from bridgekit.events import Frame

__all__ = ["OUTBOX_BYTES", "OUTBOX_EVENTS", "Outbox"]

OUTBOX_EVENTS: Final = 1_024
"""Frames that may wait for one socket."""
OUTBOX_BYTES: Final = 4_194_304
"""Bytes that may wait for one socket."""


class Outbox:
    """Frames in, batches out. `put` never waits; one wake-up serves a whole burst."""

    def __init__(self, *, events: int = OUTBOX_EVENTS, size_bytes: int = OUTBOX_BYTES) -> None:
        self._events = events
        self._size_bytes = size_bytes
        self._frames: deque[Frame] = deque()
        self._waiting_bytes = 0
        self._wake: anyio.Event | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def closed(self) -> bool:
        """Whether it takes no more, full or not."""
        return self._closed

    def put(self, frame: Frame) -> bool:
        """Take a frame, or answer False: the outbox is closed, or full."""
        if self._closed or not self._fits(frame):
            return False
        self._frames.append(frame)
        self._waiting_bytes += len(frame.data)
        self._ring()
        return True

    def close(self) -> None:
        """Take no more. What waits can still be taken out."""
        self._closed = True
        self._ring()

    async def take(self) -> list[Frame]:
        """Wait for frames and take all that wait, in order; nothing once the outbox is closed and empty."""
        while not self._frames and not self._closed:
            self._wake = anyio.Event()
            await self._wake.wait()
        return self.take_nowait()

    def take_nowait(self) -> list[Frame]:
        """Take all that waits, without waiting."""
        frames = list(self._frames)
        self._frames.clear()
        self._waiting_bytes = 0
        return frames

    def _fits(self, frame: Frame) -> bool:
        # A frame larger than the bound still goes into an empty outbox: the frame limit is another border's.
        return not self._frames or (
            len(self._frames) < self._events and self._waiting_bytes + len(frame.data) <= self._size_bytes
        )

    def _ring(self) -> None:
        if self._wake is not None:
            self._wake.set()
            self._wake = None
