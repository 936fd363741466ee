"""The two processes of a measurement, held from the experiment: one that carries, and one that reads."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import anyio
import msgspec

from bridgekit.errors import BridgekitError, first_error
from bridgekit.transport.tickets import KEY_BYTES
from bridgekit_verify.capacity import carrier, load
from bridgekit_verify.capacity.edges import Edge
from bridgekit_verify.capacity.pipe import (
    Ask,
    Carry,
    Connect,
    Connected,
    Done,
    Enough,
    Fill,
    Heard,
    Hold,
    Look,
    Looked,
    Open,
    Read,
    Ready,
    Said,
    Setup,
    Spoke,
)
from bridgekit_verify.capacity.schedule import Plan, Wave
from bridgekit_verify.capacity.step import WITHIN_SECONDS, Step
from bridgekit_verify.faults.processes import Child, ProcessGone, child

__all__ = ["ProcessSilent", "Site", "site"]

ANSWER_SECONDS: Final = 60.0
EACH_SECONDS: Final = 0.02
"""For each socket, thread or run that was asked for, so much longer."""
WAVE_SECONDS: Final = 120.0
"""How long a wave may take beyond its own length, on a machine that has much else to do."""
AHEAD_SECONDS: Final = 0.1
"""A wave begins so long after it was asked for: both processes know of it by then."""

_Answer = TypeVar("_Answer", bound=Said)
_said: Final[msgspec.json.Decoder[Said]] = msgspec.json.Decoder(Said)


class ProcessSilent(BridgekitError):
    """One of the two processes ended or did not answer. What it had to say stands on the standard error."""

    def __init__(self, who: str, wanted: str) -> None:
        super().__init__(f"the process that {who} gave no {wanted}; it may have said why on standard error")
        self.who = who
        self.wanted = wanted


class Site:
    """A server with agents, and its users' sockets: two processes of one machine."""

    def __init__(self, edge: Edge, carries: Child, reads: Child, key: bytes, port: int) -> None:
        self.edge = edge
        self._carries = carries
        self._reads = reads
        self._key = key
        self._port = port
        self._waves = 0
        self.threads = 0
        self.sockets = 0

    async def open(self, threads: int) -> None:
        """Make so many threads more."""
        await _asked(self._carries, "carries", Open(self.threads, self.threads + threads), Done)
        self.threads += threads

    async def connect(self, sockets: int) -> None:
        """Make so many threads more, each with its owner's socket."""
        first = self.threads
        await self.open(sockets)
        asked = Connect(self._port, self._key, first, self.threads)
        connected = await _asked(self._reads, "reads", asked, Connected, seconds=_patience(sockets))
        self.sockets = connected.sockets

    async def fill(self, threads: int) -> None:
        """Make so many threads more, each with the events of one run in its log, and without a socket."""
        first = self.threads
        await self.open(threads)
        await _asked(self._carries, "carries", Fill(first, self.threads), Done, seconds=_patience(threads))

    async def hold(self, runs: int) -> None:
        """Make so many threads more, with a run in each that has begun, and that waits."""
        first = self.threads
        await self.open(runs)
        await _asked(self._carries, "carries", Hold(first, self.threads), Done, seconds=_patience(runs))

    async def resident_kib(self) -> int:
        """Memory of the process that carries."""
        return (await _asked(self._carries, "carries", Look(), Looked)).resident_kib

    async def wave(self, events_per_second: float, plan: Plan, *, first: int, threads: int) -> Step:
        """Let so many events a second be due, in these threads."""
        self._waves += 1
        wave = Wave(
            name=f"wave {self._waves}",
            plan=plan,
            first=first,
            threads=threads,
            runs_per_second=events_per_second / plan.events,
            begins_at=time.time() + AHEAD_SECONDS,
        )
        seconds = WAVE_SECONDS + plan.seconds + plan.run_seconds
        await _tell(self._reads, "reads", Read(wave, WITHIN_SECONDS))
        spoke = await _asked(self._carries, "carries", Carry(wave), Spoke, seconds=seconds)
        heard = await _asked(self._reads, "reads", Enough(), Heard)
        return Step(wave, spoke, heard)


def _patience(many: int) -> float:
    return ANSWER_SECONDS + EACH_SECONDS * many


async def _tell(process: Child, who: str, asked: Ask) -> None:
    try:
        await process.send_line(msgspec.json.encode(asked).decode())
    except ProcessGone as error:
        raise ProcessSilent(who, type(asked).__name__) from error


async def _asked(
    process: Child, who: str, asked: Ask, wanted: type[_Answer], *, seconds: float = ANSWER_SECONDS
) -> _Answer:
    await _tell(process, who, asked)
    return await _answer(process, who, wanted, seconds)


async def _answer(process: Child, who: str, wanted: type[_Answer], seconds: float = ANSWER_SECONDS) -> _Answer:
    try:
        with anyio.fail_after(seconds):
            said = _said.decode(await process.line())
    except (TimeoutError, ProcessGone) as error:
        raise ProcessSilent(who, wanted.__name__) from error
    if not isinstance(said, wanted):
        raise ProcessSilent(who, wanted.__name__)
    return said


@asynccontextmanager
async def site(edge: Edge, *, store: str = "memory:") -> AsyncIterator[Site]:
    """Both processes, for the length of a block. At its end they are killed, and gone."""
    key = secrets.token_bytes(KEY_BYTES)
    with first_error():
        async with _program(carrier.__name__) as carries, _program(load.__name__) as reads:
            await carries.send_line(msgspec.json.encode(Setup(edge=edge.key, store=store, key=key)).decode())
            ready = await _answer(carries, "carries", Ready)
            await _answer(reads, "reads", Ready)
            yield Site(edge, carries, reads, key, ready.port)


@asynccontextmanager
async def _program(module: str) -> AsyncIterator[Child]:
    async with child([sys.executable, "-m", module]) as process:
        yield process
