"""The way to a server: it is opened, or given up in the midst of that, and nothing of it stays."""

from __future__ import annotations

import gc
import socket

import anyio
from anyio.lowlevel import checkpoint
from coredis.connection import TCPLocation

from bridgekit.storage.redis_way import way
from bridgekit.storage.redis_wire import Wire


async def test_way_that_is_given_up_while_it_is_made_leaves_no_socket_open() -> None:
    """At any turn of the loop: a socket that is left to the collector is a warning, and a warning is an error."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        location = TCPLocation("127.0.0.1", server.getsockname()[1])

        async def open_and_close() -> None:
            made = await way(location, None, Wire(lambda message: None))
            await made.break_off()

        for turns in range(12):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(open_and_close)
                for _ in range(turns):
                    await checkpoint()
                tasks.cancel_scope.cancel()
    gc.collect()
