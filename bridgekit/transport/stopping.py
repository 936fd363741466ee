"""Drain before the server stops. At a signal, a server closes its sockets first and tells the application last.

So the application hears the signal itself, drains, and only then lets the server's own handler have it. What each
server leaves to it:

- uvicorn, with one worker or several, and gunicorn with uvicorn's workers: all of the above.
- hypercorn with `--workers 0`: its handler stands in the event loop, where nobody gets in front of it. It shuts its
  door at once; sockets are drained meanwhile, and cut off after its `--graceful-timeout` (3 s).
- hypercorn with workers, one by default: they hear no signal. That the door is shut is noticed, and the rest as above.
- hypercorn on trio with `--workers 0` minds no SIGTERM, and ends at once.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any, Final

import anyio

from bridgekit.errors import first_error
from bridgekit.transport import on_trio
from bridgekit.transport.inherited import address_of, anything_listens, inherited_listeners

__all__ = ["ECHO_SECONDS", "before_the_server_stops"]

ECHO_SECONDS: Final = 1.0
"""A signal that comes so soon after the first is the same wish: Ctrl-C reaches every worker at once, and then the
parent tells its workers as well; so does whatever stops a whole control group."""
LOOK_SECONDS: Final = 0.25
"""Between two looks at the door of a server that tells its workers nothing."""

Handler = Callable[[int, FrameType | None], Any]


@asynccontextmanager
async def before_the_server_stops(drain: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Drain once before the block ends: at a signal, when the server shuts its door, or else at the block's end.

    A second signal ends the draining at once, and both are handed on. All this only where there is a server: one that
    has installed its handlers (they can be taken over on the main thread only), or was handed sockets to listen on. In
    a notebook or a test runner nothing is changed and nothing is waited for.
    """
    handlers, doors = _servers_handlers(), inherited_listeners()
    if not handlers and not doors:
        yield
        return
    stop = _Stop(drain, handlers)
    with first_error():
        async with anyio.create_task_group() as tasks:
            with stop.in_front():
                tasks.start_soon(stop.drain_when_told)
                tasks.start_soon(_watch, doors, stop)
                yield
                stop.begin()
                await stop.drained.wait()
            tasks.cancel_scope.cancel()


def _servers_handlers() -> dict[int, Handler]:
    if threading.current_thread() is not threading.main_thread():
        return {}
    handler = signal.getsignal(signal.SIGTERM)
    # Where nobody minds SIGTERM there is no server. And a server minds both alike: another handler of SIGINT is
    # asyncio's, or trio's, or the program's, and turns it into KeyboardInterrupt.
    if not callable(handler) or handler == signal.default_int_handler:
        return {}
    return {int(n): handler for n in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(n) == handler}


class _Stop:
    """The one time that an application stops."""

    def __init__(self, drain: Callable[[], Awaitable[None]], servers: Mapping[int, Handler]) -> None:
        self._drain = drain
        self._servers = servers
        self._soon = _calling_soon()
        self._begun = anyio.Event()
        self._hurried = anyio.Event()
        self._came: list[int] = []
        """Signals that the server is to have."""
        self._first = 0.0
        """When the first of them came."""
        self.drained = anyio.Event()

    def begin(self) -> None:
        """Drain now, unless that was begun before."""
        self._begun.set()

    @contextmanager
    def in_front(self) -> Iterator[None]:
        """Hear the signals before the server does."""
        for number in self._servers:
            signal.signal(number, self._interrupted)
        try:
            yield
        finally:
            for number, handler in self._servers.items():
                # A server that was forced to end has taken its handlers away, and ours with them.
                if signal.getsignal(number) == self._interrupted:
                    signal.signal(number, handler)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        # Between any two instructions of the program: nothing may be touched here.
        now = time.monotonic()
        self._soon(lambda: self._heard(number, now))

    def _heard(self, number: int, now: float) -> None:
        if not self._came:
            self._first = now
        elif now - self._first <= ECHO_SECONDS:
            return
        self._came.append(number)
        if self.drained.is_set():
            self._servers[number](number, None)
        elif len(self._came) > 1:
            self._hurried.set()
        else:
            self.begin()

    async def drain_when_told(self) -> None:
        """Wait for the reason to drain, do so, and let the server have the signals that came."""
        await self._begun.wait()
        try:
            async with anyio.create_task_group() as tasks:

                async def hurry() -> None:
                    await self._hurried.wait()
                    tasks.cancel_scope.cancel()

                tasks.start_soon(hurry)
                await self._drain()
                tasks.cancel_scope.cancel()
        finally:
            self.drained.set()
            for number in self._came:
                self._servers[number](number, None)


def _calling_soon() -> Callable[[Callable[[], None]], object]:
    """What has this event loop call something soon, and may be used while a signal is handled."""
    if on_trio.running():
        import trio  # here: most programs run on asyncio, and do not have it

        return trio.lowlevel.current_trio_token().run_sync_soon
    return asyncio.get_running_loop().call_soon_threadsafe


async def _watch(doors: Mapping[int, str], stop: _Stop) -> None:
    """Begin when the sockets that this process was handed to listen on are closed, and it has no other."""
    while _any_open(doors):  # noqa: ASYNC110 - nothing rings when a descriptor is closed
        await anyio.sleep(LOOK_SECONDS)
    # A server that listens elsewhere goes on: then it was somebody else's door, which was left open by mistake.
    if doors and not anything_listens():
        stop.begin()


def _any_open(doors: Mapping[int, str]) -> bool:
    return any(address_of(descriptor) == address for descriptor, address in doors.items())
