"""The sockets that are here, and who waits for them to leave."""

from __future__ import annotations

from collections.abc import Iterable

import anyio

from bridgekit.transport.outbox import Subscriber

__all__ = ["OpenSockets"]


class OpenSockets:
    """Sockets that are joining or attached."""

    def __init__(self) -> None:
        self._sockets: set[Subscriber] = set()
        self._drains: list[_Drain] = []
        """Those that are under way."""

    def add(self, socket: Subscriber) -> None:
        self._sockets.add(socket)

    def remove(self, socket: Subscriber) -> None:
        self._sockets.remove(socket)
        for drain in self._drains:
            drain.left(socket)

    async def drain(self, seconds: float) -> None:
        """Have all of them leave when what waits for them is written; those that do not in time are cut off."""
        # Those that are here now: a client that is told to connect again may do so here, and is not waited for.
        drain = _Drain(self._sockets)
        self._drains.append(drain)
        try:
            with anyio.move_on_after(seconds):
                await drain.over()
            for stuck in drain.waits_for:
                stuck.disconnect_slow()
        finally:
            self._drains.remove(drain)


class _Drain:
    """One drain, and the sockets that it waits for. An event for each of them would be there for as long as they."""

    def __init__(self, sockets: Iterable[Subscriber]) -> None:
        self.waits_for = set(sockets)
        self._over = anyio.Event()
        for socket in list(self.waits_for):
            socket.drain()

    def left(self, socket: Subscriber) -> None:
        self.waits_for.discard(socket)
        if not self.waits_for:
            self._over.set()

    async def over(self) -> None:
        if self.waits_for:
            await self._over.wait()
