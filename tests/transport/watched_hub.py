"""A hub with an event for disconnected sockets, so that tests need not poll it."""

from __future__ import annotations

from typing import Any

import anyio

from bridgekit.transport.hub import Connection, Hub

__all__ = ["WatchedHub", "wait_for_connections"]


class WatchedHub(Hub):
    """A hub that sets an event whenever a connection is detached."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.detached = anyio.Event()
        """Set by the next call of `detach`, and then replaced."""

    def detach(self, connection: Connection) -> None:
        super().detach(connection)
        self.detached.set()
        self.detached = anyio.Event()


async def wait_for_connections(hub: Hub, at_most: int = 0) -> None:
    """Wait until a WatchedHub has no more than this many connections."""
    assert isinstance(hub, WatchedHub)
    while len(hub) > at_most:
        await hub.detached.wait()
