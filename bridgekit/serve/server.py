"""Serves an application with uvicorn, in this process or in several workers, until a signal stops it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from bridgekit.errors import BridgekitError, ServeError, unwrap_single_error
from bridgekit.serve.app_loader import AppSpec
from bridgekit.serve.in_process import QUEUED_CONNECTIONS, open_listener, show_warnings, uvicorn_config
from bridgekit.serve.native_handoff import (
    bridge_applications,
    check_lifespans,
    choose_edge,
    native_handoff,
    unwrapped,
)
from bridgekit.transport.asgi import MONITORING_PORT
from bridgekit.transport.connections import ConnectionRegistry
from bridgekit.transport.graceful_shutdown import (
    DUPLICATE_SIGNAL_SECONDS,
    EndProcess,
    end_process,
    start_deadline,
)
from bridgekit.transport.metrics import FOLDER_VARIABLE

__all__ = ["ServedAt", "ServerOptions", "serve"]

EXIT_LIFESPAN_FAILED: Final = 1
EXIT_STARTUP_FAILED: Final = 2
EXIT_SIGNALLED: Final = 128
"""The exit code of a program that a signal ended is this number plus the signal's number, as in shells."""
GRACEFUL_SHUTDOWN_TIMEOUT_SECONDS: Final = 2
"""How long requests may take to end after the application has drained."""
EXIT_TIMEOUT_SECONDS: Final = 2.0
"""How long the process may continue after the lifespan has ended, for example because a tool blocks or an agent catches
its cancellation."""
SHUTDOWN_TIMEOUT_SECONDS: Final = 8.0
"""How long the process may continue after the time to drain. With the default times, the process then ends within the
30 s that Kubernetes grants. Must exceed GRACEFUL_SHUTDOWN_TIMEOUT_SECONDS plus EXIT_TIMEOUT_SECONDS."""
WORKER_TIMEOUT_SECONDS: Final = 5
"""A worker that does not answer its parent within this time is replaced."""
WORKER_START_TIMEOUT_SECONDS: Final = 30
"""The time limit for a worker's answers until all workers have started. The first answer waits for Python's imports."""
RESTART_DELAY_SECONDS: Final = 1.0
"""Pause before another attempt to start a worker, after all workers have started once."""
NO_ROUTES: Final = "it has no bridgekit routes; add routes=[*routes(), …] and lifespan=lifespan(config)"

_LOG: Final = logging.getLogger("uvicorn.error")


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """The listening address and the other options of the server."""

    host: str
    port: int
    """0 lets the system pick a port."""
    monitoring_port: int | None
    """The only port for `/metrics` and `/healthz`, or None to serve them on `port`."""
    workers: int
    edge: str | None
    """The edge, "asgi" or "native". With None, `choose_edge` chooses one that fits the application."""
    keepalive_seconds: float
    incoming_bytes: int
    log_level: str


@dataclass(frozen=True)
class ServedAt:
    """Where clients can connect, and which edge serves them."""

    edge: str
    host: str
    port: int
    monitoring_port: int | None = None


def serve(
    spec: AppSpec, options: ServerOptions, on_ready: Callable[[ServedAt], None], *, ends_process: bool = False
) -> int:
    """Serve until a signal arrives, and return the exit code.

    The exit code is 0 if everything was drained, 128 + n if a second signal n interrupted the drain, and 1 if the
    application's lifespan failed while it was served. The server calls `on_ready` when clients can connect. With
    `ends_process`, the process ends at most EXIT_TIMEOUT_SECONDS after the server, even if other code still runs.
    Raises ServeError if the application or the address cannot be served. If the application does not start, the reason
    is printed and the exit code is 2.
    """
    app = spec.load(options.workers)
    edge = choose_edge(spec.target, app, options.edge)
    with ExitStack() as stack:
        ports = [port for port in (options.port, options.monitoring_port) if port is not None]
        listeners = [stack.enter_context(_listen(options, port)) for port in ports]
        names = [listener.getsockname() for listener in listeners]
        served = ServedAt(edge, names[0][0], *(name[1] for name in names))
        ready = partial(on_ready, served)
        if options.workers > 1:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="bridgekit-")))
            load = partial(StartupReporter, spec.load, served, end_process, folder)
            return _run_workers(_config(load, options), listeners, ready, folder)
        end: EndProcess = end_process if ends_process else lambda code, seconds: None
        return _run_single(_config(StartupReporter(lambda: app, served, end), options), listeners, ready, end)


def _listen(options: ServerOptions, port: int) -> socket.socket:
    try:
        return open_listener(options.host, port, keepalive_seconds=options.keepalive_seconds)
    except (OSError, TypeError, ValueError) as error:  # Python raises the last two for a host that cannot be a name
        reason = (getattr(error, "strerror", None) or str(error)).partition(" (while")[0]
        problem = f"cannot listen there: {reason}; choose another address or port"
        raise ServeError(f"{options.host}:{port}", problem) from error


