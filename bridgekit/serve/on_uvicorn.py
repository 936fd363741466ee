"""An application behind uvicorn, in this process or in several workers, until a signal comes."""

from __future__ import annotations

import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Final

import uvicorn
from uvicorn.supervisors import Multiprocess

from bridgekit.errors import ServeError
from bridgekit.serve.application import Served
from bridgekit.serve.in_process import KEEPALIVE_SECONDS, listening
from bridgekit.serve.native_handoff import UpgradeProtocol, choose_edge
from bridgekit.serve.starting import MadeHere, Starting
from bridgekit.transport.edge import INCOMING_BYTES
from bridgekit.transport.graceful_shutdown import DUPLICATE_SIGNAL_SECONDS

__all__ = ["Address", "Server", "serve"]

DID_NOT_START: Final = 2
STARTUP_FAILURE: Final = 3
"""What a worker of uvicorn ends with that could not start."""
KILLED: Final = 128
"""Added to the number of the signal that ended a program before it was done: what shells say."""
REST_SECONDS: Final = 2
"""How long requests may go on when all is drained."""
READY_SECONDS: Final = 30.0
"""How long a worker may take to start before it is left to uvicorn to deal with."""
LOOK_SECONDS: Final = 0.1

_LOG: Final = logging.getLogger("uvicorn.error")


@dataclass(frozen=True, kw_only=True)
class Server:
    """Where and how to listen."""

    host: str = "127.0.0.1"
    port: int = 0
    """0 lets the system pick one."""
    workers: int = 1
    edge: str | None = None
    """"asgi" or "native"; None for what suits the application."""
    keepalive_seconds: float = KEEPALIVE_SECONDS
    incoming_bytes: int = INCOMING_BYTES
    log_level: str = "warning"


@dataclass(frozen=True)
class Address:
    """Where an application is served now."""

    host: str
    port: int
    edge: str
    """What serves its sockets."""

    @property
    def url(self) -> str:
        return f"ws://[{self.host}]:{self.port}" if ":" in self.host else f"ws://{self.host}:{self.port}"


def serve(served: Served, server: Server, ready: Callable[[Address], None]) -> int:
    """Serve until a signal ends it, and give the exit code: 0 when all was drained, or else what shells say.

    `ready` is called when sockets are let in. What keeps the application from starting is raised; of what keeps a
    worker from it, the worker has told, and the exit code is 2.
    """
    app = served.checked(server.workers)
    edge = choose_edge(served.target, app, server.edge)
    with _listening(server) as listener:
        host, port = listener.getsockname()[:2]
        address = Address(host, port, edge)
        if server.workers > 1:
            made = MadeHere(served, natively=edge == "native")
            return _in_workers(_config(made, server, edge), listener, lambda: ready(address))
        starting = Starting(app, natively=edge == "native")
        return _here(starting, _config(starting, server, edge), listener, lambda: ready(address))


@contextmanager
def _listening(server: Server) -> Iterator[socket.socket]:
    with ExitStack() as stack:
        try:
            listener = stack.enter_context(
                listening(server.host, server.port, keepalive_seconds=server.keepalive_seconds)
            )
        except OSError as error:
            reason = (error.strerror or str(error)).partition(" (while")[0]
            raise ServeError(f"{server.host}:{server.port}", f"cannot be listened on: {reason}") from error
        yield listener


def _config(app: Starting | MadeHere, server: Server, edge: str) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        factory=isinstance(app, MadeHere),
        workers=server.workers,
        lifespan="on",
        ws=UpgradeProtocol if edge == "native" else "websockets-sansio",
        ws_per_message_deflate=False,
        ws_max_size=server.incoming_bytes,
        ws_ping_interval=server.keepalive_seconds,
        ws_ping_timeout=server.keepalive_seconds,
        log_level=server.log_level,
        access_log=False,
        timeout_graceful_shutdown=REST_SECONDS,
    )


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready
        self.hurried_by = 0
        """The second signal, which ends what the first began."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are heard as long as it serves, and not raised again: that it was asked to stop is no failure."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
            self.hurried_by = sig
            # All that is left is cancelled, and each would be told at length.
            _LOG.setLevel(logging.CRITICAL)
        self.should_exit = True


def _here(starting: Starting, config: uvicorn.Config, listener: socket.socket, ready: Callable[[], None]) -> int:
    level = _LOG.level

    def up() -> None:
        _LOG.setLevel(level)
        ready()

    # Until it is up, what goes wrong is ours to tell.
    _LOG.setLevel(logging.CRITICAL)
    running = _Server(config, up)
    try:
        running.run([listener])
    except SystemExit:
        if starting.failure is None:
            raise
    if starting.failure is not None and not running.started:
        raise starting.failure
    return KILLED + running.hurried_by if running.hurried_by else 0


class _Workers(Multiprocess):
    def __init__(self, config: uvicorn.Config, listener: socket.socket, ready: Callable[[], None]) -> None:
        super().__init__(config, sockets=[listener])
        self._ready = ready
        self.hurried_by = 0

    @property
    def failed(self) -> bool:
        return any(process.exitcode == STARTUP_FAILURE for process in self.processes)

    def init_processes(self) -> None:
        super().init_processes()
        if self._all_up():
            self._ready()

    def _all_up(self) -> bool:
        """Wait for the workers to be up. A signal, or one that does not start, is dealt with by what comes next."""
        deadline = time.monotonic() + READY_SECONDS
        for process in self.processes:
            while not process.wait_until_ready(LOOK_SECONDS):
                self.handle_signals()
                if self.should_exit.is_set() or not process.process.is_alive() or time.monotonic() > deadline:
                    return False
        return True

    def join_all(self) -> None:
        """Wait for the workers to be done; a second signal ends them at once."""
        deaf_until = time.monotonic() + DUPLICATE_SIGNAL_SECONDS
        for process in self.processes:
            while process.process.is_alive():
                process.process.join(LOOK_SECONDS)
                if time.monotonic() < deaf_until:
                    self.signal_queue.clear()
                elif self.signal_queue:
                    self._hurry(self.signal_queue.pop())

    def _hurry(self, number: int) -> None:
        self.hurried_by = number
        for process in self.processes:
            process.process.kill()


def _in_workers(config: uvicorn.Config, listener: socket.socket, ready: Callable[[], None]) -> int:
    listener.set_inheritable(True)
    workers = _Workers(config, listener, ready)
    workers.run()
    if workers.failed:
        return DID_NOT_START
    return KILLED + workers.hurried_by if workers.hurried_by else 0
