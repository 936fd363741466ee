"""What a connection holds that only waits, in the stack's processes; the system's own buffers are not in it."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.measures.rounds import say
from benchmarks.peers import Peer
from benchmarks.series import Key, Series
from benchmarks.session import session

__all__ = ["idle_connections"]

WARM_UP: int = 50
"""Connections before those that are counted: what a first one brings along is everybody's."""


async def idle_connections(series: Series, peers: Sequence[Peer], *, rounds: int, connections: int) -> None:
    """Resident memory with and without so many sockets, each of its own thread."""
    for _ in range(rounds):
        for peer in peers:
            async with session(peer, threads=WARM_UP) as opened:
                await opened.prepare(WARM_UP, WARM_UP + connections)
                before = await opened.memory_kib()
                await opened.connect(WARM_UP, WARM_UP + connections)
                each = (await opened.memory_kib() - before) / connections
            series.add(Key("KiB/idle connection", peer.name), each)
            say(f"  {peer.name}: {each:.1f} KiB an idle connection")
