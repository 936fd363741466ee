"""Starts the backend under check with its command or as an ASGI application, or uses a backend that already runs."""

from __future__ import annotations

import os
import shlex
import socket
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import anyio
import httpx
from starlette.types import ASGIApp

from bridgekit_verify.check.live.backend_file import Backend
from bridgekit_verify.check.live.drivers import reason_of
from bridgekit_verify.check.live.templates import Values, fill_text
from bridgekit_verify.check.live.thread_server import ThreadServer
from bridgekit_verify.errors import UnusableBackend
from bridgekit_verify.harness.processes import ChildProcess, ProcessTimeout, start_process

__all__ = ["RunningBackend", "environment", "running_backend", "served_application"]

START_SECONDS: Final = 30.0
RUNNING_SECONDS: Final = 5.0
"""How long a backend that already runs may take to answer."""
STOP_SECONDS: Final = 5.0
EXIT_SECONDS: Final = 0.3
"""How long the check waits for the process to exit after a connection has failed."""
REQUEST_SECONDS: Final = 5.0
POLL_SECONDS: Final = 0.05
SHOWN_LINES: Final = 3
"""How many of the process's last output lines an error message shows."""


class RunningBackend:
    """The address of the backend, and its process or thread if the check started one."""

    def __init__(self, url: str, process: ChildProcess | None = None, thread: threading.Thread | None = None) -> None:
        self.url, self.process, self.thread = url, process, thread
        self.output: deque[str] = deque(maxlen=SHOWN_LINES)

    @property
    def problem(self) -> str | None:
        """The reason why the backend no longer runs, or None if it still runs."""
        if self.thread is not None and not self.thread.is_alive():
            return "the application ended: see the log of its lifespan"
        if self.process is None or self.process.exit_code is None:
            return None
        lines = [*self.process.error_output.splitlines(), *self.output][-SHOWN_LINES:]
        text = f"; it wrote: {' | '.join(line.strip() for line in lines if line.strip())}" if lines else ""
        return f"the backend ended with exit code {self.process.exit_code}{text}"

    async def find_problem(self) -> str | None:
        """Return the reason why the backend no longer runs, or None if it still runs after EXIT_SECONDS."""
        if self.process is not None:
            with suppress(ProcessTimeout):
                await self.process.wait(within=EXIT_SECONDS)
        return self.problem

    async def read_output(self) -> None:
        """Read the output of the process, because the process would block if the pipe were full."""
        assert self.process is not None
        async for line in self.process.lines():
            self.output.append(line)


@asynccontextmanager
async def running_backend(backend: Backend, model: str) -> AsyncIterator[RunningBackend]:
    """Run the backend until the `with` block ends. `model` is the address of the scripted model, without `/v1`."""
    start = backend.start
    if not start.command:
        if not start.url:
            raise UnusableBackend(backend.path, "needs a table [start] with the line 'command' or the line 'url'")
        running = RunningBackend(start.url.rstrip("/"))
        await _wait_until_ready(backend, running)
        yield running
        return
    port = _free_port()
    values = {"port": str(port), "model": model, "python": sys.executable}
    try:
        words = shlex.split(start.command) if isinstance(start.command, str) else start.command
    except ValueError as error:
        raise UnusableBackend(backend.path, f"[start] command is no command: {error}: {start.command}") from error
    command = [fill_text(word, values) for word in words]
    env = {**os.environ, **environment(backend, values)}
    url = fill_text(start.url, values).rstrip("/") or f"http://127.0.0.1:{port}"
    if not backend.folder.is_dir():
        raise UnusableBackend(backend.path, f"[start] folder {backend.folder} does not exist")
    try:
        async with start_process(command, name="the backend", env=env, cwd=backend.folder) as process:
            running = RunningBackend(url, process)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(running.read_output)
                await _wait_until_ready(backend, running)
                yield running
                with suppress(ProcessTimeout):  # The process is killed at the end of the block.
                    await process.terminate(within=STOP_SECONDS)
                tasks.cancel_scope.cancel()
    except OSError as error:
        raise UnusableBackend(backend.path, f"[start] command {command[0]!r} cannot be started: {error}") from error


def environment(backend: Backend, values: Values) -> dict[str, str]:
    """Return the variables that the backend gets in addition to those of this process."""
    # The folder of this interpreter comes last in the search path, so that its programs are found even if its
    # environment is not activated.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    # The model is on this machine, so a network proxy could not reach it.
    direct = ",".join(filter(None, [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "127.0.0.1,localhost"]))
    stated = {name: fill_text(value, values) for name, value in backend.start.env.items()}
    return {"PATH": path, "NO_PROXY": direct, "no_proxy": direct, **stated}


async def _wait_until_ready(backend: Backend, running: RunningBackend) -> None:
    start = backend.start
    seconds = start.seconds or (START_SECONDS if start.command else RUNNING_SECONDS)
    seen = "no answer"
    async with httpx.AsyncClient(timeout=REQUEST_SECONDS, trust_env=False) as http:
        with anyio.move_on_after(seconds):
            while running.problem is None:
                try:
                    response = await http.get(running.url + start.ready)
                except httpx.TransportError as error:
                    seen = reason_of(error)
                else:
                    if response.status_code < 500:
                        return
                    seen = f"status {response.status_code}"
                await anyio.sleep(POLL_SECONDS)
    problem = running.problem or f"{running.url}{start.ready} was not ready within {seconds:g} s: {seen}"
    raise UnusableBackend(backend.path, f"[start] {problem}")


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@asynccontextmanager
async def served_application(backend: Backend, app: ASGIApp) -> AsyncIterator[RunningBackend]:
    """Serve an application on a real port, in a thread, until the `with` block ends."""
    with ThreadServer(app, "backend under check", ws="websockets-sansio") as server:
        running = RunningBackend(server.address, thread=server.thread)
        await _wait_until_ready(backend, running)
        yield running
