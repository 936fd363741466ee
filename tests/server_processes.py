"""Starts real servers as child processes, calls and signals them, and reads their output."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from signal import Signals
from typing import Final

import anyio
import httpx

from bridgekit.transport.client import EventClient, connect
from bridgekit.transport.graceful_shutdown import DUPLICATE_SIGNAL_SECONDS
from bridgekit.transport.resuming_client import Backoff, ResumingClient, subscribe
from bridgekit.transport.tickets import Tickets
from bridgekit.transport.used_tickets import MemoryUsedTickets
from bridgekit_verify.harness.processes import ChildProcess, ProcessExited, start_process
from tests.factories import ALICE, THREAD
from tests.served_application import KEY, AliceOwnsAll
from tests.timeouts import TIMEOUT_SECONDS

PROCESS_TIMEOUT_SECONDS: Final = TIMEOUT_SECONDS
"""Timeout of a wait on a server process. On an idle machine, waits take much less."""
APP: Final = "tests.served_application:app"
BACKOFF: Final = Backoff(first_seconds=0.02, longest_seconds=0.1)
ADDRESS: Final = re.compile(r"(?:https?|ws)://(127\.0\.0\.1:\d+)")


class Server:
    """A server process and the lines of its output."""

    def __init__(self, process: ChildProcess) -> None:
        self.process = process
        self.output: list[str] = []
        self.address = ""

    @property
    def url(self) -> str:
        return f"ws://{self.address}"

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    async def read_until(self, pattern: str, times: int = 1) -> str:
        """Read lines until `times` lines have matched the pattern, and return the last one."""
        with anyio.fail_after(PROCESS_TIMEOUT_SECONDS):
            while True:
                try:
                    line = await self.process.line()
                except ProcessExited:
                    raise AssertionError(f"no line matches {pattern!r} in:\n" + "\n".join(self.output)) from None
                self.output.append(line)
                if found := ADDRESS.search(line):
                    self.address = self.address or found[1]
                times -= re.search(pattern, line) is not None
                if not times:
                    return line

    async def end(self) -> int:
        """Read the output until the process has ended, and return its exit code."""
        with anyio.fail_after(PROCESS_TIMEOUT_SECONDS):
            async for line in self.process.lines():
                self.output.append(line)
            return await self.process.wait()

    async def end_at_once(self, number: Signals) -> int:
        """Repeat a signal while the server stops, and return its exit code."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._signal_again, number)
            code = await self.end()
            tasks.cancel_scope.cancel()
        return code

    async def _signal_again(self, number: Signals) -> None:
        # An earlier signal would count as a duplicate of the first, which a busy machine may handle late. Only time
        # distinguishes them, so there is no event to wait for.
        await anyio.sleep(1.7 * DUPLICATE_SIGNAL_SECONDS)
        with suppress(ProcessLookupError):
            while True:
                self.signal(number)
                await anyio.sleep(10 * DUPLICATE_SIGNAL_SECONDS)

    def signal(self, number: Signals) -> None:
        """Signal only the started process, as `kill` does."""
        os.kill(self.process.pid, number)

    def signal_all(self, number: Signals) -> None:
        """Signal the process and its children, as Ctrl-C in a terminal does."""
        os.killpg(self.process.pid, number)

    async def post(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, timeout=PROCESS_TIMEOUT_SECONDS) as client:
            return await client.post(f"http://{self.address}{path}")

    async def health(self) -> tuple[int, str]:
        async with httpx.AsyncClient(trust_env=False, timeout=PROCESS_TIMEOUT_SECONDS) as client:
            response = await client.get(f"http://{self.address}/healthz")
            return response.status_code, response.json()["status"]

    async def worker(self) -> int:
        """Return the process id of the worker that answers."""
        async with httpx.AsyncClient(trust_env=False, timeout=PROCESS_TIMEOUT_SECONDS) as client:
            return int((await client.get(f"http://{self.address}/healthz")).json()["worker"])

    @asynccontextmanager
    async def subscribed(self) -> AsyncIterator[EventClient]:
        """Connect a client to Alice's thread."""
        async with connect(self.url, thread_id=THREAD, ticket=await new_ticket()) as client:
            yield client

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[ResumingClient]:
        """A client of Alice's thread that reconnects and resumes."""
        async with subscribe(self.url, thread_id=THREAD, ticket=new_ticket, backoff=BACKOFF) as client:
            yield client


async def new_ticket() -> str:
    """Return a ticket for Alice, issued outside the server with the shared key."""
    return Tickets(AliceOwnsAll(), MemoryUsedTickets(generation=""), keys=(KEY,)).issue(ALICE, THREAD)


@asynccontextmanager
async def started(*words: str, env: Mapping[str, str] | None = None, files: int | None = None) -> AsyncIterator[Server]:
    """Run a Python module with its arguments as a child process; its standard error is part of the output.

    `files` limits its file descriptors.
    """
    limit = "" if files is None else f"ulimit -n {files} && "
    command = ["sh", "-c", f'{limit}exec "$@" 2>&1', "sh", sys.executable, "-u", "-m", *words]
    async with start_process(command, env={**os.environ, **(env or {})}) as process:
        yield Server(process)


@contextmanager
def reserve_port() -> Iterator[int]:
    """Reserve a port: it stays bound here, and a server that sets SO_REUSEADDR can listen on it."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
