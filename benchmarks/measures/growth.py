"""What an event costs where there is much besides: live threads, runs in the mapping, sockets that only wait."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from benchmarks.measures.rounds import say
from benchmarks.peers import Peer
from benchmarks.protocol import FillStack
from benchmarks.series import Series, SeriesKey
from benchmarks.session import Session, session, start_load_client
from bridgekit_verify.harness.messages import Done

__all__ = ["CROWDED", "EMPTY", "BackgroundLoad", "flatness", "growth", "steps"]

THREADS: Final = 10
"""Threads whose events are measured, one socket each."""
SPARE_FILES: Final = 200
"""What a process has open beside its sockets, at most."""
FILL_SECONDS: Final = 120.0
QUIET_SECONDS: Final = 3_600.0
POINTS: Final = 100
"""How often memory is looked at for the figure; for the verdict it is after every wave."""
SETTLED_RUNS: Final = 600
"""A thread's log holds its 1,000 events after 200 runs; then allocations have taken turns a few times more."""


@dataclass(frozen=True, slots=True)
class BackgroundLoad:
    """What there is beside the ten threads that are measured."""

    threads: int = 0
    mappings: int = 0
    sockets: int = 0

    def __str__(self) -> str:
        counts = {"live threads": self.threads, "mappings": self.mappings, "idle sockets": self.sockets}
        return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count) or "nothing besides"


EMPTY: Final = BackgroundLoad()
CROWDED: Final = BackgroundLoad(threads=10_000, mappings=1_000_000, sockets=10_000)


def steps(sizes: Mapping[str, Sequence[int]]) -> list[BackgroundLoad]:
    """Each kind of thing alone, in its sizes."""
    return [BackgroundLoad(**{what: size}) for what, each in sizes.items() for size in each]


@asynccontextmanager
async def _with_background(peer: Peer, besides: BackgroundLoad) -> AsyncIterator[Session]:
    """A session with all that. Its idle sockets are another client's, so that the one that reads is the same."""
    async with AsyncExitStack() as stack:
        # Pings are a cost of time, not of events: `idle_work` tells it apart.
        opened = await stack.enter_async_context(session(peer, threads=THREADS, keepalive_seconds=QUIET_SECONDS))
        if besides.threads or besides.mappings:
            await opened.sockets.request(FillStack(besides.threads, besides.mappings), Done, within=FILL_SECONDS)
        if besides.sockets:
            idle = await stack.enter_async_context(start_load_client("the idle clients"))
            await opened.connect(THREADS, THREADS + besides.sockets, load=idle)
        await opened.warm_up()
        yield opened


async def growth(series: Series, peer: Peer, crowds: Sequence[BackgroundLoad], *, rounds: int, runs: int) -> None:
    """CPU time an event with each crowd, and with none, in turn: all are up at the same time."""
    async with AsyncExitStack() as stack:
        backgrounds = (EMPTY, *crowds)
        opened = [await stack.enter_async_context(_with_background(peer, besides)) for besides in backgrounds]
        for _ in range(rounds):
            for besides, each in zip(backgrounds, opened, strict=True):
                report = await each.run_load("run", runs)
                series.add(SeriesKey("CPU µs/event", peer.name, str(besides)), report.cpu_us)
                say(f"  {peer.name}, {besides}: {report.cpu_us:.1f} µs CPU an event")


async def flatness(series: Series, peer: Peer, *, events: int) -> None:
    """Memory over many events, as a share of what it was when the logs had filled."""
    runs = 200
    async with session(peer, threads=THREADS) as opened:
        for _ in range(SETTLED_RUNS // runs):
            await opened.run_load("run", runs)
        begin = await opened.memory_kib()
        said, looked = 0, 0
        shares: list[float] = []
        while said < events:
            said += (await opened.run_load("run", runs)).events
            shares.append(await opened.memory_kib() / begin)
            if (said - looked) * POINTS >= events:
                looked = said
                series.add(SeriesKey("memory, share of the settled", peer.name), shares[-1])
                series.add(SeriesKey("memory, events so far", peer.name), said)
    series.add(SeriesKey("memory, most beside the settled", peer.name), max(shares))
    say(f"  {peer.name}: {shares[-1]:.3f} after {said:,} events, {max(shares):.3f} at most")
