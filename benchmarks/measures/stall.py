"""One subscriber stops reading. Does the emitter stop? Do its neighbours get their events? What is piled up?"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, replace
from typing import Final

from benchmarks.load.verification import WrongAnswer
from benchmarks.measures.latency import latencies
from benchmarks.measures.rounds import say
from benchmarks.peers import Peer
from benchmarks.series import Key, Series, quantile
from benchmarks.session import Session, session
from benchmarks.workload import EVENTS

__all__ = ["stall"]

THREADS: Final = 2
SUBSCRIBERS: Final = 5
"""Of each thread. One of the first thread's does not read."""
BUFFER_BYTES: Final = 16_384
"""Small, so that a reader who stops is felt at once and not after megabytes."""
PADDING_BYTES: Final = 8_192
GRACE_SECONDS: Final = 2.0


async def stall(series: Series, peer: Peer, *, per_second: float, seconds: float) -> None:
    """One stack, and an emitter for two threads of five sockets each: first all of them read, then one does not."""
    async with session(peer, threads=THREADS, subscribers=SUBSCRIBERS, buffer_bytes=BUFFER_BYTES) as opened:
        await _said(opened, per_second, seconds)
        await opened.load.ask("stall")
        found = await _said(opened, per_second, seconds)
        found["cut off"] = (await opened.load.ask("cut off"))["cut_off"]
    for what, value in found.items():
        series.add(Key(f"stall: {what}", peer.name), value)
    say(f"  {peer.name}: {', '.join(f'{what} {value:,.0f}' for what, value in found.items())}")


async def _said(opened: Session, per_second: float, seconds: float) -> dict[str, float]:
    """One wave. An event may be missing when the time is over, but what came must be right."""
    wave = opened.next_wave(max(1, round(per_second * seconds / EVENTS / THREADS)), padding_bytes=PADDING_BYTES)
    before, within = await opened.memory_kib(), seconds + GRACE_SECONDS
    await opened.load.ask("expect", events=wave.runs * EVENTS)
    said, received = await asyncio.gather(
        opened.agents.ask("speak in time", wave=asdict(wave), per_second=per_second, within=within, seconds=2 * within),
        opened.load.ask("receive", within=within, seconds=2 * within),
    )
    verdict = await opened.verdict(wave)
    if not replace(verdict, lost=0).sound:
        raise WrongAnswer(f"{opened.peer.name}: {verdict}")
    ms = [each / 1e6 for each in latencies(said["told"], (await opened.load.ask("arrivals"))["arrivals"])]
    return {
        "events said, %": 100 * len(said["told"]) / wave.events,
        "neighbours' events, %": 100 * received["read"] / verdict.expected,
        "neighbours' p99, ms": quantile(ms, 0.99),
        "emitter held up at most, ms": max(each[2] for each in said["told"]) / 1e6,
        "piled up, KiB": await opened.memory_kib() - before,
    }
