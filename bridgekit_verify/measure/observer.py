"""Room for somebody who saw the same run: a measurement need not be believed on the word of its own client."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Final, Protocol

from bridgekit_verify.measure.history import Socket

__all__ = ["NO_OBSERVER", "Witness"]


class Witness(Protocol):
    """Sees a run with sockets of its own, and is told what our sockets read, as it came."""

    def attending(self, url: str, sockets: Sequence[Socket]) -> AbstractAsyncContextManager[None]:
        """Entered when our sockets are subscribed, before the first run; left when the server closed every socket.

        Where users leave and come back, once for each time that they are there.
        """

    def our_frame(self, socket: Socket, frame: str | bytes) -> None:
        """One of our sockets read a frame; the first confirms the subscription, each later one is an event."""

    def our_close(self, socket: Socket, code: int) -> None:
        """One of our sockets was closed, with this close code."""


class _Nobody:
    def attending(self, url: str, sockets: Sequence[Socket]) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    def our_frame(self, socket: Socket, frame: str | bytes) -> None:
        pass

    def our_close(self, socket: Socket, code: int) -> None:
        pass


NO_OBSERVER: Final[Witness] = _Nobody()
"""The witness of a run that nobody else sees."""
