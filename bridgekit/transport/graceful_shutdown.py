"""Drains the application before the server closes its sockets.

On a signal, a server closes its sockets first and stops the application last. The application therefore installs its
own signal handler, drains, and then calls the server's handler. The result depends on the server:

- uvicorn, and gunicorn with uvicorn's workers: the application drains on SIGTERM and SIGINT.
- hypercorn with `--workers 0`: its own handler still runs, stops listening immediately, and closes the sockets after
  `--graceful-timeout` (3 s). During this time, the application drains the sockets.
- hypercorn with workers (it starts one by default): a worker receives no signal. The application drains when the worker
  closes its listening socket, and has until `--graceful-timeout` for this.
- hypercorn on trio with `--workers 0` does not handle SIGTERM and ends immediately.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from types import FrameType
from typing import Any, Final

import anyio
from anyio.lowlevel import current_token

from bridgekit.errors import unwrap_single_error
from bridgekit.transport.listeners_and_worker_lock import (
    anything_listens,
    inherited_address,
    inherited_listeners,
    release_listeners,
)

__all__ = ["DUPLICATE_SIGNAL_SECONDS", "EndProcess", "drain_on_shutdown", "end_process", "start_deadline"]

DUPLICATE_SIGNAL_SECONDS: Final = 1.0
"""A signal that arrives within this time after the first signal is a duplicate. On Ctrl-C, for example, a worker gets
one signal from the terminal and one from its parent."""
FLUSH_TIMEOUT_SECONDS: Final = 0.5
"""How long a process that must end waits for its output to be written."""
POLL_INTERVAL_SECONDS: Final = 0.25
"""Time between checks of the inherited listening sockets."""

Handler = Callable[[int, FrameType | None], Any]

StartDeadline = Callable[[float, int], object]
start_deadline: Final[ContextVar[StartDeadline | None]] = ContextVar("start_deadline", default=None)
"""Starts a timer that ends the process, with a signal's exit code, if the shutdown takes too long.

