"""Serve an application with uvicorn, in this process or in several workers, until a signal stops it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from bridgekit.errors import BridgekitError, ServeError, unwrap_single_error
from bridgekit.serve.application import AppSpec
from bridgekit.serve.in_process import open_listener, uvicorn_config
from bridgekit.serve.native_handoff import (
    bridge_paths,
    check_lifespans,
    choose_edge,
    native_handoff,
    serves_bridge,
)
from bridgekit.transport.graceful_shutdown import DUPLICATE_SIGNAL_SECONDS

__all__ = ["OnReady", "ServerOptions", "StartupReporter", "serve"]

EXIT_STARTUP_FAILED: Final = 2
EXIT_SIGNALLED: Final = 128
"""Added to the signal's number: the exit code that shells report for a program ended by a signal."""
GRACEFUL_SHUTDOWN_TIMEOUT_SECONDS: Final = 2
"""How long requests may take to end after the application has drained."""
EXIT_TIMEOUT_SECONDS: Final = 2.0
"""How long the process may then continue, for example because a tool blocks, or an agent catches its cancellation."""
WORKER_TIMEOUT_SECONDS: Final = 5
"""A worker that does not answer its parent within this time is replaced."""
WORKER_START_TIMEOUT_SECONDS: Final = 30
"""The same time limit until all workers have started, because the first answer waits for Python's imports."""

_LOG: Final = logging.getLogger("uvicorn.error")


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """The listening address, and how the server serves."""

    host: str
    port: int
    """0 lets the system pick a port."""
    workers: int
    edge: str | None
    """The edge, "asgi" or "native"; None chooses by the application, see `choose_edge`."""
    keepalive_seconds: float
    incoming_bytes: int
    log_level: str


OnReady = Callable[[str, int, str], None]
"""Called with host, port and edge when clients can connect."""


def serve(spec: AppSpec, options: ServerOptions, on_ready: OnReady) -> int:
    """Serve until a signal arrives, and return the exit code: 0 if everything was drained, 128 + n if a second signal n
    interrupted that.

    Raises ServeError if the application or the address cannot be served. If the application does not start, the reason
    is printed and the exit code is 2.
    """
    app = spec.load(options.workers)
    edge = choose_edge(spec.target, app, options.edge)
    native = edge == "native"
    try:
        listener = open_listener(options.host, options.port, keepalive_seconds=options.keepalive_seconds)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]
        problem = f"cannot listen there: {reason}; choose another address or port"
        raise ServeError(f"{options.host}:{options.port}", problem) from error
    with listener:
        host, port = listener.getsockname()[:2]
        ready = partial(on_ready, host, port, edge)
        if options.workers > 1:
            return _run_workers(_config(partial(_load_in_worker, spec, native), options), listener, ready)
        return _run_single(_config(StartupReporter(app, native=native), options), listener, ready)


def _config(app: ASGIApp | Callable[[], ASGIApp], options: ServerOptions) -> uvicorn.Config:
    return uvicorn_config(
        app,
        keepalive_seconds=options.keepalive_seconds,
        incoming_bytes=options.incoming_bytes,
        factory=not isinstance(app, StartupReporter),
        workers=options.workers,
        lifespan="on",
        log_level=options.log_level,
        timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_TIMEOUT_SECONDS,
        timeout_worker_healthcheck=WORKER_START_TIMEOUT_SECONDS,
    )


def _load_in_worker(spec: AppSpec, native: bool) -> StartupReporter:
    return StartupReporter(spec.load(), native=native)


