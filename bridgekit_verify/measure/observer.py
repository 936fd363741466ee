"""Room for somebody who saw the same run: a measurement need not be believed on the word of its own client."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Final, Protocol

from bridgekit_verify.measure.history import Socket

__all__ = ["NO_OBSERVER", "SocketObserver"]


class SocketObserver(Protocol):
    """Sees a run with sockets of its own, and is told what our sockets read, as it came."""

    def watch(self, url: str, sockets: Sequence[Socket]) -> AbstractAsyncContextManager[None]:
        """Entered when our sockets are subscribed, before the first run; left when the server closed every socket.

        Where users leave and come back, once for each time that they are there.
        """

    def on_frame(self, socket: Socket, frame: str | bytes) -> None:
        """One of our sockets read a frame; the first confirms the subscription, each later one is an event."""

    def on_close(self, socket: Socket, code: int) -> None:
        """One of our sockets was closed, with this close code."""


class _NoObserver:
    def watch(self, url: str, sockets: Sequence[Socket]) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    def on_frame(self, socket: Socket, frame: str | bytes) -> None:
        pass

    def on_close(self, socket: Socket, code: int) -> None:
        pass


NO_OBSERVER: Final[SocketObserver] = _NoObserver()
"""The observer of a run that nobody else sees."""