def _config(app: ASGIApp | Callable[[], ASGIApp], options: ServerOptions) -> uvicorn.Config:
    return uvicorn_config(
        app,
        keepalive_seconds=options.keepalive_seconds,
        incoming_bytes=options.incoming_bytes,
        factory=isinstance(app, partial),
        workers=options.workers,
        lifespan="on",
        log_level=options.log_level,
        timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_TIMEOUT_SECONDS,
        timeout_worker_healthcheck=WORKER_START_TIMEOUT_SECONDS,
    )


class StartupReporter:
    """Runs the application with the native hand-off, and prints the reason if the application does not start.

    An error of bridgekit is printed on one line, instead of the traceback that uvicorn would log.
    """

    _app: ASGIApp | None = None
    failed = False  # True if the lifespan has failed while the application was served
    _stopping = False

    def __init__(
        self, load: Callable[[], ASGIApp], served: ServedAt, end: EndProcess, folder: Path | None = None
    ) -> None:
        """`folder` is shared by all workers. `end` is called on a signal and at the end of the shutdown, with the time
        for which the process may continue."""
        self._load = load
        self._served = served
        self._end = end
        self._folder = folder
        self._deadline: threading.Timer | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            show_warnings()
            start_deadline.set(self._start_deadline)
            if self._folder is not None:
                os.environ.setdefault(FOLDER_VARIABLE, str(self._folder))
                threading.Thread(target=_stop_after_parent, daemon=True).start()
            await self._run_lifespan(scope, receive, send)
        else:
            assert self._app is not None
            await self._app(scope, receive, send)

    def _start_deadline(self, drain_seconds: float, number: int) -> None:
        """Limit the time until the process ends. Mounted applications drain one after the other, each with its own
        limit."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._end(EXIT_SIGNALLED + number, drain_seconds + SHUTDOWN_TIMEOUT_SECONDS)

    async def _run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        handoff = AsyncExitStack()
        started, failure = False, ""

        async def receive_stop() -> Message:
            message = await receive()
            self._stopping = message["type"] == "lifespan.shutdown"
            return message

        async def forward(message: Message) -> None:
            nonlocal started, failure
            if message["type"] == "lifespan.startup.failed":
                failure = message.get("message", "")  # Starlette sends the traceback here, and then raises the error
                return
            if message["type"] == "lifespan.startup.complete":
                show_warnings()  # show them again, because the application may have configured logging
                scope["state"][MONITORING_PORT] = self._served.monitoring_port
                scope["state"].update(await handoff.enter_async_context(self._handoff()))
                started = True
            if message["type"] == "lifespan.shutdown.complete":
                # End the hand-off first, because the server cancels all remaining tasks once it gets this message.
                await handoff.aclose()
                self._end(0, EXIT_TIMEOUT_SECONDS)
            await send(message)

        try:
            with unwrap_single_error():
                async with handoff:
                    self._app = self._load()
                    await self._app(scope, receive_stop, forward)
            if not started:
                raise ServeError("the application", failure or NO_ROUTES)
        except Exception as error:
            self._on_failure(error, failure, started=started)
            raise

    def _on_failure(self, error: Exception, failure: str, *, started: bool) -> None:
        if not started:
            lacks_lifespan = self._app is not None and not failure and not isinstance(error, BridgekitError)
            self._print_startup_error(ServeError("the application", NO_ROUTES) if lacks_lifespan else error)
        elif not self._stopping:
            self.failed = True
            os.kill(os.getpid(), signal.SIGTERM)  # uvicorn would continue without the application's resources

    def _handoff(self) -> AbstractAsyncContextManager[Mapping[str, Any]]:
        # In an application of a type other than Starlette, bridgekit's routes may not be found.
        if not any(bridge_applications(self._app)) and (
            isinstance(unwrapped(self._app), Starlette) or not ConnectionRegistry.running
        ):
            raise ServeError("the application", NO_ROUTES)
        check_lifespans(self._app)
        if self._served.edge == "asgi":
            return nullcontext({})
        assert isinstance(self._app, Starlette), "the edge was chosen for it"
        return native_handoff(self._app)

    def _print_startup_error(self, error: Exception) -> None:
        _LOG.setLevel(logging.CRITICAL)  # uvicorn would also log the error and its own exit
        if self._folder is not None:
            try:
                _printed(self._folder).touch(exist_ok=False)
            except FileExistsError:  # another worker printed it
                return
        if isinstance(error, BridgekitError):
            sys.stderr.write(f"bridgekit: {' '.join(str(error).split())}\n")
        else:
            traceback.print_exception(error)


def _stop_after_parent() -> None:
    """Let this worker drain when its parent has been killed, because it would keep the port of the next server."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker is a child process"
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _printed(folder: Path) -> Path:
    """Return the path of the file that exists once a worker has printed why it did not start."""
    return folder / "startup-error"


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None], end: EndProcess) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._end = end
        self.second_signal: int | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(QUEUED_CONNECTIONS)
        try:
            self._on_ready()
        except OSError:
            _LOG.setLevel(logging.CRITICAL)  # The address cannot be printed, and uvicorn would log a traceback.
            raise

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Replaces uvicorn's handler, which raises the signal again at the end, and forces an exit only on SIGINT.
        if self.should_exit or not self.started:  # uvicorn would wait until the application has started
            self._end(EXIT_SIGNALLED + sig, EXIT_TIMEOUT_SECONDS)
        if self.should_exit:
            self.second_signal = sig
            self.force_exit = True
            _LOG.setLevel(logging.CRITICAL)  # All tasks are cancelled, and uvicorn would log an error for each of them.
        self.should_exit = True


