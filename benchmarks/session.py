"""One stack under measurement: its processes, its clients, and the questions they are asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final

from benchmarks.children import Child, child
from benchmarks.load.verification import Verdict, WrongAnswer
from benchmarks.peers import Peer
from benchmarks.workload import Wave
from bridgekit.serve.in_process import KEEPALIVE_SECONDS
from bridgekit_verify.faults.redis_servers import redis_url

__all__ = ["Session", "Spoken", "session"]

PATIENCE_SECONDS: Final = 60.0
WARM_UP_RUNS: Final = 2


@dataclass(frozen=True, slots=True)
class Spoken:
    """One wave, from the first event to the last socket that had all."""

    events: int
    """Events said, times the sockets of each thread."""
    seconds: float
    cpu_seconds: float
    """Of the stack's processes, without broker and clients."""
    client_busy: float
    """Which part of the time the client worked: near 1 it is the client that was measured."""
    event_bytes: float

    @property
    def per_second(self) -> float:
        return self.events / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU time an event, in microseconds."""
        return 1e6 * self.cpu_seconds / self.events


class Session:
    """A stack that is up, with clients."""

    def __init__(self, peer: Peer, sockets: Child, agents: Child, load: Child, port: int, threads: int) -> None:
        self.peer = peer
        self.sockets = sockets
        self.agents = agents
        """The same process as `sockets`, unless there is a broker between them."""
        self.load = load
        self.threads = threads
        self.subscribers = 1
        self._port = port
        self._wave = Wave(threads, 0)

    @property
    def processes(self) -> list[Child]:
        return [self.sockets] if self.agents is self.sockets else [self.sockets, self.agents]

    async def prepare(self, first: int, last: int) -> None:
        """Let the stack know of these threads, where it must."""
        for each in self.processes:
            await each.ask("prepare", first=first, last=last)

    async def connect(self, first: int, last: int, *, load: Child | None = None, **how: int) -> None:
        """Open sockets in these threads."""
        await self.prepare(first, last)
        await (load or self.load).ask(
            "connect",
            dialect=self.peer.dialect,
            port=self._port,
            first=first,
            last=last,
            **how,
        )

    def next_wave(self, runs: int, *, padding_bytes: int = 0) -> Wave:
        """The next runs in every thread of the session."""
        after = self._wave.first + self._wave.runs
        self._wave = Wave(self.threads, runs, first=after, padding_bytes=padding_bytes)
        return self._wave

    async def warm_up(self) -> None:
        await self.speak("burst", WARM_UP_RUNS)

    async def speak(self, kind: str, runs: int) -> Spoken:
        """Have all agents speak, and judge what arrived. WrongAnswer where it was not all, once, in order."""
        wave = self.next_wave(runs)
        await self.load.ask("expect", events=wave.events // wave.threads)
        before = await self._cpu_ns()
        said, received = await asyncio.gather(
            self.agents.ask("speak", wave=asdict(wave), kind=kind, seconds=PATIENCE_SECONDS),
            self.load.ask("receive", within=PATIENCE_SECONDS, seconds=PATIENCE_SECONDS + 5),
        )
        after = await self._cpu_ns()
        # Before it spoke, the agents' process made up what it was going to say: that is no cost of the stack's.
        cpu_ns = sum(after.values()) - sum({**before, self.agents.pid: said["cpu_ns"]}.values())
        await self._judge(wave, complete=received["complete"])
        return Spoken(
            events=wave.events * self.subscribers,
            seconds=(received["done_ns"] - said["begun_ns"]) / 1e9,
            cpu_seconds=cpu_ns / 1e9,
            client_busy=received["busy"],
            event_bytes=received["event_bytes"],
        )

    async def _judge(self, wave: Wave, *, complete: bool) -> None:
        verdict = await self.verdict(wave)
        if not (verdict.sound and complete):
            raise WrongAnswer(f"{self.peer.name}: {verdict}")

    async def verdict(self, wave: Wave) -> Verdict:
        """What became of the wave's events, at the sockets that read."""
        asked = {"first": wave.first, "runs": wave.runs, "padding_bytes": wave.padding_bytes}
        return Verdict.of((await self.load.ask("judge", **asked))["verdict"])

    async def memory_kib(self) -> int:
        """What the stack's processes hold, after their collectors have been through."""
        return sum([(await each.ask("memory"))["rss_kib"] for each in self.processes])

    async def cpu_seconds(self) -> float:
        """What the stack's processes have used so far."""
        return sum((await self._cpu_ns()).values()) / 1e9

    async def _cpu_ns(self) -> dict[int, int]:
        """By process id."""
        return {each.pid: (await each.ask("cpu"))["cpu_ns"] for each in self.processes}


@asynccontextmanager
async def session(
    peer: Peer,
    *,
    threads: int = 100,
    subscribers: int = 1,
    buffer_bytes: int = 0,
    keepalive_seconds: float = KEEPALIVE_SECONDS,
) -> AsyncIterator[Session]:
    """Bring a stack up in processes of its own, with so many sockets in each of so many threads.

    `buffer_bytes` is what the system may hold for each socket, at either end; 0 lets it decide.
    """
    async with AsyncExitStack() as stack:
        options = ["--send-buffer-bytes", str(buffer_bytes), "--keepalive-seconds", str(keepalive_seconds)]
        if peer.broker:
            options += ["--broker", await stack.enter_async_context(redis_url())]

        async def served(part: str) -> tuple[Child, dict[str, Any]]:
            name = f"{peer.name} ({part})"
            return await stack.enter_async_context(
                child(name, "benchmarks.served", peer.name, "--part", part, *options, python=peer.python)
            )

        sockets, ready = await served("sockets" if peer.broker else "both")
        agents = (await served("agents"))[0] if peer.broker else sockets
        load, _ = await stack.enter_async_context(child("the load client", "benchmarks.load"))
        opened = Session(peer, sockets, agents, load, ready["port"], threads)
        if threads:
            await opened.connect(0, threads, subscribers=subscribers, receive_buffer_bytes=buffer_bytes)
        opened.subscribers = subscribers
        yield opened
