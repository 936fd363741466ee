"""Control the two processes of a measurement: a server with agents, and a client with the users' sockets."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from bridgekit.errors import unwrap_single_error
from bridgekit.transport.tickets import KEY_BYTES
from bridgekit_verify.capacity import client_process, server_process
from bridgekit_verify.capacity.load_search import WITHIN_SECONDS, Edge, StepResult
from bridgekit_verify.capacity.messages import (
    ClientReport,
    Connect,
    ConnectedSockets,
    FillLogs,
    OpenThreads,
    ReadWave,
    RunWave,
    ServerReport,
    ServerSetup,
    StartWaitingRuns,
)
from bridgekit_verify.capacity.schedule import LoadPlan, LoadWave
from bridgekit_verify.harness.child_side import Done, MemoryReply, MemoryRequest, Ready
from bridgekit_verify.harness.load_client import Clear, StopReading
from bridgekit_verify.harness.processes import (
    REPLY_TIMEOUT_SECONDS,
    START_TIMEOUT_SECONDS,
    ChildProcess,
    start_module,
)

__all__ = ["Testbed", "start_testbed"]

SECONDS_PER_ITEM: Final = 0.02
"""Time added to a timeout for each requested socket, thread or run."""
WAVE_TIMEOUT_SECONDS: Final = 120.0
"""How much longer than planned a wave may take on a busy machine."""
START_DELAY_SECONDS: Final = 0.1
"""Delay between the request and the start of a wave, so that both processes read the request in time."""


class Testbed:
    """Handle of two processes on one machine: a server with agents, and a client with the users' sockets."""

    def __init__(self, edge: Edge, server: ChildProcess, client: ChildProcess, key: bytes, port: int) -> None:
        self.edge = edge
        self._server = server
        self._client = client
        self._key = key
        self._port = port
        self._waves = 0
        self.threads = 0
        self.sockets = 0

    async def open(self, threads: int) -> range:
        """Create additional threads and return their numbers."""
        numbers = range(self.threads, self.threads + threads)
        await self._server.request(OpenThreads(numbers.start, numbers.stop), Done, within=_timeout(threads))
        self.threads = numbers.stop
        return numbers

    async def connect(self, sockets: int) -> None:
        """Create additional threads, each with its owner's socket."""
        numbers = await self.open(sockets)
        request = Connect(self._port, self._key, numbers.start, numbers.stop)
        self.sockets = (await self._client.request(request, ConnectedSockets, within=_timeout(sockets))).sockets

    async def fill_logs(self, threads: int) -> None:
        """Create additional threads without sockets, each with the events of one run in its log."""
        numbers = await self.open(threads)
        await self._server.request(FillLogs(numbers.start, numbers.stop), Done, within=_timeout(threads))

    async def start_waiting_runs(self, runs: int) -> None:
        """Create additional threads, each with a run that has started and waits."""
        numbers = await self.open(runs)
        await self._server.request(StartWaitingRuns(numbers.start, numbers.stop), Done, within=_timeout(runs))

    async def resident_kib(self) -> int:
        """Return the resident memory of the server process in KiB."""
        return (await self._server.request(MemoryRequest(), MemoryReply)).resident_kib

    async def wave(self, events_per_second: float, plan: LoadPlan, *, first: int, threads: int) -> StepResult:
        """Apply `events_per_second` events per second to `threads` threads from number `first` on, and return the
        result."""
        self._waves += 1
        await self._client.request(Clear(), Done)
        wave = LoadWave(
            name=f"wave {self._waves}",
            plan=plan,
            first=first,
            threads=threads,
            runs_per_second=events_per_second / plan.events,
            starts_at=time.time() + START_DELAY_SECONDS,
        )
        await self._client.send(ReadWave(wave, WITHIN_SECONDS))
        timeout = WAVE_TIMEOUT_SECONDS + plan.seconds + plan.run_seconds
        server = await self._server.request(RunWave(wave), ServerReport, within=timeout)
        client = await self._client.request(StopReading(), ClientReport)
        return StepResult(wave, server, client)


def _timeout(count: int) -> float:
    return REPLY_TIMEOUT_SECONDS + SECONDS_PER_ITEM * count


@asynccontextmanager
async def start_testbed(edge: Edge, *, store: str = "memory:") -> AsyncIterator[Testbed]:
    """Run a server and a client process until the `with` block ends, and then kill both. Raises a ProcessFailed."""
    key = secrets.token_bytes(KEY_BYTES)
    with unwrap_single_error():
        async with (
            start_module(server_process.__name__, name=f"the server process ({edge.name})") as server,
            start_module(client_process.__name__, name="the client process") as client,
        ):
            ready = await server.request(
                ServerSetup(edge=edge.key, store=store, key=key), Ready, within=START_TIMEOUT_SECONDS
            )
            await client.receive(Ready, within=START_TIMEOUT_SECONDS, wanted="start")
            yield Testbed(edge, server, client, key, ready.port)
