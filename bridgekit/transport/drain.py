"""The set of open sockets, and draining it on shutdown."""

from __future__ import annotations

from collections.abc import Iterable

import anyio

from bridgekit.transport.outbox import Subscriber

__all__ = ["OpenSockets"]


class OpenSockets:
    """The sockets that are subscribing or subscribed."""

    def __init__(self) -> None:
        self._sockets: set[Subscriber] = set()
        self._drains: list[_Drain] = []
        """Drains in progress."""

    def add(self, socket: Subscriber) -> None:
        self._sockets.add(socket)

    def remove(self, socket: Subscriber) -> None:
        self._sockets.remove(socket)
        for drain in self._drains:
            drain.removed(socket)

    async def drain(self, seconds: float) -> None:
        """Close each socket after its outbox is written. After `seconds`, abort those that are still open."""
        # The drain covers only the sockets that are open now. A client that reconnects to this server during the drain
        # is not waited for.
        drain = _Drain(self._sockets)
        self._drains.append(drain)
        try:
            with anyio.move_on_after(seconds):
                await drain.wait()
            for stuck in drain.remaining:
                stuck.disconnect_slow()
        finally:
            self._drains.remove(drain)


class _Drain:
    """One drain and its remaining sockets. They share one event, because an event for each socket would use memory for
    as long as the socket lives."""

    def __init__(self, sockets: Iterable[Subscriber]) -> None:
        self.remaining = set(sockets)
        self._done = anyio.Event()
        for socket in list(self.remaining):
            socket.drain()

    def removed(self, socket: Subscriber) -> None:
        self.remaining.discard(socket)
        if not self.remaining:
            self._done.set()

    async def wait(self) -> None:
        if self.remaining:
            await self._done.wait()
