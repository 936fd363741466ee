"""Stacks that take turns: A B C, A B C, and so on, so that what the machine does else falls on all of them alike."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from benchmarks.peers import Peer
from benchmarks.session import Session, session

__all__ = ["in_turn", "say"]


@asynccontextmanager
async def _kept(peers: Sequence[Peer], threads: int) -> AsyncIterator[list[Session]]:
    async with AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(session(each, threads=threads)) for each in peers]
        for each in sessions:
            await each.warm_up()
        yield sessions


async def in_turn(
    peers: Sequence[Peer], rounds: int, *, threads: int = 100, fresh: bool = True
) -> AsyncIterator[tuple[int, Session]]:
    """Each round's number and each stack's session.

    `fresh` gives each new processes in each round; otherwise they are kept over the rounds.
    """
    if not fresh:
        async with _kept(peers, threads) as sessions:
            for number in range(rounds):
                for kept in sessions:
                    yield number, kept
        return
    for number in range(rounds):
        for peer in peers:
            async with session(peer, threads=threads) as opened:
                await opened.warm_up()
                yield number, opened


def say(line: str) -> None:
    """Tell whoever waits how far it is."""
    print(line, file=sys.stderr, flush=True)
