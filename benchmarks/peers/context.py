"""What every stack is given, and what those on uvicorn share."""

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
"""What a socket is told first, by every stack that has no such word of its own."""
TICK_SECONDS: Final = 0.01


@dataclass(frozen=True, slots=True)
class StackContext:
    """Which part of a stack is to be here."""

    sockets: bool = True
    agents: bool = True
    broker: str = ""
    """The Redis-protocol server's URL, where there is one between the parts."""
    send_buffer_bytes: int = 0
    """What the system may hold for each socket; 0 lets it decide."""
    keepalive_seconds: float = KEEPALIVE_SECONDS
    """How often bridgekit's edges ping a socket. The other stacks keep their own habits."""

    @property
    def server_options(self) -> dict[str, Any]:
        """What bridgekit's own servers are told."""
        return {"send_buffer_bytes": self.send_buffer_bytes or None, "keepalive_seconds": self.keepalive_seconds}

    def listener(self) -> socket.socket:
        """A listening socket on a port that the system picks."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=1_024)
        if self.send_buffer_bytes:
            # Sockets that are accepted have it from the one that listens.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.send_buffer_bytes)
        listener.setblocking(False)
        return listener


class EmitCallable(Protocol):
    """What a stack written by hand has to offer."""

    def __call__(self, thread_id: str, run_id: str, body: EventBody) -> Awaitable[object]: ...


class HandRolled:
    """A stack in which an agent's event is one call, and nothing is kept."""

    def __init__(self, port: int, emit_event: EmitCallable) -> None:
        self.port = port
        self._emit_event = emit_event

    def agent(self, run: AgentRun) -> Callable[[EventBody], Awaitable[object]]:
        return partial(self._emit_event, run.thread_id, run.run_id)


class SocketGroups(Generic[T]):
    """Sockets by thread: what everybody writes first."""

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
        """A list of one's own: members may come and go while one waits."""
        return list(self._members.get(thread, ()))


@asynccontextmanager
async def on_uvicorn(app: ASGIApp, context: StackContext) -> AsyncIterator[int]:
    """Serve an application as its users would, and give the port."""
    config = uvicorn.Config(
        app, ws="websockets-sansio", lifespan="off", log_level="warning", access_log=False, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    with context.listener() as listener:
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve([listener]))
            while not server.started:  # noqa: ASYNC110  # it rings no bell
                await asyncio.sleep(TICK_SECONDS)
            yield listener.getsockname()[1]
            server.should_exit = True


def thread_of(target: str) -> str:
    """The thread that a request's target names, such as `/ws?thread_id=…`."""
    return parse_qs(urlsplit(target).query)["thread_id"][0]
