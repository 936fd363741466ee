"""Runs an independent client during a measurement: a program that opens sockets and reports what they read.

All clients use the same protocol. The input is a JSON list of subscriptions with `number`, `url`, `user_id` and
`thread_id`. The client opens one socket for each and prints one line of JSON per frame and per close
(`transcripts.Line`).
"""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import anyio
import msgspec
from anyio.abc import ByteReceiveStream, Process

from bridgekit_verify.measure.history import Socket
from tests.observers.transcripts import Transcript
from tests.tree import ROOT

TIMEOUT_SECONDS = 60.0
"""How long a client may take to start and to end. A browser takes about one second."""

ClientLauncher = Callable[[bytes, Callable[[bytes], None]], AbstractAsyncContextManager[None]]
"""Starts an independent client with its subscriptions (JSON), and passes its output to a callback line by line."""


class TranscriptPair:
    """Collects two transcripts of one run: of bridgekit's own client and of an independent client."""

    def __init__(self, client: ClientLauncher) -> None:
        self.ours = Transcript()
        self.theirs = Transcript()
        self._launch = client
        self._changed = anyio.Event()

    def on_frame(self, socket: Socket, frame: str | bytes) -> None:
        self.ours.add_frame(socket.number, frame)

    def on_close(self, socket: Socket, code: int) -> None:
        self.ours.closed[socket.number] = code

    @asynccontextmanager
    async def watch(self, url: str, sockets: Sequence[Socket]) -> AsyncIterator[None]:
        assert not self.theirs.frames, "a TranscriptPair can record only one run"
        subscriptions = [
            {"number": each.number, "url": url, "user_id": each.user_id, "thread_id": each.thread_id}
            for each in sockets
        ]
        numbers = {each.number for each in sockets}
        async with self._launch(msgspec.json.encode(subscriptions), self._on_line):
            await self._all(numbers, self.theirs.frames, "subscribed")
            yield
            await self._all(numbers, self.theirs.closed, "closed")

    def _on_line(self, line: bytes) -> None:
        self.theirs.add_line(line)
        self._changed.set()
        self._changed = anyio.Event()

    async def _all(self, numbers: set[int], reported: Collection[int], what: str) -> None:
        with anyio.move_on_after(TIMEOUT_SECONDS):
            while numbers - {*reported}:
                await self._changed.wait()
        if missing := numbers - {*reported}:
            raise TimeoutError(f"the client did not report sockets {sorted(missing)} as {what} in time")


def program(*command: str) -> ClientLauncher:
    """Return a launcher for a program that reads subscriptions from standard input and prints lines."""

    @asynccontextmanager
    async def opened(subscriptions: bytes, on_line: Callable[[bytes], None]) -> AsyncIterator[None]:
        async with child(command) as process, anyio.create_task_group() as readers:
            assert process.stdin is not None
            assert process.stdout is not None
            readers.start_soon(_lines, process.stdout, on_line)
            readers.start_soon(_raise_on_failure, process, command[0])
            with suppress(anyio.BrokenResourceError):  # an early exit is reported by its exit code
                await process.stdin.send(subscriptions)
                await process.stdin.aclose()
            yield
            with anyio.fail_after(TIMEOUT_SECONDS):
                await process.wait()

    return opened


@asynccontextmanager
async def child(
    command: Sequence[str], *, stdout: int = subprocess.PIPE, env: Mapping[str, str] | None = None
) -> AsyncIterator[Process]:
    """Run a process for the length of a block. Its standard error is shown when a test fails."""
    process = await anyio.open_process(command, stdout=stdout, stderr=None, cwd=ROOT, env=env)
    try:
        yield process
    finally:
        with anyio.CancelScope(shield=True):
            with suppress(ProcessLookupError):
                process.terminate()
            with anyio.move_on_after(TIMEOUT_SECONDS):
                await process.wait()
            with suppress(ProcessLookupError):
                process.kill()
            await process.aclose()


async def _lines(stream: ByteReceiveStream, on_line: Callable[[bytes], None]) -> None:
    rest = b""
    async for chunk in stream:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            on_line(line)


async def _raise_on_failure(process: Process, name: str) -> None:
    if code := await process.wait():
        raise ChildProcessError(f"the client {name} ended with {code}")
