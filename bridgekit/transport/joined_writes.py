"""What is put to a socket within one turn of the event loop leaves in one write: the system call is what costs most."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from bridgekit.transport.admission import Subscription
from bridgekit.transport.flushed import FlushedSubscriber
from bridgekit.transport.flusher import Flusher
from bridgekit.transport.outbox import Outbox

__all__ = ["NativeSubscriber", "frames"]

TEXT_FRAME: Final = 0x81
"""A text message in one frame (RFC 6455, section 5.2); a server masks nothing."""
WRITE_FRAMES: Final = 512
"""Frames that are joined into one write at most."""
_SHORT: Final = 126
_LONG: Final = 65_536

_headers: dict[int, bytes] = {}
"""By the length of the payload, as they are needed: no more of them than there are short lengths."""


def _header(size: int) -> bytes:
    if size < _SHORT:
        made = bytes((TEXT_FRAME, size))
    elif size < _LONG:
        made = bytes((TEXT_FRAME, 126)) + size.to_bytes(2)
    else:
        return bytes((TEXT_FRAME, 127)) + size.to_bytes(8)
    _headers[size] = made
    return made


def frames(texts: Iterable[bytes]) -> bytes:
    """One WebSocket text frame a text, side by side."""
    parts: list[bytes] = []
    for text in texts:
        size = len(text)
        parts.append(_headers.get(size) or _header(size))
        parts.append(text)
    return b"".join(parts)


class Writable(Protocol):
    """What a socket needs of its connection."""

    @property
    def transport(self) -> asyncio.Transport: ...

    @property
    def takes(self) -> bool:
        """Whether more should be written."""

    def let_go(self) -> None:
        """Break it off soon, whatever waits in its buffer."""


class NativeSubscriber(FlushedSubscriber):
    """A subscriber whose frames are written by the edge's flusher. It writes without waiting, or leaves them waiting.

    `end` says goodbye with a code, behind all that waits.
    """

    __slots__ = ("_connection", "_end_with")

    def __init__(
        self, subscription: Subscription, flusher: Flusher, end: Callable[[int], None], *, outbox: Outbox
    ) -> None:
        super().__init__(subscription, flusher, outbox=outbox)
        self._end_with = end
        self._connection: Writable | None = None

    def start(self, connection: Writable, first: Iterable[bytes]) -> None:
        """Send this first; from now on whatever is put follows."""
        self._connection = connection
        # Its client may have left while the replay was read.
        if connection.takes:
            connection.transport.write(frames(first))
            self.wake()

    def flush(self) -> None:
        """Write what waits, as far as the connection takes it; at the end of it say goodbye, if the end has come."""
        self._marked = False
        connection = self._connection
        if connection is None or self._over:
            return
        while self.outbox and connection.takes:
            taken = self.take(WRITE_FRAMES)
            self.in_hand = 0
            connection.transport.write(frames(taken))
        if self.code is not None and not self.outbox:
            self._let_go()

    def cut(self) -> None:
        """Its time is over, whatever it has not read."""
        self._let_go()
        if self._connection is not None:
            self._connection.let_go()

    def fail(self, error: Exception) -> None:
        self.failure = error
        self._over = True
        if self._connection is not None:
            self._connection.let_go()

    def _let_go(self) -> None:
        if not self._over and self.code is not None:
            self._over = True
            self._end_with(self.code)