def _run_single(
    config: uvicorn.Config, listeners: list[socket.socket], on_ready: Callable[[], None], end: EndProcess
) -> int:
    server = _Server(config, on_ready, end)
    try:
        server.run(listeners)
    except SystemExit:
        if server.started:
            raise
        return EXIT_STARTUP_FAILED
    return EXIT_LIFESPAN_FAILED if getattr(config.app, "failed", False) else _exit_code(server.second_signal)


def _exit_code(second_signal: int | None) -> int:
    return 0 if second_signal is None else EXIT_SIGNALLED + second_signal


class _Workers(Multiprocess):
    def __init__(
        self, config: uvicorn.Config, listeners: list[socket.socket], on_ready: Callable[[], None], folder: Path
    ) -> None:
        super().__init__(config, sockets=listeners)
        self._on_ready: Callable[[], None] | None = on_ready
        self._folder = folder
        self.second_signal: int | None = None
        # With uvicorn's handlers, a signal during a reload waits until every worker is replaced. A handler must not set
        # an Event itself, because it may interrupt code that holds the Event's lock.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: threading.Thread(target=self.should_exit.set).start())

    def keep_subprocess_alive(self) -> None:
        for process in self.processes:
            # While the parent keeps the worker's end of the pipe open, it cannot detect that the worker has ended.
            process.child_conn.close()
        for index, process in enumerate(self.processes):
            if self.should_exit.is_set():
                return
            if not process.is_alive(timeout=self.config.timeout_worker_healthcheck):
                self._replace(index)
        for listener in self.sockets:
            listener.listen(QUEUED_CONNECTIONS)
        if self._on_ready is not None and all(process.is_ready() for process in self.processes):
            self._on_ready()
            self._on_ready = None
            self.config.timeout_worker_healthcheck = WORKER_TIMEOUT_SECONDS

    @property
    def startup_failed(self) -> bool:
        """True if a worker could not start before all workers had started once."""
        return self._on_ready is not None and any(each.exitcode == STARTUP_FAILURE for each in self.processes)

    def _replace(self, index: int) -> None:
        """Start another worker in place of one that has ended or hangs.

        A worker that does not start ends the server only at first. Later, the reason may be an outage that ends, such
        as that of the store.
        """
        ended = self.processes[index]
        ended.kill()
        ended.join()
        if self.startup_failed:
            _LOG.error("Child process [%s] failed to start, stopping the parent process.", ended.pid)
            self.should_exit.set()
        elif ended.exitcode == STARTUP_FAILURE:
            _printed(self._folder).unlink(missing_ok=True)  # the next attempt prints its reason again
            self.should_exit.wait(RESTART_DELAY_SECONDS)
        if not self.should_exit.is_set():
            _LOG.info("Child process [%s] died", ended.pid)
            self.processes[index] = Process(self.config, self.sockets)
            self.processes[index].start()

    def join_all(self) -> None:
        """Wait for the workers to end. A signal more than DUPLICATE_SIGNAL_SECONDS later kills the workers."""
        stopped_at = time.monotonic()

        def force_stop(number: int, frame: FrameType | None) -> None:
            if time.monotonic() - stopped_at > DUPLICATE_SIGNAL_SECONDS:
                self.second_signal = number
                for process in self.processes:
                    process.process.kill()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, force_stop)
        super().join_all()


def _run_workers(
    config: uvicorn.Config, listeners: list[socket.socket], on_ready: Callable[[], None], folder: Path
) -> int:
    for listener in listeners:
        listener.set_inheritable(True)
    # uvicorn would log an error that a worker has already printed.
    _LOG.addFilter(lambda record: not _printed(folder).exists())
    workers = _Workers(config, listeners, on_ready, folder)
    workers.run()
    if workers.startup_failed:
        return EXIT_STARTUP_FAILED
    return _exit_code(workers.second_signal)
