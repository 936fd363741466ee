"""A running stack with its clients, and the requests that a measurement sends to their processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from benchmarks.peers import Peer
from benchmarks.process_messages import (
    Emit,
    EmitPaced,
    EmitReport,
    LoadVerdictReply,
    OpenSubscribers,
    PacedReport,
    PrepareThreads,
    ReadLoad,
    ReadTimes,
    ReadTimesRequest,
    Received,
    VerdictRequest,
)
from benchmarks.verification import LoadVerdict, WrongAnswer
from benchmarks.workload import Wave
from bridgekit.serve.in_process import KEEPALIVE_SECONDS
from bridgekit_verify.faults.redis_servers import redis_url
from bridgekit_verify.harness.child_side import CpuReply, CpuRequest, Done, MemoryReply, MemoryRequest, Ready
from bridgekit_verify.harness.load_client import Clear, StopReading
from bridgekit_verify.harness.processes import ChildProcess, start_module

__all__ = ["LoadReport", "Session", "session", "start_load_client"]

LOAD_TIMEOUT_SECONDS: Final = 60.0
REPORT_SECONDS: Final = 5.0
"""Time limit for the report of a load, in addition to the timeout of the load itself."""
WARM_UP_RUNS: Final = 2

Report = TypeVar("Report", EmitReport, PacedReport)


@dataclass(frozen=True, slots=True)
class LoadReport:
    """The measurements of one wave, from its first emission until the last socket has read all events."""

    events: int
    """Number of deliveries: the number of emitted events times the number of sockets per thread."""
    seconds: float
    cpu_seconds: float
    """CPU time of the stack's processes, without the broker and the clients."""
    client_busy: float
    """CPU time of the client divided by elapsed time. A value near 1 means that the client may have been the
    bottleneck."""
    event_bytes: float

    @property
    def per_second(self) -> float:
        return self.events / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU time per delivery, in µs."""
        return 1e6 * self.cpu_seconds / self.events


class Session:
    """Handle of a running stack and its load client."""

    def __init__(
        self, peer: Peer, sockets: ChildProcess, agents: ChildProcess, load: ChildProcess, port: int, threads: int
    ) -> None:
        self.peer = peer
        self.sockets = sockets
        self.agents = agents
        """The process with the agents, and with the sockets unless a broker connects two processes."""
        self.load = load
        self.threads = threads
        self.subscribers = 1
        self._port = port
        self._wave = Wave(threads, 0)

    @property
    def processes(self) -> list[ChildProcess]:
        return [self.sockets] if self.agents is self.sockets else [self.sockets, self.agents]

    async def prepare(self, first: int, last: int) -> None:
        """Create these threads, if the stack needs them."""
        for each in self.processes:
            await each.request(PrepareThreads(first, last), Done)

    async def connect(
        self,
        first: int,
        last: int,
        *,
        load: ChildProcess | None = None,
        subscribers: int = 1,
        receive_buffer_bytes: int = 0,
    ) -> None:
        """Open sockets in these threads: in the client `load` if given, otherwise in the session's own load client."""
        await self.prepare(first, last)
        opened = OpenSubscribers(self.peer.dialect, self._port, first, last, subscribers, receive_buffer_bytes)
        await (load or self.load).request(opened, Done)

    def next_wave(self, runs: int, *, padding_bytes: int = 0) -> Wave:
        """Return the next wave, with `runs` runs in every thread of the session."""
        after = self._wave.first + self._wave.runs
        self._wave = Wave(self.threads, runs, first=after, padding_bytes=padding_bytes)
        return self._wave

    async def warm_up(self) -> None:
        await self.run_load("burst", WARM_UP_RUNS)

    async def run_load(self, kind: str, runs: int) -> LoadReport:
        """Emit a wave and verify it. Raises WrongAnswer unless every event arrived exactly once and in order."""
        wave = self.next_wave(runs)
        before = await self._cpu_ns()
        emitted, received = await self._emit(wave, Emit(wave, kind), EmitReport, LOAD_TIMEOUT_SECONDS)
        after = await self._cpu_ns()
        # The agents' process creates the events before the wave. The CPU time of this step is not a cost of the stack.
        cpu_ns = sum(after.values()) - sum({**before, self.agents.pid: emitted.cpu_ns}.values())
        verdict = await self.verdict(wave)
        if not (verdict.sound and received.complete):
            raise WrongAnswer(f"{self.peer.name}: {verdict}")
        return LoadReport(
            events=wave.events * self.subscribers,
            seconds=(received.done_ns - emitted.begun_ns) / 1e9,
            cpu_seconds=cpu_ns / 1e9,
            client_busy=received.busy,
            event_bytes=received.event_bytes,
        )

    async def run_paced_load(self, wave: Wave, per_second: float, within: float) -> tuple[PacedReport, Received]:
        """Emit a wave from one emitter at a fixed rate. The caller must verify the wave with `verdict`."""
        return await self._emit(wave, EmitPaced(wave, per_second, within), PacedReport, within)

    async def _emit(
        self, wave: Wave, request: Emit | EmitPaced, kind: type[Report], within: float
    ) -> tuple[Report, Received]:
        await self.load.request(Clear(), Done)
        await self.load.send(ReadLoad(wave.events // wave.threads))
        emitted = await self.agents.request(request, kind, within=within + REPORT_SECONDS)
        return emitted, await self.load.request(StopReading(), Received, within=LOAD_TIMEOUT_SECONDS)

    async def verdict(self, wave: Wave) -> LoadVerdict:
        """Return the verdict on the wave's events at the reading sockets."""
        return (await self.load.request(VerdictRequest(wave), LoadVerdictReply)).verdict

    async def read_times(self) -> list[tuple[int, list[int]]]:
        """Return each reading socket's thread and the read times of its events, in nanoseconds."""
        return (await self.load.request(ReadTimesRequest(), ReadTimes)).sockets

    async def memory_kib(self) -> int:
        """Return the resident memory of the stack's processes in KiB, after a garbage collection."""
        return sum([(await each.request(MemoryRequest(), MemoryReply)).resident_kib for each in self.processes])

    async def cpu_seconds(self) -> float:
        """Return the CPU time of the stack's processes so far."""
        return sum((await self._cpu_ns()).values()) / 1e9

    async def _cpu_ns(self) -> dict[int, int]:
        """Return the CPU time by process id."""
        return {each.pid: (await each.request(CpuRequest(), CpuReply)).cpu_ns for each in self.processes}


@asynccontextmanager
async def session(
    peer: Peer,
    *,
    threads: int = 100,
    subscribers: int = 1,
    buffer_bytes: int = 0,
    keepalive_seconds: float = KEEPALIVE_SECONDS,
) -> AsyncIterator[Session]:
    """Run a stack in its own processes while the block runs, with `subscribers` sockets in each thread.

    `buffer_bytes` is the size of each socket's kernel buffer at both ends, or 0 for the system's default.
    """
    async with AsyncExitStack() as stack:
        options = ["--send-buffer-bytes", str(buffer_bytes), "--keepalive-seconds", str(keepalive_seconds)]
        if peer.broker:
            options += ["--broker", await stack.enter_async_context(redis_url())]

        async def start(part: str) -> tuple[ChildProcess, int]:
            arguments = ("benchmarks.stack_process", peer.name, "--part", part, *options)
            process = await stack.enter_async_context(
                start_module(*arguments, name=f"{peer.name} ({part})", python=peer.python)
            )
            return process, (await process.receive(Ready, wanted="start")).port

        sockets, port = await start("sockets" if peer.broker else "both")
        agents = (await start("agents"))[0] if peer.broker else sockets
        load = await stack.enter_async_context(start_load_client("the load client"))
        opened = Session(peer, sockets, agents, load, port, threads)
        if threads:
            await opened.connect(0, threads, subscribers=subscribers, receive_buffer_bytes=buffer_bytes)
        opened.subscribers = subscribers
        yield opened


@asynccontextmanager
async def start_load_client(name: str) -> AsyncIterator[ChildProcess]:
    """Run a load client without sockets while the block runs."""
    async with start_module("benchmarks.load_process", name=name) as process:
        await process.receive(Ready, wanted="start")
        yield process
