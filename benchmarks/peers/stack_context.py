"""The context that every stack receives, and code that several stacks share."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar
from urllib.parse import parse_qs, urlsplit

import uvicorn
from starlette.types import ASGIApp

from benchmarks.workload import AgentRun, EventBody
from bridgekit.serve.in_process import KEEPALIVE_SECONDS

__all__ = ["SUBSCRIBED", "HandRolled", "SocketGroups", "StackContext", "on_uvicorn", "thread_of"]

T = TypeVar("T")

SUBSCRIBED: Final = '{"type":"subscribed"}'
"""First message to each socket, in stacks that do not confirm a subscription themselves."""
TICK_SECONDS: Final = 0.01


@dataclass(frozen=True, slots=True)
class StackContext:
    """The parts of a stack that run in this process, and their options."""

    sockets: bool = True
    agents: bool = True
    broker: str = ""
    """URL of the Redis-protocol server that connects two processes, or "" without a server."""
    send_buffer_bytes: int = 0
    """Size of each socket's send buffer, or 0 for the system's default."""
    keepalive_seconds: float = KEEPALIVE_SECONDS
    """Ping interval of bridgekit's edges. The other stacks use their own defaults."""

    @property
    def server_options(self) -> dict[str, Any]:
        """Keyword arguments for bridgekit's own servers."""
        return {"send_buffer_bytes": self.send_buffer_bytes or None, "keepalive_seconds": self.keepalive_seconds}

    def listener(self) -> socket.socket:
        """Return a listening socket on a free port."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=1_024)
        if self.send_buffer_bytes:
            # Accepted sockets inherit the buffer size from the listening socket.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.send_buffer_bytes)
        listener.setblocking(False)
        return listener


class EmitCallable(Protocol):
    """The type of a hand-written stack's function that sends one event."""

    def __call__(self, thread_id: str, run_id: str, body: EventBody) -> Awaitable[object]: ...


class HandRolled:
    """A hand-written stack: one call sends an event, and no event is retained."""

    def __init__(self, port: int, emit_event: EmitCallable) -> None:
        self.port = port
        self._emit_event = emit_event

    def agent(self, run: AgentRun) -> Callable[[EventBody], Awaitable[object]]:
        return partial(self._emit_event, run.thread_id, run.run_id)


class SocketGroups(Generic[T]):
    """Sockets grouped by thread, as in most hand-written servers."""

    def __init__(self) -> None:
        self._members: dict[str, list[T]] = {}

    def add(self, thread: str, socket: T) -> None:
        self._members.setdefault(thread, []).append(socket)

    def remove(self, thread: str, socket: T) -> None:
        members = self._members[thread]
        members.remove(socket)
        if not members:
            del self._members[thread]

    def of(self, thread: str) -> list[T]:
        """Return a copy of the thread's sockets, because the group can change while the caller waits."""
        return list(self._members.get(thread, ()))


@asynccontextmanager
async def on_uvicorn(app: ASGIApp, context: StackContext) -> AsyncIterator[int]:
    """Serve an application on uvicorn while the block runs, and yield the port."""
    config = uvicorn.Config(
        app, ws="websockets-sansio", lifespan="off", log_level="warning", access_log=False, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    with context.listener() as listener:
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve([listener]))
            while not server.started:  # noqa: ASYNC110  # uvicorn has no event that is set when the server has started
                await asyncio.sleep(TICK_SECONDS)
            yield listener.getsockname()[1]
            server.should_exit = True


def thread_of(target: str) -> str:
    """Return the thread id in a request target such as `/ws?thread_id=…`."""
    return parse_qs(urlsplit(target).query)["thread_id"][0]
