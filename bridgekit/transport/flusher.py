"""Who writes to the sockets: one task, which gives each of those that something was put to its turn.

A socket that cannot be written to at once keeps the task that began with it, and another takes over the rest. So nobody
waits for a slow socket; and what was begun in a task is continued in it, as cancel scopes and timeouts must be.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Protocol, Self

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

__all__ = ["Flushed", "Flusher"]

COMPANY_EVENTS: Final = 16
"""Where fewer were put in a turn, they are written at the end of it. Where more, there are agents at work."""
COMPANY_TURNS: Final = 4
COMPANY_SECONDS: Final = 0.002
"""How long they are waited for, at most, while they go on: what one turn brings more costs no system call more."""
COMPANY_FRAMES: Final = 64
"""From so many on that wait for one socket, nothing is waited for: the rest of its outbox is for the next turn."""
SPARE_TASKS: Final = 64
"""How many that wait for work are kept. Only where so many sockets had to wait at a time are there so many."""


class Flushed(Protocol):
    """A socket, as the one who writes to it sees it."""

    def flush(self) -> Awaitable[None] | None:
        """Write what waits; where it cannot be written at once, what is still to be awaited in this same task."""

    @property
    def waiting(self) -> int:
        """How many frames wait for it."""

    def begin_waiting(self, scope: anyio.CancelScope) -> None:
        """What `flush` gave is awaited now. Whoever cancels the scope ends that."""

    def end_waiting(self) -> None:
        """It was awaited to its end, or given up."""

    def fail(self, error: Exception) -> None:
        """Writing raised what it should not. It is for the socket's own task to raise."""


class Flusher:
    """Knows the sockets that something was put to since the last turn, and has each of them flushed once.

    It works for the length of an `async with` block, and does nothing outside of it.
    """

    def __init__(self) -> None:
        self._marked: deque[Flushed] = deque()
        self.puts = 0
        """How often something was put to any of the sockets. They count."""
        self._seen = 0
        self._tasks: TaskGroup | None = None
        self._bells: list[anyio.Event] = []
        """Of the tasks that wait for work."""
        self._awake = False
        """Whether one of them sees to what is marked, or was told to."""
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._tasks = await self._stack.enter_async_context(anyio.create_task_group())
        self._rouse()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._tasks is not None
        self._tasks.cancel_scope.cancel()
        self._tasks = None
        return await self._stack.__aexit__(kind, error, traceback)

    def mark(self, socket: Flushed) -> None:
        """Flush it when the task that runs now lets others run."""
        self._marked.append(socket)
        if not self._awake:
            self._rouse()

    def _rouse(self) -> None:
        if self._bells:
            self._bells.pop().set()
        elif self._tasks is not None:
            self._tasks.start_soon(self._work)
        self._awake = True

    async def _work(self) -> None:
        with anyio.CancelScope() as scope:
            while True:
                if self.puts - self._seen >= COMPANY_EVENTS:
                    await self._company()
                self._seen = self.puts
                slow = self._flush()
                self._awake = False
                if slow is not None:
                    # There is always one that can see to the others. It is not started by who marks a socket: that is
                    # an agent, whose context a task of ours should not live in.
                    if self._marked or not self._bells:
                        self._rouse()
                    await self._see_through(*slow, scope)
                    if scope.cancel_called or len(self._bells) >= SPARE_TASKS:
                        return
                bell = anyio.Event()
                self._bells.append(bell)
                await bell.wait()

    async def _company(self) -> None:
        """Let agents that are at work say more, as long as they do. Not for a lone event."""
        until = time.monotonic() + COMPANY_SECONDS
        for _ in range(COMPANY_TURNS):
            if any(socket.waiting >= COMPANY_FRAMES for socket in self._marked):
                return
            self._seen = self.puts
            await checkpoint()
            if self.puts - self._seen < COMPANY_EVENTS or time.monotonic() > until:
                return

    def _flush(self) -> tuple[Flushed, Awaitable[None]] | None:
        """Flush all that are marked, up to the first that has to wait."""
        marked, blame = self._marked, _Blame()
        try:
            while marked:
                with blame:
                    while marked:
                        socket = blame.socket = marked.popleft()
                        if (rest := socket.flush()) is not None:
                            return socket, rest
        except BaseException:
            # It has come to its end, and those who wait have not.
            self._rouse()
            raise
        return None

    async def _see_through(self, socket: Flushed, rest: Awaitable[None], scope: anyio.CancelScope) -> None:
        socket.begin_waiting(scope)
        try:
            with _Blame(socket):
                await rest
        finally:
            socket.end_waiting()


class _Blame:
    """Gives what is raised to the socket that is written to: for its own task to raise, and no neighbour to notice."""

    __slots__ = ("socket",)

    def __init__(self, socket: Flushed | None = None) -> None:
        self.socket = socket

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if self.socket is None or not isinstance(error, Exception):
            return False
        self.socket.fail(error)
        return True