class StartupReporter:
    """The application, with the native hand-off while it runs. Prints why it did not start, for bridgekit's errors in
    one line.

    uvicorn would log the traceback of every error.
    """

    def __init__(self, app: ASGIApp, *, native: bool) -> None:
        self._app = app
        self._native = native

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._run_lifespan(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        handoff = AsyncExitStack()
        withheld: list[Message] = []
        started = False

        async def forward(message: Message) -> None:
            nonlocal started
            if message["type"] == "lifespan.startup.failed":
                withheld.append(message)  # Starlette sends the traceback here, and then raises the error
                return
            if message["type"] == "lifespan.startup.complete":
                scope["state"].update(await handoff.enter_async_context(self._handoff()))
                started = True
            if message["type"] == "lifespan.shutdown.complete":
                await handoff.aclose()  # before the message, because the server then cancels all remaining tasks
                _exit_at_deadline(0)
            await send(message)

        try:
            with unwrap_single_error():
                async with handoff:
                    await self._app(scope, receive, forward)
        except Exception as error:
            if not started:
                _print_startup_error(error)
            raise
        for message in withheld:
            await send(message)

    def _handoff(self) -> AbstractAsyncContextManager[Mapping[str, Any]]:
        if not isinstance(self._app, Starlette):
            return nullcontext({})
        check_lifespans(self._app)
        served = serves_bridge(self._app.routes)
        if "bridgekit" not in self._app.state and (bridge_paths(self._app) or not served):
            raise ServeError(
                "the application", "it does not start the bridge; create it with lifespan=lifespan(config)"
            )
        if not served:
            raise ServeError("the application", "it has no bridgekit routes; add routes=[*routes(), …]")
        return native_handoff(self._app) if self._native else nullcontext({})


def _print_startup_error(error: Exception) -> None:
    _LOG.setLevel(logging.CRITICAL)  # otherwise uvicorn also logs the error, and that it exits
    if isinstance(error, BridgekitError):
        sys.stderr.write(f"bridgekit: {' '.join(str(error).split())}\n")
    else:
        traceback.print_exception(error)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self.second_signal: int | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Replaces uvicorn's handler, which raises the signal again at the end and lets only SIGINT force the exit.
        if self.should_exit:
            self.second_signal = sig
            self.force_exit = True
            _exit_at_deadline(EXIT_SIGNALLED + sig)
            _LOG.setLevel(logging.CRITICAL)  # all tasks are cancelled, and uvicorn would log an error for each
        self.should_exit = True


def _exit_at_deadline(code: int) -> None:
    """End this process after EXIT_TIMEOUT_SECONDS if it has not ended. Python would wait for threads without limit."""

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    timer = threading.Timer(EXIT_TIMEOUT_SECONDS, leave)
    timer.daemon = True
    timer.start()


def _run_single(config: uvicorn.Config, listener: socket.socket, on_ready: Callable[[], None]) -> int:
    server = _Server(config, on_ready)
    try:
        server.run([listener])
    except SystemExit:
        if server.started:
            raise
        return EXIT_STARTUP_FAILED
    return _exit_code(server.second_signal)


def _exit_code(second_signal: int | None) -> int:
    return 0 if second_signal is None else EXIT_SIGNALLED + second_signal


class _Workers(Multiprocess):
    def __init__(self, config: uvicorn.Config, listener: socket.socket, on_ready: Callable[[], None]) -> None:
        super().__init__(config, sockets=[listener])
        self._on_ready: Callable[[], None] | None = on_ready
        self.second_signal: int | None = None

    def keep_subprocess_alive(self) -> None:
        super().keep_subprocess_alive()
        if self._on_ready is not None and all(process.is_ready() for process in self.processes):
            self._on_ready()
            self._on_ready = None
            self.config.timeout_worker_healthcheck = WORKER_TIMEOUT_SECONDS

    def join_all(self) -> None:
        """Wait for the workers to end. A second signal kills them."""
        stopped_at = time.monotonic()

        def force_stop(number: int, frame: FrameType | None) -> None:
            if time.monotonic() - stopped_at > DUPLICATE_SIGNAL_SECONDS:
                self.second_signal = number
                for process in self.processes:
                    process.process.kill()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, force_stop)
        super().join_all()


def _run_workers(config: uvicorn.Config, listener: socket.socket, on_ready: Callable[[], None]) -> int:
    listener.set_inheritable(True)
    workers = _Workers(config, listener, on_ready)
    workers.run()
    if any(process.exitcode == STARTUP_FAILURE for process in workers.processes):
        return EXIT_STARTUP_FAILED
    return _exit_code(workers.second_signal)