A new timer replaces the one before. `bridgekit serve` sets it."""

EndProcess = Callable[[int, float], threading.Timer | None]


def end_process(code: int, seconds: float) -> threading.Timer:
    """End this process after `seconds` if it has not ended. At its exit, Python would wait for threads without
    limit."""

    def leave() -> None:
        # The output may be a pipe whose reader does not read.
        flushing = threading.Thread(target=_flush_output, daemon=True)
        try:
            flushing.start()
            flushing.join(FLUSH_TIMEOUT_SECONDS)
        finally:
            os._exit(code)

    timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), leave)
    timer.daemon = True
    timer.start()
    return timer


def _flush_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # the reader has ended, or the stream is closed
            stream.flush()


_installed: Final[dict[int, Handler]] = {}
"""The signal handlers that are installed in this process, by signal number."""
_replaced: Final[set[Handler]] = set()
"""The server's handlers. uvicorn's handlers are methods of an object that holds the listening sockets."""
_blocked: Final = threading.local()
"""The signal mask that a forking thread had before the fork."""


def _block_before_a_fork() -> None:
    """Block the handled signals, because the child would lose a signal that arrives before its handlers are reset."""
    _blocked.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _installed)


def _unblock_after_a_fork() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _blocked.mask)


def _reset_in_a_fork() -> None:
    """Restore the default handlers in a forked child that is not a server, such as a worker of a process pool.

    Close the child's copies of the server's listening sockets, because otherwise no new server could use the port until
    the child ends. The application's own listening sockets stay open.
    """
    for number, handler in _installed.items():
        if signal.getsignal(number) == handler:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    _installed.clear()
    _unblock_after_a_fork()
    release_listeners(
        listener.fileno()
        for handler in _replaced
        for server in getattr(getattr(handler, "__self__", None), "servers", ())
        for listener in server.sockets
    )


if os.name == "posix":
    os.register_at_fork(
        before=_block_before_a_fork, after_in_parent=_unblock_after_a_fork, after_in_child=_reset_in_a_fork
    )


@asynccontextmanager
async def drain_on_shutdown(drain: Callable[[], Awaitable[None]], *, seconds: float = 0.0) -> AsyncIterator[None]:
    """Call `drain` once before the block ends: on a signal, when the server stops listening, or at the block's end.

    `drain` must end within `seconds`. If it takes much longer, for example because the event loop is blocked,
    `bridgekit serve` ends the process. A second signal cancels `drain`. After `drain`, the server's handlers get the
    signals. `drain` is not called in a process that has neither a server's signal handlers nor inherited listening
    sockets, such as a notebook. Signal handlers are replaced on the main thread only.
    """
    handlers, listeners = _server_handlers(), inherited_listeners()
    if not handlers and not listeners:
        yield
        return
    shutdown = _Shutdown(drain, handlers, seconds)
    with unwrap_single_error():
        async with anyio.create_task_group() as tasks:
            with shutdown.handlers_installed():
                tasks.start_soon(shutdown.run)
                if listeners:
                    tasks.start_soon(_start_when_closed, listeners, shutdown)
                yield
                shutdown.start()
                await shutdown.drained.wait()
            tasks.cancel_scope.cancel()


def _server_handlers() -> dict[int, Handler]:
    if threading.current_thread() is not threading.main_thread():
        return {}
    handler = signal.getsignal(signal.SIGTERM)
    # A process without a SIGTERM handler is not a server. A server uses one handler for SIGTERM and SIGINT. A different
    # SIGINT handler belongs to asyncio, trio or the program, and raises KeyboardInterrupt.
    if not callable(handler) or handler == signal.default_int_handler:
        return {}
    return {int(n): handler for n in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(n) == handler}


class _Shutdown:
    """Drains one application, once."""

    def __init__(self, drain: Callable[[], Awaitable[None]], handlers: Mapping[int, Handler], seconds: float) -> None:
        self._drain = drain
        self._deadlines = [seconds, 0.0]
        """How long draining may take after the first and after the second signal, which cancels it. Later signals must
        not extend the time."""
        self._start_deadline = start_deadline.get()
        self._deadline_from = -math.inf
        self._handlers = handlers
        """The server's signal handlers, by signal number."""
        self._call_soon = _call_soon()
        self._started = anyio.Event()
        self._draining = anyio.CancelScope()
        self._received: list[int] = []
        """Signals to pass to the server's handler."""
        self._first_at = 0.0
        """The time when the first signal was received."""
        self.drained = anyio.Event()

    def start(self) -> None:
        """Start to drain, unless draining has already started."""
        self._started.set()

    async def run(self) -> None:
        """Wait for the start of the shutdown, drain, and then pass the received signals to the server."""
        await self._started.wait()
        try:
            with self._draining:
                await self._drain()
        finally:
            self.drained.set()
            for number in self._received:
                self._handlers[number](number, None)

    @contextmanager
    def handlers_installed(self) -> Iterator[None]:
        """Replace the server's signal handlers while the block runs."""
        for number in self._handlers:
            signal.signal(number, self._handle)
            _installed[number] = self._handle
        _replaced.update(self._handlers.values())
        try:
            yield
        finally:
            _replaced.difference_update(self._handlers.values())
            for number, handler in self._handlers.items():
                _installed.pop(number, None)
                # A server may already have restored other handlers, for example after a forced stop.
                if signal.getsignal(number) == self._handle:
                    signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # A signal handler may run between any two bytecode instructions, so it only schedules the work. The deadline
        # starts here, because an agent that blocks the event loop delays the scheduled work.
        now = time.monotonic()
        due = self._deadlines and now - self._deadline_from > DUPLICATE_SIGNAL_SECONDS
        if due and self._start_deadline is not None:
            self._deadline_from = now  # first, because another signal may arrive while the deadline starts
            self._start_deadline(self._deadlines.pop(0), number)
        self._call_soon(partial(self._on_signal, number, now))

    def _on_signal(self, number: int, received_at: float) -> None:
        if not self._received:
            self._first_at = received_at
        elif received_at - self._first_at <= DUPLICATE_SIGNAL_SECONDS:
            return
        self._received.append(number)
        if self.drained.is_set():
            self._handlers[number](number, None)
        elif len(self._received) > 1:
            self._draining.cancel()
        else:
            self.start()


def _call_soon() -> Callable[[Callable[[], object]], object]:
    """Return the event loop's function that schedules a call from a signal handler."""
    loop: Any = current_token().native_token
    return loop.call_soon_threadsafe if isinstance(loop, asyncio.AbstractEventLoop) else loop.run_sync_soon


async def _start_when_closed(listeners: Mapping[int, str], shutdown: _Shutdown) -> None:
    """Start the shutdown when the inherited listening sockets are closed and the process listens on no other socket."""
    while any(inherited_address(each) == listeners[each] for each in listeners):  # noqa: ASYNC110 - no event exists
        await anyio.sleep(POLL_INTERVAL_SECONDS)
    # If the process still listens on another socket, the closed socket was inherited only by mistake.
    if not anything_listens():
        shutdown.start()
