"""Lets a foreign client attend a measurement: a program that is told which sockets to open, and says what they read.

Every witness speaks the same words. It is given its seats, a JSON list with `number`, `url`, `user_id` and
`thread_id`; it opens one socket for each and says one line of JSON a frame, and one a close (`transcripts.Line`).
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
"""How long a witness may take to start, and to end. A browser takes about one second."""

Opened = Callable[[bytes, Callable[[bytes], None]], AbstractAsyncContextManager[None]]
"""Starts a witness with its seats; what it says is handed on line by line."""


class Attendance:
    """Two accounts of one run: ours, and the one of somebody that the run is shown to."""

    def __init__(self, witness: Opened) -> None:
        self.ours = Transcript()
        self.theirs = Transcript()
        self._witness = witness
        self._said = anyio.Event()

    def on_frame(self, socket: Socket, frame: str | bytes) -> None:
        self.ours.add_frame(socket.number, frame)

    def on_close(self, socket: Socket, code: int) -> None:
        self.ours.closed[socket.number] = code

    @asynccontextmanager
    async def watch(self, url: str, sockets: Sequence[Socket]) -> AsyncIterator[None]:
        assert not self.theirs.frames, "the accounts are of one sitting"
        seats = [
            {"number": each.number, "url": url, "user_id": each.user_id, "thread_id": each.thread_id}
            for each in sockets
        ]
        numbers = {each.number for each in sockets}
        async with self._witness(msgspec.json.encode(seats), self._note):
            await self._all(numbers, self.theirs.frames, "subscribed")
            yield
            await self._all(numbers, self.theirs.closed, "closed")

    def _note(self, line: bytes) -> None:
        self.theirs.add_line(line)
        self._said.set()
        self._said = anyio.Event()

    async def _all(self, numbers: set[int], told: Collection[int], what: str) -> None:
        with anyio.move_on_after(TIMEOUT_SECONDS):
            while numbers - {*told}:
                await self._said.wait()
        if missing := numbers - {*told}:
            raise TimeoutError(f"the witness does not say of sockets {sorted(missing)} that they are {what}")


def program(*command: str) -> Opened:
    """A witness that reads its seats from standard input, says its lines on standard output, and ends with 0."""

    @asynccontextmanager
    async def opened(seats: bytes, note: Callable[[bytes], None]) -> AsyncIterator[None]:
        async with child(command) as process, anyio.create_task_group() as readers:
            assert process.stdin is not None
            assert process.stdout is not None
            readers.start_soon(_lines, process.stdout, note)
            readers.start_soon(_must_end_well, process, command[0])
            with suppress(anyio.BrokenResourceError):  # one that has ended already is told by how it ended
                await process.stdin.send(seats)
                await process.stdin.aclose()
            yield
            with anyio.fail_after(TIMEOUT_SECONDS):
                await process.wait()

    return opened


@asynccontextmanager
async def child(
    command: Sequence[str], *, stdout: int = subprocess.PIPE, env: Mapping[str, str] | None = None
) -> AsyncIterator[Process]:
    """A process for the length of a block, ended by its handle. What it says on stderr is seen when a test fails."""
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


async def _lines(stream: ByteReceiveStream, note: Callable[[bytes], None]) -> None:
    rest = b""
    async for chunk in stream:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            note(line)


async def _must_end_well(process: Process, name: str) -> None:
    if code := await process.wait():
        raise ChildProcessError(f"the witness {name} ended with {code}")
