"""An optional second observer of the same run, so that the verdict does not depend on one client implementation."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Final, Protocol

from bridgekit_verify.measure.history import Socket

__all__ = ["NO_OBSERVER", "SocketObserver"]


class SocketObserver(Protocol):
    """Observes a run with its own sockets, and receives every frame that the measurement's sockets read."""

    def watch(self, url: str, sockets: Sequence[Socket]) -> AbstractAsyncContextManager[None]:
        """Return a context manager that is active while the measurement's sockets are open.

        It is entered after they have subscribed and before the first run; it is left after the server has closed every
        socket. Where users go offline and reconnect, it is entered once for each time that they are online.
        """

    def on_frame(self, socket: Socket, frame: str | bytes) -> None:
        """A socket of the measurement read a frame; the first confirms the subscription, each later one is an event."""

    def on_close(self, socket: Socket, code: int) -> None:
        """A socket of the measurement was closed with this close code."""


class _NoObserver:
    def watch(self, url: str, sockets: Sequence[Socket]) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    def on_frame(self, socket: Socket, frame: str | bytes) -> None:
        pass

    def on_close(self, socket: Socket, code: int) -> None:
        pass


NO_OBSERVER: Final[SocketObserver] = _NoObserver()
"""The observer of a run without a second observer: it does nothing."""
