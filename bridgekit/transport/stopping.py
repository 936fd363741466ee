"""Drain before the server stops: at a signal, a server closes its sockets first and tells the application last."""

from __future__ import annotations

import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import FrameType
from typing import Any, Final

import anyio
from anyio.abc import TaskStatus

__all__ = ["before_the_server_stops"]

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

Handler = Callable[[int, FrameType | None], Any]


@asynccontextmanager
async def before_the_server_stops(drain: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """At the first signal to stop: drain, then let the server's own handler have it. At a second one: at once.

    Only where a server has installed handlers, and on the main thread: a notebook or a test runner has its own use for
    signals, and nothing is changed there.
    """
    servers = _servers_handlers()
    if not servers:
        yield
        return
    async with anyio.create_task_group() as tasks:
        await tasks.start(_wait_and_drain, drain, servers)
        yield
        tasks.cancel_scope.cancel()


def _servers_handlers() -> dict[int, Handler]:
    if threading.current_thread() is not threading.main_thread():
        return {}
    handlers = {int(number): signal.getsignal(number) for number in SIGNALS}
    # Python's own handler raises KeyboardInterrupt. Where it is there, no server has taken the signal over.
    return {
        n: handler for n, handler in handlers.items() if callable(handler) and handler != signal.default_int_handler
    }


async def _wait_and_drain(
    drain: Callable[[], Awaitable[None]], servers: dict[int, Handler], *, task_status: TaskStatus[None]
) -> None:
    try:
        with anyio.open_signal_receiver(*map(signal.Signals, servers)) as signals:
            task_status.started()
            came = [int(await anext(signals))]
            async with anyio.create_task_group() as tasks:

                async def drain_and_end() -> None:
                    await drain()
                    tasks.cancel_scope.cancel()

                tasks.start_soon(drain_and_end)
                came.append(int(await anext(signals)))
                tasks.cancel_scope.cancel()
    finally:
        # asyncio leaves the default behind, which would end the process here and now.
        for number, handler in servers.items():
            signal.signal(number, handler)
    for number in came:
        servers[number](number, None)
