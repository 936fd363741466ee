"""A server of the websockets library with its connections grouped by thread, for two stacks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from websockets.asyncio.server import ServerConnection, serve

from benchmarks.peers.stack_context import SUBSCRIBED, SocketGroups, StackContext, thread_of

__all__ = ["serving"]


@asynccontextmanager
async def serving(context: StackContext) -> AsyncIterator[tuple[int, SocketGroups[ServerConnection]]]:
    """Run the server while the block runs, and yield its port and the connections by thread."""
    groups = SocketGroups[ServerConnection]()

    async def endpoint(connection: ServerConnection) -> None:
        assert connection.request is not None
        thread = thread_of(connection.request.path)
        groups.add(thread, connection)
        try:
            await connection.send(SUBSCRIBED)
            await connection.wait_closed()
        finally:
            groups.remove(thread, connection)

    listener = context.listener()
    async with serve(endpoint, sock=listener, close_timeout=1):
        yield listener.getsockname()[1], groups
