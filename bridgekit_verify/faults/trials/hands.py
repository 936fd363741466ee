"""A worker process, held from the experiment: started, killed, paused, told to stop, started again, and asked."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import anyio
import msgspec
from anyio.abc import TaskGroup

from bridgekit.errors import BridgekitError, first_error
from bridgekit_verify.faults.processes import Child, ProcessGone, child
from bridgekit_verify.faults.trials import worker
from bridgekit_verify.faults.trials.worker import Answered, Attempted, Ended, Order, Ready, Said, Setup

__all__ = ["Hand", "WorkerSilent", "hand"]

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 20.0
GONE: Final = "the worker's process ended"

_said: Final[msgspec.json.Decoder[Said]] = msgspec.json.Decoder(Said)


class WorkerSilent(BridgekitError):
    """A worker did not come up. What it had to say stands on the standard error."""

    def __init__(self, store: str) -> None:
        super().__init__(f"a worker with the store {store!r} did not come up; it may have said why on standard error")
        self.store = store


class Hand:
    """One worker, at one port, over as many processes as it takes.

    A run whose process ended before it is said to have ended too. What the worker says of a request goes to the
    listener of the request's experiment: the part of its name before the colon.
    """

    def __init__(self, process: Child, setup: Setup, tasks: TaskGroup) -> None:
        self._process = process
        self._setup = setup
        self._tasks = tasks
        self._up = anyio.Event()
        self._serves = False
        self._under_way: set[str] = set()
        """Requests that were given to the process that runs now, and have not ended."""
        self.listeners: dict[str, Callable[[Said], None]] = {}

    @property
    def port(self) -> int:
        return self._setup.port

    async def begin(self) -> None:
        """Set it up, and wait until it serves; WorkerSilent."""
        self._up, self._serves = anyio.Event(), False
        self._tasks.start_soon(self._listen, self._up)
        try:
            await self._process.send_line(msgspec.json.encode(self._setup).decode())
            with anyio.fail_after(START_SECONDS):
                await self._up.wait()
            if not self._serves:
                raise ProcessGone(self._process.pid, self._process.exit_code)
        except (TimeoutError, ProcessGone) as error:
            raise WorkerSilent(self._setup.store) from error

    async def carry(self, order: Order) -> None:
        """Let an agent run. A worker that is gone carries nothing: ProcessGone."""
        self._under_way.add(order.request)
        await self._process.send_line(msgspec.json.encode(order).decode())

    async def kill(self) -> None:
        await self._process.kill()

    async def pause(self) -> None:
        await self._process.pause()

    def resume(self) -> None:
        self._process.resume()

    async def stop(self) -> int:
        """Ask it to stop, and give its exit code."""
        return await self._process.terminate(within=STOP_SECONDS)

    async def again(self) -> None:
        """Start it again, at the same port."""
        await self._process.restart()
        await self.begin()

    async def _listen(self, up: anyio.Event) -> None:
        async for line in self._process.lines():
            said = _said.decode(line)
            if isinstance(said, Ready):
                self._serves = True
                up.set()
                continue
            self._tell(said)
        up.set()  # it has ended: nobody need wait for it any longer
        for request in list(self._under_way):
            self._tell(Ended(request, GONE))

    def _tell(self, said: Attempted | Answered | Ended) -> None:
        request = said.request if isinstance(said, Ended) else said.key.request
        if isinstance(said, Ended):
            self._under_way.discard(request)
        if (listener := self.listeners.get(request.partition(":")[0])) is not None:
            listener(said)


@asynccontextmanager
async def hand(setup: Setup) -> AsyncIterator[Hand]:
    """A worker that serves, for the length of a block. At its end the process is killed, and gone."""
    with first_error():
        async with child([sys.executable, "-m", worker.__name__]) as process, anyio.create_task_group() as tasks:
            held = Hand(process, setup, tasks)
            await held.begin()
            yield held
            await process.close()
            tasks.cancel_scope.cancel()
