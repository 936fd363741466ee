"""An optional second observer of a measurement, so that the verdict does not depend on one client implementation."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Final, Protocol

from bridgekit_verify.measure.history import Socket

__all__ = ["NO_OBSERVER", "SocketObserver"]


class SocketObserver(Protocol):
    """Observes a run with sockets of its own, and receives every frame that the measurement's sockets read."""

    def watch(self, url: str, sockets: Sequence[Socket]) -> AbstractAsyncContextManager[None]:
        """Return a context manager that is active while the measurement's sockets are open.

        The measurement enters the context after its sockets have subscribed and before the first run. The measurement
        leaves the context after the server has closed every socket. If users go offline and reconnect, the measurement
        enters the context once for each period in which they are online.
        """

    def on_frame(self, socket: Socket, frame: str | bytes) -> None:
        """Called for each frame that a socket of the measurement reads: the confirmation, then events and gaps."""

    def on_close(self, socket: Socket, code: int) -> None:
        """Called when a socket of the measurement is closed with this close code."""


class _NoObserver:
    def watch(self, url: str, sockets: Sequence[Socket]) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    def on_frame(self, socket: Socket, frame: str | bytes) -> None:
        pass

    def on_close(self, socket: Socket, code: int) -> None:
        pass


NO_OBSERVER: Final[SocketObserver] = _NoObserver()
"""An observer that does nothing, for runs without a second observer."""
